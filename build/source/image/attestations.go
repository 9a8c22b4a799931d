package image

import (
	"context"
	"encoding/json"
	"io"
	"slices"

	"github.com/moby/buildkit/client/llb/sourceresolver"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/build/session"
	"berth/image/remote"
)

// What is read of attestations is looked at by a policy, in memory.
const (
	maxBlob  = 8 << 20
	maxChain = 64 << 20
)

const (
	annotationPredicate = "in-toto.io/predicate-type"
	typeSigstoreBundle  = "application/vnd.dev.sigstore.bundle.v0.3+json"
	typeCosignSignature = "application/vnd.dev.cosign.artifact.sig.v1+json"
)

// attestations gives what stands beside the image at its registry, for policies: the index, the manifest of the attestations, a signature of
// it, and of the attestations those of the types that are asked for. An image without an index has none.
func (m *Images) attestations(ctx context.Context, res *resolved, want *sourceresolver.ResolveImageOpt, group session.Group) (*sourceresolver.AttestationChain, error) {
	if res.plan == nil {
		var err error
		if res, err = m.remote(ctx, res.name, res.platform, group); err != nil {
			return nil, err
		}
	}
	plan := res.plan
	if plan == nil || plan.Root.MediaType != ocispec.MediaTypeImageIndex {
		return nil, nil
	}
	c := chain{repo: plan.Repository(), left: maxChain, AttestationChain: sourceresolver.AttestationChain{
		Root: plan.Root.Digest, ImageManifest: plan.Manifest.Digest, Blobs: map[digest.Digest]sourceresolver.Blob{},
	}}
	for _, d := range plan.Documents() {
		if d.Digest == c.Root {
			c.Blobs[d.Digest] = sourceresolver.Blob{Descriptor: plan.Root, Data: d.Content}
		}
	}
	if len(plan.Attestations) == 0 {
		return &c.AttestationChain, nil
	}
	about := plan.Attestations[0]
	c.AttestationManifest = about.Digest
	doc, err := c.manifest(ctx, about)
	if err != nil {
		return nil, err
	}
	for _, l := range doc.Layers {
		if slices.Contains(want.ResolveAttestations, l.Annotations[annotationPredicate]) {
			if err := c.blob(ctx, l); err != nil {
				return nil, err
			}
		}
	}
	return &c.AttestationChain, c.signature(ctx, about.Digest)
}

// chain is an attestation chain that is being read.
type chain struct {
	sourceresolver.AttestationChain
	repo *remote.Repository
	left int64 // bytes
}

// signature adds one signature of a manifest with its parts, a bundle where there is one.
func (c *chain) signature(ctx context.Context, of digest.Digest) error {
	list, err := c.repo.Referrers(ctx, of, "")
	if err != nil {
		if fault.Is(err, fault.NotFound) {
			return nil
		}
		return fault.In(err, "signatures of %s", of)
	}
	for _, kind := range []string{typeSigstoreBundle, typeCosignSignature} {
		at := slices.IndexFunc(list, func(d ocispec.Descriptor) bool { return d.ArtifactType == kind })
		if at < 0 {
			continue
		}
		doc, err := c.manifest(ctx, list[at])
		if err != nil {
			return err
		}
		c.SignatureManifests = []digest.Digest{list[at].Digest}
		for _, l := range doc.Layers {
			if err := c.blob(ctx, l); err != nil {
				return err
			}
		}
		return nil
	}
	return nil
}

func (c *chain) manifest(ctx context.Context, d ocispec.Descriptor) (*ocispec.Manifest, error) {
	got, err := c.repo.Manifest(ctx, string(d.Digest))
	if err != nil {
		return nil, err
	}
	if err := c.add(d, got.Content); err != nil {
		return nil, err
	}
	var doc ocispec.Manifest
	if err := json.Unmarshal(got.Content, &doc); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "manifest %s", d.Digest)
	}
	return &doc, nil
}

func (c *chain) blob(ctx context.Context, d ocispec.Descriptor) error {
	if err := d.Digest.Validate(); err != nil || d.Size < 0 || d.Size > maxBlob {
		return fault.New(fault.Invalid, "attestation %q of %d bytes", d.Digest, d.Size)
	}
	body, err := c.repo.Blob(ctx, d, 0)
	if err != nil {
		return err
	}
	defer body.Close()
	raw, err := io.ReadAll(io.LimitReader(body, maxBlob+1))
	if err != nil {
		return err
	}
	if d.Digest.Algorithm().FromBytes(raw) != d.Digest {
		return fault.New(fault.Invalid, "attestation %s is not what its digest says", d.Digest)
	}
	return c.add(d, raw)
}

func (c *chain) add(d ocispec.Descriptor, raw []byte) error {
	if c.left -= int64(len(raw)); c.left < 0 {
		return fault.New(fault.Invalid, "the attestations have more than %d bytes", maxChain)
	}
	c.Blobs[d.Digest] = sourceresolver.Blob{Descriptor: d, Data: raw}
	return nil
}
