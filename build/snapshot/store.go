package snapshot

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

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
	layers *layer.Store
	void   string // an empty directory: overlayfs wants a lower one
	log    *slog.Logger

	mu    sync.Mutex
	empty bool // the empty layer is held: it is made once, however many steps change nothing
}

// Open opens the store.
func Open(cfg Config) (*Store, error) {
	s := &Store{layers: cfg.Layers, void: filepath.Join(cfg.Root, "void"), log: cfg.Log}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(cfg.Root, 0o700); err != nil {
		return nil, fault.In(err, "open snapshots")
	}
	// Something may have been put there by hand.
	if err := os.RemoveAll(s.void); err != nil {
		return nil, fault.In(err, "open snapshots")
	}
	if err := os.Mkdir(s.void, 0o755); err != nil {
		return nil, fault.In(err, "open snapshots")
	}
	return s, nil
}

// Close gives the root up. Snapshots are to be released before.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.empty {
		s.layers.Release(layer.EmptyDiff)
		s.empty = false
	}
	return nil
}

// keepEmpty holds the empty layer from now on, which somebody else holds at the moment.
func (s *Store) keepEmpty() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.empty {
		s.empty = s.layers.Retain(layer.EmptyDiff) == nil
	}
}

// Layers is the layer store below.
func (s *Store) Layers() *layer.Store { return s.layers }

// Scratch is the empty tree.
func (s *Store) Scratch() *Snapshot { return s.handle(&core{held: true}) }

// FromChain gives the tree of a chain, holding its layers. NotFound when one is not here.
func (s *Store) FromChain(chain []digest.Digest) (*Snapshot, error) {
	if err := s.layers.Retain(chain...); err != nil {
		return nil, err
	}
	return s.held(chain), nil
}

// held makes a snapshot of a chain whose holds become its own.
func (s *Store) held(chain []digest.Digest) *Snapshot {
	return s.handle(&core{chain: chain, held: true})
}

// Promise gives the tree of a chain whose layers may not be here. When its files are first needed and layers are missing, provide
// brings them: after it returns nil the caller's hold on each layer of the chain has become the snapshot's. It may be called again
// when it failed, never twice at a time.
func (s *Store) Promise(chain []digest.Digest, provide func(ctx context.Context) error) *Snapshot {
	return s.handle(&core{chain: chain, held: len(chain) == 0, provide: provide})
}

// FromTree gives a local tree, which is the snapshot's from now on.
func (s *Store) FromTree(t Tree) *Snapshot { return s.handle(&core{local: t, held: true}) }

func (s *Store) handle(c *core) *Snapshot {
	c.s, c.refs = s, 1
	return &Snapshot{c: c}
}
