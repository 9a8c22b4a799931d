package tree

import (
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// maxFollow is how many symbolic links a path may lead through, the kernel's own number (path_resolution(7)).
const maxFollow = 40

// Follow gives the path that p means below d once its links are followed, as seen from d ("/a/b", "/" for d itself), also where nothing is: names
// from the first missing one on are taken as they are written. Links are followed as if d were the root of the file system. Who changes the tree
// meanwhile changes the answer; it never leads out of d.
func (d *Dir) Follow(p string) (string, error) {
	done, todo := "/", split(p)
	for links := 0; len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		if name == ".." {
			done = path.Dir(done)
			continue
		}
		at := path.Join(done, name)
		st, found, err := d.Lookup(strings.TrimPrefix(at, "/"))
		if err != nil {
			return "", err
		}
		if !found || st.Type() != TypeSymlink {
			done = at
			continue
		}
		if links++; links > maxFollow {
			return "", wrap("follow", p, unix.ELOOP)
		}
		in, _, err := d.Open(strings.TrimPrefix(done, "/"))
		if err != nil {
			return "", err
		}
		target, err := in.Readlink(name)
		in.Close()
		if err != nil {
			return "", err
		}
		if path.IsAbs(target) {
			done = "/"
		}
		todo = append(split(target), todo...)
	}
	return done, nil
}

// split gives the names of a path that mean something.
func split(p string) (names []string) {
	for name := range strings.SplitSeq(p, "/") {
		if name != "" && name != "." {
			names = append(names, name)
		}
	}
	return names
}
