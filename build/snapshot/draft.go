package snapshot

import (
	"context"
	"slices"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/image/layer"
	"berth/kernel/tree"
)

// Draft is a writable overlay on a snapshot. It must end in Seal or Drop. Its methods are called one at a time.
type Draft struct {
	s     *Store
	base  *Snapshot // the draft's own handle
	lower []string
	ld    *layer.Draft
	view  *tree.Dir // of base, read-only; nil before it was needed
}

// Draft makes a writable overlay on base, sharing it. A local tree serves as base, too.
func (s *Store) Draft(ctx context.Context, base *Snapshot) (*Draft, error) {
	if len(base.Chain()) >= layer.MaxDepth {
		return nil, fault.New(fault.Invalid, "max depth exceeded")
	}
	st, err := base.mountable(ctx)
	if err != nil {
		return nil, err
	}
	ld, err := s.layers.Draft(st.Root)
	if err != nil {
		return nil, err
	}
	return &Draft{s: s, base: base.Share(), lower: st.Lower, ld: ld}, nil
}

// Base is the snapshot that the draft is made on; it stays the draft's.
func (d *Draft) Base() *Snapshot { return d.base }

// Mount is what a launcher mounts as the root. Mount points that the tree has not are shown by a lower directory of their own, so that
// nothing is left of them in what is sealed. What runs there may set times of directories, which stay.
func (d *Draft) Mount(ctx context.Context, points ...Point) (layer.Mount, error) {
	top, err := d.stubs(ctx, points)
	if err != nil {
		return layer.Mount{}, fault.In(err, "prepare mount points")
	}
	lower := d.lower
	if top != "" {
		lower = append([]string{top}, lower...)
	}
	d.ld.KeepTimes()
	return d.ld.Mount(lower), nil
}

// Open mounts the draft writable, nowhere, and gives its root. It is to be closed before Seal, and before anything else mounts the draft.
func (d *Draft) Open(ctx context.Context) (*tree.Dir, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if d.base.IsScratch() { // nothing is below: the upper directory is all there is to see
		root, err := tree.OpenDir(d.ld.Upper())
		return root, fault.In(err, "open draft")
	}
	root, err := d.s.layers.Attach(d.ld.Mount(d.lower))
	return root, fault.In(err, "open draft")
}

// OpenBoth is Open, and gives the upper directory of the mount as well, nil where the root is it. While the draft is mounted, only
// directories that the draft made and the mount has not been asked about may be changed there.
func (d *Draft) OpenBoth(ctx context.Context) (root, upper *tree.Dir, err error) {
	if root, err = d.Open(ctx); err != nil || d.base.IsScratch() {
		return root, nil, err
	}
	if upper, err = tree.OpenDir(d.ld.Upper()); err != nil {
		root.Close()
		return nil, nil, fault.In(err, "open draft")
	}
	return root, upper, nil
}

// Do is Open around a function.
func (d *Draft) Do(ctx context.Context, f func(root *tree.Dir) error) error {
	root, err := d.Open(ctx)
	if err != nil {
		return err
	}
	defer root.Close()
	return f(root)
}

// Path is Do for code that wants a path; it is good in this process alone, and only until f returns.
func (d *Draft) Path(ctx context.Context, f func(path string) error) error {
	return d.Do(ctx, func(root *tree.Dir) error { return f(root.Path()) })
}

// Seal ends the draft and gives base's chain with one more layer. A base that is a local tree is made solid first. A draft that could
// not be sealed is dropped.
func (d *Draft) Seal(ctx context.Context) (*Snapshot, error) {
	if d.ld == nil {
		return nil, fault.New(fault.Internal, "the draft has ended")
	}
	defer d.Drop()
	base, err := d.base.Solid(ctx)
	if err != nil {
		return nil, err
	}
	defer base.Release()
	below, err := d.below(ctx)
	if err != nil {
		return nil, err
	}
	info, err := d.s.layers.Seal(ctx, d.ld, below)
	if err != nil {
		return nil, err
	}
	if info.DiffID == layer.EmptyDiff {
		d.s.keepEmpty()
	}
	if err := d.s.layers.Retain(base.Chain()...); err != nil {
		d.s.layers.Release(info.DiffID)
		return nil, err
	}
	return d.s.held(append(slices.Clone(base.Chain()), info.DiffID)), nil
}

// below opens what the draft lies on, nil where it does not matter.
func (d *Draft) below(ctx context.Context) (*tree.Dir, error) {
	if d.base.IsScratch() {
		return nil, nil
	}
	upper, err := tree.OpenDir(d.ld.Upper())
	if err != nil {
		return nil, fault.In(err, "seal layer")
	}
	defer upper.Close()
	names, err := upper.Names()
	if err != nil || len(names) == 0 {
		return nil, fault.In(err, "seal layer")
	}
	return d.viewed(ctx)
}

// viewed gives the base's root, which is the draft's. It is opened once: of a deep chain that is what costs most in a short step.
func (d *Draft) viewed(ctx context.Context) (*tree.Dir, error) {
	if d.view == nil {
		root, err := d.base.Open(ctx)
		if err != nil {
			return nil, err
		}
		d.view = root
	}
	return d.view, nil
}

// Drop ends the draft and deletes what was written. After Seal, and a second time, it does nothing.
func (d *Draft) Drop() {
	if d.ld == nil {
		return
	}
	if d.view != nil {
		d.view.Close()
		d.view = nil
	}
	d.ld.Drop()
	d.ld = nil
	d.base.Release()
}

// Size is the bytes of the files written so far.
func (d *Draft) Size(ctx context.Context) (int64, error) {
	if d.ld == nil {
		return 0, nil
	}
	sp, err := layer.Measure(ctx, d.ld.Upper())
	return sp.Size, err
}

// Solid gives the same tree as a chain: a local tree becomes a layer of its own, made once.
func (s *Snapshot) Solid(ctx context.Context) (*Snapshot, error) {
	c := s.c
	if c.local == nil {
		return s.Share(), nil
	}
	c.mu.Lock()
	known := c.solid
	c.mu.Unlock()
	if known != nil {
		return known.Share(), nil
	}
	id, err := c.s.solidify(ctx, c.local)
	if err != nil {
		return nil, fault.In(err, "make a layer of a local tree")
	}
	made := c.s.held([]digest.Digest{id})
	c.mu.Lock()
	if c.solid == nil {
		c.solid, made = made, made.Share()
	}
	c.mu.Unlock()
	return made, nil
}
