package solver

import (
	"context"
	"fmt"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/build/cache"
	"berth/build/graph"
)

// States of a planned vertex.
const (
	Cached = "cached"  // its outcome is known
	Runs   = "runs"    // it will run
	MayRun = "may run" // what runs before it decides
	Pins   = "source"  // a source
)

// Plan is what evaluating a definition would do.
type Plan struct {
	Steps []Planned // each after its inputs
}

// Planned is one vertex of a plan.
type Planned struct {
	Vertex *graph.Vertex
	State  string
	Why    string // why it is not cached; of a source what it is pinned to
}

// Plan finds out what is cached and what would run, and why. It pins sources, but runs and fetches nothing.
func (b *Build) Plan(ctx context.Context, def *pb.Definition) (*Plan, error) {
	r, err := b.Ref(def)
	if err != nil {
		return nil, err
	}
	p := &planner{b: b, known: map[*node]*planned{}}
	for _, v := range r.g.Vertices {
		n := r.nodeOf(v)
		if p.known[n], err = p.look(ctx, n); err != nil {
			return nil, r.located(err)
		}
		p.order = append(p.order, p.known[n])
	}
	plan := &Plan{}
	for _, s := range p.order {
		plan.Steps = append(plan.Steps, s.Planned)
	}
	return plan, nil
}

type planner struct {
	b     *Build
	known map[*node]*planned
	order []*planned
}

type planned struct {
	Planned
	out *outcome // nil: not known before something has run
}

// look finds out what is known of a vertex whose inputs have been looked at.
func (p *planner) look(ctx context.Context, n *node) (*planned, error) {
	s := &planned{Planned: Planned{Vertex: n.v}}
	if n.v.Kind() == "source" {
		out, err := n.outcome(ctx, false)
		if err != nil {
			return nil, err
		}
		s.out, s.State, s.Why = out, Pins, out.Pin
		return s, nil
	}
	if n.v.Kind() == "build" || n.v.Kind() == "passthrough" {
		s.State, s.Why = MayRun, "it is made of what its inputs say"
		return s, nil
	}
	op, err := n.operation()
	if err != nil {
		return nil, err
	}
	ins := &inputs{}
	for i, in := range n.inputs {
		from := p.known[in]
		if from.out == nil {
			s.State, s.Why = MayRun, "depends on what "+short(in.v.Name)+" gives"
			return s, nil
		}
		id, err := from.out.identity(n.v.Inputs[i].Index)
		if err != nil {
			return nil, err
		}
		ins.outs, ins.identities = append(ins.outs, from.out), append(ins.identities, id)
	}
	if n.ignoresCache() {
		s.State, s.Why = Runs, "the cache is not to be used"
		return s, nil
	}
	keys := []digest.Digest{quickKey(op.Key(), ins.identities)}
	if s.out, err = p.find(ctx, n, keys); err != nil {
		return nil, err
	}
	if s.out != nil {
		s.State = Cached
		return s, nil
	}
	t := n.traceOf(op, ins)
	if n.readsParts(op) && p.here(n, op, ins) {
		key, err := n.contentKey(ctx, op, ins, &t)
		if err != nil {
			return nil, fault.In(err, "failed to compute cache key")
		}
		if s.out, err = p.find(ctx, n, append(keys, key)); err != nil {
			return nil, err
		}
		if s.out != nil {
			s.State = Cached
			return s, nil
		}
	}
	n.addFiles(ctx, op, ins, &t)
	s.State, s.Why = Runs, n.why(t)
	return s, nil
}

// find is lookup without telling anybody.
func (p *planner) find(ctx context.Context, n *node, keys []digest.Digest) (*outcome, error) {
	out, err := n.lookupHere(ctx, keys)
	if err != nil {
		return nil, err
	}
	if out == nil {
		if out, err = n.lookupThere(ctx, keys); err != nil {
			return nil, err
		}
	}
	if out != nil {
		p.b.own(out)
	}
	return out, nil
}

// here reports whether what the operation reads can be looked at without fetching anything.
func (p *planner) here(n *node, op Op, ins *inputs) bool {
	for i, out := range ins.outs {
		if op.Reads(i) == nil {
			continue
		}
		if out.Ghost {
			return false
		}
		s, err := out.snap(context.Background(), n.v.Inputs[i].Index)
		if err != nil {
			return false
		}
		for _, l := range chainOf(s) {
			if !p.b.s.cfg.Snapshots.Layers().Has(l) {
				return false
			}
		}
	}
	return true
}

// slotOf names the place of a step in a Dockerfile: what people call it, on its platform.
func slotOf(v *graph.Vertex) (exact, place string) {
	platform := v.Platform.OS + "/" + v.Platform.Architecture + v.Platform.Variant
	place = v.Name
	if i := strings.Index(v.Name, "] "); strings.HasPrefix(v.Name, "[") && i > 0 {
		place = v.Name[:i+1]
	}
	return platform + " " + v.Name, platform + " " + place
}

// traceOf is the trace of a step with these inputs, as far as it is known without reading them.
func (n *node) traceOf(op Op, ins *inputs) cache.Trace {
	t := cache.Trace{Op: op.Key(), Name: n.v.Name}
	for i, in := range n.inputs {
		t.Inputs = append(t.Inputs, cache.TraceInput{Name: in.v.Name, Identity: ins.identities[i]})
	}
	return t
}

// note keeps the trace of a step that ran.
func (n *node) note(t cache.Trace) {
	exact, place := slotOf(n.v)
	n.b.s.cfg.Cache.Note(exact, t)
	if place != exact && len(t.Inputs) > 0 {
		n.b.s.cfg.Cache.Note(place+" on "+string(t.Inputs[0].Identity), cache.Trace{Op: t.Op, Name: t.Name})
	}
}

// why tells why a step is not cached, by comparing it with how it was when it last ran.
func (n *node) why(now cache.Trace) string {
	exact, place := slotOf(n.v)
	if was := n.b.s.cfg.Cache.Last(exact); was != nil {
		return compare(was, &now)
	}
	if len(now.Inputs) > 0 {
		if was := n.b.s.cfg.Cache.Last(place + " on " + string(now.Inputs[0].Identity)); was != nil && was.Name != now.Name {
			return "the instruction changed; it was " + short(was.Name)
		}
	}
	return "it has not run before"
}

// compare tells what differs between two runs of a step.
func compare(was, now *cache.Trace) string {
	if was.Op != now.Op {
		return "the instruction or its settings changed"
	}
	var changed []string
	for i, in := range now.Inputs {
		if i >= len(was.Inputs) {
			break
		}
		old := was.Inputs[i]
		switch {
		case old.Identity == in.Identity:
		case in.Selected == nil && old.Selected == nil:
			changed = append(changed, short(in.Name)+" changed")
		case in.Selected == nil:
			changed = append(changed, short(in.Name)+" may have changed")
		default:
			if what := changedPaths(&old, &in); what != "" {
				changed = append(changed, what)
			}
		}
	}
	if len(changed) == 0 {
		return "its outcome is not here any more"
	}
	return strings.Join(changed, "; ")
}

// changedPaths tells which of the paths that are read of an input changed, and in a small local tree which files.
func changedPaths(was, now *cache.TraceInput) string {
	var paths []string
	for i, d := range now.Selected {
		if i >= len(was.Selected) || was.Selected[i] != d {
			path := "/"
			if i < len(now.Paths) && now.Paths[i] != "" {
				path = now.Paths[i]
			}
			paths = append(paths, path)
		}
	}
	if len(paths) == 0 {
		return ""
	}
	if files := changedFiles(was.Files, now.Files); files != "" {
		return files + " in " + short(now.Name)
	}
	return strings.Join(paths, ", ") + " of " + short(now.Name) + " changed"
}

// short is a name that fits into a sentence.
func short(name string) string {
	name = strings.Join(strings.Fields(name), " ")
	if r := []rune(name); len(r) > 60 {
		return string(r[:59]) + "…"
	}
	return name
}

// String prints the plan, one vertex a line.
func (p *Plan) String() string {
	var b strings.Builder
	for _, s := range p.Steps {
		fmt.Fprintf(&b, "%-8s %s", s.State, short(s.Vertex.Name))
		if s.Why != "" {
			fmt.Fprintf(&b, ": %s", s.Why)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
