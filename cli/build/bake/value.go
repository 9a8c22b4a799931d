package bake

import (
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/tonistiigi/go-csvvalue"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// decode makes a target of a block's attributes.
func (m *module) decode(name string, attrs hcl.Attributes, around map[string]cty.Value) (*Target, error) {
	t := &Target{Name: name}
	fields := t.fields()
	for _, attr := range sortedKeys(attrs) {
		if attr == "matrix" || attr == "name" {
			continue
		}
		a := attrs[attr]
		read, ok := fields[attr]
		if !ok {
			return nil, fmt.Errorf("%s: Unsupported argument; an argument named %q is not expected here", a.NameRange, attr)
		}
		v, err := m.eval(a.Expr, around)
		if err != nil {
			return nil, err
		}
		if v.IsNull() {
			continue
		}
		if !v.IsWhollyKnown() {
			return nil, fmt.Errorf("%s: the value of %s is not known", a.Range, attr)
		}
		if err := read(v); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", a.Range, attr, err)
		}
	}
	return t, nil
}

// fields says how each attribute of a target is read.
func (t *Target) fields() map[string]func(cty.Value) error {
	pointer := func(to **string) func(cty.Value) error {
		return func(v cty.Value) error {
			var s string
			if err := intoText(v, &s); err != nil {
				return err
			}
			*to = &s
			return nil
		}
	}
	list := func(to *[]string) func(cty.Value) error { return func(v cty.Value) error { return intoList(v, to) } }
	table := func(to *map[string]*string) func(cty.Value) error {
		return func(v cty.Value) error { return intoMap(v, to) }
	}
	flag := func(to **bool) func(cty.Value) error {
		return func(v cty.Value) error {
			b, err := convert.Convert(v, cty.Bool)
			if err != nil {
				return err
			}
			on := b.True()
			*to = &on
			return nil
		}
	}
	objects := func(to *[]object, read kindOf) func(cty.Value) error {
		return func(v cty.Value) error { return intoObjects(v, to, read) }
	}
	plainTable := func(to *map[string]string) func(cty.Value) error {
		return func(v cty.Value) error {
			var m map[string]*string
			if err := intoMap(v, &m); err != nil {
				return err
			}
			*to = plain(m)
			return nil
		}
	}
	return map[string]func(cty.Value) error{
		"description": func(v cty.Value) error { return intoText(v, &t.Description) },
		"inherits":    list(&t.Inherits), "annotations": list(&t.Annotations), "tags": list(&t.Tags), "platforms": list(&t.Platforms),
		"no-cache-filter": list(&t.NoCacheFilter), "ulimits": list(&t.Ulimits), "entitlements": list(&t.Entitlements),
		"context": pointer(&t.Context), "dockerfile": pointer(&t.Dockerfile), "dockerfile-inline": pointer(&t.DockerfileInline),
		"target": pointer(&t.Target), "network": pointer(&t.Network), "shm-size": pointer(&t.ShmSize), "call": pointer(&t.Call),
		"contexts": plainTable(&t.Contexts), "resources": plainTable(&t.Resources),
		"args": table(&t.Args), "labels": table(&t.Labels), "extra-hosts": table(&t.ExtraHosts),
		"pull": flag(&t.Pull), "no-cache": flag(&t.NoCache),
		"attest": objects(&t.Attest, attestObjects), "cache-from": objects(&t.CacheFrom, cacheObjects), "cache-to": objects(&t.CacheTo, cacheObjects),
		"secret": objects(&t.Secrets, secretObjects), "ssh": objects(&t.SSH, sshObjects), "output": objects(&t.Outputs, outputObjects),
		"policy": func(cty.Value) error { return errors.New("policies of a target are not supported") },
	}
}

func intoText(v cty.Value, to *string) error {
	s, err := convert.Convert(v, cty.String)
	if err != nil {
		return err
	}
	if !s.IsNull() {
		*to = s.AsString()
	}
	return nil
}

func intoList(v cty.Value, to *[]string) error {
	if !isSequence(v) {
		return errors.New("a list of strings is needed")
	}
	list := []string{}
	for it := v.ElementIterator(); it.Next(); {
		_, e := it.Element()
		if e.IsNull() {
			continue
		}
		var s string
		if err := intoText(e, &s); err != nil {
			return err
		}
		if s != "" { // as a condition gives when it does not hold
			list = append(list, s)
		}
	}
	*to = list
	return nil
}

func intoMap(v cty.Value, to *map[string]*string) error {
	if !v.CanIterateElements() || isSequence(v) {
		return errors.New("a map of strings is needed")
	}
	out := map[string]*string{}
	for it := v.ElementIterator(); it.Next(); {
		k, e := it.Element()
		if e.IsNull() {
			out[k.AsString()] = nil
			continue
		}
		var s string
		if err := intoText(e, &s); err != nil {
			return fmt.Errorf("%s: %w", k.AsString(), err)
		}
		out[k.AsString()] = &s
	}
	*to = out
	return nil
}

// intoObjects reads a list of texts and objects.
func intoObjects(v cty.Value, to *[]object, read kindOf) error {
	if !isSequence(v) {
		return errors.New("a list is needed")
	}
	list := []object{}
	for it := v.ElementIterator(); it.Next(); {
		_, e := it.Element()
		switch {
		case e.IsNull():
		case e.Type() == cty.String:
			if e.AsString() == "" {
				continue
			}
			more, err := read(e.AsString())
			if err != nil {
				return err
			}
			list = append(list, more...)
		case e.CanIterateElements() && !isSequence(e):
			o := object{}
			for oi := e.ElementIterator(); oi.Next(); {
				k, x := oi.Element()
				if x.IsNull() {
					continue
				}
				var s string
				if isSequence(x) {
					var all []string
					if err := intoList(x, &all); err != nil {
						return err
					}
					s = strings.Join(all, ",")
				} else if err := intoText(x, &s); err != nil {
					return err
				}
				o[k.AsString()] = s
			}
			list = append(list, o)
		default:
			return errors.New("each element is a string or an object")
		}
	}
	*to = list
	return nil
}

func isSequence(v cty.Value) bool {
	t := v.Type()
	return t.IsTupleType() || t.IsListType() || t.IsSetType()
}

// fromText reads a variable's value as the environment has it: a number, a truth, text, or the elements of a list as CSV.
func fromText(name, text string, kind cty.Type) (cty.Value, error) {
	if kind == cty.DynamicPseudoType || kind == cty.String {
		return cty.StringVal(text), nil
	}
	if kind.IsPrimitiveType() {
		v, err := convert.Convert(cty.StringVal(text), kind)
		if err != nil {
			return cty.NilVal, fmt.Errorf("failed to parse %s as %s", name, kind.FriendlyName())
		}
		return v, nil
	}
	if kind.IsListType() || kind.IsSetType() || kind.IsTupleType() {
		fields, err := csvvalue.Fields(text, nil)
		if err != nil {
			return cty.NilVal, fmt.Errorf("failed to parse %s: %w", name, err)
		}
		var list []cty.Value
		for _, f := range fields {
			list = append(list, cty.StringVal(f))
		}
		v, err := convert.Convert(cty.TupleVal(list), kind)
		if err != nil {
			return cty.NilVal, fmt.Errorf("failed to parse %s as %s: %w", name, kind.FriendlyName(), err)
		}
		return v, nil
	}
	return cty.NilVal, fmt.Errorf("unsupported type %s for variable %s: set %s_JSON", kind.FriendlyName(), name, name)
}

func fromJSON(name, text string, kind cty.Type) (cty.Value, error) {
	v, err := ctyjson.Unmarshal([]byte(text), kind)
	if err != nil {
		return cty.NilVal, fmt.Errorf("failed to parse %s_JSON: %w", name, err)
	}
	return v, nil
}

// shownValue is a value for people.
func shownValue(v cty.Value) *string {
	if v.IsNull() {
		return nil
	}
	var s string
	if v.Type().IsPrimitiveType() && intoText(v, &s) == nil {
		return &s
	}
	text, err := ctyjson.Marshal(v, v.Type())
	if err != nil {
		return &s
	}
	s = string(text)
	return &s
}
