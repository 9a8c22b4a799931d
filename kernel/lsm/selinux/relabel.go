package selinux

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// xattr holds a file's label.
const xattr = "security.selinux"

// system lists directories that hold more than what belongs to one container: with a container's label
// the machine would not boot again.
var system = [...]string{
	"/", "/bin", "/boot", "/dev", "/etc", "/etc/passwd", "/etc/pki", "/etc/shadow", "/home", "/lib", "/lib64", "/media", "/opt",
	"/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var", "/var/lib", "/var/log",
}

// Relabel gives a file, or a directory and everything below it, a container's mount label, which is
// what :Z and, shared, :z on a bind mount ask for. A shared label has no categories: all containers
// may use such files. Directories of the system and the home directory of the one who runs the engine
// are refused. A file system that keeps no labels is left as it is. Links inside are labelled
// themselves, not followed; the top is labelled last, so that a second run finishes what was broken off.
func Relabel(path, label string, shared bool) error {
	if label == "" {
		return nil
	}
	c, err := wanted(label, shared)
	if err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fault.Wrap(fault.NotFound, err, "relabel %s", path)
	}
	if slices.Contains(system[:], real) || real == os.Getenv("HOME") {
		return fault.New(fault.Invalid, "SELinux relabeling of %s is not allowed", path)
	}
	fd, err := unix.Open(real, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "relabel %s", path)
	}
	defer unix.Close(fd)
	return relabel(fd, real, c.String())
}

// Share is a shared Relabel of a directory in which all files have its label once it has the right one itself: then nothing below is looked
// at.
func Share(dir, label string) error {
	c, err := wanted(label, true)
	if err != nil {
		return err
	}
	old := make([]byte, len(c.String())+1)
	if n, err := unix.Getxattr(dir, xattr, old); err == nil && string(trimZero(old[:n])) == c.String() {
		return nil
	}
	return Relabel(dir, label, true)
}

// wanted is the label that a file gets.
func wanted(label string, shared bool) (Context, error) {
	c, err := Parse(label)
	if shared && c.Level != "" {
		c.Level = sensitivity(c.Level)
	}
	return c, err
}

// relabel labels what fd (O_PATH) stands for, what is inside before it itself. The name is for errors.
func relabel(fd int, name, label string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fault.Wrap(fault.Internal, err, "relabel %s", name)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		if err := inside(fd, name, label); err != nil {
			return err
		}
	}
	// The magic link leads to the opened file itself, be it a symbolic link.
	self := "/proc/self/fd/" + strconv.Itoa(fd)
	old := make([]byte, len(label)+1)
	if n, err := unix.Getxattr(self, xattr, old); err == nil && string(trimZero(old[:n])) == label {
		return nil // the change time of files that are right already stays
	}
	if err := unix.Setxattr(self, xattr, []byte(label+"\x00"), 0); err != nil && err != unix.ENOTSUP {
		return fault.Wrap(fault.Internal, err, "relabel %s", name)
	}
	return nil
}

// inside labels everything below a directory.
func inside(fd int, name, label string) error {
	dirFD, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "relabel %s", name)
	}
	dir := os.NewFile(uintptr(dirFD), name)
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(256)
		for _, n := range names {
			child, err := unix.Openat(dirFD, n, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err == unix.ENOENT {
				continue // removed meanwhile
			}
			if err != nil {
				return fault.Wrap(fault.Internal, err, "relabel %s", filepath.Join(name, n))
			}
			err = relabel(child, filepath.Join(name, n), label)
			unix.Close(child)
			if err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fault.Wrap(fault.Internal, err, "relabel %s", name)
		}
	}
}

func trimZero(b []byte) []byte {
	if n := len(b); n > 0 && b[n-1] == 0 {
		return b[:n-1]
	}
	return b
}
