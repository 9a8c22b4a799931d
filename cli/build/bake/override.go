package bake

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// A change is what --set says about one key of a target.
type change struct {
	key    string // context, args, …
	name   string // of args, labels, …: which
	values []string
	grow   bool // += : add to what is there
}

// overrides reads --set texts, PATTERN.KEY[.NAME][+]=VALUE, by target. Values of one key come together, in order.
func (c *Config) overrides(texts []string) (map[string][]change, error) {
	all := map[string][]change{}
	for _, text := range texts {
		left, v, has := strings.Cut(text, "=")
		left, grow := strings.CutSuffix(left, "+")
		parts := strings.SplitN(left, ".", 3)
		if len(parts) < 2 {
			return nil, fmt.Errorf("invalid override key %s, expected target.name", left)
		}
		key, name := parts[1], ""
		if len(parts) == 3 {
			name = parts[2]
		}
		if !has && key != "args" {
			return nil, fmt.Errorf("invalid override %s, expected target.name=value", text)
		}
		switch key {
		case "args", "contexts", "labels", "resources", "secret", "extra-hosts":
			if name == "" {
				return nil, fmt.Errorf("invalid key %s, %s requires name", left, key)
			}
		}
		if !has {
			if v, has = os.LookupEnv(name); !has {
				continue
			}
		}
		targets, err := c.expand(parts[0])
		if err != nil {
			return nil, err
		}
		for _, t := range targets {
			list := all[t]
			if last := len(list) - 1; last >= 0 && list[last].key == key && list[last].name == name && isList(key) {
				list[last].values = append(list[last].values, v)
				continue
			}
			all[t] = append(list, change{key: key, name: name, values: []string{v}, grow: grow})
		}
	}
	return all, nil
}

// expand gives the targets that a pattern of --set means, by groups too.
func (c *Config) expand(pattern string) ([]string, error) {
	names, err := c.match(pattern)
	if err != nil {
		return nil, err
	}
	var targets []string
	for _, n := range names {
		members, _ := c.members(n, map[string]bool{})
		targets = append(targets, members...)
	}
	for _, t := range targets {
		if c.target(t) == nil {
			return nil, fmt.Errorf("could not find any target matching '%s'", pattern)
		}
	}
	return unique(targets, func(s string) string { return s }), nil
}

func isList(key string) bool {
	switch key {
	case "output", "cache-to", "cache-from", "tags", "platform", "secrets", "ssh", "attest", "entitlements", "annotations", "no-cache-filter", "ulimits":
		return true
	}
	return false
}

func (ch change) apply(t *Target) error {
	v := ch.values[len(ch.values)-1]
	var err error
	switch ch.key {
	case "context":
		t.Context = &v
	case "dockerfile":
		t.Dockerfile = &v
	case "target":
		t.Target = &v
	case "call":
		t.Call = &v
	case "network":
		t.Network = &v
	case "shm-size":
		t.ShmSize = &v
	case "pull":
		t.Pull, err = parseBool(ch.key, v)
	case "no-cache":
		t.NoCache, err = parseBool(ch.key, v)
	case "args":
		t.Args = grow(t.Args, map[string]*string{ch.name: &v})
	case "labels":
		t.Labels = grow(t.Labels, map[string]*string{ch.name: &v})
	case "extra-hosts":
		t.ExtraHosts = grow(t.ExtraHosts, map[string]*string{ch.name: &v})
	case "contexts":
		t.merge(&Target{Contexts: map[string]string{ch.name: v}})
	case "resources":
		t.merge(&Target{Resources: map[string]string{ch.name: v}})
	case "tags":
		ch.list(&t.Tags)
	case "platform":
		ch.list(&t.Platforms)
	case "no-cache-filter":
		ch.list(&t.NoCacheFilter)
	case "ulimits":
		ch.list(&t.Ulimits)
	case "entitlements":
		t.Entitlements = append(t.Entitlements, ch.values...)
	case "annotations":
		t.Annotations = append(t.Annotations, ch.values...)
	case "output":
		err = ch.objects(&t.Outputs, outputObjects)
	case "cache-from":
		err = ch.objects(&t.CacheFrom, cacheObjects)
	case "cache-to":
		err = ch.objects(&t.CacheTo, cacheObjects)
	case "secrets":
		err = ch.objects(&t.Secrets, secretObjects)
	case "ssh":
		err = ch.objects(&t.SSH, sshObjects)
	case "secret":
		err = ch.secret(t)
	case "attest":
		var more []object
		if err = ch.objects(&more, attestObjects); err == nil {
			t.Attest = joinBy(t.Attest, more, "type")
		}
	case "push", "load":
		err = ch.shorthand(t, v)
	default:
		return fmt.Errorf("unknown key: %s", ch.key)
	}
	return err
}

func (ch change) list(to *[]string) {
	if !ch.grow {
		*to = nil
	}
	*to = append(slices.Clone(*to), ch.values...)
}

func (ch change) objects(to *[]object, read kindOf) error {
	if !ch.grow {
		*to = nil
	}
	for _, text := range ch.values {
		more, err := read(text)
		if err != nil {
			return fmt.Errorf("invalid value for %s: %w", ch.key, err)
		}
		*to = append(slices.Clone(*to), more...)
	}
	return nil
}

// secret says where a declared secret comes from.
func (ch change) secret(t *Target) error {
	for i, s := range t.Secrets {
		if s["id"] != ch.name {
			continue
		}
		var more []object
		if err := ch.objects(&more, secretObjects); err != nil {
			return err
		}
		o := object{"id": ch.name}
		for _, k := range []string{"src", "env"} {
			if v := more[0][k]; v != "" {
				o[k] = v
			}
		}
		t.Secrets = slices.Clone(t.Secrets)
		t.Secrets[i] = o
		return nil
	}
	return fmt.Errorf("secret %q must be declared before it can be overridden", ch.name)
}

// shorthand is --push and --load: what is an image goes to its registry or stays here.
func (ch change) shorthand(t *Target, v string) error {
	on, err := parseBool(ch.key, v)
	if err != nil || !*on {
		return err
	}
	found := false
	t.Outputs = slices.Clone(t.Outputs) // the files' own are shared by targets
	for i, o := range t.Outputs {
		switch {
		case ch.key == "push" && (o["type"] == "image" || o["type"] == "registry"):
			t.Outputs[i] = withAttrs(maps.Clone(o), map[string]string{"push": "true"})
			found = true
		case ch.key == "load" && o["type"] == "docker" && o["dest"] == "":
			found = true
		}
	}
	switch {
	case found:
	case ch.key == "push":
		t.Outputs = append(t.Outputs, object{"type": "image", "push": "true"})
	default:
		t.Outputs = append(t.Outputs, object{"type": "docker"})
	}
	return nil
}
