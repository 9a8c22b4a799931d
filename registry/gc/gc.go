package gc

import (
	"context"
	"log/slog"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/registry/storage"
)

// Policy is what counts as garbage.
type Policy struct {
	// Grace spares what is younger; less than nothing means the storage's own.
	Grace time.Duration
	// Untagged removes manifests that no tag leads to, when they were pushed longer ago than this; zero keeps them all. A manifest that an index
	// names, or that refers to one that stays, stays.
	Untagged time.Duration
	// Uploads that got no bytes for so long are dropped; zero is a day.
	Uploads time.Duration
}

// uploadAge is for how long an upload may rest, unless the policy says otherwise.
const uploadAge = 24 * time.Hour

// Run plans and applies.
func Run(ctx context.Context, s *storage.Store, p Policy) (*Result, error) {
	plan, err := New(ctx, s, p)
	if err != nil {
		return nil, err
	}
	defer plan.Close()
	return plan.Apply(ctx)
}

// Loop collects every interval until ctx ends. told, if it is not nil, is told of each collection; the result may be nil after
// an error.
func Loop(ctx context.Context, s *storage.Store, p Policy, interval time.Duration, told func(took time.Duration, r *Result, err error), log *slog.Logger) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		began := time.Now()
		r, err := Run(ctx, s, p)
		if told != nil && ctx.Err() == nil {
			told(time.Since(began), r, err)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			log.Error("garbage collection failed", "error", err)
		case r.Any():
			log.Info("garbage was collected", "manifests", r.Manifests, "links", r.Links, "blobs", r.Blobs, "bytes", r.Bytes, "uploads", r.Uploads, "repositories", r.Repositories)
		}
	}
}

// repository is what is known of one repository while it is marked.
type repository struct {
	name     string
	records  map[digest.Digest]storage.Record
	children map[digest.Digest][]digest.Digest // of a subject: its referrers
	kept     map[digest.Digest]bool
	blobs    map[digest.Digest]bool // that kept manifests name
}

// mark finds what a repository keeps.
func mark(ctx context.Context, s *storage.Store, name string, p Policy) (*repository, error) {
	r := &repository{name: name, records: map[digest.Digest]storage.Record{}, children: map[digest.Digest][]digest.Digest{}, kept: map[digest.Digest]bool{}, blobs: map[digest.Digest]bool{}}
	// Tags first: a manifest is recorded before it is tagged, so every tag's manifest is among the records that are read after it.
	var tagged []digest.Digest
	for t, err := range s.TagsOf(ctx, name) {
		if err != nil {
			return nil, err
		}
		tagged = append(tagged, t.Digest)
	}
	for rec, err := range s.Manifests(ctx, name) {
		if err != nil {
			return nil, err
		}
		r.records[rec.Digest] = rec
		if rec.Subject != "" {
			r.children[rec.Subject] = append(r.children[rec.Subject], rec.Digest)
		}
	}
	for _, d := range tagged {
		r.keep(d)
	}
	for d, rec := range r.records {
		if p.Untagged == 0 || time.Since(rec.At) < p.Untagged {
			r.keep(d)
		}
	}
	return r, nil
}

// keep marks a manifest and all that hangs on it.
func (r *repository) keep(d digest.Digest) {
	todo := []digest.Digest{d}
	for len(todo) > 0 {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		rec, known := r.records[d]
		if r.kept[d] || !known {
			continue
		}
		r.kept[d] = true
		for _, b := range rec.Blobs {
			r.blobs[b.Digest] = true
		}
		for _, m := range rec.Manifests {
			r.blobs[m.Digest] = true // an index may name blobs as well
			todo = append(todo, m.Digest)
		}
		todo = append(todo, r.children[d]...)
	}
}

// order numbers the manifests so that an index has a smaller number than what it names. That is what matters when one of them is
// spared; a referrer may stand anywhere, since nothing breaks without it. Digests make circles of indexes impossible.
func (r *repository) order() map[digest.Digest]int {
	number, seen := map[digest.Digest]int{}, map[digest.Digest]bool{}
	var visit func(d digest.Digest)
	visit = func(d digest.Digest) {
		if seen[d] {
			return
		}
		seen[d] = true
		for _, m := range r.records[d].Manifests {
			visit(m.Digest)
		}
		number[d] = -len(number)
	}
	for d := range r.records {
		visit(d)
	}
	return number
}
