package engine

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/base/event"
	"berth/base/fault"
	"berth/engine/container"
)

func TestRunToItsEnd(t *testing.T) {
	w := newWorld(t)
	out, code := w.output(spec("hostname; echo oops >&2; exit 7"))
	if lines := strings.Fields(out); code != 7 || len(lines) != 2 || !strings.Contains(out, "oops") {
		t.Errorf("%q, %d", out, code)
	}
	s := spec("id; pwd; echo $FROM $HOME $X; cat /etc/hosts | head -1; ls -d /proc/kcore /sys/fs/cgroup")
	s.Process.User, s.Process.WorkingDir, s.Process.Env = "app", "/made/here", []string{"X=y"}
	out, code = w.output(s)
	want := "uid=1000(app) gid=1001(app) groups=1001(app),5000(extra)\n/made/here\nimage /tmp y\n127.0.0.1\tlocalhost\n"
	if !strings.HasPrefix(out, want) {
		t.Errorf("%q, %d\nwant %q", out, code, want)
	}
}

// What a container can be asked to be, seen from inside. One engine for all.
func TestAsked(t *testing.T) {
	w := newWorld(t)
	src := t.TempDir()
	os.WriteFile(filepath.Join(src, "f"), []byte("from host"), 0o644)
	yes := true
	pids := int64(50)
	for _, c := range []struct {
		name string
		line string
		ask  func(*container.Spec)
		want string // output, or its beginning if it ends in …
		code int
	}{
		{"hostname", "hostname; cat /etc/hostname", func(s *container.Spec) { s.Hostname = "me" }, "me\nme\n", 0},
		{"read-only root", "touch /x 2>&1; touch /t/x && echo ok", func(s *container.Spec) {
			s.Security.ReadonlyRootfs = true
			s.Mounts = []container.Mount{{Type: "tmpfs", Target: "/t", FromTmpfs: true, TmpfsOptions: "size=1m"}}
		}, "touch: /x: Read-only file system\nok\n", 0},
		{"bind", "cat /b/f; touch /b/g; ls /b/g", func(s *container.Spec) {
			s.Mounts = []container.Mount{{Type: "bind", Source: src, Target: "/b", FromBinds: true}}
		}, "from host/b/g\n", 0},
		{"read-only bind", "touch /b/h 2>&1", func(s *container.Spec) {
			s.Mounts = []container.Mount{{Type: "bind", Source: src, Target: "/b", ReadOnly: true}}
		}, "touch: /b/h: Read-only file system\n", 1},
		{"missing source of -v", "ls -d /b/", func(s *container.Spec) {
			s.Mounts = []container.Mount{{Type: "bind", Source: src + "/new/dir", Target: "/b", FromBinds: true}}
		}, "/b/\n", 0},
		{"bind of a file", "cat /etc/hosts", func(s *container.Spec) {
			s.Mounts = []container.Mount{{Type: "bind", Source: src + "/f", Target: "/etc/hosts"}}
		}, "from host", 0},
		{"capabilities", "grep CapEff /proc/self/status", nil, "CapEff:\t00000000a80425fb\n", 0},
		{"no capability", "grep CapEff /proc/self/status", func(s *container.Spec) { s.Security.CapDrop = []string{"ALL"} }, "CapEff:\t0000000000000000\n", 0},
		{"one capability", "grep CapEff /proc/self/status", func(s *container.Spec) {
			s.Security.CapDrop, s.Security.CapAdd = []string{"all"}, []string{"net_admin"}
		}, "CapEff:\t0000000000001000\n", 0},
		{"no new privileges", "grep NoNewPrivs /proc/self/status", func(s *container.Spec) { s.Security.SecurityOpt = []string{"no-new-privileges"} }, "NoNewPrivs:\t1\n", 0},
		{"ulimit", "ulimit -n; ulimit -Hn", func(s *container.Spec) {
			s.Resources.Ulimits = []container.Ulimit{{Name: "nofile", Soft: 100, Hard: 200}}
		}, "100\n200\n", 0},
		{"sysctl", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start", func(s *container.Spec) {
			s.Security.Sysctls = map[string]string{"net.ipv4.ip_unprivileged_port_start": "99"}
		}, "99\n", 0},
		{"init", "cat /proc/1/comm; sh -c 'sleep 0 & :' ; exit 4", func(s *container.Spec) { s.Init = &yes }, "docker-init\n", 4},
		{"pids limit", "cat /sys/fs/cgroup/pids/*/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null; for i in $(seq 60); do sleep 1 & done 2>&1 | grep -c fork; exit 0", func(s *container.Spec) { s.Resources.PidsLimit = &pids }, "…", 0},
		{"shm", "mount | grep /dev/shm | sed s/,inode64//", func(s *container.Spec) { s.Resources.ShmSize = 1 << 20 }, "shm on /dev/shm type tmpfs (rw,nosuid,nodev,noexec,relatime,size=1024k)\n", 0},
		{"no ipc", "mount | grep -c /dev/shm", func(s *container.Spec) { s.Namespaces.IPC = "none" }, "0\n", 1},
		{"host network", "cat /proc/net/dev | grep -c lo:; hostname", func(s *container.Spec) { s.Network.Mode = "host" }, "1\n…", 0},
		{"no network", "ls /sys/class/net", nil, "lo\n", 0},
		{"privileged", "grep CapEff /proc/self/status | grep -c ffff; test -e /dev/kmsg && echo kmsg; cat /proc/kcore | head -c 1 | wc -c", func(s *container.Spec) { s.Security.Privileged = true }, "1\n…", 0},
		{"masked", "cat /proc/interrupts | wc -c; echo 1 > /proc/sys/kernel/panic 2>&1", nil, "0\nsh: can…", 1},
		{"device", "echo x > /dev/mynull && ls -l /dev/mynull | head -c 1", func(s *container.Spec) {
			s.Resources.Devices = []container.Device{{Source: "/dev/null", Target: "/dev/mynull", Permissions: "rwm"}}
		}, "c", 0},
		{"extra hosts and dns", "grep other /etc/hosts; cat /etc/resolv.conf | tail -n 1", func(s *container.Spec) {
			s.Network.ExtraHosts, s.Network.DNS, s.Network.DNSSearch = []string{"other:10.1.2.3"}, []string{"9.9.9.9"}, []string{"example.org"}
		}, "10.1.2.3\tother\nsearch example.org\n", 0},
		{"group add", "id -G", func(s *container.Spec) { s.Process.GroupAdd = []string{"extra", "7"} }, "0 7 5000\n", 0},
		{"terminal", "tty; echo $TERM", func(s *container.Spec) { s.Process.TTY = true }, "/dev/pts/0\r\nxterm\r\n", 0},
		{"seccomp is there", "grep Seccomp: /proc/self/status", nil, "…", 0},
		{"unconfined", "grep Seccomp: /proc/self/status", func(s *container.Spec) { s.Security.SecurityOpt = []string{"seccomp=unconfined"} }, "Seccomp:\t0\n", 0},
		{"oom score", "cat /proc/self/oom_score_adj", func(s *container.Spec) { s.Resources.OOMScoreAdj = 300 }, "300\n", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := spec(c.line)
			if c.ask != nil {
				c.ask(&s)
			}
			out, code := w.output(s)
			begin, open := strings.CutSuffix(c.want, "…")
			if code != c.code || open && !strings.HasPrefix(out, begin) || !open && out != c.want {
				t.Errorf("%q, %d; want %q, %d", out, code, c.want, c.code)
			}
		})
	}
}

// What cannot be executed is told in Docker's words, and leaves nothing.
func TestCannotStart(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		cmd  string
		want string
		code int
	}{
		{"no-such-program", `exec: "no-such-program": executable file not found in $PATH`, 127},
		{"/no/such", `exec: "/no/such": stat /no/such: no such file or directory`, 127},
		{"/etc/text", `exec: "/etc/text": permission denied`, 126},
		{"/etc", `exec: "/etc": is a directory`, 126},
	} {
		id := w.create("", container.Spec{Image: "busybox", Network: container.Network{Mode: "none"}, Process: container.Process{Cmd: []string{c.cmd}}})
		err := w.Start(t.Context(), id)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "failed to create task for container: ") || !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", c.cmd, err)
		}
		if s := w.state(id); s.Status != container.Created || s.ExitCode != c.code || s.Error == "" {
			t.Errorf("%s: %+v", c.cmd, s)
		}
		x, err := w.Explain(t.Context(), id)
		if err != nil || x.Ended == "" || x.Program == "" {
			t.Errorf("%s: %+v, %v", c.cmd, x, err)
		}
	}
	s := spec("true")
	s.AutoRemove, s.Process.Cmd = true, []string{"none"}
	id := w.create("gone", s)
	if w.Start(t.Context(), id) == nil {
		t.Error("started nothing")
	}
	if _, err := w.Inspect(t.Context(), id); !fault.Is(err, fault.NotFound) {
		t.Errorf("an auto-removed container that did not start is still there: %v", err)
	}
	s = spec("true")
	s.Process.User = "ghost"
	id = w.create("", s)
	if err := w.Start(t.Context(), id); err == nil || err.Error() != "unable to find user ghost: no matching entries in passwd file" {
		t.Error(err)
	}
}

func TestRefused(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		ask  func(*container.Spec)
		kind fault.Kind
		want string
	}{
		{func(s *container.Spec) { s.Network.Mode = "" }, fault.NotImplemented, "this engine runs without networks; use --network none or host"},
		{func(s *container.Spec) { s.Network.Mode = "mynet" }, fault.NotImplemented, "this engine runs without networks"},
		{func(s *container.Spec) { s.Image = "ghost" }, fault.NotFound, "No such image: ghost"},
		{func(s *container.Spec) { s.Process.WorkingDir = "rel" }, fault.Invalid, "the working directory 'rel' is invalid, it needs to be an absolute path"},
		{func(s *container.Spec) { s.Resources.Memory = 1 << 20 }, fault.Invalid, "Minimum memory limit allowed is 6MB"},
		{func(s *container.Spec) { s.Restart.Name = "often" }, fault.Invalid, "unknown policy 'often'"},
		{func(s *container.Spec) { s.AutoRemove, s.Restart.Name = true, "always" }, fault.Invalid, "can't create 'AutoRemove' container with restart policy"},
		{func(s *container.Spec) { s.Log.Driver = "awslogs" }, fault.NotImplemented, "log driver awslogs"},
		{func(s *container.Spec) { s.Log.Driver = "paper" }, fault.Invalid, `error looking up logging plugin paper: plugin "paper" not found`},
		{func(s *container.Spec) { s.Log.Options = map[string]string{"colour": "red"} }, fault.Invalid, "unknown log opt 'colour' for json-file log driver"},
		{func(s *container.Spec) {
			s.Mounts = []container.Mount{{Type: "bind", Source: "/no/such", Target: "/x"}}
		}, fault.Invalid, `invalid mount config for type "bind": bind source path does not exist: /no/such`},
		{func(s *container.Spec) { s.Mounts = []container.Mount{{Type: "volume", Target: "/x"}} }, fault.NotImplemented, "this engine runs without volumes"},
		{func(s *container.Spec) {
			s.Mounts = []container.Mount{{Type: "tmpfs", Target: "/x"}, {Type: "tmpfs", Target: "/x/"}}
		}, fault.Invalid, "Duplicate mount point: /x/"},
		{func(s *container.Spec) { s.Volumes = map[string]struct{}{"/v": {}} }, fault.NotImplemented, "this engine runs without volumes"},
		{func(s *container.Spec) { s.Security.CapAdd = []string{"FLY"} }, fault.Invalid, `invalid CapAdd: unknown capability: "CAP_FLY"`},
		{func(s *container.Spec) { s.Security.SecurityOpt = []string{"magic=on"} }, fault.Invalid, `invalid --security-opt 2: "magic=on"`},
		{func(s *container.Spec) { s.Security.Sysctls = map[string]string{"vm.swappiness": "1"} }, fault.Invalid, "is not in a separate kernel namespace"},
		{func(s *container.Spec) { s.StopSignal = "SIGNOT" }, fault.Invalid, "invalid signal: SIGNOT"},
		{func(s *container.Spec) { s.Namespaces.PID = "container:" }, fault.Invalid, `invalid mode "container:": it names no container`},
		{func(s *container.Spec) { s.Runtime = "runsc" }, fault.Invalid, "unknown or invalid runtime name: runsc"},
		{func(s *container.Spec) { s.Resources.CpusetCpus = "999" }, fault.Invalid, "Requested CPUs are not available"},
		{func(s *container.Spec) { s.Resources.DeviceCgroupRules = []string{"x"} }, fault.Invalid, "invalid device cgroup rule format: 'x'"},
		{func(s *container.Spec) { s.Process.Env = []string{"=x"} }, fault.Invalid, "invalid environment variable: =x"},
	} {
		s := spec("true")
		c.ask(&s)
		_, err := w.Create(t.Context(), "", s)
		if err == nil || !strings.Contains(err.Error(), c.want) || fault.KindOf(err) != c.kind {
			t.Errorf("%v (%v), want %s (%v)", err, fault.KindOf(err), c.want, c.kind)
		}
	}
	if l, _ := w.List(t.Context(), ListOptions{All: true}); len(l) != 0 {
		t.Errorf("%d containers were made", len(l))
	}
	w.images.fail = "CreateLayer"
	if _, err := w.Create(t.Context(), "half", spec("true")); err == nil {
		t.Error("created without a layer")
	}
	w.images.fail = ""
	if left, _ := filepath.Glob(filepath.Join(w.cfg.DataRoot, "containers", "*")); len(left) != 0 {
		t.Errorf("left %v", left)
	}
	w.create("half", spec("true")) // the name is free again
}

func TestNames(t *testing.T) {
	w := newWorld(t)
	a := w.create("web", spec("true"))
	if _, err := w.Create(t.Context(), "web", spec("true")); !fault.Is(err, fault.Conflict) ||
		err.Error() != fmt.Sprintf("Conflict. The container name \"/web\" is already in use by container \"%s\". You have to remove (or rename) that container to be able to reuse that name.", a) {
		t.Error(err)
	}
	for _, ref := range []string{"web", "/web", a, a[:12], a[:3]} {
		if i, err := w.Inspect(t.Context(), ref); err != nil || i.ID != a {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if err := w.Rename(t.Context(), "web", "shop"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Inspect(t.Context(), "web"); !fault.Is(err, fault.NotFound) || err.Error() != "No such container: web" {
		t.Error(err)
	}
	w.create("web", spec("true"))
	if err := w.Rename(t.Context(), "web", "shop"); !fault.Is(err, fault.Conflict) {
		t.Error(err)
	}
	w.reopen()
	if i, err := w.Inspect(t.Context(), "shop"); err != nil || i.ID != a {
		t.Errorf("after a restart: %v", err)
	}
	if i, _ := w.Inspect(t.Context(), w.create("", spec("true"))); !strings.Contains(i.Name, "_") {
		t.Errorf("random name %q", i.Name)
	}
}

func TestStopAndKill(t *testing.T) {
	w := newWorld(t)
	polite := w.run("polite", spec("trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.02; done"))
	w.await(polite, "ready")
	if err := w.Stop(t.Context(), polite, StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if s := w.state(polite); s.ExitCode != 5 || s.Running || !s.ManuallyStopped {
		t.Errorf("%+v", s)
	}
	if err := w.Stop(t.Context(), polite, StopOptions{}); !fault.Is(err, fault.NotModified) {
		t.Error(err)
	}
	if err := w.Kill(t.Context(), polite, ""); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "is not running") {
		t.Error(err)
	}

	deaf := w.run("deaf", spec("trap '' TERM; echo ready; while :; do sleep 0.02; done"))
	w.await(deaf, "ready")
	one := 1
	if err := w.Stop(t.Context(), deaf, StopOptions{Timeout: &one}); err != nil {
		t.Fatal(err)
	}
	if s := w.state(deaf); s.ExitCode != 137 || s.Signal != 9 {
		t.Errorf("%+v", s)
	}

	s := spec("trap 'exit 9' USR1; echo ready; while :; do sleep 0.02; done")
	s.StopSignal = "SIGUSR1"
	other := w.run("other", s)
	w.await(other, "ready")
	for _, none := range []string{"0", "65", "NOPE"} {
		if err := w.Kill(t.Context(), other, none); !fault.Is(err, fault.Invalid) {
			t.Errorf("kill -s %s: %v", none, err)
		}
	}
	if err := w.Kill(t.Context(), other, "WINCH"); err != nil {
		t.Error(err)
	}
	if err := w.Stop(t.Context(), other, StopOptions{}); err != nil || w.state(other).ExitCode != 9 {
		t.Error(err, w.state(other))
	}

	frozen := w.run("frozen", spec("while :; do sleep 0.02; done"))
	if err := w.Pause(t.Context(), frozen); err != nil {
		t.Fatal(err)
	}
	if err := w.Pause(t.Context(), frozen); !fault.Is(err, fault.Conflict) {
		t.Error(err)
	}
	if _, err := w.ExecCreate(t.Context(), frozen, container.ExecSpec{Cmd: []string{"true"}}); !fault.Is(err, fault.Conflict) {
		t.Error(err)
	}
	if err := w.Kill(t.Context(), frozen, "KILL"); err != nil {
		t.Fatal(err)
	}
	if s := w.state(frozen); s.ExitCode != 137 || s.Paused {
		t.Errorf("%+v", s)
	}
}

func (w *world) await(id, text string) {
	w.t.Helper()
	for end := time.Now().Add(time.Minute); !strings.Contains(w.logged(id), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("container %s never says %q: %q", id, text, w.logged(id))
		}
	}
}

func TestRestartPolicies(t *testing.T) {
	w := newWorld(t)
	s := spec("echo run; exit 3")
	s.Restart = container.Restart{Name: "on-failure", MaxRetries: 2}
	id := w.run("", s)
	w.until(id, "ended for good", func(s container.State) bool { return s.Status == container.Exited })
	i, _ := w.Inspect(t.Context(), id)
	if out := w.logged(id); out != "run\nrun\nrun\n" || i.RestartCount != 2 || i.State.ExitCode != 3 {
		t.Errorf("%q, %d restarts, %+v", out, i.RestartCount, i.State)
	}

	s = spec("exit 0")
	s.Restart.Name = "always"
	id = w.run("", s)
	w.until(id, "restarted", func(st container.State) bool {
		if !st.Running {
			t.Errorf("%+v", st)
		}
		return w.snapshotOf(id).RestartCount >= 2
	})
	if err := w.Stop(t.Context(), id, StopOptions{}); err != nil && !fault.Is(err, fault.NotModified) {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	if st := w.state(id); st.Running || st.Status != container.Exited {
		t.Errorf("after stop: %+v", st)
	}
}

func TestWaitAndAutoRemove(t *testing.T) {
	w := newWorld(t)
	s := spec("exit 6")
	s.AutoRemove = true
	id := w.create("auto", s)
	next, err := w.Wait(t.Context(), id, container.WaitNextExit)
	if err != nil {
		t.Fatal(err)
	}
	removed, _ := w.Wait(t.Context(), id, container.WaitRemoved)
	ctx, cancel := context.WithCancel(t.Context())
	left, _ := w.Wait(ctx, id, container.WaitNextExit)
	cancel()
	if _, ok := <-left; ok {
		t.Error("a waiter who left got an answer")
	}
	if at := <-must2(w.Wait(t.Context(), id, container.WaitNotRunning)); at.Code != 0 {
		t.Errorf("not running: %+v", at)
	}
	if err := w.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]<-chan container.ExitStatus{"next exit": next, "removed": removed} {
		select {
		case s := <-c:
			if s.Code != 6 {
				t.Errorf("%s: %+v", what, s)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s: no answer", what)
		}
	}
	if _, err := w.Inspect(t.Context(), id); !fault.Is(err, fault.NotFound) {
		t.Error("still there", err)
	}
	if _, err := w.Wait(t.Context(), w.create("", spec("true")), "tomorrow"); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

// Who waits for the next exit is told when there will be none; who waits for the removal goes on waiting.
func TestWaitOfAFailedStart(t *testing.T) {
	w := newWorld(t)
	s := spec("true")
	s.Process.Cmd = []string{"/no/such"}
	id := w.create("broken", s)
	next := must2(w.Wait(t.Context(), id, container.WaitNextExit))
	removed := must2(w.Wait(t.Context(), id, container.WaitRemoved))
	if err := w.Start(t.Context(), id); err == nil {
		t.Fatal("it started")
	}
	select {
	case got := <-next:
		if got.Code != 127 || !strings.Contains(got.Err, "no such file or directory") {
			t.Errorf("next exit: %+v", got)
		}
	case <-time.After(time.Minute):
		t.Fatal("next exit: no answer")
	}
	select {
	case got := <-removed:
		t.Errorf("it is not removed: %+v", got)
	default:
	}
}

func must2[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestRemove(t *testing.T) {
	w := newWorld(t)
	id := w.run("busy", spec("sleep 100"))
	if err := w.Remove(t.Context(), "busy", RemoveOptions{}); !fault.Is(err, fault.Conflict) ||
		err.Error() != `cannot remove container "/busy": container is running: stop the container before removing or force remove` {
		t.Error(err)
	}
	w.Pause(t.Context(), id)
	if err := w.Remove(t.Context(), "busy", RemoveOptions{}); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "must be unpaused first") {
		t.Error(err)
	}
	if err := w.Remove(t.Context(), "busy", RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	id = w.create("stuck", spec("true"))
	w.images.fail = "RemoveLayer"
	if err := w.Remove(t.Context(), "stuck", RemoveOptions{}); err == nil || w.state(id).Status != container.Dead {
		t.Error(err, w.state(id))
	}
	w.images.fail = ""
	if err := w.Remove(t.Context(), "stuck", RemoveOptions{}); err != nil {
		t.Error(err)
	}
	a, b := w.run("", spec("true")), w.run("", spec("sleep 100"))
	w.wait(a)
	plan, err := w.PlanPrune(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := w.Prune(t.Context(), plan)
	if err != nil || len(r.Removed) != 1 || r.Removed[0].ID != a || !w.state(b).Running {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestEvents(t *testing.T) {
	w := newWorld(t)
	sub := w.Events().Subscribe(t.Context(), time.Time{}, time.Time{}, nil)
	s := spec("sleep 100")
	s.AutoRemove, s.Labels = true, map[string]string{"k": "v"}
	id := w.run("ev", s)
	x, _ := w.ExecCreate(t.Context(), id, container.ExecSpec{Cmd: []string{"sh", "-c", "exit 2"}})
	if _, err := w.ExecStart(t.Context(), x, ExecStartOptions{Detach: true}); err != nil {
		t.Fatal(err)
	}
	var got []string
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	upTo := func(action string) {
		t.Helper()
		for {
			e, ok := sub.Next(ctx)
			if !ok {
				t.Fatalf("only %v", got)
			}
			if e.ID != id || e.Type != "container" || e.Attributes["k"] != "v" || e.Attributes["image"] != "busybox" || e.Attributes["name"] == "" {
				t.Errorf("%+v", e)
			}
			got = append(got, e.Action+extra(e))
			if e.Action == action {
				return
			}
		}
	}
	upTo("exec_die") // who asks for the exit code may know it before
	w.Pause(t.Context(), id)
	w.Unpause(t.Context(), id)
	w.Rename(t.Context(), id, "ev2")
	w.Kill(t.Context(), id, "KILL")
	removed, err := w.Wait(t.Context(), id, container.WaitRemoved)
	if err == nil {
		<-removed
	}
	upTo("destroy")
	want := "create start exec_create: sh -c exit 2 exec_start: sh -c exit 2 exec_die(2) pause unpause rename(/ev) kill(9) die(137) destroy"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
}

func extra(e event.Event) string {
	for _, k := range []string{"exitCode", "signal", "oldName"} {
		if v := e.Attributes[k]; v != "" {
			return "(" + v + ")"
		}
	}
	return ""
}

func TestList(t *testing.T) {
	w := newWorld(t)
	a := w.create("a1", spec("true"))
	b := w.run("b1", spec("sleep 100"))
	c := w.run("c1", spec("exit 4"))
	w.wait(c)
	ids := func(o ListOptions) string {
		l, err := w.List(t.Context(), o)
		if err != nil {
			return err.Error()
		}
		s := ""
		for _, i := range l {
			s += i.Name[:1]
		}
		return s
	}
	for _, tt := range []struct {
		o    ListOptions
		want string
	}{
		{ListOptions{}, "b"}, {ListOptions{All: true}, "cba"}, {ListOptions{Limit: 2}, "cb"}, {ListOptions{All: true, Before: "c1"}, "ba"},
		{ListOptions{All: true, Since: "a1"}, "cb"}, {ListOptions{Filters: container.Filters{"status": {"exited"}}}, "c"},
		{ListOptions{All: true, Filters: container.Filters{"exited": {"4"}}}, "c"}, {ListOptions{All: true, Filters: container.Filters{"ancestor": {"busybox"}}}, "cba"},
		{ListOptions{All: true, Filters: container.Filters{"id": {a[:12]}}}, "a"}, {ListOptions{Filters: container.Filters{"x": {"y"}}}, "invalid filter 'x'"},
		{ListOptions{All: true, Since: "zz"}, "No such container: zz"},
	} {
		if got := ids(tt.o); got != tt.want {
			t.Errorf("%+v: %s, want %s", tt.o, got, tt.want)
		}
	}
	w.eventually("its one process", func() bool { // which in the middle of execve has no command line yet
		top, err := w.Top(t.Context(), b, "")
		if err != nil || len(top.Processes) != 1 {
			t.Fatalf("%+v, %v", top, err)
		}
		return top.Processes[0][7] == "sh -c sleep 100" || top.Processes[0][7] == "sleep 100"
	})
	st, err := w.Stats(t.Context(), b)
	if err != nil || !st.Running || st.Cgroup.Pids.Current == 0 || !strings.Contains(string(st.NetDev), "lo:") {
		t.Errorf("%+v, %v", st, err)
	}
	e, err := w.Engine.index.find(b)
	if err != nil {
		t.Fatal(err)
	}
	if text := w.Engine.netDev(e, os.Getpid()); text != nil { // as if the number had another owner by now
		t.Errorf("another process's figures: %s", text)
	}
	if f := w.Info(t.Context()); f.Containers != 3 || f.Running != 1 || f.Stopped != 2 || f.KeeperPID == 0 {
		t.Errorf("%+v", f)
	}
}

func TestUpdate(t *testing.T) {
	w := newWorld(t)
	id := w.run("", spec("while :; do cat /sys/fs/cgroup/memory*/memory.limit_in_bytes /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/*/*/memory.limit_in_bytes 2>/dev/null; sleep 0.05; done"))
	if _, err := w.Update(t.Context(), id, container.Resources{Memory: 64 << 20, MemorySwap: -1}, nil); err != nil {
		t.Fatal(err)
	}
	st, err := w.Stats(t.Context(), id)
	if err != nil || st.Cgroup.Memory.Limit != 64<<20 {
		t.Errorf("limit %d, %v", st.Cgroup.Memory.Limit, err)
	}
	if _, err := w.Update(t.Context(), id, container.Resources{}, &container.Restart{Name: "always"}); err != nil {
		t.Fatal(err)
	}
	w.reopen()
	i, _ := w.Inspect(t.Context(), id)
	if i.Spec.Resources.Memory != 64<<20 || i.Spec.Restart.Name != "always" {
		t.Errorf("%+v", i.Spec)
	}
	if _, err := w.Update(t.Context(), id, container.Resources{Memory: 1}, nil); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

func TestOutOfMemory(t *testing.T) {
	w := newWorld(t)
	s := spec("head -c 200000000 /dev/zero | tail; echo survived")
	s.Process.Cmd = []string{"tail", "/dev/zero"}
	s.Resources.Memory, s.Resources.MemorySwap = 8<<20, 8<<20
	id := w.run("", s)
	code := w.wait(id)
	st := w.state(id)
	if code != 137 || !st.OOMKilled {
		t.Errorf("%d %+v", code, st)
	}
	x, err := w.Explain(t.Context(), id)
	if err != nil || x.Ended != "it ran out of memory and was killed" || !strings.Contains(strings.Join(x.Details, " "), "limit 8.0 MiB") {
		t.Errorf("%+v, %v", x, err)
	}
}

// A child that runs out of memory marks the container, also when the first process ends well.
func TestChildOutOfMemory(t *testing.T) {
	w := newWorld(t)
	s := spec("tail /dev/zero; exit 0")
	s.Resources.Memory = 8 << 20
	id := w.run("", s)
	code := w.wait(id)
	if st := w.state(id); code != 0 || !st.OOMKilled {
		t.Errorf("%d %+v", code, st)
	}
	if x, _ := w.Explain(t.Context(), id); x.Ended != "it exited with code 0 after running out of memory" {
		t.Errorf("%q", x.Ended)
	}
}

func TestSharedNamespaces(t *testing.T) {
	w := newWorld(t)
	s := spec("echo 123 > /dev/shm/x; echo ready; exec sleep 100")
	s.Namespaces.IPC, s.Hostname = "shareable", "donor"
	donor := w.run("donor", s)
	w.await(donor, "ready")
	s = spec("cat /dev/shm/x; cat /proc/1/cmdline | tr '\\0' ' '; readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; cat /etc/hostname")
	s.Namespaces.IPC, s.Namespaces.PID, s.Network.Mode = "container:donor", "container:donor", "container:donor"
	out, code := w.output(s)
	net, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", w.state(donor).Pid))
	ipc, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/ipc", w.state(donor).Pid))
	if want := fmt.Sprintf("123\nsleep 100 %s\n%s\ndonor\n", net, ipc); out != want {
		t.Errorf("%q, %d; want %q", out, code, want)
	}
	s = spec("sleep 100")
	s.Namespaces.PID, s.Network.Mode = "container:donor", "container:donor"
	guest := w.run("guest", s)
	s.Namespaces.PID, s.Namespaces.IPC = "", "host"
	orphan := w.run("netguest", s)
	s = spec("cat /etc/hostname; readlink /proc/self/ns/net")
	s.Network.Mode = "container:netguest" // which has it from the donor
	if out, code := w.output(s); out != "donor\n"+net+"\n" {
		t.Errorf("the network of a container that joined another's: %q, %d", out, code)
	}
	w.Kill(t.Context(), donor, "")
	w.wait(guest) // it lived in the donor's pid namespace
	x, _ := w.ExecCreate(t.Context(), orphan, container.ExecSpec{Cmd: []string{"readlink", "/proc/self/ns/net"}, AttachStdout: true, TTY: true})
	if a, err := w.ExecStart(t.Context(), x, ExecStartOptions{TTY: true}); err != nil {
		t.Errorf("exec beside a donor that is gone: %v", err)
	} else if out, _ := io.ReadAll(a.Conn); strings.TrimSpace(string(out)) != net {
		t.Errorf("%q, want %s", out, net)
	}
	w.Kill(t.Context(), orphan, "")
	s = spec("true")
	s.Namespaces.PID = "container:donor"
	if err := w.Start(t.Context(), w.create("", s)); !fault.Is(err, fault.Internal) {
		t.Error(err)
	}
	if b, _ := os.ReadFile("/proc/self/mounts"); strings.Contains(string(b), w.cfg.DataRoot) {
		t.Error("the shared /dev/shm is still mounted")
	}
}

func TestAttachBeforeStart(t *testing.T) {
	w := newWorld(t)
	s := spec("read line; echo got $line; echo err >&2")
	s.OpenStdin, s.StdinOnce = true, true
	id := w.create("", s)
	a, err := w.Attach(t.Context(), id, AttachOptions{Stdin: true, Stdout: true, Stderr: true, Stream: true})
	if err != nil || a.TTY {
		t.Fatal(a, err)
	}
	if err := w.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	io.WriteString(a.Conn, "hello\n")
	a.Conn.CloseWrite()
	out, err := io.ReadAll(a.Conn)
	a.Conn.Close()
	if got := string(out); err != nil || !strings.Contains(got, "\x01\x00\x00\x00\x00\x00\x00\x0agot hello\n") || !strings.Contains(got, "\x02\x00\x00\x00\x00\x00\x00\x04err\n") {
		t.Errorf("%q, %v", out, err)
	}
	if w.wait(id) != 0 {
		t.Error("did not end well")
	}
	// The history alone, and an attachment that is given up before the start.
	a, err = w.Attach(t.Context(), id, AttachOptions{Stdout: true, Logs: true})
	if err != nil {
		t.Fatal(err)
	}
	if out, _ := io.ReadAll(a.Conn); string(out) != "\x01\x00\x00\x00\x00\x00\x00\x0agot hello\n" {
		t.Errorf("%q", out)
	}
	a, err = w.Attach(t.Context(), id, AttachOptions{Stdout: true, Stream: true})
	if err != nil {
		t.Fatal(err)
	}
	a.Conn.Close()
	if n := len(w.index.get(id).pending); n != 0 {
		t.Errorf("%d attachments wait", n)
	}
}

func TestTerminal(t *testing.T) {
	w := newWorld(t)
	s := container.Spec{Image: "busybox", Network: container.Network{Mode: "none"}, Process: container.Process{Cmd: []string{"sh"}, TTY: true}, OpenStdin: true, ConsoleSize: [2]uint{30, 100}}
	id := w.run("", s)
	a, err := w.Attach(t.Context(), id, AttachOptions{Stdin: true, Stdout: true, Stream: true, DetachKeys: "ctrl-x,x"})
	if err != nil || !a.TTY {
		t.Fatal(err)
	}
	e := &expect{t: t, r: a.Conn}
	io.WriteString(a.Conn, "stty size; echo A$((1+1))\n")
	e.until("30 100")
	e.until("A2")
	if err := w.Resize(t.Context(), id, 40, 120); err != nil {
		t.Fatal(err)
	}
	io.WriteString(a.Conn, "stty size\n")
	e.until("40 120")
	io.WriteString(a.Conn, "\x18x") // detach
	if rest, err := io.ReadAll(a.Conn); err != nil {
		t.Errorf("%q, %v", rest, err)
	}
	if !w.state(id).Running {
		t.Fatal("detaching ended it")
	}
	a, _ = w.Attach(t.Context(), id, AttachOptions{Stdin: true, Stdout: true, Stream: true})
	io.WriteString(a.Conn, "exit 9\n")
	io.ReadAll(a.Conn)
	if code := w.wait(id); code != 9 {
		t.Errorf("exit code %d", code)
	}
}

// expect reads until a text comes.
type expect struct {
	t   testing.TB
	r   io.Reader
	got string
}

func (e *expect) until(text string) {
	e.t.Helper()
	buf := make([]byte, 4096)
	for !strings.Contains(e.got, text) {
		n, err := e.r.Read(buf)
		e.got += string(buf[:n])
		if err != nil {
			e.t.Fatalf("%q does not come: %q, %v", text, e.got, err)
		}
	}
	_, e.got, _ = strings.Cut(e.got, text)
}

func TestExec(t *testing.T) {
	w := newWorld(t)
	s := spec("sleep 100")
	s.Process.Env, s.Hostname = []string{"OUTER=1"}, "box"
	id := w.run("", s)
	run := func(x container.ExecSpec) (string, ExecInfo, error) {
		t.Helper()
		x.AttachStdout, x.AttachStderr = true, true
		eid, err := w.ExecCreate(t.Context(), id, x)
		if err != nil {
			t.Fatal(err)
		}
		a, err := w.ExecStart(t.Context(), eid, ExecStartOptions{TTY: x.TTY})
		if err != nil {
			i, _ := w.ExecInspect(t.Context(), eid)
			return "", i, err
		}
		out, _ := io.ReadAll(a.Conn)
		a.Conn.Close()
		var i ExecInfo
		w.eventually("its end", func() bool { i, _ = w.ExecInspect(t.Context(), eid); return !i.Running })
		return string(out), i, nil
	}
	out, i, err := run(container.ExecSpec{Cmd: []string{"sh", "-c", "hostname; echo $OUTER $INNER $HOME; id -u; pwd; grep CapEff /proc/self/status; exit 3"}, Env: []string{"INNER=2"}, User: "app", WorkingDir: "/etc"})
	if err != nil || *i.ExitCode != 3 || !strings.Contains(out, "box\n") || !strings.Contains(out, "1 2 /tmp\n") || !strings.Contains(out, "/etc\n") {
		t.Errorf("%q %+v %v", out, i, err)
	}
	out, _, _ = run(container.ExecSpec{Cmd: []string{"sh", "-c", "tty; echo $TERM"}, TTY: true})
	if out != "/dev/pts/0\r\nxterm\r\n" {
		t.Errorf("%q", out)
	}
	out, _, _ = run(container.ExecSpec{Cmd: []string{"grep", "CapEff", "/proc/self/status"}, Privileged: true})
	if !strings.Contains(out, "ffff") {
		t.Errorf("%q", out)
	}
	_, i, err = run(container.ExecSpec{Cmd: []string{"nothing"}})
	if err == nil || err.Error() != `OCI runtime exec failed: exec failed: unable to start container process: exec: "nothing": executable file not found in $PATH: unknown` || *i.ExitCode != 127 {
		t.Errorf("%+v %v", i, err)
	}
	w.eventually("no exec in inspect", func() bool { info, _ := w.Inspect(t.Context(), id); return len(info.ExecIDs) == 0 })
	if _, err := w.ExecStart(t.Context(), i.ID, ExecStartOptions{}); !fault.Is(err, fault.Conflict) {
		t.Error(err)
	}
	if _, err := w.ExecInspect(t.Context(), "none"); !fault.Is(err, fault.NotFound) || err.Error() != "No such exec instance: none" {
		t.Error(err)
	}
	w.Kill(t.Context(), id, "")
	if _, err := w.ExecCreate(t.Context(), id, container.ExecSpec{Cmd: []string{"true"}}); !fault.Is(err, fault.Conflict) || err.Error() != "container "+id+" is not running" {
		t.Error(err)
	}
}

func TestLogsFollow(t *testing.T) {
	w := newWorld(t)
	s := spec("for i in $(seq 300); do echo line $i; done")
	s.Log.Options = map[string]string{"max-size": "4k", "max-file": "20", "tag": "{{.Name}}/{{.ID}}", "labels": "keep"}
	s.Labels = map[string]string{"keep": "this"}
	id := w.create("logger", s)
	if err := w.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	r, err := w.Logs(t.Context(), id, LogOptions{Stdout: true, Follow: true, Tail: -1})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for {
		l, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		n++
		if want := fmt.Sprintf("line %d\n", n); string(l.Data) != want || l.Attrs["tag"] != "logger/"+id[:12] || l.Attrs["keep"] != "this" {
			t.Fatalf("%q %v, want %q", l.Data, l.Attrs, want)
		}
	}
	if n != 300 {
		t.Errorf("%d lines", n)
	}
	s = spec("echo x")
	s.Log.Driver = "none"
	id = w.run("", s)
	if _, err := w.Logs(t.Context(), id, LogOptions{Stdout: true}); !fault.Is(err, fault.NotImplemented) {
		t.Error(err)
	}
}
