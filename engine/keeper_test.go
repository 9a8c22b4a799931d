package engine

import (
	"io"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"berth/engine/container"
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
