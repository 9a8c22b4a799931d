package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"berth/base/fault"
)

// bench is a runner with a directory that commands may write into.
type bench struct {
	*Runner
	t    *testing.T
	work string
}

var benches atomic.Int64

func open(t *testing.T) *bench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: namespaces and mounts are made for real")
	}
	ids, err := os.ReadFile("/proc/self/uid_map") // run as "unshare -rm host.test" too
	if err != nil {
		t.Fatal(err)
	}
	inside := !strings.HasSuffix(strings.TrimSpace(string(ids)), " 4294967295")
	parent := fmt.Sprintf("/berth-test-%d/%d", os.Getpid(), benches.Add(1))
	b := &bench{Runner: New(Config{Root: filepath.Join(t.TempDir(), "boxes"), CgroupParent: parent, InUserNS: inside}), t: t, work: t.TempDir()}
	t.Cleanup(func() {
		removeGroups(t, parent)
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if left, _ := filepath.Glob(filepath.Join(b.cfg.Root, "*")); len(left) > 0 {
			out, _ := exec.Command("find", left[0]).Output()
			t.Errorf("left behind: %v %s", left[:1], out)
		}
	})
	return b
}

// sh runs a script and gives what it says.
func (b *bench) sh(script string, change ...func(*Command)) (string, error) {
	b.t.Helper()
	var out bytes.Buffer
	c := Command{Args: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL=C"}, Dir: b.work, Writable: []string{b.work}, Stdout: &out, Stderr: &out}
	for _, f := range change {
		f(&c)
	}
	err := b.Run(b.t.Context(), c)
	return strings.TrimSpace(out.String()), err
}

func TestRun(t *testing.T) {
	b := open(t)
	if got, err := b.sh("echo out; echo err >&2; echo $LC_ALL; pwd; echo made > file"); err != nil || got != "out\nerr\nC\n"+b.work {
		t.Errorf("%q %v", got, err)
	}
	if text, err := os.ReadFile(filepath.Join(b.work, "file")); err != nil || string(text) != "made\n" {
		t.Errorf("%q %v", text, err)
	}
	var e *ExitError
	if _, err := b.sh("exit 7"); !errors.As(err, &e) || e.Code != 7 {
		t.Errorf("%v", err)
	}
	if _, err := b.sh("", func(c *Command) { c.Args = []string{"/usr/bin/there-is-none"} }); err == nil || errors.As(err, &e) {
		t.Errorf("a program that is not there: %v", err)
	}
}

// TestConfined tries what a program that has been taken over would try.
func TestConfined(t *testing.T) {
	b := open(t)
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	readable := filepath.Join(t.TempDir(), "readable")
	if err := os.WriteFile(readable, []byte("told"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dial := "bash -c 'exec 3<>/dev/tcp/127.0.0.1/" + strconv.Itoa(l.Addr().(*net.TCPAddr).Port) + "'"
	for name, c := range map[string]struct {
		script string
		ok     bool
	}{
		"what it may read":            {"test \"$(cat " + readable + ")\" = told", true},
		"what it may read, written":   {"echo x > " + readable, false},
		"passwords":                   {"cat /etc/shadow", false},
		"the host's files":            {"cat " + outside + "/secret", false},
		"the engine's socket":         {"ls /run /var/run", false},
		"programs, changed":           {"touch /usr/bin/x /bin/x", false},
		"the root, written":           {"touch /x", false},
		"programs of its own":         {"cp /bin/true t && chmod +x t && ./t", false},
		"programs in /tmp":            {"cp /bin/true /tmp/t && chmod +x /tmp/t && /tmp/t", false},
		"a mount":                     {"mkdir m && mount -t tmpfs x m", false},
		"a remount":                   {"mount -o remount,rw /usr", false},
		"a device":                    {"mknod d b 8 0", false},
		"another owner":               {"touch o && chown 1 o", false},
		"the engine, signalled":       {"kill -0 " + strconv.Itoa(os.Getpid()), false},
		"all processes, signalled":    {"test \"$(kill -0 -1 2>&1)\" = ''", false},
		"processes, seen":             {"ls /proc/1 /proc/self", false},
		"a namespace of its own":      {"unshare -r true", false},
		"a way out through the root":  {"chroot / true", false},
		"the host's name":             {"hostname x", false},
		"a way up from the directory": {"cd .. && cd .. && ls */secret", false},
		"a server without a network":  {dial, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := b.sh(c.script, func(c *Command) { c.Readable = []string{readable} })
			var e *ExitError
			if c.ok != (err == nil) || err != nil && !errors.As(err, &e) {
				t.Errorf("%v: %s", err, got)
			}
		})
	}
	if got, err := b.sh(dial, func(c *Command) { c.Network = true }); err != nil {
		t.Errorf("a server, with a network: %v: %s", err, got)
	}
	if got, err := b.sh("grep -q . /etc/passwd && test -r /etc/resolv.conf && test -c /dev/null && : > /dev/null && head -c 1 /dev/urandom > /tmp/x && ls /usr/bin/env"); err != nil {
		t.Errorf("what programs need: %v: %s", err, got)
	}
}

// TestKilled: with the context the program ends, and all that it has started.
func TestKilled(t *testing.T) {
	b := open(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("nobody wants it")
	started := filepath.Join(b.work, "started")
	go func() {
		for range 1000 {
			if _, err := os.Stat(started); err == nil {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		cancel(why)
	}()
	begin := time.Now()
	err := b.Run(ctx, Command{Args: []string{"/bin/sh", "-c", "trap '' TERM INT; (trap '' TERM; sleep 100; touch late) & touch started; sleep 100; sleep 100"}, Env: []string{"PATH=/bin:/usr/bin"}, Dir: b.work, Writable: []string{b.work}})
	if !errors.Is(err, why) || time.Since(begin) > 80*time.Second {
		t.Errorf("%v after %v", err, time.Since(begin))
	}
	if err := b.Run(ctx, Command{Args: []string{"/bin/true"}, Dir: b.work, Writable: []string{b.work}}); !errors.Is(err, why) {
		t.Errorf("what begins when nobody wants it: %v", err)
	}
}

func TestSweep(t *testing.T) {
	b := open(t)
	if err := os.MkdirAll(filepath.Join(b.cfg.Root, "box-1", "usr", "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.cfg.Root, "box-1", "usr", "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.Sweep(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(b.cfg.Root, "box-1")); !os.IsNotExist(err) {
		t.Error("a box is left")
	}
}

// A program that does not end, as it sleeps in the kernel, does not keep the engine from its end.
func TestCloseWithoutEnd(t *testing.T) {
	r := New(Config{Root: t.TempDir()})
	r.patience = 10 * time.Millisecond
	if err := r.begin(); err != nil {
		t.Fatal(err)
	}
	defer r.running.Done()
	closed := make(chan error, 1)
	go func() { closed <- r.Close() }()
	select {
	case err := <-closed:
		if !fault.Is(err, fault.Deadline) {
			t.Errorf("closed: %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the runner waits for ever")
	}
}
