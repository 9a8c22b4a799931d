package launch

import (
	"unsafe"
)

// cloneArgs is struct clone_args of clone3(2), as of Linux 5.7.
type cloneArgs struct {
	flags      uint64
	pidfd      uint64
	childTID   uint64
	parentTID  uint64
	exitSignal uint64
	stack      uint64
	stackSize  uint64
	tls        uint64
	setTID     uint64
	setTIDSize uint64
	cgroup     uint64
}

// cloneRun blocks signals, calls clone3 and restores them; the child walks the table behind hdr and
// never returns. Implemented in assembly, per architecture.
//
//go:noescape
func cloneRun(args unsafe.Pointer, size uintptr, hdr unsafe.Pointer) (pid, errno uintptr)

//go:linkname entersyscall runtime.entersyscall
func entersyscall()

//go:linkname exitsyscall runtime.exitsyscall
func exitsyscall()

// cloneBlocking is cloneRun for a vfork, which holds the thread until the child executes its program:
// the scheduler is told, so that a garbage collection does not wait for a container's start.
//
//go:nosplit
//go:norace
func cloneBlocking(args unsafe.Pointer, size uintptr, hdr unsafe.Pointer) (pid, errno uintptr) {
	entersyscall()
	pid, errno = cloneRun(args, size, hdr)
	exitsyscall()
	return pid, errno
}
