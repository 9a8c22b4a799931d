package frontend

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/patternmatcher"
	fstypes "github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"

	"berth/kernel/tree"
)

const (
	// maxRead bounds a file that a frontend reads in one piece: what fits into one message of gRPC.
	maxRead = 16 << 20
	// maxLinks bounds the symbolic links on the way to a file, as the kernel's ELOOP.
	maxLinks = 255
)

// readFile gives a file of a result, or a part of it. Errors name the path that was asked for.
func readFile(root *tree.Dir, name string, part *gwclient.FileRange) ([]byte, error) {
	rel, _, err := realPath(root, name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	f, err := root.OpenFile(rel)
	if errors.Is(err, unix.EINVAL) {
		err = errNotRegular
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: cause(err)}
	}
	defer f.Close()
	var r io.Reader = f
	limit := int64(maxRead) + 1
	if part != nil {
		if part.Offset < 0 || part.Length < 0 {
			return nil, fmt.Errorf("invalid range for %s", name)
		}
		if _, err := f.Seek(int64(part.Offset), io.SeekStart); err != nil {
			return nil, &fs.PathError{Op: "read", Path: name, Err: cause(err)}
		}
		limit = min(limit, int64(part.Length))
	}
	data, err := io.ReadAll(io.LimitReader(r, limit))
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: cause(err)}
	}
	if len(data) > maxRead && (part == nil || part.Length > maxRead+1) {
		return nil, fmt.Errorf("%s exceeds maximum allowed size of %d bytes", name, maxRead)
	}
	return data, nil
}

// errNotRegular is why a device or a fifo is not read.
var errNotRegular = errors.New("not a regular file")

// statFile describes a file of a result; links are followed.
func statFile(root *tree.Dir, name string) (*fstypes.Stat, error) {
	rel, _, err := realPath(root, name)
	if err != nil {
		return nil, &fs.PathError{Op: "lstat", Path: name, Err: err}
	}
	dir, base := path.Split(rel)
	parent, _, err := root.Open(dir)
	if err != nil {
		return nil, &fs.PathError{Op: "lstat", Path: name, Err: cause(err)}
	}
	defer parent.Close()
	st, err := describe(parent, base)
	if err != nil {
		return nil, &fs.PathError{Op: "lstat", Path: name, Err: cause(err)}
	}
	st.Path = path.Base("/" + rel)
	return st, nil
}

// readDir describes what a directory of a result holds, by name; pattern, where there is one, is matched as in .dockerignore.
func readDir(root *tree.Dir, name, pattern string) ([]*fstypes.Stat, error) {
	rel, _, err := realPath(root, name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	dir, _, err := root.Open(rel)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: cause(err)}
	}
	defer dir.Close()
	names, err := dir.Names()
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: cause(err)}
	}
	slices.Sort(names)
	var match *patternmatcher.PatternMatcher
	if pattern != "" {
		if match, err = patternmatcher.New([]string{pattern}); err != nil {
			return nil, fmt.Errorf("invalid includepatterns: %s: %w", pattern, err)
		}
	}
	var found []*fstypes.Stat
	for _, n := range names {
		if match != nil {
			if ok, err := match.MatchesOrParentMatches(n); err != nil || !ok {
				continue
			}
		}
		st, err := describe(dir, n)
		if err != nil {
			return nil, &fs.PathError{Op: "lstat", Path: path.Join(name, n), Err: cause(err)}
		}
		found = append(found, st)
	}
	return found, nil
}

// describe gives the entry name of dir in the form of the wire; "" is dir itself.
func describe(dir *tree.Dir, name string) (*fstypes.Stat, error) {
	s, err := dir.Stat(name)
	if err != nil {
		return nil, err
	}
	st := &fstypes.Stat{
		Path: name, Mode: uint32(tree.FileMode(s.Mode)), Uid: s.UID, Gid: s.GID,
		ModTime: time.Unix(s.Mtime.Sec, s.Mtime.Nsec).UnixNano(),
	}
	if !s.IsDir() {
		st.Size = s.Size
	}
	switch s.Type() {
	case tree.TypeSymlink:
		st.Linkname, err = dir.Readlink(name)
		return st, err
	case tree.TypeChar, tree.TypeBlock:
		st.Devmajor, st.Devminor = int64(s.Major), int64(s.Minor)
		return st, nil
	}
	attrs, err := dir.Xattrs(name)
	if err != nil {
		return st, nil // a file system without attributes
	}
	for _, a := range attrs {
		if strings.HasPrefix(a, "trusted.overlay.") || strings.HasPrefix(a, "user.overlay.") {
			continue // of the mount, not of the image
		}
		if v, ok, err := dir.Xattr(name, a); err == nil && ok {
			if st.Xattrs == nil {
				st.Xattrs = map[string][]byte{}
			}
			st.Xattrs[a] = v
		}
	}
	return st, nil
}

// realPath follows the links of name with root as the root, the last one too. It gives the path below root, "" for
// root itself. A last element that is not there is ENOENT.
func realPath(root *tree.Dir, name string) (rel string, st tree.Stat, err error) {
	rest := strings.Split(path.Clean("/" + name)[1:], "/")
	links := 0
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			if rel = path.Dir(rel); rel == "." {
				rel = ""
			}
			continue
		}
		next := path.Join(rel, part)
		s, found, err := root.Lookup(next)
		if err != nil {
			return "", st, cause(err)
		}
		if !found {
			return "", st, unix.ENOENT
		}
		if s.Type() != tree.TypeSymlink {
			rel = next
			continue
		}
		if links++; links > maxLinks {
			return "", st, unix.ELOOP
		}
		target, err := readlink(root, rel, part)
		if err != nil {
			return "", st, cause(err)
		}
		if strings.HasPrefix(target, "/") {
			rel = ""
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	if rel == "" {
		st, err = root.Stat("")
		return "", st, err
	}
	st, found, err := root.Lookup(rel)
	if err == nil && !found {
		err = unix.ENOENT
	}
	return rel, st, err
}

func readlink(root *tree.Dir, dir, name string) (string, error) {
	d, _, err := root.Open(dir)
	if err != nil {
		return "", err
	}
	defer d.Close()
	return d.Readlink(name)
}

// cause takes the system's errno out of an error that names a path of our own.
func cause(err error) error {
	if pe, ok := err.(*fs.PathError); ok {
		return pe.Err
	}
	return err
}
