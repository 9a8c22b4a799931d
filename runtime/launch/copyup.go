package launch

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"

	"berth/kernel/tree"
)

// copyUp copies the directory at path in the root into the mount, with owners and modes; withMode also gives
// the mount's top the directory's mode. Both may be detached mounts. Nothing there: ENOENT.
func copyUp(root int, path string, into int, withMode bool) error {
	from, err := tree.OpenFD(root)
	if err != nil {
		return err
	}
	defer from.Close()
	src, _, err := from.Open(path)
	if err != nil {
		var errno unix.Errno
		if errors.As(err, &errno) {
			return errno
		}
		return err
	}
	defer src.Close()
	to, err := tree.OpenFD(into)
	if err != nil {
		return err
	}
	defer to.Close()
	if withMode {
		st, err := src.Stat("")
		if err != nil {
			return err
		}
		if err := to.Chmod("", st.Mode&0o7777); err != nil {
			return err
		}
	}
	return copyDir(src, to)
}

func copyDir(from, to *tree.Dir) error {
	names, err := from.Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		st, err := from.Stat(name)
		if err != nil {
			return err
		}
		if err := copyEntry(from, to, name, &st); err != nil {
			return err
		}
	}
	return nil
}

func copyEntry(from, to *tree.Dir, name string, st *tree.Stat) error {
	switch st.Type() {
	case tree.TypeDir:
		return copySub(from, to, name, st)
	case tree.TypeSymlink:
		target, err := from.Readlink(name)
		if err != nil {
			return err
		}
		if err := to.Symlink(target, name); err != nil {
			return err
		}
		return to.Chown(name, int(st.UID), int(st.GID))
	case tree.TypeRegular:
		return copyFile(from, to, name, st)
	}
	return to.Mknod(name, st.Mode, st.Major, st.Minor)
}

func copySub(from, to *tree.Dir, name string, st *tree.Stat) error {
	if err := to.Mkdir(name, 0o700); err != nil {
		return err
	}
	src, err := from.Sub(name)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := to.Sub(name)
	if err != nil {
		return err
	}
	defer dst.Close()
	if err := copyDir(src, dst); err != nil {
		return err
	}
	if err := to.Chown(name, int(st.UID), int(st.GID)); err != nil {
		return err
	}
	return to.Chmod(name, st.Mode&0o7777)
}

func copyFile(from, to *tree.Dir, name string, st *tree.Stat) error {
	src, err := from.OpenFile(name)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := to.Create(name, 0o600)
	if err != nil {
		return err
	}
	defer dst.Close()
	if _, err := io.Copy(dst, src); err != nil {
		return err
	}
	if err := dst.Chown(int(st.UID), int(st.GID)); err != nil {
		return err
	}
	return dst.Chmod(st.Mode & 0o7777)
}
