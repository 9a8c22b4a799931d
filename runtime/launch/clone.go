package launch

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// clone makes the child and returns when it executes its program. It runs on the thread that the
// Program asks for.
func (s *start) clone() error {
	c := &s.p.Clone
	args := &cloneArgs{
		flags:      c.Flags | unix.CLONE_PIDFD | unix.CLONE_CLEAR_SIGHAND,
		pidfd:      uint64(uintptr(unsafe.Pointer(&s.pidfd))),
		exitSignal: uint64(unix.SIGCHLD),
	}
	if c.Flags&unix.CLONE_INTO_CGROUP != 0 {
		args.cgroup = uint64(s.slots[c.Cgroup])
	}
	if c.PidNS != NoSlot {
		leave, err := enterPidNS(s.slots[c.PidNS], s.ownPidNS)
		if err != nil {
			return err
		}
		defer leave()
	}
	if s.net.ns >= 0 {
		if leave, err := s.nets.enter(s.net.ns); err == nil { // else clone3 makes one
			defer leave()
			args.flags &^= unix.CLONE_NEWNET
		}
	}
	run := cloneRun
	// A child that has to wait for its maps would hold this thread.
	if c.Maps == nil {
		args.flags |= unix.CLONE_VM | unix.CLONE_VFORK
		run = cloneBlocking
	}
	if s.high > 0 {
		args.flags |= unix.CLONE_FILES // until the birth table's first call
	}
	var b section
	enclosed := c.PidNS != NoSlot && c.Flags&unix.CLONE_NEWPID != 0
	if enclosed {
		args.flags |= unix.CLONE_PARENT_SETTID
		args.parentTID = uint64(uintptr(unsafe.Pointer(&s.born)))
		args = b.midwife(args)
	}
	if err := s.birthTable(&b); err != nil {
		return err
	}
	pid, errno := run(unsafe.Pointer(args), unsafe.Sizeof(*args), unsafe.Pointer(unsafe.SliceData(s.birth)))
	runtime.KeepAlive(s)
	if errno == 0 && enclosed {
		s.midwife = int(pid)
		// Whether there is a child only born tells. The kernel says what number the pidfd will have before it knows that there will be one.
		if s.born == 0 {
			_, failed := failureOf(s.birth[offFailed:])
			errno = uintptr(cmp.Or(failed, unix.ESRCH)) // it was killed, with the enclosure
		}
	}
	if errno != 0 {
		return &Error{Step: "create the container's first process", Call: "clone3(" + cloneFlags(c.Flags) + ")", Errno: unix.Errno(errno)}
	}
	if !enclosed {
		s.pid = int(pid)
	}
	return nil
}

// midwife begins a birth table for a child in a pid namespace within another that is not ours. The kernel makes such a one for those alone who live in
// the outer one (copy_pid_ns). So a first child, which does, clones the one that is meant as a sibling of itself, with args, and ends. It shares our memory,
// waits until its sibling has left it, and shares our descriptors, so that the pidfd is ours. The result is what the first child is cloned with.
func (b *section) midwife(args *cloneArgs) *cloneArgs {
	what := "create the container's first process"
	args.flags |= unix.CLONE_PARENT
	args.exitSignal = 0 // it has the first one's
	twin := b.call(what, unix.SYS_CLONE3, Bytes(slices.Clone(unsafe.Slice((*byte)(unsafe.Pointer(args)), unsafe.Sizeof(*args)))), Int(unsafe.Sizeof(*args)))
	twin.Out = 0
	// Which of the two is it? 0 is a valid first argument here (SIG_BLOCK, of no signals), its sibling's number is not: 1 and 2 are older than that.
	var child mark
	b.call(what, unix.SYS_RT_SIGPROCMASK, Of(Slot(0)), Bytes(make([]byte, 8)), Int(0), Int(8)).expect(unix.EINVAL, 0)
	b.onOK(&child)
	b.call(what, unix.SYS_EXIT_GROUP, Int(0))
	b.here(&child)
	return &cloneArgs{flags: unix.CLONE_VM | unix.CLONE_VFORK | unix.CLONE_FILES | unix.CLONE_CLEAR_SIGHAND, exitSignal: uint64(unix.SIGCHLD)}
}

// birthTable adds to b what the child does while it is still in our program: it lets the descriptors of its own
// survive, all others close themselves, and executes it. The table is shared with a forked child too,
// so that its failure can be seen.
func (s *start) birthTable(b *section) error {
	var keep []int
	for slot, fd := range s.slots {
		if fd > 2 && Slot(slot) != SlotConsole && !slices.Contains(keep, fd) {
			keep = append(keep, fd)
		}
	}
	if s.high > 0 {
		// Born with the launcher's own table of descriptors, it takes a copy of the low end.
		what := "take leave of the launcher's descriptors"
		first := slices.Max(append(keep, s.program)) + 1
		b.call(what, unix.SYS_CLOSE_RANGE, Int(first), Int(^uint32(0)), Int(unix.CLOSE_RANGE_UNSHARE)).
			expect(unix.ENOSYS, 0).expect(unix.EPERM, 0).OnOK = 1 // where a filter of the launcher's own refuses it
		b.call(what, unix.SYS_UNSHARE, Int(unix.CLONE_FILES))
	}
	for _, fd := range keep {
		b.call("keep a descriptor", unix.SYS_FCNTL, Int(fd), Int(unix.F_SETFD), Int(0)).expect(unix.EBADF, 0)
	}
	if s.p.Clone.Maps != nil {
		// execve takes all capabilities from a user that has no name in the new namespace.
		what := "become root of the user namespace"
		b.call(what, unix.SYS_WRITE, Int(s.sync[1]), Bytes([]byte{syncMaps}), Int(1))
		b.call(what, unix.SYS_READ, Int(s.sync[1]), Bytes(make([]byte, 8)), Int(1)).Positive = true
		// EINVAL: the maps have no root. Then it has to do without capabilities.
		b.call(what, unix.SYS_SETRESGID, Int(0), Int(0), Int(0)).expect(unix.EINVAL, 0)
		b.call(what, unix.SYS_SETRESUID, Int(0), Int(0), Int(0)).expect(unix.EINVAL, 0)
	}
	b.call("execute the launch program", unix.SYS_EXECVEAT, Int(s.program), Str(""), vector([]string{"berth-start"}), vector(nil), Int(unix.AT_EMPTY_PATH)).
		expect(unix.ENOENT, 0)
	b.call("execute the launch program", OpFail, Int(int(unix.ENOEXEC)))
	slots := []int{-1} // midwife's
	l := newPlacing(b.steps, slots)
	var err error
	if s.birth, err = unix.Mmap(-1, 0, l.size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS|unix.MAP_POPULATE); err != nil {
		return fmt.Errorf("map %d bytes for the container's birth: %w", l.size, err)
	}
	l.mem = s.birth
	l.write(b.steps, slots, -1, uint64(address(s.birth)))
	return nil
}

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
