package network

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"berth/base/fault"
	"berth/base/id"
	"berth/kernel/link"
	"berth/kernel/netns"
	"berth/kernel/netns/alone"
)

func TestMain(m *testing.M) { os.Exit(alone.Main(m)) }

var ctx = context.Background()

// harness is a room in a network namespace of its own, with what tests look at.
type harness struct {
	*Networks
	t      testing.TB
	cfg    Config
	keeper *keeper
	mu     sync.Mutex
	events []string
}

func newRoom(t testing.TB, change func(*Config)) *harness {
	t.Helper()
	alone.Need(t)
	dir := t.TempDir()
	h := &harness{t: t, keeper: &keeper{files: map[string]*os.File{}}}
	h.cfg = Config{
		Root: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run"), Keeper: h.keeper,
		Log: slog.New(slog.NewTextHandler(&testLog{t: t}, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Emit: func(action, _, name, _ string, attrs map[string]string) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.events = append(h.events, strings.TrimSpace(action+" "+name+" "+attrs["container"]))
		},
	}
	if change != nil {
		change(&h.cfg)
	}
	h.open()
	t.Cleanup(func() {
		if h.Networks == nil {
			return
		}
		h.Recovered(func(string) bool { return false })
		for _, n := range h.List() {
			if !IsPredefined(n.Name) {
				h.Remove(ctx, n.ID)
			}
		}
		if err := h.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		c, err := link.Dial()
		if err == nil {
			c.Do(link.DeleteNamed("docker0").IfThere(), link.DeleteNamed("berth0").IfThere())
			c.Close()
		}
		h.keeper.mu.Lock()
		for _, f := range h.keeper.files {
			f.Close()
		}
		h.keeper.mu.Unlock()
	})
	return h
}

func (h *harness) open() {
	h.t.Helper()
	n, err := Open(ctx, h.cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	h.Networks = n
}

// reopen is an engine's restart: running says whose containers run.
func (h *harness) reopen(running ...string) {
	h.t.Helper()
	if err := h.Close(); err != nil {
		h.t.Error(err)
	}
	h.open()
	h.Recovered(func(cid string) bool {
		for _, r := range running {
			if r == cid {
				return true
			}
		}
		return false
	})
}

func (h *harness) create(r CreateRequest) Network {
	h.t.Helper()
	n, _, err := h.Create(ctx, r)
	if err != nil {
		h.t.Fatal(err)
	}
	return n
}

// want is a container's wish with a new id.
func want(name string, networks ...string) Want {
	w := Want{ContainerID: id.New(), Name: name, Mode: "bridge"}
	for _, n := range networks {
		w.Endpoints = append(w.Endpoints, EndpointSpec{Network: n})
	}
	return w
}

func (h *harness) join(w Want) Sandbox {
	h.t.Helper()
	s, err := h.Join(ctx, w)
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

// in calls f in a sandbox's namespace.
func (h *harness) in(s Sandbox, f func() error) error {
	h.t.Helper()
	ns, err := netns.Open(s.Key)
	if err != nil {
		h.t.Fatal(err)
	}
	defer ns.Close()
	return netns.Do(ns, f)
}

// serve answers TCP connections to an address in a sandbox with a word.
func (h *harness) serve(s Sandbox, at, word string) {
	h.t.Helper()
	var l net.Listener
	err := h.in(s, func() (err error) {
		l, err = net.Listen("tcp", at)
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, word, " ", c.RemoteAddr().(*net.TCPAddr).IP)
			c.Close()
		}
	}()
}

// ask connects to an address and reads what it says. It does not leave the calling thread.
func ask(at string) (string, error) {
	a, err := netip.ParseAddrPort(at)
	if err != nil {
		return "", err
	}
	family, to := syscall.AF_INET6, syscall.Sockaddr(&syscall.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()})
	if a.Addr().Is4() {
		family, to = syscall.AF_INET, &syscall.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer syscall.Close(fd)
	limit := syscall.Timeval{Sec: 2}
	syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &limit)
	syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &limit)
	if err := syscall.Connect(fd, to); err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(fd), at)
	fd = -1
	defer f.Close()
	b, err := io.ReadAll(f)
	return string(b), err
}

func (h *harness) askFrom(s Sandbox, at string) (got string, err error) {
	h.in(s, func() error {
		got, err = ask(at)
		return nil
	})
	return got, err
}

// links gives the names of the host's links.
func (h *harness) links() (names []string) {
	h.t.Helper()
	c, err := link.Dial()
	if err != nil {
		h.t.Fatal(err)
	}
	defer c.Close()
	list, err := c.Links()
	if err != nil {
		h.t.Fatal(err)
	}
	for _, l := range list {
		names = append(names, l.Name)
	}
	return names
}

// soon waits for what the kernel does behind.
func soon(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in a minute: %s", what)
		}
	}
}

func fails(t *testing.T, err error, kind fault.Kind, text string) {
	t.Helper()
	if !fault.Is(err, kind) || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v (%v)\nwant %v: %s", err, fault.KindOf(err), kind, text)
	}
}

func show(v any) string {
	b, _ := json.MarshalIndent(v, "", " ")
	return string(b)
}

type testLog struct{ t testing.TB }

func (l *testLog) Write(b []byte) (int, error) {
	l.t.Helper()
	l.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// keeper parks descriptors as the real one does.
type keeper struct {
	mu    sync.Mutex
	files map[string]*os.File
}

func (k *keeper) Park(_ context.Context, name string, f *os.File) error {
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if old := k.files[name]; old != nil {
		old.Close()
	}
	k.files[name] = os.NewFile(uintptr(fd), name)
	return nil
}

func (k *keeper) Take(_ context.Context, name string) (*os.File, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f := k.files[name]
	if f == nil {
		return nil, fault.New(fault.NotFound, "nothing is parked as %s", name)
	}
	fd, err := syscall.Dup(int(f.Fd()))
	return os.NewFile(uintptr(fd), name), err
}

func (k *keeper) Unpark(_ context.Context, name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if f := k.files[name]; f != nil {
		f.Close()
		delete(k.files, name)
	}
	return nil
}

func (k *keeper) Parked(context.Context) (names []string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for n := range k.files {
		names = append(names, n)
	}
	return names, nil
}
