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
