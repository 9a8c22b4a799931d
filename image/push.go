package image

import (
	"context"
	"encoding/json"
	"io"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/image/archive/compress"
)

// Documents is what a registry needs of an image besides its layers' bytes.
type Documents struct {
	Root      *Attached      // the index, or the only manifest; nil for an image made here, which has none yet
	Inner     []Attached     // indexes between Root and the manifests, the innermost first
	Manifests []ManifestDocs // of the images and their attestations, in the index's order; those that are here and those that are not
}

// ManifestDocs is one manifest with what it names.
type ManifestDocs struct {
	Descriptor  Descriptor      // zero for an image made here: MakeManifest makes one when the layers' blobs are known
	Content     []byte          // byte for byte; nil where Available is false or the image was made here
	Config      []byte          // the configuration, byte for byte
	ConfigDesc  Descriptor      // as the manifest has it; zero for an image made here
	Layers      []LayerBlob     // the lowest first
	ImageID     digest.Digest   // "" for an attestation
	Attestation digest.Digest   // digest of the manifest that it attests; "" for an image
	Available   bool            // everything that a push needs is here or has a source
	Platform    *Platform       // of an image
	Parents     []digest.Digest // indexes on the way from Root to here, Root not among them
}

// LayerBlob is a layer as a manifest names it.
type LayerBlob struct {
	Descriptor ocispec.Descriptor // of the compressed blob; zero for an image made here
	DiffID     digest.Digest      // "" where it is no layer but a document: OpenBlob has it
}

// ManifestOf gives the documents to push for an image by name, or by id. With a platform it is only that platform's manifest;
// without one it is the whole index, also with the manifests that are not here (Available is false).
func (s *Store) ManifestOf(name string, p *Platform) (*Documents, error) {
	s.mu.RLock()
	h, err := s.resolvePlatform(name, p)
	if err != nil {
		s.mu.RUnlock()
		return nil, err
	}
	img := s.snapshot(h.r, h.root)
	var ix *index
	if img.Index != nil && p == nil && !s.standsAlone(name, h) && h.root != img.Manifest.Digest {
		ix = s.indexes[img.Index.Digest]
	}
	byManifest := s.byManifest()
	s.mu.RUnlock()
	switch {
	case img.Manifest == nil:
		m, err := s.unborn(img)
		return &Documents{Manifests: []ManifestDocs{*m}}, err
	case ix == nil:
		m, err := s.manifestDocs(*img.Manifest, byManifest[img.Manifest.Digest])
		if err != nil {
			return nil, err
		}
		return &Documents{Root: &Attached{Descriptor: *img.Manifest, Content: m.Content}, Manifests: []ManifestDocs{*m}}, nil
	}
	raw, err := s.blobs.Read(ix.Digest, maxDocument)
	if err != nil {
		return nil, err
	}
	docs := &Documents{Root: &Attached{Descriptor: ix.Descriptor, Content: raw}}
	if err := s.innerIndexes(docs, raw, 0); err != nil {
		return nil, err
	}
	for _, d := range ix.members {
		m, err := s.manifestDocs(d, byManifest[d.Digest])
		if err != nil {
			return nil, err
		}
		docs.Manifests = append(docs.Manifests, *m)
	}
	return docs, nil
}

// innerIndexes collects the indexes that an index leads to.
func (s *Store) innerIndexes(docs *Documents, raw []byte, depth int) error {
	m, err := parseManifest(raw)
	if err != nil || depth > indexDepth {
		return err
	}
	for _, d := range m.Manifests {
		if d.MediaType != ocispec.MediaTypeImageIndex && d.MediaType != dockerListType {
			continue
		}
		inner, err := s.blobs.Read(d.Digest, maxDocument)
		if fault.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if err := s.innerIndexes(docs, inner, depth+1); err != nil {
			return err
		}
		docs.Inner = append(docs.Inner, Attached{Descriptor: d, Content: inner})
	}
	return nil
}

// manifestDocs reads what is here of one manifest; r is its image, or nil.
func (s *Store) manifestDocs(d Descriptor, r *record) (*ManifestDocs, error) {
	m := &ManifestDocs{Descriptor: d, Platform: d.Platform}
	if attestation(d) {
		m.Attestation = digest.Digest(d.Annotations[attestsDigest])
		m.Platform = nil
	}
	raw, err := s.blobs.Read(d.Digest, maxDocument)
	if fault.Is(err, fault.NotFound) {
		return m, nil
	}
	if err != nil {
		return nil, err
	}
	parsed, err := parseManifest(raw)
	if err != nil {
		return nil, fault.In(err, "manifest %s", d.Digest)
	}
	m.Content = raw
	if parsed.Config != nil {
		m.ConfigDesc = *parsed.Config
		if m.Config, err = s.blobs.Read(parsed.Config.Digest, maxDocument); err != nil && !fault.Is(err, fault.NotFound) {
			return nil, err
		}
	}
	if r != nil {
		m.ImageID = r.id
		at := r.doc.platform()
		m.Platform = &at
	}
	m.Available = m.Config != nil && (r != nil || m.Attestation != "")
	for i, l := range parsed.Layers {
		b := LayerBlob{Descriptor: l.OCI()}
		if r != nil && i < len(r.doc.RootFS.DiffIDs) {
			b.DiffID = r.doc.RootFS.DiffIDs[i]
		} else if !s.blobs.Has(l.Digest) {
			m.Available = false
		}
		m.Layers = append(m.Layers, b)
	}
	if r == nil && !m.Available {
		m.Content = nil
	}
	return m, nil
}

// unborn describes an image that has no manifest.
func (s *Store) unborn(img *Image) (*ManifestDocs, error) {
	config, err := s.Raw(img.ID)
	if err != nil {
		return nil, err
	}
	at := img.Config.platform()
	m := &ManifestDocs{Config: config, ImageID: digest.Digest(img.ID), Available: true, Platform: &at}
	for _, d := range img.Layers {
		m.Layers = append(m.Layers, LayerBlob{DiffID: d})
	}
	return m, nil
}

// MakeManifest makes the manifest of an image from its configuration and the descriptors of its compressed layers, as Docker
// pushes what was made locally: schema 2, or an OCI one where a layer has a media type that only OCI knows.
func MakeManifest(config []byte, layers []ocispec.Descriptor) (*Attached, error) {
	mediaType, configType := dockerManifestType, dockerConfigType
	for _, l := range layers {
		if l.MediaType != dockerLayerType {
			mediaType, configType = ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig
		}
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaType,
		Config: ocispec.Descriptor{MediaType: configType, Digest: digest.FromBytes(config), Size: int64(len(config))},
		Layers: append([]ocispec.Descriptor{}, layers...),
	}
	raw, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, err
	}
	return &Attached{Descriptor: Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}, Content: raw}, nil
}

// OpenBlob opens a document or a kept compressed layer for reading and tells its size. NotFound when it is not here. A deletion
// meanwhile does not harm the reader.
func (s *Store) OpenBlob(ctx context.Context, d digest.Digest) (io.ReadCloser, int64, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	b, err := s.blobs.Open(d)
	if err != nil {
		return nil, 0, err
	}
	return b, b.Size, nil
}

// Recompress writes a layer's blob anew: its tar rebuilt bit for bit, verified against the diff id, and compressed with gzip so that
// the same layer gives the same bytes on every machine and at every time (of one version of Berth). It gives the
// descriptor of what it wrote, with Docker's media type.
func (s *Store) Recompress(ctx context.Context, diffID digest.Digest, w io.Writer) (ocispec.Descriptor, error) {
	return s.RecompressAs(ctx, diffID, dockerLayerType, w)
}

// RecompressAs is Recompress for a layer that is to have a media type: gzip, zstd or uncompressed as that says.
func (s *Store) RecompressAs(ctx context.Context, diffID digest.Digest, mediaType string, w io.Writer) (ocispec.Descriptor, error) {
	hold := s.Hold()
	defer hold.Release()
	if err := hold.Layers(diffID); err != nil {
		return ocispec.Descriptor{}, err
	}
	v := digest.SHA256.Digester()
	count := &counter{w: io.MultiWriter(w, v.Hash())}
	zw, err := compress.NewWriter(count, kindOf(mediaType))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := s.layers.Tar(ctx, diffID, zw); err != nil {
		zw.Close()
		return ocispec.Descriptor{}, err
	}
	if err := zw.Close(); err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: v.Digest(), Size: count.n}, nil
}

// kindOf is the compression that a layer's media type stands for.
func kindOf(mediaType string) compress.Kind {
	switch mediaType {
	case ocispec.MediaTypeImageLayerZstd:
		return compress.Zstd
	case ocispec.MediaTypeImageLayer, "application/vnd.docker.image.rootfs.diff.tar":
		return compress.None
	}
	return compress.Gzip
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
