package image

import (
	"time"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"berth/base/fault"
	"berth/base/ref"
)

// Tag gives an image another name, durably. The image that had the name loses it.
func (s *Store) Tag(name, newName string) error {
	n, err := ref.ParseTagged(newName)
	if err != nil {
		return err
	}
	img, err := s.Resolve(name)
	if err != nil {
		return err
	}
	if err := s.point(digest.Digest(img.ID), n); err != nil {
		return err
	}
	s.emit(Event{Action: "tag", ID: img.ID, Name: n.Familiar()})
	return nil
}

// point makes names those of an image that exists.
func (s *Store) point(id digest.Digest, names ...ref.Ref) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	old := s.images[id]
	if old == nil {
		return fault.New(fault.NotFound, "No such image: %s", id)
	}
	r := *old
	r.Tagged = time.Now()
	err := s.db.Update(func(tx *bolt.Tx) error {
		for _, n := range names {
			if err := putName(tx, n, id); err != nil {
				return err
			}
		}
		return putImage(tx, &r)
	})
	if err != nil {
		return fault.In(err, "write image database")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.admit(&r)
	for _, n := range names {
		s.setName(n, id)
	}
	return nil
}
