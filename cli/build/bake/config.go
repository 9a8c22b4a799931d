package bake

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/zclconf/go-cty/cty"
)

// config evaluates everything.
func (m *module) config() (*Config, error) {
	c := &Config{}
	for _, key := range m.order {
		kind, name, _ := strings.Cut(key, ".")
		if kind == "group" {
			g, err := m.group(name)
			if err != nil {
				return nil, err
			}
			c.addGroup(g)
			continue
		}
		for _, b := range m.targets[name] {
			targets, err := m.blockTargets(name, b)
			if err != nil {
				return nil, err
			}
			for _, t := range targets {
				c.addTarget(t)
			}
			if len(targets) > 1 || len(targets) == 1 && targets[0].Name != name { // a matrix
				g := &Group{Name: name}
				for _, t := range targets {
					g.Targets = append(g.Targets, t.Name)
				}
				c.addGroup(g)
			}
		}
	}
	names := sortedKeys(m.variables)
	slices.SortFunc(names, func(a, b string) int { return m.variables[a].order - m.variables[b].order })
	for _, name := range names {
		v, err := m.name(name)
		if err != nil {
			return nil, err
		}
		shown := Variable{Name: name, Value: shownValue(v)}
		if d := m.variables[name].description; d != nil {
			if text, err := m.eval(d, nil); err == nil && text.Type() == cty.String && !text.IsNull() {
				shown.Description = text.AsString()
			}
		}
		if k := m.variables[name].kind; k != nil {
			if t, diags := typeexpr.TypeConstraint(k); !diags.HasErrors() {
				shown.Type = typeexpr.TypeString(t)
			}
		}
		c.Variables = append(c.Variables, shown)
	}
	return c, nil
}

func (m *module) group(name string) (*Group, error) {
	g := &Group{Name: name}
	for _, b := range m.groups[name] {
		content, diags := b.Body.Content(&hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: "targets"}, {Name: "description"}}})
		if diags.HasErrors() {
			return nil, diags
		}
		for attr, a := range content.Attributes {
			v, err := m.eval(a.Expr, nil)
			if err != nil {
				return nil, err
			}
			if attr == "description" {
				err = intoText(v, &g.Description)
			} else {
				err = intoList(v, &g.Targets)
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", a.Range, err)
			}
		}
	}
	return g, nil
}

// blockTargets gives the targets of one block: one, or with a matrix one for each combination.
func (m *module) blockTargets(name string, b *hcl.Block) ([]*Target, error) {
	attrs, diags := b.Body.JustAttributes()
	if diags.HasErrors() {
		return nil, diags
	}
	if attrs["matrix"] == nil {
		if attrs["name"] != nil {
			return nil, fmt.Errorf("%s: name is only allowed with a matrix", attrs["name"].Range)
		}
		t, err := m.decode(name, attrs, nil)
		if err != nil {
			return nil, err
		}
		return []*Target{t}, nil
	}
	if attrs["name"] == nil {
		return nil, fmt.Errorf("%s: a target with a matrix needs a name", attrs["matrix"].Range)
	}
	matrix, err := m.eval(attrs["matrix"].Expr, nil)
	if err != nil {
		return nil, err
	}
	rows, err := combinations(matrix)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", attrs["matrix"].Range, err)
	}
	var targets []*Target
	for _, row := range rows {
		v, err := m.eval(attrs["name"].Expr, row)
		if err != nil {
			return nil, err
		}
		var own string
		if err := intoText(v, &own); err != nil {
			return nil, err
		}
		own = strings.ReplaceAll(own, ".", "_")
		if !validName(own) {
			return nil, fmt.Errorf("invalid target name %q: only %q are allowed", own, "[a-zA-Z0-9_-]+")
		}
		if slices.ContainsFunc(targets, func(t *Target) bool { return t.Name == own }) {
			return nil, fmt.Errorf("%s: duplicate matrix target name %q", attrs["name"].Range, own)
		}
		t, err := m.decode(own, attrs, row)
		if err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	return targets, nil
}

// combinations gives each choice of one value for each name of a matrix.
func combinations(matrix cty.Value) ([]map[string]cty.Value, error) {
	if matrix.IsNull() || !matrix.CanIterateElements() || !(matrix.Type().IsObjectType() || matrix.Type().IsMapType()) {
		return nil, errors.New("matrix must be a map")
	}
	rows := []map[string]cty.Value{{}}
	for it := matrix.ElementIterator(); it.Next(); {
		k, list := it.Element()
		if list.IsNull() || !list.CanIterateElements() {
			return nil, fmt.Errorf("matrix values must be lists: %s", k.AsString())
		}
		var more []map[string]cty.Value
		for _, row := range rows {
			for vi := list.ElementIterator(); vi.Next(); {
				_, v := vi.Element()
				next := map[string]cty.Value{k.AsString(): v}
				for rk, rv := range row {
					next[rk] = rv
				}
				more = append(more, next)
			}
		}
		if rows = more; len(rows) > 10_000 {
			return nil, errors.New("a matrix of more than 10000 targets")
		}
	}
	return rows, nil
}

func (c *Config) addTarget(t *Target) {
	if have := c.target(t.Name); have != nil {
		have.merge(t)
		return
	}
	c.Targets = append(c.Targets, t)
}

func (c *Config) addGroup(g *Group) {
	have := c.group(g.Name)
	if have == nil {
		c.Groups = append(c.Groups, g)
		return
	}
	if g.Description != "" {
		have.Description = g.Description
	}
	have.Targets = unique(append(have.Targets, g.Targets...), func(s string) string { return s })
}
