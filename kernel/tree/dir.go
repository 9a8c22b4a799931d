package tree

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir is an open directory. Close it; it has no finalizer.
type Dir struct {
	fd int
}

// OpenDir opens a directory by an ordinary path of the calling process.
func OpenDir(path string) (*Dir, error) {
	fd, err := retryFD(func() (int, error) {
		return unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, wrap("open", path, err)
	}
	return &Dir{fd}, nil
}

// Close releases the descriptor. A second Close does nothing.
func (d *Dir) Close() error {
	if d.fd < 0 {
		return nil
	}
	err := unix.Close(d.fd)
	d.fd = -1
	return err
}

// FD is the descriptor, for calls of other packages; it stays the Dir's.
func (d *Dir) FD() int { return d.fd }

// Path gives a name for the directory that works in this process, on this thread group, while it is open:
// for library code that wants a path.
func (d *Dir) Path() string { return "/proc/self/fd/" + strconv.Itoa(d.fd) }

// Open opens the directory at rel, a path inside d. Links on the way and at the end are followed with d as
// the root, so the result is always d or below it. linked tells that a symbolic link was met on the way.
func (d *Dir) Open(rel string) (sub *Dir, linked bool, err error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_SYMLINKS,
	}
	if rel == "" {
		rel = "."
	}
	fd, err := openat2(d.fd, rel, &how)
	if errors.Is(err, unix.ELOOP) {
		linked = true
		how.Resolve &^= unix.RESOLVE_NO_SYMLINKS
		fd, err = openat2(d.fd, rel, &how)
	}
	if err != nil {
		return nil, linked, wrap("open", rel, err)
	}
	return &Dir{fd}, linked, nil
}

// OpenFile opens the regular file at rel for reading, resolved as Open does. Anything but a regular file is
// refused with EINVAL, without blocking on a fifo or touching a device.
func (d *Dir) OpenFile(rel string) (*File, error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	// A device's driver may act on open, so the type is asked first, through a descriptor that cannot act.
	probe := how
	probe.Flags = unix.O_PATH | unix.O_CLOEXEC
	pfd, err := openat2(d.fd, rel, &probe)
	if err != nil {
		return nil, wrap("open", rel, err)
	}
	defer unix.Close(pfd)
	var st unix.Stat_t
	if err := unix.Fstat(pfd, &st); err != nil {
		return nil, wrap("stat", rel, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, wrap("open", rel, unix.EINVAL)
	}
	fd, err := retryFD(func() (int, error) {
		return unix.Open("/proc/self/fd/"+strconv.Itoa(pfd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, wrap("open", rel, err)
	}
	return &File{fd: fd, name: rel}, nil
}

// Sub opens the directory called name in d; a link there is refused (ENOTDIR or ELOOP).
func (d *Dir) Sub(name string) (*Dir, error) {
	fd, err := retryFD(func() (int, error) {
		return unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, wrap("open", name, err)
	}
	return &Dir{fd}, nil
}

// Create makes a new regular file for writing; what exists is EEXIST. The mode is subject to the umask.
func (d *Dir) Create(name string, perm uint32) (*File, error) {
	fd, err := retryFD(func() (int, error) {
		return unix.Openat(d.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, perm)
	})
	if err != nil {
		return nil, wrap("create", name, err)
	}
	return &File{fd: fd, name: name}, nil
}

// Mkdir makes a directory; the mode is subject to the umask.
func (d *Dir) Mkdir(name string, perm uint32) error {
	return wrap("mkdir", name, unix.Mkdirat(d.fd, name, perm))
}

// Mknod makes a node: mode holds the type (unix.S_IFCHR …) and permissions, subject to the umask.
func (d *Dir) Mknod(name string, mode uint32, major, minor uint32) error {
	return wrap("mknod", name, unix.Mknodat(d.fd, name, mode, int(unix.Mkdev(major, minor))))
}

// Symlink makes a symbolic link; the target is stored, not looked at.
func (d *Dir) Symlink(target, name string) error {
	return wrap("symlink", name, unix.Symlinkat(target, d.fd, name))
}

// Link gives the file called oldName in from another name in d. A symbolic link is linked itself.
func (d *Dir) Link(from *Dir, oldName, name string) error {
	return wrap("link", name, unix.Linkat(from.fd, oldName, d.fd, name, 0))
}

// Rename moves name in d to newName in to. What is there is replaced as rename(2) does.
func (d *Dir) Rename(name string, to *Dir, newName string) error {
	return wrap("rename", name, unix.Renameat(d.fd, name, to.fd, newName))
}

// Readlink gives a symbolic link's target.
func (d *Dir) Readlink(name string) (string, error) {
	for size := 256; ; size *= 4 {
		b := make([]byte, size)
		n, err := unix.Readlinkat(d.fd, name, b)
		if err != nil {
			return "", wrap("readlink", name, err)
		}
		if n < size {
			return string(b[:n]), nil
		}
	}
}

// Unlink removes a name that is no directory.
func (d *Dir) Unlink(name string) error {
	return wrap("unlink", name, unix.Unlinkat(d.fd, name, 0))
}

// removeDepth is how many directories below each other RemoveAll holds open at most. Whoever may write into a tree decides how deep it
// is, beyond what any path can name (mkdir(2) and chdir(2) in turn); he must not decide how many descriptors we use.
const removeDepth = 128

// RemoveAll removes name and, if it is a directory, all below it, never following a link. What is not there is
// no error. What lies too deep to be reached is moved up, to right below name, and removed from there.
func (d *Dir) RemoveAll(name string) error {
	isDir, err := d.removeOne(name)
	if err != nil || !isDir {
		return err
	}
	top, err := d.Sub(name)
	if err != nil {
		return err
	}
	defer top.Close()
	for moved := 0; ; {
		before := moved
		if err := top.removeBelow(top, 1, &moved); err != nil {
			return err
		}
		switch err := unix.Unlinkat(d.fd, name, unix.AT_REMOVEDIR); {
		case err == nil || err == unix.ENOENT:
			return nil
		case moved == before: // nothing was moved up: somebody else is at work there
			return wrap("rmdir", name, err)
		}
	}
}

// removeOne removes name if it is no directory, or an empty one. isDir: it is one that is not empty.
func (d *Dir) removeOne(name string) (isDir bool, err error) {
	err = unix.Unlinkat(d.fd, name, 0)
	if err == nil || err == unix.ENOENT {
		return false, nil
	}
	if err != unix.EISDIR && err != unix.EPERM { // EPERM: a directory, as POSIX words it
		return false, wrap("unlink", name, err)
	}
	err = unix.Unlinkat(d.fd, name, unix.AT_REMOVEDIR)
	switch err {
	case nil, unix.ENOENT:
		return false, nil
	case unix.ENOTEMPTY, unix.EEXIST:
		return true, nil
	}
	return false, wrap("rmdir", name, err)
}

// removeBelow removes what is in d, which is depth levels below top's parent.
func (d *Dir) removeBelow(top *Dir, depth int, moved *int) error {
	names, err := d.Names()
	if err != nil {
		return err
	}
	for _, n := range names {
		isDir, err := d.removeOne(n)
		if err != nil {
			return err
		}
		if !isDir {
			continue
		}
		if depth >= removeDepth {
			if err := d.moveUp(n, top, moved); err != nil {
				return err
			}
			continue
		}
		sub, err := d.Sub(n)
		if err != nil {
			return err
		}
		err = sub.removeBelow(top, depth+1, moved)
		sub.Close()
		if err != nil {
			return err
		}
		if err := unix.Unlinkat(d.fd, n, unix.AT_REMOVEDIR); err != nil && err != unix.ENOENT {
			return wrap("rmdir", n, err)
		}
	}
	return nil
}

// moveUp puts a directory right below top, under a name that is free there.
func (d *Dir) moveUp(name string, top *Dir, moved *int) error {
	for {
		*moved++
		err := unix.Renameat(d.fd, name, top.fd, ".deep-"+strconv.Itoa(*moved))
		if err != unix.EEXIST && err != unix.ENOTEMPTY && err != unix.ENOTDIR { // the name is taken
			return wrap("rename", name, err)
		}
	}
}

// Names lists the directory in the file system's order, without . and ..
func (d *Dir) Names() ([]string, error) {
	if _, err := unix.Seek(d.fd, 0, unix.SEEK_SET); err != nil {
		return nil, wrap("seek", d.Path(), err)
	}
	var names []string
	buf := make([]byte, 16<<10)
	for {
		n, err := unix.Getdents(d.fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return names, wrap("readdir", d.Path(), err)
		}
		if n == 0 {
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

// Real gives the path of d below root by asking the kernel where d is now. Both must be open; a d that is not
// below root is an error. It is right only while nobody renames directories.
func (d *Dir) Real(root *Dir) (string, error) {
	base, err := os.Readlink(root.Path())
	if err != nil {
		return "", err
	}
	at, err := os.Readlink(d.Path())
	if err != nil {
		return "", err
	}
	if at == base {
		return "", nil
	}
	rel, ok := strings.CutPrefix(at, strings.TrimSuffix(base, "/")+"/")
	if !ok {
		return "", wrap("locate", at, unix.EXDEV)
	}
	return path.Clean(rel), nil
}

// Sync makes the directory's names durable.
func (d *Dir) Sync() error { return wrap("fsync", d.Path(), unix.Fsync(d.fd)) }

// SyncFS writes out everything of the file system that holds d.
func (d *Dir) SyncFS() error { return wrap("syncfs", d.Path(), unix.Syncfs(d.fd)) }

// openat2 retries what the kernel asks to be retried: EAGAIN says that a rename raced with a resolution
// that had to be safe.
func openat2(dir int, rel string, how *unix.OpenHow) (int, error) {
	for range 128 {
		fd, err := unix.Openat2(dir, rel, how)
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
	return -1, unix.EAGAIN
}

func retryFD(open func() (int, error)) (int, error) {
	for {
		fd, err := open()
		if err != unix.EINTR {
			return fd, err
		}
	}
}

func wrap(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}
