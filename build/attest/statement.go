package attest

import (
	"encoding/json"
	"strings"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/package-url/packageurl-go"

	"berth/base/fault"
	"berth/base/ref"
)

// Types of in-toto documents.
const (
	StatementType = "https://in-toto.io/Statement/v1"
	PayloadType   = "application/vnd.in-toto+json"
	SPDX          = "https://spdx.dev/Document" // predicate type of a bill of materials
)

// Statement says that a predicate holds for subjects (in-toto attestation framework, statement v1).
type Statement struct {
	Type          string          `json:"_type"`
	PredicateType string          `json:"predicateType"`
	Subject       []Subject       `json:"subject"`
	Predicate     json.RawMessage `json:"predicate"`
}

// Subject is something that a statement speaks of.
type Subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"` // by algorithm, in hex
}

// ImageSubject is an image under one of its names.
func ImageSubject(n ref.Ref, p *ocispec.Platform, manifest digest.Digest) (Subject, error) {
	name, err := PackageURL(packageurl.TypeDocker, n.String(), p)
	return Subject{Name: name, Digest: map[string]string{manifest.Algorithm().String(): manifest.Encoded()}}, err
}

// PackageURL names an image as a package: pkg:docker/NAME@TAG?digest=…&platform=….
func PackageURL(kind, name string, p *ocispec.Platform) (string, error) {
	n, err := ref.Parse(name)
	if err != nil {
		return "", fault.In(err, "failed to parse ref %q", name)
	}
	var qualifiers packageurl.Qualifiers
	if n.Digest != "" {
		qualifiers = append(qualifiers, packageurl.Qualifier{Key: "digest", Value: string(n.Digest)})
	} else {
		n = n.WithDefaultTag()
	}
	if p != nil {
		qualifiers = append(qualifiers, packageurl.Qualifier{Key: "platform", Value: platforms.Format(platforms.Normalize(*p))})
	}
	space, last := "", n.FamiliarName()
	if i := strings.LastIndexByte(last, '/'); i >= 0 {
		space, last = last[:i], last[i+1:]
	}
	return packageurl.NewPackageURL(kind, space, last, n.Tag, qualifiers, "").ToString(), nil
}
