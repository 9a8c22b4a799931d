package file

import (
	"errors"
	"io"
	"io/fs"
	"path"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/tree"
)

// Sizes in bytes. What fits the buffer is read and written at once; a larger file is left to the kernel.
const (
	copyBuffer = 256 << 10
	copyStep   = 256 << 20 // after which a copy looks whether it is still wanted
)

// file copies what is no directory: the entry from of l's source, as name.
func (c *copier) file(l *level, from, name string, kind uint32) error {
	err := c.clear(l, name)
	if err == nil {
		switch kind {
		case tree.TypeRegular:
			err = c.regular(l, from, name)
		case tree.TypeSymlink:
			err = c.symlink(l, from, name)
		default:
			err = c.node(l, from, name)
		}
	}
	if _, plain := errors.AsType[*fault.Error](err); plain {
		return err
	}
	return at(err, path.Join(l.at, name))
}

func (c *copier) regular(l *level, from, name string) error {
	src, st, err := l.src.OpenEntry(from)
	if err != nil {
		return err
	}
	defer src.Close()
	if st.Nlink > 1 {
		linked, err := c.link(l, name, st)
		if err != nil || linked {
			return err
		}
	}
	uid, gid, mode := c.looks(st)
	dst, err := l.dst.Create(name, mode&0o777)
	if err != nil {
		return err
	}
	defer dst.Close()
	if err := c.content(dst, src, st); err != nil {
		return err
	}
	if err := settle(dst, uid, gid, mode); err != nil {
		return err
	}
	attrs, err := src.Xattrs()
	if err != nil {
		return err
	}
	for _, attr := range attrs {
		v, found, err := src.Xattr(attr)
		if err != nil {
			return err
		}
		if !found || ownMark(attr) {
			continue
		}
		if err := dst.SetXattr(attr, v); err != nil && !tolerable(err) {
			return err
		}
	}
	atime, mtime := c.times(st)
	return dst.Chtimes(atime, mtime)
}

// settle gives a new file its owner and permissions where it was not made with them: the umask, and a directory's set-group-ID
// bit and default ACL have a say in that.
func settle(f *tree.File, uid, gid int, mode uint32) error {
	now, err := f.Stat()
	if err != nil {
		return err
	}
	if int(now.UID) != uid || int(now.GID) != gid {
		if err := f.Chown(uid, gid); err != nil {
			return err
		}
	}
	if now.Mode&tree.PermMask == mode { // without the bits that a change of the owner takes away
		return nil
	}
	return f.Chmod(mode)
}

// link makes name another name of the copy that an earlier name of the same file became.
func (c *copier) link(l *level, name string, st tree.Stat) (done bool, err error) {
	key, here := inode{st.Dev, st.Ino}, first{path.Join(l.at, name), l.direct}
	before, known := c.links[key]
	if !known {
		if c.links == nil {
			c.links = map[inode]first{}
		}
		c.links[key] = here
		return false, nil
	}
	root, to := c.dst, l.dst
	switch {
	case before.direct && l.direct:
		root = c.upper
	case l.direct: // the overlay knows the file, and has to know of its new name
		if to, _, err = c.dst.Open(l.at); err != nil {
			return false, err
		}
		defer to.Close()
	}
	parent, base := parentOf(before.path)
	dir, _, err := root.Open(parent)
	if err != nil {
		return false, err
	}
	defer dir.Close()
	err = c.hardlink(to, dir, base, name)
	if errors.Is(err, unix.EMLINK) { // the file system's own bound
		c.links[key] = here
		return false, nil
	}
	return err == nil, err
}

// content copies the bytes, and leaves holes holes.
func (c *copier) content(dst, src *tree.File, st tree.Stat) error {
	if st.Size == 0 {
		return nil
	}
	if c.buf == nil {
		c.buf = make([]byte, copyBuffer)
	}
	if st.Size <= int64(len(c.buf)) {
		n, err := src.ReadAt(c.buf[:st.Size], 0)
		if err != nil && err != io.EOF {
			return err
		}
		_, err = dst.Write(c.buf[:n])
		return err
	}
	if done, err := dst.ShareFrom(src); done || err != nil {
		return err
	}
	if st.Blocks*512 >= st.Size {
		return c.stretch(dst, src, 0, st.Size)
	}
	for off := int64(0); ; {
		start, end, ok, err := src.NextData(off)
		if err != nil {
			return err
		}
		if !ok || start >= st.Size {
			return dst.Truncate(st.Size)
		}
		end = min(end, st.Size)
		if err := c.stretch(dst, src, start, end); err != nil {
			return err
		}
		off = end
	}
}

func (c *copier) stretch(dst, src *tree.File, from, to int64) error {
	for from < to {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		n := min(to-from, copyStep)
		if err := dst.CopyFrom(src, from, n, c.buf); err != nil {
			return err
		}
		from += n
	}
	return nil
}

func (c *copier) symlink(l *level, from, name string) error {
	st, err := l.src.Stat(from)
	if err != nil {
		return err
	}
	target, err := l.src.Readlink(from)
	if err != nil {
		return err
	}
	if err := l.dst.Symlink(target, name); err != nil {
		return err
	}
	uid, gid, _ := c.looks(st)
	if err := l.dst.Chown(name, uid, gid); err != nil {
		return err
	}
	if err := nameXattrs(l, from, name); err != nil {
		return err
	}
	atime, mtime := c.times(st)
	return l.dst.Chtimes(name, atime, mtime)
}

// node copies a device or a fifo. A socket is nothing without the process behind it: it becomes an empty file.
func (c *copier) node(l *level, from, name string) error {
	st, err := l.src.Stat(from)
	if err != nil {
		return err
	}
	kind := st.Type()
	if kind == tree.TypeSocket {
		kind = tree.TypeRegular
	}
	if st.IsWhiteout() { // as overlayfs refuses it, which would take it for its own
		return &fs.PathError{Op: "mknod", Path: name, Err: unix.EPERM}
	}
	if err := l.dst.Mknod(name, kind|0o600, st.Major, st.Minor); err != nil {
		return err
	}
	uid, gid, mode := c.looks(st)
	if err := l.dst.Chown(name, uid, gid); err != nil {
		return err
	}
	if err := l.dst.Chmod(name, mode); err != nil {
		return err
	}
	if err := nameXattrs(l, from, name); err != nil {
		return err
	}
	atime, mtime := c.times(st)
	return l.dst.Chtimes(name, atime, mtime)
}

// nameXattrs copies the extended attributes of what cannot be opened.
func nameXattrs(l *level, from, name string) error {
	attrs, err := l.src.LinkXattrs(from)
	if err != nil {
		return err
	}
	for _, attr := range attrs {
		v, found, err := l.src.LinkXattr(from, attr)
		if err != nil {
			return err
		}
		if !found || ownMark(attr) {
			continue
		}
		if err := l.dst.SetLinkXattr(name, attr, v); err != nil && !tolerable(err) {
			return err
		}
	}
	return nil
}

func dirXattrs(src, dst *tree.Dir) error {
	attrs, err := src.OwnXattrs()
	if err != nil {
		return err
	}
	for _, attr := range attrs {
		v, found, err := src.OwnXattr(attr)
		if err != nil {
			return err
		}
		if !found || ownMark(attr) {
			continue
		}
		if err := dst.SetXattr("", attr, v); err != nil && !tolerable(err) {
			return err
		}
	}
	return nil
}

// tolerable reports errors of setting an extended attribute that do not fail a copy: the destination's file system or our rights
// do not have them. BuildKit tolerates all errors.
func tolerable(err error) bool { return tree.Unsupported(err) || tree.Denied(err) }
