package snapshot

import (
	"context"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/kernel/tree"
)

// Snapshot is a handle to a tree that never changes. Each is released once; its methods are safe for concurrent use.
type Snapshot struct{ s *Store }

// Chain is the tree's diff ids, the lowest first: empty for scratch. A local tree has none: ok is Solid's business.
func (s *Snapshot) Chain() []digest.Digest { return nil }

// Local gives the local tree that the snapshot is, or nil.
func (s *Snapshot) Local() Tree { return nil }

// Identity is a digest that stands for the content: of a chain known without its layers.
func (s *Snapshot) Identity(ctx context.Context) (digest.Digest, error) {
	return "", fault.New(fault.NotImplemented, "snapshots")
}

// Ready brings the layers here where they are only promised.
func (s *Snapshot) Ready(ctx context.Context) error { return nil }

// Durable waits until the layers would survive a power cut.
func (s *Snapshot) Durable(ctx context.Context) error { return nil }

// Share gives another handle to the same tree.
func (s *Snapshot) Share() *Snapshot { return s }

// Release gives the handle up. A second call does nothing.
func (s *Snapshot) Release() {}

// Lowers gives the directories to mount as an overlay's lower ones, the topmost first and at least one. They stay for as long as the
// snapshot is held.
func (s *Snapshot) Lowers(ctx context.Context) ([]string, error) { return nil, nil }

// Open gives the tree's root, to be closed by the caller: a read-only mount that appears nowhere, or the directory itself where the
// tree is one.
func (s *Snapshot) Open(ctx context.Context) (*tree.Dir, error) { return nil, nil }

// View is Open around a function.
func (s *Snapshot) View(ctx context.Context, f func(root *tree.Dir) error) error { return nil }

// Solid gives the same tree as a chain: a local tree becomes a layer of its own.
func (s *Snapshot) Solid(ctx context.Context) (*Snapshot, error) { return nil, nil }

// Size is the bytes of the files in all layers, or in the tree.
func (s *Snapshot) Size(ctx context.Context) (int64, error) { return 0, nil }

// TopSize is the bytes of the files in the topmost layer: what the step that made the snapshot added.
func (s *Snapshot) TopSize(ctx context.Context) (int64, error) { return 0, nil }
