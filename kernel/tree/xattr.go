package tree

import (
	"errors"

	"golang.org/x/sys/unix"
)

// OwnXattrs lists the names of the directory's own extended attributes: Xattrs("") without a path on the way.
func (d *Dir) OwnXattrs() ([]string, error) {
	attrs, err := listXattrs(func(buf []byte) (int, error) { return unix.Flistxattr(d.fd, buf) })
	return attrs, wrap("listxattr", ".", err)
}

// OwnXattr gives one of the directory's own extended attributes; found is false where there is none.
func (d *Dir) OwnXattr(attr string) (value []byte, found bool, err error) {
	return (&File{fd: d.fd, name: "."}).Xattr(attr)
}

// RemoveXattr takes an extended attribute of the directory itself away; one that is not there is no error.
func (d *Dir) RemoveXattr(attr string) error { return (&File{fd: d.fd, name: "."}).RemoveXattr(attr) }

// RemoveXattr takes an extended attribute away; one that is not there is no error.
func (f *File) RemoveXattr(attr string) error {
	err := unix.Fremovexattr(f.fd, attr)
	if errors.Is(err, unix.ENODATA) {
		return nil
	}
	return wrap("removexattr "+attr, f.name, err)
}

// SetMtime sets the modification time of name, a link's own, and leaves the access time; "" is d itself.
func (d *Dir) SetMtime(name string, mtime Time) error {
	flags := unix.AT_SYMLINK_NOFOLLOW
	if name == "" {
		flags = unix.AT_EMPTY_PATH // utimensat takes it since Linux 5.8
	}
	return wrap("utimes", name, unix.UtimesNanoAt(d.fd, name, onlyMtime(mtime), flags))
}

// SetMtime sets the modification time and leaves the access time.
func (f *File) SetMtime(mtime Time) error {
	return wrap("utimes", f.name, unix.UtimesNanoAt(f.fd, "", onlyMtime(mtime), unix.AT_EMPTY_PATH))
}

func onlyMtime(t Time) []unix.Timespec { return []unix.Timespec{{Nsec: unix.UTIME_OMIT}, timespec(t)} }
