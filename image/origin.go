package image

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
)

// origin is one way in which an image is known to registries: its manifest, the index that was chosen from, and what
// else belongs to them. One configuration may have several manifests, by their compression, and one manifest may
// stand in several indexes.
type origin struct {
	Manifest  Descriptor      `json:"manifest"`
	Index     *Descriptor     `json:"index,omitempty"`
	Documents []digest.Digest `json:"documents,omitempty"` // attestation manifests and their parts, indexes in between
	Blobs     []digest.Digest `json:"blobs,omitempty"`     // compressed layers that are kept with the image
}

// root is the document by which a name names this origin: the index, else the manifest.
func (o *origin) root() *Descriptor {
	if o.Index != nil {
		return o.Index
	}
	return &o.Manifest
}

// merge adds what a later registration of the same origin brings.
func (o *origin) merge(n origin) origin {
	m := *o
	m.Documents = union(o.Documents, n.Documents)
	m.Blobs = union(o.Blobs, n.Blobs)
	return m
}

func union[T comparable](a, b []T) []T {
	out := slices.Clone(a)
	for _, d := range b {
		if !slices.Contains(out, d) {
			out = append(out, d)
		}
	}
	return out
}

// documents are the blobs of an image besides its configuration, each once.
func (st *stored) documents() (list []digest.Digest) {
	for i := range st.Origins {
		o := &st.Origins[i]
		list = union(list, []digest.Digest{o.Manifest.Digest})
		if o.Index != nil {
			list = union(list, []digest.Digest{o.Index.Digest})
		}
		list = union(union(list, o.Documents), o.Blobs)
	}
	return list
}

// newest is the origin that came last, or nil.
func (st *stored) newest() *origin {
	if len(st.Origins) == 0 {
		return nil
	}
	return &st.Origins[len(st.Origins)-1]
}

// withOrigin gives a record's origins with another one, which becomes the newest.
func (st *stored) withOrigin(n origin) []origin {
	var out []origin
	for _, o := range st.Origins {
		if o.Manifest.Digest == n.Manifest.Digest && o.root().Digest == n.root().Digest {
			n = o.merge(n)
			continue
		}
		out = append(out, o)
	}
	return append(out, n)
}

// originOf gives the origin that a root document leads to; the newest where none does.
func (s *Store) originOf(r *record, root digest.Digest) (manifest, index *Descriptor) {
	o := r.newest()
	if o == nil {
		return nil, nil
	}
	if root == "" {
		return &o.Manifest, o.Index
	}
	for i := len(r.Origins) - 1; i >= 0; i-- {
		if x := &r.Origins[i]; x.root().Digest == root {
			return &x.Manifest, x.Index
		}
	}
	for i := len(r.Origins) - 1; i >= 0; i-- {
		x := &r.Origins[i]
		if x.Manifest.Digest == root {
			return &x.Manifest, nil
		}
		if ix := s.indexes[root]; ix != nil && ix.has(x.Manifest.Digest) {
			return &x.Manifest, &ix.Descriptor
		}
	}
	return &o.Manifest, o.Index
}

// index is an index in memory: the manifests that it leads to, also through indexes in it, in their order.
type index struct {
	Descriptor
	members []Descriptor
}

func (ix *index) has(manifest digest.Digest) bool {
	return slices.ContainsFunc(ix.members, func(d Descriptor) bool { return d.Digest == manifest })
}

// indexMembersMax bounds the manifests of one index with all that it contains.
const indexMembersMax = 4096

// readIndex makes the value of an index. read gives the indexes in it; one that cannot be had is left out.
func readIndex(d Descriptor, raw []byte, read func(digest.Digest) ([]byte, error)) (*index, error) {
	ix := &index{Descriptor: d}
	seen := map[digest.Digest]bool{d.Digest: true}
	var walk func(raw []byte, depth int) error
	walk = func(raw []byte, depth int) error {
		if depth > indexDepth {
			return fault.New(fault.Invalid, "indexes are nested more than %d deep", indexDepth)
		}
		m, err := parseManifest(raw)
		if err != nil {
			return err
		}
		for _, sub := range m.Manifests {
			if seen[sub.Digest] {
				continue
			}
			seen[sub.Digest] = true
			if sub.MediaType == ocispec.MediaTypeImageIndex || sub.MediaType == dockerListType {
				inner, err := read(sub.Digest)
				if err != nil {
					continue
				}
				if err := walk(inner, depth+1); err != nil {
					return err
				}
				continue
			}
			if ix.members = append(ix.members, sub); len(ix.members) > indexMembersMax {
				return fault.New(fault.Invalid, "index %s names more than %d manifests", d.Digest, indexMembersMax)
			}
		}
		return nil
	}
	if err := walk(raw, 0); err != nil {
		return nil, fault.In(err, "index %s", d.Digest)
	}
	return ix, nil
}

// loadIndex reads an index that the blob store has.
func (s *Store) loadIndex(d Descriptor) (*index, error) {
	raw, err := s.blobs.Read(d.Digest, maxDocument)
	if err != nil {
		return nil, err
	}
	return readIndex(d, raw, func(inner digest.Digest) ([]byte, error) { return s.blobs.Read(inner, maxDocument) })
}

// members gives the images of an index that are here, in the index's order; mu is held.
func (s *Store) members(root digest.Digest) (list []*record) { return s.membersIn(s.indexes[root]) }

func (s *Store) membersIn(ix *index) (list []*record) {
	if ix == nil {
		return nil
	}
	byManifest := s.views().byManifest
	for _, m := range ix.members {
		if r := byManifest[m.Digest]; r != nil && !slices.Contains(list, r) {
			list = append(list, r)
		}
	}
	return list
}

// settle brings into line what follows from names and origins after they have changed: which root documents are held,
// which indexes are in memory. changing is held, mu is not.
func (s *Store) settle() {
	s.mu.RLock()
	roots := map[digest.Digest]bool{}
	for _, t := range s.names {
		if t.Root != "" {
			roots[t.Root] = true
		}
	}
	indexes := map[digest.Digest]bool{}
	for d := range roots {
		indexes[d] = true
	}
	for _, r := range s.images {
		for i := range r.Origins {
			if ix := r.Origins[i].Index; ix != nil {
				indexes[ix.Digest] = true
			}
		}
	}
	s.mu.RUnlock()
	for d := range roots {
		if s.rootHolds[d] {
			continue
		}
		if err := s.blobs.Retain(context.Background(), d); err != nil {
			s.log.Warn("the document that a name stands for is missing", "document", d, "err", err)
			continue
		}
		s.rootHolds[d] = true
	}
	for d := range s.rootHolds {
		if !roots[d] {
			delete(s.rootHolds, d)
			s.blobs.Release(d)
		}
	}
	s.mu.Lock()
	for d := range s.indexes {
		if !indexes[d] {
			delete(s.indexes, d)
			s.changed()
		}
	}
	s.mu.Unlock()
}

// target is what a name stands for.
type target struct {
	ID   digest.Digest `json:"image"`          // the image that a container gets
	Root digest.Digest `json:"root,omitempty"` // the index or manifest that it came with; "" for an image made here
}

func (t target) encode() ([]byte, error) { return json.Marshal(t) }
