package build

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	gateway "github.com/moby/buildkit/frontend/gateway/client"
	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"berth/base/fault"
	"berth/build/frontend"
	"berth/build/progress"
	"berth/build/remotecache"
	"berth/build/session"
)

// importer opens the caches that a build names, each once.
type importer struct {
	j    *job
	mu   sync.Mutex
	done map[string]*sync.Once // by keyOf
}

// add lets the solver look into a cache. One that cannot be had shows as a failed step, and the build goes on
// without it: it may not have been exported yet.
func (i *importer) add(ctx context.Context, e gateway.CacheOptionsEntry) error {
	req := remotecache.Request{Type: e.Type, Attrs: e.Attrs}
	name, key := i.j.p.remote.ImportName(req), keyOf(req)
	i.mu.Lock()
	once := i.done[key]
	if once == nil && len(i.done) >= maxCaches {
		i.mu.Unlock()
		return fault.New(fault.Invalid, "the build imports %d caches already, which is the most", maxCaches)
	}
	if once == nil {
		once = &sync.Once{}
		i.done[key] = once
	}
	i.mu.Unlock()
	once.Do(func() {
		vertex := digest.FromString(i.j.req.ID + "/" + key)
		err := frontend.Step(i.j.run.hub, vertex, name, func() error {
			r, err := i.j.p.remote.Import(ctx, req, i.j.req.Session)
			if err == nil {
				i.j.build.Import(r)
			}
			return err
		})
		if err != nil {
			i.j.b.log.Debug("a cache cannot be imported", "id", i.j.req.ID, "cache", name, "err", err)
		}
	})
	return nil
}

// keyOf tells caches apart.
func keyOf(req remotecache.Request) string {
	key := fmt.Sprintf("%q", req.Type)
	for _, k := range slices.Sorted(maps.Keys(req.Attrs)) {
		key += fmt.Sprintf(" %q=%q", k, req.Attrs[k])
	}
	return key
}

// prepareCaches checks the caches to be written.
func (j *job) prepareCaches() error {
	for _, c := range j.req.CacheExports {
		t, err := j.p.remote.Target(remotecache.Request{Type: c.Type, Attrs: c.Attrs})
		if err != nil {
			return err
		}
		if t.Inline() {
			j.inline = true
			continue
		}
		j.targets = append(j.targets, t)
	}
	return nil
}

// exportCaches writes what was built to the caches that are wanted, all at once.
func (j *job) exportCaches(ctx context.Context) (map[string]string, error) {
	var refs []remotecache.Ref
	err := frontend.EachReference(j.result, func(r *frontend.Reference) error {
		refs = append(refs, r.Ref())
		return nil
	})
	if err != nil {
		return nil, err
	}
	told := map[string]string{}
	var mu sync.Mutex
	eg, ctx := errgroup.WithContext(ctx)
	for n, t := range j.targets {
		eg.Go(session.Safe(func() error {
			vertex := digest.FromString(j.req.ID + "/cache/" + string(rune('0'+n)) + t.Name())
			err := frontend.Step(j.run.hub, vertex, t.Name(), func() error {
				resp, err := t.Export(ctx, refs, remotecache.Run{Session: j.req.Session, Status: func(s progress.Status) {
					s.Vertex = vertex
					j.run.hub.Status(s)
				}})
				mu.Lock()
				maps.Copy(told, resp)
				mu.Unlock()
				return err
			})
			if err != nil && t.IgnoreError() {
				j.b.log.Debug("a cache was not written", "id", j.req.ID, "cache", t.Name(), "err", err)
				return nil
			}
			return err
		}))
	}
	return told, eg.Wait()
}
