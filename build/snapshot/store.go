package snapshot

import (
	"context"
	"log/slog"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/image/layer"
)

// Config says where and how.
type Config struct {
	Layers *layer.Store // the engine's
	Root   string       // a directory of the store alone, for scratch; nothing in it outlives the process
	Log    *slog.Logger // nil: nothing is logged
}

// Store makes snapshots. It is safe for concurrent use.
type Store struct {
	cfg    Config
	layers *layer.Store
	log    *slog.Logger
}

// Open opens the store.
func Open(cfg Config) (*Store, error) {
	return nil, fault.New(fault.NotImplemented, "snapshots")
}

// Close gives the root up.
func (s *Store) Close() error { return nil }

// Layers is the layer store below.
func (s *Store) Layers() *layer.Store { return s.layers }

// Scratch is the empty tree.
func (s *Store) Scratch() *Snapshot { return nil }

// FromChain gives the tree of a chain, holding its layers. NotFound when one is not here.
func (s *Store) FromChain(chain []digest.Digest) (*Snapshot, error) {
	return nil, fault.New(fault.NotImplemented, "snapshots")
}

// Promise gives the tree of a chain whose layers may not be here. When its files are first needed and layers are missing, provide
// brings them: after it returns nil the caller's hold on each layer of the chain has become the snapshot's.
func (s *Store) Promise(chain []digest.Digest, provide func(ctx context.Context) error) *Snapshot {
	return nil
}

// FromTree gives a local tree, which is the snapshot's from now on.
func (s *Store) FromTree(t Tree) *Snapshot { return nil }

// Merge lays snapshots over each other, the last on top.
func (s *Store) Merge(ctx context.Context, list []*Snapshot) (*Snapshot, error) {
	return nil, fault.New(fault.NotImplemented, "snapshots")
}

// Diff gives what makes upper out of lower.
func (s *Store) Diff(ctx context.Context, lower, upper *Snapshot) (*Snapshot, error) {
	return nil, fault.New(fault.NotImplemented, "snapshots")
}
