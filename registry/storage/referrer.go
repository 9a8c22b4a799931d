package storage

import (
	"context"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
)

// Referrers gives the manifests of a repository whose subject is the digest, sorted by digest; with an artifactType only
// those that have it. The subject itself need not exist.
func (s *Store) Referrers(ctx context.Context, repository string, subject digest.Digest, artifactType string) ([]ocispec.Descriptor, error) {
	if err := check(repository, subject); err != nil {
		return nil, err
	}
	found := []ocispec.Descriptor{}
	for e, err := range s.driver.List(ctx, referrersKey(repository, subject)) {
		if err != nil {
			return nil, err
		}
		var d ocispec.Descriptor
		err := s.readJSON(ctx, e.Key, &d)
		if fault.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if artifactType != "" && d.ArtifactType != artifactType {
			continue
		}
		// The entry is written before the record and removed after it.
		ok, err := s.has(ctx, recordKey(repository, d.Digest))
		if err != nil {
			return nil, err
		}
		if ok {
			found = append(found, d)
		}
	}
	slices.SortFunc(found, func(a, b ocispec.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	return found, nil
}
