package bake

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"berth/cli/build/request"
)

// An object is an output, cache, secret, agent or attestation: attributes by name. In a file it may also be the text of the command line's flag.
type object map[string]string

// String is the flag's text.
func (o object) String() string {
	if o["type"] == "registry" && len(o) == 2 && o["ref"] != "" {
		return o["ref"]
	}
	var first []string
	for _, k := range []string{"type", "id", "dest", "src", "env"} {
		if v, ok := o[k]; ok {
			first = append(first, k+"="+v)
		}
	}
	rest := maps.Clone(o)
	for _, k := range []string{"type", "id", "dest", "src", "env"} {
		delete(rest, k)
	}
	return request.Join(first, rest)
}

// ssh is the text of an agent.
func (o object) ssh() string {
	if o["paths"] == "" {
		return o["id"]
	}
	return o["id"] + "=" + o["paths"]
}

// MarshalJSON prints an agent's paths as a list.
func (o object) MarshalJSON() ([]byte, error) {
	m := map[string]any{}
	for k, v := range o {
		m[k] = v
		if k == "paths" {
			m[k] = strings.Split(v, ",")
		}
	}
	return json.Marshal(m)
}

func texts(objects []object) []string {
	var out []string
	for _, o := range objects {
		out = append(out, o.String())
	}
	return out
}

// A kindOf reads the text of one flag into objects.
type kindOf func(text string) ([]object, error)

func attestObjects(text string) ([]object, error) {
	all, err := request.ParseAttests([]string{text}, "", "")
	var out []object
	for _, a := range all {
		o := withAttrs(object{"type": a.Type}, a.Attrs)
		if a.Disabled {
			o["disabled"] = "true"
		}
		out = append(out, o)
	}
	return out, err
}

func cacheObjects(text string) ([]object, error) {
	all, err := request.ParseCaches([]string{text})
	var out []object
	for _, c := range all {
		out = append(out, withAttrs(object{"type": c.Type}, c.Attrs))
	}
	return out, err
}

func outputObjects(text string) ([]object, error) {
	all, err := request.ParseOutputs([]string{text})
	var out []object
	for _, x := range all {
		o := withAttrs(object{"type": x.Type}, x.Attrs)
		if x.Dest != "" {
			o["dest"] = x.Dest
		}
		out = append(out, o)
	}
	return out, err
}

func secretObjects(text string) ([]object, error) {
	all, err := request.ParseSecrets([]string{text})
	var out []object
	for _, s := range all {
		o := object{}
		for k, v := range map[string]string{"id": s.ID, "src": s.Path, "env": s.Env} {
			if v != "" {
				o[k] = v
			}
		}
		out = append(out, o)
	}
	return out, err
}

func sshObjects(text string) ([]object, error) {
	var out []object
	for _, s := range request.ParseSSH([]string{text}) {
		o := object{"id": s.ID}
		if len(s.Paths) > 0 {
			o["paths"] = strings.Join(s.Paths, ",")
		}
		out = append(out, o)
	}
	return out, nil
}

func withAttrs(o object, attrs map[string]string) object {
	maps.Copy(o, attrs)
	return o
}

// sortedKeys are m's keys in order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
