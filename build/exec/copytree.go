package exec

import (
	"context"
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/tree"
)

// copyTree copies what is in a directory, with all attributes, into an empty one, which gets those of the first.
func copyTree(ctx context.Context, from, to *tree.Dir) error {
	c := copier{ctx: ctx, links: map[[2]uint64]linked{}, buf: make([]byte, 256<<10)}
	return c.dir(from, to)
}

// copier is a copy under way.
type copier struct {
	ctx   context.Context
	links map[[2]uint64]linked // files of several names that are copied
	buf   []byte
	path  []string // from the top
	top   *tree.Dir

	froms, tos tree.Descent
}

// linked is the copy of a file: its directory from the top, and its name.
type linked struct {
	dir  string
	name string
}

func (c *copier) dir(from, to *tree.Dir) error {
	if c.top == nil {
		c.top = to
	}
	if err := c.ctx.Err(); err != nil {
		return err
	}
	names, err := from.Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := c.entry(from, to, name); err != nil {
			return err
		}
	}
	st, err := from.Stat("")
	if err != nil {
		return err
	}
	return c.attributes(from, to, "", st)
}

func (c *copier) entry(from, to *tree.Dir, name string) error {
	st, err := from.Stat(name)
	if err != nil {
		return err
	}
	key := [2]uint64{st.Dev, st.Ino}
	if l, ok := c.links[key]; ok {
		at, _, err := c.top.Open(l.dir)
		if err != nil {
			return err
		}
		defer at.Close()
		return to.Link(at, l.name, name)
	}
	switch st.Mode & tree.TypeMask {
	case tree.TypeDir:
		return c.sub(from, to, name)
	case tree.TypeRegular:
		err = c.file(from, to, name)
	case tree.TypeSymlink:
		var target string
		if target, err = from.Readlink(name); err == nil {
			err = to.Symlink(target, name)
		}
	case unix.S_IFSOCK:
		return nil // nobody listens there any more
	default:
		err = to.Mknod(name, st.Mode, st.Major, st.Minor)
	}
	if err != nil {
		return fault.In(err, "copy %s", strings.Join(append(c.path, name), "/"))
	}
	if st.Nlink > 1 {
		c.links[key] = linked{"/" + strings.Join(c.path, "/"), name}
	}
	return c.attributes(from, to, name, st)
}

func (c *copier) sub(from, to *tree.Dir, name string) error {
	if err := to.Mkdir(name, 0o700); err != nil {
		return err
	}
	a, err := c.froms.Enter(from, name)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := c.tos.Enter(to, name)
	if err != nil {
		return err
	}
	defer b.Close()
	c.path = append(c.path, name)
	defer func() { c.path = c.path[:len(c.path)-1] }()
	if err := c.dir(a, b); err != nil {
		return err
	}
	return errors.Join(c.froms.Leave(a), c.tos.Leave(b))
}

func (c *copier) file(from, to *tree.Dir, name string) error {
	in, err := from.OpenFile(name)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := to.Create(name, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	if shared, err := out.ShareFrom(in); err != nil || shared {
		return err
	}
	st, err := in.Stat()
	if err != nil {
		return err
	}
	for off := int64(0); ; {
		start, end, ok, err := in.NextData(off)
		if err != nil {
			return err
		}
		if !ok {
			return out.Truncate(st.Size)
		}
		if err := out.CopyFrom(in, start, end-start, c.buf); err != nil {
			return err
		}
		off = end
	}
}

// attributes copies owner, mode, extended attributes and times, the last of all.
func (c *copier) attributes(from, to *tree.Dir, name string, st tree.Stat) error {
	if err := to.Chown(name, int(st.UID), int(st.GID)); err != nil {
		return err
	}
	if st.Mode&tree.TypeMask != tree.TypeSymlink {
		if err := to.Chmod(name, st.Mode&tree.PermMask); err != nil {
			return err
		}
		attrs, err := from.Xattrs(name)
		if err != nil {
			return err
		}
		for _, a := range attrs {
			value, found, err := from.Xattr(name, a)
			if err != nil || !found {
				return err
			}
			if err := to.SetXattr(name, a, value); err != nil && !tree.Unsupported(err) {
				return err
			}
		}
	}
	return to.Chtimes(name, st.Atime, st.Mtime)
}
