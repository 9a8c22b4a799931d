package archive

import (
	"strconv"
	"strings"

	"berth/base/fault"
	"berth/base/tarstream"
	"berth/kernel/tree"
)

// fresh makes a name that must be new; what stands there is replaced.
func (a *applier) fresh(e *making, mk func() error) error {
	err := mk()
	if !tree.Exists(err) {
		return err
	}
	st, err := e.dir.Stat(e.base)
	if err != nil {
		return err
	}
	if err := a.replace(e, &st); err != nil {
		return err
	}
	return mk()
}

// replace takes what stands at an entry's name away: into the shadows when the archive is to be rebuilt, as the
// content of earlier entries may be in it.
func (a *applier) replace(e *making, st *tree.Stat) error {
	if a.o.KeepKinds && st.IsDir() != (e.h.Type == tarstream.Directory) {
		if st.IsDir() {
			return fault.New(fault.Invalid, "cannot overwrite directory %q with non-directory %q", "/"+e.real, e.h.Name)
		}
		return fault.New(fault.Invalid, "cannot overwrite non-directory %q with directory %q", "/"+e.real, e.h.Name)
	}
	if st.IsDir() || st.Type() == tree.TypeSymlink {
		// Paths through it mean something else from now on; the parent is closed with the others.
		a.closeDirs()
		dirPath, _ := splitName(e.real)
		dir, err := a.parent(dirPath)
		if err != nil {
			return err
		}
		e.dir = dir
		for p := range a.marks {
			if p == e.real || strings.HasPrefix(p, e.real+"/") {
				delete(a.marks, p)
			}
		}
	}
	keep := a.o.Shadows != nil && (st.IsDir() || st.Type() == tree.TypeRegular)
	if err := a.discount(e.dir.Dir, e.base, st, keep); err != nil {
		return err
	}
	if !keep {
		return e.dir.RemoveAll(e.base)
	}
	n := a.shadowed
	a.shadowed++
	if err := e.dir.Rename(e.base, a.o.Shadows, strconv.Itoa(n)); err != nil {
		return err
	}
	a.done.Shadows = append(a.done.Shadows, Shadow{Path: e.real, Before: a.position, N: n})
	return nil
}

// discount takes what is about to be removed off the size. A file that keeps a name in the tree stays counted.
func (a *applier) discount(dir *tree.Dir, name string, st *tree.Stat, keep bool) error {
	files := map[uint64]*removing{}
	if err := collect(dir, name, st, files); err != nil {
		return err
	}
	for ino, f := range files {
		if f.names+a.hidden[ino] >= f.st.Nlink {
			a.done.Size -= f.st.Size
		}
		if keep {
			a.hidden[ino] += f.names
		}
	}
	return nil
}

// removing is a file with the number of its names that are being removed.
type removing struct {
	st    tree.Stat
	names uint64
}

// collect counts the names of each file at and below a name.
func collect(dir *tree.Dir, name string, st *tree.Stat, files map[uint64]*removing) error {
	if !st.IsDir() {
		f := files[st.Ino]
		if f == nil {
			f = &removing{st: *st}
			files[st.Ino] = f
		}
		f.names++
		return nil
	}
	sub, err := dir.Sub(name)
	if err != nil {
		return err
	}
	defer sub.Close()
	names, err := sub.Names()
	if err != nil {
		return err
	}
	for _, n := range names {
		st, err := sub.Stat(n)
		if err != nil {
			return err
		}
		if err := collect(sub, n, &st, files); err != nil {
			return err
		}
	}
	return nil
}
