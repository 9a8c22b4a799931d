package storage

import (
	"bytes"
	"encoding/json"
	"mime"
	"regexp"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
)

// MaxManifest is the largest manifest that is accepted, in bytes: what the distribution spec asks registries to take at least.
const MaxManifest = 4 << 20

// The media types of manifests that are taken apart. Docker's are those of its schema 2.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerSchema1  = "application/vnd.docker.distribution.manifest.v1+json"
	dockerSigned   = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	dockerForeign  = "application/vnd.docker.image.rootfs.foreign.diff.tar"
	ociForeign     = "application/vnd.oci.image.layer.nondistributable."
)

var typeGrammar = regexp.MustCompile(`^application/[a-zA-Z0-9!#$&^_.+-]{1,127}$`) // RFC 6838 section 4.2

// Document is a manifest that was parsed and found to be one.
type Document struct {
	MediaType    string
	ArtifactType string
	Subject      *ocispec.Descriptor
	Blobs        []ocispec.Descriptor // config and layers
	Manifests    []ocispec.Descriptor // of an index
	Annotations  map[string]string
}

// raw is every field of every kind of manifest that matters here. Pointers tell absent from empty.
type raw struct {
	SchemaVersion int                   `json:"schemaVersion"`
	MediaType     string                `json:"mediaType"`
	ArtifactType  string                `json:"artifactType"`
	Config        *ocispec.Descriptor   `json:"config"`
	Layers        *[]ocispec.Descriptor `json:"layers"`
	Blobs         *[]ocispec.Descriptor `json:"blobs"` // of the artifact manifest that image-spec 1.1 had for a while
	Manifests     *[]ocispec.Descriptor `json:"manifests"`
	FSLayers      *json.RawMessage      `json:"fsLayers"` // of schema 1
	Subject       *ocispec.Descriptor   `json:"subject"`
	Annotations   map[string]string     `json:"annotations"`
}

// Parse reads a manifest. contentType is what the client calls it, "" when it does not say. Errors are Invalid: no JSON, no manifest,
// one thing by one name and another by another, a digest or size that cannot be.
func Parse(contentType string, content []byte) (*Document, error) {
	if len(content) > MaxManifest {
		return nil, fault.New(fault.Invalid, "manifest is larger than %d bytes", MaxManifest)
	}
	var m raw
	if err := json.Unmarshal(content, &m); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "manifest is no JSON")
	}
	if t := bytes.TrimLeft(content, " \t\r\n"); len(t) == 0 || t[0] != '{' {
		return nil, fault.New(fault.Invalid, "manifest is no JSON object")
	}
	if err := ambiguous(content); err != nil {
		return nil, err
	}
	kind, err := m.kind(contentType)
	if err != nil {
		return nil, err
	}
	doc := &Document{MediaType: kind, ArtifactType: m.ArtifactType, Subject: m.Subject, Annotations: m.Annotations}
	switch {
	case m.Manifests != nil:
		doc.Manifests = *m.Manifests
	case m.Config != nil:
		doc.Blobs = append(doc.Blobs, *m.Config)
		if doc.ArtifactType == "" {
			doc.ArtifactType = m.Config.MediaType // image-spec 1.1, "Guidelines for artifact usage"
		}
		if m.Layers != nil {
			doc.Blobs = append(doc.Blobs, *m.Layers...)
		}
	case m.Blobs != nil:
		doc.Blobs = *m.Blobs
	}
	return doc, doc.check()
}

// kind decides what the manifest is and that its name and its fields agree.
func (m *raw) kind(contentType string) (string, error) {
	named := ""
	if contentType != "" {
		t, _, err := mime.ParseMediaType(contentType)
		if err != nil {
			return "", fault.New(fault.Invalid, "content type %q is none", shorten(contentType))
		}
		named = t
	}
	generic := named == "" || named == "application/json" || named == "application/octet-stream"
	if !generic && m.MediaType != "" && !strings.EqualFold(m.MediaType, named) {
		return "", fault.New(fault.Invalid, "content type is %s, manifest says %s", shorten(named), shorten(m.MediaType))
	}
	kind := named
	if m.MediaType != "" {
		kind = m.MediaType
	} else if generic {
		kind = m.guess()
	}
	image := m.Config != nil && m.Layers != nil
	switch {
	case kind == dockerSchema1 || kind == dockerSigned || m.FSLayers != nil:
		return "", fault.New(fault.Invalid, "manifests of schema 1 are not supported: push with a newer client")
	case m.Manifests != nil && (m.Config != nil || m.Layers != nil):
		// One document must not be two things to two readers (CVE-2021-41190).
		return "", fault.New(fault.Invalid, "manifest has both layers and manifests")
	case kind == ocispec.MediaTypeImageIndex || kind == dockerList:
		if m.Manifests == nil {
			return "", fault.New(fault.Invalid, "index has no manifests")
		}
	case kind == ocispec.MediaTypeImageManifest || kind == dockerManifest:
		if !image {
			return "", fault.New(fault.Invalid, "manifest has no config or no layers")
		}
	case kind == "":
		return "", fault.New(fault.Invalid, "manifest says no media type")
	case !typeGrammar.MatchString(kind):
		// It comes back as Content-Type to whoever asks, browsers among them.
		return "", fault.New(fault.Invalid, "%q is no media type of a manifest", shorten(kind))
	case !image && m.Manifests == nil && m.Blobs == nil:
		return "", fault.New(fault.Invalid, "manifest of media type %s has nothing in it that this registry knows", shorten(kind))
	}
	if kind != "application/vnd.oci.artifact.manifest.v1+json" && m.SchemaVersion != 2 {
		return "", fault.New(fault.Invalid, "manifest has schemaVersion %d, want 2", m.SchemaVersion)
	}
	return kind, nil
}

// guess names what a client sent without a useful content type.
func (m *raw) guess() string {
	switch {
	case m.Manifests != nil:
		return ocispec.MediaTypeImageIndex
	case m.Config != nil && m.Layers != nil:
		return ocispec.MediaTypeImageManifest
	}
	return ""
}

func (d *Document) check() error {
	all := append(append([]ocispec.Descriptor{}, d.Blobs...), d.Manifests...)
	if d.Subject != nil {
		all = append(all, *d.Subject)
	}
	for _, ref := range all {
		if err := ref.Digest.Validate(); err != nil {
			return fault.New(fault.Invalid, "manifest names %q, which is no digest", shorten(string(ref.Digest)))
		}
		if ref.Size < 0 {
			return fault.New(fault.Invalid, "manifest says that %s has %d bytes", ref.Digest, ref.Size)
		}
	}
	return nil
}

// foreign reports whether a blob may be missing here: it lies elsewhere, at its URLs.
func (d *Document) foreign(b ocispec.Descriptor) bool {
	return len(b.URLs) > 0 || strings.HasPrefix(b.MediaType, dockerForeign) || strings.HasPrefix(b.MediaType, ociForeign)
}

func (d *Document) record(dg digest.Digest, size int64) Record {
	r := Record{Digest: dg, MediaType: d.MediaType, Size: size, At: time.Now().UTC(), ArtifactType: d.ArtifactType}
	if d.Subject != nil {
		r.Subject = d.Subject.Digest
	}
	seen := map[digest.Digest]bool{}
	add := func(to *[]Reference, ds []ocispec.Descriptor) {
		for _, x := range ds {
			if !seen[x.Digest] {
				seen[x.Digest] = true
				*to = append(*to, Reference{MediaType: x.MediaType, Digest: x.Digest, Size: x.Size})
			}
		}
	}
	add(&r.Blobs, d.Blobs)
	add(&r.Manifests, d.Manifests)
	return r
}

// referrer is how the manifest stands in its subject's list.
func (d *Document) referrer(r Record) ocispec.Descriptor {
	desc := r.Descriptor()
	desc.ArtifactType, desc.Annotations = d.ArtifactType, d.Annotations
	return desc
}
