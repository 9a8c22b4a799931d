package bake

import (
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/ext/userfunc"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	hcljson "github.com/hashicorp/hcl/v2/json"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"
)

// A Variable is one that files declare, as `bake --list variables` prints it.
type Variable struct {
	Name        string  `json:"name"`
	Description string  `json:"description,omitempty"`
	Type        string  `json:"type,omitempty"`
	Value       *string `json:"value,omitempty"` // nil is null
}

// A module is what HCL and JSON files say, before evaluation. Names are evaluated when somebody needs them.
type module struct {
	env       map[string]string
	given     map[string]string // built in, and given on the command line
	variables map[string]*variable
	attrs     map[string]hcl.Expression // at the top of a file
	targets   map[string][]*hcl.Block   // by name: several files, or blocks, may say something about one
	groups    map[string][]*hcl.Block
	order     []string // of targets and groups, "target.X" and "group.X"
	values    map[string]cty.Value
	busy      map[string]bool // being evaluated
	functions map[string]function.Function
}

type variable struct {
	def, description, kind hcl.Expression
	checks                 []*hcl.Block
	order                  int
}

func newModule(given, env map[string]string) *module {
	return &module{
		env: env, given: given, variables: map[string]*variable{}, attrs: map[string]hcl.Expression{}, targets: map[string][]*hcl.Block{},
		groups: map[string][]*hcl.Block{}, values: map[string]cty.Value{}, busy: map[string]bool{}, functions: standardFunctions(),
	}
}

var moduleBlocks = []hcl.BlockHeaderSchema{
	{Type: "variable", LabelNames: []string{"name"}},
	{Type: "function", LabelNames: []string{"name"}},
	{Type: "target", LabelNames: []string{"name"}},
	{Type: "group", LabelNames: []string{"name"}},
}

// addHCL and addJSON read a file's text into the module.
func (m *module) addHCL(name string, text []byte) error {
	f, diags := hclsyntax.ParseConfig(text, name, hcl.Pos{Line: 1, Column: 1})
	if diags.HasErrors() {
		return diags
	}
	return m.add(f.Body)
}

func (m *module) addJSON(name string, text []byte) error {
	f, diags := hcljson.Parse(text, name)
	if diags.HasErrors() {
		return diags
	}
	return m.add(f.Body)
}

func (m *module) add(body hcl.Body) error {
	content, rest, diags := body.PartialContent(&hcl.BodySchema{Blocks: moduleBlocks})
	if diags.HasErrors() {
		return diags
	}
	attrs, diags := topAttributes(body, rest)
	if diags.HasErrors() {
		return diags
	}
	for name, a := range attrs {
		m.attrs[name] = a.Expr
	}
	for _, b := range content.Blocks {
		name := b.Labels[0]
		switch b.Type {
		case "variable":
			if err := m.declare(name, b); err != nil {
				return err
			}
		case "function":
			continue // below, all of a file at once
		default:
			if !validName(name) && b.Type == "target" {
				return fmt.Errorf("invalid target name %q: only %q are allowed", name, "[a-zA-Z0-9_-]+")
			}
			into := m.targets
			if b.Type == "group" {
				into = m.groups
			}
			if into[name] == nil {
				m.order = append(m.order, b.Type+"."+name)
			}
			into[name] = append(into[name], b)
		}
	}
	funcs, _, diags := userfunc.DecodeUserFunctions(body, "function", m.functionScope)
	if diags.HasErrors() {
		return diags
	}
	for name, f := range funcs {
		m.functions[name] = f
	}
	return nil
}

// topAttributes are the attributes at a file's top. In HCL's own syntax the rest of a body still has the blocks that were taken.
func topAttributes(body, rest hcl.Body) (hcl.Attributes, hcl.Diagnostics) {
	own, ok := body.(*hclsyntax.Body)
	if !ok {
		return rest.JustAttributes()
	}
	for _, b := range own.Blocks {
		if !slices.ContainsFunc(moduleBlocks, func(h hcl.BlockHeaderSchema) bool { return h.Type == b.Type }) {
			return nil, hcl.Diagnostics{{
				Severity: hcl.DiagError, Summary: "Unsupported block type",
				Detail: fmt.Sprintf("Blocks of type %q are not expected here.", b.Type), Subject: &b.TypeRange,
			}}
		}
	}
	attrs := hcl.Attributes{}
	for name, a := range own.Attributes {
		attrs[name] = a.AsHCLAttribute()
	}
	return attrs, nil
}

func validName(name string) bool {
	for _, c := range name {
		if !(c == '_' || c == '-' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z') {
			return false
		}
	}
	return name != ""
}

func (m *module) declare(name string, b *hcl.Block) error {
	content, diags := b.Body.Content(&hcl.BodySchema{
		Attributes: []hcl.AttributeSchema{{Name: "default"}, {Name: "description"}, {Name: "type"}},
		Blocks:     []hcl.BlockHeaderSchema{{Type: "validation"}},
	})
	if diags.HasErrors() {
		return diags
	}
	v := m.variables[name]
	if v == nil {
		v = &variable{order: len(m.variables)}
		m.variables[name] = v
	}
	for attr, to := range map[string]*hcl.Expression{"default": &v.def, "description": &v.description, "type": &v.kind} {
		if a, ok := content.Attributes[attr]; ok {
			*to = a.Expr
		}
	}
	v.checks = append(v.checks, content.Blocks...)
	return nil
}

// functionScope is what the bodies of functions see: all variables that can be evaluated.
func (m *module) functionScope() *hcl.EvalContext {
	names := append(sortedKeys(m.variables), sortedKeys(m.attrs)...)
	for name := range m.given {
		names = append(names, name)
	}
	values := map[string]cty.Value{}
	for _, name := range names {
		if v, err := m.name(name); err == nil {
			values[name] = v
		}
	}
	return &hcl.EvalContext{Variables: values, Functions: m.functions}
}

// eval evaluates an expression with what it refers to, and the values of around.
func (m *module) eval(e hcl.Expression, around map[string]cty.Value) (cty.Value, error) {
	scope := &hcl.EvalContext{Variables: map[string]cty.Value{}, Functions: m.functions}
	for k, v := range around {
		scope.Variables[k] = v
	}
	targets := map[string]cty.Value{}
	for _, ref := range e.Variables() {
		root := ref.RootName()
		if _, ok := around[root]; ok {
			continue
		}
		if root == "target" && len(ref) > 1 {
			name := stepName(ref[1])
			if _, ok := targets[name]; name == "" || ok {
				continue
			}
			v, err := m.targetValue(name)
			if err != nil {
				return cty.NilVal, err
			}
			targets[name] = v
			continue
		}
		v, err := m.name(root)
		if errors.Is(err, errUnknown) {
			continue // HCL says it best, and try() may not mind
		}
		if err != nil {
			return cty.NilVal, err
		}
		scope.Variables[root] = v
	}
	if len(targets) > 0 {
		scope.Variables["target"] = cty.ObjectVal(targets)
	}
	v, diags := e.Value(scope)
	if diags.HasErrors() {
		return cty.NilVal, diags
	}
	return v, nil
}

func stepName(step hcl.Traverser) string {
	switch s := step.(type) {
	case hcl.TraverseAttr:
		return s.Name
	case hcl.TraverseIndex:
		if s.Key.Type() == cty.String {
			return s.Key.AsString()
		}
	}
	return ""
}

var errUnknown = errors.New("unknown name")

// name evaluates a variable or an attribute.
func (m *module) name(name string) (cty.Value, error) {
	if v, ok := m.values[name]; ok {
		return v, nil
	}
	if m.busy[name] {
		return cty.NilVal, fmt.Errorf("variable cycle not allowed for %s", name)
	}
	m.busy[name] = true
	defer delete(m.busy, name)
	var v cty.Value
	var err error
	switch {
	case m.variables[name] != nil:
		v, err = m.variable(name, m.variables[name])
	case m.attrs[name] != nil:
		v, err = m.eval(m.attrs[name], nil)
	default:
		text, ok := m.given[name]
		if !ok {
			return cty.NilVal, errUnknown
		}
		v = cty.StringVal(text)
	}
	if err != nil {
		return cty.NilVal, err
	}
	m.values[name] = v
	return v, nil
}

// variable gives a variable's value: what was given, else the environment's, else its default.
func (m *module) variable(name string, v *variable) (cty.Value, error) {
	kind := cty.DynamicPseudoType
	if v.kind != nil {
		t, diags := typeexpr.TypeConstraint(v.kind)
		if diags.HasErrors() {
			return cty.NilVal, diags
		}
		kind = t
	}
	val := cty.NullVal(kind)
	if v.def != nil {
		var err error
		if val, err = m.eval(v.def, nil); err != nil {
			return cty.NilVal, err
		}
		if v.kind != nil {
			if val, err = convert.Convert(val, kind); err != nil {
				return cty.NilVal, fmt.Errorf("%s: invalid type: default value for %s: %w", v.def.Range(), name, err)
			}
		}
	} else if v.kind == nil {
		val, kind = cty.StringVal(""), cty.String
	}
	text, ok := m.given[name]
	if !ok {
		text, ok = m.env[name]
	}
	if ok {
		if v.kind == nil {
			kind = val.Type()
		}
		var err error
		if val, err = fromText(name, text, kind); err != nil {
			return cty.NilVal, err
		}
	} else if v.kind != nil && !kind.IsPrimitiveType() {
		if text, ok := m.env[name+"_JSON"]; ok {
			var err error
			if val, err = fromJSON(name, text, kind); err != nil {
				return cty.NilVal, err
			}
		}
	}
	return val, m.check(name, val, v.checks)
}

// check holds a variable against its validation blocks.
func (m *module) check(name string, val cty.Value, checks []*hcl.Block) error {
	for _, b := range checks {
		content, diags := b.Body.Content(&hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: "condition", Required: true}, {Name: "error_message"}}})
		if diags.HasErrors() {
			return diags
		}
		around := map[string]cty.Value{name: val}
		ok, err := m.eval(content.Attributes["condition"].Expr, around)
		if err != nil {
			return err
		}
		if !ok.IsKnown() || ok.IsNull() || ok.Type() != cty.Bool || ok.True() {
			continue
		}
		message := "This check failed, but has an invalid error message."
		if a, ok := content.Attributes["error_message"]; ok {
			if text, err := m.eval(a.Expr, around); err == nil && text.Type() == cty.String && !text.IsNull() {
				message = text.AsString()
			}
		}
		return fmt.Errorf("%s: Validation failed; %s", b.DefRange, message)
	}
	return nil
}

// targetValue is what another block may refer to: the attributes that a target's own blocks have.
func (m *module) targetValue(name string) (cty.Value, error) {
	key := "target." + name
	if v, ok := m.values[key]; ok {
		return v, nil
	}
	if m.busy[key] {
		return cty.NilVal, fmt.Errorf("reference cycle not allowed for %s", key)
	}
	blocks := m.targets[name]
	if blocks == nil {
		return cty.NilVal, fmt.Errorf("failed to find target %s", name)
	}
	m.busy[key] = true
	defer delete(m.busy, key)
	values := map[string]cty.Value{}
	for _, b := range blocks {
		attrs, diags := b.Body.JustAttributes()
		if diags.HasErrors() {
			return cty.NilVal, diags
		}
		for attr, a := range attrs {
			if attr == "matrix" || attr == "name" {
				continue
			}
			v, err := m.eval(a.Expr, nil)
			if err != nil {
				return cty.NilVal, err
			}
			values[attr] = v
		}
	}
	for attr, standard := range map[string]string{"context": ".", "dockerfile": "Dockerfile"} {
		if _, ok := values[attr]; !ok {
			values[attr] = cty.StringVal(standard)
		}
	}
	v := cty.ObjectVal(values)
	m.values[key] = v
	return v, nil
}
