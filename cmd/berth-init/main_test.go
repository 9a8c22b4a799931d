package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain lets the test binary play the init: reaping everybody's children does not go well inside a test.
func TestMain(m *testing.M) {
	if os.Getenv("BERTH_INIT_TEST") != "" {
		os.Unsetenv("BERTH_INIT_TEST")
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func initCmd(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "BERTH_INIT_TEST=1")
	return cmd
}

func TestExitCodes(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	os.WriteFile(plain, []byte("x"), 0o600)
	for _, c := range []struct {
		args []string
		want int
	}{
		{[]string{"--", "sh", "-c", "exit 7"}, 7},
		{[]string{"true"}, 0},
		{[]string{"--", "sh", "-c", "kill -9 $$"}, 137},
		{[]string{"--", "no-such-program"}, 127},
		{[]string{"--", filepath.Join(dir, "none")}, 127},
		{[]string{"--", plain}, 126},
		{[]string{"--", dir}, 126},
		{[]string{"--"}, 1},
		{[]string{"--version"}, 0},
	} {
		cmd := initCmd(c.args...)
		cmd.Run()
		if got := cmd.ProcessState.ExitCode(); got != c.want {
			t.Errorf("%v: %d, want %d", c.args, got, c.want)
		}
	}
}

// Signals reach the program and only it; orphans are reaped.
func TestSignalsAndOrphans(t *testing.T) {
	cmd := initCmd("--", "sh", "-c", `trap 'echo got term; exit 3' TERM; trap 'echo got usr1' USR1; echo ready; while :; do sleep 0.05; done`)
	var out bytes.Buffer
	pr, pw, _ := os.Pipe()
	cmd.Stdout = pw
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pw.Close()
	read := func(until string) {
		buf := make([]byte, 100)
		for !strings.Contains(out.String(), until) {
			pr.SetReadDeadline(time.Now().Add(10 * time.Second))
			n, err := pr.Read(buf)
			if err != nil {
				t.Fatalf("%q: %v", out.String(), err)
			}
			out.Write(buf[:n])
		}
	}
	read("ready")
	cmd.Process.Signal(unix.SIGUSR1)
	read("got usr1")
	cmd.Process.Signal(unix.SIGTERM)
	read("got term")
	cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 3 {
		t.Errorf("exit code %d", got)
	}
}
