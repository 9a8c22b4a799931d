package exec

import (
	"context"

	"github.com/moby/buildkit/solver/pb"

	"berth/base/fault"
	"berth/kernel/idmap"
)

// join gives a step its network; on is that of the build, for steps that ask for none in particular.
func (r *Runner) join(ctx context.Context, id string, mode pb.NetMode, on string, ids *idmap.Pair) (Attached, error) {
	m := Bridge
	switch mode {
	case pb.NetMode_UNSET:
	case pb.NetMode_HOST:
		m = Host
	case pb.NetMode_NONE:
		m = None
	default:
		return Attached{}, fault.New(fault.Invalid, "unknown network mode %s", mode)
	}
	if r.cfg.Networks != nil {
		a, err := r.cfg.Networks.Join(ctx, id, m, on, ids)
		return a, fault.In(err, "join the step to its network")
	}
	if m == Bridge {
		return Attached{}, fault.New(fault.Unavailable, "there is no network for steps but none and host: see RUN --network")
	}
	return Attached{}, nil
}
