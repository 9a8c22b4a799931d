package process

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// SetSubreaper makes this process (or not) the parent of its descendants' orphans, instead of pid 1. It
// survives execve and is not inherited.
func SetSubreaper(on bool) error {
	return fault.Wrap(fault.Internal, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, number(on), 0, 0, 0), "become subreaper")
}

// SetDumpable lets other processes of the same user trace this one and read its /proc/self files, or
// forbids it. The kernel forbids it by itself after some credential changes, and allows it again at execve.
func SetDumpable(on bool) error {
	return fault.Wrap(fault.Internal, unix.Prctl(unix.PR_SET_DUMPABLE, number(on), 0, 0, 0), "set dumpable")
}

// OOMScoreAdj reads how much the OOM killer prefers a process: -1000 (never) to 1000.
func OOMScoreAdj(pid int) (int, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/oom_score_adj")
	if err != nil {
		return 0, fault.Wrap(fault.NotFound, err, "process %d", pid)
	}
	for len(b) > 0 && b[len(b)-1] == '\n' {
		b = b[:len(b)-1]
	}
	n, err := strconv.Atoi(string(b))
	return n, fault.Wrap(fault.Internal, err, "process %d", pid)
}

// SetOOMScoreAdj sets it. Going below the value a process began with needs CAP_SYS_RESOURCE; without it
// the error's kind is Forbidden.
func SetOOMScoreAdj(pid, score int) error {
	if score < -1000 || score > 1000 {
		return fault.New(fault.Invalid, "oom_score_adj %d is not within -1000 and 1000", score)
	}
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fault.Wrap(fault.NotFound, err, "process %d", pid)
	}
	_, err = unix.Write(fd, []byte(strconv.Itoa(score)))
	unix.Close(fd)
	switch err {
	case unix.EACCES, unix.EPERM:
		return fault.Wrap(fault.Forbidden, err, "lower oom_score_adj to %d (needs CAP_SYS_RESOURCE)", score)
	case unix.ESRCH:
		return fault.Wrap(fault.NotFound, err, "process %d", pid)
	}
	return fault.Wrap(fault.Internal, err, "set oom_score_adj of process %d", pid)
}

func number(on bool) uintptr {
	if on {
		return 1
	}
	return 0
}
