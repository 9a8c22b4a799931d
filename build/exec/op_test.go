package exec

import (
	"context"
	"errors"
	"os"
	osexec "os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"

	"berth/build/solver"
	"berth/kernel/cgroup"
	"berth/kernel/tree"
)

// removeGroups takes away what a test's cgroups leave: their parents, which a Runner does not own.
func removeGroups(l cgroup.Layout, parent string) {
	for _, h := range l.Hierarchies {
		dir := h.Place(l.Mode, parent)
		_ = os.Remove(dir)
		_ = os.Remove(path.Dir(dir))
	}
}

func TestRun(t *testing.T) {
	r := newRoom(t)
	o := r.run(shell("echo hello; echo bad >&2; echo data >/made; id -u")).ok(t)
	if o.out != "hello\n0\n" || o.err != "bad\n" {
		t.Errorf("output %q, %q", o.out, o.err)
	}
	if got := r.text(o.outputs[0], "made"); got != "data\n" {
		t.Errorf("made is %q", got)
	}
	if got := r.paths(o.outputs[0]); !slices.Equal(got, []string{"/dev", "/made", "/proc", "/sys"}) {
		t.Errorf("the layer has %q", got)
	}
	// The next one finds what the first left.
	o = r.run(shell("cat /made; ls /proc | wc -l >/dev/null; ls -A /dev /proc /sys >/dev/null"), o.outputs[0]).ok(t)
	if o.out != "data\n" {
		t.Errorf("output %q", o.out)
	}
	if got := r.paths(o.outputs[0]); len(got) != 0 {
		t.Errorf("a step that changes nothing left %q", got)
	}
}

// A time that a step sets on a directory of its base stays, whatever is mounted in it; what comes and goes there leaves no time.
func TestTimesOfDirectories(t *testing.T) {
	r := newRoom(t)
	base := r.run(shell("mkdir -p /data/d /opt")).ok(t).outputs[0]
	mounted := &pb.Mount{Input: int64(pb.Empty), Dest: "/data/sub/x", MountType: pb.MountType_TMPFS, Output: int64(pb.SkipOutput)}
	out := r.run(shell("touch -d @1234567890 /data; echo x >/opt/x; rm /opt/x", mounted), base).ok(t).outputs[0]
	if got := r.paths(out); !slices.Equal(got, []string{"/data"}) {
		t.Errorf("the layer has %q", got)
	}
	must(t, out.View(t.Context(), func(root *tree.Dir) error {
		st, err := root.Stat("data")
		if err == nil && st.Mtime.Sec != 1234567890 {
			t.Errorf("/data is of %d", st.Mtime.Sec)
		}
		return err
	}))
}

func TestFailure(t *testing.T) {
	r := newRoom(t)
	o := r.run(shell("echo some words; touch /left; exit 7"))
	var f *Failed
	if !errors.As(o.failure, &f) {
		t.Fatalf("not a Failed: %v", o.failure)
	}
	if f.ExitCode != 7 || f.Tail != "some words\n" {
		t.Errorf("%d, %q", f.ExitCode, f.Tail)
	}
	if want := `process "/bin/sh -c echo some words; touch /left; exit 7" did not complete successfully: exit code: 7`; f.Error() != want {
		t.Errorf("it says %q", f.Error())
	}
	var e *gatewaypb.ExitError
	if !errors.As(o.failure, &e) || e.ExitCode != 7 {
		t.Errorf("no ExitError: %v", e)
	}
	s, err := f.Mount(context.Background(), 0)
	must(t, err)
	defer s.Release()
	if out := r.run(shell("ls /left"), s).ok(t).out; out != "/left\n" {
		t.Errorf("the failed step left %q", out)
	}
}

func TestCodes(t *testing.T) {
	r := newRoom(t)
	for _, c := range []struct {
		args  []string
		valid []int32
		code  int // -1: success
		says  string
	}{
		{args: []string{"true"}, code: -1},
		{args: []string{"sh", "-c", "exit 3"}, valid: []int32{3}, code: -1},
		{args: []string{"true"}, valid: []int32{3}, code: 0},
		{args: []string{"sh", "-c", "kill -9 $$; exit 5"}, code: 5}, // number 1 cannot kill itself
		{args: []string{"nothing-like-it"}, code: 1, says: `exec: "nothing-like-it": executable file not found in $PATH`},
		{args: []string{"/no/such"}, code: 1, says: `exec: "/no/such": stat /no/such: no such file or directory`},
		{args: []string{"/etc/passwd"}, code: 1, says: `exec: "/etc/passwd": permission denied`},
		{args: []string{"/etc"}, code: 1, says: `exec: "/etc": is a directory`},
	} {
		op := shell("")
		op.Meta.Args, op.Meta.ValidExitCodes = c.args, c.valid
		o := r.run(op)
		if c.code == -1 {
			o.ok(t)
			continue
		}
		var f *Failed
		if !errors.As(o.failure, &f) || f.ExitCode != c.code || !strings.Contains(o.err, c.says) {
			t.Errorf("%q: %v; %q", c.args, o.failure, o.err)
		}
	}
}

func TestCancel(t *testing.T) {
	r := newRoom(t)
	ctx, cancel := context.WithCancelCause(context.Background())
	stop := errors.New("nobody waits for it")
	w := writer(func(p []byte) { cancel(stop) })
	o := r.runWith(ctx, shell("echo on; sleep 1000 & sleep 1000"), &solver.Run{Stdout: w, Stderr: w})
	if !errors.Is(o.failure, stop) {
		t.Errorf("%v", o.failure)
	}
	for _, h := range r.layout.Hierarchies {
		list, _ := os.ReadDir(h.Place(r.layout.Mode, r.cfg.CgroupParent))
		for _, e := range list {
			if strings.HasPrefix(e.Name(), groupPrefix) {
				t.Errorf("%s is left", e.Name())
			}
		}
	}
}

type writer func(p []byte)

func (w writer) Write(p []byte) (int, error) { w(p); return len(p), nil }

// What a step sees of itself is what BuildKit shows it.
func TestSurroundings(t *testing.T) {
	r := newRoom(t)
	for _, c := range []struct {
		name, script, want string
		change             func(*pb.ExecOp)
	}{
		{name: "hostname", script: "hostname", want: "buildkitsandbox\n"},
		{name: "own hostname", script: "hostname; head -1 /etc/hosts", want: "other\n127.0.0.1\tlocalhost other\n", change: func(op *pb.ExecOp) { op.Meta.Hostname = "other" }},
		{name: "hosts", script: "grep -v localhost /etc/hosts", want: "10.1.2.3\tmirror\nfe80::1\tsix\n", change: func(op *pb.ExecOp) {
			op.Meta.ExtraHosts = []*pb.HostIP{{Host: "mirror", IP: "10.1.2.3"}, {Host: "six", IP: "fe80::1"}}
		}},
		{name: "etc is read-only", script: "echo >>/etc/hosts", want: "", change: func(op *pb.ExecOp) { op.Meta.ValidExitCodes = []int32{1} }},
		{name: "home", script: "echo $HOME", want: "/root\n"},
		{name: "groups", script: "id -G", want: "0 10\n"},
		{name: "groups of root", script: "id -G", want: "0 10\n", change: func(op *pb.ExecOp) { op.Meta.User = "root" }},
		{name: "no groups of numbers", script: "id -G", want: "0\n", change: func(op *pb.ExecOp) { op.Meta.User = "0:0" }},
		{name: "user", script: "id; echo $HOME", want: "uid=1000(web) gid=1001 groups=1001\n/srv\n", change: func(op *pb.ExecOp) { op.Meta.User = "web" }},
		{name: "numbers", script: "id; echo $HOME", want: "uid=7 gid=8 groups=8\n/\n", change: func(op *pb.ExecOp) { op.Meta.User = "7:8" }},
		{name: "working directory", script: "pwd; stat -c %u:%g:%a . ..", want: "/new/deep\n1000:1001:755\n1000:1001:755\n", change: func(op *pb.ExecOp) {
			op.Meta.Cwd, op.Meta.User = "/new/deep", "web"
		}},
		{name: "working directory behind links to nothing", script: "pwd; stat -c %u:%g:%a . ..", want: "/bin/no/deep\n1000:1001:755\n1000:1001:755\n", change: func(op *pb.ExecOp) {
			op.Meta.Cwd, op.Meta.User = "/to-nothing/deep", "web"
		}},
		{name: "path", script: "echo $PATH", want: defaultPath + "\n", change: func(op *pb.ExecOp) { op.Meta.Env = nil }},
		{name: "proxy", script: "echo $HTTP_PROXY $http_proxy $no_proxy", want: "http://p http://p x\n", change: func(op *pb.ExecOp) {
			op.Meta.ProxyEnv = &pb.ProxyEnv{HttpProxy: "http://p", NoProxy: "x"}
		}},
		{name: "ulimits", script: "ulimit -n; ulimit -Hn", want: "1024\n4096\n"},
		{name: "own ulimits", script: "ulimit -n; ulimit -Hn", want: "77\n88\n", change: func(op *pb.ExecOp) { op.Meta.Ulimit = []*pb.Ulimit{{Name: "nofile", Soft: 77, Hard: 88}} }},
		{name: "stdin", script: "cat; echo end", want: "end\n"},
		{name: "capabilities", script: "grep CapEff /proc/self/status | cut -f2", want: "00000000a80425fb\n"},
		{name: "hidden", script: "cat /proc/keys | wc -c; (echo x >/proc/sys/kernel/hostname) 2>/dev/null || echo no", want: "0\nno\n"},
		{name: "seccomp", script: "grep Seccomp: /proc/self/status | cut -f2", want: "2\n"},
		{name: "insecure", script: "grep Seccomp: /proc/self/status | cut -f2; test -c /dev/kmsg && ls /dev/loop0; mount -t tmpfs x /tmp && echo mounted", want: "0\n/dev/loop0\nmounted\n",
			change: func(op *pb.ExecOp) { op.Security = pb.SecurityMode_INSECURE }},
		{name: "processes", script: "set -- /proc/[0-9]*; echo $$ $*", want: "1 /proc/1\n"},
		{name: "no network", script: "ls /sys/class/net", want: "lo\n"},
		{name: "read-only root", script: "touch /x", want: "", change: func(op *pb.ExecOp) { op.Mounts[0].Readonly, op.Meta.ValidExitCodes = true, []int32{1} }},
		{name: "shm", script: "stat -f -c %T /dev/shm; touch /dev/shm/x && echo ok", want: "tmpfs\nok\n"},
		{name: "devices", script: "mknod /tmp/mem c 1 1 && cat /tmp/mem", want: "", change: func(op *pb.ExecOp) { op.Meta.ValidExitCodes = []int32{1} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			op := shell(c.script)
			if c.change != nil {
				c.change(op)
			}
			if o := r.run(op).ok(t); o.out != c.want {
				t.Errorf("%q, want %q (%s)", o.out, c.want, o.err)
			}
		})
	}
}

// How long a step takes beside its own process.
func BenchmarkTrue(b *testing.B) {
	r := newRoom(b)
	op := shell("")
	op.Meta.Args = []string{"true"}
	o := r.run(op).ok(b)
	base := o.outputs[0]
	for b.Loop() {
		o := r.run(op, base).ok(b)
		o.outputs[0].Release()
		o.outputs[0] = nil
	}
}

// What an engine that was killed has left of a step goes with the next one's start.
func TestSweep(t *testing.T) {
	r := newRoom(t)
	setup, err := cgroup.Plan(r.layout, path.Join(r.cfg.CgroupParent, groupPrefix+"left"), nil)
	must(t, err)
	cg, err := setup.Apply()
	must(t, err)
	sleep := osexec.Command("sleep", "1000")
	must(t, sleep.Start())
	must(t, cg.Add(sleep.Process.Pid))
	must(t, os.WriteFile(filepath.Join(r.cfg.ExecRoot, "etc/left"), nil, 0o600))
	must(t, Sweep(r.cfg.ExecRoot, r.cfg.CgroupParent))
	if err := sleep.Wait(); err == nil {
		t.Error("the process lives")
	}
	if _, err := cgroup.Open(r.layout, cg.Path()); err == nil {
		t.Error("the cgroup is there")
	}
	if _, err := os.Stat(filepath.Join(r.cfg.ExecRoot, "etc/left")); err == nil {
		t.Error("a file is left")
	}
	for _, sub := range dirs {
		must(t, os.MkdirAll(filepath.Join(r.cfg.ExecRoot, sub), 0o700))
	}
}
