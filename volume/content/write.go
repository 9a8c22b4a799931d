package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"berth/base/fault"
	"berth/base/tarstream"
	"berth/kernel/tree"
)

// maxFragments is how many stretches of data a file may have and still be written with its holes.
const maxFragments = 1 << 18

// Write writes root and all that is in it as an archive. The order is that of sorted names, so equal trees give equal archives. A tree in
// use is written as it is met: a file that shrinks meanwhile is filled up with zeros, one that grows is cut.
func Write(ctx context.Context, root *tree.Dir, w io.Writer) error {
	sum := newDigest()
	t := &writer{ctx: ctx, tar: tarWriter{w: w}, sum: sum, links: map[inode]string{}, buf: make([]byte, 256<<10)}
	if err := t.tar.comment(commentStart); err != nil {
		return err
	}
	st, err := root.Stat("")
	if err != nil {
		return err
	}
	if err := t.put(root, "", ".", &st, &tarstream.Header{Type: tarstream.Directory}); err != nil {
		return err
	}
	if err := t.children(root, ""); err != nil {
		return err
	}
	if err := t.tar.comment(fmt.Sprintf("%s end %d %s", commentStart, sum.entries, sum.sum())); err != nil {
		return err
	}
	return t.tar.end()
}

type writer struct {
	ctx   context.Context
	tar   tarWriter
	sum   *digest
	links map[inode]string // first name of files with several
	buf   []byte
}

func (t *writer) children(dir *tree.Dir, path string) error {
	names, err := dir.Names()
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, n := range names {
		if err := t.ctx.Err(); err != nil {
			return err
		}
		st, err := dir.Stat(n)
		if err == nil {
			err = t.entry(dir, n, join(path, n), &st)
		}
		if err != nil && !tree.Missing(err) { // gone since it was listed
			return fault.At(err, "archive %q", join(path, n))
		}
	}
	return nil
}

func (t *writer) entry(dir *tree.Dir, name, path string, st *tree.Stat) error {
	h := &tarstream.Header{}
	id := inode{st.Dev, st.Ino}
	if first, ok := t.links[id]; ok && st.Nlink > 1 && !st.IsDir() {
		h.Type, h.Linkname = tarstream.HardLink, "./"+first
		return t.put(dir, name, "./"+path, st, h)
	}
	switch st.Type() {
	case tree.TypeSocket:
		return nil
	case tree.TypeDir:
		if err := checkDepth(path); err != nil {
			return err
		}
		sub, err := dir.Sub(name)
		if err != nil {
			return err
		}
		defer sub.Close()
		h.Type = tarstream.Directory
		if err := t.put(sub, "", "./"+path, st, h); err != nil {
			return err
		}
		return t.children(sub, path)
	case tree.TypeSymlink:
		target, err := dir.Readlink(name)
		if err != nil {
			return err
		}
		h.Type, h.Linkname = tarstream.Symlink, target
	case tree.TypeRegular:
		if err := t.file(dir, name, path, st); err != nil {
			return err
		}
	case tree.TypeFifo:
		h.Type = tarstream.Fifo
	case tree.TypeChar:
		h.Type, h.Major, h.Minor = tarstream.Char, int64(st.Major), int64(st.Minor)
	case tree.TypeBlock:
		h.Type, h.Major, h.Minor = tarstream.Block, int64(st.Major), int64(st.Minor)
	}
	if h.Type != 0 {
		if err := t.put(dir, name, "./"+path, st, h); err != nil {
			return err
		}
	}
	if st.Nlink > 1 {
		t.links[id] = path
	}
	return nil
}

// put writes the header of name in dir ("" is dir itself), which is called path in the archive.
func (t *writer) put(dir *tree.Dir, name, path string, st *tree.Stat, h *tarstream.Header) error {
	h.Name = path
	if h.Type == tarstream.Directory {
		h.Name += "/"
	}
	h.Mode, h.UID, h.GID = int64(st.Mode&tree.PermMask), int64(st.UID), int64(st.GID)
	h.ModTime, h.Access = tarstream.Time(st.Mtime), tarstream.Time(st.Atime)
	var attrs []attribute
	if h.Type != tarstream.Symlink && h.Type != tarstream.HardLink {
		var err error
		if attrs, err = attributes(dir, name); err != nil {
			return err
		}
	}
	t.sum.entry(h, attrs)
	return t.tar.entry(h, attrs)
}

// file writes a regular file, without its holes where it has some.
func (t *writer) file(dir *tree.Dir, name, path string, st *tree.Stat) error {
	f, err := dir.OpenFile(name)
	if err != nil {
		return err
	}
	defer f.Close()
	open, err := f.Stat()
	if err != nil {
		return err
	}
	open.Atime = st.Atime // before we read it
	h := &tarstream.Header{Type: tarstream.Regular, Size: open.Size}
	stretches := []tarstream.Fragment{{Offset: 0, Length: open.Size}}
	if open.Blocks*512 < open.Size {
		found, err := fragments(f, open.Size)
		if err != nil {
			return err
		}
		if found != nil {
			h.Sparse, h.IsSparse, stretches = found, true, found
		}
	}
	if err := t.put(dir, name, "./"+path, &open, h); err != nil {
		return err
	}
	for _, s := range stretches {
		if err := t.stretch(f, s); err != nil {
			return err
		}
	}
	return t.tar.done()
}

// fragments lists a file's stretches of data, nil when it has no holes (or too many). A file that ends in a hole ends the list with an
// empty stretch at its end, as GNU tar's do.
func fragments(f *tree.File, size int64) ([]tarstream.Fragment, error) {
	list := []tarstream.Fragment{}
	at := int64(0)
	for at < size {
		start, end, ok, err := f.NextData(at)
		if err != nil {
			return nil, err
		}
		if !ok || start >= size {
			break
		}
		end = min(end, size)
		list = append(list, tarstream.Fragment{Offset: start, Length: end - start})
		if len(list) > maxFragments {
			return nil, nil
		}
		at = end
	}
	if len(list) == 1 && list[0].Length == size {
		return nil, nil
	}
	if at < size {
		list = append(list, tarstream.Fragment{Offset: size})
	}
	return list, nil
}

func (t *writer) stretch(f *tree.File, s tarstream.Fragment) error {
	for at, left := s.Offset, s.Length; left > 0; {
		if err := t.ctx.Err(); err != nil {
			return err
		}
		b := t.buf[:min(left, int64(len(t.buf)))]
		n, err := f.ReadAt(b, at)
		if errors.Is(err, io.EOF) { // it shrank
			clear(b[n:])
			n, err = len(b), nil
		}
		if err != nil {
			return err
		}
		t.sum.Write(b[:n])
		if _, err := t.tar.Write(b[:n]); err != nil {
			return err
		}
		at, left = at+int64(n), left-int64(n)
	}
	return nil
}
