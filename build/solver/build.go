package solver

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	spb "github.com/moby/buildkit/sourcepolicy/pb"
	digest "github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/build/cache"
	"berth/build/graph"
	"berth/build/progress"
	"berth/build/session"
	"berth/build/snapshot"
)

// BuildConfig is one client's request.
type BuildConfig struct {
	ID           string
	Sessions     session.Group
	Progress     progress.Sink // nil: nobody is told
	Entitlements []string      // network.host, security.insecure, device, device=NAME
	NoCache      bool          // nothing is looked up; what runs is remembered
	Imports      []cache.Remote
	Policies     []*spb.Policy
	Limits       any // given to exec steps in Run; never part of a key
}

// Build is a client's request while it is worked on. Everything it gives is valid until Close.
type Build struct {
	s       *Solver
	cfg     BuildConfig
	sink    progress.Sink
	nodes   tasks[*node, struct{}, struct{}] // vertices being evaluated
	fetches tasks[fetch, struct{}, struct{}] // data being brought

	forgotten bool // of fresh

	mu      sync.Mutex // guards what follows
	remotes []cache.Remote
	byKey   map[nodeKey]*node
	nested  map[*node]*nesting // vertices that read definitions
	given   map[given]*definition
	weight  int // of all definitions in given
	owned   []*outcome
	failed  []*failure
	scratch *snapshot.Snapshot
}

// nodeKey names a vertex in a build. The same operation may stand in several definitions, in one with its cache ignored.
type nodeKey struct {
	vertex      digest.Digest
	ignoreCache bool
	under       digest.Digest // policies that what it reads from a tree is held to; empty unless it Nests
}

func nodeKeyOf(v *graph.Vertex, under digest.Digest) nodeKey {
	if !v.Nests {
		under = ""
	}
	return nodeKey{v.Digest, v.IgnoreCache, under}
}

// given names a definition and the policies that it is held to.
type given struct{ name, under digest.Digest }

// definition is one that the build was given: all its references share it.
type definition struct {
	def *pb.Definition
	g   *graph.Graph // of what the policies made of it
}

type fetch struct {
	n      *node
	output int
}

// Begin begins a build.
func (s *Solver) Begin(cfg BuildConfig) *Build {
	b := &Build{s: s, cfg: cfg, sink: cfg.Progress, remotes: slices.Clone(cfg.Imports), byKey: map[nodeKey]*node{}, given: map[given]*definition{}, scratch: s.cfg.Snapshots.Scratch()}
	if b.sink == nil {
		b.sink = progress.Discard
	}
	return b
}

// Close ends the build: what only it wanted is cancelled and what it held is released.
func (b *Build) Close() {
	b.nodes.close()
	b.fetches.close()
	b.s.fresh.forget(b)
	b.mu.Lock()
	owned, failed, scratch := b.owned, b.failed, b.scratch
	b.owned, b.failed, b.scratch = nil, nil, nil
	b.mu.Unlock()
	for _, o := range owned {
		o.close()
	}
	for _, f := range failed {
		f.release()
	}
	if scratch != nil {
		scratch.Release()
	}
}

// Import adds a cache to those that lookups ask, for what is looked up from now on.
func (b *Build) Import(r cache.Remote) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.remotes = append(slices.Clone(b.remotes), r)
}

func (b *Build) imports() []cache.Remote {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.remotes
}

// own keeps an outcome until the build is closed.
func (b *Build) own(o *outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.owned = append(b.owned, o)
}

// keep keeps what a failed step left until the build is closed.
func (b *Build) keep(f *failure) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failed = append(b.failed, f)
}

// Ref gives the result of a definition, which nothing has been done for yet. A definition that is nil or empty is the
// empty tree. It fails if the definition is malformed or needs what the build is not entitled to.
func (b *Build) Ref(def *pb.Definition) (*Ref, error) { return b.RefUnder(nil, def) }

// RefUnder is like Ref, and applies more policies than the build's own to the definition's sources, which may refuse one. So it does with
// definitions that it finds in files of its steps.
func (b *Build) RefUnder(policies []*spb.Policy, def *pb.Definition) (*Ref, error) {
	name := given{name: nameOf(def), under: nameOfPolicies(policies)}
	d, err := b.definition(name, policies, def)
	if err != nil {
		return nil, err
	}
	for _, v := range d.g.Vertices {
		if err := b.entitled(v); err != nil {
			return nil, err
		}
	}
	return &Ref{b: b, def: d.def, g: d.g, under: name.under, n: b.adopt(d.g, name.under, policies)}, nil
}

// definition reads one, or gives the equal one that was given before.
func (b *Build) definition(name given, policies []*spb.Policy, def *pb.Definition) (*definition, error) {
	if d, err := b.room(name, nil); d != nil || err != nil {
		return d, err
	}
	d := &definition{def: def}
	if len(policies) > 0 {
		var err error
		def, err = graph.Rewrite(def, func(op *pb.SourceOp) (*pb.SourceOp, error) { return b.Permit(op, policies...) })
		if err != nil {
			return nil, fault.In(err, "error evaluating the source policy")
		}
	}
	var err error
	if d.g, err = graph.Parse(def); err != nil {
		return nil, err
	}
	return b.room(name, d)
}

// Bounds on what one build asks to be solved, all of which is kept until it ends.
const (
	maxRefs   = 10_000
	maxWeight = 2 * graph.MaxWeight
)

// room takes room for a definition, unless there is an equal one, and gives the one to use. nil only asks whether there is room or an equal one.
func (b *Build) room(name given, d *definition) (*definition, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	weight := 0
	if d != nil {
		weight = d.g.Weight
	}
	switch had := b.given[name]; {
	case had != nil:
		return had, nil
	case len(b.given) >= maxRefs:
		return nil, fault.New(fault.Invalid, "the build has solved %d definitions, which is the most that one build may", maxRefs)
	case b.weight+weight > maxWeight:
		return nil, fault.New(fault.Invalid, "the definitions of the build have more than %d fields together", maxWeight)
	}
	if d != nil {
		b.given[name] = d
		b.weight += weight
	}
	return d, nil
}

// adopt makes the nodes of a graph under policies, and gives that of its result; nil for the empty graph.
func (b *Build) adopt(g *graph.Graph, under digest.Digest, policies []*spb.Policy) *node {
	b.mu.Lock()
	defer b.mu.Unlock()
	var last *node
	here := make(map[digest.Digest]*node, len(g.Vertices))
	for _, v := range g.Vertices {
		key := nodeKeyOf(v, under)
		n := b.byKey[key]
		if n == nil {
			n = &node{b: b, v: v, under: key.under, fan: newFan()}
			if v.Nests {
				n.policies = policies
			}
			n.fan.listeners = []*listener{{sink: b.sink, vertex: v, sessions: b.cfg.Sessions}}
			for _, in := range v.Inputs {
				n.inputs = append(n.inputs, here[in.Vertex])
			}
			b.byKey[key] = n
		}
		here[v.Digest] = n
		if v.Digest == g.Result.Vertex {
			last = n
		}
	}
	return last
}

// Ref is the result of a definition.
type Ref struct {
	b     *Build
	def   *pb.Definition
	g     *graph.Graph
	under digest.Digest // the policies
	n     *node         // of the result's vertex; nil for the empty tree

	announce sync.Once
}

// Result evaluates it, once for all callers. The snapshot belongs to the build; who needs it longer shares it.
// Its data may not be here yet: Ready fetches it.
func (r *Ref) Result(ctx context.Context) (*snapshot.Snapshot, error) {
	if r.n == nil {
		return r.b.scratch, nil
	}
	r.announce.Do(r.tellAll)
	out, err := r.n.outcome(ctx, true)
	if err != nil {
		return nil, r.located(err)
	}
	s, err := out.snap(ctx, r.g.Result.Index)
	if err != nil {
		return nil, r.located(errdefs.WrapVertex(err, r.n.v.Digest))
	}
	return s, nil
}

// tellAll tells the sink all vertices that may run, so that people see what is to come.
func (r *Ref) tellAll() {
	for _, v := range r.g.Vertices {
		if n := r.nodeOf(v); n == nil || n.touched() {
			continue
		}
		r.b.sink.Vertex(progress.Vertex{Digest: v.Digest, Inputs: inputsOf(v), Name: v.Name, Group: v.ProgressGroup})
	}
}

func (r *Ref) nodeOf(v *graph.Vertex) *node {
	r.b.mu.Lock()
	defer r.b.mu.Unlock()
	return r.b.byKey[nodeKeyOf(v, r.under)]
}

// touched reports whether something has been told of the vertex already.
func (n *node) touched() bool {
	n.fan.mu.Lock()
	started := n.fan.state.Started != nil
	n.fan.mu.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	return started || n.out != nil || n.err != nil
}

// located adds to an error where in which file its vertex was written.
func (r *Ref) located(err error) error {
	var ve *errdefs.VertexError
	if !errors.As(err, &ve) || r.g.Sources == nil {
		return err
	}
	locs := r.g.Sources.Locations[ve.Digest]
	if locs == nil {
		return err
	}
	for _, loc := range locs.Locations {
		err = errdefs.WithSource(err, &errdefs.Source{Info: r.g.Sources.Infos[loc.SourceIndex], Ranges: loc.Ranges})
	}
	return err
}

// Ready evaluates the result and brings its data here, telling the progress of that. It may differ from what Result gave before
// where that turned out to be nowhere.
func (r *Ref) Ready(ctx context.Context) (*snapshot.Snapshot, error) {
	for {
		s, err := r.Result(ctx)
		if err != nil || r.n == nil {
			return s, err
		}
		out, err := r.n.outcome(ctx, true)
		if err != nil {
			return nil, r.located(err)
		}
		s, err = r.n.ready(ctx, out, r.g.Result.Index)
		if isLost(err) {
			continue
		}
		return s, r.located(err)
	}
}

// Given gives what a vertex of its graph works on: its i-th input, which is evaluated if it is not yet. The snapshot belongs to the build; who needs it
// longer shares it.
func (r *Ref) Given(ctx context.Context, v *graph.Vertex, i int) (*snapshot.Snapshot, error) {
	n := r.nodeOf(v)
	if n == nil || i < 0 || i >= len(n.inputs) {
		return nil, fault.New(fault.NotFound, "%s has no input %d in this build", v.Name, i)
	}
	for {
		out, err := n.inputs[i].outcome(ctx, true)
		if err != nil {
			return nil, r.located(err)
		}
		s, err := n.inputs[i].ready(ctx, out, v.Inputs[i].Index)
		if isLost(err) {
			continue
		}
		return s, r.located(err)
	}
}

// Graph gives its graph.
func (r *Ref) Graph() *graph.Graph { return r.g }

// Definition gives what it was made from.
func (r *Ref) Definition() *pb.Definition { return r.def }

// Walk calls f for each vertex of the result's graph whose outcome is known, inputs first.
func (r *Ref) Walk(f func(Outcome) error) error {
	for _, v := range r.g.Vertices {
		n := r.nodeOf(v)
		if n == nil {
			continue
		}
		n.mu.Lock()
		out := n.out
		n.mu.Unlock()
		if out == nil {
			continue
		}
		if err := f(out.public()); err != nil {
			return err
		}
	}
	return nil
}

// Provenance gives the facts of how the result was made; complete once Result has returned.
func (r *Ref) Provenance() Provenance {
	var p Provenance
	r.Walk(func(o Outcome) error {
		if o.Source != nil {
			p.Materials = append(p.Materials, *o.Source)
		}
		p.Steps = append(p.Steps, o)
		return nil
	})
	return p
}

// Provenance is how a result was made.
type Provenance struct {
	Materials []Material
	Steps     []Outcome // of all vertices, inputs first
}

// entitled refuses a vertex that needs what the client has not allowed.
func (b *Build) entitled(v *graph.Vertex) error {
	e := v.Op.GetExec()
	if e == nil {
		return nil
	}
	allowed := func(what string) bool { return slices.Contains(b.cfg.Entitlements, what) }
	if e.Network == pb.NetMode_HOST && !allowed("network.host") {
		return fault.New(fault.Forbidden, "network.host is not allowed")
	}
	if e.Security == pb.SecurityMode_INSECURE && !allowed("security.insecure") {
		return fault.New(fault.Forbidden, "security.insecure is not allowed")
	}
	if allowed("device") {
		return nil
	}
	for _, d := range e.CdiDevices {
		if !allowed("device=" + d.Name) {
			if err := b.deviceAllowed(d); err != nil {
				return err
			}
		}
	}
	return nil
}

// deviceAllowed refuses devices that are neither free nor what one of the words means that the client has allowed.
func (b *Build) deviceAllowed(d *pb.CDIDevice) error {
	if b.s.cfg.Devices == nil {
		return fault.New(fault.Forbidden, "device %s is requested by the build but not allowed", d.Name)
	}
	found := b.s.cfg.Devices(d.Name)
	if len(found) == 0 && !d.Optional {
		return fault.New(fault.NotFound, "required device %q is not registered", d.Name)
	}
	granted := map[string]bool{}
	for _, e := range b.cfg.Entitlements {
		if word, ok := strings.CutPrefix(e, "device="); ok {
			maps.Copy(granted, b.s.cfg.Devices(word))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if _, ok := granted[name]; !ok && !found[name] {
			return fault.New(fault.Forbidden, "device %s is requested by the build but not allowed", name)
		}
	}
	return nil
}
