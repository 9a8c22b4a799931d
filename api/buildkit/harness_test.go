package buildkit_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/tonistiigi/fsutil"

	"berth/api/buildkit"
	"berth/build"
	"berth/image"
)

// bench is an engine's builder behind its door, with a client of BuildKit's library.
type bench struct {
	t       *testing.T
	dir     string
	images  *image.Store
	builder *build.Builder
	client  *client.Client
	door    *buildkit.Server
}

// newBench opens a builder on empty directories. change, if there is one, changes its configuration.
func newBench(t *testing.T, change ...func(*build.Config)) *bench {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: builds mount overlay file systems")
	}
	b := &bench{t: t, dir: t.TempDir()}
	log := slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	if b.images, err = image.Open(image.Config{Root: filepath.Join(b.dir, "data", "image"), Log: log}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.images.Close() })
	cfg := build.Config{
		DataRoot: filepath.Join(b.dir, "data"), ExecRoot: filepath.Join(b.dir, "exec"), CgroupParent: fmt.Sprintf("/berth-test-%d", os.Getpid()),
		Images: b.images, Version: "test", Log: log, Entitlements: []string{"network.host", "security.insecure", "device"},
	}
	for _, f := range change {
		f(&cfg)
	}
	if b.builder, err = build.Open(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.builder.Close(); err != nil {
			t.Errorf("close the builder: %v", err)
		}
		for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
			list, _ := filepath.Glob(pattern + cfg.CgroupParent)
			for _, dir := range list {
				_ = os.Remove(dir) // one that is not empty stays
			}
		}
	})
	b.door = buildkit.New(buildkit.Config{Builder: b.builder, Log: log})
	l, err := net.Listen("unix", filepath.Join(b.dir, "bk.sock"))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- b.door.Serve(l) }()
	t.Cleanup(func() {
		b.door.Close()
		<-served
	})
	if b.client, err = client.New(t.Context(), "unix://"+l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.client.Close() })
	return b
}

// context writes files (name, content, …) into a new directory.
func (b *bench) context(files ...string) string {
	b.t.Helper()
	dir := b.t.TempDir()
	for i := 0; i < len(files); i += 2 {
		path := filepath.Join(dir, files[i])
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			b.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(files[i+1]), 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
	return dir
}

// outcome is what a build said and did.
type outcome struct {
	resp     *client.SolveResponse
	err      error
	vertices map[string]*client.Vertex // by name, the newest state
	log      strings.Builder
}

// cached reports whether the step whose name holds what was cached.
func (o *outcome) cached(what string) bool {
	for name, v := range o.vertices {
		if strings.Contains(name, what) {
			return v.Cached
		}
	}
	return false
}

// build builds a directory with the Dockerfile frontend.
func (b *bench) build(dir string, change func(*client.SolveOpt)) *outcome {
	b.t.Helper()
	fs, err := fsutil.NewFS(dir)
	if err != nil {
		b.t.Fatal(err)
	}
	opt := client.SolveOpt{
		Frontend: "dockerfile.v0", FrontendAttrs: map[string]string{},
		LocalMounts: map[string]fsutil.FS{"context": fs, "dockerfile": fs},
	}
	if change != nil {
		change(&opt)
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	o := &outcome{vertices: map[string]*client.Vertex{}}
	status := make(chan *client.SolveStatus)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for s := range status {
			for _, v := range s.Vertexes {
				o.vertices[v.Name] = v
			}
			for _, l := range s.Logs {
				o.log.Write(l.Data)
			}
		}
	}()
	o.resp, o.err = b.client.Solve(ctx, nil, opt, status)
	<-done
	return o
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	if w.t.Context().Err() == nil {
		w.t.Log(strings.TrimSpace(string(p)))
	}
	return len(p), nil
}
