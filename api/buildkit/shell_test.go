package buildkit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/tonistiigi/fsutil"
)

// shell is what a client does whose step failed: it opens a shell there, and a person sits before it.
type shell struct {
	open  chan bool  // closed when it runs
	leave chan bool  // closed for the client to give up
	over  chan error // what the build came to
	stdin *io.PipeWriter
	pid   string // a word in the command line of what runs in it
}

// openShell fails a step and opens a shell in it that hears no signal but the last one.
func (b *bench) openShell(ctx context.Context, tty bool) *shell {
	b.t.Helper()
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		b.t.Skip("needs busybox: a static program for containers")
	}
	dir := b.context("busybox", string(busybox), "Dockerfile", "FROM scratch\nCOPY --chmod=755 busybox /bin/sh\nRUN --network=none exit 9\n")
	fs, err := fsutil.NewFS(dir)
	if err != nil {
		b.t.Fatal(err)
	}
	in, stdin := io.Pipe()
	s := &shell{open: make(chan bool), leave: make(chan bool), over: make(chan error, 1), stdin: stdin, pid: fmt.Sprintf("%d", time.Now().UnixNano())}
	opt := client.SolveOpt{FrontendAttrs: map[string]string{}, LocalMounts: map[string]fsutil.FS{"context": fs, "dockerfile": fs}}
	go func() {
		_, err := b.client.Build(ctx, opt, "", func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
			_, err := c.Solve(ctx, gateway.SolveRequest{Frontend: "dockerfile.v0", Evaluate: true})
			var failed *errdefs.SolveError
			if !asSolve(err, &failed) {
				return nil, fmt.Errorf("error %v is no failed solve", err)
			}
			box, err := c.NewContainer(ctx, gateway.NewContainerRequest{
				NetMode: pb.NetMode_NONE, Mounts: []gateway.Mount{{Dest: "/", MountType: pb.MountType_BIND, ResultID: failed.MountIDs[0]}},
			})
			if err != nil {
				return nil, err
			}
			defer box.Release(context.WithoutCancel(ctx))
			out, said := io.Pipe()
			go func() {
				buf := make([]byte, 100)
				if n, _ := out.Read(buf); strings.Contains(string(buf[:n]), "ready") {
					close(s.open)
				}
				io.Copy(io.Discard, out)
			}()
			p, err := box.Start(ctx, gateway.StartRequest{
				Args: []string{"/bin/sh", "-c", "trap '' TERM HUP INT QUIT; echo ready; while :; do read -t 1000 x; done; : " + s.pid},
				Tty:  tty, Stdin: in, Stdout: said, Stderr: said,
			})
			if err != nil {
				return nil, err
			}
			waited := make(chan error, 1)
			go func() { waited <- p.Wait() }()
			select {
			case err := <-waited:
				return nil, err
			case <-s.leave: // the library waits for a process whose stream is broken
				return nil, errors.New("the client has noticed that the engine is gone")
			}
		}, nil)
		s.over <- err
	}()
	select {
	case <-s.open:
	case err := <-s.over:
		b.t.Fatalf("no shell: %v", err)
	case <-time.After(time.Minute):
		b.t.Fatal("no shell after a minute")
	}
	return s
}

// running reports whether the shell runs.
func (s *shell) running() bool {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, l := range lines {
		if data, err := os.ReadFile(l); err == nil && strings.Contains(string(data), ": "+s.pid) {
			return true
		}
	}
	return false
}

// within fails where f takes longer than a person waits for an engine to stop.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan bool)
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		panic(what + " hangs") // with the stacks of all, and before the cleanup waits for the same
	}
}

// An engine that is stopped does not wait for a person who sits in a failed step, nor does the client that is told so.
func TestEngineStopsWithAShellOpen(t *testing.T) {
	for _, tty := range []bool{false, true} {
		for _, wire := range []bool{true, false} {
			t.Run(fmt.Sprintf("%v-%v", tty, wire), func(t *testing.T) {
				b := newBench(t)
				s := b.openShell(t.Context(), tty)
				if !s.running() {
					t.Error("the shell is not found")
				}
				within(t, "stopping the engine", func() {
					if wire { // as berthd does
						b.door.Close()
					}
					if err := b.builder.Close(); err != nil {
						t.Error(err)
					}
				})
				if s.running() {
					t.Error("the shell runs on")
				}
				close(s.leave)
				within(t, "the client", func() {
					if err := <-s.over; err == nil {
						t.Error("the client is told that its build succeeded")
					}
				})
			})
		}
	}
}

// A client that is gone takes its shell along: its process killed, which only shows in the connection, or its wait given up.
func TestClientGoesWithAShellOpen(t *testing.T) {
	for _, how := range []string{"cancelled", "killed"} {
		t.Run(how, func(t *testing.T) {
			b := newBench(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s := b.openShell(ctx, true)
			if how == "cancelled" {
				cancel()
			} else {
				b.client.Close()
			}
			close(s.leave)
			within(t, "the client", func() { <-s.over })
			for i := 0; s.running(); i++ {
				if i > 300 {
					t.Fatal("the shell runs on")
				}
				time.Sleep(100 * time.Millisecond)
			}
			within(t, "stopping the engine", func() {
				if err := b.builder.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
