package keeper

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/runtime/keeper/server"

	"golang.org/x/sys/unix"
)

// The test binary is also the keeper, with a starter that forks and executes plain commands, and
// the processes it launches. Which, the first argument says.

func init() { runtime.LockOSThread() } // the keeper's loop needs the main thread

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch word, _, _ := strings.Cut(os.Args[1], "="); word {
		case "--exec-root", server.CheckFlag:
			os.Exit(server.Main(os.Args, "test", func() (server.Starter, error) { return forker{}, nil }))
		case "child-count":
			childCount(os.Args[2:])
			return
		case "child-fill":
			childFill(os.Args[2:])
			return
		case "child-client":
			childClient(os.Args[2:])
			return
		}
	}
	os.Exit(m.Run())
}

// forker starts commands: a program is an argv, its words separated by zeros. A first word "gate"
// makes it wait.
type forker struct{}

func program(argv ...string) []byte { return []byte(strings.Join(argv, "\x00")) }

func sh(script string) []byte { return program("/bin/sh", "-c", script) }

func (forker) Start(prog []byte, io server.Stdio) (*server.Process, error) {
	argv := strings.Split(string(prog), "\x00")
	gate := -1
	out := &server.Process{Console: -1}
	if argv[0] == "gate" {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			return nil, err
		}
		gate = p[1]
		defer unix.Close(p[0])
		argv = append([]string{"/bin/sh", "-c", `read x <&3; exec 3<&-; exec "$@"`, "sh"}, argv[1:]...)
		out.Release = func() error {
			defer unix.Close(gate)
			_, err := unix.Write(gate, []byte("\n"))
			return err
		}
		return out, fork(out, argv, []uintptr{uintptr(io.In), uintptr(io.Out), uintptr(io.Err), uintptr(p[0])}, false)
	}
	files := []uintptr{uintptr(io.In), uintptr(io.Out), uintptr(io.Err)}
	if io.In >= 0 {
		return out, fork(out, argv, files, false)
	}
	master, slave, err := openPty()
	if err != nil {
		return nil, err
	}
	defer unix.Close(slave)
	if io.Rows != 0 || io.Cols != 0 {
		unix.IoctlSetWinsize(master, unix.TIOCSWINSZ, &unix.Winsize{Row: io.Rows, Col: io.Cols})
	}
	out.Console = master
	if err := fork(out, argv, []uintptr{uintptr(slave), uintptr(slave), uintptr(slave)}, true); err != nil {
		unix.Close(master)
		return nil, err
	}
	return out, nil
}

func fork(out *server.Process, argv []string, files []uintptr, tty bool) error {
	var pidfd int
	pid, err := syscall.ForkExec(argv[0], argv, &syscall.ProcAttr{
		Dir: "/", Env: []string{"PATH=/usr/bin:/bin", "PS1=$ ", "TERM=dumb"}, Files: files,
		Sys: &syscall.SysProcAttr{Setsid: true, Setctty: tty, PidFD: &pidfd},
	})
	if err != nil {
		var errno syscall.Errno
		errors.As(err, &errno)
		return &server.StartError{Text: "exec " + argv[0] + ": " + err.Error(), Step: "execute", Call: "execve", Errno: errno, Exec: true, Arg0: argv[0]}
	}
	out.PID, out.PidFD = pid, pidfd
	return nil
}

func openPty() (master, slave int, err error) {
	if master, err = unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0); err != nil {
		return -1, -1, err
	}
	zero := 0
	if err = unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, zero); err == nil {
		var n int
		if n, err = unix.IoctlGetInt(master, unix.TIOCGPTN); err == nil {
			slave, err = unix.Open("/dev/pts/"+strconv.Itoa(n), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		}
	}
	if err != nil {
		unix.Close(master)
	}
	return master, slave, err
}

// childCount writes numbered lines: count, or for ever with 0, with a pause of microseconds after
// each. Every third is on stderr where "both" is said. With a fourth argument it goes on until there is
// a file of that name, and writes into the file how many lines it wrote. One that writes for ever is slow once it has written a lot: a test
// may take minutes on a machine that is busy with something else, and reads all of it.
func childCount(args []string) {
	n, _ := strconv.Atoi(args[0])
	pause, _ := strconv.Atoi(args[1])
	both := len(args) > 2 && args[2] == "both"
	until := ""
	if len(args) > 3 {
		until = args[3]
	}
	pad := strings.Repeat("x", 60)
	for i := 0; n == 0 || i < n; i++ {
		if until != "" && i%16 == 0 {
			if _, err := os.Stat(until); err == nil {
				os.WriteFile(until, []byte(strconv.Itoa(i)), 0o600)
				return
			}
		}
		fd := 1
		if both && i%3 == 2 {
			fd = 2
		}
		line := fmt.Sprintf("line %d %s\n", i, pad[:i%60])
		for b := []byte(line); len(b) > 0; {
			// In two pieces, so that unfinished lines are common.
			k := len(b)
			if k > 4 && i%5 == 0 {
				k = k / 2
			}
			w, err := unix.Write(fd, b[:k])
			if err != nil {
				os.Exit(9)
			}
			b = b[w:]
		}
		if n == 0 && i == 200_000 {
			pause = max(pause, 2000)
		}
		if pause > 0 {
			time.Sleep(time.Duration(pause) * time.Microsecond)
		}
	}
}

// childFill writes numbered lines until nobody has taken any for a while, writes how many it got rid of
// into a file, and exits with 5: what it wrote last is in its pipe then.
func childFill(args []string) {
	unix.SetNonblock(1, true)
	n, quiet := 0, 0
	for b := []byte(nil); quiet < 50; {
		if len(b) == 0 {
			b = fmt.Appendf(nil, "line %d %s\n", n, strings.Repeat("x", n%60))
		}
		w, err := unix.Write(1, b)
		if err == unix.EAGAIN {
			quiet++
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if err != nil {
			os.Exit(9)
		}
		if b = b[w:]; len(b) == 0 {
			n++
		}
		quiet = 0
	}
	os.WriteFile(args[0], []byte(strconv.Itoa(n)), 0o600)
	os.Exit(5)
}

// rig is a keeper in a directory of its own, ended with the test.
type rig struct {
	t    testing.TB
	root string
	cfg  StartConfig
	c    *Client
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := bareRig(t)
	r.open()
	return r
}

func benchRig(b *testing.B) *rig { return newRig(b) }

func bareRig(t testing.TB) *rig {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.MkdirTemp("", "berth-test-"+strconv.Itoa(os.Getpid())+"-")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, root: root, cfg: StartConfig{ExecRoot: root, Binary: self, NoSystemd: true}}
	t.Cleanup(r.end)
	return r
}

func (r *rig) open() {
	r.t.Helper()
	c, err := Open(r.ctx(), r.cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	r.c = c
}

// patience is how long a test waits for what should take no time. An emulated processor takes longer:
// BERTH_TEST_SLOWNESS is how many times.
func patience(d time.Duration) time.Duration {
	n, _ := strconv.Atoi(os.Getenv("BERTH_TEST_SLOWNESS"))
	return d * time.Duration(max(n, 1))
}

func (r *rig) ctx() context.Context {
	if _, ok := r.t.(*testing.B); ok {
		return context.Background()
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience(30*time.Second))
	r.t.Cleanup(cancel)
	return ctx
}

// end kills what runs and shuts the keeper down, also after a failure.
func (r *rig) end() {
	if r.c != nil {
		r.c.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience(10*time.Second))
	defer cancel()
	if c, err := Dial(ctx, r.root); err == nil {
		for range 100 {
			all, _ := c.List(ctx)
			running := 0
			for _, p := range all {
				if p.Running {
					running++
					syscall.Kill(p.PID, syscall.SIGKILL)
				}
			}
			if running == 0 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if err := c.Shutdown(ctx); err != nil {
			r.t.Errorf("shutdown: %v", err)
		}
		c.Close()
	}
	if r.t.Failed() {
		if b, err := os.ReadFile(r.root + "/keeper.log"); err == nil {
			r.t.Logf("keeper.log:\n%s", b)
		}
	}
	os.RemoveAll(r.root)
}

func (r *rig) launch(l Launch) Started {
	r.t.Helper()
	st, err := r.c.Launch(r.ctx(), l)
	if err != nil {
		r.t.Fatal(err)
	}
	return st
}

func (r *rig) exit() Exit {
	r.t.Helper()
	select {
	case x := <-r.c.Exits():
		return x
	case <-time.After(patience(20 * time.Second)):
		r.t.Fatal("no exit came")
	}
	return Exit{}
}

// exitOf waits for one process's end and acknowledges it.
func (r *rig) exitOf(id, proc string) Exit {
	r.t.Helper()
	for {
		x := r.exit()
		if x.ID == id && x.Proc == proc {
			if err := r.c.Ack(r.ctx(), id, proc); err != nil {
				r.t.Fatal(err)
			}
			return x
		}
	}
}

func (r *rig) keeperPID() int {
	r.t.Helper()
	info, err := r.c.Info(r.ctx())
	if err != nil {
		r.t.Fatal(err)
	}
	return info.PID
}

func (r *rig) logPath(name string) string { return filepath.Join(r.root, name+"-json.log") }

func (r *rig) logCfg(name string) LogConfig {
	return LogConfig{Format: "json-file", Path: r.logPath(name)}
}

type record struct {
	Log, Stream string
	Time        time.Time
	Attrs       map[string]string
}

// records reads a log; every line must be one whole record.
func records(t *testing.T, path string) (all []record) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > 0 && b[0] == 0 {
		return localRecords(t, path, b)
	}
	if len(b) > 0 && b[len(b)-1] != '\n' {
		t.Errorf("%s: the last record is torn", path)
	}
	for i, line := range bytes.Split(bytes.TrimSuffix(b, []byte("\n")), []byte("\n")) {
		if len(line) == 0 {
			continue
		}
		var x record
		if err := json.Unmarshal(line, &x); err != nil {
			t.Fatalf("%s line %d: %v: %.200q", path, i+1, err, line)
		}
		all = append(all, x)
	}
	return all
}

func text(all []record, stream string) string {
	s := strings.Builder{}
	for _, x := range all {
		if stream == "" || x.Stream == stream {
			s.WriteString(x.Log)
		}
	}
	return s.String()
}

// countLines checks what childCount wrote: line 0, 1, 2 … in order, none twice, none missing. With
// both, the order counts in each stream alone.
func countLines(t *testing.T, all []record, both bool) int {
	t.Helper()
	next := map[bool]int{}
	pad := strings.Repeat("x", 60)
	n := 0
	for i, x := range all {
		err := x.Stream == "stderr"
		want := n
		if both {
			// stdout has 0 1 3 4 6 7 …, stderr 2 5 8 …
			if err {
				want = next[true]*3 + 2
			} else {
				want = next[false]/2*3 + next[false]%2
			}
		}
		next[err]++
		if line := fmt.Sprintf("line %d %s\n", want, pad[:want%60]); x.Log != line {
			t.Fatalf("record %d (%s) is %q, want %q", i, x.Stream, x.Log, line)
		}
		n++
	}
	return n
}

func self(t testing.TB) string {
	s, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func readAll(t *testing.T, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience(20 * time.Second)); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("%s: not within %s", what, patience(20*time.Second))
}
