package git

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/gitutil"
	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/build/session"
	"berth/kernel/tree"
)

// A bundle (git-bundle(1)) is a repository in a file. One that a registry or the client's layout has as a blob stands in for the remote: the
// commit that the build insists on is taken from it, and the remote is not asked. What is checked out may be a bundle too, with the one commit,
// and as a blob pushed by another step it is what a later build begins with.

// bundle is a blob with a bundle.
type bundle struct {
	locator string            // docker-image+blob://REF@DIGEST or oci-layout+blob://STORE@DIGEST
	attrs   map[string]string // of the blob as a source of its own
	digest  digest.Digest
}

// Blobs reads blobs. It is *blob.Blobs.
type Blobs interface {
	// Read gives use the bytes of a blob that an operation of a build names. Nobody has verified them.
	Read(ctx context.Context, op *pb.SourceOp, g session.Group, use func(body io.Reader) error) error
}

// Schemes of blobs.
const (
	registryBlob = "docker-image+blob"
	layoutBlob   = "oci-layout+blob"
)

// bundleName is what a bundle is called that is checked out.
const bundleName = "bundle"

// bundleMax is how large a bundle may be, in bytes.
const bundleMax = 64 << 30

// parseBundle reads where a bundle is; nil: there is none.
func parseBundle(attrs map[string]string) (*bundle, error) {
	text := attrs[pb.AttrGitBundle]
	if text == "" {
		return nil, nil
	}
	scheme, body, ok := strings.Cut(text, "://")
	if !ok {
		return nil, fault.New(fault.Invalid, "failed to parse git.bundle locator %q: missing scheme", text)
	}
	if scheme != registryBlob && scheme != layoutBlob {
		return nil, fault.New(fault.Invalid, "git.bundle locator scheme %q is not supported; expected %q or %q", scheme, registryBlob, layoutBlob)
	}
	where, d, _ := strings.Cut(body, "@")
	b := &bundle{locator: text, digest: digest.Digest(d)}
	if err := b.digest.Validate(); err != nil || where == "" {
		return nil, fault.New(fault.Invalid, "failed to parse git.bundle locator %q: invalid digest", text)
	}
	if b.digest.Algorithm() != digest.SHA256 {
		return nil, fault.New(fault.Invalid, "git.bundle locator %q: digest algorithm %q not supported, expected %q", text, b.digest.Algorithm(), digest.SHA256)
	}
	if scheme == layoutBlob {
		b.attrs = map[string]string{pb.AttrOCILayoutStoreID: where}
		for _, k := range []string{pb.AttrOCILayoutSessionID, pb.AttrOCILayoutStoreID} {
			if v := attrs[k]; v != "" {
				b.attrs[k] = v
			}
		}
	}
	return b, nil
}

// Bundle gives the blob that a git source takes its objects from as a source of its own, for policies to look at; nil: there is none.
func Bundle(op *pb.SourceOp) (*pb.SourceOp, error) {
	if !strings.HasPrefix(op.GetIdentifier(), scheme) {
		return nil, nil
	}
	b, err := parseBundle(op.GetAttrs())
	if b == nil {
		return nil, err
	}
	return b.op(), nil
}

// WithBundle is a git source with another blob.
func WithBundle(op, blob *pb.SourceOp) *pb.SourceOp {
	out := op.CloneVT()
	out.Attrs[pb.AttrGitBundle] = blob.Identifier
	for _, k := range []string{pb.AttrOCILayoutSessionID, pb.AttrOCILayoutStoreID} {
		delete(out.Attrs, k)
		if v, ok := blob.Attrs[k]; ok {
			out.Attrs[k] = v
		}
	}
	return out
}

func (b *bundle) op() *pb.SourceOp { return &pb.SourceOp{Identifier: b.locator, Attrs: b.attrs} }

// bundleRef is what the tip is called in a bundle: what the build calls it, as a branch unless that says it is a tag.
func bundleRef(ref string) string {
	switch {
	case ref == "" || gitutil.IsCommitSHA(ref):
		return "refs/heads/main"
	case strings.HasPrefix(ref, "refs/tags/"):
		return ref
	}
	return "refs/heads/" + strings.TrimPrefix(strings.TrimPrefix(ref, "refs/"), "heads/")
}

// unpacked is a repository of ours with what a bundle holds.
type unpacked struct {
	dir  string // of ours
	repo string
}

// unpack fetches the bundle, verifies it, and unpacks it below a directory of ours. done removes it.
func (s *Source) unpack(ctx context.Context, r *repository, g session.Group, log io.Writer) (u *unpacked, done func(), err error) {
	if s.cfg.Blobs == nil {
		return nil, nil, fault.New(fault.NotImplemented, "git bundles are not supported")
	}
	if err := os.MkdirAll(s.cfg.Root, 0o700); err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp(s.cfg.Root, "bundle-")
	if err != nil {
		return nil, nil, err
	}
	remove := func() { _ = os.RemoveAll(dir) }
	defer func() {
		if err != nil {
			remove()
		}
	}()
	u = &unpacked{dir: dir, repo: filepath.Join(dir, "repo")}
	file := filepath.Join(dir, "bundle")
	if err := s.download(ctx, r.bundle, g, file); err != nil {
		return nil, nil, fault.In(err, "failed to fetch git bundle %s", r.bundle.locator)
	}
	p, err := s.git(ctx)
	if err != nil {
		return nil, nil, err
	}
	p.dir, p.writable, p.log = dir, []string{dir}, log
	if _, err := p.quiet().run(ctx, initArgs(&version{object: r.checksum}, "--bare", "--", u.repo)...); err != nil {
		return nil, nil, err
	}
	p.gitDir = u.repo
	heads, err := p.run(ctx, "bundle", "unbundle", file)
	if err != nil {
		return nil, nil, fault.Wrap(fault.Invalid, err, "failed to import git bundle %s", r.bundle.locator)
	}
	refs, err := packedRefs(heads)
	if err != nil {
		return nil, nil, err
	}
	if err := os.WriteFile(filepath.Join(u.repo, "packed-refs"), []byte(refs), 0o600); err != nil {
		return nil, nil, err
	}
	if _, err := p.quiet().run(ctx, "cat-file", "-e", r.checksum+"^{commit}"); err != nil {
		return nil, nil, fault.New(fault.NotFound, "commit %s not found in bundle %s", r.checksum, r.bundle.locator)
	}
	// BuildKit makes bundles of a commit without its history, which git itself refuses to fetch from: it is told where history ends.
	if _, err := p.quiet().run(ctx, "rev-list", "--quiet", r.checksum); err != nil {
		if err := os.WriteFile(filepath.Join(u.repo, "shallow"), []byte(r.checksum+"\n"), 0o600); err != nil {
			return nil, nil, err
		}
	}
	// A commit that is no tip is wanted too, and it is asked for by its name.
	_, err = p.run(ctx, "config", "uploadpack.allowAnySHA1InWant", "true")
	return u, remove, err
}

// packedRefs makes a file of refs (gitrepository-layout(5)) of what "git bundle unbundle" prints.
func packedRefs(heads string) (string, error) {
	var b strings.Builder
	for line := range strings.Lines(heads) {
		object, ref, ok := strings.Cut(strings.TrimRight(line, "\n"), " ")
		if !ok || ref == "HEAD" {
			continue
		}
		if !gitutil.IsCommitSHA(object) || !strings.HasPrefix(ref, "refs/") || checkRef(ref) != nil {
			return "", fault.New(fault.Invalid, "a git bundle has the ref %q", shorten(line))
		}
		b.WriteString(object + " " + ref + "\n")
	}
	return b.String(), nil
}

// download writes the bundle into a file, and verifies it.
func (s *Source) download(ctx context.Context, b *bundle, g session.Group, file string) error {
	return s.cfg.Blobs.Read(ctx, b.op(), g, func(body io.Reader) error {
		f, err := os.Create(file) // a second try begins anew
		if err != nil {
			return err
		}
		defer f.Close()
		sum := b.digest.Algorithm().Digester()
		n, err := io.Copy(io.MultiWriter(f, sum.Hash()), io.LimitReader(body, bundleMax+1))
		switch {
		case err != nil:
			return err
		case n > bundleMax:
			return fault.New(fault.Invalid, "the bundle is larger than %d bytes", int64(bundleMax))
		case sum.Digest() != b.digest:
			return fault.New(fault.Invalid, "expected checksum to match %s, got %s", b.digest, sum.Digest())
		}
		return f.Close()
	})
}

// local makes a program that knows a remote one that fetches from what was unpacked, and from nowhere else.
func (u *unpacked) local(p *program) *program {
	q := *p
	q.local, q.remote, q.config, q.sshSock, q.known = true, "file://"+u.repo, nil, "", ""
	q.readable = []string{u.repo}
	return &q
}

// askBundle finds what the ref means in the bundle, and brings that version into the mirror while the bundle is here. Without a ref, or with a
// commit's name for one, the checksum says it all.
func (s *Source) askBundle(ctx context.Context, r *repository, g session.Group, log io.Writer) (*version, error) {
	if r.ref == "" || gitutil.IsCommitSHA(r.ref) {
		return &version{ref: r.checksum, object: r.checksum}, nil
	}
	u, done, err := s.unpack(ctx, r, g, log)
	if err != nil {
		return nil, err
	}
	defer done()
	p, err := s.git(ctx)
	if err != nil {
		return nil, err
	}
	p = u.local(p)
	out, err := p.run(ctx, "ls-remote", "--", "origin", r.ref, r.ref+"^{}")
	if err != nil {
		return nil, err
	}
	v, err := choose(out, r.ref)
	if err != nil {
		return nil, err
	}
	if err := v.insist(r.checksum); err != nil {
		return nil, err
	}
	with := *r
	with.have = u
	m, err := s.mirrored(ctx, &with, v, g, log)
	if err != nil {
		return nil, err
	}
	m.unlock()
	return v, nil
}

// fetchBundle brings a version from the bundle into the mirror that p works on.
func (s *Source) fetchBundle(ctx context.Context, p *program, r *repository, v *version, g session.Group) error {
	u := r.have
	if u == nil {
		var done func()
		var err error
		if u, done, err = s.unpack(ctx, r, g, p.log); err != nil {
			return err
		}
		defer done()
	}
	return shallow(ctx, u.local(p), v.object)
}

// writeBundle writes the version as a bundle into the work tree.
func (c *checkingOut) writeBundle(ctx context.Context, r *repository, v *version) error {
	m, err := c.s.mirrored(ctx, r, v, c.g, c.log)
	if err != nil {
		return err
	}
	defer m.unlock()
	dir, err := os.MkdirTemp(m.dir, "git-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	p, err := c.s.mirrorGit(ctx, m)
	if err != nil {
		return err
	}
	p.log, p.gitDir, p.dir, p.writable = c.log, filepath.Join(dir, "repo"), dir, []string{dir}
	if _, err := p.quiet().run(ctx, initArgs(v, "--bare", "--", p.gitDir)...); err != nil {
		return err
	}
	if err := c.deepen(ctx, r, v, m); err != nil {
		return err
	}
	p.remote = "file://" + m.repo
	ref, file := bundleRef(r.ref), filepath.Join(dir, "bundle")
	if _, err := p.run(ctx, "fetch", "--quiet", "--no-write-fetch-head", "--no-tags", "--update-shallow", "--", "origin", "+"+keptRefs+v.object+":"+ref); err != nil {
		return err
	}
	if _, err := p.run(ctx, "bundle", "create", "--quiet", file, ref); err != nil {
		return err
	}
	from, err := os.Open(file)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := c.work.Create(bundleName, 0o644)
	if err != nil {
		return err
	}
	defer to.Close()
	if _, err := io.Copy(to, from); err != nil {
		return err
	}
	return to.Chtimes(tree.Time{}, tree.Time{})
}

// deepen brings the history of a version into its mirror: nobody can clone from a bundle without it.
func (c *checkingOut) deepen(ctx context.Context, r *repository, v *version, m *mirror) error {
	if _, err := os.Stat(filepath.Join(m.repo, "shallow")); err != nil || r.bundle != nil {
		return nil // it has it, or the bundle has not either
	}
	p, done, err := c.s.connect(ctx, r, c.g, c.log)
	if err != nil {
		return err
	}
	defer done()
	p.gitDir, p.dir, p.writable = m.repo, m.dir, []string{m.dir}
	args := []string{"fetch", "--no-tags", "--force", "--no-write-fetch-head", "--unshallow", "--", "origin"}
	_, err = p.run(ctx, append(args, "+"+v.object+":"+fetchedRef)...)
	if refusesObjects(err) {
		_, err = p.run(ctx, append(args, "+refs/heads/*:"+everything+"heads/*", "+refs/tags/*:"+everything+"tags/*")...)
	}
	return fault.Wrap(fault.Unavailable, err, "failed to fetch the history of %s", r.plainRemote())
}
