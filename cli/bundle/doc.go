// Package bundle gathers what somebody needs who is to help with an engine, into one archive that may be sent to a stranger: what the
// engine tells of itself and its containers, with everything taken out that may be a secret.
//
// Words. A source is one file of the archive and where it comes from. To redact is to replace a secret by a word that says so; Redact
// knows JSON as Docker's API has it, RedactText everything else.
//
// Redaction errs on the side of hiding: values of environment variables always go, names stay. What containers wrote (their logs and
// files) is never gathered.
package bundle
