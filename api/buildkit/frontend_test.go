package buildkit_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/frontend/gateway/grpcclient"
	"golang.org/x/sys/unix"

	"berth/build"
	"berth/build/exec"
)

// TestMain lets this program be a frontend, too: the test puts it into an image.
func TestMain(m *testing.M) {
	if os.Getenv("BUILDKIT_EXPORTEDPRODUCT") == "" {
		os.Exit(m.Run())
	}
	if err := grpcclient.RunFromEnvironment(context.Background(), miniFrontend); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// filesOfFrontend is a limit that a test gives.
const filesOfFrontend = 77

// miniFrontend makes a file that tells what it was asked for.
func miniFrontend(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
	opts := c.BuildOpts().Opts
	switch opts["do"] {
	case "fail":
		return nil, errors.New("the frontend does not want to")
	case "again":
		return c.Solve(ctx, gateway.SolveRequest{Frontend: "gateway.v0", FrontendOpt: opts})
	case "limit":
		var files unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil || files.Max != filesOfFrontend {
			return nil, fmt.Errorf("%d files may be open, %w", files.Max, err)
		}
	case "die":
		fmt.Fprintln(os.Stderr, "the frontend dies")
		os.Exit(4)
	}
	if own, err := os.ReadFile("/run/config/buildkit/metadata/frontend.bin"); err != nil || len(own) == 0 {
		return nil, fmt.Errorf("the frontend does not find its own definition: %w", err)
	}
	def, err := llb.Scratch().File(llb.Mkfile("/made", 0o644, []byte(opts["do"]+" on "+c.BuildOpts().Workers[0].Platforms[0].OS))).Marshal(ctx)
	if err != nil {
		return nil, err
	}
	return c.Solve(ctx, gateway.SolveRequest{Definition: def.ToPB()})
}

// A frontend may be an image: it runs as a container that speaks the gateway on its stdio.
func TestFrontendByImage(t *testing.T) {
	b := newBench(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	dir := b.context("fe", string(program), "Dockerfile", "FROM scratch\nCOPY --chmod=755 fe /fe\nENTRYPOINT [\"/fe\"]\nLABEL moby.buildkit.frontend.network.none=true\n")
	made := b.build(dir, func(o *client.SolveOpt) {
		o.Exports = []client.ExportEntry{{Type: "moby", Attrs: map[string]string{"name": "docker.io/test/fe:1"}}}
	})
	if made.err != nil {
		t.Fatal(made.err)
	}
	ask := func(do, out string) *outcome {
		return b.build(t.TempDir(), func(o *client.SolveOpt) {
			o.Frontend, o.FrontendAttrs = "gateway.v0", map[string]string{"source": "test/fe:1", "do": do}
			if out != "" {
				o.Exports = []client.ExportEntry{{Type: client.ExporterLocal, OutputDir: out}}
			}
		})
	}
	out := t.TempDir()
	if o := ask("something", out); o.err != nil {
		if strings.Contains(o.err.Error(), "no such file or directory") {
			t.Skip("needs a test program without libc: CGO_ENABLED=0")
		}
		t.Fatal(o.err)
	}
	if data, err := os.ReadFile(filepath.Join(out, "made")); err != nil || string(data) != "something on linux" {
		t.Errorf("the frontend made %q, %v", data, err)
	}
	for do, want := range map[string]string{"fail": "the frontend does not want to", "again": "frontends call each other more than 16 deep", "die": "the frontend dies"} {
		if o := ask(do, ""); o.err == nil || !strings.Contains(o.err.Error(), want) {
			t.Errorf("%s: error is %v, want %q in it", do, o.err, want)
		}
	}
	_, err = b.builder.Solve(t.Context(), build.Request{
		Frontend: "gateway.v0", FrontendAttrs: map[string]string{"source": "test/fe:1", "do": "limit"},
		Limits: exec.Limits{Ulimits: []exec.Ulimit{{Name: "nofile", Soft: filesOfFrontend, Hard: filesOfFrontend}}},
	})
	if err != nil {
		t.Errorf("a build's limits do not bound its frontend: %v", err)
	}
	needs := b.build(t.TempDir(), func(o *client.SolveOpt) {
		o.Frontend, o.FrontendAttrs = "gateway.v0", map[string]string{"source": "test/fe:1", "frontend.caps": "moby.buildkit.frontend.contexts"}
	})
	if needs.err == nil || !strings.Contains(needs.err.Error(), "moby.buildkit.frontend.contexts") {
		t.Errorf("a frontend that cannot what is asked for: %v", needs.err)
	}
}
