package policy

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/ref"
	"berth/image/remote"
)

// Verifier asks a policy before a pulled image gets its name. It is transfer's Verifier and Ruler.
type Verifier struct{ Policy *Policy }

// Verify checks the image that a name stands for at a repository.
func (v Verifier) Verify(ctx context.Context, name ref.Ref, root ocispec.Descriptor, at *remote.Repository) error {
	_, err := v.Policy.Check(ctx, name, root.Digest, Remote{at})
	return err
}

// Rule gives the rule that is going to be applied, as plans print it.
func (v Verifier) Rule(name ref.Ref) string { return v.Policy.Rule(name).String() }

// Remote is the Source of a repository at a registry.
type Remote struct{ *remote.Repository }

// Manifest fetches a manifest.
func (r Remote) Manifest(ctx context.Context, tagOrDigest string) ([]byte, error) {
	d, err := r.Repository.Manifest(ctx, tagOrDigest)
	if err != nil {
		return nil, err
	}
	return d.Content, nil
}

// Blob fetches a blob.
func (r Remote) Blob(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	return r.Repository.Blob(ctx, d, 0)
}

// Referrers lists what refers to a manifest.
func (r Remote) Referrers(ctx context.Context, d digest.Digest) ([]ocispec.Descriptor, error) {
	return r.Repository.Referrers(ctx, d, "")
}
