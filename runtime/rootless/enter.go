package rootless

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// join is a command that runs our own command line in the holder's namespaces, as their root.
func join(h holder, env []string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		self = "/proc/self/exe"
	}
	args := append([]string{"--preserve-credentials", "--user", "--mount", "--net", "--target", strconv.Itoa(h.PID), "--", self}, os.Args[1:]...)
	cmd := exec.Command("nsenter", args...)
	cmd.Env = env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// It ends with us, its containers do not. In a process group of its own it gets a terminal's signals once: from us.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGTERM, Setpgid: true}
	return cmd
}

// stay runs a command, passes signals on, and gives its exit code.
func stay(cmd *exec.Cmd) (int, error) {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1)
	defer signal.Stop(signals)
	ended := make(chan error, 1)
	started := make(chan error, 1)
	go func() {
		// Pdeathsig comes when the thread ends that started the process, so this one stays.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return 1, fault.Wrap(fault.Internal, err, "enter the user's namespaces (nsenter is in the package util-linux)")
	}
	for {
		select {
		case s := <-signals:
			_ = cmd.Process.Signal(s) // it may be gone
		case err := <-ended:
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				return max(exit.ExitCode(), 1), nil
			}
			return 0, err
		}
	}
}
