package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/engine/container"
	"berth/kernel/cgroup"
)

// Every way to end has its sentence.
func TestExplain(t *testing.T) {
	w := newWorld(t)
	if b, err := os.ReadFile("/bin/ls"); err == nil { // a dynamic program, whose loader the image has not
		os.WriteFile(filepath.Join(w.images.lower, "bin/dynamic"), b, 0o755)
	}
	os.WriteFile(filepath.Join(w.images.lower, "bin/script"), []byte("#!/bin/nothing\n"), 0o755)
	run := func(change func(*container.Spec), cmd ...string) string {
		t.Helper()
		s := container.Spec{Image: "busybox", Network: container.Network{Mode: "none"}, Process: container.Process{Cmd: cmd}}
		if change != nil {
			change(&s)
		}
		id := w.create("", s)
		if w.Start(t.Context(), id) == nil {
			w.wait(id)
		}
		return id
	}
	stopped := w.run("stopped", spec("trap 'exit 2' TERM; echo ready; while :; do sleep 0.02; done"))
	w.await(stopped, "ready")
	w.Stop(t.Context(), stopped, StopOptions{})
	killed := w.run("killed", spec("sleep 100"))
	w.Kill(t.Context(), killed, "")
	alive := w.run("alive", spec("sleep 100"))

	for _, c := range []struct{ id, ended, detail string }{
		{w.create("", spec("true")), "it was never started", ""},
		{run(nil, "sh", "-c", "exit 3"), "its first process exited with code 3", ""},
		{run(nil, "sh", "-c", "exit 127"), "its first process exited with code 127", "127 for a command that is not found"},
		{run(nil, "sh", "-c", "kill -SEGV $$"), "its first process exited with code 0", ""}, // the first process of a pid namespace is deaf to its own signals
		{stopped, "it was stopped by a person and exited with code 2", ""},
		{killed, "it was stopped by a person and ended by signal 9 (SIGKILL)", ""},
		{run(nil, "missing"), `there is no program "missing" in the image`, "looked in PATH="},
		{run(nil, "script"), "/bin/script needs /bin/nothing to run, which is not in the image", "executable file not found"},
		{run(nil, "/etc/text"), "/etc/text is there but could not be executed", "permission denied"},
		{run(func(s *container.Spec) {
			s.Security.SecurityOpt = []string{`seccomp={"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["sethostname"],"action":"SCMP_ACT_KILL_PROCESS"}]}`}
		}, "hostname", "x"), "a system call that its seccomp filter forbids killed it", "SIGSYS"},
		{run(func(s *container.Spec) { n := int64(2); s.Resources.PidsLimit = &n }, "sh", "-c", "sleep 1000 & sleep 1000 & exit 1"), "its first process exited with code", "the limit of 2 processes refused"},
		{alive, "", ""},
	} {
		x, err := w.Explain(t.Context(), c.id)
		if err != nil || !strings.HasPrefix(x.Ended, c.ended) || (x.Ended == "") != (c.ended == "") || !strings.Contains(strings.Join(x.Details, "\n"), c.detail) {
			t.Errorf("%q %q, %v; want %q with %q", x.Ended, x.Details, err, c.ended, c.detail)
		}
		if !strings.Contains(x.Program, "execve") || !strings.Contains(strings.Join(x.Limits, "\n"), "c 1:3 rwm") || !strings.HasPrefix(x.Cgroup, w.cfg.CgroupParent) {
			t.Errorf("%s: program of %d bytes, limits %v, cgroup %s", x.ID, len(x.Program), x.Limits, x.Cgroup)
		}
	}
	if _, err := os.Stat(filepath.Join(w.images.lower, "bin/dynamic")); err == nil {
		x, _ := w.Explain(t.Context(), run(nil, "dynamic"))
		if !strings.HasPrefix(x.Ended, "/bin/dynamic needs /lib") {
			t.Errorf("%q %q", x.Ended, x.Details)
		}
	}
}

// What may be done with devices is told on v1, where files hold it, and on v2, where a program does.
func TestExplainDevices(t *testing.T) {
	v1 := cgroup.Layout{Mode: cgroup.V1, Hierarchies: []cgroup.Hierarchy{{Dir: "/v1/pids", Controllers: []string{"pids"}, Own: "/"}, {Dir: "/v1/devices", Controllers: []string{"devices"}, Own: "/"}}}
	v2 := cgroup.Layout{Mode: cgroup.V2, Hierarchies: []cgroup.Hierarchy{{V2: true, Dir: "/v2", Controllers: []string{"pids"}, Own: "/"}}}
	major, minor, limit := int64(10), int64(200), int64(7)
	everything := specs.LinuxDeviceCgroup{Access: "rwm"}
	tun := specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &major, Minor: &minor, Access: "rw"}
	open := specs.LinuxDeviceCgroup{Allow: true, Access: "rwm"}
	noTun := tun
	noTun.Allow = false
	for _, c := range []struct {
		name   string
		layout cgroup.Layout
		rules  []specs.LinuxDeviceCgroup
		want   []string // lines, in this order, among others
		never  string
	}{
		{"v1", v1, []specs.LinuxDeviceCgroup{everything, tun}, []string{"/v1/devices/berth/x/devices.deny = a", "/v1/devices/berth/x/devices.allow = c 10:200 rw", "/v1/devices/berth/x/devices.allow = c 1:3 rwm", "/v1/pids/berth/x/pids.max = 7"}, "devices: "},
		{"v2", v2, []specs.LinuxDeviceCgroup{everything, tun}, []string{"/v2/berth/x devices: deny all", "/v2/berth/x devices: allow c 10:200 rw", "/v2/berth/x devices: allow c 1:3 rwm", "/v2/berth/x/pids.max = 7"}, "allow all"},
		{"v2, no rule for the rest", v2, []specs.LinuxDeviceCgroup{tun}, []string{"/v2/berth/x devices: deny all", "/v2/berth/x devices: allow c 10:200 rw"}, "allow all"},
		{"v2, privileged", v2, []specs.LinuxDeviceCgroup{open}, []string{"/v2/berth/x devices: allow all"}, "deny all"},
		{"v2, all but one", v2, []specs.LinuxDeviceCgroup{open, noTun}, []string{"/v2/berth/x devices: allow all", "/v2/berth/x devices: deny c 10:200 rw"}, "deny all"},
	} {
		setup, err := cgroup.Plan(c.layout, "/berth/x", &specs.LinuxResources{Devices: c.rules, Pids: &specs.LinuxPids{Limit: &limit}})
		if err != nil {
			t.Fatal(c.name, err)
		}
		text := strings.Join(limitLines(setup), "\n") + "\n"
		rest := text
		for _, line := range c.want {
			_, after, ok := strings.Cut(rest, line+"\n")
			if !ok {
				t.Errorf("%s: no %q, in this order, in\n%s", c.name, line, text)
				break
			}
			rest = after
		}
		if strings.Contains(text, c.never) {
			t.Errorf("%s: %q in\n%s", c.name, c.never, text)
		}
	}
}
