package snapshot

import (
	"context"

	"berth/base/fault"
	"berth/image/layer"
	"berth/kernel/tree"
)

// Draft is a writable overlay on a snapshot. It must end in Seal or Drop. Its methods are called one at a time.
type Draft struct{ s *Store }

// Draft makes a writable overlay on base, sharing it. A local tree serves as base, too.
func (s *Store) Draft(ctx context.Context, base *Snapshot) (*Draft, error) {
	return nil, fault.New(fault.NotImplemented, "snapshots")
}

// Point is a place that something will be mounted on.
type Point struct {
	Path string // in the tree; links in it are followed inside the tree
	File bool   // a file is mounted, not a directory
}

// Mount is what a launcher mounts as the root. Mount points that the tree has not are shown by a lower directory of their own, so that
// nothing is left of them in what is sealed.
func (d *Draft) Mount(ctx context.Context, points ...Point) (layer.Mount, error) {
	return layer.Mount{}, fault.New(fault.NotImplemented, "snapshots")
}

// Open mounts the draft writable, nowhere, and gives its root. It is to be closed before Seal, and before anything else mounts the draft.
func (d *Draft) Open(ctx context.Context) (*tree.Dir, error) {
	return nil, fault.New(fault.NotImplemented, "snapshots")
}

// Do is Open around a function.
func (d *Draft) Do(ctx context.Context, f func(root *tree.Dir) error) error { return nil }

// Path is Do for code that wants a path; it is good in this process alone, and only until f returns.
func (d *Draft) Path(ctx context.Context, f func(path string) error) error { return nil }

// Base is the snapshot that the draft is made on; it stays the draft's.
func (d *Draft) Base() *Snapshot { return nil }

// Seal ends the draft and gives base's chain with one more layer. A base that is a local tree is made solid first.
func (d *Draft) Seal(ctx context.Context) (*Snapshot, error) {
	return nil, fault.New(fault.NotImplemented, "snapshots")
}

// Drop ends the draft and deletes what was written. After Seal, and a second time, it does nothing.
func (d *Draft) Drop() {}
