package exec

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"

	"berth/kernel/tree"
)

func (r *room) container() *Container {
	r.t.Helper()
	c, err := r.Container(context.Background(), ContainerConfig{Mounts: []Mount{{root(), r.base}}, Network: pb.NetMode_NONE})
	must(r.t, err)
	r.t.Cleanup(func() {
		if err := c.Release(); !errors.Is(err, context.Canceled) {
			must(r.t, err)
		}
	})
	return c
}

func TestContainer(t *testing.T) {
	r := newRoom(t)
	c := r.container()
	var out lockedBuffer
	first, err := c.Start(context.Background(), Process{Args: []string{"sh", "-c", "echo one >/file; exec sleep 1000"}, Env: []string{"PATH=/bin"}, Stdout: &out})
	must(t, err)
	until(t, func() bool {
		seen := false
		must(t, c.View(context.Background(), 0, func(root *tree.Dir) error {
			text, err := readText(root, "file")
			seen = string(text) == "one\n"
			return err
		}))
		return seen
	})
	// Another one sees the first, and ends for itself.
	second, err := c.Start(context.Background(), Process{Args: []string{"sh", "-c", "cat /file /dev/stdin; tr '\\0' ' ' </proc/1/cmdline; exit 4"}, Env: []string{"PATH=/bin"},
		Stdin: io.NopCloser(strings.NewReader("typed\n")), Stdout: &out})
	must(t, err)
	var e *gatewaypb.ExitError
	if err := second.Wait(); !errors.As(err, &e) || e.ExitCode != 4 {
		t.Errorf("%v", err)
	}
	if out.String() != "one\ntyped\nsleep 1000 " {
		t.Errorf("%q", out.String())
	}
	third, err := c.Start(context.Background(), Process{Args: []string{"sleep", "1000"}, Env: []string{"PATH=/bin"}})
	must(t, err)
	must(t, third.Signal(15))
	if err := third.Wait(); !errors.As(err, &e) || e.ExitCode != 128+15 {
		t.Errorf("%v", err)
	}
	must(t, first.Signal(9))
	if err := first.Wait(); !errors.As(err, &e) || e.ExitCode != 128+9 {
		t.Errorf("%v", err)
	}
	if _, err := c.Start(context.Background(), Process{Args: []string{"true"}}); err == nil {
		t.Error("a process was started after the first had ended")
	}
}

// A process that has ended is not entered, whatever its number means by then: what it printed may wait to be read for as long as a client likes.
func TestEndedIsNotEntered(t *testing.T) {
	r := newRoom(t)
	c := r.container()
	read, write := io.Pipe() // nobody reads
	defer read.Close()
	first, err := c.Start(context.Background(), Process{Args: []string{"sh", "-c", "echo words"}, Env: []string{"PATH=/bin"}, Stdout: write})
	must(t, err)
	<-first.ch.gone
	first.ch.proc.PID = os.Getpid() // as if the kernel had given the number to somebody outside
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, []byte("of the host"), 0o644))
	var out lockedBuffer
	second, err := c.Start(context.Background(), Process{Args: []string{"/bin/cat", secret}, Stdout: &out, Stderr: &out})
	if err == nil {
		t.Errorf("it was entered: %v, %q", second.Wait(), out.String())
	}
	must(t, first.Signal(9)) // to nobody
}

// A program that is not there is told by Wait, to whoever reads the streams only after Start.
func TestNoProgram(t *testing.T) {
	r := newRoom(t)
	for _, tty := range []bool{false, true} {
		c := r.container()
		read, write := io.Pipe()
		req := Process{Args: []string{"/no/such"}, Tty: tty, Stderr: write}
		if tty {
			req.Stdout, req.Stderr = write, nil
		}
		p, err := c.Start(context.Background(), req)
		must(t, err)
		buf := make([]byte, 200)
		n, _ := read.Read(buf)
		if !strings.Contains(string(buf[:n]), `exec: "/no/such": stat /no/such: no such file or directory`) {
			t.Errorf("%q", buf[:n])
		}
		var e *gatewaypb.ExitError
		if err := p.Wait(); !errors.As(err, &e) || e.ExitCode != 1 {
			t.Errorf("%v", err)
		}
		if _, err := c.Start(context.Background(), Process{Args: []string{"/bin/true"}}); err == nil {
			t.Error("another was started beside none")
		}
	}
}

func TestContainerRelease(t *testing.T) {
	r := newRoom(t)
	c := r.container()
	p, err := c.Start(context.Background(), Process{Args: []string{"/bin/sleep", "1000"}})
	must(t, err)
	ended := make(chan error, 1)
	go func() { ended <- p.Wait() }()
	if err := c.Release(); !errors.Is(err, context.Canceled) {
		t.Errorf("what ran was ended, which is told as %v", err)
	}
	if err := <-ended; !errors.Is(err, errReleased) {
		t.Errorf("%v", err)
	}
	must(t, p.Signal(9))
	must(t, p.Resize(1, 1))
	must(t, c.Release())
	if _, err := c.Start(context.Background(), Process{Args: []string{"true"}}); err == nil {
		t.Error("a released container started something")
	}
}

func TestTerminal(t *testing.T) {
	r := newRoom(t)
	c := r.container()
	in, typed := io.Pipe()
	var out lockedBuffer
	p, err := c.Start(context.Background(), Process{Args: []string{"sh"}, Tty: true, Rows: 10, Cols: 20, Env: []string{"PATH=/bin", "PS1=$ "}, Stdin: in, Stdout: &out})
	must(t, err)
	says := func(what string) {
		defer func() {
			if t.Failed() {
				t.Logf("it says %q, not %q", out.String(), what)
			}
		}()
		until(t, func() bool { return strings.Contains(out.String(), what) })
	}
	says("$ ")
	io.WriteString(typed, "tty; echo $TERM; busybox stty size\n")
	says("/dev/pts/0")
	says("xterm")
	says("10 20")
	must(t, p.Resize(33, 44))
	io.WriteString(typed, "busybox stty size\n")
	says("33 44")
	// A second terminal in the same container.
	in2, typed2 := io.Pipe()
	var out2 lockedBuffer
	p2, err := c.Start(context.Background(), Process{Args: []string{"sh"}, Tty: true, Env: []string{"PATH=/bin", "PS1=# "}, Stdin: in2, Stdout: &out2})
	must(t, err)
	until(t, func() bool { return strings.Contains(out2.String(), "# ") })
	io.WriteString(typed2, "tty; exit 3\n")
	var e *gatewaypb.ExitError
	if err := p2.Wait(); !errors.As(err, &e) || e.ExitCode != 3 || !strings.Contains(out2.String(), "/dev/pts/") {
		t.Errorf("%v, %q", err, out2.String())
	}
	io.WriteString(typed, "exit\n")
	must(t, p.Wait())
}

// The engine's end is not held up by a container that nobody releases, nor by a client that reads no more.
func TestCloseEndsAll(t *testing.T) {
	r := newRoom(t)
	other, err := Open(Config{Snapshots: r.snaps, Root: t.TempDir(), ExecRoot: t.TempDir(), CgroupParent: r.cfg.CgroupParent + "x"})
	must(t, err)
	defer removeGroups(r.layout, r.cfg.CgroupParent+"x")
	c, err := other.Container(context.Background(), ContainerConfig{Mounts: []Mount{{root(), r.base}}, Network: pb.NetMode_NONE})
	must(t, err)
	read, write := io.Pipe()
	defer read.Close()
	p, err := c.Start(context.Background(), Process{Args: []string{"/bin/sh", "-c", "trap '' 15; while :; do echo words; done"}, Env: []string{"PATH=/bin"}, Stdout: write})
	must(t, err)
	closed := make(chan error)
	go func() { closed <- other.Close() }()
	until(t, func() bool {
		select {
		case <-p.ch.gone:
			return true
		default:
			return false
		}
	})
	must(t, c.Release())
	must(t, <-closed)
	if _, err := other.Container(context.Background(), ContainerConfig{}); err == nil {
		t.Error("a closed runner makes containers")
	}
}

// A process that is hard to end, and what it started, is gone when the container is.
func TestStubborn(t *testing.T) {
	r := newRoom(t)
	c := r.container()
	var out lockedBuffer
	_, err := c.Start(context.Background(), Process{Args: []string{"/bin/sh", "-c", "trap '' 1 2 3 15; (trap '' 1 2 3 15; while :; do sleep 1; done) & echo on; wait"}, Env: []string{"PATH=/bin"}, Stdout: &out})
	must(t, err)
	until(t, func() bool { return out.String() == "on\n" })
	if err := c.Release(); !errors.Is(err, context.Canceled) {
		t.Errorf("what ran was ended, which is told as %v", err)
	}
	if _, err := os.Stat(r.layout.Hierarchies[0].Place(r.layout.Mode, c.b.cgroupPath())); err == nil {
		t.Error("its cgroup is there")
	}
}

func until(t *testing.T, f func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not come")
		}
	}
}
