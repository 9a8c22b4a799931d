package oracle

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/moby/buildkit/client"

	"berth/api/buildkit"
	"berth/build"
	"berth/image"
)

// startBerth serves Berth's builder on a socket and gives a client of it.
func startBerth(t testing.TB) *client.Client {
	t.Helper()
	root := t.TempDir()
	removeCgroups(t)
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("ORACLE_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	images, err := image.Open(image.Config{Root: filepath.Join(root, "data", "image"), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { images.Close() })
	builder, err := build.Open(build.Config{
		DataRoot: filepath.Join(root, "data"), ExecRoot: filepath.Join(root, "exec"), CgroupParent: cgroupParent(), Images: images,
		Version: "oracle", Log: log, Entitlements: []string{"network.host", "security.insecure"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := builder.Close(); err != nil {
			t.Errorf("close the builder: %v", err)
		}
	})
	door := buildkit.New(buildkit.Config{Builder: builder, Log: log})
	l, err := net.Listen("unix", filepath.Join(root, "s"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		door.Serve(l)
	}()
	t.Cleanup(func() {
		door.Close()
		<-done
	})
	return dial(t, l)
}
