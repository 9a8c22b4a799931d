package solver

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	spb "github.com/moby/buildkit/sourcepolicy/pb"

	"berth/base/fault"
	"berth/build/graph"
)

// maxConversions bounds how often policies may turn one source into another.
const maxConversions = 20

// source gives the source of a vertex, after the policies have had their say.
func (b *Build) source(ctx context.Context, v *graph.Vertex) (Source, error) {
	if len(b.cfg.Policies) > 0 {
		op, err := b.Permit(v.Op.GetSource())
		if err != nil {
			return nil, fault.In(err, "error evaluating the source policy")
		}
		if op != v.Op.GetSource() {
			changed, whole := *v, v.Op.CloneVT()
			whole.Op = &pb.Op_Source{Source: op}
			changed.Op = whole
			v = &changed
		}
	}
	return b.s.cfg.Source(v)
}

// CheckPolicies refuses policies that cannot be applied, however the sources may look. Clients know BuildKit's words.
func CheckPolicies(list ...*spb.Policy) error {
	for _, p := range list {
		if p == nil {
			return fault.New(fault.Invalid, "invalid nil policy")
		}
		for _, r := range p.Rules {
			if r == nil {
				return fault.New(fault.Invalid, "invalid nil rule in policy")
			}
			if r.Selector == nil {
				return fault.New(fault.Invalid, "invalid nil selector in policy")
			}
			if slices.Contains(r.Selector.Constraints, nil) {
				return fault.New(fault.Invalid, "invalid nil constraint in policy")
			}
		}
	}
	return nil
}

// Permit applies the build's policies to a source, and more if there are any: it gives the source itself, another one that a policy puts in its
// place, or Forbidden. So it does with what the source is fetched from.
func (b *Build) Permit(op *pb.SourceOp, more ...*spb.Policy) (*pb.SourceOp, error) {
	policies := append(slices.Clip(b.cfg.Policies), more...)
	op, err := b.permit(policies, op)
	if err != nil || b.s == nil || b.s.cfg.Nested == nil {
		return op, err
	}
	inner, with, err := b.s.cfg.Nested(op)
	if inner == nil || err != nil {
		return op, err
	}
	other, err := b.permit(policies, inner)
	if err != nil || other == inner {
		return op, err
	}
	return with(other), nil
}

func (b *Build) permit(policies []*spb.Policy, op *pb.SourceOp) (*pb.SourceOp, error) {
	canonical := func(id string) string { return id }
	if b.s != nil && b.s.cfg.Canonical != nil {
		canonical = b.s.cfg.Canonical
	}
	for range maxConversions {
		next, err := permitOnce(policies, op, canonical(op.GetIdentifier()))
		if err != nil || next == nil {
			return op, err
		}
		op = next
	}
	return nil, fault.New(fault.Invalid, "too many mutations on a single source")
}

// permitOnce gives the first conversion that changes the source, which is called name, or nil. Of rules that allow and deny
// the last that matches counts.
func permitOnce(policies []*spb.Policy, op *pb.SourceOp, name string) (*pb.SourceOp, error) {
	for _, p := range policies {
		denied := false
		for _, rule := range p.GetRules() {
			m, err := matches(rule.GetSelector(), name, op.GetAttrs())
			if err != nil {
				return nil, fault.In(err, "error matching source policy")
			}
			if m == nil {
				continue
			}
			switch rule.Action {
			case spb.PolicyAction_ALLOW:
				denied = false
			case spb.PolicyAction_DENY:
				denied = true
			case spb.PolicyAction_CONVERT:
				next, err := convert(rule, op, m)
				if err != nil || next != nil {
					return next, err
				}
			default:
				return nil, fault.New(fault.Invalid, "source policy: rule %s %s: unknown type %q", rule.Action, rule.Selector.Identifier, op.Identifier)
			}
		}
		if denied {
			return nil, fault.New(fault.Forbidden, "source %q denied by policy: source denied by policy", op.Identifier)
		}
	}
	return nil, nil
}

// matches tells whether a selector means the source, by what its wildcards stand for; nil: it does not.
func matches(sel *spb.Selector, name string, attrs map[string]string) ([]string, error) {
	if sel == nil {
		return nil, fault.New(fault.Invalid, "invalid nil selector")
	}
	for _, c := range sel.Constraints {
		ok, err := holds(c, attrs)
		if err != nil || !ok {
			return nil, err
		}
	}
	if sel.Identifier == name {
		return []string{name}, nil
	}
	expr := sel.Identifier
	switch sel.MatchType {
	case spb.MatchType_EXACT:
		return nil, nil
	case spb.MatchType_WILDCARD:
		expr = wildcard(expr)
	case spb.MatchType_REGEX:
	default:
		return nil, fault.New(fault.Invalid, "unknown match type: %s", sel.MatchType)
	}
	re, err := regexp.Compile(expr)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "error compiling regex %q", sel.Identifier)
	}
	return re.FindStringSubmatch(name), nil
}

// wildcard turns * and ? into an expression whose groups are what they stand for.
func wildcard(pattern string) string {
	var b strings.Builder
	b.WriteByte('^')
	for _, r := range pattern {
		switch r {
		case '*':
			b.WriteString("(.*)")
		case '?':
			b.WriteString("(.)")
		default:
			b.WriteString(regexp.QuoteMeta(string(r)))
		}
	}
	b.WriteByte('$')
	return b.String()
}

func holds(c *spb.AttrConstraint, attrs map[string]string) (bool, error) {
	if c == nil {
		return false, fault.New(fault.Invalid, "invalid nil constraint")
	}
	switch c.Condition {
	case spb.AttrMatch_EQUAL:
		return attrs[c.Key] == c.Value, nil
	case spb.AttrMatch_NOTEQUAL:
		return attrs[c.Key] != c.Value, nil
	case spb.AttrMatch_MATCHES:
		re, err := regexp.Compile(c.Value)
		if err != nil {
			return false, fault.Wrap(fault.Invalid, err, "invalid regex %q", c.Value)
		}
		return re.MatchString(attrs[c.Key]), nil
	}
	return false, fault.New(fault.Invalid, "unknown attr condition: %s", c.Condition)
}

// convert gives the source that a rule puts in the place of op, or nil where that is op itself.
func convert(rule *spb.Rule, op *pb.SourceOp, groups []string) (*pb.SourceOp, error) {
	if rule.Updates == nil {
		return nil, fault.New(fault.Invalid, "missing destination for convert rule")
	}
	to := rule.Updates.Identifier
	if to == "" && rule.Selector.MatchType == spb.MatchType_EXACT {
		to = rule.Selector.Identifier
	}
	next := op.CloneVT()
	if to != "" {
		next.Identifier = fill(to, groups)
	}
	changed := next.Identifier != op.Identifier
	for k, v := range rule.Updates.Attrs {
		if next.Attrs[k] != v {
			if next.Attrs == nil {
				next.Attrs = map[string]string{}
			}
			next.Attrs[k], changed = v, true
		}
	}
	if !changed {
		return nil, nil
	}
	return next, nil
}

// fill puts what wildcards stood for in the places of ${1}, ${2} and so on.
func fill(to string, groups []string) string {
	for i := len(groups) - 1; i >= 0; i-- {
		to = strings.ReplaceAll(to, "${"+strconv.Itoa(i)+"}", groups[i])
		if i > 0 {
			to = strings.ReplaceAll(to, "$"+strconv.Itoa(i), groups[i])
		}
	}
	return to
}
