package probe

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Each function makes one call that cannot succeed in changing anything and reads the error: ENOSYS
// means missing. They return the reason for which the facility is missing, or "".

const badFD = ^uintptr(0)

// there turns the errno of a call made with bad arguments into an answer. A sandbox that forbids the
// call answers EPERM, which the calls themselves give only for a lack of privilege.
func there(e unix.Errno) string {
	if e == unix.ENOSYS {
		return "not in this kernel, or hidden by a sandbox (ENOSYS)"
	}
	return ""
}

func askOpenat2() string {
	_, _, e := unix.RawSyscall6(unix.SYS_OPENAT2, badFD, 0, 0, 0, 0, 0)
	return there(e)
}

func askClone3() string {
	_, _, e := unix.RawSyscall(unix.SYS_CLONE3, 0, 0, 0)
	return there(e)
}

// askCloneIntoCgroup starts a clone into a cgroup that is no open file. The kernel refuses (EBADF) after
// it understood the flag; one that does not know it refuses the structure's size (E2BIG) or the flag
// (EINVAL). No child is ever made.
func askCloneIntoCgroup() string {
	type cloneArgs struct {
		flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
	}
	a := cloneArgs{
		flags:      unix.CLONE_INTO_CGROUP | unix.CLONE_VM,
		exitSignal: uint64(unix.SIGCHLD),
		cgroup:     1<<31 - 1,
	}
	_, _, e := unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&a)), unsafe.Sizeof(a), 0)
	if e == unix.EBADF {
		return ""
	}
	return "clone3 does not know CLONE_INTO_CGROUP (" + unix.ErrnoName(e) + ")"
}

func askPidfdOpen() string {
	_, _, e := unix.RawSyscall(unix.SYS_PIDFD_OPEN, badFD, 0, 0)
	return there(e)
}

func askPidfdGetfd() string {
	_, _, e := unix.RawSyscall(unix.SYS_PIDFD_GETFD, badFD, badFD, 0)
	return there(e)
}

// pidfdInfo is the first published form of struct pidfd_info (64 bytes, Linux 6.13).
type pidfdInfo struct {
	mask uint64
	rest [7]uint64
}

func askPidfdInfo() string {
	fd, err := unix.PidfdOpen(unix.Getpid(), 0)
	if err != nil {
		return "pidfd_open: " + err.Error()
	}
	defer unix.Close(fd)
	info := pidfdInfo{mask: 1}
	const pidfdGetInfo = 0xc040ff0b // _IOWR(0xff, 11, 64 bytes)
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), pidfdGetInfo, uintptr(unsafe.Pointer(&info)))
	if e != 0 {
		return "the ioctl PIDFD_GET_INFO gives " + unix.ErrnoName(e)
	}
	return ""
}

func askMountFD() string {
	_, _, e := unix.RawSyscall(unix.SYS_FSOPEN, 0, badFD, 0)
	if r := there(e); r != "" {
		return "fsopen: " + r
	}
	_, _, e = unix.RawSyscall(unix.SYS_OPEN_TREE, badFD, 0, badFD)
	if r := there(e); r != "" {
		return "open_tree: " + r
	}
	_, _, e = unix.RawSyscall6(unix.SYS_MOVE_MOUNT, badFD, 0, badFD, 0, badFD, 0)
	if r := there(e); r != "" {
		return "move_mount: " + r
	}
	return ""
}

func askMountSetattr() string {
	_, _, e := unix.RawSyscall6(unix.SYS_MOUNT_SETATTR, badFD, 0, badFD, 0, 0, 0)
	return there(e)
}

var fuseResendSince = Version{6, 9}

// askFuse opens /dev/fuse, which does nothing before something is mounted. What the protocol can is told only to a mount;
// its version goes with the kernel's.
func askFuse() string {
	if v := KernelVersion(); v.Less(fuseResendSince) {
		return "Linux " + v.String() + " is older than " + fuseResendSince.String()
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return "open /dev/fuse: " + err.Error() + " (modprobe fuse)"
	}
	unix.Close(fd)
	return ""
}

func askStatmount() string {
	_, _, e := unix.RawSyscall6(unix.SYS_STATMOUNT, 0, 0, 0, badFD, 0, 0)
	return there(e)
}

func askFchmodat2() string {
	_, _, e := unix.RawSyscall6(unix.SYS_FCHMODAT2, badFD, 0, 0, badFD, 0, 0)
	return there(e)
}

// askCloseRange asks for an empty range backwards, which is refused with EINVAL.
func askCloseRange() string {
	_, _, e := unix.RawSyscall(unix.SYS_CLOSE_RANGE, 2, 1, 0)
	return there(e)
}

// askCloseRangeExec marks the one highest possible descriptor, which no process can have.
func askCloseRangeExec() string {
	_, _, e := unix.RawSyscall(unix.SYS_CLOSE_RANGE, 1<<32-1, 1<<32-1, unix.CLOSE_RANGE_CLOEXEC)
	if e != 0 {
		return "close_range does not know CLOSE_RANGE_CLOEXEC (" + unix.ErrnoName(e) + ")"
	}
	return ""
}

func askOverlay() string {
	if hasLineWord("/proc/filesystems", "overlay") {
		return ""
	}
	// The file lists only what is loaded; fsopen loads the module on demand and needs privilege.
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return "the overlay file system is not loaded: modprobe overlay"
	}
	unix.Close(fd)
	return ""
}

func askCgroupNamespace() string { return exists("/proc/self/ns/cgroup") }
func askTimeNamespace() string   { return exists("/proc/self/ns/time") }

func askUserNamespace() string {
	if r := exists("/proc/self/ns/user"); r != "" {
		return r
	}
	if firstByte("/proc/sys/user/max_user_namespaces") == '0' {
		return "/proc/sys/user/max_user_namespaces is 0"
	}
	return ""
}

func askSeccompNotify() string {
	action := uint32(unix.SECCOMP_RET_USER_NOTIF)
	_, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	if e != 0 {
		return "seccomp does not know the action USER_NOTIF (" + unix.ErrnoName(e) + ")"
	}
	return ""
}

func askLandlock() string {
	_, _, e := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if e != 0 {
		return "not built in, or not in the kernel's lsm= list (" + unix.ErrnoName(e) + ")"
	}
	return ""
}

func askAppArmor() string {
	if firstByte("/sys/module/apparmor/parameters/enabled") == 'Y' {
		return ""
	}
	return "the kernel runs without AppArmor"
}

func askSELinux() string {
	var st unix.Statfs_t
	if unix.Statfs("/sys/fs/selinux", &st) == nil && st.Type == unix.SELINUX_MAGIC {
		return ""
	}
	return "the kernel runs without SELinux"
}

func askPressure() string { return exists("/proc/pressure/cpu") }

func askCoreSched() string {
	var cookie uint64
	// PR_SCHED_CORE_GET of this thread: EINVAL where the call is missing, ENODEV without SMT, which is fine.
	_, _, e := unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SCHED_CORE, unix.PR_SCHED_CORE_GET, 0, 0, uintptr(unsafe.Pointer(&cookie)), 0)
	switch e {
	case 0:
		return ""
	case unix.ENODEV:
		return "the processor has no SMT (ENODEV)"
	}
	return "not built in (" + unix.ErrnoName(e) + ")"
}

func askCapability(bit uint) string {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if err := unix.Capget(&h, &d[0]); err != nil {
		return "capget: " + err.Error()
	}
	if d[bit/32].Effective&(1<<(bit%32)) == 0 {
		return "this process lacks the capability"
	}
	return ""
}

func exists(path string) string {
	if unix.Access(path, unix.F_OK) != nil {
		return path + " does not exist"
	}
	return ""
}

func firstByte(path string) byte {
	b := read(path, 1)
	if len(b) == 0 {
		return 0
	}
	return b[0]
}

func hasLineWord(path, word string) bool {
	b := read(path, 16384)
	for start := 0; start < len(b); {
		end := start
		for end < len(b) && b[end] != '\n' && b[end] != '\t' && b[end] != ' ' {
			end++
		}
		if string(b[start:end]) == word {
			return true
		}
		start = end + 1
	}
	return false
}

func read(path string, max int) []byte {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	b := make([]byte, max)
	n, err := unix.Read(fd, b)
	if err != nil || n < 0 {
		return nil
	}
	return b[:n]
}
