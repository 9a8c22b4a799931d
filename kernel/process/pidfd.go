package process

import (
	"time"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// Open gives a pidfd of a running process (close-on-exec, Linux 5.3). NotFound: there is no such process.
func Open(pid int) (int, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH {
		return -1, fault.Wrap(fault.NotFound, err, "process %d", pid)
	}
	return fd, fault.Wrap(fault.Internal, err, "pidfd_open %d", pid)
}

// Signal sends a signal to the process of a pidfd. errors.Is(err, unix.ESRCH): it has ended.
func Signal(pidfd int, signal int) error {
	err := unix.PidfdSendSignal(pidfd, unix.Signal(signal), nil, 0)
	switch err {
	case nil:
		return nil
	case unix.ESRCH:
		return fault.Wrap(fault.NotFound, err, "the process has ended")
	case unix.EPERM:
		return fault.Wrap(fault.Forbidden, err, "send signal %s", SignalName(signal))
	case unix.EINVAL:
		return fault.Wrap(fault.Invalid, err, "send signal %d", signal)
	}
	return fault.Wrap(fault.Internal, err, "send signal %s", SignalName(signal))
}

// Ended reports whether the process of a pidfd has ended (it may still be a zombie), waiting up to
// timeout for it; a negative timeout waits for ever.
func Ended(pidfd int, timeout time.Duration) (bool, error) {
	deadline := time.Now().Add(timeout)
	for {
		ms := -1
		if timeout >= 0 {
			ms = int((max(0, time.Until(deadline)) + time.Millisecond - 1) / time.Millisecond)
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, ms)
		if err == unix.EINTR {
			continue
		}
		return n > 0, fault.Wrap(fault.Internal, err, "poll a pidfd")
	}
}
