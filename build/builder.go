package build

import (
	"context"
	"log/slog"

	"berth/base/fault"
	"berth/image"
	"berth/image/transfer"
	"berth/kernel/probe"
)

// Config says where the builder works and what it works with.
type Config struct {
	DataRoot     string // the engine's; the builder owns DATA-ROOT/build
	ExecRoot     string // the engine's; the builder owns EXEC-ROOT/build
	CgroupParent string // steps run in CGROUP-PARENT/build-ID

	Images   *image.Store
	Transfer *transfer.Transfer // pulls bases and pushes results

	Version string // of the engine, told to clients and written into provenance
	Facts   probe.Features
	Log     *slog.Logger
}

// Builder is the open room. It is safe for concurrent use.
type Builder struct {
	cfg Config
	log *slog.Logger
}

// Open makes a builder. It only looks at its directory; the parts open when they are needed.
func Open(cfg Config) (*Builder, error) {
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Builder{cfg: cfg, log: log}, nil
}

// Close cancels the builds under way, waits for them and closes the parts.
func (b *Builder) Close() error { return nil }

func (b *Builder) solve(ctx context.Context, req Request) (*Response, error) {
	return nil, fault.New(fault.NotImplemented, "build: not joined yet")
}
