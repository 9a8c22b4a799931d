package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/kernel/probe"
	"berth/runtime/keeper"
	"berth/runtime/launch"
	"berth/runtime/spec"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The test binary is the keeper when it is started as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (strings.HasPrefix(os.Args[1], "--exec-root") || os.Args[1] == "--check-state") {
		main()
	}
	os.Exit(m.Run())
}

// world is a keeper with real launch programs and a busybox root.
type world struct {
	t    testing.TB
	dir  string
	root string
	c    *keeper.Client
}

func newWorld(t testing.TB) *world {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: containers are made for real")
	}
	box, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs busybox: install the package busybox-static")
	}
	dir, err := os.MkdirTemp("", "berth-test-"+strconv.Itoa(os.Getpid())+"-")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir, root: filepath.Join(dir, "root")}
	t.Cleanup(w.end)
	for _, d := range []string{"bin", "proc", "sys", "dev", "etc", "tmp"} {
		w.must(os.MkdirAll(filepath.Join(w.root, d), 0o755))
	}
	b, err := os.ReadFile(box)
	w.must(err)
	w.must(os.WriteFile(w.root+"/bin/busybox", b, 0o755))
	for _, n := range []string{"sh", "cat", "echo", "sleep", "id", "hostname", "stty", "ls", "readlink", "true"} {
		w.must(os.Symlink("busybox", w.root+"/bin/"+n))
	}
	self, err := os.Executable()
	w.must(err)
	w.c, err = keeper.Open(w.ctx(), keeper.StartConfig{ExecRoot: dir + "/x", Binary: self, NoSystemd: true})
	w.must(err)
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) ctx() context.Context {
	if _, ok := w.t.(*testing.B); ok {
		return context.Background()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	w.t.Cleanup(cancel)
	return ctx
}

func (w *world) end() {
	if w.c != nil {
		w.c.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if c, err := keeper.Dial(ctx, w.dir+"/x"); err == nil {
		for c.Shutdown(ctx) != nil && ctx.Err() == nil {
			all, _ := c.List(ctx)
			for _, p := range all {
				if p.Running {
					_ = c.Signal(ctx, p.ID, p.Proc, 9)
				}
			}
			time.Sleep(20 * time.Millisecond)
		}
		c.Close()
	}
	if w.t.Failed() {
		b, _ := os.ReadFile(w.dir + "/x/keeper.log")
		w.t.Logf("keeper.log:\n%s", b)
	}
	os.RemoveAll(w.dir)
}

func (w *world) spec(tty bool, args ...string) *specs.Spec {
	s := spec.Default(spec.DefaultOptions{Args: args, Terminal: tty, Hostname: "box"})
	s.Root = &specs.Root{Path: w.root}
	s.Process.Env = []string{"PATH=/bin", "PS1=$ "}
	s.Linux.CgroupsPath = ""
	return s
}

func (w *world) compile(s *specs.Spec, o launch.Options) []byte {
	w.t.Helper()
	o.Covered, o.Facts = true, probe.Host()
	p, err := launch.Compile(s, o)
	w.must(err)
	return p.Encode()
}

func (w *world) exit(id, proc string) keeper.Exit {
	w.t.Helper()
	for {
		select {
		case x := <-w.c.Exits():
			if x.ID == id && x.Proc == proc {
				w.must(w.c.Ack(w.ctx(), id, proc))
				return x
			}
		case <-time.After(20 * time.Second):
			w.t.Fatalf("no exit of %s/%s", id, proc)
		}
	}
}

func TestContainer(t *testing.T) {
	w := newWorld(t)
	s := w.spec(false, "sh", "-c", "hostname; echo $$; cat; echo err >&2; exit 3")
	log := w.dir + "/log"
	st, err := w.c.Launch(w.ctx(), keeper.Launch{
		ID: "c", Program: w.compile(s, launch.Options{}), Stdin: true, StdinOnce: true,
		Log:    keeper.LogConfig{Format: "json-file", Path: log},
		Attach: []keeper.AttachRequest{{Stdin: true, Stdout: true}},
	})
	w.must(err)
	io.WriteString(st.Attached[0], "through\n")
	st.Attached[0].CloseWrite()
	out, err := io.ReadAll(st.Attached[0])
	w.must(err)
	if string(out) != "box\n1\nthrough\n" {
		t.Errorf("%q", out)
	}
	if x := w.exit("c", ""); x.Code != 3 {
		t.Errorf("%+v", x)
	}
	b, err := os.ReadFile(log)
	w.must(err)
	if !strings.Contains(string(b), `{"log":"through\n","stream":"stdout","time":"`) || !strings.Contains(string(b), `{"log":"err\n","stream":"stderr"`) {
		t.Errorf("%s", b)
	}
}

func TestContainerThatCannotStart(t *testing.T) {
	w := newWorld(t)
	_, err := w.c.Launch(w.ctx(), keeper.Launch{ID: "c", Program: w.compile(w.spec(false, "/bin/nothing"), launch.Options{})})
	var le *launch.Error
	if !errors.As(err, &le) || !le.Exec || !errors.Is(err, unix.ENOENT) {
		t.Fatalf("%v", err)
	}
	if _, err := w.c.Launch(w.ctx(), keeper.Launch{ID: "c", Program: []byte("garbage")}); err == nil {
		t.Error("garbage was launched")
	}
	all, err := w.c.List(w.ctx())
	if err != nil || len(all) != 0 {
		t.Errorf("%+v %v", all, err)
	}
}

// TestContainersOutliveKeepers: a container with a terminal, an exec in it and a container at its
// gate, through an upgrade in place and a kill of the keeper.
func TestContainersOutliveKeepers(t *testing.T) {
	w := newWorld(t)
	self, err := os.Executable()
	w.must(err)
	s := w.spec(true, "sh")
	st, err := w.c.Launch(w.ctx(), keeper.Launch{
		ID: "t", Program: w.compile(s, launch.Options{}), Terminal: true, Rows: 30, Cols: 90, Stdin: true,
		Attach: []keeper.AttachRequest{{Stdin: true, Stdout: true}},
	})
	w.must(err)
	conn := st.Attached[0]
	in := bufio.NewReader(conn)
	ask := func(cmd, want string) {
		t.Helper()
		fmt.Fprintf(conn, "%s\n", cmd)
		conn.SetReadDeadline(time.Now().Add(15 * time.Second))
		var seen strings.Builder
		for !strings.Contains(seen.String(), want+"\r\n") {
			line, err := in.ReadString('\n')
			seen.WriteString(line)
			if err != nil {
				t.Fatalf("%v waiting for %q in %q", err, want, seen.String())
			}
		}
	}
	ask("stty size", "30 90")

	execIn := func(id string, args ...string) string {
		t.Helper()
		p, err := launch.CompileExec(&specs.Process{Args: args, Env: []string{"PATH=/bin"}, Cwd: "/"}, s,
			launch.Target{PID: st.PID}, launch.Options{Facts: probe.Host()})
		w.must(err)
		x, err := w.c.Launch(w.ctx(), keeper.Launch{ID: "t", Proc: id, Program: p.Encode(), Attach: []keeper.AttachRequest{{Stdout: true, Stderr: true}}})
		w.must(err)
		out, err := io.ReadAll(x.Attached[0])
		w.must(err)
		if e := w.exit("t", id); e.Code != 0 {
			t.Errorf("%v: %+v", args, e)
		}
		return string(out)
	}
	if got := execIn("e1", "hostname"); got != "box\n" {
		t.Errorf("%q", got)
	}

	_, err = w.c.Launch(w.ctx(), keeper.Launch{ID: "g", Gate: true, Program: w.compile(w.spec(false, "sh", "-c", "exit 8"), launch.Options{Gate: true})})
	w.must(err)
	if err := w.c.Upgrade(w.ctx(), self); err == nil {
		t.Error("an upgrade past a gate")
	}
	w.must(w.c.Release(w.ctx(), "g", ""))
	if x := w.exit("g", ""); x.Code != 8 {
		t.Errorf("%+v", x)
	}

	w.must(w.c.Upgrade(w.ctx(), self))
	ask("echo up$((1+1))", "up2")
	if got := execIn("e2", "echo", "again"); got != "again\n" {
		t.Errorf("%q", got)
	}

	info, err := w.c.Info(w.ctx())
	w.must(err)
	w.must(syscall.Kill(info.PID, syscall.SIGKILL))
	ask("echo kept$((2+2))", "kept4")
	if got := execIn("e3", "echo", "and again"); got != "and again\n" {
		t.Errorf("%q", got)
	}
	w.must(w.c.Resize(w.ctx(), "t", "", 31, 91))
	ask("stty size", "31 91")
	fmt.Fprintf(conn, "exit 5\n")
	if x := w.exit("t", ""); x.Code != 5 && !x.Unknown {
		t.Errorf("%+v", x)
	}
}

// BenchmarkContainer is a whole container of busybox's true through the keeper, without an engine:
// program sent, namespaces, mounts, filter, execve, exit, output drained, acknowledged.
func BenchmarkContainer(b *testing.B) {
	w := newWorld(b)
	prog := w.compile(w.spec(false, "/bin/true"), launch.Options{})
	i := 0
	for b.Loop() {
		id := strconv.Itoa(i)
		i++
		if _, err := w.c.Launch(w.ctx(), keeper.Launch{ID: id, Program: prog}); err != nil {
			b.Fatal(err)
		}
		w.exit(id, "")
	}
}
