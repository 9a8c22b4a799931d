package storage

import (
	_ "crypto/sha256" // go-digest knows an algorithm only where its package is linked
	_ "crypto/sha512"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
)

const (
	nameMax = 255 // distribution spec, "Pulling manifests": clients limit host and name together to 255
	tagMax  = 128
)

var (
	nameGrammar = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagGrammar  = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]*$`)
)

// CheckName says what is wrong with a repository's name: Invalid. The grammar is that of the distribution spec;
// it leaves no room for ".", "..", empty elements, or ours that begin with "_".
func CheckName(repository string) error {
	if len(repository) > nameMax || !nameGrammar.MatchString(repository) {
		return fault.New(fault.Invalid, "invalid repository name %q", shorten(repository))
	}
	return nil
}

// CheckTag says what is wrong with a tag: Invalid.
func CheckTag(tag string) error {
	if len(tag) > tagMax || !tagGrammar.MatchString(tag) {
		return fault.New(fault.Invalid, "invalid tag %q", shorten(tag))
	}
	return nil
}

// ParseDigest reads a digest of an algorithm that the store keeps: sha256, sha384 or sha512. Others are Invalid.
func ParseDigest(s string) (digest.Digest, error) {
	d, err := digest.Parse(s)
	if err != nil {
		return "", fault.New(fault.Invalid, "invalid digest %q", shorten(s))
	}
	return d, nil
}

// IsDigest reports whether a reference of the API is meant as a digest: a tag has no colon.
func IsDigest(reference string) bool { return strings.Contains(reference, ":") }

func shorten(s string) string {
	if len(s) > 300 {
		return s[:300] + "…"
	}
	return s
}

const (
	versionKey = "version"
	namesKey   = "names/"
	blobsKey   = "blobs/"

	repositoriesKey = "repositories/"
)

func nameKey(repo string) string { return namesKey + strings.ReplaceAll(repo, "/", ":") }

func repoKey(repo, kind string) string { return repositoriesKey + repo + "/_" + kind + "/" }

func digestKey(d digest.Digest) string { return string(d.Algorithm()) + "/" + d.Encoded() }

func blobKey(d digest.Digest) string {
	return blobsKey + string(d.Algorithm()) + "/" + d.Encoded()[:2] + "/" + d.Encoded()
}

func linkKey(repo string, d digest.Digest) string { return repoKey(repo, "blobs") + digestKey(d) }

func recordKey(repo string, d digest.Digest) string { return repoKey(repo, "manifests") + digestKey(d) }

func tagKey(repo, tag string) string { return repoKey(repo, "tags") + tag }

func referrersKey(repo string, subject digest.Digest) string {
	return repoKey(repo, "referrers") + digestKey(subject) + "/"
}

func referrerKey(repo string, subject, referrer digest.Digest) string {
	return referrersKey(repo, subject) + string(referrer.Algorithm()) + "-" + referrer.Encoded()
}

// keyDigest reads the digest at the end of a key: ALG/HEX, ALG/HH/HEX or ALG-HEX.
func keyDigest(key string) (digest.Digest, error) {
	parts := strings.Split(key, "/")
	last := parts[len(parts)-1]
	if alg, hex, ok := strings.Cut(last, "-"); ok {
		return ParseDigest(alg + ":" + hex)
	}
	i := len(parts) - 2
	if i >= 0 && len(parts[i]) == 2 {
		i--
	}
	if i < 0 {
		return "", fault.New(fault.Invalid, "key %q ends in no digest", key)
	}
	return ParseDigest(parts[i] + ":" + last)
}
