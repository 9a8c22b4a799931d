package launch

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// fetchListener copies the seccomp listener out of the child (pidfd_getfd(2), Linux 5.6). The child has
// told its number in a message of its own before the barrier.
func (s *start) fetchListener(proc *Process) error {
	number, err := s.receiveNumber()
	if err != nil {
		return err
	}
	fd, _, errno := unix.Syscall(unix.SYS_PIDFD_GETFD, uintptr(s.pidfd), uintptr(number), 0)
	if errno != 0 {
		return fmt.Errorf("fetch the seccomp listener from the container: %w", errno)
	}
	proc.Listener = int(fd)
	if s.hooks.Listener != nil {
		// Whoever was given it has a copy. Ours would keep the container waiting for an agent that died.
		defer func() {
			closeFD(proc.Listener)
			proc.Listener = -1
		}()
		return s.hooks.Listener(s.pid, proc.Listener)
	}
	return nil
}

// changeling takes the child's second self, of which the child holds a pidfd, for the child. The first one
// has nothing more to do.
func (s *start) changeling(proc *Process) error {
	number, err := s.receiveNumber()
	if err != nil {
		return err
	}
	fd, _, errno := unix.Syscall(unix.SYS_PIDFD_GETFD, uintptr(s.pidfd), uintptr(number), 0)
	if errno != 0 {
		return fmt.Errorf("fetch the container's first process: %w", errno)
	}
	pid, err := pidOf(int(fd))
	if err != nil {
		closeFD(int(fd))
		return err
	}
	_ = unix.PidfdSendSignal(int(s.pidfd), unix.SIGKILL, nil, 0)
	reap(s.pid)
	closeFD(int(s.pidfd))
	s.pid, s.pidfd = pid, int32(fd)
	proc.PID, proc.PidFD = pid, int(fd)
	return nil
}

// pidOf is the process behind a pidfd as we number it (pidfd_open(2), proc_pid_fdinfo(5)).
func pidOf(fd int) (int, error) {
	text, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return 0, fmt.Errorf("find the container's first process: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "Pid:"); ok {
			if pid, err := strconv.Atoi(strings.TrimSpace(rest)); err == nil && pid > 0 {
				return pid, nil
			}
		}
	}
	return 0, fmt.Errorf("find the container's first process: %w", unix.ESRCH)
}

// receiveNumber reads the content of a slot that the child sends.
func (s *start) receiveNumber() (int, error) {
	buf := make([]byte, 8)
	for {
		n, err := unix.Read(s.sync[0], buf)
		if err == unix.EINTR {
			continue
		}
		if err == nil && n != len(buf) {
			err = unix.EPROTO
		}
		if err != nil {
			return 0, fmt.Errorf("hear a number from the container's first process: %w", err)
		}
		return int(binary.LittleEndian.Uint64(buf)), nil
	}
}
