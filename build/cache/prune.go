package cache

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/pkg/filters"
	bolt "go.etcd.io/bbolt"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/kernel/disk"
)

// PruneOptions say what Prune removes and what it keeps, in the words of BuildKit's garbage collection.
type PruneOptions struct {
	All           bool          // also what images share, and records that serve the builder itself
	Filters       []string      // only what one of them matches
	KeepDuration  time.Duration // keeps what was used within it
	ReservedSpace int64         // bytes that are always kept
	MaxUsedSpace  int64         // bytes above which things are removed
	MinFreeSpace  int64         // bytes of the disk that are to be free
}

// bounded reports whether there is an amount of bytes to come down to; without one everything goes.
func (o PruneOptions) bounded() bool {
	return o.ReservedSpace != 0 || o.MaxUsedSpace != 0 || o.MinFreeSpace != 0
}

// keep tells how many bytes may stay of total, of a disk with free bytes.
func (o PruneOptions) keep(total, free int64) int64 {
	if !o.bounded() {
		return 0
	}
	keep := o.MaxUsedSpace
	if lacking := o.MinFreeSpace - free; lacking > 0 {
		if keep == 0 {
			keep = total - lacking
		}
		keep = min(keep, total-lacking)
	} else if o.MinFreeSpace != 0 && keep == 0 {
		keep = total
	}
	return max(keep, o.ReservedSpace)
}

// Prune removes what the options say, what was used least recently first, and tells each thing removed. A record that is
// removed stays as a ghost; where everything is removed, ghosts go too.
func (s *Store) Prune(ctx context.Context, o PruneOptions, told func(Usage)) error {
	if err := s.pruneByRules(ctx, []PruneOptions{o}, told); err != nil {
		return err
	}
	err := s.db.sweep(o.All && len(o.Filters) == 0 && o.KeepDuration == 0 && !o.bounded())
	return fault.In(err, "prune build cache")
}

// pruneByRules applies rules one after another to one listing.
func (s *Store) pruneByRules(ctx context.Context, rules []PruneOptions, told func(Usage)) error {
	matches := make([]filters.Filter, len(rules))
	free := int64(0)
	for i, o := range rules {
		var err error
		if matches[i], err = filters.ParseAll(o.Filters...); err != nil {
			return fault.Wrap(fault.Invalid, err, "failed to parse prune filters %v", o.Filters)
		}
		if o.MinFreeSpace != 0 && free == 0 {
			space, err := disk.Of(s.cfg.Root)
			if err != nil {
				return fault.In(err, "prune build cache")
			}
			free = space.Free
		}
	}
	others, err := s.pruneRecords(ctx, func(all []Usage) (chosen []Usage) {
		free := free
		for i, o := range rules {
			for _, u := range choose(all, o, matches[i], free, time.Now()) {
				chosen = append(chosen, u)
				all = slices.DeleteFunc(all, func(v Usage) bool { return v.ID == u.ID })
				free += u.Size
			}
		}
		return chosen
	}, told)
	if err == nil {
		err = removeOthers(ctx, others, told)
	}
	return fault.In(err, "prune build cache")
}

// choose decides what is removed. It touches nothing.
func choose(all []Usage, o PruneOptions, match filters.Filter, free int64, now time.Time) []Usage {
	var total int64
	for _, u := range all {
		if !u.Shared {
			total += u.Size
		}
	}
	keep := o.keep(total, free)
	if o.bounded() && total <= keep {
		return nil
	}
	var list []Usage
	for _, u := range all {
		switch {
		case u.InUse:
		case !o.All && (u.Type == Internal || u.Type == Frontend || u.Shared):
		case o.KeepDuration != 0 && u.LastUsed.After(now.Add(-o.KeepDuration)):
		case !match.Match(adaptor(&u)):
		default:
			list = append(list, u)
		}
	}
	// What is built on something was used together with it, and goes before it.
	slices.SortStableFunc(list, func(a, b Usage) int {
		return cmp.Or(a.LastUsed.Truncate(time.Second).Compare(b.LastUsed.Truncate(time.Second)), b.depth-a.depth, a.Uses-b.Uses)
	})
	if !o.bounded() {
		return list
	}
	for i, u := range list {
		if total <= keep {
			return list[:i]
		}
		if !u.Shared {
			total -= u.Size
		}
	}
	return list
}

// pruneRecords removes the records among what choose chooses, in one transaction, and gives the rest.
func (s *Store) pruneRecords(ctx context.Context, choose func([]Usage) []Usage, told func(Usage)) (others []Usage, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.flushHeld(); err != nil {
		return nil, err
	}
	all, err := s.usage(ctx)
	if err != nil {
		return nil, err
	}
	var ids []string
	var gone []Usage
	for _, u := range choose(all) {
		if u.rec == nil {
			others = append(others, u)
			continue
		}
		if s.pendingRecord(u.ID) {
			continue // made this moment
		}
		ids, gone = append(ids, u.ID), append(gone, u)
	}
	if len(ids) == 0 {
		return others, nil
	}
	if err := failpoint.Hit("build/cache-before-prune"); err != nil {
		return nil, err
	}
	if err := s.db.ghost(ids); err != nil {
		return nil, err
	}
	for _, u := range gone {
		s.cfg.Layers.Release(u.rec.layers()...)
		told(u)
	}
	return others, nil
}

func (s *Store) pendingRecord(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.records[id] != nil
}

// removeOthers removes what is no record.
func removeOthers(ctx context.Context, list []Usage, told func(Usage)) error {
	for _, u := range list {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := u.other.Remove(ctx, u.ID); err != nil {
			return err
		}
		told(u)
	}
	return nil
}

// ghost makes ghosts of records, those that are not ghosts already.
func (d *database) ghost(ids []string) error {
	return d.update(func(tx *bolt.Tx) error {
		for _, id := range ids {
			if err := tx.Bucket(bucketHolds).Delete([]byte(id)); err != nil {
				return err
			}
		}
		return nil
	})
}
