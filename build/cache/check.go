package cache

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"

	digest "github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"berth/base/checkup"
)

// Check looks at the pages of the file, at every record, and for the layers that each holds. has tells whether a layer is there. A
// record that is damaged or lacks a layer is forgotten by a repair: its step runs again. A file that makes no sense as a whole cannot be
// repaired while it is open; the next start sets it aside.
func (s *Store) Check(ctx context.Context, repair bool, has func(digest.Digest) bool) checkup.Room {
	room := checkup.Room{Name: "builds"}
	if err := s.flush(); err != nil {
		room.Found(checkup.Damage{Subject: s.subject(), What: "what is new cannot be written: " + err.Error()}, nil)
	}
	var bad []string
	why := map[string]string{}
	records := 0
	err := s.inspect(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			return err
		}
		records = tx.Bucket(bucketRecords).Stats().KeyN
		err := tx.Bucket(bucketRecords).ForEach(func(id, value []byte) error {
			if json.Unmarshal(value, new(Record)) != nil {
				bad = append(bad, string(id))
				why[string(id)] = "cannot be read"
			}
			return ctx.Err()
		})
		if err != nil {
			return err
		}
		return eachHold(tx, func(id string, layers []digest.Digest) {
			for _, l := range layers {
				if _, told := why[id]; !told && !has(l) {
					bad = append(bad, id)
					why[id] = "lacks layer " + l.String()
				}
			}
		})
	})
	room.Count("build cache records", records)
	if err != nil {
		room.Found(checkup.Damage{Subject: s.subject(), What: "is damaged: " + err.Error(), Advice: "restart the engine: it sets the file aside, and builds begin a new one"}, nil)
		return room
	}
	for _, id := range bad {
		var fix func() error
		if repair {
			fix = func() error { return s.forget(id) }
		}
		room.Found(checkup.Damage{Subject: "build cache record " + id, What: why[id], Repair: "it is forgotten: its step runs again"}, fix)
	}
	return room
}

func (s *Store) subject() string { return filepath.Join("build", fileName) }

// inspect reads the file; bbolt panics on pages that make no sense.
func (s *Store) inspect(f func(tx *bolt.Tx) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	return s.db.view(f)
}

// forget removes a record and what it holds.
func (s *Store) forget(id string) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	var held []digest.Digest
	err := s.db.update(func(tx *bolt.Tx) error {
		err := eachHold(tx, func(other string, layers []digest.Digest) {
			if other == id {
				held = layers
			}
		})
		if err != nil {
			return err
		}
		return deleteRecord(tx, id)
	})
	if err == nil {
		s.cfg.Layers.Release(held...)
	}
	return err
}
