package seccomp

import (
	"fmt"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
)

// Verdicts of a filter, SECCOMP_RET_* of linux/seccomp.h. Read as a signed number, the smaller is the
// stricter; that is how the kernel picks among several filters.
const (
	RetKillProcess uint32 = 0x80000000
	RetKillThread  uint32 = 0x00000000
	RetTrap        uint32 = 0x00030000
	RetErrno       uint32 = 0x00050000 // low half: errno
	RetNotify      uint32 = 0x7fc00000
	RetTrace       uint32 = 0x7ff00000 // low half: message for the tracer
	RetLog         uint32 = 0x7ffc0000
	RetAllow       uint32 = 0x7fff0000
)

const retAction = 0xffff0000

// maxErrno is the largest value the kernel returns as an error (MAX_ERRNO).
const maxErrno = 4095

// stricter reports whether verdict a forbids more than b.
func stricter(a, b uint32) bool { return int32(a&retAction) < int32(b&retAction) }

// action translates a profile's action. Only errno and trace carry a number; the runtime spec makes
// giving one to another action an error.
func action(name specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	var ret uint32
	switch name {
	case specs.ActErrno, specs.ActTrace:
		return numbered(name, errno)
	case specs.ActKill, specs.ActKillThread:
		ret = RetKillThread
	case specs.ActKillProcess:
		ret = RetKillProcess
	case specs.ActTrap:
		ret = RetTrap
	case specs.ActAllow:
		ret = RetAllow
	case specs.ActLog:
		ret = RetLog
	case specs.ActNotify:
		ret = RetNotify
	default:
		return 0, fault.New(fault.Invalid, "unknown action %q", name)
	}
	if errno != nil {
		return 0, fault.New(fault.Invalid, "action %s takes no errnoRet", name)
	}
	return ret, nil
}

// numbered gives an action with its number, EPERM when the profile names none.
func numbered(name specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	n := uint(syscall.EPERM)
	if errno != nil {
		n = *errno
	}
	if name == specs.ActTrace {
		if n > 0xffff {
			return 0, fault.New(fault.Invalid, "errnoRet %d of %s is larger than 65535", n, name)
		}
		return RetTrace | uint32(n), nil
	}
	if n > maxErrno {
		return 0, fault.New(fault.Invalid, "errnoRet %d of %s is larger than %d", n, name, maxErrno)
	}
	return RetErrno | uint32(n), nil
}

// Verdict gives a verdict in words: "allow", "errno 1", "kill_process".
func Verdict(ret uint32) string {
	data := ret &^ retAction
	switch ret & retAction {
	case RetKillProcess:
		return "kill_process"
	case RetKillThread:
		return "kill_thread"
	case RetTrap:
		return "trap"
	case RetErrno:
		return fmt.Sprintf("errno %d", data)
	case RetNotify:
		return "notify"
	case RetTrace:
		return fmt.Sprintf("trace %d", data)
	case RetLog:
		return "log"
	case RetAllow:
		return "allow"
	}
	return fmt.Sprintf("%#08x", ret)
}

// Flags of seccomp(2), SECCOMP_FILTER_FLAG_* of linux/seccomp.h.
const (
	FlagTsync            = 1 << 0 // Linux 3.17
	FlagLog              = 1 << 1 // 4.14
	FlagSpecAllow        = 1 << 2 // 4.17
	FlagNewListener      = 1 << 3 // 5.0
	FlagTsyncEsrch       = 1 << 4 // 5.7
	FlagWaitKillableRecv = 1 << 5 // 5.19
)

// flags translates a profile's flags. A profile without the field gets SPEC_ALLOW, as runc does:
// speculative store bypass is no longer mitigated by seccomp since Linux 5.16, and older kernels slow
// every process down for it. The kernel wants WAIT_KILLABLE_RECV only together with a listener, and
// TSYNC with a listener only when errors are told apart.
func flags(names []specs.LinuxSeccompFlag, notify bool) (uint, error) {
	if names == nil {
		names = []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagSpecAllow}
	}
	var f uint
	for _, n := range names {
		switch n {
		case "SECCOMP_FILTER_FLAG_TSYNC":
			f |= FlagTsync
		case specs.LinuxSeccompFlagLog:
			f |= FlagLog
		case specs.LinuxSeccompFlagSpecAllow:
			f |= FlagSpecAllow
		case specs.LinuxSeccompFlagWaitKillableRecv:
			if notify {
				f |= FlagWaitKillableRecv
			}
		default:
			return 0, fault.New(fault.Invalid, "unknown seccomp flag %q", n)
		}
	}
	if notify {
		f |= FlagNewListener
		if f&FlagTsync != 0 {
			f |= FlagTsyncEsrch
		}
	}
	return f, nil
}
