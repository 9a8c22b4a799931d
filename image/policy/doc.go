// Package policy decides which images may be used: it reads a file of rules, finds the rule for an image's name, and checks what the
// rule asks of the image: a digest in the name, one of some digests, or signatures.
//
// Words. A rule has a pattern of repositories and says accept, reject, or what it requires. Of the patterns that match a
// name the most specific one holds. A signer is a public key, or an identity: a certificate of a CA for a person or a
// workload that an issuer has vouched for. A source is where an image's signatures are: the registry that it is pulled
// from, or the registry that serves it. Signatures are found as cosign stores them:
//
//   - tag sha256-HEX.sig: a manifest whose layers are simple signing payloads with the signature in an annotation
//   - a referrer with such layers (cosign's OCI 1.1 mode)
//   - a referrer whose layer is a sigstore bundle (application/vnd.dev.sigstore.bundle.v0.3+json) of a DSSE envelope
//
// The life of a check: Rule (pure) → digests compared → signatures collected, each verified for itself → enough
// different signers, or an error that names the rule with its line and says of each signature why it does not count.
//
// What is checked of a signature: that it is over this image's digest, by the key (ECDSA, RSA, Ed25519), or by a certificate that leads
// to the given roots, is for code signing, was valid when the signature was made, and names the subject and issuer. When it
// was made is told by a transparency log's promise (signed entry timestamp), or an authority's time stamp (RFC 3161); without either
// it is now. Of a log's entry: that the log has signed it or proven that it is in its tree (whose root it has signed), and that the
// entry is about this very signature.
//
// What is not checked: certificate transparency (SCT), revocation.
//
// The package never fetches anything by itself, and never asks the sigstore project's servers: keys and roots stand in files.
package policy
