package quota

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"strings"
	"sync"

	"berth/base/atomicfile"
	"berth/base/fault"
	"berth/registry/access"
)

const version = 1

// Limits are all limits of a registry, in bytes; zero is no limit.
type Limits struct {
	Repository    int64            `json:"repository,omitempty"`    // of every repository that has none of its own
	Organisation  int64            `json:"organisation,omitempty"`  // of every organisation that has none of its own
	Repositories  map[string]int64 `json:"repositories,omitempty"`  // by name: team/web
	Organisations map[string]int64 `json:"organisations,omitempty"` // by name: team
}

// Content tells what is there.
type Content interface {
	Repositories(ctx context.Context, prefix string) ([]string, error)
	Size(ctx context.Context, repository string) (int64, error)
}

// Quota keeps limits.
type Quota struct {
	file    string
	content Content

	mu     sync.Mutex
	limits Limits // replaced, never changed
}

// Open reads the limits in file; one that is not there has none.
func Open(file string, content Content) (*Quota, error) {
	q := &Quota{file: file, content: content}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return q, nil
	}
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "reading quotas")
	}
	var stored struct {
		Version int `json:"version"`
		Limits
	}
	if err := json.Unmarshal(data, &stored); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "reading quotas: %s", file)
	}
	if stored.Version != version {
		return nil, fault.New(fault.Invalid, "reading quotas: %s has format %d and this program knows %d", file, stored.Version, version)
	}
	q.limits = stored.Limits
	return q, stored.Limits.check()
}

// Limits gives the limits. The caller changes nothing in the maps.
func (q *Quota) Limits() Limits {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.limits
}

// Set replaces the limits, durably.
func (q *Quota) Set(l Limits) error {
	if err := l.check(); err != nil {
		return err
	}
	l.Repositories, l.Organisations = maps.Clone(l.Repositories), maps.Clone(l.Organisations)
	data, err := json.MarshalIndent(struct {
		Version int `json:"version"`
		Limits
	}{version, l}, "", "  ")
	if err != nil {
		return fault.Wrap(fault.Internal, err, "writing quotas")
	}
	if err := atomicfile.Write(q.file, append(data, '\n'), 0o600); err != nil {
		return fault.Wrap(fault.Internal, err, "writing quotas")
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.limits = l
	return nil
}

func (l Limits) check() error {
	bad := fault.New(fault.Invalid, "a limit is a number of bytes; 0 is no limit")
	if l.Repository < 0 || l.Organisation < 0 {
		return bad
	}
	for name, n := range l.Repositories {
		if n < 0 {
			return bad
		}
		if err := access.CheckRepository(name); err != nil {
			return err
		}
	}
	for name, n := range l.Organisations {
		if n < 0 {
			return bad
		}
		if err := access.CheckOrganisation(name); err != nil {
			return err
		}
	}
	return nil
}

// Use is how much of a limit is used.
type Use struct {
	Used  int64 `json:"used"`
	Limit int64 `json:"limit,omitempty"` // 0: none
}

// Repository gives a repository's use.
func (q *Quota) Repository(ctx context.Context, name string) (Use, error) {
	l := q.Limits()
	limit, own := l.Repositories[name]
	if !own {
		limit = l.Repository
	}
	used, err := q.content.Size(ctx, name)
	return Use{Used: used, Limit: limit}, err
}

// Organisation gives an organisation's use, over all its repositories.
func (q *Quota) Organisation(ctx context.Context, name string) (Use, error) {
	u := Use{Limit: q.organisationLimit(name)}
	names, err := q.content.Repositories(ctx, name+"/")
	if err != nil {
		return u, err
	}
	for _, n := range names {
		size, err := q.content.Size(ctx, n)
		if err != nil {
			return u, err
		}
		u.Used += size
	}
	return u, nil
}

func (q *Quota) organisationLimit(name string) int64 {
	l := q.Limits()
	if limit, own := l.Organisations[name]; own {
		return limit
	}
	return l.Organisation
}

// Check refuses so many more bytes in a repository when they do not fit: Forbidden.
func (q *Quota) Check(ctx context.Context, repository string, more int64) error {
	l := q.Limits()
	limit, own := l.Repositories[repository]
	if !own {
		limit = l.Repository
	}
	if limit > 0 { // sizes are not added up for nothing
		u, err := q.Repository(ctx, repository)
		if err != nil {
			return err
		}
		if err := u.fits(more, "repository "+repository); err != nil {
			return err
		}
	}
	org, _, found := strings.Cut(repository, "/")
	if !found || q.organisationLimit(org) == 0 {
		return nil
	}
	u, err := q.Organisation(ctx, org)
	if err != nil {
		return err
	}
	return u.fits(more, "organisation "+org)
}

func (u Use) fits(more int64, whose string) error {
	if u.Used <= u.Limit && more <= u.Limit-u.Used {
		return nil
	}
	return fault.New(fault.Forbidden, "the quota of %s is full: it holds %d of %d bytes, and %d more do not fit", whose, u.Used, u.Limit, more)
}
