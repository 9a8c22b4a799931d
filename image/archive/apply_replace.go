package archive

import (
	"strconv"
	"strings"

	"berth/base/fault"
	"berth/image/archive/tarstream"
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
	size, err := sizeOf(e.dir.Dir, e.base, st)
	if err != nil {
		return err
	}
	a.done.Size -= size
	keep := a.o.Shadows != nil && (st.IsDir() || st.Type() == tree.TypeRegular)
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

// sizeOf measures what is about to be taken away. A file with another name stays counted.
func sizeOf(dir *tree.Dir, name string, st *tree.Stat) (int64, error) {
	if !st.IsDir() {
		if st.Nlink > 1 {
			return 0, nil
		}
		return st.Size, nil
	}
	sub, err := dir.Sub(name)
	if err != nil {
		return 0, err
	}
	defer sub.Close()
	names, err := sub.Names()
	if err != nil {
		return 0, err
	}
	var total int64
	for _, n := range names {
		st, err := sub.Stat(n)
		if err != nil {
			return 0, err
		}
		size, err := sizeOf(sub, n, &st)
		if err != nil {
			return 0, err
		}
		total += size
	}
	return total, nil
}
