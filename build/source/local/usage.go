package local

import (
	"context"

	"berth/build/cache"
)

// recordType is what BuildKit calls such a thing.
const recordType = "source.local"

var _ cache.Other = (*Store)(nil)

// Usage lists the trees. A file that several trees have counts in each.
func (s *Store) Usage(ctx context.Context) ([]cache.Usage, error) {
	if err := s.load(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	var list []cache.Usage
	unknown := map[string]int{}
	for _, r := range s.trees {
		if r.size < 0 && !r.busy {
			unknown[r.ID] = len(list)
		}
		list = append(list, cache.Usage{
			ID: r.ID, Type: recordType, Description: "local source for " + r.Name, Size: max(r.size, 0),
			Created: r.Created, LastUsed: r.used, Uses: 1, InUse: r.busy || r.users > 0, Mutable: true,
		})
	}
	s.mu.Unlock()
	for id, at := range unknown {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		x, _, err := readIndex(s.path(id, fileIndex))
		if err != nil {
			continue // it is being changed, or gone
		}
		list[at].Size = x.size()
		s.mu.Lock()
		if r := s.trees[id]; r != nil && !r.busy && r.users == 0 {
			r.size = list[at].Size
		}
		s.mu.Unlock()
	}
	return list, nil
}

// Remove deletes a tree that nobody uses.
func (s *Store) Remove(_ context.Context, id string) error {
	s.mu.Lock()
	r := s.trees[id]
	if r == nil || r.busy || r.users > 0 {
		s.mu.Unlock()
		return nil
	}
	r.busy = true
	s.mu.Unlock()
	s.drop(r)
	return nil
}

// size is the bytes of the files, each once.
func (x *index) size() (n int64) {
	for i := range x.offsets {
		raw, _ := x.record(i)
		if st, err := parseStat(raw); err == nil && st.regular() && !st.hardlink() {
			n += st.size
		}
	}
	return n
}
