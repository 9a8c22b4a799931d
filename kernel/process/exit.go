package process

import (
	"strconv"
	"unsafe"

	"berth/base/fault"

	"golang.org/x/sys/unix"
)

// Exit is how a process ended: with a code of its own, or by a signal.
type Exit struct {
	Code   int  // 0 to 255, when Signal is 0
	Signal int  // the signal that ended it, or 0
	Core   bool // it left a core dump
}

// Status is the one number that shells and Docker make of it: the code, or 128 + signal.
func (e Exit) Status() int {
	if e.Signal != 0 {
		return 128 + e.Signal
	}
	return e.Code
}

// String gives "exit 3" or "SIGKILL", with " (core dumped)".
func (e Exit) String() string {
	if e.Signal == 0 {
		return "exit " + strconv.Itoa(e.Code)
	}
	s := SignalName(e.Signal)
	if e.Core {
		s += " (core dumped)"
	}
	return s
}

// FromWaitStatus reads the kernel's wait status word.
func FromWaitStatus(w unix.WaitStatus) Exit {
	if w.Signaled() {
		return Exit{Signal: int(w.Signal()), Core: w.CoreDump()}
	}
	return Exit{Code: w.ExitStatus()}
}

// siginfoChild is siginfo_t as waitid(2) fills it, on 64-bit machines.
type siginfoChild struct {
	signo, errno, code, pad int32
	pid                     int32
	uid                     uint32
	status                  int32
	rest                    [128 - 28]byte
}

// What waitid says of a child that has ended; every other code of WEXITED is a signal without a dump.
const (
	cldExited = 1
	cldDumped = 3
)

// WaitBlocking reaps the child of a pidfd and blocks until it has ended. NotFound: it is not our child, or was reaped already.
func WaitBlocking(pidfd int) (Exit, error) {
	var info siginfoChild
	for {
		_, _, errno := unix.Syscall6(unix.SYS_WAITID, unix.P_PIDFD, uintptr(pidfd), uintptr(unsafe.Pointer(&info)), unix.WEXITED, 0, 0)
		switch errno {
		case 0:
			if info.code == cldExited {
				return Exit{Code: int(info.status)}, nil
			}
			return Exit{Signal: int(info.status), Core: info.code == cldDumped}, nil
		case unix.EINTR:
		case unix.ECHILD:
			return Exit{}, fault.Wrap(fault.NotFound, errno, "wait for a process that is not our child")
		default:
			return Exit{}, fault.Wrap(fault.Internal, errno, "waitid")
		}
	}
}
