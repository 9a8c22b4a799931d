package launch

import (
	"fmt"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// callForm is how a system call prints: its name and a letter for each argument.
//
//	s string   v string array   d descriptor or number   x hex   o octal
//	O open flags   H open_how   T open_tree flags   M move_mount flags   A mount_attr   @ AT_* flags
//	m mount flags   c namespace flags   P prctl option   p capability or small number
//	R rlimit   r resource   C capability sets   G groups   F filter   i ioctl request   b buffer
type callForm struct{ name, args string }

// It is made when something is printed: most processes that link this package never do.
var forms = sync.OnceValue(func() map[int]callForm {
	return map[int]callForm{
		OpFail:                     {"fail", "e"},
		OpUserns:                   {"user_namespace", "ss"},
		OpCopyUp:                   {"copy_up", "dsdd"},
		OpOverlay:                  {"overlay", "vssdss"},
		OpCreateAs:                 {"create_as", "ddd"},
		unix.SYS_OPENAT:            {"openat", "dsOo"},
		unix.SYS_OPENAT2:           {"openat2", "dsHd"},
		unix.SYS_OPEN_TREE:         {"open_tree", "dsT"},
		unix.SYS_MOVE_MOUNT:        {"move_mount", "dsdsM"},
		unix.SYS_FSOPEN:            {"fsopen", "sd"},
		unix.SYS_FSCONFIG:          {"fsconfig", "dKssd"},
		unix.SYS_FSMOUNT:           {"fsmount", "dda"},
		unix.SYS_MOUNT_SETATTR:     {"mount_setattr", "ds@Ad"},
		unix.SYS_MOUNT:             {"mount", "sssms"},
		unix.SYS_UMOUNT2:           {"umount2", "sd"},
		unix.SYS_PIVOT_ROOT:        {"pivot_root", "ss"},
		unix.SYS_CHROOT:            {"chroot", "s"},
		unix.SYS_CHDIR:             {"chdir", "s"},
		unix.SYS_FCHDIR:            {"fchdir", "d"},
		unix.SYS_MKDIRAT:           {"mkdirat", "dso"},
		unix.SYS_MKNODAT:           {"mknodat", "dsod"},
		unix.SYS_SYMLINKAT:         {"symlinkat", "sds"},
		unix.SYS_SETXATTR:          {"setxattr", "sssdd"},
		unix.SYS_PIDFD_OPEN:        {"pidfd_open", "dd"},
		unix.SYS_PPOLL:             {"ppoll", "Dd"},
		unix.SYS_GETPID:            {"getpid", ""},
		unix.SYS_FSTAT:             {"fstat", "dd"},
		unix.SYS_FCHMOD:            {"fchmod", "do"},
		unix.SYS_FCHOWN:            {"fchown", "ddd"},
		unix.SYS_FCHOWNAT:          {"fchownat", "dsdd@"},
		unix.SYS_FCHMODAT:          {"fchmodat", "dso"},
		unix.SYS_FACCESSAT:         {"faccessat", "dsd"},
		unix.SYS_SETNS:             {"setns", "dc"},
		unix.SYS_UNSHARE:           {"unshare", "c"},
		unix.SYS_WRITE:             {"write", "dsd"},
		unix.SYS_READ:              {"read", "dbd"},
		unix.SYS_CLOSE:             {"close", "d"},
		unix.SYS_CLOSE_RANGE:       {"close_range", "ddd"},
		unix.SYS_DUP3:              {"dup3", "ddd"},
		unix.SYS_FCNTL:             {"fcntl", "ddd"},
		unix.SYS_SOCKET:            {"socket", "ddd"},
		unix.SYS_SETSID:            {"setsid", ""},
		unix.SYS_IOCTL:             {"ioctl", "did"},
		unix.SYS_SETHOSTNAME:       {"sethostname", "sd"},
		unix.SYS_SETDOMAINNAME:     {"setdomainname", "sd"},
		unix.SYS_PRLIMIT64:         {"prlimit64", "drRd"},
		unix.SYS_PERSONALITY:       {"personality", "x"},
		unix.SYS_UMASK:             {"umask", "o"},
		unix.SYS_IOPRIO_SET:        {"ioprio_set", "ddd"},
		unix.SYS_SCHED_SETATTR:     {"sched_setattr", "dDd"},
		unix.SYS_SCHED_SETAFFINITY: {"sched_setaffinity", "ddD"},
		unix.SYS_SET_MEMPOLICY:     {"set_mempolicy", "dDd"},
		unix.SYS_KEYCTL:            {"keyctl", "ds"},
		unix.SYS_PRCTL:             {"prctl", "Pdddd"},
		unix.SYS_SETGROUPS:         {"setgroups", "dG"},
		unix.SYS_SETRESGID:         {"setresgid", "ddd"},
		unix.SYS_SETRESUID:         {"setresuid", "ddd"},
		unix.SYS_CAPSET:            {"capset", "hC"},
		unix.SYS_SECCOMP:           {"seccomp", "dxF"},
		unix.SYS_RT_SIGPROCMASK:    {"rt_sigprocmask", "dDdd"},
		unix.SYS_EXECVE:            {"execve", "svv"},
		unix.SYS_EXECVEAT:          {"execveat", "dsvv@"},
		unix.SYS_CLONE3:            {"clone3", "Nd"},
		unix.SYS_EXIT_GROUP:        {"exit_group", "d"},
		unix.SYS_SENDMSG:           {"sendmsg", "dDd"},
	}
})

var numbers = sync.OnceValue(func() map[rune]func(uint64) string {
	return map[rune]func(uint64) string{
		'd': func(n uint64) string {
			if int64(n) == unix.AT_FDCWD {
				return "AT_FDCWD"
			}
			return strconv.FormatInt(int64(int32(n)), 10)
		},
		'x': func(n uint64) string { return fmt.Sprintf("%#x", n) },
		'o': func(n uint64) string {
			if kind := modeKinds[n&unix.S_IFMT]; kind != "" {
				return fmt.Sprintf("%s|0%o", kind, n&^unix.S_IFMT)
			}
			return fmt.Sprintf("0%o", n)
		},
		's': func(n uint64) string { return "NULL" },
		'v': func(n uint64) string { return "NULL" },
		'e': func(n uint64) string { return errnoName(unix.Errno(n)) },
		'O': openFlags,
		'T': func(n uint64) string { return bits(n, treeBits) },
		'M': func(n uint64) string { return bits(n, moveBits) },
		'@': func(n uint64) string { return bits(n, atBits) },
		'a': func(n uint64) string { return bits(n, attrBits) },
		'm': func(n uint64) string { return bits(n, mountBits) },
		'c': cloneFlags,
		'K': func(n uint64) string { return name(n, fsconfigNames) },
		'P': func(n uint64) string { return name(n, prctlNames) },
		'r': func(n uint64) string { return name(n, rlimitNames) },
		'i': func(n uint64) string { return name(n, ioctlNames) },
	}
})

type bit struct {
	value uint64
	name  string
}

// bits prints flags; what has no name prints as a number.
func bits(n uint64, names []bit) string {
	var parts []string
	for _, b := range names {
		if n&b.value == b.value {
			parts = append(parts, b.name)
			n &^= b.value
		}
	}
	if n != 0 || len(parts) == 0 {
		parts = append(parts, fmt.Sprintf("%#x", n))
	}
	return strings.Join(parts, "|")
}

func name(n uint64, names map[uint64]string) string {
	if s, ok := names[n]; ok {
		return s
	}
	return strconv.FormatUint(n, 10)
}

func openFlags(n uint64) string {
	s := bits(n&^unix.O_ACCMODE, openBits)
	if n&unix.O_PATH != 0 {
		return s
	}
	access := [...]string{"O_RDONLY", "O_WRONLY", "O_RDWR", "3"}[n&unix.O_ACCMODE]
	if n&^unix.O_ACCMODE == 0 {
		return access
	}
	return access + "|" + s
}

func cloneFlags(n uint64) string {
	return bits(n, []bit{{unix.CLONE_NEWUSER, "NEWUSER"}, {unix.CLONE_NEWPID, "NEWPID"}, {unix.CLONE_NEWNS, "NEWNS"}, {unix.CLONE_NEWNET, "NEWNET"},
		{unix.CLONE_NEWIPC, "NEWIPC"}, {unix.CLONE_NEWUTS, "NEWUTS"}, {unix.CLONE_NEWCGROUP, "NEWCGROUP"}, {unix.CLONE_NEWTIME, "NEWTIME"}, {unix.CLONE_INTO_CGROUP, "INTO_CGROUP"}})
}

var (
	openBits = []bit{{unix.O_PATH, "O_PATH"}, {unix.O_DIRECTORY, "O_DIRECTORY"}, {unix.O_NOFOLLOW, "O_NOFOLLOW"}, {unix.O_CREAT, "O_CREAT"}, {unix.O_EXCL, "O_EXCL"},
		{unix.O_NOCTTY, "O_NOCTTY"}, {unix.O_CLOEXEC, "O_CLOEXEC"}, {unix.O_NONBLOCK, "O_NONBLOCK"}}
	resolveBits = []bit{{unix.RESOLVE_IN_ROOT, "IN_ROOT"}, {unix.RESOLVE_BENEATH, "BENEATH"}, {unix.RESOLVE_NO_MAGICLINKS, "NO_MAGICLINKS"},
		{unix.RESOLVE_NO_SYMLINKS, "NO_SYMLINKS"}, {unix.RESOLVE_NO_XDEV, "NO_XDEV"}}
	treeBits = []bit{{unix.OPEN_TREE_CLONE, "OPEN_TREE_CLONE"}, {unix.OPEN_TREE_CLOEXEC, "OPEN_TREE_CLOEXEC"}, {unix.AT_RECURSIVE, "AT_RECURSIVE"},
		{unix.AT_EMPTY_PATH, "AT_EMPTY_PATH"}, {unix.AT_SYMLINK_NOFOLLOW, "AT_SYMLINK_NOFOLLOW"}}
	moveBits = []bit{{unix.MOVE_MOUNT_F_EMPTY_PATH, "F_EMPTY_PATH"}, {unix.MOVE_MOUNT_T_EMPTY_PATH, "T_EMPTY_PATH"}}
	atBits   = []bit{{unix.AT_EMPTY_PATH, "AT_EMPTY_PATH"}, {unix.AT_RECURSIVE, "AT_RECURSIVE"}, {unix.AT_SYMLINK_NOFOLLOW, "AT_SYMLINK_NOFOLLOW"}}
	attrBits = []bit{{unix.MOUNT_ATTR_RDONLY, "RDONLY"}, {unix.MOUNT_ATTR_NOSUID, "NOSUID"}, {unix.MOUNT_ATTR_NODEV, "NODEV"}, {unix.MOUNT_ATTR_NOEXEC, "NOEXEC"},
		{unix.MOUNT_ATTR__ATIME, "ATIME"}, {unix.MOUNT_ATTR_STRICTATIME, "STRICTATIME"}, {unix.MOUNT_ATTR_NOATIME, "NOATIME"}, {unix.MOUNT_ATTR_NODIRATIME, "NODIRATIME"},
		{unix.MOUNT_ATTR_IDMAP, "IDMAP"}, {unix.MOUNT_ATTR_NOSYMFOLLOW, "NOSYMFOLLOW"}}
	mountBits = []bit{{unix.MS_RDONLY, "RDONLY"}, {unix.MS_NOSUID, "NOSUID"}, {unix.MS_NODEV, "NODEV"}, {unix.MS_NOEXEC, "NOEXEC"}, {unix.MS_SYNCHRONOUS, "SYNCHRONOUS"},
		{unix.MS_REMOUNT, "REMOUNT"}, {unix.MS_MANDLOCK, "MANDLOCK"}, {unix.MS_DIRSYNC, "DIRSYNC"}, {unix.MS_NOSYMFOLLOW, "NOSYMFOLLOW"}, {unix.MS_NOATIME, "NOATIME"},
		{unix.MS_NODIRATIME, "NODIRATIME"}, {unix.MS_BIND, "BIND"}, {unix.MS_REC, "REC"}, {unix.MS_SILENT, "SILENT"}, {unix.MS_UNBINDABLE, "UNBINDABLE"},
		{unix.MS_PRIVATE, "PRIVATE"}, {unix.MS_SLAVE, "SLAVE"}, {unix.MS_SHARED, "SHARED"}, {unix.MS_RELATIME, "RELATIME"}, {unix.MS_I_VERSION, "I_VERSION"},
		{unix.MS_STRICTATIME, "STRICTATIME"}, {unix.MS_LAZYTIME, "LAZYTIME"}}
	modeKinds     = map[uint64]string{unix.S_IFCHR: "S_IFCHR", unix.S_IFBLK: "S_IFBLK", unix.S_IFIFO: "S_IFIFO", unix.S_IFREG: "S_IFREG"}
	fsconfigNames = map[uint64]string{unix.FSCONFIG_SET_FLAG: "SET_FLAG", unix.FSCONFIG_SET_STRING: "SET_STRING", unix.FSCONFIG_SET_BINARY: "SET_BINARY",
		unix.FSCONFIG_SET_PATH: "SET_PATH", unix.FSCONFIG_SET_FD: "SET_FD", unix.FSCONFIG_CMD_CREATE: "CMD_CREATE", unix.FSCONFIG_CMD_RECONFIGURE: "CMD_RECONFIGURE"}
	prctlNames = map[uint64]string{unix.PR_CAPBSET_DROP: "PR_CAPBSET_DROP", unix.PR_SET_KEEPCAPS: "PR_SET_KEEPCAPS", unix.PR_SET_NO_NEW_PRIVS: "PR_SET_NO_NEW_PRIVS",
		unix.PR_CAP_AMBIENT: "PR_CAP_AMBIENT", unix.PR_SET_DUMPABLE: "PR_SET_DUMPABLE", unix.PR_SET_NAME: "PR_SET_NAME"}
	rlimitNames = map[uint64]string{unix.RLIMIT_CPU: "RLIMIT_CPU", unix.RLIMIT_FSIZE: "RLIMIT_FSIZE", unix.RLIMIT_DATA: "RLIMIT_DATA", unix.RLIMIT_STACK: "RLIMIT_STACK",
		unix.RLIMIT_CORE: "RLIMIT_CORE", unix.RLIMIT_RSS: "RLIMIT_RSS", unix.RLIMIT_NPROC: "RLIMIT_NPROC", unix.RLIMIT_NOFILE: "RLIMIT_NOFILE",
		unix.RLIMIT_MEMLOCK: "RLIMIT_MEMLOCK", unix.RLIMIT_AS: "RLIMIT_AS", unix.RLIMIT_LOCKS: "RLIMIT_LOCKS", unix.RLIMIT_SIGPENDING: "RLIMIT_SIGPENDING",
		unix.RLIMIT_MSGQUEUE: "RLIMIT_MSGQUEUE", unix.RLIMIT_NICE: "RLIMIT_NICE", unix.RLIMIT_RTPRIO: "RLIMIT_RTPRIO", unix.RLIMIT_RTTIME: "RLIMIT_RTTIME"}
	ioctlNames = map[uint64]string{unix.TIOCSCTTY: "TIOCSCTTY", unix.TIOCSPTLCK: "TIOCSPTLCK", unix.TIOCGPTPEER: "TIOCGPTPEER", unix.SIOCSIFFLAGS: "SIOCSIFFLAGS",
		unix.NS_GET_USERNS: "NS_GET_USERNS"}
)
