package cache

import (
	"context"
	"time"

	digest "github.com/opencontainers/go-digest"
)

// Record is what is known of one step that ran, or of something else that takes room for builds.
type Record struct {
	ID          string
	Keys        []digest.Digest   // under any of which it is found
	Outputs     [][]digest.Digest // of each output its chain, lowest first; nil for an output that was not made
	Type        string            // as BuildKit's usage records: regular, source.local, exec.cachemount …
	Description string            // the step's name
	Created     time.Time
	LastUsed    time.Time
	Uses        int
	Ghost       bool // the layers are gone
}

// Types of records.
const (
	Regular     = "regular"
	LocalSource = "source.local"
	GitCheckout = "source.git.checkout"
	CacheMount  = "exec.cachemount"
	Frontend    = "frontend"
	Internal    = "internal"
)

// Remote is a cache elsewhere that a build was told to import.
type Remote interface {
	// Lookup gives the record of a key, or fault.NotFound.
	Lookup(ctx context.Context, key digest.Digest) (*Found, error)
}

// Found is a record of a remote.
type Found struct {
	Outputs [][]digest.Digest // chains
	// Provide brings the layers of one output into the layer store and holds each layer of its chain once. nil: the
	// remote knows what the step gave but has not the data.
	Provide func(ctx context.Context, output int) error
	Created time.Time
	Name    string
}
