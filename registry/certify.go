package registry

import (
	"context"
	"errors"
	"io"
	"net/url"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/base/ref"
	"berth/image/policy"
	"berth/registry/catalog"
	"berth/registry/storage"
)

// certifier says under which policy a repository's newest image is signed.
type certifier struct {
	store  *storage.Store
	files  []*policyFile // asked in order
	domain string        // the registry's name, which patterns of the policies begin with
}

// policyFile is a file of rules, which is read again when it has changed. Only the catalog's one reader asks it.
type policyFile struct {
	path   string
	seen   os.FileInfo
	policy *policy.Policy
}

// read gives the file's rules as they are now. A file that has become wrong is an error, not the rules of before.
func (f *policyFile) read() (*policy.Policy, error) {
	info, err := os.Stat(f.path)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "image policy")
	}
	if f.seen != nil && os.SameFile(info, f.seen) && info.ModTime().Equal(f.seen.ModTime()) && info.Size() == f.seen.Size() {
		return f.policy, nil
	}
	p, err := policy.Load(f.path)
	if err != nil {
		return nil, err
	}
	f.policy, f.seen = p, info
	return p, nil
}

// openCertifier reads the policies; nil when there are none.
func (r *Registry) openCertifier() (func(ctx context.Context, repository string) (string, bool, error), error) {
	if r.cfg.Around.Certify != nil || len(r.cfg.Around.Policies) == 0 {
		return r.cfg.Around.Certify, nil
	}
	c := &certifier{store: r.store, domain: "localhost"}
	if u, err := url.Parse(r.url()); err == nil && u.Host != "" {
		c.domain = u.Host
	}
	for _, path := range r.cfg.Around.Policies {
		f := &policyFile{path: path}
		if _, err := f.read(); err != nil {
			return nil, err
		}
		c.files = append(c.files, f)
	}
	return c.certify, nil
}

// certify asks the policies in turn. Only a rule that wants signatures certifies: what is merely accepted is not certified.
func (c *certifier) certify(ctx context.Context, repository string) (string, bool, error) {
	tags, err := catalog.TagsOf(ctx, c.store, repository)
	if err != nil || len(tags) == 0 {
		return "", false, err
	}
	newest := tags[0]
	name := ref.Ref{Domain: c.domain, Path: repository, Tag: newest.Name, Digest: newest.Digest}
	var failed error
	for _, f := range c.files {
		p, err := f.read()
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		v, err := p.Check(ctx, name, newest.Digest, shelf{c.store, repository})
		switch {
		case err == nil && len(v.By) > 0:
			return p.Name, true, nil
		case err != nil && !fault.Is(err, fault.Forbidden):
			failed = errors.Join(failed, err)
		}
	}
	return "", false, failed
}

// shelf is a repository as a policy looks for signatures in it.
type shelf struct {
	store      *storage.Store
	repository string
}

// Manifest gives a manifest by tag or digest.
func (s shelf) Manifest(ctx context.Context, tagOrDigest string) ([]byte, error) {
	m, err := s.store.Manifest(ctx, s.repository, tagOrDigest)
	if err != nil {
		return nil, err
	}
	return m.Content, nil
}

// Blob gives a blob.
func (s shelf) Blob(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	c, err := s.store.RepositoryBlob(ctx, s.repository, d.Digest)
	if err != nil {
		return nil, err
	}
	return c.Body, nil
}

// Referrers lists what refers to a manifest.
func (s shelf) Referrers(ctx context.Context, d digest.Digest) ([]ocispec.Descriptor, error) {
	return s.store.Referrers(ctx, s.repository, d, "")
}
