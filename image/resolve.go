package image

import (
	"strings"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/base/ref"
)

// Resolve finds an image by name, name:tag, name@digest, id or the beginning of an id, and by the digest of the manifest or
// index it came with. Names win over beginnings of ids. What does not exist, or is the beginning of several ids, is
// NotFound in Docker's words ("No such image: x:latest"); what cannot be a reference is Invalid.
func (s *Store) Resolve(name string) (*Image, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r, err := s.resolve(name)
	if err != nil {
		return nil, err
	}
	return s.snapshot(r), nil
}

// resolve is Resolve with mu held.
func (s *Store) resolve(name string) (*record, error) {
	if d, ok := fullDigest(name); ok {
		if r := s.byDigest(d); r != nil {
			return r, nil
		}
		return nil, fault.New(fault.NotFound, "No such image: %s", d)
	}
	n, err := ref.Parse(name)
	if err != nil {
		return nil, err
	}
	if id, ok := s.names[lookupForm(n)]; ok {
		return s.images[id], nil
	}
	// A digest finds the manifest even where the repository digest is not recorded, if a name of the repository is.
	if n.Digest != "" {
		if r := s.byDigest(n.Digest); r != nil && s.hasNameIn(r.id, n.Repository()) {
			return r, nil
		}
	}
	if prefix, ok := ref.LooksLikeID(name); ok {
		if r := s.byPrefix(prefix); r != nil {
			return r, nil
		}
	}
	return nil, fault.New(fault.NotFound, "No such image: %s", n.WithDefaultTag().Familiar())
}

// lookupForm is the reference under which a name is kept: with a digest the tag says nothing more, without both
// it is :latest.
func lookupForm(n ref.Ref) ref.Ref {
	if n.Digest != "" {
		return n.WithDigest(n.Digest)
	}
	return n.WithDefaultTag()
}

// fullDigest reads a whole digest, or 64 hex digits that mean sha256.
func fullDigest(name string) (digest.Digest, bool) {
	if d, err := digest.Parse(name); err == nil {
		return d, true
	}
	if d := digest.Digest("sha256:" + name); len(name) == 64 && d.Validate() == nil {
		return d, true
	}
	return "", false
}

// byDigest finds an image by its id or by the digest of a document it came with; mu is held.
func (s *Store) byDigest(d digest.Digest) *record {
	if r := s.images[d]; r != nil {
		return r
	}
	for _, r := range s.images {
		for _, doc := range r.documents() {
			if doc == d {
				return r
			}
		}
	}
	return nil
}

// byPrefix finds the one image whose id, or one of whose documents' digests, begins so; nil for none and for several.
func (s *Store) byPrefix(prefix string) *record {
	var found *record
	for id, r := range s.images {
		if !strings.HasPrefix(id.Encoded(), prefix) {
			continue
		}
		if found != nil {
			return nil
		}
		found = r
	}
	if found != nil {
		return found
	}
	for _, r := range s.images {
		for _, doc := range r.documents() {
			if !strings.HasPrefix(doc.Encoded(), prefix) {
				continue
			}
			if found != nil && found != r {
				return nil
			}
			found = r
		}
	}
	return found
}

func (s *Store) hasNameIn(id digest.Digest, repository string) bool {
	for _, n := range s.byID[id] {
		if n.Repository() == repository {
			return true
		}
	}
	return false
}

// children lists the images committed on an image; mu is held.
func (s *Store) children(id digest.Digest) (list []digest.Digest) {
	for cid, r := range s.images {
		if r.Parent == id {
			list = append(list, cid)
		}
	}
	return list
}
