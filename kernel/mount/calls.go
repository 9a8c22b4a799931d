package mount

import (
	"bytes"
	"strings"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// OpenTree opens what is mounted at the path: with clone a detached copy, to be moved somewhere else;
// with recursive together with the mounts below it. path relative to dirfd; "" with an fd means the fd's
// own mount. Errors: ENOENT, EPERM (needs CAP_SYS_ADMIN in the owner of the mount namespace), EINVAL
// (unbindable mounts in the tree, or a mount of another namespace). Linux 5.2, open_tree(2).
func OpenTree(dirfd int, path string, clone, recursive bool) (int, error) {
	flags := uint(unix.OPEN_TREE_CLOEXEC | unix.AT_SYMLINK_NOFOLLOW)
	if clone {
		flags |= unix.OPEN_TREE_CLONE
	}
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	fd, err := unix.OpenTree(dirfd, path, flags)
	return fd, failed(err, "open_tree", path)
}

// Move puts the mount or detached tree that fd refers to at the path below dirfd; "" is dirfd itself.
// Links in the path's last part are not followed. Errors: EINVAL (onto a detached tree before Linux 6.15;
// the target is not in this mount namespace), ELOOP (into itself), EPERM. Linux 5.2, move_mount(2).
func Move(fd, dirfd int, path string) error {
	flags := unix.MOVE_MOUNT_F_EMPTY_PATH
	if path == "" {
		flags |= unix.MOVE_MOUNT_T_EMPTY_PATH
	}
	return failed(unix.MoveMount(fd, "", dirfd, path, flags), "move_mount", path)
}

// SetAttributes sets and clears MOUNT_ATTR_* on the mount at the path below dirfd ("" is dirfd's), with
// recursive on all below it too, or on none. Errors: ENOSYS (before Linux 5.12: remount each mount with
// mount(2)), EPERM (a locked flag of another user namespace), EBUSY (open for writing). mount_setattr(2).
func SetAttributes(dirfd int, path string, set, clear uint64, recursive bool) error {
	if set&unix.MOUNT_ATTR__ATIME != 0 {
		clear |= unix.MOUNT_ATTR__ATIME
	}
	return setattr(dirfd, path, &unix.MountAttr{Attr_set: set, Attr_clr: clear}, recursive)
}

// IDMap gives a detached mount (from OpenTree with clone) the id mapping of a user namespace, which
// kernel/idmap makes. Errors: EINVAL (already mapped, not detached, or the file system cannot: Linux 5.12
// ext4, 5.19 as overlay layer, 6.3 tmpfs), EPERM (the initial user namespace, or a foreign file system).
func IDMap(fd, userns int, recursive bool) error {
	return setattr(fd, "", &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns)}, recursive)
}

func setattr(dirfd int, path string, a *unix.MountAttr, recursive bool) error {
	flags := uint(unix.AT_SYMLINK_NOFOLLOW)
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return failed(unix.MountSetattr(dirfd, path, flags, a), "mount_setattr", path)
}

// FS is a file system being configured before it is mounted: fsopen(2), Linux 5.2.
type FS struct {
	fd   int
	name string
}

// OpenFS begins a file system of the type. Errors: ENODEV (the kernel has none of this type), EPERM.
func OpenFS(fstype string) (*FS, error) {
	fd, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		if err == unix.ENODEV {
			return nil, fault.Wrap(fault.NotImplemented, err, "file system %q (modprobe %s, or a kernel that has it)", fstype, fstype)
		}
		return nil, failed(err, "fsopen", fstype)
	}
	return &FS{fd, fstype}, nil
}

// Set sets key=value. A key or value that the file system does not take is EINVAL, with its own words.
func (f *FS) Set(key, value string) error {
	return f.failed(unix.FsconfigSetString(f.fd, key, value), key+"="+value)
}

// Flag sets a word without value, such as "ro".
func (f *FS) Flag(key string) error { return f.failed(unix.FsconfigSetFlag(f.fd, key), key) }

// SetFD sets a key to an open descriptor, such as an overlay layer ("lowerdir+", Linux 6.13).
func (f *FS) SetFD(key string, fd int) error { return f.failed(unix.FsconfigSetFd(f.fd, key, fd), key) }

// Data sets all words of an option string: "size=64m,mode=1777".
func (f *FS) Data(options string) error {
	for o := range strings.SplitSeq(options, ",") {
		if o == "" {
			continue
		}
		key, value, ok := strings.Cut(o, "=")
		var err error
		if ok {
			err = f.Set(key, value)
		} else {
			err = f.Flag(key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Mount creates the file system and gives a descriptor of its detached mount with the MOUNT_ATTR_* set:
// to be used with openat, and put in place with Move. Closing it unmounts. FS is used up and closed.
func (f *FS) Mount(attributes uint64) (int, error) {
	defer f.Close()
	if err := unix.FsconfigCreate(f.fd); err != nil {
		return -1, f.failed(err, "create")
	}
	fd, err := unix.Fsmount(f.fd, unix.FSMOUNT_CLOEXEC, int(attributes))
	if err != nil {
		return -1, f.failed(err, "fsmount")
	}
	return fd, nil
}

// Close drops a file system that was not mounted.
func (f *FS) Close() error {
	if f.fd < 0 {
		return nil
	}
	err := unix.Close(f.fd)
	f.fd = -1
	return err
}

// failed adds what the file system itself said: reading its descriptor gives messages such as
// "e overlay: unknown parameter".
func (f *FS) failed(err error, doing string) error {
	if err == nil {
		return nil
	}
	var said []string
	buf := make([]byte, 1024)
	for range 8 {
		n, rerr := unix.Read(f.fd, buf)
		if rerr != nil || n <= 2 {
			break
		}
		said = append(said, string(bytes.TrimSpace(buf[2:n])))
	}
	if len(said) > 0 {
		return fault.Wrap(kindOf(err), err, "file system %s: %s: %s", f.name, doing, strings.Join(said, "; "))
	}
	return fault.Wrap(kindOf(err), err, "file system %s: %s", f.name, doing)
}

// Unmount takes away what is mounted at the path, at once from view and for good when its last user is
// gone. A path that is not there or not a mount point is fine; a link at its end is not followed.
func Unmount(path string) error {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		switch err {
		case nil, unix.EINVAL, unix.ENOENT, unix.ENOTDIR:
			return nil
		case unix.EINTR:
			continue
		}
		return failed(err, "umount2", path)
	}
}

// UnmountBelow takes away all that is mounted at the path and under it in this mount namespace, the
// deepest first, stacked mounts all.
func UnmountBelow(path string) error {
	list, err := Self(func(i *Info) bool { return i.Point == path || strings.HasPrefix(i.Point, path+"/") })
	if err != nil {
		return err
	}
	for _, i := range Below(list, path) {
		if err := Unmount(i.Point); err != nil {
			return err
		}
	}
	return nil
}

func failed(err error, call, path string) error {
	if err == nil {
		return nil
	}
	return fault.Wrap(kindOf(err), err, "%s %s", call, path)
}

func kindOf(err error) fault.Kind {
	switch err {
	case unix.ENOENT, unix.ENOTDIR:
		return fault.NotFound
	case unix.EPERM, unix.EACCES:
		return fault.Forbidden
	case unix.EINVAL:
		return fault.Invalid
	case unix.ENOSYS, unix.ENODEV, unix.EOPNOTSUPP:
		return fault.NotImplemented
	case unix.EBUSY:
		return fault.Conflict
	}
	return fault.Internal
}
