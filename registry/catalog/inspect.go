package catalog

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"maps"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/registry/storage"
)

// Detail is one manifest as people want to see it.
type Detail struct {
	Repository  string
	Digest      digest.Digest // of what was asked for: an index, where there is one
	MediaType   string
	Kind        string // "image", "index" of something else, or an artifact type
	Pushed      time.Time
	Annotations map[string]string // of the index and of the chosen manifest, which wins
	Platforms   []Platform        // one for an image without an index
	Chosen      Platform          // what Config, Layers and Size are of
	Config      *ocispec.Image    // nil: no image, or one whose config cannot be read
	Layers      []Layer
	History     []ocispec.History
	Size        int64 // bytes of config and layers, as they are transferred
	Subject     digest.Digest
	Attached    []Attached // parts of an index that are no images
}

// Attached is a part of an index that is no image: builders put attestations (provenance, SBOM) there.
type Attached struct {
	Kind   string // attestation-manifest, or what its descriptor says
	Digest digest.Digest
	Of     digest.Digest // what it is about, if it says so
}

// Platform is one image of an index.
type Platform struct {
	Name   string // linux/arm64/v8
	Digest digest.Digest
	Size   int64 // bytes of its config and layers; 0 when they are not here
}

// Layer is one blob of an image with the step that made it, if the history says so.
type Layer struct {
	Digest    digest.Digest
	MediaType string
	Size      int64 // bytes, compressed
	CreatedBy string
	Created   *time.Time
}

// Labels gives annotations and the labels of the config, which win: they are what the builder meant.
func (d *Detail) Labels() map[string]string {
	all := map[string]string{}
	maps.Copy(all, d.Annotations)
	if d.Config != nil {
		maps.Copy(all, d.Config.Config.Labels)
	}
	return all
}

// maxConfig is the largest image config that is read; those of Docker Hub have 2 to 60 KB.
const maxConfig = 4 << 20

// Configs of images. Everything else in their place makes an artifact.
var imageConfigs = map[string]bool{
	ocispec.MediaTypeImageConfig:                     true,
	"application/vnd.docker.container.image.v1+json": true,
}

// Inspect reads a manifest by tag or digest. Of an index it looks at the image for the wanted platform (a digest out
// of Platforms, or a name), without one at linux/amd64, else at the first. NotFound when there is no such manifest.
func Inspect(ctx context.Context, s *storage.Store, repository, tagOrDigest, platform string) (*Detail, error) {
	m, err := s.Manifest(ctx, repository, tagOrDigest)
	if err != nil {
		return nil, err
	}
	doc, err := storage.Parse(m.MediaType, m.Content)
	if err != nil {
		return nil, fault.In(err, "read manifest %s", m.Digest)
	}
	d := &Detail{Repository: repository, Digest: m.Digest, MediaType: m.MediaType, Pushed: m.At, Subject: m.Subject,
		Annotations: map[string]string{}}
	maps.Copy(d.Annotations, doc.Annotations)
	if doc.Manifests == nil {
		return d, d.manifest(ctx, s, m.Digest, doc)
	}
	d.Kind = "index"
	if doc.ArtifactType != "" {
		d.Kind = doc.ArtifactType
	}
	for _, c := range doc.Manifests {
		if c.Platform == nil || c.Platform.OS == "unknown" { // no image: an attestation has unknown/unknown
			kind := c.Annotations["vnd.docker.reference.type"]
			if kind == "" {
				kind = cmp.Or(c.ArtifactType, c.MediaType)
			}
			d.Attached = append(d.Attached, Attached{kind, c.Digest, digest.Digest(c.Annotations["vnd.docker.reference.digest"])})
			continue
		}
		d.Platforms = append(d.Platforms, Platform{Name: platformName(*c.Platform), Digest: c.Digest, Size: sizeOf(ctx, s, repository, c.Digest)})
	}
	chosen, ok := choose(d.Platforms, platform)
	if !ok && platform != "" {
		return nil, fault.New(fault.NotFound, "%s has no image for %s", m.Digest, platform)
	}
	if !ok {
		return d, nil
	}
	child, err := s.Manifest(ctx, repository, string(chosen.Digest))
	if fault.Is(err, fault.NotFound) { // a sparse index: what is not here cannot be shown
		d.Kind, d.Chosen = "image", chosen
		return d, nil
	}
	if err != nil {
		return nil, err
	}
	if doc, err = storage.Parse(child.MediaType, child.Content); err != nil {
		return nil, fault.In(err, "read manifest %s", child.Digest)
	}
	maps.Copy(d.Annotations, doc.Annotations)
	platforms := d.Platforms
	if err := d.manifest(ctx, s, child.Digest, doc); err != nil {
		return nil, err
	}
	d.Platforms, d.Chosen = platforms, chosen
	return d, nil
}

// choose picks the platform to look at.
func choose(all []Platform, wanted string) (Platform, bool) {
	for _, p := range all {
		if wanted == string(p.Digest) || wanted == p.Name || wanted == "" && p.Name == "linux/amd64" {
			return p, true
		}
	}
	if wanted != "" || len(all) == 0 {
		return Platform{}, false
	}
	return all[0], true
}

// manifest fills in what a manifest of one image or artifact says.
func (d *Detail) manifest(ctx context.Context, s *storage.Store, of digest.Digest, doc *storage.Document) error {
	d.Chosen.Digest = of
	d.Size = 0
	for _, b := range doc.Blobs {
		d.Size += b.Size
	}
	if len(doc.Blobs) == 0 {
		d.Kind = doc.ArtifactType
		return nil
	}
	config, layers := doc.Blobs[0], doc.Blobs[1:]
	for _, l := range layers {
		d.Layers = append(d.Layers, Layer{Digest: l.Digest, MediaType: l.MediaType, Size: l.Size})
	}
	// An image has no artifact type of its own: Parse gives it that of its config.
	if doc.ArtifactType != "" && doc.ArtifactType != config.MediaType || !imageConfigs[config.MediaType] {
		if d.Kind = doc.ArtifactType; d.Kind == "" {
			d.Kind = config.MediaType
		}
		return nil
	}
	d.Kind = "image"
	img, err := readConfig(ctx, s, config)
	if err != nil || img == nil {
		return err
	}
	d.Config, d.History = img, img.History
	p := Platform{Name: platformName(img.Platform), Digest: of, Size: d.Size}
	d.Platforms, d.Chosen = []Platform{p}, p
	nameLayers(d.Layers, img.History)
	return nil
}

// nameLayers tells for each layer which step made it: the steps that are not empty, in order. Where their number is another
// the history is not to be trusted and tells nothing.
func nameLayers(layers []Layer, history []ocispec.History) {
	var made []ocispec.History
	for _, h := range history {
		if !h.EmptyLayer {
			made = append(made, h)
		}
	}
	if len(made) != len(layers) {
		return
	}
	for i, h := range made {
		layers[i].CreatedBy, layers[i].Created = h.CreatedBy, h.Created
	}
}

// readConfig reads an image's config; nil when it is not here, too large, or no config.
func readConfig(ctx context.Context, s *storage.Store, desc ocispec.Descriptor) (*ocispec.Image, error) {
	if desc.Size > maxConfig {
		return nil, nil
	}
	c, err := s.Blob(ctx, desc.Digest)
	if fault.Is(err, fault.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer c.Body.Close()
	data, err := io.ReadAll(io.LimitReader(c.Body, maxConfig))
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "read config %s", desc.Digest)
	}
	var img ocispec.Image
	if json.Unmarshal(data, &img) != nil {
		return nil, nil
	}
	return &img, nil
}

// sizeOf adds up what an image of an index weighs; 0 when it is not here.
func sizeOf(ctx context.Context, s *storage.Store, repository string, d digest.Digest) int64 {
	r, err := s.Record(ctx, repository, string(d))
	if err != nil {
		return 0
	}
	var n int64
	for _, b := range r.Blobs {
		n += b.Size
	}
	return n
}

// platformName writes a platform as people type it. arm64 has one variant only, which nobody writes.
func platformName(p ocispec.Platform) string {
	parts := []string{p.OS, p.Architecture}
	if p.Variant != "" && !(p.Architecture == "arm64" && p.Variant == "v8") {
		parts = append(parts, p.Variant)
	}
	return strings.Map(printable, strings.Join(parts, "/"))
}
