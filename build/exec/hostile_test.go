package exec

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/moby/buildkit/solver/pb"

	"berth/build/snapshot"
	"berth/build/solver"
)

// canary is a directory of the host that no step may reach or change.
func canary(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "precious"), []byte("words of the host"), 0o600))
	must(t, os.Mkdir(filepath.Join(dir, "empty"), 0o755)) // what a cleaner of empty mount points would take
	t.Cleanup(func() {
		text, err := os.ReadFile(filepath.Join(dir, "precious"))
		if err != nil || string(text) != "words of the host" {
			t.Errorf("the host's file was reached: %q, %v", text, err)
		}
		if list, err := os.ReadDir(dir); err != nil || len(list) != 2 {
			t.Errorf("the host's directory was reached: %v, %v", list, err)
		}
	})
	return dir
}

// links gives a base whose paths are links to the host's.
func (r *room) links(m map[string]string) *snapshot.Snapshot {
	r.t.Helper()
	s := r.make(r.base, func(root string) error {
		for name, target := range m {
			p := filepath.Join(root, name)
			if err := errors.Join(os.RemoveAll(p), os.MkdirAll(filepath.Dir(p), 0o755), os.Symlink(target, p)); err != nil {
				return err
			}
		}
		return nil
	})
	r.t.Cleanup(s.Release)
	return s
}

// Links of an image lead to the image's own files, whatever is mounted, made or entered through them.
func TestLinksStayInside(t *testing.T) {
	r := newRoom(t)
	host := canary(t)
	up := strings.Repeat("../", 20) + strings.TrimPrefix(host, "/")
	in := r.files(map[string]string{"in": "shown"})
	bind := func(dest string) *pb.Mount {
		return &pb.Mount{Input: 1, Dest: dest, Output: int64(pb.SkipOutput), Readonly: true}
	}
	for _, target := range []string{host, up} {
		for _, c := range []struct {
			name   string
			links  map[string]string
			op     *pb.ExecOp
			change func(op *pb.ExecOp)
		}{
			{name: "working directory", links: map[string]string{"w": target}, op: shell("pwd; ls precious && exit 9; exit 0"), change: func(op *pb.ExecOp) { op.Meta.Cwd = "/w/empty" }},
			{name: "new working directory", links: map[string]string{"w": target}, op: shell("touch x; ls precious && exit 9; exit 0"), change: func(op *pb.ExecOp) { op.Meta.Cwd = "/w/new" }},
			{name: "etc", links: map[string]string{"etc": target}, op: shell("cat /etc/hosts >/dev/null; ls /etc/precious && exit 9; exit 0")},
			{name: "resolv.conf", links: map[string]string{"etc/resolv.conf": target + "/resolv", "etc/hosts": target + "/precious"}, op: shell("cat /etc/hosts | grep -q localhost")},
			{name: "passwd", links: map[string]string{"etc/passwd": target + "/precious"}, op: shell("true"), change: func(op *pb.ExecOp) { op.Meta.User = "0:0" }},
			{name: "mount", links: map[string]string{"m": target}, op: shell("ls /m/empty/in; ls /m/precious && exit 9; exit 0", bind("/m/empty"))},
			{name: "mount on a link", links: map[string]string{"m": target}, op: shell("ls /m/in; ls /m/precious && exit 9; exit 0", bind("/m"))},
			{name: "new mount", links: map[string]string{"m": target}, op: shell("ls /m/new/in", bind("/m/new"))},
			{name: "cache", links: map[string]string{"cache": target}, op: shell("touch /cache/x", cacheMount("c", 0))},
			{name: "root of a command", links: map[string]string{"bin/sh": target + "/precious"}, op: shell("true"), change: func(op *pb.ExecOp) { op.Meta.Args = []string{"/bin/ls", "/"} }},
		} {
			t.Run(c.name, func(t *testing.T) {
				if c.change != nil {
					c.change(c.op)
				}
				o := r.run(c.op, r.links(c.links), in)
				var f *Failed
				if errors.As(o.failure, &f) && f.ExitCode == 9 {
					t.Errorf("it sees the host: %s%s", o.out, o.err)
				}
				if o.failure != nil {
					t.Logf("refused: %v %s", o.failure, o.err)
				}
			})
		}
	}
}

// What every container has of its own is not mounted through links of the image (CVE-2019-19921 and its kin).
func TestSystemMountsOnLinks(t *testing.T) {
	r := newRoom(t)
	host := canary(t)
	for _, name := range []string{"proc", "sys", "dev", "proc/self"} {
		t.Run(name, func(t *testing.T) {
			o := r.run(shell("mount; ls -la /; exit 0"), r.links(map[string]string{name: host}))
			if o.failure == nil && name != "proc/self" && !strings.Contains(o.out, " /"+name+" ") && !strings.Contains(o.out, host) {
				t.Errorf("/%s is not there: %s", name, o.out)
			}
		})
	}
}

// Parts of inputs and caches are looked up inside them, also when another step changes them meanwhile (CVE-2024-23651).
func TestPartsStayInside(t *testing.T) {
	r := newRoom(t)
	host := canary(t)
	in := r.files(map[string]string{"abs": "-> " + host, "up": "-> " + strings.Repeat("../", 20) + strings.TrimPrefix(host, "/"), "loop": "-> loop"})
	for _, sel := range []string{"/abs", "/up", "/loop", "/abs/precious", "../../../../.." + host} {
		o := r.run(shell("cat /m/precious /m && exit 9; exit 0", &pb.Mount{Input: 1, Dest: "/m", Selector: sel, Output: int64(pb.SkipOutput)}), r.base, in)
		var f *Failed
		if errors.As(o.failure, &f) {
			t.Errorf("%s: it sees the host: %s", sel, o.out)
		}
	}
	// One step turns a directory of a cache into a link and back; others mount that directory.
	flip := cacheMount("flip", 0)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wait sync.WaitGroup
	ready := make(chan bool)
	var once sync.Once
	w := writer(func([]byte) { once.Do(func() { close(ready) }) })
	wait.Go(func() {
		r.runWith(ctx, shell("cd /cache; mkdir d; ln -s "+host+" l; echo; while :; do mv d t; mv l d; mv d l; mv t d; done", flip), &solver.Run{Stdout: w, Stderr: w})
	})
	<-ready
	for range 30 {
		part := cacheMount("flip", 0)
		part.Selector = "/d"
		o := r.run(shell("ls /cache/precious && exit 9; exit 0", part))
		var f *Failed
		if errors.As(o.failure, &f) && f.ExitCode == 9 {
			t.Errorf("it sees the host: %s", o.out)
			break
		}
	}
	cancel()
	wait.Wait()
}

// What a step puts in the place of a mount point, or of a directory on the way to one, is not followed when mount points are taken away
// (CVE-2024-23652): neither to remove what is there, nor to keep it.
func TestCleaningUpFollowsNothing(t *testing.T) {
	r := newRoom(t)
	host := canary(t)
	in := r.files(map[string]string{"in": "shown"})
	for name, c := range map[string]struct {
		script string
		mounts []*pb.Mount
	}{
		"a directory on the way": {"mv /a /gone && mkdir /a && ln -s " + host + " /a/b", []*pb.Mount{cacheAt("/a/b/empty"), {Input: -1, Dest: "/a/b/new", MountType: pb.MountType_TMPFS, Output: -1}}},
		"an input's":             {"mv /a /gone && ln -s " + host + " /a", []*pb.Mount{{Input: 1, Dest: "/a/empty", Output: -1}}},
		"a file's":               {"mv /a /gone && ln -s " + host + " /a", []*pb.Mount{{Input: 1, Selector: "/in", Dest: "/a/precious", Readonly: true, Output: -1}}},
		"etc":                    {"mv /etc /gone; ln -s " + host + " /etc", nil},
		"in a cache":             {"mv /cache/a /cache/gone && ln -s " + host + " /cache/a", []*pb.Mount{cacheMount("clean", 0), {Input: 1, Dest: "/cache/a/empty", Output: -1}}},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // the second time on what the first left in the cache
				o := r.run(shell(c.script+"; exit 0", c.mounts...), r.base, in)
				if o.failure != nil {
					t.Logf("refused: %v %s", o.failure, o.err)
				}
			}
		})
	}
}

func cacheAt(dest string) *pb.Mount {
	m := cacheMount("at"+dest, 0)
	m.Dest = dest
	return m
}

// A step cannot reach descriptors of the engine's (CVE-2024-21626), nor the engine itself.
func TestNothingInherited(t *testing.T) {
	r := newRoom(t)
	if o := r.run(shell("ls /proc/self/fd | wc -l; for i in 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do ls /proc/self/fd/$i/ 2>/dev/null; done; true")).ok(t); o.out != "4\n" {
		t.Errorf("descriptors: %q", o.out)
	}
	for n := 3; n < 40; n++ {
		op := shell("ls -d ../../../../../../../work 2>/dev/null && exit 9; exit 0")
		op.Meta.Cwd = "/proc/self/fd/" + string(rune('0'+n/10)) + string(rune('0'+n%10))
		o := r.run(op)
		var f *Failed
		if o.failure == nil || errors.As(o.failure, &f) && f.ExitCode == 9 {
			t.Errorf("%s was entered: %s", op.Meta.Cwd, o.out)
		}
	}
	if o := r.run(shell("test -e /proc/1/root/etc/shadow && exit 9; exit 0")); o.failure != nil {
		t.Error(o.failure)
	}
}

// Operations that make no sense are refused, and nothing of them is left.
func TestNonsense(t *testing.T) {
	r := newRoom(t)
	for name, change := range map[string]func(op *pb.ExecOp){
		"missing input":  func(op *pb.ExecOp) { op.Mounts[0].Input = 7 },
		"negative input": func(op *pb.ExecOp) { op.Mounts[0].Input = -5 },
		"part of a root": func(op *pb.ExecOp) { op.Mounts[0].Selector = "/bin" },
		"root of a cache": func(op *pb.ExecOp) {
			op.Mounts[0].MountType, op.Mounts[0].CacheOpt = pb.MountType_CACHE, &pb.CacheOpt{ID: "x"}
		},
		"unknown mount": func(op *pb.ExecOp) {
			op.Mounts = append(op.Mounts, &pb.Mount{Input: -1, Dest: "/x", MountType: 99, Output: -1})
		},
		"no cache": func(op *pb.ExecOp) {
			op.Mounts = append(op.Mounts, &pb.Mount{Input: -1, Dest: "/x", MountType: pb.MountType_CACHE, Output: -1})
		},
		"no secret": func(op *pb.ExecOp) {
			op.Mounts = append(op.Mounts, &pb.Mount{Input: -1, Dest: "/x", MountType: pb.MountType_SECRET, Output: -1})
		},
		"no agent": func(op *pb.ExecOp) {
			op.Mounts = append(op.Mounts, &pb.Mount{Input: -1, Dest: "/x", MountType: pb.MountType_SSH, Output: -1})
		},
		"mount in proc": func(op *pb.ExecOp) {
			op.Mounts = append(op.Mounts, &pb.Mount{Input: -1, Dest: "/proc/sys/kernel", MountType: pb.MountType_TMPFS, Output: -1})
		},
		"network":  func(op *pb.ExecOp) { op.Network = 77 },
		"user":     func(op *pb.ExecOp) { op.Meta.User = "nobody-like-it" },
		"large id": func(op *pb.ExecOp) { op.Meta.User = "99999999999:1" },
		"address":  func(op *pb.ExecOp) { op.Meta.ExtraHosts = []*pb.HostIP{{Host: "h", IP: "not one"}} },
		"lines":    func(op *pb.ExecOp) { op.Meta.ExtraHosts = []*pb.HostIP{{Host: "h\n1.1.1.1 other", IP: "1.2.3.4"}} },
		"device":   func(op *pb.ExecOp) { op.CdiDevices = []*pb.CDIDevice{{Name: "vendor.com/class=name"}} },
		"limit":    func(op *pb.ExecOp) { op.Meta.Ulimit = []*pb.Ulimit{{Name: "nonsense", Soft: 1, Hard: 1}} },
		"nul":      func(op *pb.ExecOp) { op.Meta.Args = []string{"/bin/ls", "a\x00b"} },
		"nul in a path": func(op *pb.ExecOp) {
			op.Mounts = append(op.Mounts, &pb.Mount{Input: -1, Dest: "/x\x00y", MountType: pb.MountType_TMPFS, Output: -1})
		},
	} {
		t.Run(name, func(t *testing.T) {
			op := shell("true")
			change(op)
			if o := r.run(op); o.failure == nil {
				t.Error("it was accepted")
			} else {
				t.Log(o.failure)
			}
			for _, h := range r.layout.Hierarchies {
				list, _ := os.ReadDir(h.Place(r.layout.Mode, r.cfg.CgroupParent))
				if slices.ContainsFunc(list, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), groupPrefix) }) {
					t.Error("a cgroup is left")
				}
			}
		})
	}
	if list := r.caches.list(); len(list) != 0 {
		t.Errorf("left %v", list)
	}
}
