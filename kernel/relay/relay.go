package relay

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// caught is set by the first call of Catch.
var caught atomic.Bool

// pipe is the descriptor the handler writes to. It is set before the handler is installed.
//
//lint:ignore U1000 the handler in assembly reads it
var pipe int32

// sigaction is the kernel's struct sigaction on amd64 and arm64, not the C library's.
type sigaction struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

// handlerPC gives the address of the signal handler, which writes the signal's number to pipe, and
// restorerPC that of the return from it. Implemented in assembly.
func handlerPC() uintptr
func restorerPC() uintptr

const (
	saOnStack  = 0x08000000
	saRestart  = 0x10000000
	saRestorer = 0x04000000
)

// left are the signals that stay as they are. Go's runtime recovers from faults, preempts goroutines by
// SIGURG and profiles by SIGPROF. SIGTTIN and SIGTTOU stop a program in the background that uses its
// terminal: caught, they would come again each time the kernel restarts the call that raised them.
const left = 1<<unix.SIGTTIN | 1<<unix.SIGTTOU | 1<<unix.SIGSEGV | 1<<unix.SIGBUS | 1<<unix.SIGFPE | 1<<unix.SIGILL | 1<<unix.SIGTRAP | 1<<unix.SIGSYS |
	1<<unix.SIGURG | 1<<unix.SIGPROF | 1<<unix.SIGKILL | 1<<unix.SIGSTOP

// Last is the highest signal number.
const Last = 64

// Catch makes every signal that can be caught and is not left alone arrive as one byte, its number,
// on the descriptor, which does not block. A signal that the parent had this process ignore (nohup)
// stays ignored. It may be called once.
func Catch() (int, error) {
	if caught.Swap(true) {
		return -1, fault.New(fault.Conflict, "signals are caught already")
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return -1, fault.Wrap(fault.Internal, err, "pipe2")
	}
	pipe = int32(fds[1])
	a := sigaction{handler: handlerPC(), flags: saOnStack | saRestart | saRestorer, restorer: restorerPC(), mask: ^uint64(0)}
	for sig := uintptr(1); sig <= Last; sig++ {
		if sig < 32 && left&(1<<sig) != 0 {
			continue
		}
		var old sigaction
		if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&old)), 8, 0, 0); e == 0 && old.handler == 1 { // SIG_IGN
			continue
		}
		if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&a)), 0, 8, 0, 0); e != 0 {
			return -1, fault.Wrap(fault.Internal, e, "rt_sigaction %d", sig)
		}
	}
	return fds[0], nil
}
