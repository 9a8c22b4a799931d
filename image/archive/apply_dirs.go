package archive

import (
	"path"
	"strings"

	"berth/base/fault"
	"berth/kernel/tree"
)

const (
	dirCacheMax = 64 // open directories kept between entries
	linkMax     = 40 // links followed for one path, as the kernel does
	impliedMax  = 1000
)

// openDir is a directory of the tree that was opened safely.
type openDir struct {
	*tree.Dir
	real string // path below the root, free of links
}

// parent gives the directory that an entry's path lies in, making what is missing.
func (a *applier) parent(name string) (*openDir, error) { return a.open(name, true, 0) }

// existing gives a directory that must be there.
func (a *applier) existing(name string) (*openDir, error) { return a.open(name, false, 0) }

func (a *applier) open(name string, create bool, links int) (*openDir, error) {
	if d, ok := a.dirs[name]; ok {
		return d, nil
	}
	sub, linked, err := a.root.Open(name)
	switch {
	case create && (tree.Missing(err) || tree.NotDir(err)):
		return a.imply(name, links)
	case err != nil:
		return nil, err
	}
	d := &openDir{Dir: sub, real: name}
	if linked {
		if d.real, err = sub.Real(a.root); err != nil {
			sub.Close()
			return nil, err
		}
	}
	a.remember(name, d)
	return d, nil
}

// imply makes the missing directories of a path.
func (a *applier) imply(name string, links int) (*openDir, error) {
	dirName, base := splitName(name)
	dir := &openDir{Dir: a.root}
	if dirName != "" {
		var err error
		if dir, err = a.open(dirName, true, links); err != nil {
			return nil, err
		}
	}
	real := join(dir.real, base)
	err := dir.Mkdir(base, 0o755)
	if tree.Exists(err) {
		st, serr := dir.Stat(base)
		switch {
		case serr != nil:
			return nil, serr
		case st.Type() == tree.TypeSymlink:
			return a.implyTarget(dir, base, links)
		case !st.IsWhiteout() || a.marks[real]&marked == 0:
			return nil, fault.New(fault.Invalid, "%q is no directory", real)
		}
		// Deleted below by this archive, and now something in it: a directory that hides the one below.
		if err = dir.Unlink(base); err == nil {
			err = dir.Mkdir(base, 0o755)
		}
	}
	if err != nil {
		return nil, err
	}
	sub, err := dir.Sub(base)
	if err != nil {
		return nil, err
	}
	d := &openDir{Dir: sub, real: real}
	a.remember(name, d)
	return d, a.implied(d)
}

// implied gives a directory that has no entry its looks: root's, and open to all, as other engines have it.
func (a *applier) implied(d *openDir) error {
	if len(a.done.Implied) < impliedMax {
		a.done.Implied = append(a.done.Implied, d.real)
	}
	if a.o.Created != nil {
		a.o.Created(d.real)
	}
	if a.o.Owner != nil {
		uid, gid := a.o.Owner(0, 0)
		if err := d.Chown("", int(uid), int(gid)); err != nil {
			return err
		}
	}
	if err := d.Chmod("", 0o755); err != nil { // whatever the umask
		return err
	}
	if a.marks[d.real]&marked != 0 {
		return a.makeOpaque(d.Dir, d.real)
	}
	return nil
}

// implyTarget makes the directory that a link stands for: it leads nowhere here, but may do so together with a
// layer below.
func (a *applier) implyTarget(dir *openDir, base string, links int) (*openDir, error) {
	if links >= linkMax {
		return nil, fault.New(fault.Invalid, "too many symbolic links at %q", join(dir.real, base))
	}
	target, err := dir.Readlink(base)
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(target, "/") {
		target = join(dir.real, target)
	}
	clean, err := cleanName(path.Clean("/" + target)) // `..` stays at the root, as it does for the kernel
	if err != nil {
		return nil, err
	}
	return a.open(clean, true, links+1)
}

// remember keeps a directory open for the entries that follow.
func (a *applier) remember(name string, d *openDir) {
	if old := a.dirs[name]; old != nil {
		old.Close()
	}
	a.dirs[name] = d
}

func (a *applier) closeDirs() {
	for _, d := range a.dirs {
		if d.Dir != a.root {
			d.Close()
		}
	}
	clear(a.dirs)
}
