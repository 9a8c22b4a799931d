package solver

import (
	"context"
	"errors"

	"github.com/moby/buildkit/solver/errdefs"

	"berth/build/snapshot"
)

// ready gives one output of the node's outcome with its data here. What is told meanwhile stands under this vertex.
func (n *node) ready(ctx context.Context, out *outcome, index int) (*snapshot.Snapshot, error) {
	s, err := out.snap(ctx, index)
	if err != nil {
		return nil, errdefs.WrapVertex(err, n.v.Digest)
	}
	_, err = n.b.fetches.do(ctx, fetch{n, index}, nil, nil, func(ctx context.Context, _ struct{}) (struct{}, error) {
		done := n.fan.fetching()
		err := s.Ready(ctx)
		if err != nil && out.imported && ctx.Err() == nil {
			err = n.lose(out, err)
			done(nil)
			return struct{}{}, err
		}
		done(err)
		return struct{}{}, err
	})
	if isLost(err) {
		return nil, err
	}
	if err != nil {
		return nil, errdefs.WrapVertex(err, n.v.Digest)
	}
	return s, nil
}

// lostError says that an imported cache has not the data that it promised. The step runs then: a cache is a help and no need.
type lostError struct{ err error }

func (l *lostError) Error() string { return l.err.Error() }
func (l *lostError) Unwrap() error { return l.err }

func isLost(err error) bool {
	var l *lostError
	return errors.As(err, &l)
}

// lose makes a ghost of an outcome whose data cannot be had, so that the vertex is evaluated again.
func (n *node) lose(out *outcome, err error) error {
	n.b.s.log.Warn("an imported build cache has not the data that it promised; the step runs", "vertex", n.v.Name, "err", err)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.distrust = true
	if n.out == out {
		gone := &outcome{Outcome: out.public()}
		gone.Ghost = true
		n.out = gone
	}
	return &lostError{err}
}
