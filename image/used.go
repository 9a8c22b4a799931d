package image

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// usedTimes knows when images were last used. To note a use costs a map entry; the database has it a few seconds later, and the
// times of images that are gone go with the next write.
type usedTimes struct {
	store *Store

	mu    sync.Mutex // guards what follows; held for memory only
	last  map[digest.Digest]time.Time
	fresh map[digest.Digest]bool // not in the database yet
	timer *time.Timer            // of the next write; nil: none is due
	ended bool

	writing sync.Mutex // held over a write
}

// usedBehind is how long a use may be in memory only.
const usedBehind = 5 * time.Second

func (u *usedTimes) open(s *Store) error {
	u.store, u.last, u.fresh = s, map[digest.Digest]time.Time{}, map[digest.Digest]bool{}
	return s.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketUsed).ForEach(func(k, v []byte) error {
			if len(v) == 8 {
				u.last[digest.Digest(k)] = time.Unix(0, int64(binary.BigEndian.Uint64(v)))
			}
			return nil
		})
	})
}

func (u *usedTimes) at(id digest.Digest) time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.last[id]
}

// Used notes that a container uses an image now.
func (s *Store) Used(id string) {
	u := &s.used
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.last == nil || u.ended {
		return
	}
	u.last[digest.Digest(id)] = time.Now()
	u.fresh[digest.Digest(id)] = true
	if u.timer == nil {
		u.timer = time.AfterFunc(usedBehind, u.write)
	}
}

// write brings to the database what is new.
func (u *usedTimes) write() {
	u.writing.Lock()
	defer u.writing.Unlock()
	times := map[digest.Digest]time.Time{}
	u.mu.Lock()
	u.timer = nil
	for id := range u.fresh {
		times[id] = u.last[id]
	}
	clear(u.fresh)
	u.mu.Unlock()
	if len(times) == 0 {
		return
	}
	here := map[digest.Digest]bool{}
	u.store.changing.Lock()
	for id := range u.store.images {
		here[id] = true
	}
	for id := range u.store.trashed {
		here[id] = true
	}
	u.store.changing.Unlock()
	err := u.store.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketUsed)
		var stale [][]byte
		err := b.ForEach(func(k, _ []byte) error {
			if !here[digest.Digest(k)] {
				stale = append(stale, append([]byte(nil), k...))
			}
			return nil
		})
		for _, k := range stale {
			if err == nil {
				err = b.Delete(k)
			}
		}
		for id, at := range times {
			if err == nil && here[id] {
				err = b.Put([]byte(id), binary.BigEndian.AppendUint64(nil, uint64(at.UnixNano())))
			}
		}
		return err
	})
	if err != nil { // a full disk, for example: with the next use it is tried again
		u.store.log.Warn("when images were last used cannot be noted", "err", err)
		u.mu.Lock()
		for id := range times {
			u.fresh[id] = true
		}
		u.mu.Unlock()
	}
}

// close writes what is new; nothing is noted any more.
func (u *usedTimes) close() {
	u.mu.Lock()
	u.ended = true
	if u.timer != nil {
		u.timer.Stop()
	}
	u.mu.Unlock()
	if u.store != nil {
		u.write()
	}
}
