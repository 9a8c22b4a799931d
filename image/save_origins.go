package image

import (
	"encoding/json"
	"slices"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
)

// originsName is a file of archives that only Berth reads: how images are known to registries, where the manifests in the
// archive had to be made anew because its layers are uncompressed.
const originsName = "berth.json"

// originsFile is its content. Everything it names lies in blobs/.
type originsFile struct {
	Version int                        `json:"version"`
	Images  []savedOrigin              `json:"images,omitempty"`
	Sources map[digest.Digest][]Source `json:"sources,omitempty"` // by diff id
}

// savedOrigin is how one image is known.
type savedOrigin struct {
	Image     digest.Digest `json:"image"`
	Manifest  Descriptor    `json:"manifest"`
	Index     *Descriptor   `json:"index,omitempty"`
	Documents []Descriptor  `json:"documents,omitempty"`
}

func (f *originsFile) empty() bool { return len(f.Images)+len(f.Sources) == 0 }

// aside notes what a Berth that loads the archive is to know of an item, and the documents for that.
func (v *saver) aside(f *originsFile, it *saveItem) error {
	for _, i := range it.images {
		for _, d := range i.img.Layers {
			if list := v.s.Sources(d); len(list) > 0 {
				if f.Sources == nil {
					f.Sources = map[digest.Digest][]Source{}
				}
				f.Sources[d] = list
			}
		}
		if i.img.Manifest == nil || i.own && (it.root == "" || !it.part) {
			continue
		}
		raw, err := v.s.blobs.Read(i.img.Manifest.Digest, maxDocument)
		if fault.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return err
		}
		o := savedOrigin{Image: digest.Digest(i.img.ID), Manifest: *i.img.Manifest}
		v.docs = append(v.docs, Attached{Descriptor: o.Manifest, Content: raw})
		if it.root != "" && i.img.Index != nil {
			docs, err := v.s.indexDocuments(it.root)
			if err != nil {
				return err
			}
			o.Index = &docs[0].Descriptor
			for _, d := range docs[1:] {
				o.Documents = append(o.Documents, d.Descriptor)
			}
			v.docs = append(v.docs, docs...)
		}
		f.Images = append(f.Images, o)
	}
	return nil
}

// indexDocuments gives an index, and behind it what else is here that belongs to it and to no image: indexes in it, attestations
// and artifacts with their parts.
func (s *Store) indexDocuments(root digest.Digest) ([]Attached, error) {
	s.mu.RLock()
	ix := s.indexes[root]
	byManifest := s.byManifest()
	s.mu.RUnlock()
	if ix == nil {
		return nil, fault.New(fault.NotFound, "no index %s", root)
	}
	raw, err := s.blobs.Read(root, maxDocument)
	if err != nil {
		return nil, err
	}
	docs := &Documents{}
	if err := s.innerIndexes(docs, raw, 0); err != nil {
		return nil, err
	}
	list := append([]Attached{{Descriptor: ix.Descriptor, Content: raw}}, docs.Inner...)
	for _, d := range ix.members {
		if byManifest[d.Digest] != nil || !s.blobs.Has(d.Digest) {
			continue
		}
		more, err := s.withParts(d)
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
	}
	return list, nil
}

// withParts gives a manifest that is no image's with what it names; nothing where not all is here.
func (s *Store) withParts(d Descriptor) ([]Attached, error) {
	raw, err := s.blobs.Read(d.Digest, maxDocument)
	if err != nil {
		return nil, err
	}
	m, err := parseManifest(raw)
	if err != nil {
		return nil, err
	}
	list := []Attached{{Descriptor: d, Content: raw}}
	parts := m.Layers
	if m.Config != nil {
		parts = append([]Descriptor{*m.Config}, parts...)
	}
	for _, p := range parts {
		raw, err := s.blobs.Read(p.Digest, maxDocument)
		if fault.Is(err, fault.NotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		list = append(list, Attached{Descriptor: p, Content: raw})
	}
	return list, nil
}

// origins reads what a Berth that saved the archive knew of its images, and gives it to those that are planned. What does not fit is
// left out: it is additional knowledge. Nothing is believed about layers, as these have their diff ids.
func (p *loadPlan) origins() map[digest.Digest][]Source {
	raw, err := p.a.document(originsName)
	if err != nil {
		return nil
	}
	var f originsFile
	if json.Unmarshal(raw, &f) != nil || f.Version != 1 || len(f.Images) > indexMembersMax {
		return nil
	}
	for _, o := range f.Images {
		manifest, index, docs, ok := p.savedOrigin(o)
		if !ok {
			continue
		}
		for _, g := range p.images {
			for i := range g.images {
				if img := &g.images[i]; digest.FromBytes(img.config) == o.Image && len(manifest.layers) == len(img.layers) {
					img.manifest, img.index, img.documents = manifest.doc, index, docs
				}
			}
		}
	}
	return f.Sources
}

// ownManifest is a manifest with its layers.
type ownManifest struct {
	doc    *Attached
	layers []Descriptor
}

// savedOrigin finds and verifies the documents of an origin.
func (p *loadPlan) savedOrigin(o savedOrigin) (manifest ownManifest, index *Attached, docs []Attached, ok bool) {
	raw, err := p.blob(o.Manifest)
	if err != nil {
		return
	}
	m, err := parseManifest(raw)
	if err != nil || m.Config == nil || m.Config.Digest != o.Image {
		return
	}
	manifest = ownManifest{&Attached{Descriptor: o.Manifest, Content: raw}, m.Layers}
	if o.Index == nil {
		return manifest, nil, nil, true
	}
	if raw, err = p.blob(*o.Index); err != nil {
		return
	}
	index = &Attached{Descriptor: *o.Index, Content: raw}
	for _, d := range o.Documents {
		raw, err := p.blob(d)
		if err != nil {
			return
		}
		docs = append(docs, Attached{Descriptor: d, Content: raw})
	}
	ix, err := readIndex(*o.Index, index.Content, func(d digest.Digest) ([]byte, error) {
		at := slices.IndexFunc(docs, func(a Attached) bool { return a.Digest == d })
		if at < 0 {
			return nil, errAbsent
		}
		return docs[at].Content, nil
	})
	return manifest, index, docs, err == nil && ix.has(o.Manifest.Digest)
}
