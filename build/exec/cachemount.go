package exec

import (
	"context"
	"slices"

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
	if err := b.shareCache(h.dir()); err != nil {
		return err
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

// CacheKeys lists the keys of cache mounts, sorted: the id, and behind a colon the identity of what one was filled with at first.
func (r *Runner) CacheKeys() []string {
	var keys []string
	for _, d := range r.caches.list() {
		keys = append(keys, d.Key)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// ReadCache gives f the files of the newest cache mount of a key, which no step uses meanwhile; it waits for that. NotFound: there is
// none.
func (r *Runner) ReadCache(ctx context.Context, key string, f func(root *tree.Dir) error) error {
	h, err := r.caches.existing(ctx, key)
	if err != nil {
		return err
	}
	defer h.release()
	return inside(h.dir(), f)
}

// FillCache makes a cache mount and lets f fill it, unless there is one of that key: then it is false. One that could not be filled is
// taken away.
func (r *Runner) FillCache(ctx context.Context, key, description string, f func(root *tree.Dir) error) (filled bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	return r.caches.fresh(key, description, func(dir string) error { return inside(dir, f) })
}

func inside(dir string, f func(root *tree.Dir) error) error {
	root, err := tree.OpenDir(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return f(root)
}
