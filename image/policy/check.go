package policy

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/base/ref"
)

// Source is where an image and its signatures are. Errors are NotFound for what is not there.
type Source interface {
	// Manifest gives a manifest by tag or digest.
	Manifest(ctx context.Context, tagOrDigest string) ([]byte, error)
	// Blob gives a blob.
	Blob(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error)
	// Referrers lists what refers to a manifest.
	Referrers(ctx context.Context, d digest.Digest) ([]ocispec.Descriptor, error)
}

// Verdict is why an image is accepted.
type Verdict struct {
	Rule *Rule
	By   []string // signers whose signatures counted
}

// Check decides about the image that a name stands for. root is what the name was resolved to: an index or a manifest; a
// signature must be over just that. Errors are Forbidden and name the rule with its line, or tell that the source could
// not be asked: what could not be checked is not accepted.
func (p *Policy) Check(ctx context.Context, name ref.Ref, root digest.Digest, src Source) (Verdict, error) {
	r := p.Rule(name)
	v := Verdict{Rule: r}
	no := func(format string, args ...any) (Verdict, error) {
		text := fmt.Sprintf(format, args...)
		if r.Reason != "" {
			text += ": " + r.Reason
		}
		return Verdict{}, fault.New(fault.Forbidden, "image %s is not allowed by the image policy (%s): %s", name, r.place(), text)
	}
	switch r.Action {
	case Accept:
		return v, nil
	case Reject:
		return no("rejected")
	}
	if r.Pinned && name.Digest == "" {
		return no("the name must have a digest: %s", name.WithDigest(root))
	}
	if len(r.Digests) > 0 && !slices.Contains(r.Digests, root) {
		return no("%s is none of the %d digests that are allowed", root, len(r.Digests))
	}
	if len(r.Signers) == 0 {
		return v, nil
	}
	found, err := find(ctx, src, root)
	if err != nil {
		return Verdict{}, fault.In(err, "image %s: look for signatures (%s)", name, r.place())
	}
	var refused []string
	for _, signer := range r.Signers {
		if why, ok := signer.among(found, name, root); ok {
			v.By = append(v.By, signer.String())
		} else {
			refused = append(refused, why...)
		}
	}
	switch {
	case len(v.By) >= r.Need:
		return v, nil
	case len(found) == 0:
		return no("%s is not signed; wanted is %s", root, strings.TrimPrefix(r.say(), "require "))
	case len(v.By) > 0:
		return no("%s is signed by %s; wanted are %d of %d (%s)", root, strings.Join(v.By, ", "), r.Need, len(r.Signers), few(refused))
	}
	return no("no signature of %s counts (%s)", root, few(refused))
}

// few leaves of many reasons as much as a person reads.
func few(reasons []string) string {
	const most = 6
	if n := len(reasons) - most; n > 0 {
		reasons = append(slices.Clone(reasons[:most]), fmt.Sprintf("and %d more", n))
	}
	return strings.Join(reasons, "; ")
}

// among looks for a signature of the signer, and says why each of the others does not count.
func (s Signer) among(found []candidate, name ref.Ref, root digest.Digest) (why []string, ok bool) {
	for _, c := range found {
		err := c.problem
		if err == nil {
			err = s.check(c, name, root)
		}
		if err == nil {
			return nil, true
		}
		why = append(why, fmt.Sprintf("%s, for %s: %v", c.where, s, err))
	}
	return why, false
}

// check says why a signature is not the signer's of the image.
func (s Signer) check(c candidate, name ref.Ref, root digest.Digest) error {
	if err := c.about(s, name, root); err != nil {
		return err
	}
	key, cert := s.key, (*x509.Certificate)(nil)
	if s.Identity != nil {
		if c.cert == nil {
			return errors.New("it has no certificate")
		}
		key, cert = c.cert.PublicKey, c.cert
	}
	if !verify(key, c.message, c.signature) {
		return errors.New("the signature is wrong")
	}
	at, err := s.when(c, statement{c.signature, der(key, cert), c.message, c.payload})
	if err != nil || s.Identity == nil {
		return err
	}
	return s.Identity.vouches(c.cert, c.chain, at)
}

// when gives the time by which the signature was there, by what the signer's logs and authorities have signed of it; now, where there
// are none.
func (s Signer) when(c candidate, what statement) (time.Time, error) {
	var at time.Time
	if s.logs == nil && s.stampers == nil {
		return time.Now(), nil
	}
	if s.logs != nil {
		if c.entry == nil {
			return at, errors.New("it has no entry of a transparency log")
		}
		var err error
		if at, err = s.logs.check(c.entry, what); err != nil {
			return at, err
		}
	}
	if s.stampers != nil {
		return s.stampers.check(c.stamps, c.signature)
	}
	if at.IsZero() && s.Identity != nil {
		return at, errors.New("its log does not sign the time, and no authority of time stamps is given: nothing tells whether the certificate was valid")
	}
	return at, nil
}
