package netns

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/idmap"
	"berth/kernel/probe"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs CAP_SYS_ADMIN: network namespaces")
	}
}

func TestLife(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "one")
	if err := Create(path); err != nil {
		t.Fatal(err)
	}
	defer Remove(path)
	if err := Create(path); !fault.Is(err, fault.Conflict) {
		t.Errorf("a second at the same path: %v", err)
	}
	ns, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	own, err := Current()
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if Same(own, ns) {
		t.Fatal("the new namespace is our own")
	}
	var in int
	want := errors.New("as it is")
	err = Do(ns, func() error {
		here, err := Current()
		if err != nil {
			return err
		}
		defer here.Close()
		if !Same(here, ns) {
			t.Error("Do is not in the namespace")
		}
		list, err := net.Interfaces()
		in = len(list)
		if err != nil {
			return err
		}
		return want
	})
	if err != want {
		t.Errorf("Do gave %v", err)
	}
	if in != 1 {
		t.Errorf("%d links in a new namespace, want lo alone", in)
	}
	live, dead, err := List(dir)
	if err != nil || len(live) != 1 || len(dead) != 0 {
		t.Errorf("list: %v %v %v", live, dead, err)
	}
	for range 2 {
		if err := Remove(path); err != nil {
			t.Error(err)
		}
	}
	if _, err := Open(path); !fault.Is(err, fault.NotFound) {
		t.Errorf("open of a removed one: %v", err)
	}
}

func TestFilesWithoutMount(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "gone")
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); !fault.Is(err, fault.NotFound) {
		t.Errorf("open: %v", err)
	}
	if live, dead, err := List(dir); err != nil || len(live) != 0 || len(dead) != 1 {
		t.Errorf("list: %v %v %v", live, dead, err)
	}
	if err := Remove(path); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the file is still there: %v", err)
	}
}

func TestFailureLeavesNothing(t *testing.T) {
	needRoot(t)
	path := filepath.Join(t.TempDir(), "x")
	want := errors.New("no")
	if err := CreateWith(path, func() error { return want }); !errors.Is(err, want) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("left behind: %v", err)
	}
	if err := Create(filepath.Join(t.TempDir(), "no", "dir")); !fault.Is(err, fault.NotFound) {
		t.Errorf("without directory: %v", err)
	}
}

// TestThreadsComeBack runs many visits at once; no thread of ours may be left elsewhere.
func TestThreadsComeBack(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	own, err := Current()
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			path := filepath.Join(dir, string(rune('a'+i)))
			if err := Create(path); err != nil {
				t.Error(err)
				return
			}
			defer Remove(path)
			ns, err := Open(path)
			if err != nil {
				t.Error(err)
				return
			}
			defer ns.Close()
			for range 20 {
				if err := Do(ns, func() error { return nil }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		f, err := os.Open("/proc/self/task/" + task.Name() + "/ns/net")
		if err != nil {
			continue // a thread that ended
		}
		if !Same(f, own) {
			t.Errorf("thread %s is in another namespace", task.Name())
		}
		f.Close()
	}
}

func BenchmarkCreate(b *testing.B) {
	dir := b.TempDir()
	for b.Loop() {
		path := filepath.Join(dir, "x")
		if err := Create(path); err != nil {
			b.Skip("needs CAP_SYS_ADMIN: network namespaces")
		}
		Remove(path)
	}
}

func BenchmarkDo(b *testing.B) {
	path := filepath.Join(b.TempDir(), "x")
	if err := Create(path); err != nil {
		b.Skip("needs CAP_SYS_ADMIN: network namespaces")
	}
	defer Remove(path)
	ns, err := Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer ns.Close()
	for b.Loop() {
		Do(ns, func() error { unix.Getpid(); return nil })
	}
}

// A namespace made for a mapping belongs to a user namespace that has it, and no process keeps either.
func TestCreateFor(t *testing.T) {
	if os.Getuid() != 0 || !probe.Host().Has(probe.UserNamespace) {
		t.Skip("needs root and user namespaces: " + probe.Host().Why(probe.UserNamespace))
	}
	path := filepath.Join(t.TempDir(), "ns")
	m := idmap.Map{{Inside: 0, Outside: 700000, Size: 10}}
	var links []byte
	make := func() (int, error) { return idmap.NetNamespace(idmap.Pair{Users: m, Groups: m}) }
	if err := CreateFor(path, make, func() (err error) {
		links, err = os.ReadFile("/proc/thread-self/net/dev")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer Remove(path)
	if n := strings.Count(string(links), ":"); n != 1 {
		t.Errorf("not alone in it: %s", links)
	}
	ns, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	owner, err := unix.IoctlRetInt(int(ns.Fd()), unix.NS_GET_USERNS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(owner)
	if uid, err := unix.IoctlGetUint32(owner, unix.NS_GET_OWNER_UID); err != nil || uid != 0 {
		t.Errorf("made by %d, %v", uid, err)
	}
	if err := CreateFor(path, make, nil); err == nil {
		t.Error("made twice at one path")
	}
}
