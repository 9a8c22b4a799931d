package cache

import (
	"context"
	"time"

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

// GC prunes by each rule of a policy in turn; no rules are the default ones. A cache without records takes no time.
func (s *Store) GC(ctx context.Context, policy []PruneOptions) error {
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
	for _, o := range policy {
		if err := s.Prune(ctx, o, func(u Usage) {
			s.log.Debug("build cache: removed by policy", "id", u.ID, "type", u.Type, "bytes", u.Size)
		}); err != nil {
			return err
		}
	}
	return nil
}
