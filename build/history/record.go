package history

import (
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// Record is one build.
type Record struct {
	ID            string
	Frontend      string            `json:",omitempty"`
	FrontendAttrs map[string]string `json:",omitempty"` // secrets are not among them: they never leave the client this way
	Exporters     []Exporter        `json:",omitempty"`
	Created       time.Time
	Completed     time.Time         `json:",omitzero"`  // zero: it is active
	Error         []byte            `json:",omitempty"` // a google.rpc.Status without its details; nil: it succeeded
	ErrorMessage  string            `json:",omitempty"` // the same in words
	ErrorBlob     *Blob             `json:",omitempty"` // with its details
	Log           *Blob             `json:",omitempty"`
	Trace         *Blob             `json:",omitempty"`
	Response      map[string]string `json:",omitempty"` // what the exporters told
	Result        *Result           `json:",omitempty"` // of a build for one platform
	Results       map[string]Result `json:",omitempty"` // by platform
	Pinned        bool              `json:",omitempty"`
	Generation    int32             // how often it was written

	Steps, CachedSteps, CompletedSteps, Warnings int

	written int64 // bytes of it on disk
}

// Exporter is an output that was asked for.
type Exporter struct {
	Type  string
	Attrs map[string]string `json:",omitempty"`
}

// Result is what was made: the documents that stand for it, by exporter, and what is attested of it.
type Result struct {
	Documents    map[int64]Blob `json:",omitempty"` // of images, by exporter
	Attestations []Blob         `json:",omitempty"`
}

// Blob names a document.
type Blob struct {
	MediaType   string
	Digest      digest.Digest
	Size        int64
	Annotations map[string]string `json:",omitempty"`
}

// Status is how a build stands: running, completed, error, canceled.
func (r *Record) Status() string {
	switch {
	case r.Completed.IsZero():
		return "running"
	case r.Error == nil:
		return "completed"
	case isCanceled(r.ErrorMessage):
		return "canceled"
	}
	return "error"
}

// blobs lists the documents that a record names.
func (r *Record) blobs() []digest.Digest {
	var list []digest.Digest
	add := func(b *Blob) {
		if b != nil {
			list = append(list, b.Digest)
		}
	}
	add(r.ErrorBlob)
	add(r.Log)
	add(r.Trace)
	results := slices.Collect(maps.Values(r.Results))
	if r.Result != nil {
		results = append(results, *r.Result)
	}
	for _, res := range results {
		for _, a := range res.Attestations {
			add(&a)
		}
		for _, d := range res.Documents {
			add(&d)
		}
	}
	return list
}

// documents are the bytes of what a record names, as far as it lies here.
func (r *Record) documents() (sum int64) {
	for _, b := range []*Blob{r.ErrorBlob, r.Log, r.Trace} {
		if b != nil {
			sum += b.Size
		}
	}
	results := slices.Collect(maps.Values(r.Results))
	if r.Result != nil {
		results = append(results, *r.Result)
	}
	for _, res := range results {
		for _, a := range res.Attestations {
			sum += a.Size
		}
		for _, d := range res.Documents {
			sum += d.Size
		}
	}
	return sum
}

// EventType is what happened to a record.
type EventType int

// The events.
const (
	Started EventType = iota
	Completed
	Deleted
)

// Event is what a listener is told.
type Event struct {
	Type   EventType
	Record Record // of one that was deleted only the ID
}
