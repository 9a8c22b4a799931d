package image

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/base/ref"
)

// Media types of what nobody wrote an OCI constant for.
const (
	dockerManifestType = "application/vnd.docker.distribution.manifest.v2+json"
	dockerListType     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfigType   = "application/vnd.docker.container.image.v1+json"
	dockerLayerType    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// Descriptor names a document in the blob store.
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       digest.Digest     `json:"digest"`
	Size         int64             `json:"size"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Platform     *Platform         `json:"platform,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	URLs         []string          `json:"urls,omitempty"` // where else it can be had: foreign layers
}

// maxManifest bounds manifests and indexes, as registries do.
const maxManifest = 4 << 20

// ociManifest is a manifest or an index: which one the media type or the fields tell.
type ociManifest struct {
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType"`
	Config       *Descriptor       `json:"config"`
	Layers       []Descriptor      `json:"layers"`
	Manifests    []Descriptor      `json:"manifests"`
	Annotations  map[string]string `json:"annotations"`
}

func blobPath(d digest.Digest) string {
	return "blobs/" + d.Algorithm().String() + "/" + d.Encoded()
}

// nameOf reads an image's name from a descriptor's annotations: containerd's full one, or the OCI reference name where it
// is more than a tag.
func nameOf(annotations map[string]string) ref.Ref {
	for _, key := range []string{"io.containerd.image.name", ocispec.AnnotationRefName} {
		v := annotations[key]
		if key == ocispec.AnnotationRefName && !strings.ContainsAny(v, ":/") {
			continue
		}
		if n, err := ref.ParseTagged(v); v != "" && err == nil {
			return n
		}
	}
	return ref.Ref{}
}

// attestation reports descriptors of what buildx puts beside images: not for any platform.
func attestation(d Descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] == "attestation-manifest" ||
		d.Platform != nil && d.Platform.OS == "unknown" && d.Platform.Architecture == "unknown"
}

func isImageConfig(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageConfig || mediaType == dockerConfigType || mediaType == ""
}

// parseManifest reads a manifest or an index from outside. What could be read as either is refused: two programs would see two
// images in it (CVE-2021-41190).
func parseManifest(raw []byte) (*ociManifest, error) {
	var m ociManifest
	if len(raw) > maxManifest {
		return nil, fault.New(fault.Invalid, "invalid manifest: %d bytes, more than %d", len(raw), maxManifest)
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "invalid manifest")
	}
	isIndex := m.MediaType == dockerListType || m.MediaType == ocispec.MediaTypeImageIndex
	isManifest := m.MediaType == dockerManifestType || m.MediaType == ocispec.MediaTypeImageManifest
	switch {
	case m.Manifests != nil && (m.Config != nil || m.Layers != nil):
		return nil, fault.New(fault.Invalid, "invalid manifest: both a manifest and an index")
	case isIndex && (m.Config != nil || m.Layers != nil), isManifest && m.Manifests != nil:
		return nil, fault.New(fault.Invalid, "invalid manifest: its media type is %s, and it is none", m.MediaType)
	case len(m.Manifests) > indexMembersMax, len(m.Layers) > indexMembersMax:
		return nil, fault.New(fault.Invalid, "invalid manifest: more than %d entries", indexMembersMax)
	}
	if isIndex && m.Manifests == nil {
		m.Manifests = []Descriptor{}
	}
	all := slices.Concat(m.Layers, m.Manifests)
	if m.Config != nil {
		all = append(all, *m.Config)
	}
	for _, d := range all {
		if err := d.Digest.Validate(); err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "invalid manifest: digest %q", shorten(string(d.Digest)))
		}
		if d.Size < 0 {
			return nil, fault.New(fault.Invalid, "invalid manifest: %s has a size of %d bytes", d.Digest, d.Size)
		}
	}
	return &m, nil
}

// shorten cuts a text from outside for a message.
func shorten(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}

// attestsDigest is the annotation by which buildx tells what a manifest attests.
const attestsDigest = "vnd.docker.reference.digest"

// OCI gives the descriptor in the image spec's type.
func (d Descriptor) OCI() ocispec.Descriptor {
	out := ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, ArtifactType: d.ArtifactType, Annotations: d.Annotations, URLs: d.URLs}
	if p := d.Platform; p != nil {
		out.Platform = &ocispec.Platform{Architecture: p.Architecture, OS: p.OS, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures, Variant: p.Variant}
	}
	return out
}

// DescriptorOf is the opposite of OCI.
func DescriptorOf(d ocispec.Descriptor) Descriptor {
	out := Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, ArtifactType: d.ArtifactType, Annotations: d.Annotations, URLs: d.URLs}
	if d.Platform != nil {
		p := fromOCI(*d.Platform)
		out.Platform = &p
	}
	return out
}
