package storage

import (
	"bytes"
	"context"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/base/id"
)

// link says that a repository holds a blob.
type link struct {
	Size int64     `json:"size"`
	At   time.Time `json:"at"` // when it was pushed or mounted last
}

// Blob opens a blob, whichever repositories hold it. It is for the registry's own parts; a client's request goes by
// RepositoryBlob. NotFound when there is none.
func (s *Store) Blob(ctx context.Context, d digest.Digest) (*Content, error) {
	if err := d.Validate(); err != nil {
		return nil, fault.New(fault.Invalid, "invalid digest %q", shorten(string(d)))
	}
	return s.driver.Open(ctx, blobKey(d))
}

// RepositoryBlob opens a blob or manifest that the repository holds, and spares it from collection for the grace. NotFound when the
// repository does not hold it.
func (s *Store) RepositoryBlob(ctx context.Context, repository string, d digest.Digest) (*Content, error) {
	if err := s.mustHold(ctx, repository, d); err != nil {
		return nil, err
	}
	return s.driver.Open(ctx, blobKey(d))
}

// BlobURL gives a URL at which a client can read a blob that the repository holds; "" where the storage has no such thing. The blob is
// spared from collection for the grace. NotFound when the repository does not hold it.
func (s *Store) BlobURL(ctx context.Context, repository string, d digest.Digest) (string, error) {
	redirector, ok := s.driver.(Redirector)
	if !ok {
		return "", nil
	}
	if err := check(repository, d); err != nil {
		return "", err
	}
	url, err := redirector.Redirect(ctx, blobKey(d)) // asks nobody
	if url == "" || err != nil {
		return "", err
	}
	_, err = s.StatBlob(ctx, repository, d)
	return url, err
}

// StatBlob gives the descriptor of a blob or manifest that the repository holds, and spares it from collection for the grace: the
// client may leave out the upload because of this answer. NotFound when the repository does not hold it.
func (s *Store) StatBlob(ctx context.Context, repository string, d digest.Digest) (ocispec.Descriptor, error) {
	if err := s.mustHold(ctx, repository, d); err != nil {
		return ocispec.Descriptor{}, err
	}
	e, err := s.driver.Stat(ctx, blobKey(d))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{MediaType: "application/octet-stream", Digest: d, Size: e.Size}, nil
}

// mustHold leases a digest for the grace and says whether the repository holds it.
func (s *Store) mustHold(ctx context.Context, repository string, d digest.Digest) error {
	if err := check(repository, d); err != nil {
		return err
	}
	back := s.leases.promise(d)
	ok, err := s.holds(ctx, repository, d)
	if !ok {
		back()
	}
	if err == nil && !ok {
		err = fault.New(fault.NotFound, "blob %s is not in repository %s", d, repository)
	}
	return err
}

// holds reports whether the repository has a link or a record of the digest. A manifest can be read as a blob too, as
// in docker-registry.
func (s *Store) holds(ctx context.Context, repo string, d digest.Digest) (bool, error) {
	known, age := s.held.has(repo, d)
	if known {
		return true, nil
	}
	ok, err := s.looksHeld(ctx, repo, d)
	if ok {
		s.held.add(repo, d, age)
	}
	return ok, err
}

// Remembers reports, without asking the driver, whether somebody was told lately that the repository holds a digest. When it does not
// remember the repository may hold it all the same.
func (s *Store) Remembers(repository string, d digest.Digest) bool {
	known, _ := s.held.has(repository, d)
	return known
}

// looksHeld is holds without memory.
func (s *Store) looksHeld(ctx context.Context, repo string, d digest.Digest) (bool, error) {
	ok, err := s.has(ctx, linkKey(repo, d))
	if ok || err != nil {
		return ok, err
	}
	return s.has(ctx, recordKey(repo, d))
}

// PutBlob stores bytes that come from the registry's own parts (an upstream, a replica) and links them. They must have the digest:
// Invalid otherwise, and nothing stays.
func (s *Store) PutBlob(ctx context.Context, repository string, d digest.Digest, r io.Reader) (ocispec.Descriptor, error) {
	u, err := s.StartUpload(ctx, repository, d.Algorithm())
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if _, err := u.Append(ctx, -1, r); err != nil {
		u.Cancel(context.WithoutCancel(ctx))
		return ocispec.Descriptor{}, err
	}
	desc, err := u.Commit(ctx, d)
	if err != nil {
		u.Cancel(context.WithoutCancel(ctx))
	}
	return desc, err
}

// Mount makes a blob that the repository from holds one of repository's too. NotFound when from does not hold it.
func (s *Store) Mount(ctx context.Context, repository string, d digest.Digest, from string) (ocispec.Descriptor, error) {
	if err := check(repository, d); err != nil {
		return ocispec.Descriptor{}, err
	}
	defer s.leases.hold(d)()
	desc, err := s.StatBlob(ctx, from, d)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return desc, s.link(ctx, repository, desc)
}

// link makes a repository hold a blob that is there and leased.
func (s *Store) link(ctx context.Context, repo string, desc ocispec.Descriptor) error {
	defer s.turns.shared(repo)()
	if err := s.addName(ctx, repo); err != nil {
		return err
	}
	key := linkKey(repo, desc.Digest)
	e, err := s.driver.Stat(ctx, key)
	if err == nil && time.Since(e.Modified) < s.cfg.Grace/2 {
		return nil // young enough to be spared for a while
	}
	if err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	if err := s.writeJSON(ctx, key, link{Size: desc.Size, At: time.Now().UTC()}); err != nil {
		return err
	}
	if err != nil {
		s.addSize(repo, desc.Size)
	}
	return nil
}

// DeleteBlob takes a blob out of a repository. NotFound when it does not hold it; Conflict when a manifest of the
// repository names it.
func (s *Store) DeleteBlob(ctx context.Context, repository string, d digest.Digest) error {
	if err := check(repository, d); err != nil {
		return err
	}
	defer s.turns.alone(repository)()
	var l link
	err := s.readJSON(ctx, linkKey(repository, d), &l)
	if err != nil {
		return err
	}
	for r, err := range s.records(ctx, repository) {
		if err != nil {
			return err
		}
		if r.names(d) {
			return fault.New(fault.Conflict, "blob %s is part of manifest %s: delete that first", d, r.Digest)
		}
	}
	return s.unlink(ctx, repository, d, l.Size)
}

func (s *Store) unlink(ctx context.Context, repo string, d digest.Digest, size int64) error {
	err := s.driver.Remove(ctx, linkKey(repo, d))
	s.held.remove(repo, d) // also after an error: it may be gone
	if err != nil {
		return err
	}
	s.addSize(repo, -size)
	return nil
}

// stored reports whether the bytes are there. Some of another length are damaged: they are written again.
func (s *Store) stored(ctx context.Context, d digest.Digest, size int64) (bool, error) {
	e, err := s.driver.Stat(ctx, blobKey(d))
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	return err == nil && e.Size == size, err
}

// putBytes makes a manifest's bytes a blob, durably.
func (s *Store) putBytes(ctx context.Context, d digest.Digest, content []byte) error {
	ok, err := s.stored(ctx, d, int64(len(content)))
	if ok || err != nil {
		return err
	}
	u, err := s.driver.StartUpload(ctx, id.New())
	if err != nil {
		return err
	}
	if _, err := u.Append(ctx, bytes.NewReader(content)); err != nil {
		u.Cancel(context.WithoutCancel(ctx))
		return err
	}
	return u.Finish(ctx, blobKey(d))
}

func check(repository string, d digest.Digest) error {
	if err := CheckName(repository); err != nil {
		return err
	}
	if err := d.Validate(); err != nil {
		return fault.New(fault.Invalid, "invalid digest %q", shorten(string(d)))
	}
	return nil
}
