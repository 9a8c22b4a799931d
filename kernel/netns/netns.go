package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/process"
)

// Create makes a new network namespace, all links down, and bind mounts it on the file path, which must not exist: its
// directory must. On an error nothing is left. Needs CAP_SYS_ADMIN. About 0.4 ms, most of it in the kernel.
func Create(path string) error { return CreateWith(path, nil) }

// CreateWith is Create and calls inside, when not nil, on a thread that is in the new namespace. Its error undoes all.
func CreateWith(path string, inside func() error) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return fault.Wrap(kind(err), err, "network namespace")
	}
	f.Close()
	mounted := false
	err = onThread(func() error { return unix.Unshare(unix.CLONE_NEWNET) }, func() error {
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount it on %s: %w", path, err)
		}
		mounted = true
		if inside == nil {
			return nil
		}
		return inside()
	})
	if err == nil {
		return nil
	}
	if mounted {
		unix.Unmount(path, unix.MNT_DETACH)
	}
	os.Remove(path)
	return fault.In(err, "make network namespace")
}

// CreateFor is CreateWith for a namespace that make gives, such as one of another user namespace, whose root rules it
// (idmap.NetNamespace). inside may do what the caller may: its thread stays in the caller's user namespace.
func CreateFor(path string, make func() (fd int, err error), inside func() error) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return fault.Wrap(kind(err), err, "network namespace")
	}
	f.Close()
	err = createFor(path, make, inside)
	if err != nil {
		unix.Unmount(path, unix.MNT_DETACH)
		os.Remove(path)
	}
	return fault.In(err, "make network namespace")
}

func createFor(path string, make func() (fd int, err error), inside func() error) error {
	fd, err := make()
	if err != nil {
		return err
	}
	ns := os.NewFile(uintptr(fd), "net")
	defer ns.Close()
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", fd), path, "", unix.MS_BIND, ""); err != nil {
		return fault.Wrap(kind(err), err, "mount it on %s", path)
	}
	if inside == nil {
		return nil
	}
	return Do(ns, inside)
}

// Open opens the namespace that is mounted at path; what is there but is no network namespace (a file whose mount is
// gone, as after a reboot) is NotFound.
func Open(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.Wrap(kind(err), err, "network namespace")
	}
	if !is(f) {
		f.Close()
		return nil, fault.New(fault.NotFound, "%s is no network namespace", path)
	}
	return f, nil
}

// Current opens the namespace of the calling thread.
func Current() (*os.File, error) {
	f, err := os.Open("/proc/thread-self/ns/net")
	return f, fault.Wrap(kind(err), err, "own network namespace")
}

// OfProcess opens the namespace of a process.
func OfProcess(pid int) (*os.File, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	return f, fault.Wrap(kind(err), err, "network namespace of process %d", pid)
}

// Do calls f on a thread that is in the namespace, and brings the thread back. f must not hand work to other goroutines
// that shall be in the namespace, and must not unlock the thread. Its error comes back as it is.
func Do(ns *os.File, f func() error) error {
	return onThread(func() error { return unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET) }, f)
}

// Same tells whether two descriptors are of the same namespace.
func Same(a, b *os.File) bool {
	var x, y unix.Stat_t
	if unix.Fstat(int(a.Fd()), &x) != nil || unix.Fstat(int(b.Fd()), &y) != nil {
		return false
	}
	return x.Dev == y.Dev && x.Ino == y.Ino
}

// Remove takes a namespace's mount and file away. One that is not there is no error, nor is a file without a mount. The
// kernel destroys the namespace later, when nothing refers to it any more.
func Remove(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && err != unix.EINVAL && err != unix.ENOENT { // EINVAL: no mount
		return fault.Wrap(fault.Internal, err, "unmount network namespace %s", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.Wrap(fault.Internal, err, "remove network namespace")
	}
	return nil
}

// List gives the paths of the namespaces that are mounted on files in dir, and those of the files that have lost theirs.
func List(dir string) (live, dead []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fault.Wrap(kind(err), err, "list network namespaces")
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		f, err := Open(path)
		if err != nil {
			dead = append(dead, path)
			continue
		}
		f.Close()
		live = append(live, path)
	}
	return live, dead, nil
}

// onThread calls enter and then f on a locked thread, and brings it back to the namespace it came from. A thread that
// cannot go back stays locked, so that the runtime ends it with its goroutine: one is made for the occasion.
func onThread(enter, f func() error) error {
	result := make(chan error, 1)
	process.Aside(func() {
		err, back := visit(enter, f)
		if back {
			runtime.UnlockOSThread()
		}
		result <- err
	})
	return <-result
}

// visit is onThread on this thread; back tells whether the thread is where it was.
func visit(enter, f func() error) (err error, back bool) {
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "own network namespace"), true
	}
	defer unix.Close(home)
	if err := enter(); err != nil {
		return fault.Wrap(kind(err), err, "enter network namespace"), true
	}
	err = f()
	return err, unix.Setns(home, unix.CLONE_NEWNET) == nil
}

// is tells whether an open file is a network namespace: nsfs answers its type (ioctl_ns(2), Linux 4.11).
func is(f *os.File) bool {
	var fsInfo unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &fsInfo) != nil || fsInfo.Type != unix.NSFS_MAGIC {
		return false
	}
	t, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	return err == nil && t == unix.CLONE_NEWNET
}

func kind(err error) fault.Kind {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.NotFound
	case errors.Is(err, fs.ErrExist):
		return fault.Conflict
	case errors.Is(err, fs.ErrPermission):
		return fault.Forbidden
	}
	return fault.Internal
}
