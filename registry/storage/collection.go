package storage

import (
	"context"
	"iter"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/failpoint"
	"berth/base/fault"
)

// Collection is a window in which content may be swept. From its beginning to its end every digest that anybody leases is spared, so
// what was marked as garbage in the meantime and is touched by a push is not swept. One is open at a time.
type Collection struct {
	store *Store
	mark  time.Time
}

// BeginCollection opens a collection. What is younger than grace is spared; less than nothing means the store's own grace. Conflict when
// one is open.
func (s *Store) BeginCollection(grace time.Duration) (*Collection, error) {
	if grace < 0 {
		grace = s.cfg.Grace
	}
	if !s.leases.begin(grace) {
		return nil, fault.New(fault.Conflict, "a garbage collection is running")
	}
	return &Collection{store: s, mark: time.Now().Add(-grace)}, nil
}

// End closes the collection.
func (c *Collection) End() { c.store.leases.end() }

// Link is a blob that a repository holds.
type Link struct {
	Digest digest.Digest
	Young  bool // spared: younger than the grace, or leased
}

// Links gives the blobs that a repository holds, without its manifests.
func (c *Collection) Links(ctx context.Context, repository string) iter.Seq2[Link, error] {
	return func(yield func(Link, error) bool) {
		for e, err := range c.store.driver.List(ctx, repoKey(repository, "blobs")) {
			var d digest.Digest
			if err == nil {
				d, err = keyDigest(e.Key)
			}
			if err != nil {
				yield(Link{}, err)
				return
			}
			if !yield(Link{Digest: d, Young: c.young(e) || c.store.leases.leased(d)}, nil) {
				return
			}
		}
	}
}

// young reports whether an entry is spared by its age.
func (c *Collection) young(e Entry) bool { return e.Modified.After(c.mark) }

// Stored is a blob in the storage.
type Stored struct {
	Digest digest.Digest
	Size   int64
	Young  bool
}

// Blobs gives every blob that is stored, manifests among them.
func (c *Collection) Blobs(ctx context.Context) iter.Seq2[Stored, error] {
	return func(yield func(Stored, error) bool) {
		for e, err := range c.store.driver.List(ctx, blobsKey) {
			var d digest.Digest
			if err == nil {
				d, err = keyDigest(e.Key)
			}
			if err != nil {
				yield(Stored{}, err)
				return
			}
			if !yield(Stored{Digest: d, Size: e.Size, Young: c.young(e) || c.store.leases.leased(d)}, nil) {
				return
			}
		}
	}
}

// SweepManifest takes a manifest that nothing named when its record was read out of its repository, unless somebody has pushed or asked for
// it since. It reports whether it did.
func (c *Collection) SweepManifest(ctx context.Context, repository string, r Record) (bool, error) {
	s := c.store
	defer s.turns.alone(repository)()
	now, err := s.record(ctx, repository, r.Digest)
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	if err != nil || !now.At.Equal(r.At) || s.leases.leased(r.Digest) {
		return false, err
	}
	for t, err := range s.tags(ctx, repository) {
		if err != nil || t.Digest == r.Digest {
			return false, err
		}
	}
	_, err = s.dropManifest(ctx, repository, r)
	return err == nil, err
}

// SweepLink takes a blob that no manifest of the repository named out of it, unless it is leased or young by now.
func (c *Collection) SweepLink(ctx context.Context, repository string, d digest.Digest) (bool, error) {
	s := c.store
	defer s.turns.alone(repository)()
	return s.leases.sweep(d, func() (bool, error) {
		e, err := s.driver.Stat(ctx, linkKey(repository, d))
		if fault.Is(err, fault.NotFound) {
			return false, nil
		}
		if err != nil || c.young(e) {
			return false, err
		}
		var l link
		if err := s.readJSON(ctx, e.Key, &l); err != nil {
			return false, err
		}
		return true, s.unlink(ctx, repository, d, l.Size)
	})
}

// SweepBlob removes the bytes of a blob that no repository held, unless it is leased or young by now.
func (c *Collection) SweepBlob(ctx context.Context, d digest.Digest) (bool, error) {
	s := c.store
	return s.leases.sweep(d, func() (bool, error) {
		e, err := s.driver.Stat(ctx, blobKey(d))
		if fault.Is(err, fault.NotFound) {
			return false, nil
		}
		if err != nil || c.young(e) {
			return false, err
		}
		failpoint.Hit("registry/before-sweep")
		return true, s.driver.Remove(ctx, e.Key)
	})
}

// SweepReferrers removes entries of a repository's referrers whose manifest is gone: a push or a delete was cut off between the two. It
// gives how many.
func (c *Collection) SweepReferrers(ctx context.Context, repository string) (int, error) {
	s := c.store
	var dangling []string
	for e, err := range s.driver.List(ctx, repoKey(repository, "referrers")) {
		if err != nil {
			return 0, err
		}
		d, err := keyDigest(e.Key)
		if err != nil {
			return 0, err
		}
		if ok, err := s.has(ctx, recordKey(repository, d)); err != nil {
			return 0, err
		} else if !ok {
			dangling = append(dangling, e.Key)
		}
	}
	if len(dangling) == 0 {
		return 0, nil
	}
	defer s.turns.alone(repository)()
	n := 0
	for _, key := range dangling {
		d, err := keyDigest(key)
		if err != nil {
			return n, err
		}
		if ok, err := s.has(ctx, recordKey(repository, d)); err != nil {
			return n, err
		} else if ok {
			continue
		}
		if err := s.driver.Remove(ctx, key); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}
