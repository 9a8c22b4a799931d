package image

import (
	"strings"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/base/ref"
)

// Resolve finds an image by name, name:tag, name@digest, id or the beginning of an id, and by the digest of the manifest or
// index it came with. Of the images of several platforms it is this machine's, else the one that came last. Names win over
// beginnings of ids. What does not exist, or is the beginning of several ids, is NotFound in Docker's words
// ("No such image: x:latest"); what cannot be a reference is Invalid.
func (s *Store) Resolve(name string) (*Image, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	h, err := s.resolve(name)
	if err != nil {
		return nil, err
	}
	return s.snapshot(h.r, h.root), nil
}

// ResolvePlatform is Resolve for one platform: of the images that came with the same index the one that fits best. A
// name that has none for it is NotFound in Docker's words. nil is Resolve.
func (s *Store) ResolvePlatform(name string, p *Platform) (*Image, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	h, err := s.resolvePlatform(name, p)
	if err != nil {
		return nil, err
	}
	return s.snapshot(h.r, h.root), nil
}

// hit is what a reference leads to: an image, and the document by which the reference knows it ("" by its id alone).
type hit struct {
	r    *record
	root digest.Digest
}

func (s *Store) resolvePlatform(name string, p *Platform) (hit, error) {
	h, err := s.resolve(name)
	if err != nil || p == nil {
		return h, err
	}
	candidates := []*record{h.r}
	if root := s.rootOf(h); root != "" && !s.standsAlone(name, h) {
		candidates = union(s.members(root), candidates)
	}
	want := wantPlatform(p).match
	var best *record
	for _, r := range candidates {
		at := r.doc.platform().oci()
		if at.Architecture == p.oci().Architecture && want.Match(at) && (best == nil || want.Less(at, best.doc.platform().oci())) {
			best = r
		}
	}
	if best == nil {
		return hit{}, fault.New(fault.NotFound, "image with reference %s was found but does not provide the specified platform (%s)", name, p)
	}
	return hit{best, h.root}, nil
}

// rootOf is the document that a hit is known by: the reference's, else that of the image's newest origin.
func (s *Store) rootOf(h hit) digest.Digest {
	if h.root != "" {
		return h.root
	}
	if o := h.r.newest(); o != nil {
		return o.root().Digest
	}
	return ""
}

// standsAlone reports whether a reference means just this image: by the id of one that stands under another.
func (s *Store) standsAlone(name string, h hit) bool {
	return h.root == "" && s.siblings()[h.r.id]
}

// resolve is Resolve with mu held.
func (s *Store) resolve(name string) (hit, error) {
	if d, ok := fullDigest(name); ok {
		if h := s.byDigest(d); h.r != nil {
			return h, nil
		}
		return hit{}, fault.New(fault.NotFound, "No such image: %s", d)
	}
	n, err := ref.Parse(name)
	if err != nil {
		return hit{}, err
	}
	if t, ok := s.names[lookupForm(n)]; ok {
		return hit{s.images[t.ID], t.Root}, nil
	}
	// A digest finds the manifest even where the repository digest is not recorded, if a name of the repository is.
	if n.Digest != "" {
		if h := s.byDigest(n.Digest); h.r != nil && s.hasNameIn(h.r, n.Repository()) {
			return h, nil
		}
	}
	if prefix, ok := ref.LooksLikeID(name); ok {
		if h := s.byPrefix(prefix); h.r != nil {
			return h, nil
		}
	}
	return hit{}, fault.New(fault.NotFound, "No such image: %s", n.WithDefaultTag().Familiar())
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
func (s *Store) byDigest(d digest.Digest) hit {
	if r := s.images[d]; r != nil {
		return hit{r: r}
	}
	if s.indexes[d] != nil {
		return hit{s.first(d), d}
	}
	for _, r := range s.images {
		for i := range r.Origins {
			if r.Origins[i].Manifest.Digest == d {
				return hit{r, d}
			}
		}
	}
	return hit{}
}

// first is the image that stands for an index: the one that a name gives, else the one that suits this machine, else the
// one that came last.
func (s *Store) first(root digest.Digest) *record {
	for _, t := range s.names {
		if t.Root == root {
			return s.images[t.ID]
		}
	}
	host := wantPlatform(nil).match
	var best *record
	for _, r := range s.members(root) {
		switch {
		case best == nil, host.Less(r.doc.platform().oci(), best.doc.platform().oci()):
			best = r
		case r.Tagged.After(best.Tagged) && !host.Match(best.doc.platform().oci()):
			best = r
		}
	}
	return best
}

// byPrefix finds the one image whose id, or one of whose documents' digests, begins so; no record for none and for several.
func (s *Store) byPrefix(prefix string) hit {
	var found *record
	for id, r := range s.images {
		if !strings.HasPrefix(id.Encoded(), prefix) {
			continue
		}
		if found != nil {
			return hit{}
		}
		found = r
	}
	if found != nil {
		return hit{r: found}
	}
	var document digest.Digest
	note := func(d digest.Digest) (several bool) {
		if !strings.HasPrefix(d.Encoded(), prefix) || d == document {
			return false
		}
		several = document != ""
		document = d
		return several
	}
	for d := range s.indexes {
		if note(d) {
			return hit{}
		}
	}
	for _, r := range s.images {
		for i := range r.Origins {
			if note(r.Origins[i].Manifest.Digest) {
				return hit{}
			}
		}
	}
	if document == "" {
		return hit{}
	}
	return s.byDigest(document)
}

func (s *Store) hasNameIn(r *record, repository string) bool {
	for _, n := range s.namesOf(r) {
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
