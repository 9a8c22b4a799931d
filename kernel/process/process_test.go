package process

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

func TestSignals(t *testing.T) {
	for _, c := range []struct {
		in   string
		want int
		err  string
	}{
		{"TERM", 15, ""}, {"SIGTERM", 15, ""}, {"sigterm", 15, ""}, {"9", 9, ""}, {"KILL", 9, ""},
		{"SIGRTMIN", 34, ""}, {"RTMIN+3", 37, ""}, {"SIGRTMIN+30", 64, ""}, {"RTMAX-14", 50, ""}, {"SIGRTMAX", 64, ""},
		{"CLD", 17, ""}, {"IOT", 6, ""}, {"POLL", 29, ""}, {"64", 64, ""},
		{"0", 0, "invalid signal: 0"}, {"", 0, "invalid signal: "}, {"SIG", 0, "invalid signal: SIG"},
		{"SIGNOPE", 0, "invalid signal: SIGNOPE"}, {"RTMIN+31", 0, "invalid signal: RTMIN+31"},
		{"RTMIN+-1", 0, "invalid signal: RTMIN+-1"}, {"RTMAX+1", 0, "invalid signal: RTMAX+1"},
		{"65", 0, "the linux daemon does not support signal 65"}, {"-9", 0, "the linux daemon does not support signal -9"},
	} {
		got, err := ParseSignal(c.in)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
			t.Errorf("%q: %d %v, want %d %s", c.in, got, err, c.want, c.err)
		}
	}
	for n := 1; n <= SIGRTMAX; n++ {
		if n >= len(signals) && n < SIGRTMIN {
			continue // the C library's own, which have no name
		}
		name := SignalName(n)
		if back, ok := SignalNumber(name); back != n || !ok {
			t.Errorf("%d is %s, which is %d", n, name, back)
		}
	}
	// The kernel's and Go's own numbering.
	for n := 1; n < 32; n++ {
		if s := unix.SignalName(unix.Signal(n)); s != "" && unix.SignalNum(SignalName(n)) != unix.Signal(n) {
			t.Errorf("%d is %s here and %s in the kernel", n, SignalName(n), s)
		}
	}
}

func TestParseStat(t *testing.T) {
	const tail = " S 7 8 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 123456 1 2 3"
	for _, c := range []struct {
		in   string
		name string
	}{
		{"42 (sh)" + tail, "sh"},
		{"42 (a) R 1 (b)" + tail, "a) R 1 (b"},
		{"42 ( )" + tail, " "},
		{"42 ()" + tail, ""},
		{"42 (x\ny)" + tail + "\n", "x\ny"},
	} {
		s, err := ParseStat([]byte(c.in))
		if err != nil || s.PID != 42 || s.Name != c.name || s.State != 'S' || s.PPID != 7 || s.Group != 8 || s.Session != 9 || s.Threads != 3 || s.StartTicks != 123456 {
			t.Errorf("%q: %+v %v", c.in, s, err)
		}
	}
	for _, in := range []string{"", "42", "42 (sh", "42 (sh)", "42 (sh) S 1 2", "x (sh)" + tail, "42(sh)" + tail, "42 (sh) SS" + tail[2:]} {
		if s, err := ParseStat([]byte(in)); err == nil {
			t.Errorf("%q: %+v", in, s)
		}
	}
}

func TestOwnStat(t *testing.T) {
	s, err := ReadStat(os.Getpid())
	if err != nil || s.PPID != os.Getppid() {
		t.Fatalf("%+v %v", s, err)
	}
	if !Same(os.Getpid(), s.StartTicks) || Same(os.Getpid(), s.StartTicks+1) {
		t.Error("Same does not know this process")
	}
	if _, err := ReadStat(1 << 30); !fault.Is(err, fault.NotFound) {
		t.Errorf("a process that cannot be: %v", err)
	}
}

// spawn starts a shell of which only the pidfd may be used.
func spawn(t *testing.T, script string) (pidfd int) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", script)
	fd := -1
	cmd.SysProcAttr = &syscall.SysProcAttr{PidFD: &fd}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if fd < 0 {
		t.Skip("needs pidfds from clone")
	}
	cmd.Process.Release()
	t.Cleanup(func() {
		Signal(fd, 9)
		WaitBlocking(fd)
		unix.Close(fd)
	})
	return fd
}

func TestWait(t *testing.T) {
	for _, c := range []struct {
		script string
		want   Exit
		status int
		text   string
	}{
		{"exit 0", Exit{}, 0, "exit 0"},
		{"exit 3", Exit{Code: 3}, 3, "exit 3"},
		{"kill -TERM $$", Exit{Signal: 15}, 143, "SIGTERM"},
		{"kill -9 $$", Exit{Signal: 9}, 137, "SIGKILL"},
	} {
		fd := spawn(t, c.script)
		if ended, err := Ended(fd, 10*time.Second); !ended || err != nil {
			t.Fatalf("%s: %v %v", c.script, ended, err)
		}
		e, err := WaitBlocking(fd)
		if err != nil || e != c.want || e.Status() != c.status || e.String() != c.text {
			t.Errorf("%s: %v %v, want %v", c.script, e, err, c.want)
		}
		if _, err := WaitBlocking(fd); !errors.Is(err, unix.ECHILD) || !fault.Is(err, fault.NotFound) {
			t.Errorf("second wait: %v", err)
		}
		if err := Signal(fd, 15); !errors.Is(err, unix.ESRCH) {
			t.Errorf("signal to an ended process: %v", err)
		}
	}
}

func TestRunning(t *testing.T) {
	fd := spawn(t, "exec sleep 100")
	if ended, err := Ended(fd, time.Millisecond); ended || err != nil {
		t.Errorf("ended: %v %v", ended, err)
	}
	if err := Signal(fd, 0); err != nil {
		t.Error(err)
	}
	if _, err := Open(1 << 30); err == nil {
		t.Error("a pidfd of nobody")
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("42 (a) R 1 (b) S 7 8 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 123456 1 2 3"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := ParseStat(b); err == nil && !strings.Contains(string(b), s.Name) {
			t.Errorf("%q: %+v", b, s)
		}
	})
}

func FuzzParseSignal(f *testing.F) {
	f.Add("SIGRTMIN+3")
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := ParseSignal(s); err == nil && (n < 1 || n > 64) {
			t.Errorf("%q is %d", s, n)
		}
	})
}
