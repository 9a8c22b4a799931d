package exec

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moby/buildkit/solver/pb"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/build/graph"
	"berth/build/snapshot"
	"berth/build/solver"
	"berth/kernel/probe"
	"berth/kernel/tree"
)

// files makes a snapshot with files by name.
func (r *room) files(m map[string]string) *snapshot.Snapshot {
	r.t.Helper()
	s := r.make(nil, func(root string) error {
		for name, text := range m {
			p := filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
				return err
			}
			if target, link := strings.CutPrefix(text, "-> "); link {
				if err := os.Symlink(target, p); err != nil {
					return err
				}
				continue
			}
			if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
				return err
			}
		}
		return nil
	})
	r.t.Cleanup(s.Release)
	return s
}

// bothWays runs a test on this kernel and as on one that cannot clone detached mounts (before 6.15).
func bothWays(t *testing.T, f func(t *testing.T, r *room)) {
	t.Run("as it is", func(t *testing.T) { f(t, newRoom(t)) })
	t.Run("older", func(t *testing.T) {
		f(t, newRoom(t, func(c *Config) { c.Facts = probe.Host().Without(probe.MoveDetached) }))
	})
}

func TestBinds(t *testing.T) {
	bothWays(t, func(t *testing.T, r *room) {
		one := r.files(map[string]string{"a/file": "A", "b/file": "B", "link": "-> b", "out": "-> /etc"})
		two := r.make(one, func(root string) error { return os.WriteFile(filepath.Join(root, "a/more"), []byte("M"), 0o644) })
		defer two.Release()
		bind := func(change func(m *pb.Mount)) *pb.Mount {
			m := &pb.Mount{Input: 1, Dest: "/mnt/in", Output: int64(pb.SkipOutput), Readonly: true}
			change(m)
			return m
		}
		for _, c := range []struct {
			name, script, want, fails string
			mount                     *pb.Mount
		}{
			{name: "whole", script: "cat /mnt/in/a/file /mnt/in/a/more; echo x >/mnt/in/y", want: "AM", fails: "exit code: 1", mount: bind(func(m *pb.Mount) {})},
			{name: "directory", script: "cat /mnt/in/file", want: "B", mount: bind(func(m *pb.Mount) { m.Selector = "/b" })},
			{name: "file", script: "cat /mnt/in", want: "M", mount: bind(func(m *pb.Mount) { m.Selector = "a/more" })},
			{name: "link", script: "cat /mnt/in/file", want: "B", mount: bind(func(m *pb.Mount) { m.Selector = "/link" })},
			{name: "link out", fails: `"/out"`, mount: bind(func(m *pb.Mount) { m.Selector = "/out" })},
			{name: "dots", script: "cat /mnt/in/a/file", want: "A", mount: bind(func(m *pb.Mount) { m.Selector = "../../.." })},
			{name: "missing", fails: `"/nothing"`, mount: bind(func(m *pb.Mount) { m.Selector = "/nothing" })},
			{name: "written and dropped", script: "echo x >/mnt/in/y; cat /mnt/in/y", want: "x\n", mount: bind(func(m *pb.Mount) { m.Readonly = false })},
			{name: "relative", script: "cat mnt/file", want: "A", mount: bind(func(m *pb.Mount) { m.Dest, m.Selector = "mnt", "a" })},
		} {
			t.Run(c.name, func(t *testing.T) {
				o := r.run(shell(c.script, c.mount), r.base, two)
				if c.fails != "" {
					if o.failure == nil || !strings.Contains(o.failure.Error(), c.fails) {
						t.Errorf("%v, want %s", o.failure, c.fails)
					}
				} else {
					o.ok(t)
				}
				if o.out != c.want {
					t.Errorf("%q, want %q (%s)", o.out, c.want, o.err)
				}
				if c.fails == "" {
					if got := r.paths(o.outputs[0]); slices.ContainsFunc(got, func(p string) bool { return strings.HasPrefix(p, "/mnt") }) {
						t.Errorf("mount points are left: %q", got)
					}
				}
			})
		}
		if got := r.text(two, "y"); got != "" {
			t.Error("an input was changed")
		}
	})
}

// A mount with an output is kept beside the root.
func TestOutputs(t *testing.T) {
	r := newRoom(t)
	in := r.files(map[string]string{"file": "A"})
	o := r.run(shell("echo B >/out/new; cat /in/file; echo >/in/file 2>/dev/null; echo C >/empty/c",
		&pb.Mount{Input: 1, Dest: "/out", Output: 1}, &pb.Mount{Input: 1, Dest: "/in", Output: 2, Readonly: true},
		&pb.Mount{Input: int64(pb.Empty), Dest: "/empty", Output: 3}), r.base, in).ok(t)
	if len(o.outputs) != 4 {
		t.Fatalf("%d outputs", len(o.outputs))
	}
	if r.text(o.outputs[1], "new") != "B\n" || r.text(o.outputs[1], "file") != "A" {
		t.Error("what was written is not in the output")
	}
	if !slices.Equal(o.outputs[2].Chain(), in.Chain()) || r.text(o.outputs[3], "c") != "C\n" {
		t.Error("outputs differ")
	}
}

func TestTmpfs(t *testing.T) {
	r := newRoom(t)
	o := r.run(shell("stat -f -c %T /t; dd if=/dev/zero of=/t/x bs=1k count=200 2>/dev/null || echo full; grep ' /dev/shm ' /proc/mounts | grep -c size=1024k",
		&pb.Mount{Input: int64(pb.Empty), Dest: "/t", Output: int64(pb.SkipOutput), MountType: pb.MountType_TMPFS, TmpfsOpt: &pb.TmpfsOpt{Size: 65536}},
		&pb.Mount{Input: int64(pb.Empty), Dest: "/dev/shm", Output: int64(pb.SkipOutput), MountType: pb.MountType_TMPFS, TmpfsOpt: &pb.TmpfsOpt{Size: 1 << 20}})).ok(t)
	if o.out != "tmpfs\nfull\n1\n" {
		t.Errorf("%q", o.out)
	}
	if got := r.paths(o.outputs[0]); slices.Contains(got, "/t") {
		t.Errorf("left %q", got)
	}
}

func cacheMount(id string, sharing pb.CacheSharingOpt) *pb.Mount {
	return &pb.Mount{Input: int64(pb.Empty), Dest: "/cache", Output: int64(pb.SkipOutput), MountType: pb.MountType_CACHE, CacheOpt: &pb.CacheOpt{ID: id, Sharing: sharing}}
}

func TestCacheMounts(t *testing.T) {
	bothWays(t, func(t *testing.T, r *room) {
		r.run(shell("echo 1 >>/cache/n", cacheMount("one", 0))).ok(t)
		if out := r.run(shell("cat /cache/n", cacheMount("one", 0))).ok(t).out; out != "1\n" {
			t.Errorf("the cache has %q", out)
		}
		if out := r.run(shell("ls /cache", cacheMount("two", 0))).ok(t).out; out != "" {
			t.Errorf("another cache has %q", out)
		}
		// Owner and mode come from an input, as the Dockerfile's uid, gid and mode do.
		in := r.make(nil, func(root string) error {
			p := filepath.Join(root, "cache")
			return errors.Join(os.Mkdir(p, 0o700), os.Chown(p, 1000, 1001), os.Chmod(p, os.ModeSetgid|0o750), os.WriteFile(filepath.Join(p, "first"), []byte("F"), 0o640),
				os.Link(filepath.Join(p, "first"), filepath.Join(p, "same")), os.Symlink("first", filepath.Join(p, "sym")))
		})
		defer in.Release()
		m := cacheMount("three", 0)
		m.Input, m.Selector = 1, "/cache"
		for range 2 {
			o := r.run(shell("stat -c %u:%g:%a /cache; cat /cache/sym; stat -c %h /cache/same; touch /cache/x", m), r.base, in).ok(t)
			if o.out != "1000:1001:2750\nF2\n" {
				t.Errorf("%q", o.out)
			}
		}
		all, err := r.Usage(context.Background())
		must(t, err)
		if len(all) != 3 || !slices.ContainsFunc(all, func(u usage) bool {
			return u.Type == "exec.cachemount" && strings.Contains(u.Description, `with id "one"`) && u.Size > 0
		}) {
			t.Errorf("usage: %+v", all)
		}
		// Another runner finds them.
		must(t, r.Runner.Close())
		r.Runner, err = Open(r.cfg)
		must(t, err)
		if out := r.run(shell("cat /cache/n", cacheMount("one", 0))).ok(t).out; out != "1\n" {
			t.Errorf("later the cache has %q", out)
		}
		for _, u := range all {
			must(t, r.Remove(context.Background(), u.ID))
		}
		if left, _ := r.Usage(context.Background()); len(left) != 0 {
			t.Errorf("left %v", left)
		}
	})
}

func TestCacheSharing(t *testing.T) {
	r := newRoom(t)
	for _, c := range []struct {
		sharing pb.CacheSharingOpt
		want    string // what the second sees while the first has the mount
	}{
		{pb.CacheSharingOpt_SHARED, "first\n"}, {pb.CacheSharingOpt_PRIVATE, ""}, {pb.CacheSharingOpt_LOCKED, "first\nsecond\n"},
	} {
		t.Run(c.sharing.String(), func(t *testing.T) {
			id := "cache of " + c.sharing.String()
			begun, goOn := make(chan bool), filepath.Join(t.TempDir(), "fifo")
			var once sync.Once
			var wait sync.WaitGroup
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			_ = goOn
			w := writer(func([]byte) { once.Do(func() { close(begun) }) })
			var first outcome
			wait.Go(func() {
				// It goes on when a second file is there, or for a while, which is what a locked one waits for.
				first = r.runWith(ctx, shell("touch /cache/first; echo; n=0; while [ ! -e /cache/second -a $n -lt 5 ]; do sleep 0.1; n=$((n+1)); done; touch /cache/second", cacheMount(id, c.sharing)),
					&solver.Run{Stdout: w, Stderr: w})
			})
			<-begun
			second := r.run(shell("ls /cache; touch /cache/second", cacheMount(id, c.sharing))).ok(t)
			wait.Wait()
			first.ok(t)
			if second.out != c.want {
				t.Errorf("the second sees %q", second.out)
			}
		})
	}
	// Who waits for a locked one can give up.
	h, err := r.caches.get(context.Background(), "held", "", pb.CacheSharingOpt_LOCKED, nil)
	must(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := r.caches.get(ctx, "held", "", pb.CacheSharingOpt_LOCKED, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	h.release()
}

// What could not be filled is not there afterwards.
func TestCacheFillFails(t *testing.T) {
	r := newRoom(t)
	bad := errors.New("bad")
	if _, err := r.caches.get(context.Background(), "k", "", 0, func(string) error { return bad }); !errors.Is(err, bad) {
		t.Fatal(err)
	}
	if all := r.caches.list(); len(all) != 0 {
		t.Errorf("%v", all)
	}
	must(t, failpoint.Arm("build/cache-mount-made=error"))
	_, err := r.caches.get(context.Background(), "k", "", 0, nil)
	must(t, failpoint.Arm(""))
	if err == nil || len(r.caches.list()) != 0 {
		t.Errorf("%v, %v", err, r.caches.list())
	}
	h, err := r.caches.get(context.Background(), "k", "", 0, nil)
	must(t, err)
	h.release()
}

// Two steps that begin at the same time share a cache that neither has used before: who comes second waits until the first has made it, or
// has failed to.
func TestACacheInTheMakingIsShared(t *testing.T) {
	for _, c := range []struct {
		name   string
		fails  bool
		shares pb.CacheSharingOpt
		want   bool
	}{
		{"shared", false, pb.CacheSharingOpt_SHARED, true},
		{"shared, not made", true, pb.CacheSharingOpt_SHARED, false},
		{"private", false, pb.CacheSharingOpt_PRIVATE, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				all, err := openCaches(t.TempDir(), slog.New(slog.DiscardHandler))
				if err != nil {
					t.Fatal(err)
				}
				filled := make(chan error)
				first := make(chan *hold, 1)
				go func() {
					h, _ := all.get(t.Context(), "k", "", c.shares, func(string) error { return <-filled })
					first <- h
				}()
				synctest.Wait()
				second := make(chan *hold, 1)
				go func() {
					h, err := all.get(t.Context(), "k", "", c.shares, func(string) error { return nil })
					if err != nil {
						t.Error(err)
					}
					second <- h
				}()
				synctest.Wait()
				if c.fails {
					filled <- errors.New("disk full")
				} else {
					filled <- nil
				}
				a, b := <-first, <-second
				if got := a != nil && a.d == b.d; got != c.want {
					t.Errorf("one directory: %v", got)
				}
				if a != nil {
					a.release()
				}
				b.release()
				if err := all.close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A build without cache begins its cache mounts anew, once.
func TestRenew(t *testing.T) {
	r := newRoom(t)
	count := func(build string, noCache bool) string {
		v := &graph.Vertex{Op: &pb.Op{Op: &pb.Op_Exec{Exec: shell("echo x >>/cache/n; wc -l </cache/n", cacheMount("n", 0))}}, IgnoreCache: noCache}
		s, err := r.Op(v)
		must(t, err)
		var out lockedBuffer
		outs, err := s.Run(context.Background(), []*snapshot.Snapshot{r.base}, &solver.Run{BuildID: build, Stdout: &out, Stderr: &out})
		must(t, err)
		outs[0].Release()
		return strings.TrimSpace(out.String())
	}
	for i, c := range []struct {
		build   string
		noCache bool
		want    string
	}{{"a", false, "1"}, {"b", false, "2"}, {"c", true, "1"}, {"c", true, "2"}, {"d", false, "3"}, {"e", true, "1"}} {
		if got := count(c.build, c.noCache); got != c.want {
			t.Errorf("%d: %s, want %s", i, got, c.want)
		}
	}
	// One that is in use goes with its last user.
	h, err := r.caches.get(context.Background(), "n", "", pb.CacheSharingOpt_SHARED, nil)
	must(t, err)
	if got := count("f", true); got != "1" {
		t.Errorf("%s", got)
	}
	h.release()
	if list := r.caches.list(); len(list) != 1 {
		t.Errorf("%v", list)
	}
}

// A remote cache reads a cache mount that nobody uses, and fills one that is not there.
func TestCacheKeys(t *testing.T) {
	r := newRoom(t)
	ctx := context.Background()
	text := func(want string) func(*tree.Dir) error {
		return func(root *tree.Dir) error {
			got, err := readText(root, "n")
			if string(got) != want {
				t.Errorf("%q, want %q", got, want)
			}
			return err
		}
	}
	if err := r.ReadCache(ctx, "one", text("")); !fault.Is(err, fault.NotFound) {
		t.Errorf("%v", err)
	}
	fill := func(words string) func(*tree.Dir) error {
		return func(root *tree.Dir) error { return os.WriteFile(root.Path()+"/n", []byte(words), 0o644) }
	}
	bad := errors.New("bad")
	if _, err := r.FillCache(ctx, "one", "", func(*tree.Dir) error { return bad }); !errors.Is(err, bad) {
		t.Errorf("%v", err)
	}
	filled, err := r.FillCache(ctx, "one", "imported", fill("1"))
	if err != nil || !filled {
		t.Errorf("%v %v", filled, err)
	}
	filled, err = r.FillCache(ctx, "one", "imported", fill("2"))
	if err != nil || filled {
		t.Errorf("%v %v", filled, err)
	}
	if out := r.run(shell("cat /cache/n; echo 3 >/cache/n", cacheMount("one", 0))).ok(t).out; out != "1" {
		t.Errorf("%q", out)
	}
	must(t, r.ReadCache(ctx, "one", text("3\n")))
	if got := r.CacheKeys(); !slices.Equal(got, []string{"one"}) {
		t.Errorf("%q", got)
	}
	h, err := r.caches.get(ctx, "one", "", pb.CacheSharingOpt_LOCKED, nil)
	must(t, err)
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if err := r.ReadCache(short, "one", text("")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	h.release()
}

func TestNoNetwork(t *testing.T) {
	r := newRoom(t)
	op := shell("true")
	op.Network = pb.NetMode_UNSET
	if o := r.run(op); !fault.Is(o.failure, fault.Unavailable) {
		t.Errorf("%v", o.failure)
	}
	op.Network = pb.NetMode_HOST
	op.Meta.Args[2] = "readlink /proc/self/ns/net"
	own, err := os.Readlink("/proc/self/ns/net")
	must(t, err)
	if o := r.run(op).ok(t); strings.TrimSpace(o.out) != own {
		t.Errorf("%s, ours is %s", o.out, own)
	}
}
