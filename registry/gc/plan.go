package gc

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/registry/storage"
)

// Plan is what a collection would remove. It holds the storage's collection open until Close.
type Plan struct {
	Manifests    []Manifest
	Links        []Link
	Blobs        []Blob
	Uploads      []Upload
	Repositories []string // all; those that are empty in the end cease to exist

	Kept      int   // blobs that stay
	KeptBytes int64 // their size

	store      *storage.Store
	collection *storage.Collection
	policy     Policy
	marked     map[string]*repository // by name, those that have garbage
}

// Manifest is a manifest that nothing names.
type Manifest struct {
	Repository string
	Record     storage.Record
}

// Link is a blob that a repository holds and none of its manifests names.
type Link struct {
	Repository string
	Digest     digest.Digest
}

// Blob is content that no repository will hold.
type Blob struct {
	Digest digest.Digest
	Size   int64
}

// Upload is an upload that nobody goes on with.
type Upload struct {
	ID   string
	Size int64
	Idle time.Duration
}

// Result is what a collection has removed.
type Result struct {
	Manifests, Links, Blobs, Uploads, Repositories int
	Bytes                                          int64 // of blobs and uploads
	Spared                                         int   // in the plan, but touched before it was applied
}

// Any reports whether anything was removed.
func (r *Result) Any() bool {
	return r.Manifests+r.Links+r.Blobs+r.Uploads+r.Repositories > 0
}

// New marks, and says what is garbage. Conflict when another collection is open.
func New(ctx context.Context, s *storage.Store, policy Policy) (*Plan, error) {
	if policy.Uploads == 0 {
		policy.Uploads = uploadAge
	}
	c, err := s.BeginCollection(policy.Grace)
	if err != nil {
		return nil, err
	}
	p := &Plan{store: s, collection: c, policy: policy, marked: map[string]*repository{}}
	if err := p.make(ctx); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Close ends the collection.
func (p *Plan) Close() { p.collection.End() }

func (p *Plan) make(ctx context.Context) error {
	if _, err := p.store.Adopt(ctx); err != nil {
		return err
	}
	var err error
	if p.Repositories, err = p.store.Repositories(ctx, ""); err != nil {
		return err
	}
	held := map[digest.Digest]bool{} // by some repository, when the plan has been applied
	for _, name := range p.Repositories {
		if err := p.repository(ctx, name, held); err != nil {
			return err
		}
	}
	for b, err := range p.collection.Blobs(ctx) {
		if err != nil {
			return err
		}
		if held[b.Digest] || b.Young {
			p.Kept++
			p.KeptBytes += b.Size
			continue
		}
		p.Blobs = append(p.Blobs, Blob{Digest: b.Digest, Size: b.Size})
	}
	for u, err := range p.store.Uploads(ctx) {
		if err != nil {
			return err
		}
		if u.Idle > p.policy.Uploads {
			p.Uploads = append(p.Uploads, Upload(u))
		}
	}
	p.sort()
	return nil
}

func (p *Plan) repository(ctx context.Context, name string, held map[digest.Digest]bool) error {
	r, err := mark(ctx, p.store, name, p.policy)
	if err != nil {
		return err
	}
	for d, rec := range r.records {
		if r.kept[d] {
			held[d] = true
		} else {
			p.marked[name] = r
			p.Manifests = append(p.Manifests, Manifest{Repository: name, Record: rec})
		}
	}
	for l, err := range p.collection.Links(ctx, name) {
		if err != nil {
			return err
		}
		if r.blobs[l.Digest] || l.Young {
			held[l.Digest] = true
		} else {
			p.Links = append(p.Links, Link{Repository: name, Digest: l.Digest})
		}
	}
	return nil
}

func (p *Plan) sort() {
	orders := map[string]map[digest.Digest]int{}
	for name, r := range p.marked {
		orders[name] = r.order()
	}
	slices.SortFunc(p.Manifests, func(a, b Manifest) int {
		return cmp.Or(strings.Compare(a.Repository, b.Repository), orders[a.Repository][a.Record.Digest]-orders[b.Repository][b.Record.Digest])
	})
	slices.SortFunc(p.Links, func(a, b Link) int {
		return strings.Compare(a.Repository+string(a.Digest), b.Repository+string(b.Digest))
	})
	slices.SortFunc(p.Blobs, func(a, b Blob) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	slices.SortFunc(p.Uploads, func(a, b Upload) int { return strings.Compare(a.ID, b.ID) })
}

// Write prints the plan, a line for each thing and a sum.
func (p *Plan) Write(w io.Writer) error {
	var b strings.Builder
	for _, m := range p.Manifests {
		fmt.Fprintf(&b, "manifest   %s@%s\n", m.Repository, m.Record.Digest)
	}
	for _, l := range p.Links {
		fmt.Fprintf(&b, "link       %s@%s\n", l.Repository, l.Digest)
	}
	bytes := int64(0)
	for _, x := range p.Blobs {
		fmt.Fprintf(&b, "blob       %s  %d bytes\n", x.Digest, x.Size)
		bytes += x.Size
	}
	for _, u := range p.Uploads {
		fmt.Fprintf(&b, "upload     %s  %d bytes, idle for %s\n", u.ID, u.Size, u.Idle.Round(time.Second))
		bytes += u.Size
	}
	fmt.Fprintf(&b, "remove %d manifests, %d links, %d blobs, %d uploads: %d bytes; keep %d blobs: %d bytes\n",
		len(p.Manifests), len(p.Links), len(p.Blobs), len(p.Uploads), bytes, p.Kept, p.KeptBytes)
	_, err := io.WriteString(w, b.String())
	return err
}

// Apply removes what the plan says and nobody has touched since. It stops at the first error; a later collection finds the rest.
func (p *Plan) Apply(ctx context.Context) (*Result, error) {
	r := &Result{}
	count := func(to *int, done bool, bytes int64) {
		if done {
			*to++
			r.Bytes += bytes
		} else {
			r.Spared++
		}
	}
	spared := map[digest.Digest]bool{} // by a manifest that was spared
	for _, m := range p.Manifests {    // what names others comes before those
		repo := p.marked[m.Repository]
		if repo.kept[m.Record.Digest] {
			r.Spared++
			continue
		}
		done, err := p.collection.SweepManifest(ctx, m.Repository, m.Record)
		if err != nil {
			return r, err
		}
		count(&r.Manifests, done, 0)
		if !done {
			repo.keep(m.Record.Digest)
			maps.Copy(spared, repo.kept)
			maps.Copy(spared, repo.blobs)
		}
	}
	for _, l := range p.Links {
		if spared[l.Digest] {
			r.Spared++
			continue
		}
		done, err := p.collection.SweepLink(ctx, l.Repository, l.Digest)
		if err != nil {
			return r, err
		}
		count(&r.Links, done, 0)
	}
	for _, b := range p.Blobs {
		if spared[b.Digest] {
			r.Spared++
			continue
		}
		done, err := p.collection.SweepBlob(ctx, b.Digest)
		if err != nil {
			return r, err
		}
		count(&r.Blobs, done, b.Size)
	}
	for _, u := range p.Uploads {
		done, err := p.store.DropUpload(ctx, u.ID, p.policy.Uploads)
		if err != nil {
			return r, err
		}
		count(&r.Uploads, done, u.Size)
	}
	return r, p.tidy(ctx, r)
}

// tidy removes what was cut off in the middle of a push or a delete, and repositories that hold nothing.
func (p *Plan) tidy(ctx context.Context, r *Result) error {
	for _, name := range p.Repositories {
		if _, err := p.collection.SweepReferrers(ctx, name); err != nil {
			return err
		}
		done, err := p.store.RemoveEmpty(ctx, name)
		if err != nil {
			return err
		}
		if done {
			r.Repositories++
		}
	}
	return nil
}
