package policy

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/sigstore/timestamp-authority/v2/pkg/verification"
)

// stampers are authorities that sign when they have seen something (RFC 3161).
type stampers struct {
	own            *x509.Certificate // the authority's own; nil: the stamp has it
	between, roots []*x509.Certificate
}

// parseStampers reads an authority's certificates: its own, if it is there, those between, and its roots.
func parseStampers(text []byte) (*stampers, error) {
	s := &stampers{}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		switch {
		case err != nil:
			return nil, err
		case c.CheckSignatureFrom(c) == nil:
			s.roots = append(s.roots, c)
		case c.IsCA:
			s.between = append(s.between, c)
		case s.own != nil:
			return nil, errors.New("two certificates of authorities: one for each file")
		default:
			s.own = c
		}
	}
	if len(s.roots) == 0 {
		return nil, errors.New("no root certificate in PEM")
	}
	return s, nil
}

// check gives when the authority has seen a signature, by the first stamp that is right.
func (s *stampers) check(stamps [][]byte, signature []byte) (time.Time, error) {
	if len(stamps) == 0 {
		return time.Time{}, errors.New("it has no time stamp")
	}
	var failed error
	for _, stamp := range stamps[:min(len(stamps), 8)] {
		t, err := verification.VerifyTimestampResponse(stamp, bytes.NewReader(signature),
			verification.VerifyOpts{TSACertificate: s.own, Intermediates: s.between, Roots: s.roots})
		if err == nil {
			return t.Time, nil
		}
		failed = err
	}
	return time.Time{}, fmt.Errorf("its time stamp: %v", failed)
}
