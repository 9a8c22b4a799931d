// Package mergedroot reads single small files from a container's root file system without mounting it: it looks through the
// overlay's directories itself, topmost first, with overlayfs's rules for whiteouts, opaque directories and links.
//
// Everything under those directories is hostile. Names are resolved one component at a time through os.Root, symbolic links are
// followed by this package inside the merged view only, and devices, pipes and sockets are never opened. The view is a reading at
// one moment; a running container may change it meanwhile, which may give an error or old content, never a file outside.
package mergedroot

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// maxLinks bounds the symbolic links followed for one name, as in path_resolution(7).
const maxLinks = 40

// Root is an opened merged view.
type Root struct {
	layers []*os.Root // topmost first
}

// Open opens the view of upper over lowers (topmost first). An upper "" or one that does not exist is left out.
func Open(upper string, lowers []string) (*Root, error) {
	r := &Root{}
	if upper != "" {
		if l, err := os.OpenRoot(upper); err == nil {
			r.layers = append(r.layers, l)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, fault.Wrap(fault.Internal, err, "opening the writable layer")
		}
	}
	for _, dir := range lowers {
		l, err := os.OpenRoot(dir)
		if err != nil {
			r.Close()
			return nil, fault.Wrap(fault.Internal, err, "opening an image layer")
		}
		r.layers = append(r.layers, l)
	}
	return r, nil
}

// Close releases the directories.
func (r *Root) Close() {
	for _, l := range r.layers {
		l.Close()
	}
}

// ReadFile gives the content of a regular file, at most max bytes of it. errors.Is(err, fs.ErrNotExist) tells that there is none.
func (r *Root) ReadFile(name string, max int64) ([]byte, error) {
	e, err := r.resolve(name)
	if err != nil {
		return nil, err
	}
	if !e.info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("not a regular file")}
	}
	// O_NONBLOCK and O_NOFOLLOW: the entry may have been swapped for a pipe or link since.
	f, err := r.layers[e.layer].OpenFile(e.path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("changed while it was opened")}
	}
	return io.ReadAll(io.LimitReader(f, max))
}

// Stat gives what name is after links were followed.
func (r *Root) Stat(name string) (fs.FileInfo, error) {
	e, err := r.resolve(name)
	if err != nil {
		return nil, err
	}
	return e.info, nil
}

// entry is a name found: its topmost layer, and for directories all layers that take part in it.
type entry struct {
	path  string // relative to the layers' roots, no links in it; "." for the root
	layer int
	also  []int // layers of a merged directory, topmost first, layer included
	info  fs.FileInfo
}

// Follow gives the path that name means once its links are followed, also where nothing is: names from the first missing one on are taken as they
// are written.
func (r *Root) Follow(name string) (string, error) {
	e, missing, err := r.walk(name)
	if err != nil {
		return "", err
	}
	return path.Join("/", e.path, path.Join(missing...)), nil
}

func (r *Root) resolve(name string) (entry, error) {
	e, missing, err := r.walk(name)
	if err == nil && len(missing) > 0 {
		err = &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return e, err
}

// walk follows name as far as there is something. missing are the names that are left then.
func (r *Root) walk(name string) (e entry, missing []string, err error) {
	root, err := r.rootEntry()
	if err != nil {
		return entry{}, nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	trail := []entry{root} // the directories from the root to here
	todo := strings.Split(path.Clean("/"+name), "/")
	for links := 0; len(todo) > 0; {
		word := todo[0]
		todo = todo[1:]
		here := trail[len(trail)-1]
		switch word {
		case "", ".":
			continue
		case "..":
			if len(trail) > 1 {
				trail = trail[:len(trail)-1]
			}
			continue
		}
		if !here.info.IsDir() {
			return entry{}, nil, &fs.PathError{Op: "open", Path: name, Err: syscall.ENOTDIR}
		}
		next, ok := r.child(here, word)
		if !ok {
			return here, append([]string{word}, todo...), nil
		}
		if next.info.Mode()&fs.ModeSymlink == 0 {
			trail = append(trail, next)
			continue
		}
		if links++; links > maxLinks {
			return entry{}, nil, &fs.PathError{Op: "open", Path: name, Err: syscall.ELOOP}
		}
		target, err := r.layers[next.layer].Readlink(next.path)
		if err != nil {
			return entry{}, nil, err
		}
		if strings.HasPrefix(target, "/") {
			trail = trail[:1]
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return trail[len(trail)-1], nil, nil
}

func (r *Root) rootEntry() (entry, error) {
	e := entry{path: "."}
	for i, l := range r.layers {
		info, err := l.Lstat(".")
		if err != nil {
			return e, err
		}
		if e.info == nil {
			e.info = info
		}
		e.also = append(e.also, i)
	}
	if e.info == nil {
		return e, fs.ErrNotExist
	}
	return e, nil
}

// child looks word up in the layers of the directory here.
func (r *Root) child(here entry, word string) (entry, bool) {
	e := entry{path: path.Join(here.path, word)}
	for _, i := range here.also {
		info, err := r.layers[i].Lstat(e.path)
		if err != nil {
			continue
		}
		if whiteout(info) {
			break
		}
		if e.info == nil {
			e.info, e.layer = info, i
			if !info.IsDir() {
				return e, true
			}
		} else if !info.IsDir() {
			break // a file beneath a directory ends the merge
		}
		e.also = append(e.also, i)
		if r.opaque(i, e.path) {
			break
		}
	}
	return e, e.info != nil
}

// whiteout: a character device 0/0 says that the name was deleted.
func whiteout(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode()&fs.ModeCharDevice != 0 && st.Rdev == 0
}

// opaque: the directory hides those beneath it. overlayfs writes the mark in trusted.*, in user.* when mounted by a user.
func (r *Root) opaque(layer int, name string) bool {
	f, err := r.layers[layer].Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	var b [2]byte
	for _, attr := range []string{"trusted.overlay.opaque", "user.overlay.opaque"} {
		if n, err := unix.Fgetxattr(int(f.Fd()), attr, b[:]); err == nil && n == 1 && b[0] == 'y' {
			return true
		}
	}
	return false
}
