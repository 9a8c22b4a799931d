package upstream

import (
	"bytes"
	"encoding/json"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"go.etcd.io/bbolt"

	"berth/base/fault"
	"berth/registry/storage"
)

const format = "1"

var (
	bucketMeta    = []byte("meta")
	bucketCopies  = []byte("copies")
	bucketTags    = []byte("tags")
	bucketWaiting = []byte("waiting")
	keyFormat     = []byte("format")
)

// tagEntry is what is known of a tag of a copy.
type tagEntry struct {
	Digest  digest.Digest `json:"digest"`
	Checked time.Time     `json:"checked"`         // when the source said so last
	Local   bool          `json:"local,omitempty"` // pushed here: the source is not asked
}

// waitingEntry is a manifest whose blobs have not all come.
type waitingEntry struct {
	MediaType string    `json:"mediaType"`
	Content   []byte    `json:"content"`
	Tags      []string  `json:"tags,omitempty"` // to be given with it
	Wanted    time.Time `json:"wanted"`         // when it was asked for last, to a day
}

// openCopies opens the file and sees to its format.
func openCopies(file string) (*bbolt.DB, error) {
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{Timeout: 2 * time.Second})
	if err != nil {
		return nil, fault.In(err, "open the mirrors (%s)", file)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, b := range [][]byte{bucketMeta, bucketCopies, bucketTags, bucketWaiting} {
			if _, err := tx.CreateBucketIfNotExists(b); err != nil {
				return err
			}
		}
		meta := tx.Bucket(bucketMeta)
		if have := meta.Get(keyFormat); have != nil && string(have) != format {
			return fault.New(fault.Invalid, "it has format %s, this program reads %s", have, format)
		}
		return meta.Put(keyFormat, []byte(format))
	})
	if err != nil {
		db.Close()
		return nil, fault.In(err, "open the mirrors (%s)", file)
	}
	return db, nil
}

// load reads which repositories are copies, and which of them may have been about to become whole.
func (c *Cache) load() error {
	return c.db.View(func(tx *bbolt.Tx) error {
		err := tx.Bucket(bucketCopies).ForEach(func(k, v []byte) error {
			c.copies[string(k)] = string(v)
			return nil
		})
		if err != nil {
			return err
		}
		return tx.Bucket(bucketWaiting).ForEach(func(k, _ []byte) error {
			repository, _, _ := bytes.Cut(k, []byte{0})
			c.active[string(repository)] = &unfinished{touched: time.Now(), pulled: map[digest.Digest]bool{}}
			return nil
		})
	})
}

// tidy drops manifests that have waited too long, and the oldest when there are too many.
func (c *Cache) tidy() error {
	type item struct {
		key    []byte
		wanted time.Time
	}
	var list []item
	err := c.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketWaiting).ForEach(func(k, v []byte) error {
			var w struct{ Wanted time.Time }
			if err := json.Unmarshal(v, &w); err != nil {
				w.Wanted = time.Time{} // unreadable: it goes
			}
			list = append(list, item{bytes.Clone(k), w.Wanted})
			return nil
		})
	})
	if err != nil {
		return fault.In(err, "read the mirrors")
	}
	slices.SortFunc(list, func(a, b item) int { return b.wanted.Compare(a.wanted) })
	keep := 0
	for keep < len(list) && keep < maxWaiting && time.Since(list[keep].wanted) < waitingFor {
		keep++
	}
	if keep == len(list) {
		return nil
	}
	err = c.db.Update(func(tx *bbolt.Tx) error {
		for _, i := range list[keep:] {
			if err := tx.Bucket(bucketWaiting).Delete(i.key); err != nil {
				return err
			}
		}
		return nil
	})
	return fault.In(err, "write the mirrors")
}

func pairKey(repository, name string) []byte { return []byte(repository + "\x00" + name) }

func (c *Cache) get(bucket, key []byte, into any) (bool, error) {
	found := false
	err := c.db.View(func(tx *bbolt.Tx) error {
		v := tx.Bucket(bucket).Get(key)
		found = v != nil
		if !found {
			return nil
		}
		return json.Unmarshal(v, into)
	})
	return found && err == nil, fault.In(err, "read the mirrors")
}

func (c *Cache) put(bucket, key []byte, v any) error {
	content, err := json.Marshal(v)
	if err == nil {
		err = c.db.Batch(func(tx *bbolt.Tx) error { return tx.Bucket(bucket).Put(key, content) })
	}
	return fault.In(err, "write the mirrors")
}

func (c *Cache) drop(bucket, key []byte) error {
	return fault.In(c.db.Batch(func(tx *bbolt.Tx) error { return tx.Bucket(bucket).Delete(key) }), "write the mirrors")
}

// mark writes down that a repository is a copy of a source's, before anything of it is stored. NotFound when it is another source's by now:
// a repository has one.
func (c *Cache) mark(repository string, s *source) error {
	c.mu.Lock()
	owner, ok := c.copies[repository]
	c.mu.Unlock()
	if !ok {
		err := c.db.Update(func(tx *bbolt.Tx) error {
			b := tx.Bucket(bucketCopies)
			if v := b.Get([]byte(repository)); v != nil {
				owner = string(v)
				return nil
			}
			owner = s.Name
			return b.Put([]byte(repository), []byte(s.Name))
		})
		if err != nil {
			return fault.In(err, "write the mirrors")
		}
		c.mu.Lock()
		c.copies[repository] = owner
		c.mu.Unlock()
	}
	if owner != s.Name {
		return fault.New(fault.NotFound, "repository %s is a copy from mirror %s", repository, owner)
	}
	return nil
}

func (c *Cache) tag(repository, name string) (tagEntry, bool, error) {
	var t tagEntry
	ok, err := c.get(bucketTags, pairKey(repository, name), &t)
	return t, ok, err
}

func (c *Cache) setTag(repository, name string, t tagEntry) error {
	return c.put(bucketTags, pairKey(repository, name), t)
}

func (c *Cache) forgetTag(repository, name string) error {
	return c.drop(bucketTags, pairKey(repository, name))
}

// forgetManifest forgets a manifest that was deleted here, and its tags.
func (c *Cache) forgetManifest(repository string, d digest.Digest) error {
	err := c.db.Update(func(tx *bbolt.Tx) error {
		prefix, cur := pairKey(repository, ""), tx.Bucket(bucketTags).Cursor()
		for k, v := cur.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = cur.Next() {
			var t tagEntry
			if json.Unmarshal(v, &t) == nil && t.Digest == d {
				if err := cur.Delete(); err != nil {
					return err
				}
			}
		}
		return tx.Bucket(bucketWaiting).Delete(pairKey(repository, d.String()))
	})
	return fault.In(err, "write the mirrors")
}

// wait keeps a manifest until its blobs have come. Tags that it has already stay.
func (c *Cache) wait(repository string, d digest.Digest, m storage.Manifest, tag string) error {
	key := pairKey(repository, d.String())
	err := c.db.Batch(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketWaiting)
		w := waitingEntry{}
		if v := b.Get(key); v != nil {
			if err := json.Unmarshal(v, &w); err != nil {
				return err
			}
		}
		w.MediaType, w.Content, w.Wanted = m.MediaType, m.Content, time.Now().UTC()
		if tag != "" && !slices.Contains(w.Tags, tag) {
			w.Tags = append(w.Tags, tag)
		}
		content, err := json.Marshal(w)
		if err != nil {
			return err
		}
		return b.Put(key, content)
	})
	return fault.In(err, "write the mirrors")
}

// waitingOf gives the manifests of a repository that wait.
func (c *Cache) waitingOf(repository string) (map[digest.Digest]waitingEntry, error) {
	found := map[digest.Digest]waitingEntry{}
	err := c.db.View(func(tx *bbolt.Tx) error {
		prefix, cur := pairKey(repository, ""), tx.Bucket(bucketWaiting).Cursor()
		for k, v := cur.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = cur.Next() {
			var w waitingEntry
			if err := json.Unmarshal(v, &w); err != nil {
				return err
			}
			found[digest.Digest(k[len(prefix):])] = w
		}
		return nil
	})
	return found, fault.In(err, "read the mirrors")
}
