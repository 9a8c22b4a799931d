package git

import (
	"net/url"
	"path"
	"regexp"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/gitutil"
	"github.com/moby/buildkit/util/sshutil"
	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/build/graph"
)

// repository is what a vertex asks for.
type repository struct {
	remote   string
	ref      string // "" is the default branch
	subdir   string // "" is everything
	checksum string // beginning of the commit's name, which the build insists on; or ""

	keepDir      bool // .git stays
	noSubmodules bool
	byCommit     bool // fetch the checksum; the ref is only what it is called
	commitTimes  bool // files get the commit's time
	tokenSecret  string
	headerSecret string
	sshID        string // of the client's agent; "" does without
	knownHosts   string
	signature    *signature
	advice       bool
	bundle       *bundle // where its objects come from; nil: the remote
	asBundle     bool    // the checkout is a bundle

	have *unpacked // the bundle, where somebody has it at hand

	of *repository // what this is a submodule of, however deep; nil: the build names it itself
}

// signature says how a version must be signed.
type signature struct {
	key           []byte
	rejectExpired bool
	requireTag    bool
	ignoreTag     bool
}

// scheme begins a git source's identifier.
const scheme = "git://"

var hex = regexp.MustCompile(`^[a-fA-F0-9]+$`)

// parse reads a source's identifier (git://host/path#ref:subdir) and attributes.
func parse(identifier string, attrs map[string]string) (*repository, error) {
	rest, ok := strings.CutPrefix(identifier, scheme)
	if !ok {
		return nil, fault.New(fault.Invalid, "%q is no git source", identifier)
	}
	u, err := parseURL(rest)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "git source %q", graph.Redact(rest))
	}
	if u.Host == "" {
		return nil, fault.New(fault.Invalid, "git source %q names no host", graph.Redact(rest))
	}
	r := &repository{remote: u.Remote}
	if u.Opts != nil {
		r.ref, r.subdir = u.Opts.Ref, strings.TrimPrefix(path.Join("/", u.Opts.Subdir), "/")
	}
	for k, v := range attrs {
		is := v == "true"
		switch k {
		case pb.AttrFullRemoteURL:
			full, err := parseURL(v)
			if err != nil {
				return nil, fault.New(fault.Invalid, "failed to parse git.fullurl")
			}
			if !strings.EqualFold(u.Host, full.Host) || repoPath(u.Path) != repoPath(full.Path) {
				return nil, fault.New(fault.Invalid, "git.fullurl does not match source identifier")
			}
			r.remote = remoteOf(full, u.Path)
		case pb.AttrKeepGitDir:
			r.keepDir = is
		case pb.AttrAuthHeaderSecret:
			r.headerSecret = v
		case pb.AttrAuthTokenSecret:
			r.tokenSecret = v
		case pb.AttrKnownSSHHosts:
			r.knownHosts = v
		case pb.AttrMountSSHSock:
			r.sshID = v
		case pb.AttrGitChecksum:
			r.checksum = v
		case pb.AttrGitSkipSubmodules:
			r.noSubmodules = is
		case pb.AttrGitMTime:
			if v != "" && v != "checkout" && v != "commit" {
				return nil, fault.New(fault.Invalid, "invalid git.mtime %q", v)
			}
			r.commitTimes = v == "commit"
		case pb.AttrGitFetchByCommit:
			r.byCommit = is
		case pb.AttrGitAdvice:
			r.advice = is
		case pb.AttrGitSignatureVerifyPubKey:
			r.sign().key = []byte(v)
		case pb.AttrGitSignatureVerifyRejectExpired:
			r.sign().rejectExpired = is
		case pb.AttrGitSignatureVerifyRequireSignedTag:
			r.sign().requireTag = is
		case pb.AttrGitSignatureVerifyIgnoreSignedTag:
			r.sign().ignoreTag = is
		case pb.AttrGitCheckoutBundle:
			r.asBundle = is
		}
	}
	if r.bundle, err = parseBundle(attrs); err != nil {
		return nil, err
	}
	return r, r.check()
}

// Canonical gives a git source's identifier in the one way to write it, which policies are to look at: a part of a path that leads up and
// down again would hide what is meant. What is no git source stays as it is.
func Canonical(identifier string) string {
	rest, ok := strings.CutPrefix(identifier, scheme)
	if !ok {
		return identifier
	}
	u, err := parseURL(rest)
	if err != nil || u.Host == "" {
		return identifier
	}
	c := scheme + u.Host + path.Join("/", u.Path)
	if u.Opts == nil || u.Opts.Ref == "" && u.Opts.Subdir == "" {
		return c
	}
	c += "#" + u.Opts.Ref
	if u.Opts.Subdir != "" {
		c += ":" + u.Opts.Subdir
	}
	return c
}

func (r *repository) sign() *signature {
	if r.signature == nil {
		r.signature = &signature{}
	}
	return r.signature
}

// check refuses what git could take for something else, and what contradicts itself.
func (r *repository) check() error {
	if err := checkRef(r.ref); err != nil {
		return err
	}
	if strings.HasPrefix(r.remote, "-") || strings.ContainsAny(r.remote, "\n\r\x00") {
		return fault.New(fault.Invalid, "invalid git remote %q", graph.Redact(r.remote))
	}
	if strings.ContainsRune(r.subdir, 0) {
		return fault.New(fault.Invalid, "invalid subdir %q", r.subdir)
	}
	if r.checksum != "" && !hex.MatchString(r.checksum) {
		return fault.New(fault.Invalid, "invalid checksum %s for Git URL, expected hex commit hash", r.checksum)
	}
	if gitutil.IsCommitSHA(r.ref) && !strings.HasPrefix(r.ref, r.checksum) {
		return fault.New(fault.Invalid, "expected checksum to match %s, got %s", r.checksum, r.ref)
	}
	switch {
	case r.bundle != nil && r.checksum == "":
		return fault.New(fault.Invalid, "git.bundle requires git.checksum to be set")
	case r.bundle != nil && !gitutil.IsCommitSHA(r.checksum):
		return fault.New(fault.Invalid, "git.bundle requires a full commit SHA checksum, got %q", r.checksum)
	case r.asBundle && r.keepDir:
		return fault.New(fault.Invalid, "git.checkoutbundle is incompatible with git.keepgitdir")
	case r.asBundle && r.subdir != "":
		return fault.New(fault.Invalid, "git.checkoutbundle is incompatible with git.subdir")
	}
	if r.byCommit && !gitutil.IsCommitSHA(r.ref) {
		if r.checksum == "" {
			return fault.New(fault.Invalid, "fetch-by-commit requires a checksum or a commit SHA ref")
		}
		if !gitutil.IsCommitSHA(r.checksum) {
			return fault.New(fault.Invalid, "fetch-by-commit requires a full commit SHA checksum, got %q", r.checksum)
		}
	}
	return nil
}

// checkRef refuses what is no name of a ref; git's own rules (git-check-ref-format(1)) are stricter.
func checkRef(ref string) error {
	if strings.HasPrefix(ref, "-") || len(ref) > 1024 || strings.ContainsFunc(ref, func(c rune) bool {
		return c <= ' ' || c == 0x7f || strings.ContainsRune(`~^:?*[\`, c)
	}) || strings.Contains(ref, "..") || strings.Contains(ref, "@{") {
		return fault.New(fault.Invalid, "invalid git ref %q", ref)
	}
	return nil
}

// parseURL reads an address; one without a protocol is https.
func parseURL(s string) (*gitutil.GitURL, error) {
	if !gitutil.IsGitTransport(s) {
		s = "https://" + s
	}
	return gitutil.ParseURL(s)
}

func repoPath(p string) string { return strings.TrimSuffix(path.Join("/", p), ".git") }

// remoteOf gives full with the identifier's path: the address that the key was made from, with the full one's protocol and user.
func remoteOf(full *gitutil.GitURL, p string) string {
	p = path.Join("/", p)
	if !strings.HasPrefix(strings.ToLower(full.Remote), full.Scheme+"://") { // user@host:path
		if !strings.HasPrefix(full.Path, "/") {
			p = strings.TrimPrefix(p, "/")
		}
		return (&sshutil.SCPStyleURL{User: full.User, Host: full.Host, Path: p}).String()
	}
	return (&url.URL{Scheme: full.Scheme, User: full.User, Host: full.Host, Path: p}).String()
}

// key names the checkout of a version. The remote does not count, unless it is written into what is checked out: a commit's name
// stands for its content, wherever it comes from.
func (r *repository) key(commit, ref string) digest.Digest {
	parts := []string{"berth git checkout 1", commit, r.subdir}
	if r.keepDir {
		parts = append(parts, "keep", r.plainRemote(), ref)
	}
	if r.noSubmodules {
		parts = append(parts, "no submodules")
	}
	if r.commitTimes {
		parts = append(parts, "commit times")
	}
	if r.asBundle {
		parts = append(parts, "bundle", bundleRef(r.ref))
	}
	if s := r.signature; s != nil {
		parts = append(parts, "signed", string(s.key))
	}
	return digest.FromString(strings.Join(parts, "\x00"))
}

// bundleKey tells what a ref means in a bundle from what it means at the remote.
func (r *repository) bundleKey() string {
	if r.bundle == nil {
		return ""
	}
	return r.bundle.locator + " " + r.checksum
}

// plainRemote is the remote without names and passwords.
func (r *repository) plainRemote() string { return graph.Redact(r.remote) }

// uri is the source as provenance tells it.
func (r *repository) uri() string {
	if r.ref == "" {
		return r.plainRemote()
	}
	return r.plainRemote() + "#" + r.ref
}
