package image

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"berth/base/fault"
	"berth/base/ref"
)

// The database has these buckets:
//
//	meta     "version" → 4 bytes, big endian: dbVersion
//	images   image id ("sha256:…") → JSON of stored
//	names    full reference ("docker.io/library/busybox:latest", "…@sha256:…") → JSON of target
//	sources  diff id → JSON list of Source, the latest last
//	trash    image id → JSON of trashed: images that were removed and can be restored
//	used     image id → 8 bytes, big endian: nanoseconds since 1970, when a container last used it
//
// bbolt makes each transaction durable (two fdatasync) before Update returns.
const dbVersion = 2

var (
	bucketMeta    = []byte("meta")
	bucketImages  = []byte("images")
	bucketNames   = []byte("names")
	bucketSources = []byte("sources")
	bucketTrash   = []byte("trash")
	bucketUsed    = []byte("used")
	keyVersion    = []byte("version")
)

func openDB(path string) (*bolt.DB, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, FreelistType: bolt.FreelistMapType, NoFreelistSync: true})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fault.New(fault.Conflict, "%s is in use by another process", path)
	}
	if err != nil {
		return nil, fault.In(err, "open %s", path)
	}
	err = prepare(db)
	if err == nil {
		err = later(db)
	}
	if err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
}

// prepare makes the buckets of a new database, brings an older one up to date, and refuses one of a newer version.
func prepare(db *bolt.DB) error {
	version := uint32(0) // none yet
	err := db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketMeta)
		if b == nil {
			return nil
		}
		v := b.Get(keyVersion)
		if len(v) == 4 {
			version = binary.BigEndian.Uint32(v)
		}
		if version < 1 || version > dbVersion {
			return fault.New(fault.Invalid, "%s was written by another version of Berth (format %x, this build reads %d)", db.Path(), v, dbVersion)
		}
		return nil
	})
	if err != nil || version == dbVersion {
		return err
	}
	return db.Update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{bucketMeta, bucketImages, bucketNames, bucketSources} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		if version == 1 {
			if err := from1(tx); err != nil {
				return fault.In(err, "bring %s from format 1 to %d", db.Path(), dbVersion)
			}
		}
		return tx.Bucket(bucketMeta).Put(keyVersion, binary.BigEndian.AppendUint32(nil, dbVersion))
	})
}

// later makes the buckets that came without a new version: older builds pass them over.
func later(db *bolt.DB) error {
	there := true
	err := db.View(func(tx *bolt.Tx) error {
		there = tx.Bucket(bucketTrash) != nil && tx.Bucket(bucketUsed) != nil
		return nil
	})
	if err != nil || there {
		return err
	}
	return db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucketTrash)
		if err == nil {
			_, err = tx.CreateBucketIfNotExists(bucketUsed)
		}
		return err
	})
}

// from1 brings a database of format 1 to format 2. There an image had one manifest and index, and a name was an image id.
func from1(tx *bolt.Tx) error {
	roots := map[string]digest.Digest{}
	images := map[string][]byte{}
	err := tx.Bucket(bucketImages).ForEach(func(k, v []byte) error {
		var old struct {
			stored
			Manifest *Descriptor `json:"manifest"`
			Index    *Descriptor `json:"index"`
		}
		if err := json.Unmarshal(v, &old); err != nil {
			return nil // readAll tells
		}
		if old.Manifest != nil {
			o := origin{Manifest: *old.Manifest, Index: old.Index}
			old.Origins = []origin{o}
			roots[string(k)] = o.root().Digest
		}
		b, err := json.Marshal(&old.stored)
		images[string(k)] = b
		return err
	})
	if err != nil {
		return err
	}
	names := map[string][]byte{}
	err = tx.Bucket(bucketNames).ForEach(func(k, v []byte) error {
		b, err := target{ID: digest.Digest(v), Root: roots[string(v)]}.encode()
		names[string(k)] = b
		return err
	})
	if err != nil {
		return err
	}
	for bucket, list := range map[string]map[string][]byte{string(bucketImages): images, string(bucketNames): names} {
		for k, v := range list {
			if err := tx.Bucket([]byte(bucket)).Put([]byte(k), v); err != nil {
				return err
			}
		}
	}
	return nil
}

func putImage(tx *bolt.Tx, r *record) error {
	b, err := json.Marshal(&r.stored)
	if err != nil {
		return err
	}
	return tx.Bucket(bucketImages).Put([]byte(r.id), b)
}

func putName(tx *bolt.Tx, n ref.Ref, t target) error {
	b, err := t.encode()
	if err != nil {
		return err
	}
	return tx.Bucket(bucketNames).Put([]byte(n.String()), b)
}

func putSources(tx *bolt.Tx, d digest.Digest, list []Source) error {
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return tx.Bucket(bucketSources).Put([]byte(d), b)
}

func deleteSources(tx *bolt.Tx, d digest.Digest) error {
	return tx.Bucket(bucketSources).Delete([]byte(d))
}

func deleteName(tx *bolt.Tx, n ref.Ref) error {
	return tx.Bucket(bucketNames).Delete([]byte(n.String()))
}

func deleteImage(tx *bolt.Tx, id digest.Digest) error {
	return tx.Bucket(bucketImages).Delete([]byte(id))
}

// readAll brings the database into memory. An image whose layers or document are damaged is told and left out, but
// stays in the database, and what is whole of it stays held: Fsck repairs it.
func (s *Store) readAll() error {
	return s.db.View(func(tx *bolt.Tx) error {
		err := tx.Bucket(bucketImages).ForEach(func(k, v []byte) error {
			s.readImage(digest.Digest(k), v)
			return nil
		})
		if err != nil {
			return err
		}
		err = tx.Bucket(bucketNames).ForEach(func(k, v []byte) error {
			s.readName(string(k), v)
			return nil
		})
		if err != nil {
			return err
		}
		return tx.Bucket(bucketSources).ForEach(func(k, v []byte) error {
			d := digest.Digest(k)
			var list []Source
			if err := json.Unmarshal(v, &list); err != nil || !s.layers.Has(d) && !s.missed(d) {
				s.staleSources = append(s.staleSources, d)
				return nil
			}
			s.sources[d] = list
			return nil
		})
	})
}

func (s *Store) readImage(id digest.Digest, v []byte) {
	var st stored
	if err := json.Unmarshal(v, &st); err != nil {
		s.log.Error("image record is unreadable", "image", id, "err", err)
		return
	}
	r, err := s.readRecord(id, st)
	if err != nil {
		s.log.Error("image is damaged and left out", "image", id, "err", err)
		s.broken[id] = s.holdBroken(id, st, err)
		return
	}
	r.fromOld = len(st.Layers) == 0 && len(r.Layers) > 0
	s.images[id] = r
	s.changed()
	for _, o := range st.Origins {
		if o.Index != nil {
			s.knowIndex(*o.Index)
		}
	}
}

func (s *Store) readName(text string, v []byte) {
	n, err := ref.Parse(text)
	if err != nil || n.IsNameOnly() {
		s.log.Error("image name is unreadable", "name", text, "err", err)
		return
	}
	var t target
	if err := json.Unmarshal(v, &t); err != nil {
		s.log.Error("image name is unreadable", "name", text, "err", err)
		return
	}
	if s.images[t.ID] != nil {
		s.setName(n, t)
	}
}

// missed reports whether a layer is needed by an image that is left out.
func (s *Store) missed(d digest.Digest) bool {
	for _, b := range s.broken {
		if slices.Contains(b.Layers, d) {
			return true
		}
	}
	return false
}

// completeRecords writes the records again that an older version made without their layers. changing is held.
func (s *Store) completeRecords() error {
	var list []*record
	for _, r := range s.images {
		if r.fromOld {
			list = append(list, r)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return s.db.Update(func(tx *bolt.Tx) error {
		for _, r := range list {
			if err := putImage(tx, r); err != nil {
				return err
			}
		}
		return nil
	})
}

// knowIndex reads an index into memory, once.
func (s *Store) knowIndex(d Descriptor) {
	if s.indexes[d.Digest] != nil {
		return
	}
	ix, err := s.loadIndex(d)
	if err != nil {
		s.log.Warn("an image's index is unreadable", "index", d.Digest, "err", err)
		return
	}
	s.indexes[d.Digest] = ix
	s.changed()
}

func newReader(b []byte) io.Reader { return bytes.NewReader(b) }
