package image

import (
	"encoding/json"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"berth/base/ref"
)

// blobSources are repositories that may have a document or a kept blob: those that its images' layers come from, and those of their
// names.
func (c *checker) blobSources(d digest.Digest) []Source {
	desc := ocispec.Descriptor{Digest: d}
	var repositories []string
	for _, id := range c.wanted[d] {
		st := c.images[id]
		if id == d {
			desc.MediaType = ocispec.MediaTypeImageConfig
		}
		if found := c.s.descriptorOf(&st, d); found != nil {
			desc = found.OCI()
		}
		for _, l := range st.Layers {
			for _, src := range slices.Backward(c.s.Sources(l)) {
				if src.Descriptor.Digest == d {
					desc = src.Descriptor
				}
				repositories = union(repositories, []string{src.Repository})
			}
		}
		for _, n := range c.s.databaseNames(id) {
			repositories = union(repositories, []string{n.Repository()})
		}
	}
	// Registries have manifests and blobs in different places. Where it is not known which it is, both are tried.
	kinds := []string{desc.MediaType}
	if desc.MediaType == "" {
		kinds = []string{"application/octet-stream", ocispec.MediaTypeImageManifest}
	}
	var list []Source
	for _, r := range repositories {
		for _, k := range kinds {
			desc.MediaType = k
			list = append(list, Source{Repository: r, Descriptor: desc})
		}
	}
	return list
}

// descriptorOf finds the descriptor of a manifest or an index that an image came with, or that its index names.
func (s *Store) descriptorOf(st *stored, d digest.Digest) *Descriptor {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for i := range st.Origins {
		o := &st.Origins[i]
		if o.Manifest.Digest == d {
			return &o.Manifest
		}
		if o.Index == nil {
			continue
		}
		if o.Index.Digest == d {
			return o.Index
		}
		if ix := s.indexes[o.Index.Digest]; ix != nil {
			for m := range ix.members {
				if ix.members[m].Digest == d {
					return &ix.members[m]
				}
			}
		}
	}
	return nil
}

// databaseNames gives an image's names also where it is left out.
func (s *Store) databaseNames(id digest.Digest) (list []ref.Ref) {
	_ = s.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketNames).ForEach(func(k, v []byte) error {
			var t target
			if n, err := ref.Parse(string(k)); err == nil && json.Unmarshal(v, &t) == nil && t.ID == id {
				list = append(list, n)
			}
			return nil
		})
	})
	return list
}

// layerSources are the places of a layer's blob, the latest first; kept tells that the blob is here.
func (s *Store) layerSources(d digest.Digest) (list []Source, kept bool) {
	list = slices.Clone(s.Sources(d))
	slices.Reverse(list)
	for _, blob := range s.keptOf(d) {
		if s.blobs.Has(blob) {
			kept = true
		}
	}
	return list, kept
}

// keptOf gives the compressed blobs that manifests here have for a layer.
func (s *Store) keptOf(diffID digest.Digest) (blobs []digest.Digest) {
	s.mu.RLock()
	type candidate struct {
		st stored
	}
	var candidates []candidate
	for _, r := range s.images {
		if slices.Contains(r.Layers, diffID) {
			candidates = append(candidates, candidate{r.stored})
		}
	}
	for _, b := range s.broken {
		if slices.Contains(b.Layers, diffID) {
			candidates = append(candidates, candidate{b.stored})
		}
	}
	s.mu.RUnlock()
	for _, c := range candidates {
		for _, o := range c.st.Origins {
			if len(o.Blobs) == 0 {
				continue
			}
			raw, err := s.blobs.Read(o.Manifest.Digest, maxDocument)
			if err != nil {
				continue
			}
			m, err := parseManifest(raw)
			if err != nil || len(m.Layers) != len(c.st.Layers) {
				continue
			}
			for i, l := range m.Layers {
				if c.st.Layers[i] == diffID {
					blobs = union(blobs, []digest.Digest{l.Digest})
				}
			}
		}
	}
	return blobs
}
