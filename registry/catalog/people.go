package catalog

import (
	"bytes"
	"context"
	"encoding/json"
	"time"

	"go.etcd.io/bbolt"

	"berth/base/fault"
	"berth/registry/access"
)

// people.db, format 1:
//
//	meta   "format" → "1"
//	facts  REPOSITORY → JSON facts
//	stars  REPOSITORY 0x00 USER → time (RFC 3339)
const peopleFormat = "1"

const (
	bucketMeta  = "meta"
	bucketFacts = "facts"
	bucketStars = "stars"
)

// facts is what people said of a repository, and what was counted.
type facts struct {
	Short    string    `json:"short,omitempty"`
	Long     string    `json:"long,omitempty"`
	By       string    `json:"by,omitempty"` // who wrote the description
	At       time.Time `json:"at,omitzero"`
	Official *bool     `json:"official,omitempty"` // nil: by its name

	Pulls    uint64    `json:"pulls,omitempty"`
	Pushes   uint64    `json:"pushes,omitempty"`
	LastPush time.Time `json:"last_push,omitzero"`

	stars map[string]time.Time // by user
}

// openPeople opens the file of facts, made when it is missing.
func openPeople(path string) (*bbolt.DB, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: 2 * time.Second})
	if err != nil {
		return nil, fault.In(err, "open the catalog's stars and descriptions (%s)", path)
	}
	if err := format(db, peopleFormat, bucketFacts, bucketStars); err != nil {
		db.Close()
		return nil, fault.In(err, "open %s", path)
	}
	return db, nil
}

// format checks a file's version, or gives it one and its buckets when it is new.
func format(db *bbolt.DB, version string, buckets ...string) error {
	return db.Update(func(tx *bbolt.Tx) error {
		meta, err := tx.CreateBucketIfNotExists([]byte(bucketMeta))
		if err != nil {
			return err
		}
		if have := meta.Get([]byte("format")); have != nil && string(have) != version {
			return fault.New(fault.Invalid, "it has format %s, this program reads %s", have, version)
		}
		for _, b := range buckets {
			if _, err := tx.CreateBucketIfNotExists([]byte(b)); err != nil {
				return err
			}
		}
		return meta.Put([]byte("format"), []byte(version))
	})
}

// loadFacts reads all of people.db.
func loadFacts(db *bbolt.DB) (map[string]*facts, error) {
	all := map[string]*facts{}
	of := func(name string) *facts {
		if all[name] == nil {
			all[name] = &facts{}
		}
		return all[name]
	}
	err := db.View(func(tx *bbolt.Tx) error {
		err := tx.Bucket([]byte(bucketFacts)).ForEach(func(k, v []byte) error {
			return json.Unmarshal(v, of(string(k)))
		})
		if err != nil {
			return err
		}
		return tx.Bucket([]byte(bucketStars)).ForEach(func(k, v []byte) error {
			name, user, ok := bytes.Cut(k, []byte{0})
			if !ok {
				return nil
			}
			f := of(string(name))
			if f.stars == nil {
				f.stars = map[string]time.Time{}
			}
			at, _ := time.Parse(time.RFC3339, string(v))
			f.stars[string(user)] = at
			return nil
		})
	})
	return all, fault.In(err, "read the catalog's stars and descriptions")
}

// factsOf gives the facts of a repository to change. mu is held.
func (c *Catalog) factsOf(name string) *facts {
	f := c.facts[name]
	if f == nil {
		f = &facts{}
		c.facts[name] = f
	}
	return f
}

// Describe sets a repository's description; empty texts take it away. It is on disk when Describe returns.
func (c *Catalog) Describe(ctx context.Context, by access.Subject, repository string, d Description) error {
	if err := d.check(); err != nil {
		return err
	}
	return c.change(repository, func(f *facts) {
		f.Short, f.Long, f.By, f.At = oneLine(d.Short), d.Long, by.Name, time.Now().UTC()
	})
}

// MarkOfficial says whether a repository is official; nil leaves it to its name (library/…).
func (c *Catalog) MarkOfficial(ctx context.Context, repository string, official *bool) error {
	return c.change(repository, func(f *facts) { f.Official = official })
}

// change changes a repository's facts on disk, then in memory.
func (c *Catalog) change(repository string, set func(*facts)) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	err := c.people.Update(func(tx *bbolt.Tx) error {
		c.mu.RLock()
		_, known := c.derived[repository]
		next := facts{}
		if f := c.facts[repository]; f != nil {
			next = *f
		}
		c.mu.RUnlock()
		if !known {
			return fault.New(fault.NotFound, "repository %s is not known", repository)
		}
		set(&next)
		data, err := json.Marshal(next)
		if err != nil {
			return err
		}
		if err := tx.Bucket([]byte(bucketFacts)).Put([]byte(repository), data); err != nil {
			return err
		}
		tx.OnCommit(func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			set(c.factsOf(repository))
			c.reindex(repository)
		})
		return nil
	})
	return fault.In(err, "change what is said of %s", repository)
}

// Star gives or takes a user's star. Doing it twice is doing it once.
func (c *Catalog) Star(ctx context.Context, user, repository string, on bool) error {
	if user == "" {
		return fault.New(fault.Unauthorized, "only who has signed in can give a star")
	}
	now := time.Now().UTC().Truncate(time.Second)
	c.writing.Lock()
	defer c.writing.Unlock()
	err := c.people.Update(func(tx *bbolt.Tx) error {
		c.mu.RLock()
		_, known := c.derived[repository]
		c.mu.RUnlock()
		if !known {
			return fault.New(fault.NotFound, "repository %s is not known", repository)
		}
		stars, key := tx.Bucket([]byte(bucketStars)), []byte(repository+"\x00"+user)
		if (stars.Get(key) != nil) == on {
			return nil
		}
		if on {
			if err := stars.Put(key, []byte(now.Format(time.RFC3339))); err != nil {
				return err
			}
		} else if err := stars.Delete(key); err != nil {
			return err
		}
		tx.OnCommit(func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			f := c.factsOf(repository)
			if f.stars == nil {
				f.stars = map[string]time.Time{}
			}
			if on {
				f.stars[user] = now
			} else {
				delete(f.stars, user)
			}
			c.index.refresh(c.entry(repository))
		})
		return nil
	})
	return fault.In(err, "star %s", repository)
}

// Starred reports whether the user has given the repository a star.
func (c *Catalog) Starred(user, repository string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	f := c.facts[repository]
	if f == nil {
		return false
	}
	_, ok := f.stars[user]
	return ok
}

// Forget drops description, marks, stars and counts of a repository, for who takes it over after it was removed.
func (c *Catalog) Forget(ctx context.Context, repository string) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	err := c.people.Update(func(tx *bbolt.Tx) error {
		if err := tx.Bucket([]byte(bucketFacts)).Delete([]byte(repository)); err != nil {
			return err
		}
		stars, prefix := tx.Bucket([]byte(bucketStars)), []byte(repository+"\x00")
		var keys [][]byte // a cursor must not see its bucket change
		for cur, k := stars.Cursor(), []byte(nil); ; {
			if k == nil {
				k, _ = cur.Seek(prefix)
			} else {
				k, _ = cur.Next()
			}
			if k == nil || !bytes.HasPrefix(k, prefix) {
				break
			}
			keys = append(keys, bytes.Clone(k))
		}
		for _, k := range keys {
			if err := stars.Delete(k); err != nil {
				return err
			}
		}
		tx.OnCommit(func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			delete(c.facts, repository)
			delete(c.dirty, repository)
			c.reindex(repository)
		})
		return nil
	})
	return fault.In(err, "forget %s", repository)
}

// writeCounts writes the counts that have changed. What could not be written is tried again with the next.
func (c *Catalog) writeCounts() error {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	changed := make(map[string]facts, len(c.dirty))
	for name := range c.dirty {
		changed[name] = *c.factsOf(name)
		c.index.refresh(c.entry(name))
	}
	clear(c.dirty)
	c.mu.Unlock()
	if len(changed) == 0 {
		return nil
	}
	err := c.people.Update(func(tx *bbolt.Tx) error {
		for name, f := range changed {
			data, err := json.Marshal(f)
			if err != nil {
				return err
			}
			if err := tx.Bucket([]byte(bucketFacts)).Put([]byte(name), data); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		for name := range changed {
			c.dirty[name] = struct{}{}
		}
	}
	return fault.In(err, "write the catalog's counts")
}
