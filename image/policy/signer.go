package policy

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512" // crypto.SHA384 and SHA512 are known only where it is linked
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"time"
)

// Signer is who may have signed.
type Signer struct {
	Key       string    // as the file calls it; "" for an identity
	Identity  *Identity // nil for a key
	Predicate string    // type of the attestation that counts as a signature; "" means cosign's own of a signature
	Reference bool      // the payload must name the image's repository: a signature for one is none for a copy in another

	key  any
	logs logs // the signature must stand in one of these transparency logs; none: it need not

	stampers *stampers // who must have signed when the signature was there; nil: nobody
}

// String names the signer.
func (s Signer) String() string {
	if s.Identity == nil {
		return "key " + s.Key
	}
	subject := s.Identity.Subject
	if s.Identity.match != nil {
		subject = s.Identity.match.String()
	}
	return fmt.Sprintf("%s (of %s)", subject, s.Identity.Issuer)
}

// Identity is whom a certificate is for.
type Identity struct {
	Issuer  string // who vouched for the subject: https://accounts.example
	Subject string // a name of the certificate, as it stands there; "" where an expression matches it

	match          *regexp.Regexp
	roots, between *x509.CertPool
}

// parseKeys reads public keys and keys of certificates, PEM.
func parseKeys(text []byte) ([]any, error) {
	var keys []any
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		var key any
		var err error
		switch block.Type {
		case "PUBLIC KEY":
			key, err = x509.ParsePKIXPublicKey(block.Bytes)
		case "RSA PUBLIC KEY":
			key, err = x509.ParsePKCS1PublicKey(block.Bytes)
		default:
			err = fmt.Errorf("PEM block %q is no public key", block.Type)
		}
		if err == nil {
			err = strong(key)
		}
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("no public key in PEM")
	}
	return keys, nil
}

// strong refuses keys that nothing is proven with.
func strong(key any) error {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if k.Curve.Params().BitSize < 256 {
			return fmt.Errorf("curve %s is too weak", k.Curve.Params().Name)
		}
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 {
			return fmt.Errorf("an RSA key of %d bits is too weak: 2048 or more", k.N.BitLen())
		}
	case ed25519.PublicKey:
	default:
		return fmt.Errorf("keys of type %T are not known", key)
	}
	return nil
}

// verify reports whether sig is the key's signature of the message. cosign hashes with SHA-256 for all curves, sigstore bundles
// with the hash of the curve's size; Ed25519 signs the message, or in bundles its SHA-512 (Ed25519ph).
func verify(key any, message, sig []byte) bool {
	if strong(key) != nil {
		return false
	}
	switch k := key.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(k, message, sig) ||
			ed25519.VerifyWithOptions(k, hashed(crypto.SHA512, message), sig, &ed25519.Options{Hash: crypto.SHA512}) == nil
	case *ecdsa.PublicKey:
		for _, h := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
			if ecdsa.VerifyASN1(k, hashed(h, message), sig) {
				return true
			}
		}
	case *rsa.PublicKey:
		for _, h := range []crypto.Hash{crypto.SHA256, crypto.SHA512} {
			if rsa.VerifyPKCS1v15(k, h, hashed(h, message), sig) == nil || rsa.VerifyPSS(k, h, hashed(h, message), sig, nil) == nil {
				return true
			}
		}
	}
	return false
}

func hashed(h crypto.Hash, message []byte) []byte {
	w := h.New()
	w.Write(message)
	return w.Sum(nil)
}

// parseRoots reads a CA's certificates: those that have signed themselves are roots, the others lead to one.
func parseRoots(text []byte) (roots, between *x509.CertPool, err error) {
	roots, between = x509.NewCertPool(), x509.NewCertPool()
	n := 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, nil, err
		}
		if c.CheckSignatureFrom(c) == nil {
			roots.AddCert(c)
			n++
		} else {
			between.AddCert(c)
		}
	}
	if n == 0 {
		return nil, nil, errors.New("no root certificate in PEM")
	}
	return roots, between, nil
}

// Object identifiers of Fulcio's certificates (github.com/sigstore/fulcio, docs/oid-info.md).
var (
	oidIssuerText = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1} // the text itself
	oidIssuer     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8} // in DER
	oidUserName   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 7} // an otherName
	oidAltName    = asn1.ObjectIdentifier{2, 5, 29, 17}
)

// vouches says why a certificate is not the identity's at a time; nil when it is.
func (i *Identity) vouches(cert *x509.Certificate, chain []*x509.Certificate, at time.Time) error {
	between := i.between.Clone()
	for _, c := range chain {
		between.AddCert(c)
	}
	subjects, err := names(cert)
	if err != nil {
		return err
	}
	// Go does not know the kind of name that Fulcio writes for user names; names has read it.
	known := *cert
	known.UnhandledCriticalExtensions = nil
	for _, oid := range cert.UnhandledCriticalExtensions {
		if !oid.Equal(oidAltName) {
			known.UnhandledCriticalExtensions = append(known.UnhandledCriticalExtensions, oid)
		}
	}
	_, err = known.Verify(x509.VerifyOptions{
		Roots: i.roots, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	})
	if err != nil {
		return err
	}
	if got := issuer(cert); got != i.Issuer {
		return fmt.Errorf("the certificate's issuer is %q", got)
	}
	for _, s := range subjects {
		if i.match == nil && s == i.Subject || i.match != nil && i.match.MatchString(s) {
			return nil
		}
	}
	return fmt.Errorf("the certificate is for %q", subjects)
}

// issuer gives who vouched for the subject.
func issuer(cert *x509.Certificate) string {
	old := ""
	for _, e := range cert.Extensions {
		switch {
		case e.Id.Equal(oidIssuer):
			var s string
			if rest, err := asn1.UnmarshalWithParams(e.Value, &s, "utf8"); err == nil && len(rest) == 0 {
				return s
			}
			return ""
		case e.Id.Equal(oidIssuerText):
			old = string(e.Value)
		}
	}
	return old
}

// names gives the subjects of a certificate: mail addresses, URIs, user names, and names of hosts.
func names(cert *x509.Certificate) ([]string, error) {
	all := append([]string{}, cert.EmailAddresses...)
	for _, u := range cert.URIs {
		all = append(all, u.String())
	}
	all = append(all, cert.DNSNames...)
	for _, e := range cert.Extensions {
		if !e.Id.Equal(oidAltName) {
			continue
		}
		var sequence []asn1.RawValue
		if rest, err := asn1.Unmarshal(e.Value, &sequence); err != nil || len(rest) > 0 {
			return nil, errors.New("the certificate's names cannot be read")
		}
		for _, n := range sequence {
			if n.Class != asn1.ClassContextSpecific || n.Tag != 0 {
				continue
			}
			// OtherName ::= SEQUENCE { type-id OBJECT IDENTIFIER, value [0] EXPLICIT ANY } (RFC 5280)
			var other struct {
				ID    asn1.ObjectIdentifier
				Value asn1.RawValue `asn1:"tag:0"`
			}
			sequence := bytes.Clone(n.FullBytes) // of the certificate, whose signature is over it
			sequence[0] = asn1.TagSequence | 0x20
			var s string
			if _, err := asn1.Unmarshal(sequence, &other); err != nil || !other.ID.Equal(oidUserName) {
				continue
			}
			if _, err := asn1.UnmarshalWithParams(other.Value.Bytes, &s, "utf8"); err == nil {
				all = append(all, s)
			}
		}
	}
	return all, nil
}

// keyID gives a key's id in a transparency log: the SHA-256 of its SubjectPublicKeyInfo.
func keyID(key any) ([32]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	return sha256.Sum256(der), err
}
