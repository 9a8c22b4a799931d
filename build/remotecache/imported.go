package remotecache

import (
	"context"
	"errors"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"berth/base/fault"
	"berth/build/cache"
	"berth/build/session"
	"berth/image"
	layerstore "berth/image/layer"
)

// imported is a table that a build asks.
type imported struct {
	c     *Caches
	p     place
	t     *table
	keys  map[digest.Digest]int                // records
	blobs map[digest.Digest]ocispec.Descriptor // by diff id

	mu      sync.Mutex
	fetches map[digest.Digest]*fetch // of layers that are on their way
	there   map[digest.Digest]bool   // blobs that the place was asked for, by diff id
}

// fetch is a layer on its way, for all who want it.
type fetch struct {
	done chan struct{}
	err  error
}

var _ cache.Remote = (*imported)(nil)

func (c *Caches) imported(p place, doc *document) (*imported, error) {
	im := &imported{c: c, p: p, t: doc.Berth, keys: map[digest.Digest]int{}, blobs: map[digest.Digest]ocispec.Descriptor{}, fetches: map[digest.Digest]*fetch{}, there: map[digest.Digest]bool{}}
	for i, r := range doc.Berth.Records {
		for _, k := range r.Keys {
			im.keys[k] = i
		}
	}
	for _, l := range doc.Layers {
		im.blobs[l.Annotations.DiffID] = ocispec.Descriptor{MediaType: l.Annotations.MediaType, Digest: l.Blob, Size: l.Annotations.Size}
	}
	return im, nil
}

// Lookup gives the record of a key.
func (im *imported) Lookup(ctx context.Context, key digest.Digest) (*cache.Found, error) {
	i, ok := im.keys[key]
	if !ok {
		return nil, fault.New(fault.NotFound, "%s does not know %s", im.p.name(), key)
	}
	r := im.t.Records[i]
	f := &cache.Found{Keys: r.Keys, Created: r.Created, Name: r.Name}
	some := false // of several outputs often one only is wanted, and is all that was exported
	for _, o := range r.Outputs {
		chain, err := im.t.chain(o)
		if err != nil {
			return nil, err
		}
		f.Outputs = append(f.Outputs, chain)
		some = some || chain != nil && im.complete(ctx, chain)
	}
	if some {
		f.Provide = func(ctx context.Context, output int) error {
			if output < 0 || output >= len(f.Outputs) {
				return fault.New(fault.Internal, "the step has %d outputs, not %d", len(f.Outputs), output+1)
			}
			return im.provide(ctx, f.Outputs[output])
		}
	}
	return f, nil
}

// complete reports whether every layer of a chain is here or has a blob there. The place is asked, once for each: registries and buckets are
// cleaned, and a step whose layers went is better run again than found.
func (im *imported) complete(ctx context.Context, chain []digest.Digest) bool {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2 * downloads)
	for _, d := range chain {
		im.mu.Lock()
		there, asked := im.there[d]
		im.mu.Unlock()
		desc, told := im.blobs[d]
		switch {
		case there || im.c.layers().Has(d):
			continue
		case asked || !told:
			_ = g.Wait()
			return false
		}
		g.Go(session.Safe(func() error {
			there, err := im.p.has(ctx, desc)
			if err != nil {
				return err // who knows: it is asked again the next time
			}
			im.mu.Lock()
			im.there[d] = there
			im.mu.Unlock()
			if !there {
				im.c.log.Warn("a remote cache has lost a layer", "cache", im.p.name(), "layer", d, "blob", desc.Digest)
				return fault.New(fault.NotFound, "%s is not there", desc.Digest)
			}
			return nil
		}))
	}
	return g.Wait() == nil
}

func (c *Caches) layers() *layerstore.Store { return c.cfg.Images.Layers() }

// downloads are the layers that come at a time.
const downloads = 4

// provide brings the layers of a chain here and holds each once, or none.
func (im *imported) provide(ctx context.Context, chain []digest.Digest) error {
	layers := im.c.layers()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(downloads)
	held := make([]bool, len(chain))
	for i, d := range chain {
		g.Go(session.Safe(func() error {
			err := im.bring(gctx, d)
			held[i] = err == nil
			return fault.In(err, "layer %s from %s", d, im.p.name())
		}))
	}
	err := g.Wait()
	if err != nil {
		for i, d := range chain {
			if held[i] {
				layers.Release(d)
			}
		}
	}
	return err
}

// bring has one layer here, held for the caller.
func (im *imported) bring(ctx context.Context, d digest.Digest) error {
	layers := im.c.layers()
	for {
		if layers.Retain(d) == nil {
			return nil
		}
		im.mu.Lock()
		f := im.fetches[d]
		if f == nil {
			f = &fetch{done: make(chan struct{})}
			im.fetches[d] = f
			im.mu.Unlock()
			f.err = im.fetch(ctx, d)
			im.mu.Lock()
			delete(im.fetches, d)
			im.mu.Unlock()
			close(f.done)
			return f.err
		}
		im.mu.Unlock()
		select {
		case <-f.done: // it is here now, unless that failed; who gave up says nothing of the others
			if f.err != nil && !errors.Is(f.err, context.Canceled) {
				return f.err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// fetch gets a layer's blob and unpacks it: what is not the layer that its name says never gets there.
func (im *imported) fetch(ctx context.Context, d digest.Digest) error {
	desc, ok := im.blobs[d]
	if !ok {
		return fault.New(fault.NotFound, "it has no blob there")
	}
	r, err := im.p.get(ctx, desc)
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := im.c.layers().Add(ctx, r, d); err != nil {
		return err
	}
	if s := im.p.source(desc); s != nil {
		if err := im.c.cfg.Images.AddSources(map[digest.Digest]image.Source{d: *s}); err != nil {
			im.c.log.Warn("where a layer came from is not recorded", "layer", d, "err", err)
		}
	}
	return nil
}
