package launch

import (
	"encoding/binary"
	"fmt"

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

// changeling takes the child's second self, which the child has told the pid of, for the child. The
// first one has ended or is about to.
func (s *start) changeling(proc *Process) error {
	pid, err := s.receiveNumber()
	if err != nil {
		return err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("open the container's first process: %w", err)
	}
	reap(s.pid)
	closeFD(int(s.pidfd))
	s.pid, s.pidfd = pid, int32(fd)
	proc.PID, proc.PidFD = pid, fd
	return nil
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
