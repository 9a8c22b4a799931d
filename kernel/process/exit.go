package process

import (
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"berth/base/fault"
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

// waitid's codes.
const (
	cldExited = 1
	cldKilled = 2
	cldDumped = 3
)

// Wait reaps the child of a pidfd once it has ended. done is false while it still runs (it does not
// block). errors.Is(err, unix.ECHILD): it is not our child, or was reaped already.
func Wait(pidfd int) (e Exit, done bool, err error) {
	return waitid(unix.P_PIDFD, pidfd, unix.WEXITED|unix.WNOHANG)
}

// Peek is Wait without reaping: the child stays a zombie and can be waited for again.
func Peek(pidfd int) (e Exit, done bool, err error) {
	return waitid(unix.P_PIDFD, pidfd, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT)
}

// WaitBlocking reaps the child of a pidfd and blocks until it has ended.
func WaitBlocking(pidfd int) (Exit, error) {
	e, _, err := waitid(unix.P_PIDFD, pidfd, unix.WEXITED)
	return e, err
}

func waitid(kind, id, options int) (e Exit, done bool, err error) {
	var info siginfoChild
	for {
		_, _, errno := unix.Syscall6(unix.SYS_WAITID, uintptr(kind), uintptr(id), uintptr(unsafe.Pointer(&info)), uintptr(options), 0, 0)
		switch errno {
		case 0:
		case unix.EINTR:
			continue
		case unix.ECHILD:
			return Exit{}, false, fault.Wrap(fault.NotFound, errno, "wait for a process that is not our child")
		default:
			return Exit{}, false, fault.Wrap(fault.Internal, errno, "waitid")
		}
		break
	}
	return info.exit()
}

func (i *siginfoChild) exit() (e Exit, done bool, err error) {
	if i.pid == 0 { // WNOHANG and nothing to tell
		return Exit{}, false, nil
	}
	switch i.code {
	case cldExited:
		return Exit{Code: int(i.status)}, true, nil
	case cldKilled, cldDumped:
		return Exit{Signal: int(i.status), Core: i.code == cldDumped}, true, nil
	}
	return Exit{}, false, nil // stopped, continued or trapped: not asked for
}
