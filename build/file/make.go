package file

import (
	"crypto/rand"
	"io/fs"
	"path"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/tree"
)

// when is a time that files are given, or none.
type when struct {
	set bool
	at  tree.Time
}

// whenOf reads an op's timestamp: nanoseconds since 1970, -1 for none.
func whenOf(ns int64) when {
	if ns == -1 {
		return when{}
	}
	sec, rest := ns/1e9, ns%1e9
	if rest < 0 {
		sec, rest = sec-1, rest+1e9
	}
	return when{true, tree.Time{Sec: sec, Nsec: rest}}
}

// finish gives a name that was just made its owner and its times.
func finish(dir *tree.Dir, name string, own *owner, t when) error {
	if own != nil {
		if err := dir.Chown(name, own.uid, own.gid); err != nil {
			return err
		}
	}
	if t.set {
		return dir.Chtimes(name, t.at, t.at)
	}
	return nil
}

// mkdir makes a directory. One that is there already is left as it is.
func mkdir(root *tree.Dir, a *pb.FileActionMkDir, own *owner) error {
	p, err := resolve(root, a.Path, true)
	if err != nil {
		return err
	}
	mode, t := uint32(a.Mode)&0o777, whenOf(a.Timestamp)
	if a.MakeParents {
		_, err := mkdirAll(root, p, mode, own, t)
		return err
	}
	if p == "" {
		return nil
	}
	parent, base := parentOf(p)
	dir, _, err := root.Open(parent)
	if err != nil {
		return at(err, a.Path)
	}
	defer dir.Close()
	if _, err := mkdirIn(dir, base, mode, own, t); err != nil && !tree.Exists(err) {
		return at(err, a.Path)
	}
	return nil
}

// mkdirIn makes one directory; made is false where there was one.
func mkdirIn(dir *tree.Dir, name string, mode uint32, own *owner, t when) (made bool, err error) {
	if err := dir.Mkdir(name, 0o700); err != nil {
		if st, err2 := dir.Stat(name); err2 == nil && st.IsDir() {
			return false, nil
		}
		return false, err
	}
	if own != nil {
		if err := dir.Chown(name, own.uid, own.gid); err != nil {
			return true, err
		}
	}
	if err := dir.Chmod(name, mode); err != nil { // after the owner, which may take bits away
		return true, err
	}
	if t.set {
		return true, dir.Chtimes(name, t.at, t.at)
	}
	return true, nil
}

// mkdirAll makes the directory at a resolved path and those above it that are missing, and tells which it made, outermost first.
func mkdirAll(root *tree.Dir, p string, mode uint32, own *owner, t when) (made []string, err error) {
	if dir, _, err := root.Open(p); err == nil { // mostly it is there
		dir.Close()
		return nil, nil
	}
	dir, _, err := root.Open("")
	if err != nil {
		return nil, err
	}
	defer func() { dir.Close() }()
	done := ""
	for name := range strings.SplitSeq(p, "/") {
		done = path.Join(done, name)
		sub, err := dir.Sub(name)
		if tree.Missing(err) {
			var is bool
			if is, err = mkdirIn(dir, name, mode, own, t); err != nil {
				return made, at(err, done)
			}
			if is {
				made = append(made, done)
			}
			sub, err = dir.Sub(name)
		}
		if err != nil {
			return made, at(err, done)
		}
		dir.Close()
		dir = sub
	}
	return made, nil
}

// mkfile writes a file beside its place and renames it there: what stands at the place, a device for example, is replaced and never
// opened.
func mkfile(root *tree.Dir, a *pb.FileActionMkFile, own *owner) error {
	p, err := resolve(root, a.Path, true)
	if err != nil {
		return err
	}
	if p == "" {
		return &fs.PathError{Op: "mkfile", Path: a.Path, Err: unix.EISDIR}
	}
	parent, base := parentOf(p)
	dir, _, err := root.Open(parent)
	if err != nil {
		return at(err, a.Path)
	}
	defer dir.Close()
	tmp := ".tmp-" + rand.Text()
	f, err := dir.Create(tmp, 0o600)
	if err != nil {
		return at(err, a.Path)
	}
	err = func() error {
		defer f.Close()
		if _, err := f.Write(a.Data); err != nil {
			return err
		}
		if own != nil {
			if err := f.Chown(own.uid, own.gid); err != nil {
				return err
			}
		}
		if err := f.Chmod(uint32(a.Mode) & 0o777); err != nil {
			return err
		}
		if t := whenOf(a.Timestamp); t.set {
			return f.Chtimes(t.at, t.at)
		}
		return nil
	}()
	if err == nil {
		err = dir.Rename(tmp, dir, base)
	}
	if err != nil {
		_ = dir.Unlink(tmp)
		return at(err, a.Path)
	}
	return nil
}

// symlink makes a symbolic link; the place must be free.
func symlink(root *tree.Dir, a *pb.FileActionSymlink, own *owner) error {
	p, err := resolve(root, a.Newpath, true)
	if err != nil {
		return err
	}
	parent, base := parentOf(p)
	if base == "" {
		return &fs.PathError{Op: "symlink", Path: a.Newpath, Err: unix.EEXIST}
	}
	dir, _, err := root.Open(parent)
	if err != nil {
		return at(err, a.Newpath)
	}
	defer dir.Close()
	if err := dir.Symlink(a.Oldpath, base); err != nil {
		return at(err, a.Newpath)
	}
	return at(finish(dir, base, own, whenOf(a.Timestamp)), a.Newpath)
}

// rm removes a path and what is below it, or everything that a pattern matches.
func rm(root *tree.Dir, a *pb.FileActionRm) error {
	paths := []string{a.Path}
	if a.AllowWildcard {
		var err error
		if paths, err = glob(root, clean(a.Path), false); err != nil {
			return err
		}
	}
	for _, p := range paths {
		if err := rmOne(root, p, a.AllowNotFound); err != nil {
			return err
		}
	}
	return nil
}

// rmOne removes one path: a link at its end itself, links on the way are followed.
func rmOne(root *tree.Dir, p string, allowNotFound bool) error {
	full := path.Join("/", p)
	if full == "/" {
		return fault.New(fault.Invalid, "cannot remove %q: it is the root of the file system", p)
	}
	parent, base := path.Split(full)
	parent, err := resolve(root, parent, true)
	if err != nil {
		if allowNotFound && tree.NotDir(err) {
			return nil
		}
		return err
	}
	dir, _, err := root.Open(parent)
	if err != nil {
		if allowNotFound && (tree.Missing(err) || tree.NotDir(err)) {
			return nil
		}
		return at(err, p)
	}
	defer dir.Close()
	if !allowNotFound {
		if _, err := dir.Stat(base); err != nil {
			return at(err, p)
		}
	}
	return at(dir.RemoveAll(base), p)
}

// at makes an error of a system call name the path as the build knows it.
func at(err error, p string) error {
	pe, ok := err.(*fs.PathError)
	if !ok {
		return err
	}
	return &fs.PathError{Op: pe.Op, Path: path.Join("/", p), Err: pe.Err}
}
