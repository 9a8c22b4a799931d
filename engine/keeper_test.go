package engine

import (
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/engine/container"
	"berth/kernel/cgroup"
)

// The keeper alone is killed: a chatty writer and an interactive shell go on, nothing is lost, exits are known or honestly unknown.
func TestDeathOfTheKeeper(t *testing.T) {
	w := newWorld(t)
	s := spec("i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo $i; sleep 0.005; done; exit 5")
	chatty := w.run("chatty", s)
	shell := w.run("shell", container.Spec{
		Image: "busybox", Network: container.Network{Mode: "none"}, Process: container.Process{Cmd: []string{"sh"}, TTY: true}, OpenStdin: true,
	})
	w.await(chatty, "20\n")
	pid := w.Info(t.Context()).KeeperPID
	if b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline"); !strings.Contains(string(b), w.cfg.ExecRoot) {
		t.Fatalf("%d is not our keeper: %q", pid, b)
	}
	unix.Kill(pid, unix.SIGKILL)

	w.eventually("a new keeper", func() bool { p := w.Info(t.Context()).KeeperPID; return p != 0 && p != pid })
	if s := w.state(shell); !s.Running {
		t.Fatalf("shell: %+v", s)
	}
	a, err := w.Attach(t.Context(), shell, AttachOptions{Stdin: true, Stdout: true, Stream: true})
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(a.Conn, "echo still $((1+1)) here\n")
	(&expect{t: t, r: a.Conn}).until("still 2 here")
	a.Conn.Close()

	code := w.wait(chatty)
	st := w.state(chatty)
	if code != 5 && !st.Unknown {
		t.Errorf("exit code %d is neither right nor said to be unknown: %+v", code, st)
	}
	w.eventually("the last line", func() bool { return strings.HasSuffix(w.logged(chatty), "400\n") })
	for n, line := range strings.Fields(w.logged(chatty)) {
		if line != strconv.Itoa(n+1) {
			t.Errorf("line %d of the log is %q", n+1, line)
			break
		}
	}
	// New containers start, old ones are stopped.
	if out, code := w.output(spec("echo new")); out != "new\n" || code != 0 {
		t.Errorf("%q, %d", out, code)
	}
	if err := w.Kill(t.Context(), shell, "KILL"); err != nil {
		t.Error(err)
	}
}

// A keeper that is killed when it has made a process and has not noted it leaves nothing behind, and the next start works.
func TestKeeperKilledInALaunch(t *testing.T) {
	t.Setenv(failpoint.Env, "keeper/launched=kill")
	w := newWorld(t)
	os.Unsetenv(failpoint.Env) // for its successor
	id := w.create("", spec("echo up; sleep 1000"))
	if err := w.Start(t.Context(), id); !fault.Is(err, fault.Unavailable) {
		t.Fatalf("%v", err)
	}
	group := w.index.get(id).record().Cgroup
	if cg, err := cgroup.Open(w.layout, group); err == nil {
		procs, _ := cg.Procs()
		t.Errorf("%s is left, with the processes %v", group, procs)
	}
	if s := w.state(id); s.Running || s.Error == "" {
		t.Errorf("%+v", s)
	}
	if err := w.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	w.await(id, "up\n")
}

// The same where the engine dies too: nobody remembers the launch, but there is somebody in the cgroup of a container that does not run.
func TestProcessesThatNobodyHolds(t *testing.T) {
	w := newWorld(t)
	id, running := w.create("", spec("true")), w.run("", spec("sleep 1000"))
	p, err := cgroup.Plan(w.layout, w.index.get(id).record().Cgroup, nil)
	if err != nil {
		t.Fatal(err)
	}
	cg, err := p.Apply()
	if err != nil {
		t.Fatal(err)
	}
	lost := exec.Command("sleep", "1000")
	if err := lost.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { lost.Wait(); close(ended) }()
	defer func() { lost.Process.Kill(); <-ended }()
	if err := cg.Add(lost.Process.Pid); err != nil {
		t.Fatal(err)
	}
	w.reopen()
	if procs, err := cg.Procs(); err != nil || !slices.Contains(procs, lost.Process.Pid) {
		t.Fatalf("%v, %v: it could have been a launch on its way", procs, err)
	}
	w.killUnheld(t.Context())
	<-ended
	if _, err := cgroup.Open(w.layout, p.Path); !fault.Is(err, fault.NotFound) {
		t.Errorf("the cgroup is left: %v", err)
	}
	if !w.state(running).Running {
		t.Error("the container that runs was killed")
	}
}

// An exec whose launch was cut off leaves nothing in the container; what else runs there stays, execs from before included.
func TestKeeperKilledInAnExec(t *testing.T) {
	t.Setenv(failpoint.Env, "keeper/launched=kill:3")
	w := newWorld(t)
	os.Unsetenv(failpoint.Env)
	id := w.run("", spec("(sleep 1000 &); echo up; sleep 1000; true"))
	w.await(id, "up\n")
	exec := func(line string) (string, error) {
		x, err := w.ExecCreate(t.Context(), id, container.ExecSpec{Cmd: []string{"sh", "-c", line}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.ExecStart(t.Context(), x, ExecStartOptions{Detach: true})
		return x, err
	}
	before, err := exec("sleep 1000; true")
	if err != nil {
		t.Fatal(err)
	}
	inside := func() (pids []int) {
		cg, err := cgroup.Open(w.layout, w.index.get(id).record().Cgroup)
		if err == nil {
			pids, err = cg.Procs()
		}
		if err != nil {
			t.Fatal(err)
		}
		return pids
	}
	// The shell, its two sleeps, the exec's shell and its sleep.
	w.eventually("all run", func() bool { return len(inside()) == 5 })
	was := inside()
	if _, err := exec("sleep 1000; true"); !fault.Is(err, fault.Unavailable) {
		t.Fatalf("%v", err)
	}
	w.eventually("what was cut off is gone", func() bool { return slices.Equal(inside(), was) })
	if i, err := w.ExecInspect(t.Context(), before); err != nil || !i.Running {
		t.Errorf("the exec from before: %+v %v", i, err)
	}
	if _, err := exec("true"); err != nil {
		t.Error(err)
	}
}
