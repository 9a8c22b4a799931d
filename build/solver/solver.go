package solver

import (
	"context"
	"log/slog"

	"berth/build/session"
	"github.com/moby/buildkit/solver/pb"
	spb "github.com/moby/buildkit/sourcepolicy/pb"
	digest "github.com/opencontainers/go-digest"

	"berth/build/cache"
	"berth/build/content"
	"berth/build/graph"
	"berth/build/progress"
	"berth/build/snapshot"
)

// Config is what a solver needs.
type Config struct {
	Snapshots *snapshot.Store
	Content   *content.Hasher
	Cache     *cache.Store
	Sessions  *session.Manager
	// Op gives the operation of a vertex that is exec or file; merge, diff and build are the solver's own.
	Op func(v *graph.Vertex) (Op, error)
	// Source gives the source of a vertex that is one.
	Source func(v *graph.Vertex) (Source, error)
	// Parallel bounds the exec steps that run at once, over all builds; 0 does not bound them.
	Parallel int
	Log      *slog.Logger
}

// Solver solves graphs for any number of builds at once.
type Solver struct{}

// New gives a solver.
func New(cfg Config) *Solver { return &Solver{} }

// BuildConfig is one client's request.
type BuildConfig struct {
	ID           string
	Sessions     session.Group
	Progress     progress.Sink
	Entitlements []string
	NoCache      bool // nothing is looked up; what runs is remembered
	Imports      []cache.Remote
	Policies     []*spb.Policy
	Limits       any // given to exec steps in Run; never part of a key
}

// Build is a client's request while it is worked on. Everything it gives is valid until Close.
type Build struct{}

// Begin begins a build.
func (s *Solver) Begin(cfg BuildConfig) *Build { return &Build{} }

// Close ends the build: what only it wanted is cancelled and what it held is released.
func (b *Build) Close() {}

// Import adds a cache to those that lookups ask, for what is looked up from now on.
func (b *Build) Import(r cache.Remote) {}

// Ref gives the result of a definition, which nothing has been done for yet. A definition that is nil or empty is the
// empty tree. It fails if the definition is malformed or needs what the build is not entitled to.
func (b *Build) Ref(def *pb.Definition) (*Ref, error) { return nil, nil }

// Ref is the result of a definition.
type Ref struct{}

// Result evaluates it, once for all callers. The snapshot belongs to the build; who needs it longer shares it.
// Its data may not be here yet: Ready fetches it.
func (r *Ref) Result(ctx context.Context) (*snapshot.Snapshot, error) { return nil, nil }

// Graph gives its graph.
func (r *Ref) Graph() *graph.Graph { return nil }

// Definition gives what it was made from.
func (r *Ref) Definition() *pb.Definition { return nil }

// Provenance gives the facts of how the result was made; complete once Result has returned.
func (r *Ref) Provenance() Provenance { return Provenance{} }

// Walk calls f for each vertex of the result's graph whose outcome is known, inputs first.
func (r *Ref) Walk(f func(Outcome) error) error { return nil }

// Outcome is what is known of a vertex that has been evaluated.
type Outcome struct {
	Vertex     *graph.Vertex
	Keys       []digest.Digest   // under which it is remembered: the quick key first, then the content key if it differs
	Identities []digest.Digest   // of each output
	Chains     [][]digest.Digest // of each output; nil for a local tree or an output not made
	Cached     bool
	Ghost      bool      // the data is not here and was not needed
	Material   *Material // of a source
	Pin        string
}

// Provenance is how a result was made.
type Provenance struct {
	Materials []Material
	Steps     []Outcome
}

// Plan is what evaluating a definition would do.
type Plan struct {
	Steps []Planned
}

// Planned is one vertex of a plan.
type Planned struct {
	Vertex *graph.Vertex
	State  string // "cached", "runs", "may run" (if what runs before it gives something new), "source"
	Why    string // why it is not cached
}

// Plan finds out what is cached and what would run, and why. It pins sources but runs nothing.
func (b *Build) Plan(ctx context.Context, def *pb.Definition) (*Plan, error) { return nil, nil }

// String prints the plan.
func (p *Plan) String() string { return "" }
