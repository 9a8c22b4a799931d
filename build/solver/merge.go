package solver

import (
	"context"
	"strconv"

	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"

	"berth/build/content"
	"berth/build/snapshot"
)

// mergeOp lays its inputs over each other.
type mergeOp struct {
	store *snapshot.Store
	op    *pb.MergeOp
}

func (m *mergeOp) Key() digest.Digest {
	k := newKey("merge")
	for _, in := range m.op.Inputs {
		k.add(strconv.FormatInt(in.Input, 10))
	}
	return k.digest()
}

func (m *mergeOp) Reads(int) []content.Selector { return nil }

func (m *mergeOp) Run(ctx context.Context, in []*snapshot.Snapshot, r *Run) ([]*snapshot.Snapshot, error) {
	var list []*snapshot.Snapshot
	for _, i := range m.op.Inputs {
		list = append(list, in[i.Input])
	}
	s, err := m.store.Merge(ctx, list)
	if err != nil {
		return nil, err
	}
	return []*snapshot.Snapshot{s}, nil
}

// diffOp gives what makes one input out of the other.
type diffOp struct {
	store *snapshot.Store
	op    *pb.DiffOp
}

func (d *diffOp) Key() digest.Digest {
	k := newKey("diff")
	k.add(strconv.FormatInt(d.op.Lower.Input, 10))
	k.add(strconv.FormatInt(d.op.Upper.Input, 10))
	return k.digest()
}

func (d *diffOp) Reads(int) []content.Selector { return nil }

func (d *diffOp) Run(ctx context.Context, in []*snapshot.Snapshot, r *Run) ([]*snapshot.Snapshot, error) {
	scratch := d.store.Scratch()
	defer scratch.Release()
	side := func(input int64) *snapshot.Snapshot {
		if input == int64(pb.Empty) {
			return scratch
		}
		return in[input]
	}
	s, err := d.store.Diff(ctx, side(d.op.Lower.Input), side(d.op.Upper.Input))
	if err != nil {
		return nil, err
	}
	return []*snapshot.Snapshot{s}, nil
}
