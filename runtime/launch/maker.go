package launch

import (
	"fmt"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"berth/kernel/idmap"
)

// NetNamespace gives a descriptor of a new network namespace with no process in it. It belongs to the user namespace at
// the path in, "" to a new one that has the mapping.
func NetNamespace(p idmap.Pair, in string) (int, error) {
	if in != "" {
		return netNamespaceIn(in)
	}
	if err := p.Check(); err != nil {
		return -1, err
	}
	var b section
	return emptyNamespace(&b, unix.CLONE_NEWUSER|unix.CLONE_NEWNET, &Maps{UID: p.Users.Proc(), GID: p.Groups.Proc()}, "net")
}

func netNamespaceIn(path string) (int, error) {
	user, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open the user namespace %s: %w", path, err)
	}
	defer unix.Close(user)
	var b section
	b.call("join the user namespace", unix.SYS_SETNS, Int(user), Int(unix.CLONE_NEWUSER))
	b.call("make a network namespace", unix.SYS_UNSHARE, Int(unix.CLONE_NEWNET))
	return emptyNamespace(&b, 0, nil, "net")
}

// UserNamespace gives a descriptor of a new user namespace that has the mapping and nobody in it. Other than idmap.Namespace it needs no
// ptrace(2), which a machine may forbid (kernel.yama.ptrace_scope=3), and copies no process.
func UserNamespace(p idmap.Pair) (int, error) {
	if err := p.Check(); err != nil {
		return -1, err
	}
	return userNamespace(p.Users.Proc(), p.Groups.Proc())
}

// userNamespace gives a descriptor of a new user namespace with the maps and nobody in it.
func userNamespace(uids, gids string) (int, error) {
	var b section
	return emptyNamespace(&b, unix.CLONE_NEWUSER, &Maps{UID: uids, GID: gids}, "user")
}

// emptyNamespace gives the descriptor of a namespace that a child has which is born with the flags and does what b says,
// and then waits to be ended: a namespace needs a process to begin with. The child has our memory, so that none is
// copied for it, and of that uses a table only.
func emptyNamespace(b *section, flags uint64, maps *Maps, kind string) (fd int, err error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("make a user namespace: %w", err)
	}
	defer unix.Close(ends[0])
	table, err := waitTable(b, ends[0], ends[1])
	if err != nil {
		unix.Close(ends[1])
		return -1, err
	}
	pidfd := int32(-1)
	args := &cloneArgs{
		flags: flags | unix.CLONE_VM | unix.CLONE_PIDFD | unix.CLONE_CLEAR_SIGHAND,
		pidfd: uint64(uintptr(unsafe.Pointer(&pidfd))), exitSignal: uint64(unix.SIGCHLD),
	}
	pid, errno := cloneRun(unsafe.Pointer(args), unsafe.Sizeof(*args), unsafe.Pointer(unsafe.SliceData(table)))
	runtime.KeepAlive(&pidfd)
	unix.Close(ends[1])
	if errno != 0 {
		_ = unix.Munmap(table)
		return -1, &Error{Step: "make a user namespace", Call: "clone3(" + cloneFlags(args.flags) + ")", Errno: unix.Errno(errno)}
	}
	if maps != nil {
		err = writeMaps(int(pid), maps)
	} else if n, _ := unix.Read(ends[0], make([]byte, 1)); n != 1 { // it has not come so far
		_, errno := failureOf(table[offFailed:])
		err = errno
	}
	if err == nil {
		fd, err = unix.Open("/proc/"+strconv.Itoa(int(pid))+"/ns/"+kind, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	_ = unix.PidfdSendSignal(int(pidfd), unix.SIGKILL, nil, 0)
	reap(int(pid))
	closeFD(int(pidfd))
	_ = unix.Munmap(table) // not before: it is the child's too
	if err != nil {
		return -1, fmt.Errorf("make a user namespace: %w", err)
	}
	return fd, nil
}

// waitTable is the table of a child that waits until the other end of its socket is closed. It closes that end of its
// own first: a launcher that dies must not leave it waiting.
func waitTable(b *section, theirs, own int) ([]byte, error) {
	b.call("leave the launcher's end", unix.SYS_CLOSE, Int(theirs))
	b.call("say so", unix.SYS_WRITE, Int(own), Bytes([]byte{syncReady}), Int(1))
	b.call("wait for the end", unix.SYS_READ, Int(own), Bytes(make([]byte, 8)), Int(1))
	b.call("end", unix.SYS_EXIT_GROUP, Int(0))
	l := newPlacing(b.steps, nil)
	table, err := unix.Mmap(-1, 0, l.size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes for a user namespace: %w", l.size, err)
	}
	l.mem = table
	l.write(b.steps, nil, -1, uint64(address(table)))
	return table, nil
}
