package snapshot

import (
	"context"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"berth/kernel/tree"
)

// Point is a place that something will be mounted on.
type Point struct {
	Path string // in the tree; links in it are followed inside the tree
	File bool   // a file is mounted, not a directory
}

const linkMax = 40 // links followed for one path, as the kernel does

// stubs makes the mount points that the base has not, in a directory of their own, and gives it; "" when there are none. The
// directories on the way to them look as they do in the base, which they hide.
func (d *Draft) stubs(ctx context.Context, points []Point) (string, error) {
	if len(points) == 0 {
		return "", nil
	}
	root, err := d.viewed(ctx)
	if err != nil {
		return "", err
	}
	missing := map[string]bool{} // path to whether it is a file
	for _, p := range points {
		at, there, err := locate(root, p.Path)
		if err != nil {
			return "", err
		}
		if !there && at != "" {
			missing[at] = p.File
		}
	}
	if len(missing) == 0 {
		return "", nil
	}
	dir := d.ld.Stubs()
	if err := os.RemoveAll(dir); err != nil { // of an earlier mount
		return "", err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	return dir, makeStubs(root, dir, missing)
}

// locate resolves a path inside a tree as the kernel would with the tree as its root. A path of which a part is missing is given with
// what is missing at its end.
func locate(root *tree.Dir, name string) (at string, there bool, err error) {
	rest := strings.Split(strings.Trim(name, "/"), "/")
	for links := 0; len(rest) > 0; {
		next := rest[0]
		rest = rest[1:]
		switch next {
		case "", ".":
			continue
		case "..":
			at = parentOf(at)
			continue
		}
		st, found, err := root.Lookup(joinPath(at, next))
		if err != nil {
			return "", false, err
		}
		if !found {
			return parentClean(at, append([]string{next}, rest...)), false, nil
		}
		if st.Type() != tree.TypeSymlink {
			at = joinPath(at, next)
			continue
		}
		if links++; links > linkMax {
			return "", true, nil // whoever mounts there says what is wrong
		}
		target, err := readlink(root, at, next)
		if err != nil {
			return "", false, err
		}
		if strings.HasPrefix(target, "/") {
			at = ""
		}
		rest = append(strings.Split(strings.Trim(target, "/"), "/"), rest...)
	}
	return at, true, nil
}

func readlink(root *tree.Dir, dir, base string) (string, error) {
	d, _, err := root.Open(dir)
	if err != nil {
		return "", err
	}
	defer d.Close()
	return d.Readlink(base)
}

// parentClean joins what is missing to what is there; ".." stays inside.
func parentClean(at string, rest []string) string {
	return strings.TrimPrefix(path.Clean("/"+at+"/"+strings.Join(rest, "/")), "/")
}

func parentOf(p string) string {
	i := strings.LastIndexByte(p, '/')
	if i < 0 {
		return ""
	}
	return p[:i]
}

func joinPath(dir, base string) string {
	if dir == "" {
		return base
	}
	return dir + "/" + base
}

// makeStubs makes paths below dir, with directories that look like those of root.
func makeStubs(root *tree.Dir, dir string, missing map[string]bool) error {
	top, err := tree.OpenDir(dir)
	if err != nil {
		return err
	}
	defer top.Close()
	if err := top.Chmod("", 0o755); err != nil { // whatever the umask
		return err
	}
	made := []string{}
	for name, file := range missing {
		for i := 0; i <= len(name); i++ {
			if i < len(name) && name[i] != '/' {
				continue
			}
			part := name[:i]
			if i == len(name) && file {
				err = os.WriteFile(filepath.Join(dir, part), nil, 0o644)
			} else if err = os.Mkdir(filepath.Join(dir, part), 0o755); err == nil {
				made = append(made, part)
			}
			if err != nil && !os.IsExist(err) {
				return err
			}
		}
	}
	slices.Sort(made)
	slices.Reverse(made) // times of a directory after what is made in it
	for _, name := range made {
		if err := likeBase(root, top, name); err != nil {
			return err
		}
	}
	return nil
}

// likeBase gives a directory the looks of the one in root, if there is one.
func likeBase(root, top *tree.Dir, name string) error {
	d, _, err := top.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	st, found, err := root.Lookup(name)
	if err != nil {
		return err
	}
	if !found {
		return d.Chmod("", 0o755)
	}
	if err := d.Chown("", int(st.UID), int(st.GID)); err != nil {
		return err
	}
	if err := d.Chmod("", st.Mode&tree.PermMask); err != nil {
		return err
	}
	return d.Chtimes("", st.Atime, st.Mtime)
}
