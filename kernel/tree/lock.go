package tree

import (
	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// Lock takes a directory for this process alone, until the Dir is closed or the process ends, however it ends
// (flock(2)). A directory that another process has is Conflict.
func Lock(path string) (*Dir, error) {
	d, err := OpenDir(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(d.fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		d.Close()
		if err == unix.EWOULDBLOCK {
			return nil, fault.New(fault.Conflict, "%s is in use by another process", path)
		}
		return nil, wrap("lock", path, err)
	}
	return d, nil
}

// OpenFD makes a Dir of a descriptor of any kind that refers to a directory (as mounts give); fd stays the caller's.
func OpenFD(fd int) (*Dir, error) {
	nfd, err := retryFD(func() (int, error) {
		return unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, wrap("open", ".", err)
	}
	return &Dir{nfd}, nil
}

// CloseFD closes a descriptor that another package of this floor gave.
func CloseFD(fd int) { unix.Close(fd) }
