package launch

import (
	"errors"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// A program that enters a process by its number is not started where the number has another owner by then: here it is this test's own
// process, and the one that had been meant has ended and was waited for. As a zombie it still has its number.
func TestNumberOfAnother(t *testing.T) {
	root := busyboxRoot(t)
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		ended := exec.Command("cat")
		in, err := ended.StdinPipe()
		must(t, err)
		must(t, ended.Start())
		fd, err := unix.PidfdOpen(ended.Process.Pid, 0)
		must(t, err)
		defer unix.Close(fd)
		start := func(pid int) error {
			s := plainSpec(root, "true")
			p, err := CompileExec(s.Process, s, Target{PID: pid}, o)
			must(t, err)
			streams := quiet(t)
			streams.Within = []int{fd}
			proc, err := l.Start(p, streams)
			if err == nil {
				wait(t, proc)
			}
			return err
		}
		// A zombie has no namespaces left but those that /proc still shows for none: whatever becomes of it, it is no other process.
		must(t, in.Close())
		var info unix.Siginfo
		must(t, unix.Waitid(unix.P_PIDFD, fd, &info, unix.WEXITED|unix.WNOWAIT, nil))
		if err := start(ended.Process.Pid); errors.Is(err, ErrEnded) || err == nil {
			t.Errorf("a zombie: %v", err)
		}
		must(t, ended.Wait())
		if err := start(os.Getpid()); !errors.Is(err, ErrEnded) {
			t.Errorf("another process was entered: %v", err)
		}
	})
}

// What is enclosed is process 1 of its own, and ends with the enclosure.
func TestEnclosure(t *testing.T) {
	root := busyboxRoot(t)
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		e, err := l.NewEnclosure()
		must(t, err)
		closed := false
		defer func() {
			if !closed {
				_ = e.Close()
			}
		}()
		o.Enclosure = e.FD()
		res, err := run(t, l, plainSpec(root, "sh", "-c", "echo $$; echo /proc/[0-9]*"), o)
		must(t, err)
		if res.out != "1\n/proc/1\n" {
			t.Errorf("%q", res.out)
		}
		p, err := Compile(plainSpec(root, "sleep", "1000"), o)
		must(t, err)
		proc, err := l.Start(p, quiet(t))
		must(t, err)
		if e.Ended() {
			t.Error("it has ended")
		}
		ended := make(chan unix.WaitStatus)
		go func() { ended <- wait(t, proc) }()
		must(t, e.Close())
		closed = true
		if st := <-ended; st.Signal() != unix.SIGKILL {
			t.Errorf("%v", st)
		}
		s := plainSpec(root, "true")
		s.Linux.Namespaces = nil
		if _, err := Compile(s, o); err == nil {
			t.Error("a process without a pid namespace was enclosed")
		}
	})
}
