package policy

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
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

// File is a Verifier that reads its file of rules, and the keys that it names, again for every image: a change holds for
// the next pull. While the file cannot be read nothing is accepted.
type File struct{ path string }

// Open reads a file of rules for the first time, to tell of mistakes at once. Errors are Invalid.
func Open(path string) (File, error) {
	_, err := Load(path)
	return File{path}, err
}

// Verify checks the image that a name stands for at a repository.
func (f File) Verify(ctx context.Context, name ref.Ref, root ocispec.Descriptor, at *remote.Repository) error {
	p, err := Load(f.path)
	if err != nil {
		return fault.In(err, "image %s cannot be checked", name)
	}
	return Verifier{p}.Verify(ctx, name, root, at)
}

// Rule gives the rule that is going to be applied, as plans print it.
func (f File) Rule(name ref.Ref) string {
	p, err := Load(f.path)
	if err != nil {
		return err.Error()
	}
	return Verifier{p}.Rule(name)
}
