package content

import (
	"context"
	"io"
	"slices"
	"strings"

	"berth/base/fault"
	"berth/kernel/tree"
)

// Copied tells what a copy did.
type Copied struct {
	Entries int64 // files, directories and the rest, the root not counted
	Bytes   int64 // of content that had to be copied
	Shared  int64 // of content that shares its blocks with the original
}

// Copy makes dst, an empty directory, have what src has: its own owner, permissions and attributes too. Blocks are shared where
// the file system can (reflinks), else copied inside the kernel, holes staying holes. A tree in use is copied as it is met.
// On an error dst is half made.
func Copy(ctx context.Context, src, dst *tree.Dir) (Copied, error) {
	c := &copier{ctx: ctx, root: dst, links: map[inode]string{}, buf: make([]byte, 256<<10), share: true}
	st, err := src.Stat("")
	if err != nil {
		return c.done, err
	}
	if err := c.children(src, dst, ""); err != nil {
		return c.done, err
	}
	return c.done, dress(src, dst, "", &st)
}

// Dress gives dst, a directory, the owner, permissions and attributes of src.
func Dress(src, dst *tree.Dir) error {
	st, err := src.Stat("")
	if err != nil {
		return err
	}
	return dressDir(src, dst, &st)
}

type inode struct{ dev, ino uint64 }

type copier struct {
	ctx   context.Context
	root  *tree.Dir
	links map[inode]string // first name, below root, of files with several
	buf   []byte
	share bool // until the file systems said no
	done  Copied
}

func (c *copier) children(src, dst *tree.Dir, path string) error {
	names, err := src.Names()
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, n := range names {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		st, err := src.Stat(n)
		if err == nil {
			err = c.entry(src, dst, n, join(path, n), &st)
		}
		if tree.Missing(err) && gone(src, n) {
			dst.RemoveAll(n) // it went while it was being copied
			continue
		}
		if err != nil {
			return fault.At(err, "copy %q", join(path, n))
		}
	}
	return nil
}

// maxDepth bounds the directories below each other, each of which costs a descriptor or two while it is walked. No path names anything
// deeper (PATH_MAX), but a process can go there step by step.
const maxDepth = 2048

func checkDepth(path string) error {
	if strings.Count(path, "/") >= maxDepth {
		return fault.New(fault.Invalid, "more than %d directories below each other", maxDepth)
	}
	return nil
}

func gone(dir *tree.Dir, name string) bool {
	_, err := dir.Stat(name)
	return tree.Missing(err)
}

func (c *copier) entry(src, dst *tree.Dir, name, path string, st *tree.Stat) error {
	c.done.Entries++
	id := inode{st.Dev, st.Ino}
	if first, ok := c.links[id]; ok && st.Nlink > 1 && !st.IsDir() {
		return c.link(first, dst, name)
	}
	var err error
	switch st.Type() {
	case tree.TypeDir:
		return c.directory(src, dst, name, path, st)
	case tree.TypeRegular:
		err = c.file(src, dst, name, st)
	case tree.TypeSymlink:
		var target string
		if target, err = src.Readlink(name); err == nil {
			err = dst.Symlink(target, name)
		}
	default:
		err = dst.Mknod(name, st.Mode, st.Major, st.Minor)
	}
	if err != nil {
		return err
	}
	if st.Nlink > 1 {
		c.links[id] = path
	}
	if st.Type() == tree.TypeRegular {
		return nil // dressed by its descriptor
	}
	return dress(src, dst, name, st)
}

func (c *copier) directory(src, dst *tree.Dir, name, path string, st *tree.Stat) error {
	if err := checkDepth(path); err != nil {
		return err
	}
	if err := dst.Mkdir(name, 0o700); err != nil {
		return err
	}
	from, err := src.Sub(name)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := dst.Sub(name)
	if err != nil {
		return err
	}
	defer to.Close()
	if err := c.children(from, to, path); err != nil {
		return err
	}
	return dress(from, to, "", st)
}

func (c *copier) link(first string, dst *tree.Dir, name string) error {
	dir, base := split(first)
	from, _, err := c.root.Open(dir)
	if err != nil {
		return err
	}
	defer from.Close()
	return dst.Link(from, base, name)
}

func (c *copier) file(src, dst *tree.Dir, name string, st *tree.Stat) error {
	from, err := src.OpenFile(name)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := dst.Create(name, 0o600)
	if err != nil {
		return err
	}
	err = c.bytes(from, to)
	if err == nil {
		err = dressFile(src, name, to, st)
	}
	if cerr := to.Close(); err == nil {
		err = cerr
	}
	return err
}

// bytes copies content: shared, or stretch by stretch of data. What shrinks meanwhile ends with a hole.
func (c *copier) bytes(from, to *tree.File) error {
	st, err := from.Stat()
	if err != nil || st.Size == 0 {
		return err
	}
	if c.share {
		done, err := to.ShareFrom(from)
		if err != nil {
			return err
		}
		if done {
			c.done.Shared += st.Size
			return nil
		}
		c.share = false
	}
	if err := to.Truncate(st.Size); err != nil {
		return err
	}
	for at := int64(0); at < st.Size; {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		start, end, ok, err := from.NextData(at)
		if err != nil {
			return err
		}
		if !ok || start >= st.Size {
			return nil
		}
		// In pieces, so that a copy of terabytes can be given up.
		end = min(end, st.Size, start+64<<20)
		if err := to.CopyFrom(from, start, end-start, c.buf); err == io.ErrUnexpectedEOF {
			return nil
		} else if err != nil {
			return err
		}
		c.done.Bytes += end - start
		at = end
	}
	return nil
}

// dress gives name in dst ("" is dst itself) the owner, permissions, attributes and times of name in src. The order matters: a
// change of owner drops set-user-id bits and capabilities, a change of permissions alters an ACL's mask.
func dress(src, dst *tree.Dir, name string, st *tree.Stat) error {
	if name == "" {
		if err := dressDir(src, dst, st); err != nil {
			return err
		}
		return dst.Chtimes("", st.Atime, st.Mtime)
	}
	if err := dst.Chown(name, int(st.UID), int(st.GID)); err != nil {
		return err
	}
	if st.Type() != tree.TypeSymlink {
		if err := dst.Chmod(name, st.Mode&tree.PermMask); err != nil {
			return err
		}
		attrs, err := attributes(src, name)
		if err != nil {
			return err
		}
		for _, a := range attrs {
			if err := dst.SetXattr(name, a.name, a.value); err != nil {
				return err
			}
		}
	}
	return dst.Chtimes(name, st.Atime, st.Mtime)
}

func dressDir(src, dst *tree.Dir, st *tree.Stat) error {
	if err := dst.Chown("", int(st.UID), int(st.GID)); err != nil {
		return err
	}
	if err := dst.Chmod("", st.Mode&tree.PermMask); err != nil {
		return err
	}
	attrs, err := attributes(src, "")
	if err != nil {
		return err
	}
	for _, a := range attrs {
		if err := dst.SetXattr("", a.name, a.value); err != nil {
			return err
		}
	}
	return nil
}

func dressFile(src *tree.Dir, name string, to *tree.File, st *tree.Stat) error {
	if err := to.Chown(int(st.UID), int(st.GID)); err != nil {
		return err
	}
	if err := to.Chmod(st.Mode & tree.PermMask); err != nil {
		return err
	}
	attrs, err := attributes(src, name)
	if err != nil {
		return err
	}
	for _, a := range attrs {
		if err := to.SetXattr(a.name, a.value); err != nil {
			return err
		}
	}
	return to.Chtimes(st.Atime, st.Mtime)
}

// attribute is an extended attribute.
type attribute struct {
	name  string
	value []byte
}

// attributes lists what of name's extended attributes travels, sorted by name.
func attributes(dir *tree.Dir, name string) ([]attribute, error) {
	names, err := dir.Xattrs(name)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var list []attribute
	for _, n := range names {
		if !travels(n) {
			continue
		}
		v, ok, err := dir.Xattr(name, n)
		if err != nil {
			return nil, err
		}
		if ok {
			list = append(list, attribute{n, v})
		}
	}
	return list, nil
}

// travels tells attributes that belong to the file from those of the place it is in: labels are the policy's, and overlayfs's
// own marks mean nothing outside its layers.
func travels(attr string) bool {
	switch {
	case attr == "security.selinux", attr == "security.ima", attr == "security.evm":
		return false
	case strings.HasPrefix(attr, "trusted.overlay."), strings.HasPrefix(attr, "system.nfs4_acl"), strings.HasPrefix(attr, "btrfs."):
		return false
	}
	return true
}

func join(dir, base string) string {
	if dir == "" {
		return base
	}
	return dir + "/" + base
}

func split(path string) (dir, base string) {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return "", path
}
