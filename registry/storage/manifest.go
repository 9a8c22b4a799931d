package storage

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"berth/base/failpoint"
	"berth/base/fault"
)

// Record is what a repository knows of a manifest that it holds.
type Record struct {
	Digest       digest.Digest `json:"-"`
	MediaType    string        `json:"mediaType"`
	Size         int64         `json:"size"`
	At           time.Time     `json:"at"` // when it was pushed last
	ArtifactType string        `json:"artifactType,omitempty"`
	Subject      digest.Digest `json:"subject,omitempty"`
	// Blobs and Manifests are what it names and the repository holds, without the subject.
	Blobs     []Reference `json:"blobs,omitempty"`
	Manifests []Reference `json:"manifests,omitempty"`
}

// Reference is a digest that a manifest names.
type Reference struct {
	MediaType string        `json:"mediaType,omitempty"`
	Digest    digest.Digest `json:"digest"`
	Size      int64         `json:"size"`
}

// Descriptor gives the record as a descriptor.
func (r Record) Descriptor() ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: r.MediaType, Digest: r.Digest, Size: r.Size}
}

func (r Record) names(d digest.Digest) bool {
	same := func(ref Reference) bool { return ref.Digest == d }
	return slices.ContainsFunc(r.Blobs, same) || slices.ContainsFunc(r.Manifests, same)
}

// Manifest is a manifest with its bytes.
type Manifest struct {
	Record
	Content []byte
}

// Put is a manifest that somebody pushes.
type Put struct {
	Reference string   // a tag or a digest
	Tags      []string // further tags, with a digest only
	MediaType string   // as the Content-Type says; "" when unsaid
	Content   []byte
}

// MissingError is in the chain of an error about a manifest that names what the repository does not hold.
type MissingError struct {
	Digests []digest.Digest
}

// Error names the first few.
func (e *MissingError) Error() string {
	s := "the repository does not hold"
	for i, d := range e.Digests {
		if i == 3 {
			return s + " and others"
		}
		s += " " + string(d)
	}
	return s
}

// Manifest gives a manifest by tag or digest. NotFound when the repository has none; the message says which.
func (s *Store) Manifest(ctx context.Context, repository, tagOrDigest string) (*Manifest, error) {
	r, err := s.Record(ctx, repository, tagOrDigest)
	if err != nil {
		return nil, err
	}
	content, err := s.driver.Read(ctx, blobKey(r.Digest))
	if err != nil {
		return nil, err
	}
	return &Manifest{Record: r, Content: content}, nil
}

// Record gives what is known of a manifest by tag or digest, without reading it.
func (s *Store) Record(ctx context.Context, repository, tagOrDigest string) (Record, error) {
	if err := CheckName(repository); err != nil {
		return Record{}, err
	}
	if !IsDigest(tagOrDigest) {
		t, err := s.Tag(ctx, repository, tagOrDigest)
		if err != nil {
			return Record{}, err
		}
		tagOrDigest = string(t.Digest)
	}
	d, err := ParseDigest(tagOrDigest)
	if err != nil {
		return Record{}, err
	}
	back := s.leases.promise(d)
	r, err := s.record(ctx, repository, d)
	if err != nil {
		back()
	}
	return r, err
}

func (s *Store) record(ctx context.Context, repo string, d digest.Digest) (Record, error) {
	var r Record
	err := s.readJSON(ctx, recordKey(repo, d), &r)
	if fault.Is(err, fault.NotFound) {
		return r, fault.New(fault.NotFound, "manifest %s is not in repository %s", d, repo)
	}
	r.Digest = d
	return r, err
}

// Manifests gives what is known of all manifests of a repository, in no order. One that is deleted meanwhile is left out.
func (s *Store) Manifests(ctx context.Context, repository string) iter.Seq2[Record, error] {
	if err := CheckName(repository); err != nil {
		return func(yield func(Record, error) bool) { yield(Record{}, err) }
	}
	return s.records(ctx, repository)
}

func (s *Store) records(ctx context.Context, repo string) iter.Seq2[Record, error] {
	return values(s, ctx, repoKey(repo, "manifests"), func(ctx context.Context, key string) (Record, error) {
		d, err := keyDigest(key)
		if err != nil {
			return Record{}, fault.Wrap(fault.Internal, err, "a foreign key")
		}
		return s.record(ctx, repo, d)
	})
}

// values lists the keys below a prefix and reads them, several at once. One that goes away meanwhile is left out. It ends at the first error.
func values[T any](s *Store, ctx context.Context, prefix string, read func(ctx context.Context, key string) (T, error)) iter.Seq2[T, error] {
	type result struct {
		value T
		gone  bool
	}
	return func(yield func(T, error) bool) {
		var none T
		var keys []string
		flush := func() (more bool) {
			results := make([]result, len(keys))
			group, ctx := errgroup.WithContext(ctx)
			group.SetLimit(looks)
			for i, key := range keys {
				group.Go(func() error {
					v, err := read(ctx, key)
					if fault.Is(err, fault.NotFound) {
						results[i].gone = true
						return nil
					}
					results[i].value = v
					return err
				})
			}
			if err := group.Wait(); err != nil {
				yield(none, err)
				return false
			}
			for _, r := range results {
				if !r.gone && !yield(r.value, nil) {
					return false
				}
			}
			keys = keys[:0]
			return true
		}
		for e, err := range s.driver.List(ctx, prefix) {
			if err != nil {
				yield(none, err)
				return
			}
			if keys = append(keys, e.Key); len(keys) == 8*looks && !flush() {
				return
			}
		}
		flush()
	}
}

// PutManifest stores a manifest and gives it its tags. Errors: Invalid when it is no manifest or has another digest (ErrDigest);
// NotFound with MissingError in the chain when it names what the repository does not hold.
func (s *Store) PutManifest(ctx context.Context, repository string, p Put) (*Manifest, error) {
	if err := CheckName(repository); err != nil {
		return nil, err
	}
	d, tags, err := p.target()
	if err != nil {
		return nil, err
	}
	doc, err := Parse(p.MediaType, p.Content)
	if err != nil {
		return nil, err
	}
	m := &Manifest{Record: doc.record(d, int64(len(p.Content))), Content: p.Content}

	leased := []digest.Digest{d}
	for _, r := range slices.Concat(m.Blobs, m.Manifests) {
		leased = append(leased, r.Digest)
	}
	defer s.leases.hold(leased...)()
	defer s.turns.shared(repository)()
	if err := s.complete(ctx, repository, doc, s.holds); err != nil {
		return nil, err
	}
	if err := s.writeManifest(ctx, repository, m, doc); err != nil {
		return nil, err
	}
	failpoint.Hit("registry/before-tag")
	for _, t := range tags {
		if err := s.writeJSON(ctx, tagKey(repository, t), tagValue{Digest: d, At: m.At}); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// target gives the digest that the content has to have, and the tags.
func (p Put) target() (digest.Digest, []string, error) {
	if !IsDigest(p.Reference) {
		if err := CheckTag(p.Reference); err != nil {
			return "", nil, err
		}
		return digest.FromBytes(p.Content), []string{p.Reference}, nil
	}
	d, err := ParseDigest(p.Reference)
	if err != nil {
		return "", nil, err
	}
	if got := d.Algorithm().FromBytes(p.Content); got != d {
		return "", nil, fault.Wrap(fault.Invalid, ErrDigest, "provided digest %s, content has %s", d, got)
	}
	for _, t := range p.Tags {
		if err := CheckTag(t); err != nil {
			return "", nil, err
		}
	}
	return d, p.Tags, nil
}

// looks is how many keys are looked for at once: an object store takes its time for each.
const looks = 8

// complete refuses a manifest that names what the repository does not hold. The caller leases what it names.
func (s *Store) complete(ctx context.Context, repo string, doc *Document, holds func(context.Context, string, digest.Digest) (bool, error)) error {
	var wanted []digest.Digest
	for _, b := range doc.Blobs {
		if !doc.foreign(b) {
			wanted = append(wanted, b.Digest)
		}
	}
	if !s.cfg.SparseIndexes {
		for _, m := range doc.Manifests {
			wanted = append(wanted, m.Digest) // a record, or a blob: caches of build tools put those into an index
		}
	}
	there := make([]bool, len(wanted))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(looks)
	for i, d := range wanted {
		group.Go(func() (err error) {
			there[i], err = holds(ctx, repo, d)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	missing := &MissingError{}
	for i, d := range wanted {
		if !there[i] {
			missing.Digests = append(missing.Digests, d)
		}
	}
	if len(missing.Digests) > 0 {
		return fault.Wrap(fault.NotFound, missing, "manifest is not complete")
	}
	return nil
}

func (s *Store) writeManifest(ctx context.Context, repo string, m *Manifest, doc *Document) error {
	if err := s.addName(ctx, repo); err != nil {
		return err
	}
	if err := s.putBytes(ctx, m.Digest, m.Content); err != nil {
		return err
	}
	failpoint.Hit("registry/before-record")
	if m.Subject != "" {
		if err := s.writeJSON(ctx, referrerKey(repo, m.Subject, m.Digest), doc.referrer(m.Record)); err != nil {
			return err
		}
	}
	key := recordKey(repo, m.Digest)
	known, err := s.has(ctx, key)
	if err != nil {
		return err
	}
	if err := s.writeJSON(ctx, key, m.Record); err != nil {
		return err
	}
	if !known {
		s.addSize(repo, m.Size)
	}
	return nil
}

// DeleteManifest takes a manifest out of a repository, and all tags that stand for it; it gives those. NotFound when the repository has no
// such manifest.
func (s *Store) DeleteManifest(ctx context.Context, repository string, d digest.Digest) ([]string, error) {
	if err := check(repository, d); err != nil {
		return nil, err
	}
	defer s.turns.alone(repository)()
	r, err := s.record(ctx, repository, d)
	if err != nil {
		return nil, err
	}
	return s.dropManifest(ctx, repository, r)
}

// dropManifest removes a manifest's names, the last given first. The caller has the repository to himself.
func (s *Store) dropManifest(ctx context.Context, repo string, r Record) ([]string, error) {
	var gone []string
	for t, err := range s.tags(ctx, repo) {
		if err != nil {
			return gone, err
		}
		if t.Digest != r.Digest {
			continue
		}
		if err := s.driver.Remove(ctx, tagKey(repo, t.Name)); err != nil {
			return gone, err
		}
		gone = append(gone, t.Name)
	}
	failpoint.Hit("registry/before-unrecord")
	err := s.driver.Remove(ctx, recordKey(repo, r.Digest))
	s.held.remove(repo, r.Digest)
	if err != nil {
		return gone, err
	}
	s.addSize(repo, -r.Size)
	if r.Subject == "" {
		return gone, nil
	}
	return gone, s.driver.Remove(ctx, referrerKey(repo, r.Subject, r.Digest))
}
