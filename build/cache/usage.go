package cache

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/pkg/filters"
	digest "github.com/opencontainers/go-digest"

	"berth/base/fault"
)

// Other is something beside records that takes room for builds and that can be pruned.
type Other interface {
	Usage(ctx context.Context) ([]Usage, error)
	// Remove removes one thing that Usage told; one that is in use by now is left, without an error.
	Remove(ctx context.Context, id string) error
}

// Usage is one line of disk usage.
type Usage struct {
	ID          string
	Parents     []string
	Type        string
	Description string
	Size        int64 // bytes that removing it frees, once nothing is built on it any more
	Created     time.Time
	LastUsed    time.Time
	Uses        int
	InUse       bool
	Shared      bool // an image uses its layers too
	Mutable     bool

	other Other
	depth int
	rec   *Record
}

// DiskUsage lists what builds keep. Each layer counts once: for the oldest record that has it.
func (s *Store) DiskUsage(ctx context.Context, filter []string) ([]Usage, error) {
	match, err := filters.ParseAll(filter...)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "failed to parse diskusage filters %v", filter)
	}
	all, err := s.usage(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(u Usage) bool { return !match.Match(adaptor(&u)) }), nil
}

func (s *Store) usage(ctx context.Context) ([]Usage, error) {
	records, err := s.all()
	if err != nil {
		return nil, err
	}
	list := s.usageOf(records)
	for _, o := range s.cfg.Others {
		more, err := o.Usage(ctx)
		if err != nil {
			return nil, fault.In(err, "disk usage of builds")
		}
		for _, u := range more {
			u.other = o
			list = append(list, u)
		}
	}
	return list, nil
}

// all gives the records that are no ghosts, the oldest first, whether written yet or not.
func (s *Store) all() ([]*Record, error) {
	var list []*Record
	seen := map[string]bool{}
	s.mu.Lock()
	for id, e := range s.records {
		rec := e.rec
		list = append(list, &rec)
		seen[id] = true
	}
	s.mu.Unlock()
	err := s.db.each(func(r *Record) {
		if !r.Ghost && !seen[r.ID] {
			list = append(list, r)
		}
	})
	if err != nil {
		return nil, fault.In(err, "read build cache")
	}
	s.mu.Lock()
	for _, r := range list {
		if u, ok := s.used[r.ID]; ok {
			r.Uses += u.times
			r.LastUsed = u.last
		}
	}
	s.mu.Unlock()
	slices.SortFunc(list, func(a, b *Record) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		if c := len(a.layers()) - len(b.layers()); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list, nil
}

// usageOf tells what each of the records, the oldest first, adds.
func (s *Store) usageOf(records []*Record) []Usage {
	owner := map[digest.Digest]bool{}
	tops := map[string]string{} // a chain to the record that first had it
	list := make([]Usage, 0, len(records))
	for _, r := range records {
		u := Usage{
			ID: r.ID, Type: r.Type, Description: r.Description, Created: r.Created, LastUsed: r.LastUsed, Uses: r.Uses,
			rec: r, depth: len(r.layers()), Shared: s.cfg.Shared != nil,
		}
		own := 0
		for _, l := range r.layers() {
			if owner[l] {
				continue
			}
			owner[l] = true
			own++
			if s.cfg.Size != nil {
				u.Size += s.cfg.Size(l)
			}
			if u.Shared && !s.cfg.Shared(l) {
				u.Shared = false
			}
		}
		if own == 0 {
			u.Shared = false
		}
		for _, chain := range r.Outputs {
			if p := parentOf(tops, chain); p != "" && !slices.Contains(u.Parents, p) {
				u.Parents = append(u.Parents, p)
			}
		}
		for _, chain := range r.Outputs {
			if key := chainKey(chain); len(chain) > 0 && tops[key] == "" {
				tops[key] = r.ID
			}
		}
		list = append(list, u)
	}
	return list
}

// parentOf gives the record whose chain is the longest beginning of this one.
func parentOf(tops map[string]string, chain []digest.Digest) string {
	for n := len(chain) - 1; n > 0; n-- {
		if id := tops[chainKey(chain[:n])]; id != "" {
			return id
		}
	}
	return ""
}

func chainKey(chain []digest.Digest) string {
	var b strings.Builder
	for _, d := range chain {
		b.WriteString(string(d))
	}
	return b.String()
}

// adaptor shows a line to filters, in the words of BuildKit's.
func adaptor(u *Usage) filters.Adaptor {
	return filters.AdapterFunc(func(path []string) (string, bool) {
		if len(path) == 0 {
			return "", false
		}
		switch path[0] {
		case "id":
			return u.ID, u.ID != ""
		case "parents":
			return strings.Join(u.Parents, ";"), len(u.Parents) > 0
		case "description":
			return u.Description, u.Description != ""
		case "type":
			return u.Type, u.Type != ""
		case "inuse":
			return "", u.InUse
		case "mutable":
			return "", u.Mutable
		case "immutable":
			return "", !u.Mutable
		case "shared":
			return "", u.Shared
		case "private":
			return "", !u.Shared
		}
		return "", false
	})
}
