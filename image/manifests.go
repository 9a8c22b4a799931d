package image

import (
	"slices"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
)

// Kinds of manifests, in Docker's words.
const (
	KindImage       = "image"
	KindAttestation = "attestation"
	KindUnknown     = "unknown"
)

// Manifest is one manifest of an image, as image ls --tree and inspect show it.
type Manifest struct {
	Descriptor Descriptor
	Kind       string
	Available  bool          // it can be used: its image, or all documents of the attestation are here
	Content    int64         // bytes of its documents and kept blobs
	Unpacked   int64         // bytes of the image's layers
	Platform   Platform      // of an image
	ImageID    digest.Digest // of an image that is here, else ""
	Containers []string      // ids of the containers that use the image
	For        digest.Digest // of an attestation: the manifest it speaks of
}

// Manifests gives the manifests of an image by name or id, in the order of its index; for an image that came without an index
// its only one, for one made here none.
func (s *Store) Manifests(name string) ([]Manifest, error) {
	s.mu.RLock()
	h, err := s.resolve(name)
	if err != nil {
		s.mu.RUnlock()
		return nil, err
	}
	root := s.rootOf(h)
	if s.standsAlone(name, h) {
		root = h.r.newest().Manifest.Digest
	}
	members := s.membersOf(h.r, root)
	byManifest := s.byManifest()
	s.mu.RUnlock()
	return s.describe(members, byManifest), nil
}

// membersOf are the manifests that a root document leads to; mu is held.
func (s *Store) membersOf(r *record, root digest.Digest) []Descriptor {
	if ix := s.indexes[root]; ix != nil {
		return ix.members
	}
	if manifest, _ := s.originOf(r, root); manifest != nil {
		return []Descriptor{*manifest}
	}
	return nil
}

// describe finds out what is here of manifests. mu is not held: documents are read.
func (s *Store) describe(members []Descriptor, byManifest map[digest.Digest]*record) []Manifest {
	list := make([]Manifest, 0, len(members))
	for _, d := range members {
		m := Manifest{Descriptor: d, Kind: KindUnknown}
		if d.Platform != nil {
			m.Platform = *d.Platform
		}
		var layers []Descriptor
		if raw, err := s.blobs.Read(d.Digest, maxDocument); err == nil {
			m.Content += int64(len(raw))
			m.Available = true
			if parsed, err := parseManifest(raw); err == nil {
				layers = parsed.Layers
				if parsed.Config != nil {
					layers = append([]Descriptor{*parsed.Config}, layers...)
				}
			}
		} else if !fault.Is(err, fault.NotFound) {
			s.log.Warn("read manifest", "manifest", d.Digest, "err", err)
		}
		complete := true
		for _, l := range layers {
			if !s.blobs.Has(l.Digest) {
				complete = false
				continue
			}
			m.Content += l.Size
		}
		r := byManifest[d.Digest]
		switch {
		case attestation(d):
			m.Kind, m.For = KindAttestation, digest.Digest(d.Annotations[attestsDigest])
			m.Available = m.Available && complete
		case r != nil:
			m.Kind, m.Unpacked, m.ImageID, m.Platform = KindImage, r.size, r.id, r.doc.platform()
			for _, u := range s.usedBy(string(r.id)) {
				m.Containers = append(m.Containers, u.ContainerID)
			}
			slices.Sort(m.Containers)
		default:
			if d.Platform != nil && d.Platform.OS != "" {
				m.Kind = KindImage
			}
			m.Available = false
		}
		list = append(list, m)
	}
	return list
}
