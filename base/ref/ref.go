package ref

import (
	_ "crypto/sha256" // go-digest knows an algorithm only where its package is linked
	_ "crypto/sha512"
	"path"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/base/id"
)

const (
	// DefaultDomain is the registry that a name without one means.
	DefaultDomain = "docker.io"
	// DefaultTag is the tag that a name without tag and digest means.
	DefaultTag = "latest"
)

// Ref names an image in a repository. The zero Ref names nothing.
type Ref struct {
	Domain string // registry's host and port: docker.io
	Path   string // library/busybox
	Tag    string // "" when not given
	Digest digest.Digest
}

// Parse reads a reference as a person types it. No tag is added: see WithDefaultTag.
// Errors are Invalid and in Docker's words ("invalid reference format: …").
func Parse(s string) (Ref, error) {
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return Ref{}, fault.Wrap(fault.Invalid, err, "")
	}
	r := Ref{Domain: reference.Domain(named), Path: reference.Path(named)}
	if t, ok := named.(reference.Tagged); ok {
		r.Tag = t.Tag()
	}
	if d, ok := named.(reference.Digested); ok {
		r.Digest = d.Digest()
	}
	return r, nil
}

// ParseTagged reads a reference that is going to be given to an image: without tag it means :latest, and a
// digest is refused, because only content has one.
func ParseTagged(s string) (Ref, error) {
	r, err := Parse(s)
	if err != nil {
		return Ref{}, err
	}
	if r.Digest != "" {
		return Ref{}, fault.New(fault.Invalid, "refusing to create a tag with a digest reference")
	}
	return r.WithDefaultTag(), nil
}

// IsZero reports whether r names nothing.
func (r Ref) IsZero() bool { return r == Ref{} }

// IsNameOnly reports whether r has neither tag nor digest.
func (r Ref) IsNameOnly() bool { return r.Tag == "" && r.Digest == "" }

// Repository gives the full name without tag and digest: docker.io/library/busybox.
func (r Ref) Repository() string { return r.Domain + "/" + r.Path }

// FamiliarName gives the name without tag and digest as people see it: busybox.
func (r Ref) FamiliarName() string {
	if r.Domain != DefaultDomain {
		return r.Repository()
	}
	if rest, ok := strings.CutPrefix(r.Path, "library/"); ok && !strings.Contains(rest, "/") {
		return rest
	}
	return r.Path
}

// String gives the full form: docker.io/library/busybox:latest@sha256:….
func (r Ref) String() string { return r.Repository() + r.suffix() }

// Familiar gives the form that people see: busybox:latest.
func (r Ref) Familiar() string { return r.FamiliarName() + r.suffix() }

func (r Ref) suffix() string {
	s := ""
	if r.Tag != "" {
		s = ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest.String()
	}
	return s
}

// WithDefaultTag adds :latest to a reference that has neither tag nor digest.
func (r Ref) WithDefaultTag() Ref {
	if r.IsNameOnly() {
		r.Tag = DefaultTag
	}
	return r
}

// WithTag gives the repository with another tag and no digest.
func (r Ref) WithTag(tag string) (Ref, error) {
	named, err := reference.WithName(r.Repository())
	if err != nil {
		return Ref{}, fault.Wrap(fault.Invalid, err, "")
	}
	if _, err := reference.WithTag(named, tag); err != nil {
		return Ref{}, fault.Wrap(fault.Invalid, err, "")
	}
	return Ref{Domain: r.Domain, Path: r.Path, Tag: tag}, nil
}

// WithDigest gives the repository with the digest and no tag.
func (r Ref) WithDigest(d digest.Digest) Ref {
	return Ref{Domain: r.Domain, Path: r.Path, Digest: d}
}

// Match reports whether a pattern of path.Match fits the familiar form, with or without tag, as the
// "reference" filter of docker images does.
func (r Ref) Match(pattern string) (bool, error) {
	ok, err := path.Match(pattern, r.Familiar())
	if err != nil {
		return false, fault.New(fault.Invalid, "invalid filter 'reference=%s': %v", pattern, err)
	}
	if !ok {
		ok, _ = path.Match(pattern, r.FamiliarName())
	}
	return ok, nil
}

// LooksLikeID gives the digest or hex prefix that s could stand for: "sha256:…" whole or a prefix of its hex
// part. A text of hex digits alone can be a name too ("beef"): owners try names first unless it is a full id.
func LooksLikeID(s string) (hexPrefix string, ok bool) {
	s = strings.TrimPrefix(s, "sha256:")
	if len(s) > id.Len || !id.IsHex(s) {
		return "", false
	}
	return s, true
}
