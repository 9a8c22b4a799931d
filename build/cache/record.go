package cache

import (
	"context"
	"time"

	digest "github.com/opencontainers/go-digest"
)

// Record is what is known of one step that ran, or of something else that takes room for builds.
type Record struct {
	ID          string            `json:"id"`
	Keys        []digest.Digest   `json:"keys"`    // under any of which it is found; aliases are not told
	Outputs     [][]digest.Digest `json:"outputs"` // of each output its chain, lowest first; nil for one that was not made
	Type        string            `json:"type"`    // as BuildKit's usage records: regular, source.local, exec.cachemount …
	Description string            `json:"description"`
	Created     time.Time         `json:"created"`
	LastUsed    time.Time         `json:"lastUsed"`
	Uses        int               `json:"uses"`
	Ghost       bool              `json:"-"` // the layers are gone
}

// layers lists the layers of all outputs, each as often as it occurs.
func (r *Record) layers() []digest.Digest {
	var list []digest.Digest
	for _, chain := range r.Outputs {
		list = append(list, chain...)
	}
	return list
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
	Keys    []digest.Digest   // further keys of the record, as far as the remote tells
	Outputs [][]digest.Digest // chains
	// Provide brings the layers of one output into the layer store and holds each layer of its chain once. nil: the
	// remote knows what the step gave but has not the data.
	Provide func(ctx context.Context, output int) error
	Created time.Time
	Name    string
}

// Trace is how a step looked when it last ran, kept to tell later why it runs again.
type Trace struct {
	Op     digest.Digest `json:"op"`
	Name   string        `json:"name"`
	Inputs []TraceInput  `json:"inputs,omitempty"`
}

// TraceInput is what the step read of one input.
type TraceInput struct {
	Name     string            `json:"name"`
	Identity digest.Digest     `json:"identity"`
	Selected []digest.Digest   `json:"selected,omitempty"` // nil: the whole
	Paths    []string          `json:"paths,omitempty"`    // of the selectors
	Files    map[string]uint32 `json:"files,omitempty"`    // of a small local tree: a checksum of each file
}

// maxFiles bounds the files that traces name which are not written yet.
const maxFiles = 500_000

// Note keeps the trace of the step of that slot.
func (s *Store) Note(slot string, t Trace) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range t.Inputs {
		if s.files += len(t.Inputs[i].Files); s.files > maxFiles {
			t.Inputs[i].Files = nil // it is told then which path changed, and not which files below it
		}
	}
	s.last[slot] = t
	s.schedule()
}

// Last gives the trace of a slot, or nil.
func (s *Store) Last(slot string) *Trace {
	s.mu.Lock()
	t, ok := s.last[slot]
	s.mu.Unlock()
	if ok {
		return &t
	}
	return s.db.trace(slot)
}
