package catalog

import (
	"cmp"
	"context"
	"regexp"
	"slices"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/registry/storage"
)

// FromStorage reads repositories from the registry's storage.
func FromStorage(s *storage.Store) Source { return shelves{s} }

type shelves struct{ store *storage.Store }

// Each gives every repository's path.
func (s shelves) Each(ctx context.Context, yield func(string) error) error {
	names, err := s.store.Repositories(ctx, "")
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := yield(n); err != nil {
			return err
		}
	}
	return nil
}

// Read looks at tags and at the newest image. An image that cannot be read (a manifest of an unknown kind, a broken
// config) leaves its facts out; the repository is known all the same.
func (s shelves) Read(ctx context.Context, repository string) (Derived, error) {
	tags, err := TagsOf(ctx, s.store, repository)
	if err != nil {
		return Derived{}, err
	}
	var d Derived
	for _, t := range tags {
		d.Tags = append(d.Tags, t.Name)
	}
	if len(tags) > 0 {
		d.Newest = Image{Tag: tags[0].Name, Digest: tags[0].Digest, Pushed: tags[0].At}
	} else if d.Newest, err = newestUntagged(ctx, s.store, repository); err != nil {
		return Derived{}, err
	}
	if d.Newest.Digest == "" {
		return Derived{}, fault.New(fault.NotFound, "repository %s is empty", repository)
	}
	shown, err := Inspect(ctx, s.store, repository, string(d.Newest.Digest), "")
	switch {
	case ctx.Err() != nil:
		return Derived{}, ctx.Err()
	case fault.Is(err, fault.Internal), fault.Is(err, fault.Unavailable):
		return Derived{}, err
	case err != nil:
		return d, nil
	}
	d.Kind, d.Labels, d.Size = shown.Kind, boundedLabels(shown.Labels()), shown.Size
	d.Partial = shown.Kind == "image" && shown.Config == nil
	for _, p := range shown.Platforms {
		d.Platforms = append(d.Platforms, p.Name)
	}
	return d, nil
}

// bound is the form of the tags under which signatures and the like were kept before registries had referrers:
// sha256-HEX, with .sig, .att or .sbom in cosign's case. They are not versions of anything.
var bound = regexp.MustCompile(`^sha(256|512)-[0-9a-f]{64}([0-9a-f]{64})?(\.[a-z]+)?$`)

// BoundTag reports whether a tag stands for something about a manifest (its signature, its SBOM), and which.
func BoundTag(tag string) (subject digest.Digest, ok bool) {
	if !bound.MatchString(tag) {
		return "", false
	}
	algorithm, hex := tag[:6], tag[7:]
	if i := slices.Index([]byte(hex), '.'); i >= 0 {
		hex = hex[:i]
	}
	d := digest.Digest(algorithm + ":" + hex)
	return d, d.Validate() == nil
}

// TagsOf gives a repository's tags without those that are bound to a manifest, newest first. None is no error.
func TagsOf(ctx context.Context, s *storage.Store, repository string) ([]storage.Tag, error) {
	var tags []storage.Tag
	for t, err := range s.TagsOf(ctx, repository) {
		if err != nil {
			return nil, fault.In(err, "read the tags of %s", repository)
		}
		if _, ok := BoundTag(t.Name); !ok {
			tags = append(tags, t)
		}
	}
	slices.SortFunc(tags, func(a, b storage.Tag) int {
		return cmp.Or(b.At.Compare(a.At), cmp.Compare(a.Name, b.Name))
	})
	return tags, nil
}

// newestUntagged gives what was pushed last and is about nothing else; the zero Image when there is nothing.
func newestUntagged(ctx context.Context, s *storage.Store, repository string) (Image, error) {
	var newest Image
	for r, err := range s.Manifests(ctx, repository) {
		if err != nil {
			return newest, fault.In(err, "read the manifests of %s", repository)
		}
		if r.Subject == "" && (newest.Digest == "" || r.At.After(newest.Pushed)) {
			newest = Image{Digest: r.Digest, Pushed: r.At}
		}
	}
	return newest, nil
}

// Bounds of the labels that are kept: they come from strangers and lie in memory.
const (
	maxLabels     = 64
	maxLabelBytes = 1024
)

// boundedLabels keeps the first labels by name, well-known ones before others.
func boundedLabels(all map[string]string) map[string]string {
	keys := sortedKeys(all)
	slices.SortStableFunc(keys, func(a, b string) int {
		return compareBool(slices.Contains(describing, b), slices.Contains(describing, a))
	})
	kept := map[string]string{}
	for _, k := range keys {
		if v := all[k]; len(kept) < maxLabels && len(k) <= 256 {
			if len(v) > maxLabelBytes {
				v = v[:maxLabelBytes]
			}
			kept[k] = v
		}
	}
	return kept
}
