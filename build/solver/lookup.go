package solver

import (
	"context"
	"slices"

	digest "github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/build/cache"
)

// lookup looks for a record under the newest of the keys, here and then in what the build imports. What is found under
// one key is remembered under all.
func (n *node) lookup(ctx context.Context, keys []digest.Digest, solid bool) (*outcome, error) {
	asks := !n.ignoresCache()
	if !asks && !n.isFresh(keys) {
		return nil, nil
	}
	out, err := n.lookupHere(ctx, keys)
	if err != nil {
		return nil, err
	}
	if asks && (out == nil || out.Ghost) {
		there, err := n.lookupThere(ctx, keys)
		if err != nil {
			return nil, err
		}
		if there != nil && (out == nil || !there.Ghost) {
			out = there
		}
	}
	if out == nil || out.Ghost && solid {
		return nil, nil
	}
	out.Keys = union(keys, out.Keys)
	if !asks {
		n.b.s.fresh.add(n.b, n.v.Digest, keys)
	}
	n.fan.found()
	return out, nil
}

func (n *node) ignoresCache() bool { return n.b.cfg.NoCache || n.v.IgnoreCache }

// isFresh tells of a step that ignores the cache whether a build that is still open has run it.
func (n *node) isFresh(keys []digest.Digest) bool {
	return !n.b.cfg.NoCache && n.b.s.fresh.has(n.v.Digest, keys[len(keys)-1])
}

func (n *node) lookupHere(ctx context.Context, keys []digest.Digest) (*outcome, error) {
	rec := n.b.s.cfg.Cache.Lookup(keys[len(keys)-1])
	if rec == nil || len(rec.Outputs) != n.v.Outputs {
		return nil, nil
	}
	if len(keys) > 1 {
		n.b.s.cfg.Cache.Alias(rec.ID, keys...)
	}
	out, err := n.b.ofChains(ctx, n.v, rec.Outputs, rec.Created, rec.Ghost, nil)
	if out != nil {
		out.Keys = rec.Keys
	}
	return out, err
}

// union gives the keys of both lists, the first ones first.
func union(a, b []digest.Digest) []digest.Digest {
	list := slices.Clone(a)
	for _, k := range b {
		if !slices.Contains(list, k) {
			list = append(list, k)
		}
	}
	return list
}

// lookupThere asks the caches that the build imports. One that fails is passed over: a cache is a help and no need.
func (n *node) lookupThere(ctx context.Context, keys []digest.Digest) (*outcome, error) {
	var ghost *outcome
	n.mu.Lock()
	distrust := n.distrust
	n.mu.Unlock()
	if distrust {
		return nil, nil
	}
	for _, remote := range n.b.imports() {
		found, err := remote.Lookup(ctx, keys[len(keys)-1])
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil || found == nil || len(found.Outputs) != n.v.Outputs {
			if err != nil && !fault.Is(err, fault.NotFound) {
				n.b.s.log.Warn("ask an imported build cache", "vertex", n.v.Name, "err", err)
			}
			continue
		}
		if found.Provide == nil {
			if ghost == nil {
				if ghost, err = n.b.ofChains(ctx, n.v, found.Outputs, found.Created, true, nil); err != nil {
					return nil, err
				}
				ghost.Keys = found.Keys
			}
			continue
		}
		all := union(keys, found.Keys)
		out, err := n.b.ofChains(ctx, n.v, found.Outputs, found.Created, false, n.provider(found, all))
		if out != nil {
			out.Keys, out.imported = all, true
		}
		return out, err
	}
	return ghost, nil
}

// provider brings the layers of a remote's record and keeps the record here then.
func (n *node) provider(found *cache.Found, keys []digest.Digest) func(context.Context, int) error {
	return func(ctx context.Context, output int) error {
		if err := found.Provide(ctx, output); err != nil {
			return err
		}
		outputs := make([][]digest.Digest, len(found.Outputs))
		outputs[output] = found.Outputs[output]
		made := 0
		for _, chain := range found.Outputs {
			if chain != nil {
				made++
			}
		}
		if made > 1 {
			return nil // the others may not be here
		}
		n.put(cache.Record{Keys: keys, Outputs: outputs, Type: cache.Regular, Description: n.v.Name, Created: found.Created})
		return nil
	}
}

// put puts a record. That it cannot be kept is no failure of what it is about: a cache is a help and no need.
func (n *node) put(rec cache.Record, pending ...cache.Pending) {
	if err := n.b.s.cfg.Cache.Put(rec, pending...); err != nil {
		n.b.s.log.Warn("a step is not remembered", "vertex", n.v.Name, "err", err)
	}
}
