package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"berth/base/fault"
)

// index.db, format 1:
//
//	meta     "format" → "1"; "complete" → "1" once the whole storage was read
//	derived  REPOSITORY → JSON Derived
const foundFormat = "1"

const bucketDerived = "derived"

// openFound opens the derived file and reads all of it. One that is damaged or of another format is made anew: all of it can
// be read again from the storage. fresh says that this has to be done.
func openFound(path string, log *slog.Logger) (db *bbolt.DB, all map[string]Derived, fresh bool, err error) {
	db, all, err = openFoundOnce(path)
	switch {
	case err == nil:
	case errors.Is(err, berrors.ErrTimeout), errors.Is(err, fs.ErrPermission):
		return nil, nil, false, fault.In(err, "open the catalog's index (%s)", path)
	default:
		log.Warn("the catalog's index cannot be read and is made anew from the storage", "file", path, "error", err)
		if err := os.Remove(path); err != nil {
			return nil, nil, false, fault.In(err, "remove the catalog's damaged index")
		}
		if db, all, err = openFoundOnce(path); err != nil {
			return nil, nil, false, fault.In(err, "open the catalog's index (%s)", path)
		}
	}
	err = db.View(func(tx *bbolt.Tx) error {
		fresh = tx.Bucket([]byte(bucketMeta)).Get([]byte("complete")) == nil
		return nil
	})
	return db, all, fresh, err
}

// openFoundOnce opens and reads the file as it is. bbolt checks its first pages only and panics at others that make no sense.
func openFoundOnce(path string) (db *bbolt.DB, all map[string]Derived, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fault.New(fault.Internal, "it is damaged: %v", p)
		}
		if err != nil && db != nil {
			db.Close()
			db = nil
		}
	}()
	db, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: 2 * time.Second})
	if err != nil {
		return nil, nil, err
	}
	if err := format(db, foundFormat, bucketDerived); err != nil {
		return db, nil, err
	}
	all, err = loadDerived(db)
	return db, all, err
}

// loadDerived reads all of index.db.
func loadDerived(db *bbolt.DB) (map[string]Derived, error) {
	all := map[string]Derived{}
	err := db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucketDerived)).ForEach(func(k, v []byte) error {
			var d Derived
			if err := json.Unmarshal(v, &d); err != nil {
				return err
			}
			all[string(k)] = d
			return nil
		})
	})
	return all, fault.In(err, "read the catalog's index")
}

// work is the one goroutine that reads the storage and writes both files in the background.
func (c *Catalog) work(ctx context.Context, fresh bool) {
	if fresh {
		if _, err := c.Rebuild(ctx); err != nil && ctx.Err() == nil {
			c.log.Error("the catalog could not be made from the storage; it is tried again at the next start", "error", err)
		}
	}
	tick := time.NewTicker(countEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
			c.readQueue(ctx)
		case <-tick.C:
			if c.hasCounts() {
				if err := c.writeCounts(); err != nil {
					c.log.Error("the catalog's counts could not be written", "error", err)
				}
			}
		}
	}
}

func (c *Catalog) hasCounts() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.dirty) > 0
}

// readQueue reads the queued repositories again and writes them in one transaction.
func (c *Catalog) readQueue(ctx context.Context) {
	c.mu.Lock()
	names := sortedKeys(c.queue)
	clear(c.queue)
	c.busy = true
	c.mu.Unlock()
	if err := c.read(ctx, names); err != nil && ctx.Err() == nil {
		c.log.Error("repositories could not be read for the catalog", "error", err)
	}
	c.mu.Lock()
	c.busy = false
	if len(c.queue) == 0 {
		c.idle.Broadcast()
	} else {
		c.wakeUp()
	}
	c.mu.Unlock()
}

// read looks at repositories in the storage and makes known what is found, on disk and then in memory. What
// cannot be read keeps what was known of it; the first such failure is returned after all were tried.
func (c *Catalog) read(ctx context.Context, names []string) error {
	c.reading.Lock()
	defer c.reading.Unlock()
	found, gone := map[string]Derived{}, map[string]bool{}
	var failed error
	for _, name := range names {
		d, err := c.cfg.Source.Read(ctx, name)
		switch {
		case fault.Is(err, fault.NotFound):
			gone[name] = true
		case err != nil:
			if failed == nil {
				failed = fault.In(err, "read %s", name)
			}
		default:
			d.Certified = c.certified(ctx, name, d.Newest)
			found[name] = d
		}
	}
	if len(found)+len(gone) == 0 {
		return failed
	}
	err := c.found.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(bucketDerived))
		for name, d := range found {
			data, err := json.Marshal(d)
			if err != nil {
				return err
			}
			if err := b.Put([]byte(name), data); err != nil {
				return err
			}
		}
		for name := range gone {
			if err := b.Delete([]byte(name)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fault.In(err, "write the catalog's index")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, d := range found {
		c.derived[name] = d
		c.reindex(name)
	}
	for name := range gone {
		delete(c.derived, name)
		c.index.remove(name)
	}
	return failed
}

// certified asks under which policy the newest image is signed.
func (c *Catalog) certified(ctx context.Context, repository string, newest Image) string {
	if c.cfg.Certify == nil {
		return ""
	}
	policy, ok, err := c.cfg.Certify(ctx, repository)
	switch {
	case err == nil && ok:
		return policy
	case err == nil:
		return ""
	}
	c.log.Warn("whether an image is certified could not be found out", "repository", repository, "error", err)
	c.mu.RLock()
	defer c.mu.RUnlock()
	if before, ok := c.derived[repository]; ok && before.Newest.Digest == newest.Digest {
		return before.Certified
	}
	return ""
}

// rebuildBatch is how many repositories Rebuild writes at once.
const rebuildBatch = 100

// Rebuild reads every repository of the storage again and gives their number. Descriptions, stars and counts
// stay; entries without content go. Searches are answered meanwhile, from what was known and what is found. An error
// about single repositories comes after all the others were read.
func (c *Catalog) Rebuild(ctx context.Context) (int, error) {
	there := map[string]bool{}
	var batch []string
	var failed error
	flush := func() {
		if err := c.read(ctx, batch); err != nil && failed == nil {
			failed = err
		}
		batch = batch[:0]
	}
	err := c.cfg.Source.Each(ctx, func(name string) error {
		there[name] = true
		if batch = append(batch, name); len(batch) == rebuildBatch {
			flush()
		}
		return ctx.Err()
	})
	flush()
	if err != nil {
		return len(there), fault.In(err, "rebuild the catalog")
	}
	var lost []string
	c.mu.RLock()
	for name := range c.derived {
		if !there[name] {
			lost = append(lost, name)
		}
	}
	c.mu.RUnlock()
	if err := c.read(ctx, lost); err != nil && failed == nil {
		failed = err
	}
	if ctx.Err() != nil {
		return len(there), fault.In(ctx.Err(), "rebuild the catalog")
	}
	// Also when some could not be read: they would not be readable at the next start either.
	err = c.found.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucketMeta)).Put([]byte("complete"), []byte("1"))
	})
	return len(there), fault.In(errors.Join(failed, err), "rebuild the catalog")
}
