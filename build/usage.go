package build

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"berth/build/cache"
)

// DiskUsage lists what builds keep, by BuildKit's filters.
func (b *Builder) DiskUsage(ctx context.Context, filters []string) ([]cache.Usage, error) {
	if b.untouched() {
		return nil, nil
	}
	p, err := b.parts()
	if err != nil {
		return nil, err
	}
	return p.cache.DiskUsage(ctx, filters)
}

// Prune removes what the options say and tells each thing that is gone.
func (b *Builder) Prune(ctx context.Context, o cache.PruneOptions, told func(cache.Usage)) error {
	if b.untouched() {
		return nil
	}
	p, err := b.parts()
	if err != nil {
		return err
	}
	return p.cache.Prune(ctx, o, told)
}

// untouched reports whether nothing was ever built here: then nothing is kept, and a question makes no directories, for which a full
// disk has no room.
func (b *Builder) untouched() bool {
	_, err := os.Stat(filepath.Join(b.cfg.DataRoot, "build"))
	return errors.Is(err, fs.ErrNotExist)
}

// collect removes what is beyond the cache's policy, after a build and not in its way; one at a time.
func (b *Builder) collect(p *parts) {
	b.mu.Lock()
	if b.cfg.NoGC || b.collecting != nil || b.leaving {
		b.mu.Unlock()
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.collecting = cancel
	b.working.Add(1)
	b.mu.Unlock()
	go func() {
		defer b.working.Done()
		defer cancel()
		if err := p.cache.GC(ctx, b.cfg.Policy); err != nil && !errors.Is(err, context.Canceled) {
			b.log.Warn("the build cache is not collected", "err", err)
		}
		b.mu.Lock()
		b.collecting = nil
		b.mu.Unlock()
	}()
}
