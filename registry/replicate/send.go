package replicate

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"berth/base/fault"
	"berth/image/remote"
	"berth/registry/storage"
)

// parallel is how many blobs of one manifest are sent at once.
const parallel = 4

// sender brings one manifest and what belongs to it to a target.
type sender struct {
	store *storage.Store
	from  string // repository here
	to    *remote.Repository
	known *places
	sent  atomic.Int64 // bytes

	under []digest.Digest // manifests that are being sent, each for the sake of the one before
	later []digest.Digest // referrers that name what they refer to, which has to be there first
}

// maxUnder bounds how deep indexes and referrers may hang on each other. Whoever may push decides that, and each takes memory while it is sent.
const maxUnder = 32

// errUnder tells that a manifest waits for one that waits for it: an index may refer to a manifest that it names.
var errUnder = fault.New(fault.Conflict, "the manifest is being sent already")

// do does a job, as things are now. It gives the bytes that were sent.
func (w *worker) do(ctx context.Context, j Job) (int64, error) {
	there := w.repository(w.rule.target(j.Repository))
	s := &sender{store: w.r.cfg.Store, from: j.Repository, to: there, known: &w.places}
	if j.Delete && isDigest(j.Reference) {
		return 0, s.removeTagsOf(ctx, j, w.rule)
	}
	if j.Delete {
		return 0, s.remove(ctx, j)
	}
	rec, err := s.store.Record(ctx, j.Repository, j.Reference)
	if fault.Is(err, fault.NotFound) {
		return 0, nil // deleted since: that is another job's matter
	}
	if err != nil {
		return 0, err
	}
	if isDigest(j.Reference) {
		if rec.Subject == "" {
			return 0, nil // part of an index, which brings it
		}
		err := s.all(ctx, rec.Digest, rec.Digest.String())
		return s.sent.Load(), err
	}
	if d, err := there.Resolve(ctx, j.Reference); err == nil && d.Digest == rec.Digest {
		return 0, s.rest(ctx, s.referrers(ctx, rec.Digest))
	} else if err != nil && !fault.Is(err, fault.NotFound) {
		return 0, err
	}
	err = s.all(ctx, rec.Digest, j.Reference)
	return s.sent.Load(), err
}

// all sends a manifest and what had to wait for it.
func (s *sender) all(ctx context.Context, d digest.Digest, as string) error {
	return s.rest(ctx, s.manifest(ctx, d, as))
}

// rest sends what had to wait, once all else is there. Each is sent once: what it names is there now.
func (s *sender) rest(ctx context.Context, err error) error {
	for err == nil && len(s.later) > 0 {
		d := s.later[0]
		s.later = s.later[1:]
		if err = s.manifest(ctx, d, d.String()); fault.Is(err, fault.NotFound) { // deleted meanwhile
			err = nil
		}
	}
	return err
}

// remove deletes a tag at the target, if it is still what was deleted here and nobody has pushed it here again.
func (s *sender) remove(ctx context.Context, j Job) error {
	if _, err := s.store.Record(ctx, j.Repository, j.Reference); err == nil {
		return nil
	}
	d, err := s.to.Resolve(ctx, j.Reference)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if j.Digest != "" && d.Digest != j.Digest {
		return fault.New(fault.Conflict, "%s is another one at %s than the one that was deleted here: it stays", j.Reference, s.to.Name().Domain)
	}
	if err := s.to.Delete(ctx, j.Reference); err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	return nil
}

// removeTagsOf deletes the tags that stand for a manifest at the target which was deleted here: with it went its tags, and nobody said
// which those were. The manifest itself stays for whoever has its digest, until the target collects it.
func (s *sender) removeTagsOf(ctx context.Context, j Job, rule Rule) error {
	tags, err := s.to.Tags(ctx)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, tag := range tags {
		if !rule.wants(tag) {
			continue
		}
		d, err := s.to.Resolve(ctx, tag)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		if err != nil || d.Digest != digest.Digest(j.Reference) {
			continue
		}
		if err := s.remove(ctx, Job{Repository: j.Repository, Reference: tag, Digest: d.Digest}); err != nil {
			return err
		}
	}
	return nil
}

// manifest sends a manifest under a reference, after all that it names.
func (s *sender) manifest(ctx context.Context, d digest.Digest, as string) error {
	switch {
	case slices.Contains(s.under, d):
		return errUnder
	case len(s.under) >= maxUnder:
		return fault.New(fault.Invalid, "manifest %s: more than %d indexes and referrers hang on each other", d, maxUnder)
	}
	s.under = append(s.under, d)
	defer func() { s.under = s.under[:len(s.under)-1] }()
	m, err := s.store.Manifest(ctx, s.from, d.String())
	if err != nil {
		return err
	}
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, b := range m.Blobs {
		group.Go(func() error { return s.blob(inner, b) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, child := range m.Manifests {
		err := s.child(ctx, child)
		if err != nil {
			return err
		}
	}
	// Signatures go before what they sign gets its name: whoever finds the name can verify it. A subject may come after its referrers.
	if err := s.referrers(ctx, d); err != nil {
		return err
	}
	if _, err := s.to.PushManifest(ctx, as, m.MediaType, m.Content); err != nil {
		return fault.In(err, "manifest %s", d)
	}
	return nil
}

// child sends a manifest of an index. One that is not here is left out: the target decides whether it takes such an index. Build
// tools put blobs into indexes too.
func (s *sender) child(ctx context.Context, c storage.Reference) error {
	if ok, err := s.to.HasManifest(ctx, c.Digest); err != nil || ok {
		return err
	}
	err := s.manifest(ctx, c.Digest, c.Digest.String())
	if !fault.Is(err, fault.NotFound) {
		return err
	}
	if _, there := s.store.StatBlob(ctx, s.from, c.Digest); there != nil {
		return nil
	}
	return s.blob(ctx, c)
}

// referrers sends what refers to a manifest: signatures and the like, and what refers to those.
func (s *sender) referrers(ctx context.Context, subject digest.Digest) error {
	list, err := s.store.Referrers(ctx, s.from, subject, "")
	if err != nil {
		return err
	}
	for _, d := range list {
		ok, err := s.to.HasManifest(ctx, d.Digest)
		switch {
		case err != nil:
			return err
		case ok:
			err = s.furtherReferrers(ctx, d.Digest)
		default:
			err = s.manifest(ctx, d.Digest, d.Digest.String())
		}
		if errors.Is(err, errUnder) {
			s.later = append(s.later, d.Digest)
			continue
		}
		if err != nil && !fault.Is(err, fault.NotFound) { // deleted meanwhile
			return err
		}
	}
	return nil
}

// furtherReferrers sends those of a referrer that is there.
func (s *sender) furtherReferrers(ctx context.Context, d digest.Digest) error {
	if len(s.under) >= maxUnder {
		return fault.New(fault.Invalid, "manifest %s: more than %d referrers hang on each other", d, maxUnder)
	}
	s.under = append(s.under, d)
	defer func() { s.under = s.under[:len(s.under)-1] }()
	return s.referrers(ctx, d)
}

// blob sends a blob that the target's repository lacks.
func (s *sender) blob(ctx context.Context, b storage.Reference) error {
	if _, ok, err := s.to.HasBlob(ctx, b.Digest); err != nil || ok {
		if ok {
			s.known.add(b.Digest, s.to.Name().Path)
		}
		return err
	}
	if from := s.known.of(b.Digest); from != "" && from != s.to.Name().Path {
		if ok, err := s.to.Mount(ctx, b.Digest, from); err == nil && ok {
			s.known.add(b.Digest, s.to.Name().Path)
			return nil
		}
	}
	first, err := s.store.RepositoryBlob(ctx, s.from, b.Digest)
	if fault.Is(err, fault.NotFound) {
		return nil // a foreign layer: it lies elsewhere, and the target knows that too
	}
	if err != nil {
		return err
	}
	size := first.Size
	first.Body.Close()
	err = s.to.PushBlob(ctx, ocispec.Descriptor{Digest: b.Digest, Size: size}, func(offset int64) (io.ReadCloser, error) {
		c, err := s.store.RepositoryBlob(ctx, s.from, b.Digest)
		if err != nil {
			return nil, err
		}
		if _, err := c.Body.Seek(offset, io.SeekStart); err != nil {
			c.Body.Close()
			return nil, fault.Wrap(fault.Internal, err, "")
		}
		return c.Body, nil
	})
	if err == nil {
		s.sent.Add(size)
		s.known.add(b.Digest, s.to.Name().Path)
	}
	return err
}
