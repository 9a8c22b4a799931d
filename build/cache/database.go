package cache

import (
	_ "crypto/sha512" // layers may have such names
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	digest "github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"berth/base/failpoint"
	"berth/base/fault"
)

// The file: docs/formats-build.md describes it.
const (
	fileName      = "cache.db"
	formatVersion = "1"
)

var (
	bucketMeta    = []byte("meta")    // version
	bucketRecords = []byte("records") // id → Record as JSON
	bucketKeys    = []byte("keys")    // 32 bytes of the key → id
	bucketHolds   = []byte("holds")   // id → the layers that the record holds, see holdOf; a record without is a ghost
	bucketTraces  = []byte("traces")  // slot → Trace as JSON
)

// database is cache.db, which there may not be yet.
type database struct {
	root string
	log  *slog.Logger
	most bounds

	mu sync.RWMutex // guards db: it appears once and goes at close
	db *bolt.DB
}

func (d *database) path() string { return filepath.Join(d.root, fileName) }

func (d *database) open() bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.db != nil
}

// openExisting opens the file if there is one. One that is damaged or of another version is set aside.
func (d *database) openExisting() error {
	if _, err := os.Stat(d.path()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	db, err := openFile(d.path(), false)
	if errors.Is(err, bolterrors.ErrTimeout) {
		return fault.Wrap(fault.Conflict, err, "%s is in use", d.path())
	}
	if err != nil {
		return d.setAside(err)
	}
	d.mu.Lock()
	d.db = db
	d.mu.Unlock()
	return nil
}

// setAside gives up a file that makes no sense, and why.
func (d *database) setAside(why error) error {
	d.log.Error("the build cache cannot be read and is set aside", "file", d.path(), "err", why)
	if err := d.close(); err != nil {
		return err
	}
	return os.Rename(d.path(), d.path()+".damaged")
}

// create makes the file if there is none.
func (d *database) create() error {
	if d.open() {
		return nil
	}
	if err := os.MkdirAll(d.root, 0o700); err != nil {
		return err
	}
	db, err := openFile(d.path(), false)
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.db = db
	d.mu.Unlock()
	return nil
}

// openFile opens a cache file and checks it. bbolt panics on pages that make no sense.
func openFile(path string, readOnly bool) (db *bolt.DB, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("damaged: %v", p)
		}
		if err != nil && db != nil {
			db.Close()
			db = nil
		}
	}()
	db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, FreelistType: bolt.FreelistMapType, NoFreelistSync: true, ReadOnly: readOnly})
	if err != nil {
		return nil, err
	}
	fresh := false
	err = db.View(func(tx *bolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if fresh = meta == nil; fresh {
			return nil
		}
		if v := string(meta.Get([]byte("version"))); v != formatVersion {
			return fmt.Errorf("of version %q, not %s", v, formatVersion)
		}
		return nil
	})
	if err != nil || !fresh || readOnly {
		return db, err
	}
	return db, db.Update(func(tx *bolt.Tx) error {
		for _, b := range [][]byte{bucketRecords, bucketKeys, bucketHolds, bucketTraces, bucketMeta} {
			if _, err := tx.CreateBucketIfNotExists(b); err != nil {
				return err
			}
		}
		return tx.Bucket(bucketMeta).Put([]byte("version"), []byte(formatVersion))
	})
}

func (d *database) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.db == nil {
		return nil
	}
	db := d.db
	d.db = nil
	return db.Close()
}

// view calls f in a transaction, if there is a file.
func (d *database) view(f func(tx *bolt.Tx) error) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.db == nil {
		return nil
	}
	return d.db.View(f)
}

func (d *database) update(f func(tx *bolt.Tx) error) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.db == nil {
		return fault.New(fault.Unavailable, "the build cache is closed")
	}
	return d.db.Update(f)
}

// lookup gives the record of a key, or of id where that is not "". nil: there is none.
func (d *database) lookup(key digest.Digest, id string) (rec *Record, err error) {
	err = d.view(func(tx *bolt.Tx) error {
		name := []byte(id)
		if id == "" {
			if name = tx.Bucket(bucketKeys).Get(raw(key)); name == nil {
				return nil
			}
		}
		rec, err = readRecord(tx, name)
		return err
	})
	return rec, err
}

// readRecord reads a record; nil: there is none.
func readRecord(tx *bolt.Tx, name []byte) (*Record, error) {
	data := tx.Bucket(bucketRecords).Get(name)
	if data == nil {
		return nil, nil
	}
	rec := &Record{}
	if err := json.Unmarshal(data, rec); err != nil {
		return nil, err
	}
	rec.Ghost = tx.Bucket(bucketHolds).Get(name) == nil
	return rec, nil
}

// each gives all records.
func (d *database) each(f func(*Record)) error {
	return d.view(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketRecords).ForEach(func(name, _ []byte) error {
			rec, err := readRecord(tx, name)
			if err != nil || rec == nil {
				return err
			}
			f(rec)
			return nil
		})
	})
}

// eachHold gives the layers that each record holds.
func (d *database) eachHold(f func(id string, layers []digest.Digest)) error {
	return d.view(func(tx *bolt.Tx) error { return eachHold(tx, f) })
}

// eachHold fails where the file makes no sense; bbolt panics there.
func eachHold(tx *bolt.Tx, f func(id string, layers []digest.Digest)) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("damaged: %v", p)
		}
	}()
	known := map[[32]byte]digest.Digest{} // records share most of their layers
	return tx.Bucket(bucketHolds).ForEach(func(name, data []byte) error {
		var layers []digest.Digest
		if len(data)%32 != 0 {
			for _, text := range strings.Fields(string(data)) {
				d, err := digest.Parse(text)
				if err != nil {
					return fmt.Errorf("a hold of no layers: %w", err)
				}
				layers = append(layers, d)
			}
			f(string(name), layers)
			return nil
		}
		for chunk := range slices.Chunk(data, 32) {
			k := [32]byte(chunk)
			d, ok := known[k]
			if !ok {
				d = digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(chunk))
				known[k] = d
			}
			layers = append(layers, d)
		}
		f(string(name), layers)
		return nil
	})
}

// write writes a batch in one transaction. It gives the records that lost their last key to newer ones: they are gone, and
// their holds are the caller's to give back.
func (d *database) write(b batch) (superseded []*Record, err error) {
	if err := d.create(); err != nil {
		return nil, err
	}
	if err := failpoint.Hit("build/cache-before-write"); err != nil {
		return nil, err
	}
	err = d.update(func(tx *bolt.Tx) error {
		superseded = nil
		for _, e := range b.records {
			gone, err := putRecord(tx, &e.rec)
			if err != nil {
				return err
			}
			superseded = append(superseded, gone...)
		}
		for key, id := range b.aliases {
			if tx.Bucket(bucketRecords).Get([]byte(id)) == nil {
				continue
			}
			if err := tx.Bucket(bucketKeys).Put(raw(key), []byte(id)); err != nil {
				return err
			}
		}
		if err := putUses(tx, b.used); err != nil {
			return err
		}
		for slot, t := range b.last {
			if err := putJSON(tx, bucketTraces, slotKey(slot), t); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err // nothing was written: what there was is there still, and holds its layers
	}
	return superseded, nil
}

// putRecord writes a record. A record that had its first key is replaced by it.
func putRecord(tx *bolt.Tx, rec *Record) (superseded []*Record, err error) {
	for _, k := range rec.Keys {
		old := tx.Bucket(bucketKeys).Get(raw(k))
		if old == nil || string(old) == rec.ID {
			continue
		}
		was, err := readRecord(tx, old)
		if err != nil {
			return nil, err
		}
		if was == nil || was.Keys[0] != rec.Keys[0] {
			continue // found under its other keys still
		}
		if !was.Ghost {
			superseded = append(superseded, was)
		}
		if err := deleteRecord(tx, was.ID); err != nil {
			return nil, err
		}
	}
	for _, k := range rec.Keys {
		if err := tx.Bucket(bucketKeys).Put(raw(k), []byte(rec.ID)); err != nil {
			return nil, err
		}
	}
	if err := putJSON(tx, bucketRecords, []byte(rec.ID), rec); err != nil {
		return nil, err
	}
	return superseded, tx.Bucket(bucketHolds).Put([]byte(rec.ID), holdOf(rec.layers()))
}

// holdOf is how the layers of a record are written: the 32 bytes of each, or, where one is named by another algorithm than sha256, all as
// lines of text, which are never a multiple of 32 bytes.
func holdOf(layers []digest.Digest) []byte {
	hold, text := []byte{}, false
	for _, l := range layers {
		hold = append(hold, raw(l)...)
		text = text || l.Algorithm() != digest.SHA256
	}
	if !text {
		return hold
	}
	hold = hold[:0]
	for _, l := range layers {
		hold = append(append(hold, l...), '\n')
	}
	if len(hold)%32 == 0 {
		hold = append(hold, '\n')
	}
	return hold
}

// putUses writes how often and when records were used.
func putUses(tx *bolt.Tx, used map[string]use) error {
	for id, u := range used {
		rec, err := readRecord(tx, []byte(id))
		if err != nil {
			return err
		}
		if rec == nil {
			continue
		}
		rec.Uses += u.times
		rec.LastUsed = u.last
		if err := putJSON(tx, bucketRecords, []byte(id), rec); err != nil {
			return err
		}
	}
	return nil
}

// deleteRecord deletes a record. Its keys are left: one that names nothing is overwritten by the next record, and sweep
// deletes the rest.
func deleteRecord(tx *bolt.Tx, id string) error {
	if err := tx.Bucket(bucketHolds).Delete([]byte(id)); err != nil {
		return err
	}
	return tx.Bucket(bucketRecords).Delete([]byte(id))
}

// trace gives the trace of a slot, or nil.
func (d *database) trace(slot string) (t *Trace) {
	err := d.view(func(tx *bolt.Tx) error {
		data := tx.Bucket(bucketTraces).Get(slotKey(slot))
		if data == nil {
			return nil
		}
		t = &Trace{}
		return json.Unmarshal(data, t)
	})
	if err != nil {
		return nil
	}
	return t
}

// slotKey is the key of a slot. Slots are called as steps are, and a step may be called by a whole script, which no key of the file may be.
func slotKey(slot string) []byte {
	const most = 1024
	if len(slot) > most {
		return []byte(digest.FromString(slot))
	}
	return []byte(slot)
}

func putJSON(tx *bolt.Tx, bucket, key []byte, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return tx.Bucket(bucket).Put(key, data)
}

// raw is the 32 bytes of a sha256 digest. What is none (nobody makes such keys or layers) is its text.
func raw(d digest.Digest) []byte {
	b, err := hex.DecodeString(d.Encoded())
	if err != nil || len(b) != 32 {
		return []byte(d)
	}
	return b
}
