package transfer

import (
	"encoding/json"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/base/ref"
	"berth/image"
)

// Media types of Docker's, for which the OCI packages have no names.
const (
	typeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	typeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	typeDockerConfig   = "application/vnd.docker.container.image.v1+json"
	typeDockerPlugin   = "application/vnd.docker.plugin.v1+json"
	typeDockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	typeSchema1        = "application/vnd.docker.distribution.manifest.v1+json"
	typeSchema1Signed  = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	typeHelmConfig     = "application/vnd.cncf.helm.config.v1+json"
)

// Bounds of what a registry may make us read and keep.
const (
	configMax      = 16 << 20 // bytes of a configuration
	layersMax      = 1024     // of a manifest; the store takes no more than 125
	manifestsMax   = 4096     // that an index with all in it names
	indexDepth     = 8        // indexes in indexes
	indexReadsMax  = 32       // inner indexes that are read
	attestationMax = 32 << 20 // bytes of the attestations kept with an image
)

// Annotations by which BuildKit marks attestations.
const (
	annotationReferenceType   = "vnd.docker.reference.type"
	annotationReferenceDigest = "vnd.docker.reference.digest"
	attestationManifest       = "attestation-manifest"
)

// document is a manifest or an index: Manifests tells which.
type document struct {
	desc      ocispec.Descriptor // by which it was had; MediaType is set
	raw       []byte
	Config    *ocispec.Descriptor
	Layers    []ocispec.Descriptor
	Manifests []ocispec.Descriptor // not nil: an index
	artifact  string               // artifactType, or ""
}

// parseDocument reads a manifest or an index from outside. Errors are Invalid, and in Docker's words where it has some.
// A document must not be readable as both: whoever signed one reading of it did not sign the other.
func parseDocument(d ocispec.Descriptor, raw []byte, name ref.Ref) (*document, error) {
	if d.MediaType == typeSchema1 || d.MediaType == typeSchema1Signed {
		return nil, schema1(name)
	}
	var f struct {
		SchemaVersion int                   `json:"schemaVersion"`
		MediaType     string                `json:"mediaType"`
		ArtifactType  string                `json:"artifactType"`
		Config        *ocispec.Descriptor   `json:"config"`
		Layers        []ocispec.Descriptor  `json:"layers"`
		FSLayers      json.RawMessage       `json:"fsLayers"`
		Manifests     *[]ocispec.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "manifest %s is malformed", d.Digest)
	}
	if f.SchemaVersion == 1 || f.FSLayers != nil {
		return nil, schema1(name)
	}
	if f.SchemaVersion != 2 {
		return nil, fault.New(fault.Invalid, "manifest %s has the unknown schema version %d", d.Digest, f.SchemaVersion)
	}
	doc := &document{desc: d, raw: raw, artifact: f.ArtifactType}
	if doc.desc.MediaType = mediaType(d.MediaType, f.MediaType, f.Manifests != nil); f.MediaType != "" && known(d.MediaType) && f.MediaType != d.MediaType {
		return nil, fault.New(fault.Invalid, "manifest %s was announced as %s and says that it is %s", d.Digest, d.MediaType, f.MediaType)
	}
	if f.Manifests != nil && (f.Config != nil || f.Layers != nil) {
		return nil, fault.New(fault.Invalid, "manifest %s is both a manifest and an index", d.Digest)
	}
	switch doc.desc.MediaType {
	case ocispec.MediaTypeImageIndex, typeDockerList:
		if f.Config != nil || f.Layers != nil {
			return nil, fault.New(fault.Invalid, "manifest %s is announced as an index and is none", d.Digest)
		}
		doc.Manifests = []ocispec.Descriptor{}
		if f.Manifests != nil {
			doc.Manifests = *f.Manifests
		}
		if len(doc.Manifests) > manifestsMax {
			return nil, fault.New(fault.Invalid, "index %s names more than %d manifests", d.Digest, manifestsMax)
		}
		return doc, checkAll(d, doc.Manifests)
	case ocispec.MediaTypeImageManifest, typeDockerManifest:
		if f.Manifests != nil {
			return nil, fault.New(fault.Invalid, "manifest %s is announced as a manifest and is an index", d.Digest)
		}
	default:
		return nil, fault.New(fault.Invalid, "unsupported manifest media type %q and no default available", doc.desc.MediaType)
	}
	if f.Config == nil {
		return nil, fault.New(fault.Invalid, "manifest %s has no configuration", d.Digest)
	}
	doc.Config, doc.Layers = f.Config, f.Layers
	if len(doc.Layers) > layersMax {
		return nil, fault.New(fault.Invalid, "manifest %s has more than %d layers", d.Digest, layersMax)
	}
	return doc, checkAll(d, append([]ocispec.Descriptor{*doc.Config}, doc.Layers...))
}

// mediaType is what a document is: as announced where that is a type we know, else as it says, else as it looks.
// Registries that know nothing answer application/json or text/plain.
func mediaType(announced, said string, index bool) string {
	switch {
	case known(announced):
		return announced
	case said != "":
		return said
	case index:
		return ocispec.MediaTypeImageIndex
	}
	return ocispec.MediaTypeImageManifest
}

func known(mediaType string) bool {
	switch mediaType {
	case ocispec.MediaTypeImageIndex, typeDockerList, ocispec.MediaTypeImageManifest, typeDockerManifest:
		return true
	}
	return false
}

// checkAll refuses descriptors that cannot be fetched: digests become paths and sizes become limits.
func checkAll(of ocispec.Descriptor, list []ocispec.Descriptor) error {
	for _, d := range list {
		if err := d.Digest.Validate(); err != nil {
			return fault.Wrap(fault.Invalid, err, "manifest %s names %q", of.Digest, d.Digest)
		}
		if a := d.Digest.Algorithm(); a != digest.SHA256 && a != digest.SHA512 {
			return fault.New(fault.Invalid, "manifest %s names %s: only sha256 and sha512 are known", of.Digest, d.Digest)
		}
		if d.Size < 0 {
			return fault.New(fault.Invalid, "manifest %s says that %s has %d bytes", of.Digest, d.Digest, d.Size)
		}
	}
	return nil
}

// schema1 is the refusal of manifests from before 2016, in Docker's words.
func schema1(name ref.Ref) error {
	return fault.New(fault.Invalid, "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been removed. "+
		"Suggest the author of %s to upgrade the image to the OCI Format or Docker Image manifest v2, schema 2. "+
		"More information at https://docs.docker.com/go/deprecated-image-specs/", name)
}

// isIndex reports whether a descriptor says that it is one of an index.
func isIndex(d ocispec.Descriptor) bool {
	return d.MediaType == ocispec.MediaTypeImageIndex || d.MediaType == typeDockerList
}

// isAttestation reports descriptors of what BuildKit puts beside images.
func isAttestation(d ocispec.Descriptor) bool {
	return d.Annotations[annotationReferenceType] == attestationManifest ||
		d.Platform != nil && d.Platform.OS == "unknown" && d.Platform.Architecture == "unknown"
}

// checkImage refuses manifests of something else than an image, as Docker does.
func (doc *document) checkImage() error {
	class := ""
	switch t := doc.Config.MediaType; {
	case t == ocispec.MediaTypeImageConfig, t == typeDockerConfig:
		return nil
	case t == "application/octet-stream", t == "application/json", t == "text/html", t == "":
		return nil // of ancient docker pushes and of Quay
	case t == typeDockerPlugin:
		class = "plugin"
	case t == typeHelmConfig:
		class = "helm chart"
	default:
		class = "unknown"
	}
	return fault.New(fault.Invalid, "Encountered remote %q(%s) when fetching", doc.Config.MediaType, class)
}

// compression is how people call a layer's blob in a plan.
func compression(mediaType string) string {
	switch {
	case strings.HasSuffix(mediaType, "gzip"):
		return "gzip"
	case strings.HasSuffix(mediaType, "zstd"):
		return "zstd"
	case strings.HasSuffix(mediaType, ".tar"):
		return "tar"
	}
	return mediaType
}

// distributable reports whether a layer may be uploaded to any registry.
func distributable(mediaType string) bool {
	return !strings.Contains(mediaType, "nondistributable") && !strings.Contains(mediaType, "rootfs.foreign.diff")
}

// attached is a document in the image room's words.
func attached(d ocispec.Descriptor, raw []byte) *image.Attached {
	return &image.Attached{Descriptor: image.DescriptorOf(d), Content: raw}
}

// short is a digest as Docker's progress lines have it.
func short(d digest.Digest) string {
	hex := d.Encoded()
	return hex[:min(12, len(hex))]
}
