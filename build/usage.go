package build

import (
	"context"

	"berth/build/cache"
)

// DiskUsage lists what builds keep, by BuildKit's filters.
func (b *Builder) DiskUsage(ctx context.Context, filters []string) ([]cache.Usage, error) {
	p, err := b.parts()
	if err != nil {
		return nil, err
	}
	return p.cache.DiskUsage(ctx, filters)
}

// Prune removes what the options say and tells each thing that is gone.
func (b *Builder) Prune(ctx context.Context, o cache.PruneOptions, told func(cache.Usage)) error {
	p, err := b.parts()
	if err != nil {
		return err
	}
	return p.cache.Prune(ctx, o, told)
}
