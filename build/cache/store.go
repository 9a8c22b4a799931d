package cache

import (
	"context"
	"log/slog"
	"time"

	digest "github.com/opencontainers/go-digest"

	"berth/image/layer"
)

// Config is what a store needs.
type Config struct {
	Layers *layer.Store
	Root   string // the directory of cache.db
	// Shared reports whether an image uses the layer too; nil: none does.
	Shared func(digest.Digest) bool
	// Others are further things that take room for builds (contexts, cache mounts, git mirrors), listed and pruned
	// together with the records.
	Others []Other
	Log    *slog.Logger
}

// Other is something beside records that takes room for builds and that can be pruned.
type Other interface {
	Usage(ctx context.Context) ([]Usage, error)
	// Remove removes one thing that Usage told; one that is in use is left, without an error.
	Remove(ctx context.Context, id string) error
}

// Usage is one line of disk usage.
type Usage struct {
	ID          string
	Parents     []string
	Type        string
	Description string
	Size        int64 // bytes that removing it frees, unless it is shared
	Created     time.Time
	LastUsed    time.Time
	Uses        int
	InUse       bool
	Shared      bool
	Mutable     bool
}

// Retain holds the layers that the records below root name, so that a sweep of the layer store leaves them, without
// opening a cache. What it gives back is called once Open has taken holds of its own. No cache there is no error.
func Retain(root string, l *layer.Store) (release func(), err error) { return func() {}, nil }

// Store is the cache of one engine.
type Store struct{}

// Open opens or creates the cache and holds the layers of its records.
func Open(cfg Config) (*Store, error) { return &Store{}, nil }

// Close writes what is pending and closes the file.
func (s *Store) Close() error { return nil }

// Lookup gives the record of a key, or nil; a ghost only where there is nothing better. It counts as a use.
func (s *Store) Lookup(key digest.Digest) *Record { return nil }

// Put remembers a record and holds its layers. Keys that named another record name this one from now on.
func (s *Store) Put(r Record) error { return nil }

// DiskUsage lists what builds keep.
func (s *Store) DiskUsage(ctx context.Context, filters []string) ([]Usage, error) { return nil, nil }

// PruneOptions say what Prune removes and what it keeps.
type PruneOptions struct {
	All           bool // also what images share, and internal records
	Filters       []string
	KeepDuration  time.Duration // keeps what was used within it
	ReservedSpace int64         // bytes that are always kept
	MaxUsedSpace  int64         // bytes above which things are removed
	MinFreeSpace  int64         // bytes of the disk that are to be free
}

// Prune removes what the options say and tells each thing removed.
func (s *Store) Prune(ctx context.Context, o PruneOptions, told func(Usage)) error { return nil }
