package solver

import (
	"context"
	"log/slog"

	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"

	"berth/build/cache"
	"berth/build/content"
	"berth/build/graph"
	own "berth/build/session"
	"berth/build/snapshot"
)

// Config is what a solver needs.
type Config struct {
	Snapshots *snapshot.Store
	Content   *content.Hasher
	Cache     *cache.Store
	Sessions  *own.Manager
	// Op gives the operation of a vertex that is exec or file; merge, diff and build are the solver's own.
	Op func(v *graph.Vertex) (Op, error)
	// Source gives the source of a vertex that is one.
	Source func(v *graph.Vertex) (Source, error)
	// Canonical gives the one way to write a source's identifier, by which policies know it; nil: as it is.
	Canonical func(identifier string) string
	// Nested gives what a source is fetched from, where policies are to be asked of that too, and how to put another one in its place; nil: nothing.
	Nested func(op *pb.SourceOp) (inner *pb.SourceOp, with func(*pb.SourceOp) *pb.SourceOp, err error)
	// Devices finds the devices that a step's word for them means, and tells of each whether every build may have it; nil: words are names, and none is free.
	Devices func(word string) map[string]bool
	// Parallel bounds the exec steps that run at once, over all builds; 0 does not bound them.
	Parallel int
	Log      *slog.Logger // nil: nothing is logged
}

// Solver solves graphs for any number of builds at once.
type Solver struct {
	cfg     Config
	log     *slog.Logger
	flights tasks[flightKey, *fan, *ran] // steps that run
	fresh   fresh
	slots   chan struct{} // of exec steps; nil: not bounded
}

// flightKey names a running step. One that ignores the cache is shared with those only who have the same vertex and ignore it too; of a build
// that looks up nothing, with nobody.
type flightKey struct {
	key    digest.Digest
	build  *Build
	vertex digest.Digest
}

// New gives a solver.
func New(cfg Config) *Solver {
	s := &Solver{cfg: cfg, log: cfg.Log}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.flights.take, s.flights.drop = (*ran).share, (*ran).drop
	if cfg.Parallel > 0 {
		s.slots = make(chan struct{}, cfg.Parallel)
	}
	return s
}

// Close cancels what runs and waits for it. Builds have been closed before.
func (s *Solver) Close() { s.flights.close() }

// enter waits until a step may run, and gives what lets the next one in. Only exec steps are counted: the others do not
// run programs of somebody else.
func (s *Solver) enter(ctx context.Context, v *graph.Vertex) (leave func(), err error) {
	if s.slots == nil || v.Kind() != "exec" {
		return func() {}, nil
	}
	select {
	case s.slots <- struct{}{}:
		return func() { <-s.slots }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// operation gives the operation of a vertex.
func (s *Solver) operation(v *graph.Vertex) (Op, error) {
	switch v.Kind() {
	case "merge":
		return &mergeOp{s.cfg.Snapshots, v.Op.GetMerge()}, nil
	case "diff":
		return &diffOp{s.cfg.Snapshots, v.Op.GetDiff()}, nil
	}
	return s.cfg.Op(v)
}

var _ session.Group = (*fan)(nil)
