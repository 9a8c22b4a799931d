package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/base/ref"
	"berth/image"
	"berth/image/lazy"
	"berth/image/remote"
	"berth/kernel/probe"
	"berth/kernel/process"
	"berth/runtime/keeper"
)

// lastPatience bounds the wait for an engine that was killed and has not ended yet.
const lastPatience = 5 * time.Second

// openImages opens the image store. One that is in use may belong to an engine that was killed a moment ago, or that looked into a
// lazy layer that it served itself and cannot end before somebody answers it: we do.
func openImages(ctx context.Context, cfg config, c image.Config, log *slog.Logger) (*image.Store, error) {
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		s, err := image.Open(c)
		if err == nil || !fault.Is(err, fault.Conflict) || !ending(cfg.Pidfile) || time.Since(start) > lastPatience {
			return s, err
		}
		k, kerr := keeper.Dial(ctx, cfg.ExecRoot)
		if kerr != nil {
			continue
		}
		released, kerr := lazy.Rescue(ctx, k)
		k.Close()
		if released > 0 || kerr != nil {
			log.Warn("an engine that was killed waited for a lazy layer of its own", "requests", released, "error", kerr)
		}
	}
}

// ending reports whether the engine of a pidfile is gone or being killed.
func ending(pidfile string) bool {
	text, err := os.ReadFile(pidfile)
	if err != nil {
		return false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return false
	}
	st, err := process.ReadStat(pid)
	return err != nil || st.State == 'Z' || st.State == 'X' || process.Killed(pid)
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
