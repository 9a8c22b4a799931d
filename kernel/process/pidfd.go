package process

import (
	"time"
	"unsafe"

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

// GetFD gives a copy of another process's descriptor (close-on-exec, Linux 5.6). It needs ptrace rights.
func GetFD(pidfd, fd int) (int, error) {
	n, err := unix.PidfdGetfd(pidfd, fd, 0)
	return n, fault.Wrap(fault.Internal, err, "pidfd_getfd %d", fd)
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

// Info is what the kernel tells of a process by its pidfd (PIDFD_GET_INFO, Linux 6.13).
type Info struct {
	PID, TGID, PPID int // as this pid namespace numbers them; 0 is outside it
	UID, GID        int // real ids
	EUID, EGID      int
	CgroupID        uint64
	Exit            Exit // how it ended, if Exited
	Exited          bool // it has ended and was reaped by its parent (Linux 6.15)
}

// rawInfo is struct pidfd_info as first published (64 bytes); later kernels fill the part that is known.
type rawInfo struct {
	mask                                             uint64
	cgroup                                           uint64
	pid, tgid, ppid                                  uint32
	ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid uint32
	exit                                             int32
}

const (
	getInfo    = 0xc040ff0b // _IOWR(0xff, 11, 64 bytes)
	infoPID    = 1 << 0
	infoCreds  = 1 << 1
	infoCgroup = 1 << 2
	infoExit   = 1 << 3
)

// GetInfo asks for the facts of a process, even one that has ended and is not our child: it is how exits
// are learnt after the one who watched has died. NotFound: it was reaped before Linux 6.15 kept exits, or
// before this pidfd was opened. NotImplemented: the kernel has no PIDFD_GET_INFO.
func GetInfo(pidfd int) (Info, error) {
	raw := rawInfo{mask: infoPID | infoCreds | infoCgroup | infoExit}
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(pidfd), getInfo, uintptr(unsafe.Pointer(&raw)))
	switch e {
	case 0:
	case unix.ESRCH:
		return Info{}, fault.Wrap(fault.NotFound, e, "the process was reaped and the kernel kept no exit status")
	case unix.ENOTTY, unix.EINVAL:
		return Info{}, fault.Wrap(fault.NotImplemented, e, "PIDFD_GET_INFO needs Linux 6.13")
	default:
		return Info{}, fault.Wrap(fault.Internal, e, "PIDFD_GET_INFO")
	}
	i := Info{
		PID: int(raw.pid), TGID: int(raw.tgid), PPID: int(raw.ppid),
		UID: int(raw.ruid), GID: int(raw.rgid), EUID: int(raw.euid), EGID: int(raw.egid),
		CgroupID: raw.cgroup,
	}
	if raw.mask&infoExit != 0 {
		i.Exited, i.Exit = true, FromWaitStatus(unix.WaitStatus(raw.exit))
	}
	return i, nil
}
