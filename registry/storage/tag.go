package storage

import (
	"context"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
)

// Tag is a name for a manifest.
type Tag struct {
	Name   string
	Digest digest.Digest
	At     time.Time // when it was set last
}

type tagValue struct {
	Digest digest.Digest `json:"digest"`
	At     time.Time     `json:"at"`
}

// Tag reads a tag. NotFound when the repository has none of that name.
func (s *Store) Tag(ctx context.Context, repository, name string) (Tag, error) {
	if err := CheckName(repository); err != nil {
		return Tag{}, err
	}
	if err := CheckTag(name); err != nil {
		return Tag{}, err
	}
	var v tagValue
	err := s.readJSON(ctx, tagKey(repository, name), &v)
	if fault.Is(err, fault.NotFound) {
		return Tag{}, fault.New(fault.NotFound, "tag %s is not in repository %s", name, repository)
	}
	return Tag{Name: name, Digest: v.Digest, At: v.At}, err
}

// Tags gives the names of a repository's tags, sorted. NotFound when the repository does not exist.
func (s *Store) Tags(ctx context.Context, repository string) ([]string, error) {
	if err := CheckName(repository); err != nil {
		return nil, err
	}
	if !s.Exists(repository) {
		return nil, fault.New(fault.NotFound, "repository %s does not exist", repository)
	}
	prefix := repoKey(repository, "tags")
	names := []string{}
	for e, err := range s.driver.List(ctx, prefix) {
		if err != nil {
			return nil, err
		}
		names = append(names, strings.TrimPrefix(e.Key, prefix))
	}
	slices.Sort(names)
	return names, nil
}

// TagsOf gives the tags of a repository with what they stand for, in no order.
func (s *Store) TagsOf(ctx context.Context, repository string) iter.Seq2[Tag, error] {
	if err := CheckName(repository); err != nil {
		return func(yield func(Tag, error) bool) { yield(Tag{}, err) }
	}
	return s.tags(ctx, repository)
}

func (s *Store) tags(ctx context.Context, repo string) iter.Seq2[Tag, error] {
	prefix := repoKey(repo, "tags")
	return values(s, ctx, prefix, func(ctx context.Context, key string) (Tag, error) {
		var v tagValue
		err := s.readJSON(ctx, key, &v)
		return Tag{Name: strings.TrimPrefix(key, prefix), Digest: v.Digest, At: v.At}, err
	})
}

// DeleteTag takes a tag away; the manifest stays. NotFound when there is none.
func (s *Store) DeleteTag(ctx context.Context, repository, name string) (Tag, error) {
	if err := CheckName(repository); err != nil {
		return Tag{}, err
	}
	defer s.turns.alone(repository)()
	t, err := s.Tag(ctx, repository, name)
	if err != nil {
		return Tag{}, err
	}
	return t, s.driver.Remove(ctx, tagKey(repository, name))
}
