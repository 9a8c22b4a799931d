package image

import (
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/base/ref"
)

// Tag gives an image another name, durably: with all its platforms, where it has several. The image that had the name loses it.
func (s *Store) Tag(name, newName string) error {
	n, err := ref.ParseTagged(newName)
	if err != nil {
		return err
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	s.mu.RLock()
	h, err := s.resolve(name)
	var root digest.Digest
	if err == nil {
		root = s.tagRoot(name, h)
	}
	s.mu.RUnlock()
	if err != nil {
		return err
	}
	if err := s.point(h.r.id, root, n); err != nil {
		return err
	}
	s.emit(Event{Action: "tag", ID: string(h.r.id), Name: n.Familiar()})
	return nil
}

// tagRoot is what a new name for a hit stands for: the reference's document, or for an id what the image came with, which is
// only its own manifest where it stands under an image of another platform. mu is held.
func (s *Store) tagRoot(name string, h hit) digest.Digest {
	if s.standsAlone(name, h) {
		return h.r.newest().Manifest.Digest
	}
	return s.rootOf(h)
}

// Point makes names those of an image that is here, for what came with the root document ("" for an image made here). Unlike
// Tag it takes repository digests too.
func (s *Store) Point(id, root digest.Digest, names ...ref.Ref) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	return s.point(id, root, names...)
}

// point is Point; changing is held.
func (s *Store) point(id, root digest.Digest, names ...ref.Ref) error {
	old := s.images[id]
	if old == nil {
		return fault.New(fault.NotFound, "No such image: %s", id)
	}
	r := *old
	r.Tagged = time.Now()
	c := newChange()
	c.put[id] = &r
	for _, n := range names {
		c.set[n] = target{ID: id, Root: root}
	}
	return s.apply(c)
}
