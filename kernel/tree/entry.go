package tree

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Entry is a name in a directory and the type that the file system keeps beside it.
type Entry struct {
	Name string
	Type uint32 // one of the Type constants; 0 where the file system does not tell (getdents(2), DT_UNKNOWN)
}

// Entries lists the directory sorted by name, without . and .., with the types that getdents64(2) gives: who copies a tree need
// not ask for the type of each file.
func (d *Dir) Entries() ([]Entry, error) {
	if _, err := unix.Seek(d.fd, 0, unix.SEEK_SET); err != nil {
		return nil, wrap("seek", d.Path(), err)
	}
	var list []Entry
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.Getdents(d.fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, wrap("readdir", d.Path(), err)
		}
		if n == 0 {
			break
		}
		list = parseEntries(buf[:n], list)
	}
	slices.SortFunc(list, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// parseEntries reads struct linux_dirent64: inode 8, offset 8, length 2, type 1, name up to a zero.
func parseEntries(b []byte, list []Entry) []Entry {
	const head = 19
	for len(b) >= head {
		size := int(binary.NativeEndian.Uint16(b[16:]))
		if size < head || size > len(b) {
			break
		}
		name := b[head:size]
		if i := slices.Index(name, byte(0)); i >= 0 {
			name = name[:i]
		}
		if s := string(name); s != "." && s != ".." {
			list = append(list, Entry{Name: s, Type: uint32(b[18]) << 12}) // DT_* are the S_IF* shifted, see <dirent.h>
		}
		b = b[size:]
	}
	return list
}

// OpenEntry opens the regular file called name in d for reading and describes it. A link or anything else is refused with ELOOP or
// EINVAL, a fifo without waiting for its other end. Call it only for what Entries or Stat said is a regular file: opening a device
// may act on it.
func (d *Dir) OpenEntry(name string) (*File, Stat, error) {
	fd, err := retryFD(func() (int, error) {
		return unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, Stat{}, wrap("open", name, err)
	}
	f := &File{fd: fd, name: name}
	st, err := f.Stat()
	if err == nil && st.Type() != TypeRegular {
		err = wrap("open", name, unix.EINVAL)
	}
	if err != nil {
		unix.Close(fd)
		return nil, Stat{}, err
	}
	return f, st, nil
}

// Xattrs lists the names of the file's extended attributes.
func (f *File) Xattrs() ([]string, error) {
	attrs, err := listXattrs(func(buf []byte) (int, error) { return unix.Flistxattr(f.fd, buf) })
	return attrs, wrap("listxattr", f.name, err)
}

// Xattr gives an extended attribute of the file; found is false where there is none.
func (f *File) Xattr(attr string) (value []byte, found bool, err error) {
	value, err = getXattr(func(buf []byte) (int, error) { return unix.Fgetxattr(f.fd, attr, buf) })
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return nil, false, nil
	}
	return value, err == nil, wrap("getxattr "+attr, f.name, err)
}

// LinkXattrs lists the names of the extended attributes of name, a symbolic link's own.
func (d *Dir) LinkXattrs(name string) ([]string, error) {
	path := d.Path() + "/" + name
	attrs, err := listXattrs(func(buf []byte) (int, error) { return unix.Llistxattr(path, buf) })
	return attrs, wrap("listxattr", name, err)
}

// LinkXattr gives an extended attribute of name, a symbolic link's own; found is false where there is none.
func (d *Dir) LinkXattr(name, attr string) (value []byte, found bool, err error) {
	path := d.Path() + "/" + name
	value, err = getXattr(func(buf []byte) (int, error) { return unix.Lgetxattr(path, attr, buf) })
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return nil, false, nil
	}
	return value, err == nil, wrap("getxattr "+attr, name, err)
}

// SetLinkXattr sets an extended attribute of name, a symbolic link's own.
func (d *Dir) SetLinkXattr(name, attr string, value []byte) error {
	return wrap("setxattr "+attr, name, unix.Lsetxattr(d.Path()+"/"+name, attr, value, 0))
}

// listXattrs asks once without a buffer: nearly no file has any, and then that is all.
func listXattrs(list func([]byte) (int, error)) ([]string, error) {
	for {
		n, err := list(nil)
		if errors.Is(err, unix.ENOTSUP) {
			return nil, nil
		}
		if err != nil || n == 0 {
			return nil, err
		}
		buf := make([]byte, n)
		n, err = list(buf)
		if err == unix.ERANGE {
			continue
		}
		if err != nil {
			return nil, err
		}
		var attrs []string
		for a := range strings.SplitSeq(string(buf[:n]), "\x00") {
			if a != "" {
				attrs = append(attrs, a)
			}
		}
		return attrs, nil
	}
}

func getXattr(get func([]byte) (int, error)) ([]byte, error) {
	for size := 256; ; {
		buf := make([]byte, size)
		n, err := get(buf)
		if err == nil {
			return buf[:n], nil
		}
		if err != unix.ERANGE {
			return nil, err
		}
		if size, err = get(nil); err != nil {
			return nil, err
		}
		size += 64
	}
}
