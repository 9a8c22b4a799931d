package image

import (
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/ref"
)

// Source says where a compressed layer can be had again.
type Source struct {
	Repository string             `json:"repository"` // with its host: docker.io/library/nginx
	Descriptor ocispec.Descriptor `json:"descriptor"` // the compressed blob
	// Claimed: somebody says so (a manifest whose layer was here already, an archive), and nobody here has unpacked the blob and compared.
	// Such a blob may stand for the layer in the manifest that says so, and in no other: whoever writes a manifest could put
	// another content into what others push.
	Claimed bool `json:"claimed,omitempty"`
}

// sourcesMax bounds the sources that are remembered of a layer; the oldest goes.
const sourcesMax = 16

// Sources gives the places where a layer's compressed blob was seen, the latest last. A layer that is not here has none.
func (s *Store) Sources(diffID digest.Digest) []Source {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Clone(s.sources[diffID])
}

// AddSource notes another place of a layer's blob, durably: after a push the target is a source too.
func (s *Store) AddSource(diffID digest.Digest, src Source) error {
	return s.AddSources(map[digest.Digest]Source{diffID: src})
}

// AddSources is AddSource for several layers in one transaction. Layers that are not here are left out.
func (s *Store) AddSources(list map[digest.Digest]Source) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	c := newChange()
	c.sources = each(list)
	return s.apply(c)
}

func each(list map[digest.Digest]Source) map[digest.Digest][]Source {
	out := make(map[digest.Digest][]Source, len(list))
	for d, src := range list {
		out[d] = []Source{src}
	}
	return out
}

// addAll notes what an archive tells of layers that are here now.
func (s *Store) addAll(lists map[digest.Digest][]Source) error {
	if len(lists) == 0 {
		return nil
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	c := newChange()
	c.sources = map[digest.Digest][]Source{}
	for d, list := range lists {
		for _, src := range list[max(0, len(list)-sourcesMax):] {
			if src.valid() {
				src.Claimed = true
				c.sources[d] = append(c.sources[d], src)
			}
		}
	}
	return s.apply(c)
}

// valid reports whether a source from outside can be one.
func (src Source) valid() bool {
	n, err := ref.Parse(src.Repository)
	return err == nil && n.IsNameOnly() && n.Repository() == src.Repository && src.Descriptor.Digest.Validate() == nil && src.Descriptor.Size >= 0
}

// mergeSources gives the new lists of those layers whose sources change. changing is held.
func (s *Store) mergeSources(more map[digest.Digest][]Source) map[digest.Digest][]Source {
	out := map[digest.Digest][]Source{}
	for d, add := range more {
		if !s.layers.Has(d) {
			continue
		}
		list, changed := slices.Clone(s.sources[d]), false
		for _, src := range add {
			same := func(o Source) bool {
				return o.Repository == src.Repository && o.Descriptor.Digest == src.Descriptor.Digest
			}
			// What was compared once stays so wherever the blob lies.
			seen := func(o Source) bool { return o.Descriptor.Digest == src.Descriptor.Digest && !o.Claimed }
			src.Claimed = src.Claimed && !slices.ContainsFunc(list, seen)
			if n := len(list); n > 0 && same(list[n-1]) && list[n-1].Claimed == src.Claimed {
				continue
			}
			list, changed = append(slices.DeleteFunc(list, same), src), true
		}
		if changed {
			out[d] = list[max(0, len(list)-sourcesMax):]
		}
	}
	return out
}

// forgetSources drops the sources of layers that were deleted; the database follows with the next change. changing is held.
func (s *Store) forgetSources(deleted []digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range deleted {
		if _, ok := s.sources[d]; ok && !s.layers.Has(d) {
			delete(s.sources, d)
			s.staleSources = append(s.staleSources, d)
		}
	}
}
