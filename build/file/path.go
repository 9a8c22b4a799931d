package file

import (
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"berth/kernel/tree"
)

// maxLinks is how many symbolic links one path may lead through: 40 is the kernel's own number, BuildKit's is 255.
const maxLinks = 255

// maxPath bounds a path in a tree, as PATH_MAX does for whoever goes by paths; it bounds how deep a copy may go as well.
const maxPath = 4096

// resolve gives the path that p means in root, without links, relative to root ("" is root itself). Links are followed as if root were
// the file system's root, the last one only with follow. Names that do not exist are taken as they are
// written, because a copy may be about to make them.
func resolve(root *tree.Dir, p string, follow bool) (string, error) {
	todo := split(p)
	var done []string
	links := 0
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		if name == ".." {
			done = done[:max(0, len(done)-1)]
			continue
		}
		at := strings.Join(append(done, name), "/")
		if len(at) > maxPath {
			return "", &fs.PathError{Op: "lookup", Path: "/" + p, Err: unix.ENAMETOOLONG}
		}
		target, linked, found, err := link(root, done, name)
		if err != nil {
			return "", err
		}
		if !found || !linked || (len(todo) == 0 && !follow) { // what is missing may be left again by "..", so it goes on
			done = append(done, name)
			continue
		}
		if links++; links > maxLinks {
			return "", &fs.PathError{Op: "lookup", Path: "/" + p, Err: unix.ELOOP}
		}
		if path.IsAbs(target) {
			done = done[:0]
		}
		todo = append(split(target), todo...)
	}
	return strings.Join(done, "/"), nil
}

// link looks at name in the directory dir, a resolved path.
func link(root *tree.Dir, dir []string, name string) (target string, linked, found bool, err error) {
	at := strings.Join(append(dir[:len(dir):len(dir)], name), "/")
	st, found, err := root.Lookup(at)
	if err != nil {
		return "", false, false, err
	}
	if !found {
		// Lookup does not tell a missing name from one behind a file; nothing can be made behind a file.
		parent, ok, err := root.Lookup(strings.Join(dir, "/"))
		if err == nil && ok && !parent.IsDir() {
			err = &fs.PathError{Op: "lookup", Path: "/" + at, Err: unix.ENOTDIR}
		}
		return "", false, false, err
	}
	if st.Type() != tree.TypeSymlink {
		return "", false, true, nil
	}
	in, _, err := root.Open(strings.Join(dir, "/"))
	if err != nil {
		return "", false, false, err
	}
	defer in.Close()
	target, err = in.Readlink(name)
	return target, true, true, err
}

// split gives the names of a path that mean something; "." and empty ones do not.
func split(p string) []string {
	var names []string
	for name := range strings.SplitSeq(p, "/") {
		if name != "" && name != "." {
			names = append(names, name)
		}
	}
	return names
}

// parentOf cuts a resolved path into its directory and its last name.
func parentOf(p string) (dir, base string) {
	if i := strings.LastIndexByte(p, '/'); i >= 0 {
		return p[:i], p[i+1:]
	}
	return "", p
}

// clean makes p absolute and simple, but keeps what a copy reads from its end: "/" and "/.".
func clean(p string) string {
	c := path.Join("/", p)
	switch {
	case strings.HasSuffix(p, "/."):
		if c != "/" {
			c += "/"
		}
		return c + "."
	case strings.HasSuffix(p, "/") && c != "/":
		return c + "/"
	}
	return c
}

// hasWildcard reports whether a name holds an unescaped character of filepath.Match's.
func hasWildcard(name string) bool {
	for i := 0; i < len(name); i++ {
		switch name[i] {
		case '\\':
			i++
		case '*', '?', '[':
			return true
		}
	}
	return false
}

// glob gives the paths in root that match pattern, sorted. A pattern without wildcards is its own match, whether it is there or not.
// Links among the names before the first wildcard are followed, the last of them only with follow; none behind it.
func glob(root *tree.Dir, pattern string, follow bool) ([]string, error) {
	names := split(path.Join("/", pattern))
	n := 0
	for n < len(names) && !hasWildcard(names[n]) {
		n++
	}
	if n == len(names) {
		return []string{path.Join("/", pattern)}, nil
	}
	start, err := resolve(root, path.Join(names[:n]...), follow)
	if err != nil {
		return nil, err
	}
	st, found, err := root.Lookup(start)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, &fs.PathError{Op: "lstat", Path: "/" + start, Err: unix.ENOENT}
	}
	if !st.IsDir() {
		return nil, nil
	}
	dir, _, err := root.Open(start)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return globIn(&tree.Descent{}, dir, start, names[n:], nil)
}

// globIn adds the matches of names below dir, whose path is at.
func globIn(down *tree.Descent, dir *tree.Dir, at string, names, matches []string) ([]string, error) {
	entries, err := dir.Entries()
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if ok, err := filepath.Match(names[0], e.Name); err != nil || !ok {
			continue // a malformed pattern matches nothing, as in BuildKit
		}
		p := path.Join(at, e.Name)
		if len(names) == 1 {
			matches = append(matches, p)
			continue
		}
		sub, err := down.Enter(dir, e.Name)
		if tree.NotDir(err) || tree.Impossible(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if matches, err = globIn(down, sub, p, names[1:], matches); err != nil {
			sub.Close()
			return nil, err
		}
		if err := down.Leave(sub); err != nil {
			return nil, err
		}
	}
	return matches, nil
}
