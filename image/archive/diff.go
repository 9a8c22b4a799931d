package archive

import (
	"archive/tar"
	"context"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"berth/base/fault"
	"berth/kernel/tree"
)

// WriteOptions say how a tree becomes an archive.
type WriteOptions struct {
	Whiteouts   Whiteouts // the tree is an overlay's upper directory with marks of this kind
	Owner       OwnerFunc // maps owners on disk to owners in the archive
	CapRoot     uint32    // host id of the root whose capabilities of files count as plain ones
	Nanoseconds bool      // keep fractions of modification times, at one more block per entry; layers have whole seconds, as Docker's
	Skip        func(name string) bool
}

// Diff writes everything below root as an archive: the layer that an overlay's upper directory is. The order is
// that of sorted names, so equal trees give equal archives. Sockets are left out. The tree may be in use: a file that
// shrinks meanwhile is filled with zeros, one that grows is cut.
func Diff(ctx context.Context, root *tree.Dir, w io.Writer, o WriteOptions) error {
	t := newTreeWriter(ctx, w, o)
	if err := t.children(root, ""); err != nil {
		return err
	}
	return t.tw.Close()
}

// Tree writes the file or directory called rel below root, and what is below it, as entries called name. A link
// at rel is written as a link; links on the way to it stay inside root. rel "" is root itself: then its children are
// written below name, and name itself only if it is not "".
func Tree(ctx context.Context, root *tree.Dir, rel, name string, w io.Writer, o WriteOptions) error {
	t := newTreeWriter(ctx, w, o)
	rel, err := cleanName("/" + rel)
	if err != nil {
		return err
	}
	switch {
	case rel == "" && name == "":
		err = t.children(root, "")
	case rel == "":
		st, serr := root.Stat("")
		if serr != nil {
			return serr
		}
		if err = t.header(root, "", name, &st); err == nil {
			err = t.children(root, name)
		}
	default:
		dirPath, base := splitName(rel)
		dir, _, oerr := root.Open(dirPath)
		if oerr != nil {
			return oerr
		}
		defer dir.Close()
		err = t.entry(dir, base, name)
	}
	if err != nil {
		return err
	}
	return t.tw.Close()
}

type treeWriter struct {
	ctx   context.Context
	tw    *tar.Writer
	o     WriteOptions
	links map[inode]string // first name of files with several
	buf   []byte
}

type inode struct{ dev, ino uint64 }

func newTreeWriter(ctx context.Context, w io.Writer, o WriteOptions) *treeWriter {
	return &treeWriter{ctx: ctx, tw: tar.NewWriter(w), o: o, links: map[inode]string{}, buf: make([]byte, 128<<10)}
}

// children writes all names in dir, which is called name in the archive.
func (t *treeWriter) children(dir *tree.Dir, name string) error {
	if err := t.ctx.Err(); err != nil {
		return err
	}
	names, err := dir.Names()
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, n := range names {
		err := t.entry(dir, n, join(name, n))
		if err != nil && !tree.Missing(err) { // gone since it was listed
			return fault.At(err, "archive %q", join(name, n))
		}
	}
	return nil
}

// entry writes dir's child base under a name, and what is below it.
func (t *treeWriter) entry(dir *tree.Dir, base, name string) error {
	if t.o.Skip != nil && t.o.Skip(name) {
		return nil
	}
	st, err := dir.Stat(base)
	if err != nil {
		return err
	}
	if t.o.Whiteouts != NoWhiteouts && st.IsWhiteout() {
		return t.whiteout(&st, path.Join(path.Dir(name), whiteoutPrefix+path.Base(name)))
	}
	switch st.Type() {
	case tree.TypeSocket:
		return nil
	case tree.TypeDir:
		sub, err := dir.Sub(base)
		if err != nil {
			return err
		}
		defer sub.Close()
		if err := t.header(sub, "", name, &st); err != nil {
			return err
		}
		return t.children(sub, name)
	case tree.TypeRegular:
		return t.file(dir, base, name, &st)
	}
	return t.header(dir, base, name, &st)
}

// file writes a regular file, or a link to the name it has been written under.
func (t *treeWriter) file(dir *tree.Dir, base, name string, st *tree.Stat) error {
	id := inode{st.Dev, st.Ino}
	if first, ok := t.links[id]; ok && st.Nlink > 1 {
		h := t.base(name, st)
		h.Typeflag, h.Linkname = tar.TypeLink, first
		if err := t.xattrs(h, dir, base); err != nil {
			return err
		}
		return t.tw.WriteHeader(h)
	}
	f, err := dir.OpenFile(base)
	if err != nil {
		return err
	}
	defer f.Close()
	open, err := f.Stat()
	if err != nil {
		return err
	}
	if err := t.header(dir, base, name, &open); err != nil {
		return err
	}
	if st.Nlink > 1 {
		t.links[id] = name
	}
	return t.content(f, open.Size)
}

// content writes size bytes of f. Holes are not read.
func (t *treeWriter) content(f *tree.File, size int64) error {
	for at := int64(0); at < size; {
		if err := t.ctx.Err(); err != nil {
			return err
		}
		start, end, ok, err := f.NextData(at)
		if err != nil {
			return err
		}
		if !ok || start > size {
			start, end = size, size
		}
		end = min(end, size)
		if err := t.zeros(start - at); err != nil {
			return err
		}
		if at, err = t.data(f, start, end); err != nil {
			return err
		}
	}
	return nil
}

func (t *treeWriter) zeros(n int64) error {
	for n > 0 {
		m, err := t.tw.Write(zeros[:min(n, int64(len(zeros)))])
		if err == nil {
			err = t.ctx.Err() // a hole may be larger than all disks
		}
		if err != nil {
			return err
		}
		n -= int64(m)
	}
	return nil
}

// data writes the bytes from start to end, and tells where it came to.
func (t *treeWriter) data(f *tree.File, start, end int64) (int64, error) {
	for start < end {
		b := t.buf[:min(end-start, int64(len(t.buf)))]
		n, err := f.ReadAt(b, start)
		if n == 0 && err != nil {
			if err == io.EOF { // it shrank
				return end, t.zeros(end - start)
			}
			return start, err
		}
		if _, err := t.tw.Write(b[:n]); err != nil {
			return start, err
		}
		start += int64(n)
		if err := t.ctx.Err(); err != nil {
			return start, err
		}
	}
	return start, nil
}

// header writes the header of dir's child base ("" is dir itself).
func (t *treeWriter) header(dir *tree.Dir, base, name string, st *tree.Stat) error {
	h := t.base(name, st)
	switch st.Type() {
	case tree.TypeRegular:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
	case tree.TypeDir:
		h.Typeflag, h.Name = tar.TypeDir, strings.TrimSuffix(name, "/")+"/"
	case tree.TypeSymlink:
		target, err := dir.Readlink(base)
		if err != nil {
			return err
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, target
	case tree.TypeChar, tree.TypeBlock:
		h.Typeflag = tar.TypeChar
		if st.Type() == tree.TypeBlock {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(st.Major), int64(st.Minor)
	case tree.TypeFifo:
		h.Typeflag = tar.TypeFifo
	}
	if st.Type() != tree.TypeSymlink {
		if err := t.xattrs(h, dir, base); err != nil {
			return err
		}
	}
	if err := t.tw.WriteHeader(h); err != nil {
		return err
	}
	if t.o.Whiteouts == NoWhiteouts || !st.IsDir() {
		return nil
	}
	v, _, err := dir.Xattr(base, t.o.Whiteouts.OpaqueAttr())
	if err != nil || string(v) != "y" {
		return err
	}
	return t.whiteout(st, join(name, opaqueName))
}

func (t *treeWriter) base(name string, st *tree.Stat) *tar.Header {
	uid, gid := st.UID, st.GID
	if t.o.Owner != nil {
		uid, gid = t.o.Owner(uid, gid)
	}
	mtime := time.Unix(st.Mtime.Sec, 0)
	if t.o.Nanoseconds {
		mtime = time.Unix(st.Mtime.Sec, st.Mtime.Nsec)
	}
	return &tar.Header{Name: name, Mode: int64(st.Mode & tree.PermMask), Uid: int(uid), Gid: int(gid), ModTime: mtime, Format: tar.FormatPAX}
}

// whiteout writes the empty file that marks a deletion. When something was deleted is no part of the difference: with a time of
// their own two builds of one thing would differ.
func (t *treeWriter) whiteout(st *tree.Stat, name string) error {
	h := t.base(name, st)
	h.Typeflag, h.Mode, h.ModTime = tar.TypeReg, 0o600, time.Unix(0, 0)
	return t.tw.WriteHeader(h)
}

func (t *treeWriter) xattrs(h *tar.Header, dir *tree.Dir, base string) error {
	attrs, err := dir.Xattrs(base)
	if err != nil {
		return err
	}
	for _, a := range attrs {
		if !portable(a) {
			continue
		}
		v, ok, err := dir.Xattr(base, a)
		if err != nil {
			return err
		}
		if !ok || len(v) == 0 { // PAX cannot say "present and empty": an empty value means no record
			continue
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		if a == capAttr {
			v = plainCap(v, t.o.CapRoot)
		}
		h.PAXRecords["SCHILY.xattr."+a] = string(v)
	}
	return nil
}
