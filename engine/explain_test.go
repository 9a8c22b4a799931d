package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/engine/container"
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
		{run(func(s *container.Spec) { n := int64(2); s.Resources.PidsLimit = &n }, "sh", "-c", "sleep 0.2 & sleep 0.2 & wait; exit 1"), "its first process exited with code", "the limit of 2 processes refused"},
		{alive, "", ""},
	} {
		x, err := w.Explain(t.Context(), c.id)
		if err != nil || !strings.HasPrefix(x.Ended, c.ended) || (x.Ended == "") != (c.ended == "") || !strings.Contains(strings.Join(x.Details, "\n"), c.detail) {
			t.Errorf("%q %q, %v; want %q with %q", x.Ended, x.Details, err, c.ended, c.detail)
		}
		if !strings.Contains(x.Program, "execve") || len(x.Limits) == 0 || !strings.HasPrefix(x.Cgroup, w.cfg.CgroupParent) {
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
