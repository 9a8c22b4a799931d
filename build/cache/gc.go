package cache

import (
	"context"
	"slices"
	"time"

	"berth/base/fault"
	"berth/kernel/disk"
)

// DefaultPolicy is what is done where nothing is configured, for a disk of that size: BuildKit's rules. What is cheap to
// make again goes after two days, the rest after two months; what cannot be helped goes as soon as room is short.
func DefaultPolicy(total int64) []PruneOptions {
	reserved := min(total/10, 10<<30)
	most := min(total/10*6, 100<<30)
	free := total / 5
	bounds := PruneOptions{ReservedSpace: reserved, MaxUsedSpace: most, MinFreeSpace: free}
	cheap := PruneOptions{
		Filters:      []string{"type==source.local", "type==exec.cachemount", "type==source.git.checkout"},
		KeepDuration: 48 * time.Hour, MaxUsedSpace: 512 << 20,
	}
	old, everything := bounds, bounds
	old.KeepDuration = 60 * 24 * time.Hour
	everything.All = true
	return []PruneOptions{cheap, old, bounds, everything}
}

// gcPause is how long after a collection the next one waits: a listing costs time, and builds come in bursts.
const gcPause = 30 * time.Second

// GC prunes by each rule of a policy in turn; no rules are the default ones. Called after each build it does nothing where
// nothing was added since the last time, and waits for a while after the last time; an end of ctx ends the waiting.
func (s *Store) GC(ctx context.Context, policy []PruneOptions) error {
	s.mu.Lock()
	pause, due := time.Until(s.collected.Add(gcPause)), s.grown || len(s.cfg.Others) > 0 && time.Since(s.collected) > time.Hour
	s.mu.Unlock()
	if !due {
		return nil
	}
	if pause > 0 {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	s.mu.Lock()
	s.collected, s.grown = time.Now(), false
	s.mu.Unlock()
	if err := s.flush(); err != nil {
		return err
	}
	if !s.db.open() && len(s.cfg.Others) == 0 {
		return nil
	}
	if len(policy) == 0 {
		space, err := disk.Of(s.cfg.Root)
		if err != nil {
			return err
		}
		policy = DefaultPolicy(space.Total)
	}
	told := func(u Usage) {
		s.log.Debug("build cache: removed by policy", "id", u.ID, "type", u.Type, "bytes", u.Size)
	}
	if err := s.pruneByRules(ctx, policy, told); err != nil {
		return err
	}
	if err := s.thin(ctx, told); err != nil {
		return fault.In(err, "collect build cache")
	}
	return fault.In(s.db.tidy(), "collect build cache")
}

// thin removes the records that were not used for longest where there are more than is good, however little room they take.
func (s *Store) thin(ctx context.Context, told func(Usage)) error {
	c, err := s.db.crowd()
	if err != nil || c.records <= s.db.most.records {
		return err
	}
	_, err = s.pruneRecords(ctx, func(all []Usage) []Usage {
		all = slices.DeleteFunc(all, func(u Usage) bool { return u.rec == nil || u.InUse })
		slices.SortFunc(all, func(a, b Usage) int { return a.LastUsed.Compare(b.LastUsed) })
		return all[:max(len(all)-s.db.most.records*9/10, 0)]
	}, told)
	return err
}
