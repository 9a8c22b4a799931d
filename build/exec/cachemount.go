package exec

import (
	"context"

	"berth/base/fault"
	"berth/build/cache"
	"berth/kernel/tree"
)

// cachePlace prepares a cache mount. What it is filled with at first, where the step names an input for it, is part of its key.
func (b *box) cachePlace(ctx context.Context, p *place) error {
	o := p.m.CacheOpt
	if o == nil {
		return fault.New(fault.Invalid, "missing cache mount options")
	}
	key := o.ID
	if p.in != nil {
		base, err := p.in.Identity(ctx)
		if err != nil {
			return err
		}
		key += ":" + base.String()
	}
	h := b.held[key] // one step that mounts a cache twice sees it twice
	if h == nil {
		description := "cached mount " + p.m.Dest + " from " + b.cfg.what
		if o.ID != p.m.Dest {
			description += " with id \"" + o.ID + "\""
		}
		var err error
		h, err = b.r.caches.get(ctx, key, description, o.Sharing, func(dir string) error { return fillCache(ctx, p, dir) })
		if err != nil {
			return err
		}
		if b.held == nil {
			b.held = map[string]*hold{}
		}
		b.held[key] = h
	}
	if p.m.Readonly {
		p.options = []string{"ro"}
	}
	dir, err := tree.OpenDir(h.dir())
	if err != nil {
		return err
	}
	p.undo = append(p.undo, func() { dir.Close() })
	p.fd, p.borrows = dir.FD(), true
	return b.selectPart(p, p.m.Selector)
}

// fillCache copies the input into a new cache mount.
func fillCache(ctx context.Context, p *place, dir string) error {
	if p.in == nil {
		return nil
	}
	return p.in.View(ctx, func(from *tree.Dir) error {
		to, err := tree.OpenDir(dir)
		if err != nil {
			return err
		}
		defer to.Close()
		return copyTree(ctx, from, to)
	})
}

// Usage lists the cache mounts, for the build cache's disk usage.
func (r *Runner) Usage(ctx context.Context) ([]cache.Usage, error) {
	var out []cache.Usage
	for _, d := range r.caches.list() {
		size, err := r.caches.measure(ctx, d)
		if err != nil {
			return nil, err
		}
		out = append(out, cache.Usage{ID: d.id, Type: cache.CacheMount, Description: d.Description, Size: size, Created: d.Created, LastUsed: d.LastUsed,
			Uses: d.Uses, InUse: d.users > 0, Mutable: true})
	}
	return out, nil
}

// Remove removes a cache mount by the id that Usage told; one that is in use is left.
func (r *Runner) Remove(_ context.Context, id string) error { return r.caches.remove(id) }
