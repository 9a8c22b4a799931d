package remotecache

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/base/ref"
	"berth/build/session"
	"berth/image"
	"berth/image/remote"
)

// manifestKey is the key under which the client is told what was published: it notes it in its directory's index.
const manifestKey = "cache.manifest"

// shape is how a table is published: as an image manifest, or as an index.
type shape struct {
	index bool
	oci   bool
}

func parseShape(attrs map[string]string) (s shape, err error) {
	s.oci = true
	if v, ok := attrs["oci-mediatypes"]; ok {
		if s.oci, err = parseBool("oci-mediatypes", v); err != nil {
			return s, err
		}
	}
	s.index = !s.oci
	if v, ok := attrs["image-manifest"]; ok {
		manifest, err := parseBool("image-manifest", v)
		if err != nil {
			return s, err
		}
		if manifest && !s.oci {
			return s, fault.New(fault.Invalid, "invalid configuration for remote cache: OCI mediatypes are required for image-manifest cache format")
		}
		s.index = !manifest
	}
	return s, nil
}

// documents gives the configuration and the manifest that a table is published as.
func (s shape) documents(doc *document) (config, manifest []byte, desc, manifestDesc ocispec.Descriptor, err error) {
	if config, err = json.Marshal(doc); err != nil {
		return
	}
	desc = ocispec.Descriptor{MediaType: configType, Digest: digest.FromBytes(config), Size: int64(len(config))}
	version := specs.Versioned{SchemaVersion: 2}
	blobs := doc.descriptors()
	if s.index {
		mediaType := ocispec.MediaTypeImageIndex
		if !s.oci {
			mediaType = "application/vnd.docker.distribution.manifest.list.v2+json"
		}
		manifest, err = json.Marshal(ocispec.Index{Versioned: version, MediaType: mediaType, Manifests: append(blobs, desc)})
		manifestDesc.MediaType = mediaType
	} else {
		if blobs == nil {
			blobs = []ocispec.Descriptor{}
		}
		manifest, err = json.Marshal(ocispec.Manifest{Versioned: version, MediaType: ocispec.MediaTypeImageManifest, Config: desc, Layers: blobs})
		manifestDesc.MediaType = ocispec.MediaTypeImageManifest
	}
	manifestDesc.Digest, manifestDesc.Size = digest.FromBytes(manifest), int64(len(manifest))
	return
}

// registryPlace is a tag at a registry.
type registryPlace struct {
	n     ref.Ref
	repo  *remote.Repository
	shape shape
}

// checkPlace reads the attributes of a place without asking anybody.
func (c *Caches) checkPlace(kind string, attrs map[string]string) error {
	_, err := parseShape(attrs)
	if err != nil {
		return err
	}
	switch kind {
	case "registry":
		_, err = parseRef(attrs)
	case "local":
		if attrs["dest"] == "" {
			err = fault.New(fault.Invalid, "local cache exporter requires dest")
		}
	case "s3":
		_, err = c.openS3(attrs)
	}
	return err
}

func parseRef(attrs map[string]string) (ref.Ref, error) {
	if attrs["ref"] == "" {
		return ref.Ref{}, fault.New(fault.Invalid, "missing ref: the registry cache is type=registry,ref=HOST/NAME:TAG")
	}
	n, err := ref.Parse(attrs["ref"])
	if err != nil {
		return n, err
	}
	if n.Digest == "" {
		n = n.WithDefaultTag()
	}
	return n, nil
}

func (c *Caches) openRegistry(ctx context.Context, attrs map[string]string, sessionID string) (place, error) {
	n, err := parseRef(attrs)
	if err != nil {
		return nil, err
	}
	p := &registryPlace{n: n}
	if p.shape, err = parseShape(attrs); err != nil {
		return nil, err
	}
	var cred remote.Credentials
	if sessionID != "" {
		if cred, err = c.cfg.Sessions.Credentials(ctx, session.NewGroup(sessionID), n.Domain); err != nil {
			return nil, fault.In(err, "credentials for %s", n.Domain)
		}
	}
	client := c.cfg.Remote
	if v, ok := attrs["registry.insecure"]; ok {
		insecure, err := parseBool("registry.insecure", v)
		if err != nil {
			return nil, err
		}
		if insecure {
			if client, err = remote.New(remote.Config{Insecure: []string{n.Domain}, Log: c.log}); err != nil {
				return nil, err
			}
		}
	}
	p.repo = client.Repository(n, cred)
	return p, nil
}

func (p *registryPlace) name() string { return p.n.String() }

// tag is what the table is published under.
func (p *registryPlace) tag() string {
	if p.n.Digest != "" {
		return string(p.n.Digest)
	}
	return p.n.Tag
}

// table finds a table: published alone, or in the image that the tag names, of any of its platforms.
func (p *registryPlace) table(ctx context.Context) (*document, error) {
	got, err := p.repo.Manifest(ctx, p.tag())
	if err != nil {
		return nil, err
	}
	return p.read(ctx, got, 0)
}

// anyManifest is a manifest or an index.
type anyManifest struct {
	Config    *ocispec.Descriptor  `json:"config"`
	Layers    []ocispec.Descriptor `json:"layers"`
	Manifests []ocispec.Descriptor `json:"manifests"`
}

// platformsMax bounds the images of an index that are asked for an inline cache.
const platformsMax = 50

func (p *registryPlace) read(ctx context.Context, got *remote.Document, depth int) (*document, error) {
	var m anyManifest
	if err := json.Unmarshal(got.Content, &m); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "manifest %s", got.Digest)
	}
	if m.Config != nil {
		raw, err := p.blob(ctx, *m.Config)
		if err != nil {
			return nil, err
		}
		if m.Config.MediaType == configType {
			return parseDocument(raw)
		}
		return parseInline(raw, m.Layers)
	}
	var all *document
	for i, d := range m.Manifests {
		if d.MediaType == configType {
			raw, err := p.blob(ctx, d)
			if err != nil {
				return nil, err
			}
			return parseDocument(raw)
		}
		image := strings.Contains(d.MediaType, "manifest") && (d.Platform == nil || d.Platform.OS != "unknown")
		if !image || i >= platformsMax || depth > 0 {
			continue
		}
		sub, err := p.repo.Manifest(ctx, string(d.Digest))
		if err != nil {
			return nil, err
		}
		one, err := p.read(ctx, sub, depth+1)
		switch {
		case fault.Is(err, fault.NotFound):
		case err != nil:
			return nil, err
		case all == nil:
			all = one
		default:
			all.join(one)
		}
	}
	if all == nil {
		return nil, fault.New(fault.NotFound, "there is no cache in %s", p.n)
	}
	return all, nil
}

// blob reads a document, verified.
func (p *registryPlace) blob(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	r, err := p.repo.Blob(ctx, d, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return readVerified(r, d)
}

// readVerified reads a document that a digest names.
func readVerified(r io.Reader, d ocispec.Descriptor) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, documentMax+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > documentMax || digest.FromBytes(raw) != d.Digest {
		return nil, fault.New(fault.Invalid, "%s is something else than its digest says, or larger than %d bytes", d.Digest, documentMax)
	}
	return raw, nil
}

func (p *registryPlace) publish(ctx context.Context, doc *document) (map[string]string, error) {
	config, manifest, desc, mdesc, err := p.shape.documents(doc)
	if err != nil {
		return nil, err
	}
	if err := p.put(ctx, desc, bytesFrom(config)); err != nil {
		return nil, err
	}
	if _, err := p.repo.PushManifest(ctx, p.tag(), mdesc.MediaType, manifest); err != nil {
		return nil, err
	}
	raw, err := json.Marshal(mdesc)
	return map[string]string{manifestKey: string(raw)}, err
}

func bytesFrom(b []byte) func(offset int64) (io.ReadCloser, error) {
	return func(offset int64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b[min(offset, int64(len(b))):])), nil
	}
}

func (p *registryPlace) has(ctx context.Context, d ocispec.Descriptor) (bool, error) {
	_, there, err := p.repo.HasBlob(ctx, d.Digest)
	return there, err
}

func (p *registryPlace) put(ctx context.Context, d ocispec.Descriptor, open func(offset int64) (io.ReadCloser, error)) error {
	return p.repo.PushBlob(ctx, ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}, open)
}

func (p *registryPlace) get(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	return p.repo.Blob(ctx, d, 0)
}

func (p *registryPlace) mount(ctx context.Context, d ocispec.Descriptor, from []image.Source) bool {
	for _, s := range from {
		n, err := ref.Parse(s.Repository)
		if err != nil || n.Domain != p.n.Domain || n.Path == p.n.Path || s.Descriptor.Digest != d.Digest {
			continue
		}
		if ok, err := p.repo.Mount(ctx, d.Digest, n.Path); ok && err == nil {
			return true
		}
	}
	return false
}

func (p *registryPlace) source(d ocispec.Descriptor) *image.Source {
	return &image.Source{Repository: p.n.Repository(), Descriptor: ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}}
}
