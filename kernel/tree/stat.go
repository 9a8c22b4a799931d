package tree

import (
	"errors"
	"io/fs"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The types of a file, as Stat.Mode&TypeMask holds them.
const (
	TypeMask    = unix.S_IFMT
	TypeRegular = unix.S_IFREG
	TypeDir     = unix.S_IFDIR
	TypeSymlink = unix.S_IFLNK
	TypeChar    = unix.S_IFCHR
	TypeBlock   = unix.S_IFBLK
	TypeFifo    = unix.S_IFIFO
	TypeSocket  = unix.S_IFSOCK
	PermMask    = 0o7777 // permissions with setuid, setgid and sticky
)

// Time is a point in time as the file system keeps it.
type Time struct {
	Sec  int64
	Nsec int64
}

// Stat is what lstat(2) tells.
type Stat struct {
	Mode         uint32 // type and permissions
	UID, GID     uint32
	Size         int64 // bytes
	Blocks       int64 // of 512 bytes
	Nlink        uint64
	Dev, Ino     uint64
	Major, Minor uint32 // of a device node
	Mtime, Atime Time
}

// Type is the file's type: one of the Type constants.
func (s *Stat) Type() uint32 { return s.Mode & TypeMask }

// IsDir reports whether it is a directory.
func (s *Stat) IsDir() bool { return s.Type() == TypeDir }

// IsWhiteout reports whether it is overlayfs's mark for "deleted here": the character device 0/0.
func (s *Stat) IsWhiteout() bool { return s.Type() == TypeChar && s.Major == 0 && s.Minor == 0 }

func fromUnix(st *unix.Stat_t) Stat {
	return Stat{
		Mode: st.Mode, UID: st.Uid, GID: st.Gid, Size: st.Size, Blocks: st.Blocks,
		Nlink: uint64(st.Nlink), Dev: uint64(st.Dev), Ino: st.Ino,
		Major: unix.Major(uint64(st.Rdev)), Minor: unix.Minor(uint64(st.Rdev)),
		Mtime: Time{st.Mtim.Sec, st.Mtim.Nsec}, Atime: Time{st.Atim.Sec, st.Atim.Nsec},
	}
}

// Stat describes name without following it; "" describes d itself.
func (d *Dir) Stat(name string) (Stat, error) {
	var st unix.Stat_t
	flags := unix.AT_SYMLINK_NOFOLLOW
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	if err := unix.Fstatat(d.fd, name, &st, flags); err != nil {
		return Stat{}, wrap("stat", name, err)
	}
	return fromUnix(&st), nil
}

// Lookup describes the path rel below d without following any link, as layers need it: what stands behind a
// link of the same layer is not part of it. found is false where there is nothing, also because a parent is
// missing or is no directory.
func (d *Dir) Lookup(rel string) (st Stat, found bool, err error) {
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_SYMLINKS,
	}
	if rel == "" {
		rel = "."
	}
	fd, err := openat2(d.fd, rel, &how)
	// ELOOP is a link among the parents: a link at the end itself is opened by O_PATH|O_NOFOLLOW.
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return Stat{}, false, nil
	}
	if err != nil {
		return Stat{}, false, wrap("stat", rel, err)
	}
	defer unix.Close(fd)
	var u unix.Stat_t
	if err := unix.Fstat(fd, &u); err != nil {
		return Stat{}, false, wrap("stat", rel, err)
	}
	return fromUnix(&u), true, nil
}

// Chown sets the owner of name, a link's own; "" is d itself.
func (d *Dir) Chown(name string, uid, gid int) error {
	flags := unix.AT_SYMLINK_NOFOLLOW
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	return wrap("chown", name, unix.Fchownat(d.fd, name, uid, gid, flags))
}

// Chmod sets the permissions of name, which must not be a link; "" is d itself.
func (d *Dir) Chmod(name string, perm uint32) error {
	if name == "" {
		return wrap("chmod", name, unix.Fchmod(d.fd, perm))
	}
	return d.pinned("chmod", name, func(path string) error { return unix.Chmod(path, perm) })
}

// Chtimes sets access and modification time of name, a link's own; "" is d itself.
func (d *Dir) Chtimes(name string, atime, mtime Time) error {
	ts := [2]unix.Timespec{timespec(atime), timespec(mtime)}
	flags := unix.AT_SYMLINK_NOFOLLOW
	if name == "" {
		flags = unix.AT_EMPTY_PATH // utimensat takes it since Linux 5.8
	}
	return wrap("utimes", name, unix.UtimesNanoAt(d.fd, name, ts[:], flags))
}

// SetXattr sets an extended attribute of name, which must not be a link; "" is d itself.
func (d *Dir) SetXattr(name, attr string, value []byte) error {
	if name == "" {
		return wrap("setxattr "+attr, name, unix.Fsetxattr(d.fd, attr, value, 0))
	}
	return d.pinned("setxattr "+attr, name, func(path string) error { return unix.Setxattr(path, attr, value, 0) })
}

// Xattr gives an extended attribute of name, which must not be a link; "" is d itself. found is false where there is none,
// or where the file system has none at all.
func (d *Dir) Xattr(name, attr string) (value []byte, found bool, err error) {
	get := func(path string) error {
		buf := make([]byte, 256)
		for {
			n, err := unix.Getxattr(path, attr, buf)
			if err == unix.ERANGE {
				if n, err = unix.Getxattr(path, attr, nil); err != nil {
					return err
				}
				buf = make([]byte, n+64)
				continue
			}
			if err != nil {
				return err
			}
			value, found = buf[:n], true
			return nil
		}
	}
	if name == "" {
		err = wrap("getxattr "+attr, name, get(d.Path()))
	} else {
		err = d.pinned("getxattr "+attr, name, get)
	}
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return nil, false, nil
	}
	return value, found, err
}

// Xattrs lists the names of name's extended attributes; name must not be a link, "" is d itself.
func (d *Dir) Xattrs(name string) (attrs []string, err error) {
	list := func(path string) error {
		size := 512
		for {
			buf := make([]byte, size)
			n, err := unix.Listxattr(path, buf)
			if err == unix.ERANGE && size < 1<<20 {
				size *= 4
				continue
			}
			if err != nil {
				return err
			}
			for a := range strings.SplitSeq(string(buf[:n]), "\x00") {
				if a != "" {
					attrs = append(attrs, a)
				}
			}
			return nil
		}
	}
	if name == "" {
		err = wrap("listxattr", name, list(d.Path()))
	} else {
		err = d.pinned("listxattr", name, list)
	}
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	return attrs, err
}

// pinned runs f on a path that means the inode called name and nothing else: chmod and xattr calls have no
// "do not follow" form on old kernels (fchmodat2 came with 6.6, setxattrat with 6.13).
func (d *Dir) pinned(op, name string, f func(path string) error) error {
	fd, err := unix.Openat(d.fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return wrap(op, name, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return wrap(op, name, err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return wrap(op, name, unix.ELOOP)
	}
	return wrap(op, name, f("/proc/self/fd/"+strconv.Itoa(fd)))
}

func timespec(t Time) unix.Timespec { return unix.Timespec{Sec: t.Sec, Nsec: t.Nsec} }

// Exists reports whether err says that the name is taken.
func Exists(err error) bool { return errors.Is(err, fs.ErrExist) }

// Missing reports whether err says that there is nothing of that name.
func Missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// NotDir reports whether err says that something on the way is no directory.
func NotDir(err error) bool { return errors.Is(err, unix.ENOTDIR) }

// Unsupported reports whether err says that the file system cannot do it.
func Unsupported(err error) bool { return errors.Is(err, unix.ENOTSUP) }

// Denied reports whether err says that the process may not do it.
func Denied(err error) bool { return errors.Is(err, fs.ErrPermission) }

// Impossible reports whether err says that what was asked for can never be: a path that is too long, has too many links
// or goes through something that is no directory; a file larger than the file system allows.
func Impossible(err error) bool {
	for _, e := range []unix.Errno{unix.ELOOP, unix.ENAMETOOLONG, unix.ENOTDIR, unix.EFBIG, unix.EOVERFLOW} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// FileMode translates st_mode (inode(7)) as Go has it, which is what Docker's clients and BuildKit's expect.
func FileMode(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	switch mode & TypeMask {
	case TypeDir:
		m |= fs.ModeDir
	case TypeSymlink:
		m |= fs.ModeSymlink
	case TypeChar:
		m |= fs.ModeDevice | fs.ModeCharDevice
	case TypeBlock:
		m |= fs.ModeDevice
	case TypeFifo:
		m |= fs.ModeNamedPipe
	case TypeSocket:
		m |= fs.ModeSocket
	}
	if mode&unix.S_ISUID != 0 {
		m |= fs.ModeSetuid
	}
	if mode&unix.S_ISGID != 0 {
		m |= fs.ModeSetgid
	}
	if mode&unix.S_ISVTX != 0 {
		m |= fs.ModeSticky
	}
	return m
}
