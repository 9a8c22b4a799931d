package upstream

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/registry/storage"
)

const (
	maxReferrers   = 200
	referrerWeight = 64 << 20 // bytes of what refers to a manifest that are fetched at most, each
)

// Referrers fetches what refers to a manifest of a copy at its source (signatures, attestations), so that the list that is read from the
// storage next has it. The source is asked no more often than about a tag. Its failure is told and changes nothing here: what is here stays.
func (c *Cache) Referrers(ctx context.Context, repository string, subject digest.Digest) error {
	c.mu.Lock()
	_, copied := c.copies[repository]
	c.mu.Unlock()
	list := c.candidates(repository)
	if !copied || len(list) == 0 {
		return nil
	}
	s, key := list[0], "referrers\x00"+repository+"\x00"+subject.String()
	if _, resting := s.resting(); resting || c.askedLately(key, s.fresh()) {
		return nil
	}
	name, _ := s.remote(repository)
	soon, cancel := context.WithTimeout(ctx, askTimeout/4)
	defer cancel()
	found, err := s.repository(name).Referrers(soon, subject, "")
	if err != nil {
		if !absent(err) {
			s.answered(err)
		}
		return fault.In(err, "mirror %s", s.Name)
	}
	for i, d := range found {
		if i == maxReferrers {
			c.log.Warn("only some of what refers to a manifest is fetched", "repository", repository, "digest", subject.String(), "there", len(found))
			break
		}
		if err := c.fetchReferrer(soon, s, repository, d.Digest); err != nil {
			return err
		}
	}
	c.noteAsked(key)
	return nil
}

// fetchReferrer fetches one such manifest with its blobs.
func (c *Cache) fetchReferrer(ctx context.Context, s *source, repository string, d digest.Digest) error {
	if _, err := c.cfg.Store.Record(ctx, repository, d.String()); err == nil {
		return nil
	}
	m, err := c.have(ctx, repository, d)
	if err != nil {
		return err
	}
	if m == nil {
		got, err := c.fetchFrom(ctx, s, repository, d.String(), "")
		if absent(err) {
			return nil // gone since the list was made
		}
		if err != nil {
			return err
		}
		m = &got.Manifest
	}
	if weight(m) > referrerWeight {
		c.log.Warn("what refers to a manifest is too large to be fetched beforehand", "repository", repository, "digest", d.String(), "bytes", weight(m))
		return nil
	}
	for _, b := range m.Blobs {
		if _, err := c.cfg.Store.StatBlob(ctx, repository, b.Digest); err == nil {
			continue
		}
		if err := c.fetchAndWait(ctx, repository, b.Digest); err != nil {
			return err
		}
	}
	var w waitingEntry
	if waits, err := c.get(bucketWaiting, pairKey(repository, d.String()), &w); !waits || err != nil {
		return err
	}
	if err := c.promote(ctx, repository, d, w); err != nil && !incomplete(err) {
		return err
	}
	return nil
}

func weight(m *storage.Manifest) (n int64) {
	for _, b := range m.Blobs {
		n += b.Size
	}
	return n
}

// askedLately reports whether something was asked of a source so short a time ago that the answer still holds.
func (c *Cache) askedLately(key string, fresh time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.asked[key]
	return ok && time.Since(at) < fresh
}

func (c *Cache) noteAsked(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.asked) >= maxAbsent {
		clear(c.asked)
	}
	c.asked[key] = time.Now()
}

// Local gives the name here of a repository of another registry, where a source with a prefix brings that registry's repositories: what
// clients with one mirror for many registries ask for (?ns=quay.io).
func (c *Cache) Local(registry, repository string) (string, bool) {
	if registry == "registry-1.docker.io" || registry == "index.docker.io" {
		registry = "docker.io"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.order {
		if s.Registry != registry || s.Prefix == "" {
			continue
		}
		name := s.Prefix + "/" + repository
		if _, ok := s.remote(name); ok {
			return name, true
		}
	}
	return "", false
}
