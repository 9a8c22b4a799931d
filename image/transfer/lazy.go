package transfer

import (
	"context"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/image"
	"berth/image/layer"
	"berth/image/lazy"
)

// Lazy serves layers before they are here; *lazy.Manager is one.
type Lazy interface {
	// Can reports whether a layer says of itself that it can be served so.
	Can(d ocispec.Descriptor) bool
	// Add puts the layer into the layer store, with a hold for the caller, and begins to fetch it in the background. After an
	// error nothing is left of it.
	Add(ctx context.Context, l lazy.Layer) (layer.Info, error)
	// Supply gives a layer that is still on its way the credentials of this pull. It does nothing for others.
	Supply(d digest.Digest, from lazy.Ranger)
	// Vouches reports whether what is shown of a layer that is not here yet is what this descriptor's manifest says.
	Vouches(diffID digest.Digest, d ocispec.Descriptor) bool
}

// good reports whether a layer of the store is the one that a manifest means. One that was unpacked is: its content was compared with its id.
// Of one that is only shown, no more is known than what the manifest says that it was shown for; for another manifest it is
// fetched, which puts it into its place.
func (t *Transfer) good(l *PullLayer) bool {
	info, err := t.cfg.Images.Layers().Stat(l.DiffID)
	if err != nil {
		return false
	}
	return !info.Lazy || t.cfg.Lazy != nil && t.cfg.Lazy.Vouches(l.DiffID, l.Descriptor)
}

// addLazy has the layers served that need not be fetched first. What cannot be is fetched like any other.
func (t *Transfer) addLazy(ctx context.Context, p *PullImage, b *board, hold *image.Hold) error {
	if t.cfg.Lazy == nil {
		return nil
	}
	errs := make([]error, len(p.Layers))
	var wg sync.WaitGroup
	for i := range p.Layers {
		l := &p.Layers[i]
		switch l.Do {
		case Here:
			t.cfg.Lazy.Supply(l.DiffID, p.repo)
		case Remote:
			wg.Go(func() {
				_, err := t.cfg.Lazy.Add(ctx, lazy.Layer{Descriptor: l.Descriptor, DiffID: l.DiffID, Repository: p.Name.Repository(), From: p.repo})
				if err == nil {
					if errs[i] = hold.AdoptLayers(l.DiffID); errs[i] == nil && !t.good(l) {
						l.Do = Fetch // somebody else's came first
						return
					}
					b.status(short(l.Digest), "Pull complete, fetched in the background")
					return
				}
				t.log.Info("a layer that says it can be served lazily is fetched whole", "layer", l.Digest, "err", err)
				l.Do = Fetch
			})
		}
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}
