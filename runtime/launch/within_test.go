package launch

import (
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/process"
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

// What is enclosed is process 1 of its own, and ends with the launcher.
func TestEnclosed(t *testing.T) {
	root := busyboxRoot(t)
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		o.Enclosure = enclosed(t, l)
		res, err := run(t, l, plainSpec(root, "sh", "-c", "echo $$; echo /proc/[0-9]*"), o)
		must(t, err)
		if res.out != "1\n/proc/1\n" {
			t.Errorf("%q", res.out)
		}
		p, err := Compile(plainSpec(root, "sleep", "1000"), o)
		must(t, err)
		proc, err := l.Start(p, quiet(t))
		must(t, err)
		if number, err := pidOf(proc.PidFD); err != nil || number != proc.PID {
			t.Errorf("it is process %d, not %d (%v)", number, proc.PID, err)
		}
		ended := make(chan unix.WaitStatus)
		go func() { ended <- wait(t, proc) }()
		must(t, l.around.close())
		if st := <-ended; st.Signal() != unix.SIGKILL {
			t.Errorf("%v", st)
		}
		if _, err := l.Enclosed(); err == nil {
			t.Error("a closed launcher encloses")
		}
		noChildren(t)
	})
}

// What cannot be enclosed is refused, and what fails while it is leaves nothing behind.
func TestEnclosedFails(t *testing.T) {
	root := busyboxRoot(t)
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		o.Enclosure = enclosed(t, l)
		for _, change := range []func(s *specs.Spec){
			func(s *specs.Spec) { dropNamespace(s, "pid") },
			func(s *specs.Spec) {
				s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
				s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 1000, Size: 1}}
				s.Linux.GIDMappings = s.Linux.UIDMappings
			},
		} {
			s := plainSpec(root, "true")
			change(s)
			if _, err := Compile(s, o); !fault.Is(err, fault.Invalid) {
				t.Errorf("%v: %v", s.Linux.Namespaces, err)
			}
		}
		var e *Error
		p, err := Compile(plainSpec(root, "there-is-none"), o)
		must(t, err)
		if _, err := l.Start(p, quiet(t)); !errors.As(err, &e) || !e.Exec || e.Errno != unix.ENOENT {
			t.Errorf("a program that is not there: %v", err)
		}
		if p, err = Compile(plainSpec(root, "true"), o); err != nil {
			t.Fatal(err)
		}
		p.Clone.Flags |= unix.CLONE_FS // not together with CLONE_NEWNS
		if _, err := l.Start(p, quiet(t)); !errors.As(err, &e) || e.Errno != unix.EINVAL || e.Exec {
			t.Errorf("a clone that the kernel refuses: %v", err)
		}
		p.Clone.Flags &^= unix.CLONE_FS
		// The cgroup is looked at late: a number for the pidfd has been given out, and taken back, by then.
		into := *p
		into.Clone.Flags |= unix.CLONE_INTO_CGROUP
		into.Clone.Cgroup = into.Clone.PidNS
		if _, err := l.Start(&into, quiet(t)); !errors.As(err, &e) || e.Errno != unix.EBADF || e.Exec {
			t.Errorf("a cgroup that is none: %v", err)
		}
		// Somebody kills the first process: nothing starts in there any more, but in the next one.
		must(t, unix.PidfdSendSignal(l.around.now.proc.PidFD, unix.SIGKILL, nil, 0))
		if ended, err := process.Ended(l.around.now.proc.PidFD, time.Minute); !ended {
			t.Fatalf("it lives: %v", err)
		}
		if _, err := l.Start(p, quiet(t)); !errors.As(err, &e) || e.Exec {
			t.Errorf("in an enclosure that has ended: %v", err)
		}
		o.Enclosure = enclosed(t, l)
		if res, err := run(t, l, plainSpec(root, "echo", "again"), o); err != nil || res.out != "again\n" {
			t.Errorf("%q %v", res.out, err)
		}
		must(t, l.around.close())
		noChildren(t)
	})
}

// enclosed gives the launcher's enclosure.
func enclosed(t *testing.T, l *Launcher) int {
	t.Helper()
	fd, err := l.Enclosed()
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// noChildren wants every child to have been waited for. Who closes an enclosure in the background may still be about to.
func noChildren(t *testing.T) {
	t.Helper()
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		var info unix.Siginfo
		if err = unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, nil); err == unix.ECHILD {
			return
		}
	}
	t.Errorf("a child is left: %v", err)
}
