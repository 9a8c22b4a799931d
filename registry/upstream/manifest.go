package upstream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/image/remote"
	"berth/registry/distribution"
	"berth/registry/storage"
)

// asking is a manifest that is being asked for; several requests wait for one answer.
type asking struct {
	done chan struct{}
	m    *distribution.Manifest
	err  error
}

// Manifest gives a manifest of a copy: ours while it is fresh, else what the source says, else ours with its age and a warning. NotFound
// when no source has it.
func (c *Cache) Manifest(ctx context.Context, repository, tagOrDigest string) (*distribution.Manifest, error) {
	key := repository + "\x00" + tagOrDigest
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, fault.New(fault.Unavailable, "the registry is stopping")
	}
	a := c.asking[key]
	if a == nil {
		a = &asking{done: make(chan struct{})}
		c.asking[key] = a
		c.all.Go(func() { c.ask(key, repository, tagOrDigest, a) })
	}
	c.mu.Unlock()
	select {
	case <-a.done:
		return a.m, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// ask finds the answer that all who wait for it get. It outlives those who wait.
func (c *Cache) ask(key, repository, what string, a *asking) {
	ctx, cancel := context.WithTimeout(c.ctx, askTimeout)
	defer cancel()
	if storage.IsDigest(what) {
		a.m, a.err = c.byDigest(ctx, repository, digest.Digest(what))
	} else {
		a.m, a.err = c.byTag(ctx, repository, what)
	}
	c.mu.Lock()
	delete(c.asking, key)
	c.mu.Unlock()
	close(a.done)
}

// byDigest gives what has a digest and is not in the storage: what waits, or what a source has.
func (c *Cache) byDigest(ctx context.Context, repository string, d digest.Digest) (found *distribution.Manifest, err error) {
	defer func() {
		if err == nil && len(found.Blobs) > 0 {
			c.touch(repository, d)
		}
	}()
	if m, err := c.have(ctx, repository, d); m != nil || err != nil {
		if m == nil {
			return nil, err
		}
		if list := c.candidates(repository); len(list) > 0 {
			c.count(list[0], "manifest", "hit", 0)
		}
		return &distribution.Manifest{Manifest: *m}, nil
	}
	return c.fetchFirst(ctx, repository, d.String(), "")
}

// byTag gives what a tag stands for.
func (c *Cache) byTag(ctx context.Context, repository, tag string) (*distribution.Manifest, error) {
	entry, known, err := c.tag(repository, tag)
	if err != nil {
		return nil, err
	}
	if !known {
		// The storage may know more than our file, which may be younger.
		if t, err := c.cfg.Store.Tag(ctx, repository, tag); err == nil {
			entry, known = tagEntry{Digest: t.Digest, Checked: t.At}, true
		} else if !fault.Is(err, fault.NotFound) {
			return nil, err
		}
	}
	var ours *storage.Manifest
	if known {
		if ours, err = c.have(ctx, repository, entry.Digest); err != nil {
			return nil, err
		}
	}
	if ours == nil {
		return c.fetchFirst(ctx, repository, tag, tag)
	}
	list := c.candidates(repository)
	age := time.Since(entry.Checked)
	if entry.Local || len(list) == 0 {
		return &distribution.Manifest{Manifest: *ours}, nil
	}
	s := list[0] // a repository that we have content of has one source
	if age < s.fresh() {
		c.count(s, "manifest", "hit", 0)
		return &distribution.Manifest{Manifest: *ours, Age: age}, nil
	}
	return c.renew(ctx, s, repository, tag, ours, age)
}

// renew asks the source whether a tag still stands for what we have.
func (c *Cache) renew(ctx context.Context, s *source, repository, tag string, ours *storage.Manifest, age time.Duration) (*distribution.Manifest, error) {
	stale := func(reason string) (*distribution.Manifest, error) {
		c.count(s, "manifest", "stale", 0)
		c.log.Warn("a mirror's source fails, a copy is served", "source", s.Name, "repository", repository, "tag", tag, "age", age.Round(time.Second), "reason", reason)
		return &distribution.Manifest{Manifest: *ours, Age: max(age, time.Second), Warning: fmt.Sprintf("stale: %s could not be asked, this copy was checked %v ago", s.Registry, age.Round(time.Second))}, nil
	}
	if reason, resting := s.resting(); resting {
		return stale(reason)
	}
	name, _ := s.remote(repository)
	soon, cancel := context.WithTimeout(ctx, renewIn)
	defer cancel()
	d, err := s.repository(name).Resolve(soon, tag)
	if err == nil && d.Digest == ours.Digest {
		s.answered(nil)
		c.count(s, "manifest", "hit", 0)
		return &distribution.Manifest{Manifest: *ours}, c.setTag(repository, tag, tagEntry{Digest: d.Digest, Checked: time.Now().UTC()})
	}
	var m *distribution.Manifest
	if err == nil {
		m, err = c.fetchFrom(ctx, s, repository, d.Digest.String(), tag)
	}
	switch {
	case err == nil:
		s.answered(nil)
		return m, nil
	case absent(err):
		s.answered(nil)
		return nil, err
	}
	s.answered(err)
	return stale(err.Error())
}

// absent reports whether a source says that there is no such thing. One that does not let us in says nothing of the kind, though
// people are told so.
func absent(err error) bool {
	var no *remote.Refusal
	if errors.As(err, &no) && (no.Code == "DENIED" || no.Code == "UNAUTHORIZED") {
		return false
	}
	return fault.Is(err, fault.NotFound)
}

// fetchFirst asks the sources in their order. One that says no lets the next be asked; one that fails does not: the repository could be
// its, and must not come from somebody else for a while.
func (c *Cache) fetchFirst(ctx context.Context, repository, what, tag string) (*distribution.Manifest, error) {
	var last error
	for _, s := range c.candidates(repository) {
		if c.isAbsent(s, repository, what) {
			last = notThere(repository, what)
			continue
		}
		m, err := c.fetchFrom(ctx, s, repository, what, tag)
		if err == nil {
			s.answered(nil)
			return m, nil
		}
		if fault.Is(err, fault.NotFound) { // also "pull access denied", which is how hubs say that there is none
			s.answered(nil)
			c.noteAbsent(s, repository, what)
			c.count(s, "manifest", "miss", 0)
			last = notThere(repository, what)
			c.log.Debug("a mirror's source has no such thing", "source", s.Name, "repository", repository, "reference", what, "error", err)
			continue
		}
		s.answered(err)
		c.count(s, "manifest", "error", 0)
		return nil, fault.In(err, "mirror %s", s.Name)
	}
	if last == nil {
		last = notThere(repository, what)
	}
	return nil, last
}

func notThere(repository, what string) error {
	return fault.New(fault.NotFound, "manifest %s is not in repository %s, nor at its source", what, repository)
}

// fetchFrom fetches a manifest and keeps it, under the tag when there is one.
func (c *Cache) fetchFrom(ctx context.Context, s *source, repository, what, tag string) (*distribution.Manifest, error) {
	name, ok := s.remote(repository)
	if !ok {
		return nil, notThere(repository, what)
	}
	doc, err := s.repository(name).Manifest(ctx, what)
	if err != nil {
		return nil, err
	}
	m, err := c.keep(ctx, s, repository, tag, doc)
	if err != nil {
		return nil, err
	}
	c.count(s, "manifest", "miss", doc.Size)
	out := &distribution.Manifest{Manifest: *m}
	if doc.Age > 0 {
		out.Age, out.Warning = doc.Age, fmt.Sprintf("stale: %s has a copy only", s.Registry)
	}
	return out, nil
}

// keep stores a manifest if all that it names is here, and lets it wait otherwise.
func (c *Cache) keep(ctx context.Context, s *source, repository, tag string, doc *remote.Document) (*storage.Manifest, error) {
	if err := c.mark(repository, s); err != nil {
		return nil, err
	}
	put := storage.Put{Reference: doc.Digest.String(), MediaType: doc.MediaType, Content: doc.Content}
	if tag != "" {
		put.Tags = []string{tag}
	}
	m, err := c.cfg.Store.PutManifest(ctx, repository, put)
	var missing *storage.MissingError
	if errors.As(err, &missing) {
		if m, err = waitingManifest(doc.Digest, doc.MediaType, doc.Content); err == nil {
			err = c.wait(repository, doc.Digest, *m, tag)
		}
	}
	if err == nil && tag != "" {
		err = c.setTag(repository, tag, tagEntry{Digest: doc.Digest, Checked: time.Now().UTC()})
	}
	if err == nil && missing == nil {
		c.cfg.Stored(repository)
	}
	return m, err
}

// have gives a manifest that is stored or waits; nil when it does neither.
func (c *Cache) have(ctx context.Context, repository string, d digest.Digest) (*storage.Manifest, error) {
	m, err := c.cfg.Store.Manifest(ctx, repository, d.String())
	if err == nil {
		return m, nil
	}
	if !fault.Is(err, fault.NotFound) {
		return nil, err
	}
	var w waitingEntry
	ok, err := c.get(bucketWaiting, pairKey(repository, d.String()), &w)
	if !ok || err != nil {
		return nil, err
	}
	if m, err = waitingManifest(d, w.MediaType, w.Content); err != nil {
		return nil, err
	}
	if time.Since(w.Wanted) > 24*time.Hour {
		err = c.wait(repository, d, *m, "")
	}
	return m, err
}

// waitingManifest makes of a manifest's bytes what the storage would make of them.
func waitingManifest(d digest.Digest, mediaType string, content []byte) (*storage.Manifest, error) {
	if d.Validate() != nil || d.Algorithm().FromBytes(content) != d {
		return nil, fault.New(fault.Invalid, "a manifest that was copied does not have the digest %s", d)
	}
	doc, err := storage.Parse(mediaType, content)
	if err != nil {
		return nil, err
	}
	r := storage.Record{Digest: d, MediaType: doc.MediaType, Size: int64(len(content)), At: time.Now().UTC(), ArtifactType: doc.ArtifactType}
	if doc.Subject != nil {
		r.Subject = doc.Subject.Digest
	}
	for _, b := range doc.Blobs {
		r.Blobs = append(r.Blobs, storage.Reference{MediaType: b.MediaType, Digest: b.Digest, Size: b.Size})
	}
	for _, m := range doc.Manifests {
		r.Manifests = append(r.Manifests, storage.Reference{MediaType: m.MediaType, Digest: m.Digest, Size: m.Size})
	}
	return &storage.Manifest{Record: r, Content: content}, nil
}

// isAbsent reports whether a source said a moment ago that it does not have something.
func (c *Cache) isAbsent(s *source, repository, what string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.absent[s.Name+"\x00"+repository+"\x00"+what]
	return ok && time.Since(at) < absentFor
}

func (c *Cache) noteAbsent(s *source, repository, what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.absent) >= maxAbsent {
		for k, at := range c.absent {
			if time.Since(at) > absentFor {
				delete(c.absent, k)
			}
		}
		if len(c.absent) >= maxAbsent {
			clear(c.absent)
		}
	}
	c.absent[s.Name+"\x00"+repository+"\x00"+what] = time.Now()
}
