package remote

import (
	"net/http"

	"berth/base/fault"
	"berth/base/ref"
)

// reading gives a failed question about a tag or manifest Docker's words. A registry that denies and one that does not have the
// repository are told in one sentence, as NotFound, because registries answer so on purpose.
func (r *Repository) reading(err error, what string) error {
	no := refusalOf(err)
	if no == nil {
		return err
	}
	named := r.name
	named.Tag, named.Digest = "", ""
	if n, e := r.name.WithTag(what); e == nil {
		named = n
	} else if d, e := parseDigest(what); e == nil {
		named = r.name.WithDigest(d)
	}
	switch no.Code {
	case "DENIED":
		return fault.Wrap(fault.NotFound, err, "pull access denied for %s, repository does not exist or may require 'docker login'", r.name.FamiliarName())
	case "MANIFEST_UNKNOWN":
		return fault.Wrap(fault.NotFound, err, "manifest for %s not found", named.Familiar())
	case "NAME_UNKNOWN":
		return fault.Wrap(fault.NotFound, err, "repository %s not found", r.name.FamiliarName())
	}
	if no.Status == http.StatusNotFound {
		plain := &Refusal{Status: no.Status, Code: "MANIFEST_UNKNOWN", Message: codeText["MANIFEST_UNKNOWN"], Host: no.Host}
		return fault.Wrap(fault.NotFound, plain, "manifest for %s not found", named.Familiar())
	}
	return err
}

// schema1 refuses what no registry should give any more.
func schema1(name ref.Ref, mediaType string) error {
	return fault.New(fault.NotImplemented, "%s is in Docker's image manifest version 2, schema 1 (%s), which is not supported any more: "+
		"ask its author to push it as an OCI image or as Docker image manifest version 2, schema 2", name.Familiar(), mediaType)
}
