package export

import (
	"encoding/json"

	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/image"
)

// documents makes the manifest of each platform, and the root: that manifest, or the index of all. The same image gives the same bytes.
func (m *made) documents() error {
	for _, p := range m.parts {
		if err := m.manifest(p); err != nil {
			return err
		}
	}
	if !m.index {
		m.root = m.parts[0].manifest
		return nil
	}
	return m.makeIndex()
}

// manifest makes a platform's manifest.
func (m *made) manifest(p *part) (err error) {
	doc := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: manifestType(m.o.oci),
		Config:      ocispec.Descriptor{MediaType: configType(m.o.oci), Digest: p.id(), Size: int64(len(p.config))},
		Layers:      descriptors(p.layers),
		Annotations: m.o.annotations.of(&p.platform.Platform, exptypes.AnnotationManifest),
	}
	p.rewritten(m, doc.Layers)
	p.manifest, err = document(doc.MediaType, doc)
	return err
}

// makeIndex makes the index of all platforms, and behind them of what attests them.
func (m *made) makeIndex() (err error) {
	doc := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: indexType(m.o.oci), Manifests: []ocispec.Descriptor{}, Annotations: m.o.annotations.index(exptypes.AnnotationIndex)}
	for _, p := range m.parts {
		d := p.manifest.OCI()
		d.Platform = &p.platform.Platform
		d.Annotations = m.o.annotations.of(&p.platform.Platform, exptypes.AnnotationManifestDescriptor)
		doc.Manifests = append(doc.Manifests, d)
	}
	for _, p := range m.parts {
		if p.attest != nil {
			doc.Manifests = append(doc.Manifests, p.attest.manifest.OCI())
		}
	}
	m.root, err = document(doc.MediaType, doc)
	return err
}

// rootDescriptor is how the root is named outside, with the annotations that its descriptor shall have.
func (m *made) rootDescriptor() ocispec.Descriptor {
	d := m.root.OCI()
	if m.index {
		d.Annotations = m.o.annotations.index(exptypes.AnnotationIndexDescriptor)
		return d
	}
	p := m.parts[0]
	d.Platform = &p.platform.Platform
	d.Annotations = m.o.annotations.of(&p.platform.Platform, exptypes.AnnotationManifestDescriptor)
	return d
}

// document is a JSON document with its digest, as BuildKit and Docker indent it.
func document(mediaType string, v any) (*image.Attached, error) {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, err
	}
	return attached(mediaType, raw), nil
}

func attached(mediaType string, raw []byte) *image.Attached {
	return &image.Attached{Descriptor: image.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}, Content: raw}
}

func manifestType(oci bool) string {
	if oci {
		return ocispec.MediaTypeImageManifest
	}
	return dockerManifest
}

func indexType(oci bool) string {
	if oci {
		return ocispec.MediaTypeImageIndex
	}
	return dockerIndex
}
