package server

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrLocked is another keeper in the same exec root.
var ErrLocked = errors.New("another keeper holds the lock of this exec root")

// takeLock holds EXEC-ROOT/keeper.lock for the life of the process; the file names the holder.
func takeLock(execRoot string) (int, error) {
	fd, err := unix.Open(execRoot+"/keeper.lock", unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return -1, fmt.Errorf("open keeper.lock: %w", err)
	}
	for range 10 { // a client that looks whether the lock is held holds it for a moment
		if err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK {
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	if err != nil {
		unix.Close(fd)
		if err == unix.EWOULDBLOCK {
			return -1, ErrLocked
		}
		return -1, fmt.Errorf("lock keeper.lock: %w", err)
	}
	_ = unix.Ftruncate(fd, 0)
	_, _ = unix.Pwrite(fd, []byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return fd, nil
}

// HighFD is where the descriptors begin that live as long as a process or a client. What a launch opens
// finds room below, and the child is born with a copy of that part only (launch.Launcher.High): the
// cost of a launch does not grow with the number of processes held.
const HighFD = 512

// high moves a descriptor there. Where the limit on open files leaves no room it stays.
func high(fd int) int {
	if fd < 0 || fd >= HighFD {
		return fd
	}
	up, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, HighFD)
	if err != nil {
		return fd
	}
	_ = unix.Close(fd)
	return up
}

func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

func random() uint64 {
	var b [8]byte
	if _, err := unix.Getrandom(b[:], 0); err != nil {
		return uint64(os.Getpid())
	}
	return *(*uint64)(unsafe.Pointer(&b))
}

// hasPidfs reports whether a pidfd's inode number is its process's own (Linux 6.9, pidfs).
func hasPidfs() bool {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && st.Type == unix.PID_FS_MAGIC
}

func inode(fd int) uint64 {
	var st unix.Stat_t
	if fd < 0 || unix.Fstat(fd, &st) != nil {
		return 0
	}
	return st.Ino
}

// startTicks is when a process began, in clock ticks since boot; 0 when it is gone.
func startTicks(pid int) uint64 {
	f := statFields(pid)
	if len(f) < 20 {
		return 0
	}
	n, _ := strconv.ParseUint(f[19], 10, 64)
	return n
}

// statFields gives the fields of /proc/PID/stat from the third on, the state. The second, the
// command's name, may hold spaces and parentheses: fields are counted after its last one.
func statFields(pid int) []string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil
	}
	s := string(b)
	return strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
}

// readable gives the bytes that a read would find (FIONREAD, which Linux also calls TIOCINQ); 0 also when the kernel cannot say.
func readable(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		return 0
	}
	return n
}

// residentBytes is the process's resident memory.
func residentBytes() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0
	}
	n, _ := strconv.ParseInt(f[1], 10, 64)
	return n * int64(os.Getpagesize())
}

func oomScoreAdj() int {
	b, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return n
}

func itoa[T ~int | ~int64 | ~uint64 | ~uint32 | ~uint16](n T) string {
	return strconv.FormatInt(int64(n), 10)
}

func retry(fn func() error) error {
	for {
		if err := fn(); err != unix.EINTR {
			return err
		}
	}
}
