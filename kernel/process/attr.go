package process

import (
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

func number(on bool) uintptr {
	if on {
		return 1
	}
	return 0
}
