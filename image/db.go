package image

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"berth/base/fault"
	"berth/base/ref"
)

// The database has three buckets:
//
//	meta    "version" → 4 bytes, big endian: dbVersion
//	images  image id ("sha256:…") → JSON of stored
//	names   full reference ("docker.io/library/busybox:latest", "…@sha256:…") → image id
//
// bbolt makes each transaction durable (two fdatasync) before Update returns.
const dbVersion = 1

var (
	bucketMeta   = []byte("meta")
	bucketImages = []byte("images")
	bucketNames  = []byte("names")
	keyVersion   = []byte("version")
)

func openDB(path string) (*bolt.DB, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, FreelistType: bolt.FreelistMapType, NoFreelistSync: true})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fault.New(fault.Conflict, "%s is in use by another process", path)
	}
	if err != nil {
		return nil, fault.In(err, "open %s", path)
	}
	if err := prepare(db); err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
}

// prepare makes the buckets of a new database and refuses one of another version.
func prepare(db *bolt.DB) error {
	ready := false
	err := db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketMeta)
		if b == nil {
			return nil
		}
		v := b.Get(keyVersion)
		if len(v) != 4 || binary.BigEndian.Uint32(v) != dbVersion {
			return fault.New(fault.Invalid, "%s was written by another version of Berth (format %x, this build reads %d)", db.Path(), v, dbVersion)
		}
		ready = true
		return nil
	})
	if err != nil || ready {
		return err
	}
	return db.Update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{bucketMeta, bucketImages, bucketNames} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return tx.Bucket(bucketMeta).Put(keyVersion, binary.BigEndian.AppendUint32(nil, dbVersion))
	})
}

func putImage(tx *bolt.Tx, r *record) error {
	b, err := json.Marshal(&r.stored)
	if err != nil {
		return err
	}
	return tx.Bucket(bucketImages).Put([]byte(r.id), b)
}

func putName(tx *bolt.Tx, n ref.Ref, id digest.Digest) error {
	return tx.Bucket(bucketNames).Put([]byte(n.String()), []byte(id))
}

func deleteName(tx *bolt.Tx, n ref.Ref) error {
	return tx.Bucket(bucketNames).Delete([]byte(n.String()))
}

func deleteImage(tx *bolt.Tx, id digest.Digest) error {
	return tx.Bucket(bucketImages).Delete([]byte(id))
}

// readAll brings the database into memory. An image whose layers or document are damaged is told and left out, but
// stays in the database.
func (s *Store) readAll() error {
	return s.db.View(func(tx *bolt.Tx) error {
		err := tx.Bucket(bucketImages).ForEach(func(k, v []byte) error {
			id := digest.Digest(k)
			var st stored
			if err := json.Unmarshal(v, &st); err != nil {
				s.log.Error("image record is unreadable", "image", id, "err", err)
				return nil
			}
			r, err := s.readRecord(id, st)
			if err != nil {
				s.log.Error("image is damaged and left out", "image", id, "err", err)
				return nil
			}
			s.admit(r)
			return nil
		})
		if err != nil {
			return err
		}
		return tx.Bucket(bucketNames).ForEach(func(k, v []byte) error {
			n, err := ref.Parse(string(k))
			if err != nil || n.IsNameOnly() {
				s.log.Error("image name is unreadable", "name", string(k), "err", err)
				return nil
			}
			if id := digest.Digest(v); s.images[id] != nil {
				s.setName(n, id)
			}
			return nil
		})
	})
}

func newReader(b []byte) io.Reader { return bytes.NewReader(b) }
