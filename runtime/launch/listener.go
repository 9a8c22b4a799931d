package launch

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// fetchListener copies the seccomp listener out of the child (pidfd_getfd(2), Linux 5.6). The child has
// told its number in a message of its own before the barrier.
func (s *start) fetchListener(proc *Process) error {
	buf := make([]byte, 8)
	if _, err := unix.Read(s.sync[0], buf); err != nil {
		return fmt.Errorf("hear of the seccomp listener: %w", err)
	}
	fd, _, errno := unix.Syscall(unix.SYS_PIDFD_GETFD, uintptr(s.pidfd), uintptr(binary.LittleEndian.Uint64(buf)), 0)
	if errno != 0 {
		return fmt.Errorf("fetch the seccomp listener from the container: %w", errno)
	}
	proc.Listener = int(fd)
	return nil
}
