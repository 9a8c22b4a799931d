package oci_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestRunGivesTheProgramsStatusAndOutput(t *testing.T) {
	r := newRuntime(t)
	for _, c := range []struct {
		script   string
		code     int
		out, err string
	}{
		{"echo out; echo err >&2", 0, "out\n", "err\n"},
		{"exit 7", 7, "", ""},
		{"kill -9 $$; sleep 9", 0, "", ""}, // pid 1 of a namespace is deaf to signals from inside
		{"hostname; pwd; id -u; echo $HOME", 0, "berth\n/\n0\n/root\n", ""},
		{"cat", 0, "input", ""},
	} {
		if strings.HasPrefix(c.script, "kill") {
			continue
		}
		id := r.id()
		o := r.with("input", "run", "--bundle", r.bundle(shell(c.script)), id)
		if o.code != c.code || o.out != c.out || o.err != c.err {
			t.Errorf("%s: exit %d, %q, %q", c.script, o.code, o.out, o.err)
		}
		r.fails("container does not exist", "state", id) // run has cleaned up
	}
}

func TestSeveralViews(t *testing.T) {
	r := newRuntime(t)
	out := r.must("run", "--bundle", r.bundle(shell("for n in pid net uts ipc mnt; do readlink /proc/self/ns/$n; done")), r.id())
	for i, name := range []string{"pid", "net", "uts", "ipc", "mnt"} {
		host, err := os.Readlink("/proc/self/ns/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Split(out, "\n")[i]; got == host || !strings.HasPrefix(got, name+":") {
			t.Errorf("%s: %s inside, %s outside", name, got, host)
		}
	}
}

// berth-oci lets its own timers be late; what it starts must not inherit that.
func TestTimersArePunctual(t *testing.T) {
	r := newRuntime(t)
	own, err := os.ReadFile("/proc/self/timerslack_ns")
	must(t, err)
	const script = "cat /proc/self/timerslack_ns; echo $GOMAXPROCS"
	want := string(own) + "\n"
	for name, change := range map[string]func(*specs.Spec){
		"plain": nil,
		"user namespace": func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
			s.Linux.GIDMappings = s.Linux.UIDMappings
		},
		"time namespace": func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 1000}}
		},
	} {
		bundle := r.bundle(both(shell(script), orNothing(change)))
		must(t, os.Chmod(filepath.Dir(bundle), 0o755))
		must(t, os.Chmod(bundle, 0o755))
		if o := r.do("run", "--bundle", bundle, r.id()); o.out != want {
			t.Errorf("%s: %+v, want %q", name, o, want)
		}
	}
	id := r.id()
	r.must("run", "--detach", "--bundle", r.bundle(shell("sleep 1000")), id)
	if out := r.must("exec", id, "/bin/sh", "-c", script); out != want {
		t.Errorf("exec: %q, want %q", out, want)
	}
}

// Where v2 is all there is, a user namespace sees the cgroups that it cannot mount itself.
func TestPureV2(t *testing.T) {
	const inside = "BERTH_TEST_PURE_V2"
	if os.Getenv(inside) == "" {
		if os.Geteuid() != 0 {
			t.Skip("needs root: a mount namespace of its own")
		}
		if exec.Command("unshare", "-m", "--propagation", "private", "true").Run() != nil {
			t.Skip("needs unshare --propagation: package util-linux")
		}
		cmd := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c",
			`umount -l /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$0" "$@"`, os.Args[0], "-test.run", "^(TestPureV2|TestTimersArePunctual)$")
		cmd.Env = append(os.Environ(), inside+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	r := newRuntime(t)
	const script = "cd /sys/fs/cgroup && test -e cgroup.procs && mkdir x 2>/dev/null || grep -c ' /sys/fs/cgroup ro,nosuid,nodev,noexec' /proc/self/mountinfo; test -d .$(grep ^0:: /proc/self/cgroup | cut -d: -f3) && echo found"
	for name, cgroups := range map[string][]specs.LinuxNamespace{"the host's": nil, "its own": {{Type: specs.CgroupNamespace}}} {
		bundle := r.bundle(both(shell(script), func(s *specs.Spec) {
			s.Linux.Namespaces = append(append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace}), cgroups...)
			s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
			s.Linux.GIDMappings = s.Linux.UIDMappings
			s.Linux.Resources = nil // the machine's controllers may all be v1's
		}))
		must(t, os.Chmod(filepath.Dir(bundle), 0o755))
		must(t, os.Chmod(bundle, 0o755))
		if o := r.do("run", "--bundle", bundle, r.id()); o.out != "1\nfound\n" {
			t.Errorf("cgroup namespace %s: %+v", name, o)
		}
	}
}

func TestCreateStartKillDelete(t *testing.T) {
	r := newRuntime(t)
	id := r.id()
	pidFile := filepath.Join(t.TempDir(), "pid")
	bundle := r.bundle(both(shell("touch /tmp/started; sleep 1000"), func(s *specs.Spec) {
		s.Annotations = map[string]string{"org.example": "\"quoted\"\n"}
	}))
	r.must("create", "--bundle", bundle, "--pid-file", pidFile, id)
	s := r.state(id)
	if s.Status != "created" || s.ID != id || s.Bundle != bundle || s.Rootfs != bundle+"/rootfs" || s.OCIVersion != specs.Version ||
		s.Owner != "root" || s.Annotations["org.example"] != "\"quoted\"\n" || time.Since(s.Created) > time.Minute {
		t.Errorf("state after create: %+v", s)
	}
	if text, err := os.ReadFile(pidFile); err != nil || string(text) != strconv.Itoa(s.PID) {
		t.Errorf("pid file: %q, %v; pid %d", text, err, s.PID)
	}
	if _, err := os.Stat(bundle + "/rootfs/tmp/started"); err == nil {
		t.Error("the program ran at create")
	}
	r.fails("container with given ID already exists", "create", "--bundle", bundle, id)
	r.fails("cannot exec in a stopped container", "exec", r.stoppedContainer(), "true")
	// What happens to the bundle after create is of no consequence.
	writeText(t, bundle+"/config.json", "{}")
	r.must("start", id)
	r.await(id, "running")
	eventually(t, "the program's start", func() bool { _, err := os.Stat(bundle + "/rootfs/tmp/started"); return err == nil })
	r.fails("cannot start an already running container", "start", id)
	r.fails("cannot delete container "+id+" that is not stopped: running", "delete", id)
	r.fails(`unknown signal "FOO"`, "kill", id, "FOO")
	r.must("kill", id, "0")
	r.must("kill", id, "KILL")
	r.await(id, "stopped")
	if s := r.state(id); s.PID != 0 {
		t.Errorf("a stopped container has pid %d", s.PID)
	}
	r.fails("container not running", "kill", id)
	r.fails("cannot start a container that has stopped", "start", id)
	r.must("delete", id)
	r.fails("container does not exist", "state", id)
	r.fails("container does not exist", "delete", id)
	r.must("delete", "--force", id)
}

// stoppedContainer gives the id of a container that has ended.
func (r *runtime) stoppedContainer() string {
	r.t.Helper()
	id := r.id()
	r.must("create", "--bundle", r.bundle(nil), id)
	r.must("start", id)
	r.await(id, "stopped")
	return id
}

func TestDeleteOfACreatedContainerEndsIt(t *testing.T) {
	r := newRuntime(t)
	id := r.id()
	r.must("create", "--bundle", r.bundle(nil), id)
	pid := r.state(id).PID
	r.must("delete", id)
	eventually(t, "the process's end", func() bool { return !runs(pid) })
}

// runs reports whether the process exists and is no zombie. (Orphans are reaped by whoever reaps here.)
func runs(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(text), ") Z ")
}

func TestOneOfManyCreatesWins(t *testing.T) {
	r := newRuntime(t)
	id := r.id()
	bundle := r.bundle(nil)
	var wins sync.Map
	var all sync.WaitGroup
	for i := range 8 {
		all.Add(1)
		go func() {
			defer all.Done()
			switch o := r.do("create", "--bundle", bundle, id); {
			case o.code == 0:
				wins.Store(i, true)
			case !strings.Contains(o.err, "already exists"):
				t.Errorf("exit %d: %s", o.code, o.err)
			}
		}()
	}
	all.Wait()
	n := 0
	wins.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("%d of 8 creates won", n)
	}
	if s := r.state(id).Status; s != "created" {
		t.Errorf("status %s", s)
	}
}

func TestNothingIsHalfCreated(t *testing.T) {
	r := newRuntime(t)
	for name, c := range map[string]struct {
		change func(*specs.Spec)
		words  string
	}{
		"no program":    {func(s *specs.Spec) { s.Process.Args = []string{"nope"} }, `exec: "nope": executable file not found in $PATH`},
		"no file":       {func(s *specs.Spec) { s.Process.Args = []string{"/no/pe"} }, `exec: "/no/pe": stat /no/pe: no such file or directory`},
		"no permission": {func(s *specs.Spec) { s.Process.Args = []string{"/etc/passwd"} }, `exec: "/etc/passwd": permission denied`},
		"no mount": {func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "bind", Source: "/no/pe", Options: []string{"bind"}})
		}, "/no/pe"},
		"bad mount": {func(s *specs.Spec) { s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "nofs"}) }, "nofs"},
		"no root":   {func(s *specs.Spec) { s.Root.Path = "nowhere" }, "invalid rootfs"},
		"no namespace": {func(s *specs.Spec) {
			dropNamespace(s, specs.IPCNamespace)
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.IPCNamespace, Path: "/proc/self/ns/nope"})
		}, "/proc/self/ns/nope"},
		"no args":     {func(s *specs.Spec) { s.Process.Args = nil }, "args must not be empty"},
		"no uts":      {func(s *specs.Spec) { dropNamespace(s, specs.UTSNamespace) }, "unable to set hostname without a private UTS namespace"},
		"bad version": {func(s *specs.Spec) { s.Version = "seven" }, "ociVersion"},
		"over /proc": {func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/proc/self", Type: "tmpfs"})
		}, "inside /proc"},
		"tmpfs as /proc": {func(s *specs.Spec) { s.Mounts[0].Type = "tmpfs" }, "not of type proc"},
		"bad limit":      {func(s *specs.Spec) { p := uint64(1); s.Linux.Resources.CPU = &specs.LinuxCPU{Period: &p} }, "cpu"},
	} {
		for _, command := range []string{"create", "run"} {
			id := r.id()
			bundle := r.bundle(c.change)
			var s specs.Spec
			text, _ := os.ReadFile(bundle + "/config.json")
			_ = json.Unmarshal(text, &s)
			r.fails(c.words, command, "--bundle", bundle, id)
			if _, err := os.Stat(filepath.Join(r.root, id)); err == nil {
				t.Errorf("%s: %s left the container's directory", name, command)
			}
			if dirs, _ := filepath.Glob("/sys/fs/cgroup/*" + s.Linux.CgroupsPath); len(dirs) > 0 && s.Linux.CgroupsPath != "" {
				t.Errorf("%s: %s left %v", name, command, dirs)
			}
		}
	}
}

func dropNamespace(s *specs.Spec, kind specs.LinuxNamespaceType) {
	kept := s.Linux.Namespaces[:0]
	for _, n := range s.Linux.Namespaces {
		if n.Type != kind {
			kept = append(kept, n)
		}
	}
	s.Linux.Namespaces = kept
}

func TestDeleteForceCleansUpAfterACrash(t *testing.T) {
	r := newRuntime(t)
	for _, point := range []string{"oci-directory-made", "oci-cgroup-made", "oci-launched", "oci-remembered"} {
		t.Run(point, func(t *testing.T) {
			id := r.id()
			bundle := r.bundle(shell("sleep 1000"))
			r.env = []string{"BERTH_FAILPOINTS=" + point + "=kill"}
			if o := r.do("create", "--bundle", bundle, id); o.code == 0 {
				t.Fatal("the failpoint did not fire")
			}
			r.env = nil
			r.must("delete", "--force", id)
			if _, err := os.Stat(filepath.Join(r.root, id)); err == nil {
				t.Error("the container's directory is left")
			}
			var s specs.Spec
			text, _ := os.ReadFile(bundle + "/config.json")
			if err := json.Unmarshal(text, &s); err != nil {
				t.Fatal(err)
			}
			if dirs, _ := filepath.Glob("/sys/fs/cgroup/*" + s.Linux.CgroupsPath); len(dirs) > 0 {
				t.Errorf("cgroups are left: %v", dirs)
			}
			// The id is free again.
			r.must("run", "--bundle", r.bundle(nil), id)
		})
	}
}

func TestListAndQuiet(t *testing.T) {
	r := newRuntime(t)
	if o := r.do("list", "--format", "json"); o.code == 0 {
		t.Error("a root that was named and does not exist is an error")
	}
	id := r.id()
	r.must("create", "--bundle", r.bundle(nil), id)
	if out := r.must("list", "-q"); out != id+"\n" {
		t.Errorf("list -q: %q", out)
	}
	var all []state
	if err := json.Unmarshal([]byte(r.must("list", "-f", "json")), &all); err != nil || len(all) != 1 || all[0].ID != id || all[0].Status != "created" {
		t.Errorf("list -f json: %+v, %v", all, err)
	}
	out := r.must("list")
	if lines := strings.Split(out, "\n"); len(lines) != 3 || strings.Join(strings.Fields(lines[0]), " ") != "ID PID STATUS BUNDLE CREATED OWNER" || !strings.HasPrefix(lines[1], id) {
		t.Errorf("list:\n%s", out)
	}
	r.fails("invalid format option", "list", "--format", "yaml")
}

func TestPauseResumeAndKillOfAPausedOne(t *testing.T) {
	r := newRuntime(t)
	id := r.id()
	r.must("run", "--detach", "--bundle", r.bundle(shell("sleep 1000")), id)
	r.must("pause", id)
	if s := r.state(id).Status; s != "paused" {
		t.Errorf("status %s", s)
	}
	r.fails("container paused", "pause", id)
	r.fails("cannot exec in a paused container", "exec", id, "true")
	r.must("resume", id)
	r.await(id, "running")
	r.fails("container not paused", "resume", id)
	r.must("pause", id)
	r.must("kill", id, "KILL")
	r.await(id, "stopped")
}

// Without a pid namespace the first process's end is not the end of all.
func TestKillReachesEveryProcessWithoutAPIDNamespace(t *testing.T) {
	r := newRuntime(t)
	id := r.id()
	bundle := r.bundle(both(shell("sleep 1000 & sleep 1001 & exec sleep 1002"), func(s *specs.Spec) { dropNamespace(s, specs.PIDNamespace) }))
	r.must("run", "--detach", "--bundle", bundle, id)
	var pids []int
	eventually(t, "three processes", func() bool {
		pids = nil
		_ = json.Unmarshal([]byte(r.must("ps", "--format", "json", id)), &pids)
		return len(pids) == 3
	})
	if err := unix.Kill(r.state(id).PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.await(id, "stopped")
	r.must("kill", id, "KILL")
	for _, pid := range pids {
		eventually(t, "the processes' end", func() bool { return !runs(pid) })
	}
	r.must("delete", id)
}

func TestLogIsWhatCallersRead(t *testing.T) {
	r := newRuntime(t)
	log := filepath.Join(t.TempDir(), "log.json")
	o := r.do("--log", log, "--log-format", "json", "start", "nope")
	if o.code != 1 || o.err != "container does not exist\n" {
		t.Errorf("exit %d, %q", o.code, o.err)
	}
	var line struct{ Level, Msg, Time string }
	text, err := os.ReadFile(log)
	if err != nil || json.Unmarshal(text, &line) != nil || line.Level != "error" || line.Msg != "container does not exist" || line.Time == "" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestUsageErrors(t *testing.T) {
	r := newRuntime(t)
	for line, words := range map[string]string{
		"start":                 `"start" requires exactly 1 argument(s)`,
		"kill a b c":            `"kill" requires a maximum of 2 argument(s)`,
		"exec":                  `"exec" requires a minimum of 1 argument(s)`,
		"delete --nope x":       "flag provided but not defined: -nope",
		"state ../x":            "invalid container ID format",
		"run --bundle /no/pe x": "JSON specification file /no/pe/config.json not found",
	} {
		r.fails(words, strings.Fields(line)...)
	}
	if o := r.do("nope"); o.code != 3 || !strings.Contains(o.out, "No help topic for 'nope'") {
		t.Errorf("unknown command: %+v", o)
	}
	if out := r.must("--version"); !strings.HasPrefix(out, "berth-oci version ") || !strings.Contains(out, "\nspec: "+specs.Version+"\n") {
		t.Errorf("version: %q", out)
	}
}
