package upstream

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/registry/storage"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// unfinished is a copied repository from which somebody pulls.
type unfinished struct {
	touched time.Time
	tries   int
	pulled  map[digest.Digest]bool // manifests that were asked for by digest
}

// touch notes that somebody pulls from a repository: a blob, or a manifest by its digest. What was begun is made whole later. Whoever only
// looks what a tag stands for asks for no digest; who pulls does, also when he has all the layers.
func (c *Cache) touch(repository string, manifest digest.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.active[repository]
	if u == nil {
		u = &unfinished{pulled: map[digest.Digest]bool{}}
		c.active[repository] = u
	}
	u.touched, u.tries = time.Now(), 0
	if manifest != "" && len(u.pulled) < 1000 {
		u.pulled[manifest] = true
	}
}

// pulled reports whether a manifest was asked for by digest.
func (c *Cache) pulled(repository string, d digest.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.active[repository]
	return u != nil && u.pulled[d]
}

// arrived stores the manifests of a repository that waited for a blob and now have all they name.
func (c *Cache) arrived(repository string, d digest.Digest) {
	list, err := c.waitingOf(repository)
	if err != nil {
		c.log.Error("manifests that wait could not be read", "repository", repository, "error", err)
		return
	}
	for md, w := range list {
		m, err := waitingManifest(md, w.MediaType, w.Content)
		if err != nil || !names(m, d) {
			continue
		}
		if err := c.promote(c.ctx, repository, md, w); err != nil && !incomplete(err) {
			c.log.Error("a copied manifest could not be stored", "repository", repository, "digest", md.String(), "error", err)
		}
	}
}

func names(m *storage.Manifest, d digest.Digest) bool {
	same := func(r storage.Reference) bool { return r.Digest == d }
	return slices.ContainsFunc(m.Blobs, same) || slices.ContainsFunc(m.Manifests, same)
}

func incomplete(err error) bool {
	var missing *storage.MissingError
	return errors.As(err, &missing)
}

// promote stores a manifest that waited, with the tags that still stand for it; then the indexes that waited for it.
func (c *Cache) promote(ctx context.Context, repository string, d digest.Digest, w waitingEntry) error {
	tags := slices.DeleteFunc(slices.Clone(w.Tags), func(name string) bool {
		t, ok, err := c.tag(repository, name)
		return err != nil || !ok || t.Local || t.Digest != d
	})
	if _, err := c.cfg.Store.PutManifest(ctx, repository, storage.Put{Reference: d.String(), Tags: tags, MediaType: w.MediaType, Content: w.Content}); err != nil {
		return err
	}
	if err := c.drop(bucketWaiting, pairKey(repository, d.String())); err != nil {
		return err
	}
	c.cfg.Stored(repository)
	c.arrived(repository, d)
	return nil
}

// finishLoop makes copies whole whose clients have gone quiet.
func (c *Cache) finishLoop() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var tidied time.Time
	for {
		if time.Since(tidied) >= tidyEvery {
			tidied = time.Now()
			if err := c.tidy(); err != nil {
				c.log.Error("manifests that waited too long could not be dropped", "error", err)
			}
		}
		select {
		case <-c.ctx.Done():
			return
		case <-tick.C:
		}
		for _, repository := range c.gone(quiet) {
			if err := c.finish(c.ctx, repository); err != nil && c.ctx.Err() == nil {
				c.log.Warn("a copy could not be made whole", "repository", repository, "error", err)
				c.again(repository)
			}
		}
	}
}

// gone gives the repositories that nobody has touched for a while, once.
func (c *Cache) gone(after time.Duration) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []string
	for name, u := range c.active {
		if time.Since(u.touched) >= after && u.tries < maxFinishes {
			list = append(list, name)
			u.tries = maxFinishes
		}
		if u.tries >= maxFinishes && time.Since(u.touched) > time.Hour {
			delete(c.active, name)
		}
	}
	slices.Sort(list)
	return list
}

// again lets a repository be tried once more, later.
func (c *Cache) again(repository string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if u := c.active[repository]; u != nil {
		u.touched = time.Now().Add(10 * quiet)
		u.tries = 0
	}
}

// finish fetches what manifests lack that somebody pulls. Of those that nobody began to pull nothing is fetched.
func (c *Cache) finish(ctx context.Context, repository string) error {
	list, err := c.waitingOf(repository)
	if err != nil {
		return err
	}
	var first error
	for d, w := range list {
		m, err := waitingManifest(d, w.MediaType, w.Content)
		if err != nil || len(m.Blobs) == 0 {
			continue
		}
		lacks, has := []digest.Digest{}, c.pulled(repository, d)
		for _, b := range m.Blobs {
			_, err := c.cfg.Store.StatBlob(ctx, repository, b.Digest)
			switch {
			case err == nil:
				has = true
			case fault.Is(err, fault.NotFound):
				lacks = append(lacks, b.Digest)
			default:
				return err
			}
		}
		if !has {
			continue
		}
		for _, b := range lacks {
			if err := c.fetchAndWait(ctx, repository, b); err != nil && first == nil {
				first = err
			}
		}
		if len(lacks) == 0 {
			if err := c.promote(ctx, repository, d, w); err != nil && !incomplete(err) && first == nil {
				first = err
			}
		}
	}
	return first
}

// fetchAndWait fetches a blob for nobody but the storage.
func (c *Cache) fetchAndWait(ctx context.Context, repository string, d digest.Digest) error {
	f, err := c.fetch(repository, d)
	if err != nil {
		return err
	}
	defer f.release()
	select {
	case <-f.over:
	case <-ctx.Done():
		return ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}
