package buildkit_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/tonistiigi/fsutil"
)

// Who gets the error of a failed operation can look at its trees: of files, what each action left, and the inputs; of a step whose input has not
// what it reads, that input.
func TestTreesOfFailures(t *testing.T) {
	b := newBench(t)
	empty, err := fsutil.NewFS(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	made := llb.Scratch().File(llb.Mkdir("/d", 0o755).Mkfile("/d/f", 0o644, []byte("text")))
	for _, c := range []struct {
		name           string
		state          llb.State
		inputs, mounts int
		id             func(*errdefs.SolveError) string
		path           string
	}{
		{"what the failed action has", llb.Scratch().File(llb.Mkdir("/d", 0o755).Mkfile("/d/f", 0o644, []byte("text")).Mkfile("/no/f", 0o644, nil)), 0, 3,
			func(e *errdefs.SolveError) string { return e.MountIDs[e.Subject.(*errdefs.Solve_File).File.Index] }, "/d/f"},
		{"an input", llb.Local("empty").File(llb.Copy(made, "/d/f", "/no/f")), 2, 1, func(e *errdefs.SolveError) string { return e.InputIDs[1] }, "/d/f"},
		{"another action", llb.Local("empty").File(llb.Copy(llb.Mkdir("/d", 0o755).Mkfile("/d/f", 0o644, []byte("text")).WithState(llb.Scratch()), "/d/f", "/no/f")), 1, 3,
			func(e *errdefs.SolveError) string { return e.MountIDs[1] }, "/d/f"},
		{"an input that has not what is read", llb.Local("empty").Run(llb.Args([]string{"x"}), llb.AddMount("/m", made, llb.SourcePath("/none"), llb.Readonly)).Root(), 1, 0,
			func(e *errdefs.SolveError) string {
				_ = e.Subject.(*errdefs.Solve_Cache)
				return e.InputIDs[0]
			}, "/d/f"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ran := false
			_, err := b.client.Build(t.Context(), client.SolveOpt{LocalMounts: map[string]fsutil.FS{"empty": empty}}, "", func(ctx context.Context, gw gateway.Client) (*gateway.Result, error) {
				def, err := c.state.Marshal(ctx)
				if err != nil {
					return nil, err
				}
				_, err = gw.Solve(ctx, gateway.SolveRequest{Definition: def.ToPB(), Evaluate: true})
				var failed *errdefs.SolveError
				if !errors.As(err, &failed) {
					t.Fatalf("%v", err)
				}
				if len(failed.InputIDs) != c.inputs || len(failed.MountIDs) != c.mounts {
					t.Fatalf("%d inputs and %d mounts, want %d and %d", len(failed.InputIDs), len(failed.MountIDs), c.inputs, c.mounts)
				}
				box, err := gw.NewContainer(ctx, gateway.NewContainerRequest{NetMode: pb.NetMode_NONE, Mounts: []gateway.Mount{{Dest: "/", MountType: pb.MountType_BIND, ResultID: c.id(failed)}}})
				if err != nil {
					return nil, err
				}
				defer box.Release(ctx)
				data, err := box.ReadFile(ctx, gateway.ReadContainerRequest{ReadRequest: gateway.ReadRequest{Filename: c.path}})
				if err == nil && string(data) != "text" {
					t.Errorf("%q", data)
				}
				ran = true
				return gateway.NewResult(), err
			}, nil)
			if err != nil || !ran {
				t.Errorf("%v", err)
			}
		})
	}
}

// A process that may not be started is told as one that has ended: its client waits for it, and others go on.
func TestRefusedProcess(t *testing.T) {
	b := newBench(t)
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs /bin/busybox")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err = b.client.Build(ctx, client.SolveOpt{}, "", func(ctx context.Context, gw gateway.Client) (*gateway.Result, error) {
		def, err := llb.Scratch().File(llb.Mkfile("/busybox", 0o755, busybox)).Marshal(ctx)
		if err != nil {
			return nil, err
		}
		res, err := gw.Solve(ctx, gateway.SolveRequest{Definition: def.ToPB()})
		if err != nil {
			return nil, err
		}
		box, err := gw.NewContainer(ctx, gateway.NewContainerRequest{NetMode: pb.NetMode_NONE, Mounts: []gateway.Mount{{Dest: "/", MountType: pb.MountType_BIND, Ref: res.Ref}}})
		if err != nil {
			return nil, err
		}
		for mode, want := range map[pb.SecurityMode]string{pb.SecurityMode_INSECURE: "security.insecure is not allowed", 7: "invalid security mode"} {
			p, err := box.Start(ctx, gateway.StartRequest{Args: []string{"/busybox", "true"}, SecurityMode: mode})
			if err != nil {
				return nil, err
			}
			if err := p.Wait(); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		}
		p, err := box.Start(ctx, gateway.StartRequest{Args: []string{"/busybox", "sleep", "100"}})
		if err != nil {
			return nil, err
		}
		released := box.Release(ctx)
		for what, err := range map[string]error{"Release": released, "Wait": p.Wait()} {
			if err == nil || !strings.Contains(err.Error(), context.Canceled.Error()) {
				t.Errorf("%s of a container with a process that was ended: %v", what, err)
			}
		}
		return gateway.NewResult(), nil
	}, nil)
	if err != nil {
		t.Error(err)
	}
}

// What is not there is missing in BuildKit's words, which are others where there is nothing at all.
func TestMissingFiles(t *testing.T) {
	b := newBench(t)
	dir := b.context("Dockerfile", "FROM scratch AS none\nFROM scratch AS some\nCOPY Dockerfile /\nFROM scratch AS from-none\nCOPY --from=none /foo /\nFROM scratch AS from-some\nCOPY --from=some /foo /\n"+
		"FROM scratch AS from-context\nCOPY foo /\n")
	for target, want := range map[string]string{
		"from-none": "lstat /foo: no such file or directory", "from-some": `"/foo": not found`, "from-context": `"/foo": not found`,
	} {
		o := b.build(dir, func(o *client.SolveOpt) { o.FrontendAttrs["target"] = target })
		if o.err == nil || !strings.Contains(o.err.Error(), want) {
			t.Errorf("%s: %v, want %q", target, o.err, want)
		}
	}
	empty, err := fsutil.NewFS(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	def, err := llb.Scratch().File(llb.Copy(llb.Local("empty"), "/foo", "/")).Marshal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.client.Solve(t.Context(), def, client.SolveOpt{LocalMounts: map[string]fsutil.FS{"empty": empty}}, nil)
	if want := `"/foo": not found`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("of an empty directory: %v, want %q", err, want)
	}
}
