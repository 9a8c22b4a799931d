package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/base/ref"
	"berth/image"
	"berth/image/lazy"
	"berth/image/remote"
	"berth/kernel/probe"
	"berth/runtime/keeper"
)

// openImages opens the image store. One that is in use may belong to an engine that was killed while it looked into a lazy layer
// that it served itself, and cannot end before somebody answers it: we do.
func openImages(ctx context.Context, cfg config, c image.Config, log *slog.Logger) (*image.Store, error) {
	s, err := image.Open(c)
	for range 10 {
		if err == nil || !fault.Is(err, fault.Conflict) {
			return s, err
		}
		k, kerr := keeper.Dial(ctx, cfg.ExecRoot)
		if kerr != nil {
			return nil, err
		}
		released, kerr := lazy.Rescue(ctx, k)
		k.Close()
		if kerr != nil || released == 0 {
			return nil, err
		}
		log.Warn("an engine that was killed waited for a lazy layer of its own", "requests", released)
		time.Sleep(100 * time.Millisecond)
		s, err = image.Open(c)
	}
	return s, err
}

// openLazy takes up layers that are served while they are fetched. The keeper and the client of registries are open.
func (r *rooms) openLazy(ctx context.Context, cfg config) (err error) {
	r.lazy, err = lazy.Open(ctx, lazy.Config{
		Root: filepath.Join(cfg.DataRoot, "image", "lazy"), Layers: r.images.Layers(), Keeper: r.keeper, Facts: probe.Host(), Log: r.log,
		Open: func(_ context.Context, repository string, _ ocispec.Descriptor) (lazy.Ranger, error) {
			name, err := ref.Parse(repository)
			if err != nil {
				return nil, err
			}
			return r.remote.Repository(name, remote.Credentials{}), nil
		},
	})
	return err
}
