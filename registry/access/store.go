package access

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"berth/base/fault"
)

// version is that of the database's format.
const version = 1

var (
	bucketMeta         = []byte("meta")
	bucketOrganisation = []byte("organisation")
	bucketRepository   = []byte("repository")
	bucketGroup        = []byte("group")
	keyVersion         = []byte("version")
	keySite            = []byte("site")
)

// Store keeps the rules, on disk and, for reading, in memory. It is a Decider.
type Store struct {
	db    *bbolt.DB
	rules atomic.Pointer[Rules]

	writing sync.Mutex // one change at a time, so that none is made from rules that another replaces
}

// Open opens the database, and makes it where there is none. Another process that has it open is a Conflict.
func Open(path string) (*Store, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "rights")
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: 2 * time.Second, FreelistType: bbolt.FreelistMapType})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fault.New(fault.Conflict, "%s is in use by another process", path)
	}
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "open %s", path)
	}
	s := &Store{db: db}
	rules, err := load(db)
	if err != nil {
		db.Close()
		return nil, fault.In(err, "open %s", path)
	}
	s.rules.Store(&rules)
	return s, nil
}

// Close closes the database.
func (s *Store) Close() error { return s.db.Close() }

// Rules gives the rules as they are now.
func (s *Store) Rules() Rules { return *s.rules.Load() }

// Allowed decides by the rules as they are now.
func (s *Store) Allowed(_ context.Context, who Subject, repository string, a Action) (bool, error) {
	return s.rules.Load().Decide(who, repository, a).Allowed, nil
}

// Visible reports whether the subject may see that a repository exists.
func (s *Store) Visible(_ context.Context, who Subject, repository string) (bool, error) {
	return s.rules.Load().Visible(who, repository), nil
}

// Claim is called for the first push to a repository that holds nothing yet: its pusher becomes its owner. Where rights were given
// beforehand he does not, since whoever gave them has said who may what; and where the repository was emptied it stays its
// owner's. Anonymous pushers own nothing.
func (s *Store) Claim(who Subject, repository string) error {
	if who.Anonymous() || s.rules.Load().Repositories[repository].By != "" {
		return nil
	}
	return s.update(func(r *Rules, c *changes) error {
		if err := CheckRepository(repository); err != nil {
			return err
		}
		repo, known := r.Repositories[repository]
		switch {
		case repo.By != "":
			return nil
		case !known:
			repo = Repository{Created: time.Now().UTC(), Grants: Grants{User(who.Name): Owner}}
		}
		repo.By = who.Name
		return c.repository(repository, &repo)
	})
}

// Forget takes away what is known of a repository: whoever pushes to the name next owns what he makes.
func (s *Store) Forget(repository string) error {
	return s.update(func(r *Rules, c *changes) error {
		if _, known := r.Repositories[repository]; !known {
			return nil
		}
		return c.repository(repository, nil)
	})
}

// changes writes to the database and to the rules that are going to replace the old ones.
type changes struct {
	tx    *bbolt.Tx
	rules *Rules
}

// update makes a change: all of it, synced, or nothing.
func (s *Store) update(change func(r *Rules, c *changes) error) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	next := s.rules.Load().clone()
	if err := s.db.Update(func(tx *bbolt.Tx) error { return change(&next, &changes{tx, &next}) }); err != nil {
		return err
	}
	s.rules.Store(&next)
	return nil
}

// organisation, repository and group put a record, or with nil take it away.
func (c *changes) organisation(name string, o *Organisation) error {
	tally(c.rules.named, c.rules.Organisations[name].Grants, -1)
	if o != nil {
		tally(c.rules.named, o.Grants, 1)
	}
	return set(c.tx, bucketOrganisation, c.rules.Organisations, name, o)
}

func (c *changes) repository(name string, r *Repository) error {
	tally(c.rules.named, c.rules.Repositories[name].Grants, -1)
	if r != nil {
		tally(c.rules.named, r.Grants, 1)
	}
	return set(c.tx, bucketRepository, c.rules.Repositories, name, r)
}

func (c *changes) group(name string, members *[]string) error {
	return set(c.tx, bucketGroup, c.rules.Groups, name, members)
}

func (c *changes) site(site Site) error {
	raw, err := json.Marshal(site)
	if err != nil {
		return err
	}
	c.rules.Site = site
	return c.tx.Bucket(bucketMeta).Put(keySite, raw)
}

func set[T any](tx *bbolt.Tx, bucket []byte, table map[string]T, name string, v *T) error {
	if v == nil {
		delete(table, name)
		return tx.Bucket(bucket).Delete([]byte(name))
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	table[name] = *v
	return tx.Bucket(bucket).Put([]byte(name), raw)
}

func load(db *bbolt.DB) (Rules, error) {
	r := Default()
	err := db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketMeta, bucketOrganisation, bucketRepository, bucketGroup} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		meta := tx.Bucket(bucketMeta)
		if err := checkVersion(meta); err != nil {
			return err
		}
		if raw := meta.Get(keySite); raw != nil {
			if err := json.Unmarshal(raw, &r.Site); err != nil {
				return fault.Wrap(fault.Internal, err, "damaged record site")
			}
		}
		return errors.Join(
			table(tx, bucketOrganisation, r.Organisations),
			table(tx, bucketRepository, r.Repositories),
			table(tx, bucketGroup, r.Groups))
	})
	r.named = r.count()
	return r, err
}

func checkVersion(meta *bbolt.Bucket) error {
	have := meta.Get(keyVersion)
	if have == nil {
		return meta.Put(keyVersion, []byte(strconv.Itoa(version)))
	}
	if n, err := strconv.Atoi(string(have)); err != nil || n > version {
		return fault.New(fault.Conflict, "rights of version %s: this program knows versions up to %d", have, version)
	}
	return nil
}

func table[T any](tx *bbolt.Tx, bucket []byte, into map[string]T) error {
	return tx.Bucket(bucket).ForEach(func(k, raw []byte) error {
		var v T
		if err := json.Unmarshal(raw, &v); err != nil {
			return fault.Wrap(fault.Internal, err, "damaged record %s/%s", bucket, k)
		}
		into[string(k)] = v
		return nil
	})
}
