package tarcontext

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/tonistiigi/fsutil"
	fstypes "github.com/tonistiigi/fsutil/types"

	"berth/base/fault"
	"berth/build/session"
	"berth/image/archive/compress"
)

const (
	// maxEntries and maxNames bound the memory that one context's index takes: its entries, the directories that only their names imply,
	// and the bytes of names and of what links lead to.
	maxEntries = 2_000_000
	maxNames   = 256 << 20
	// maxDepth bounds how deep names may nest.
	maxDepth = 2000
)

// expansion bounds what a compressed context may become: so many times what was read of it, beyond the first bytes. Long runs of zeros
// are holes on the disk and do not count.
type expansion struct{ ratio, from int64 }

// usual is the expansion that layers of images may have, too.
var usual = expansion{ratio: 400, from: 2 << 30}

// Context is a tar on disk with an index.
type Context struct {
	file *os.File
	root *node
	left int // how many more nodes there may be
	text int // and bytes of names
}

// node is one name. Hard links share their inode.
type node struct {
	inode    *inode
	children map[string]*node // of a directory
}

type inode struct {
	stat   fstypes.Stat // Path and Linkname of a hard link are filled in by the walk
	offset int64        // of a regular file's content in the spool
}

// Read spools a tar, compressed or not, into dir and indexes it. Anything that is no tar is Invalid; so are links
// to what is not there. An empty body is an empty context.
func Read(ctx context.Context, body io.Reader, dir string) (*Context, error) {
	return read(ctx, body, dir, usual)
}

func read(ctx context.Context, body io.Reader, dir string, most expansion) (_ *Context, err error) {
	file, err := os.CreateTemp(dir, "context-")
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "keeping the build context")
	}
	c := &Context{file: file, root: newDir(0o755), left: maxEntries, text: maxNames}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	if err := os.Remove(file.Name()); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "keeping the build context")
	}
	in := &meter{r: body}
	buffered := bufio.NewReader(in)
	if _, err := buffered.Peek(1); errors.Is(err, io.EOF) {
		return c, nil
	}
	plain, kind, err := compress.NewReader(buffered)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "reading the build context")
	}
	defer plain.Close()
	s := &spool{ctx: ctx, from: plain, to: file}
	if kind != compress.None {
		s.in, s.most = in, most
	}
	if err := c.index(s); err != nil {
		return nil, err
	}
	if err := file.Truncate(s.at); err != nil { // it may end in a hole
		return nil, fault.Wrap(fault.Internal, err, "keeping the build context")
	}
	return c, nil
}

// meter counts what is read.
type meter struct {
	r io.Reader
	n int64
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n += int64(n)
	return n, err
}

// Close gives the room on the disk back.
func (c *Context) Close() error { return c.file.Close() }

// spool is a reader that keeps what is read, and knows where it is.
type spool struct {
	ctx  context.Context
	from io.Reader
	to   *os.File
	at   int64

	in      *meter // of what is compressed; nil: nothing is
	most    expansion
	written int64 // of at, what is no hole
}

func (s *spool) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := s.from.Read(p)
	if n > 0 {
		if werr := s.keep(p[:n]); werr != nil {
			return n, werr
		}
	}
	return n, err
}

// hole is the length of a run of zeros that is worth leaving out.
const hole = 4 << 10

// keep writes what was read, and leaves holes.
func (s *spool) keep(p []byte) error {
	at := s.at
	s.at += int64(len(p))
	if len(p) >= hole && bytes.Count(p, zero) == len(p) {
		return nil
	}
	if _, err := s.to.WriteAt(p, at); err != nil {
		return fault.Wrap(fault.Internal, err, "keeping the build context")
	}
	s.written += int64(len(p))
	if s.in != nil && s.written > s.most.from && s.written/s.most.ratio > s.in.n {
		return fault.New(fault.Invalid, "%d bytes of the build context decompress to more than %d: that is more than %d times as much",
			s.in.n, s.written, s.most.ratio)
	}
	return nil
}

var zero = []byte{0}

func (c *Context) index(s *spool) error {
	t := tar.NewReader(s)
	for {
		h, err := t.Next()
		switch {
		case errors.Is(err, io.EOF):
			_, err := io.Copy(io.Discard, s) // what pads the tar: the client shall not meet a closed connection
			return fault.Wrap(fault.Invalid, err, "reading the build context")
		case err != nil:
			if fault.KindOf(err) != fault.Internal || s.ctx.Err() != nil {
				return err
			}
			return fault.Wrap(fault.Invalid, err, "reading the build context, which must be a tar")
		}
		if err := c.add(h, s.at); err != nil {
			return err
		}
	}
}

// add puts one entry into the tree.
func (c *Context) add(h *tar.Header, offset int64) error {
	name, err := clean(h.Name)
	if err != nil {
		return err
	}
	if name == "" || h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if c.text -= len(name) + len(h.Linkname); c.text < 0 {
		return fault.New(fault.Invalid, "the names in the build context have more than %d bytes", maxNames)
	}
	n := &node{inode: &inode{offset: offset, stat: fstypes.Stat{ModTime: h.ModTime.UnixNano(), Mode: uint32(h.FileInfo().Mode())}}}
	switch h.Typeflag {
	case tar.TypeDir:
		n.children = map[string]*node{}
	case tar.TypeReg, tar.TypeGNUSparse:
		n.inode.stat.Size = h.Size
		if h.Typeflag == tar.TypeGNUSparse || sparse(h) {
			return fault.New(fault.Invalid, "%s in the build context is a sparse file, which is not supported: make the tar without --sparse", h.Name)
		}
	case tar.TypeSymlink:
		n.inode.stat.Linkname = h.Linkname
		n.inode.stat.Mode |= 0o777
	case tar.TypeLink:
		target, err := clean(h.Linkname)
		if err != nil {
			return err
		}
		to := c.find(target)
		if to == nil || to.children != nil {
			return fault.New(fault.Invalid, "%s in the build context is a hard link to %s, which is not in it", h.Name, h.Linkname)
		}
		n.inode = to.inode
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		n.inode.stat.Devmajor, n.inode.stat.Devminor = h.Devmajor, h.Devminor
	default:
		return fault.New(fault.Invalid, "%s in the build context has an unknown type %q", h.Name, h.Typeflag)
	}
	return c.put(name, n)
}

// sparse reports whether a header of the POSIX form says that what follows is a file without its holes.
func sparse(h *tar.Header) bool {
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// put gives a node its name; directories on the way are made where there are none.
func (c *Context) put(name string, n *node) error {
	at := c.root
	parts := strings.Split(name, "/")
	if len(parts) > maxDepth {
		return fault.New(fault.Invalid, "a name in the build context is more than %d directories deep", maxDepth)
	}
	for _, p := range parts[:len(parts)-1] {
		next := at.children[p]
		if next == nil || next.children == nil {
			if err := c.room(); err != nil {
				return err
			}
			next = newDir(0o755)
			at.children[p] = next
		}
		at = next
	}
	if err := c.room(); err != nil {
		return err
	}
	base := parts[len(parts)-1]
	if old := at.children[base]; old != nil && old.children != nil && n.children != nil {
		n.children = old.children // a directory that is named again keeps what is in it
	}
	at.children[base] = n
	return nil
}

// room is called before a node is made.
func (c *Context) room() error {
	if c.left--; c.left < 0 {
		return fault.New(fault.Invalid, "the build context has more than %d entries and directories", maxEntries)
	}
	return nil
}

func (c *Context) find(name string) *node {
	at := c.root
	if name == "" {
		return at
	}
	for p := range strings.SplitSeq(name, "/") {
		if at = at.children[p]; at == nil {
			return nil
		}
	}
	return at
}

func newDir(mode fs.FileMode) *node {
	return &node{inode: &inode{stat: fstypes.Stat{Mode: uint32(fs.ModeDir | mode)}}, children: map[string]*node{}}
}

// clean gives a name relative to the context's root, "" for the root itself. As in Docker, the root is its own parent: "../x" is "x".
func clean(name string) (string, error) {
	if strings.ContainsRune(name, 0) {
		return "", fault.New(fault.Invalid, "a name in the build context has a NUL byte")
	}
	return strings.TrimPrefix(path.Clean("/"+name), "/"), nil
}

// FS shows the context as it was sent, with all owners root's, as in Docker. Within a directory names are in the order of their bytes.
func (c *Context) FS() fsutil.FS { return files{c} }

type files struct{ *Context }

// Walk calls f for everything below target, parents first.
func (f files) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) (err error) {
	defer session.Survive(&err) // who walks does so on goroutines of his own, with patterns of the client's
	name, err := clean(target)
	if err != nil {
		return err
	}
	at := f.find(name)
	if at == nil {
		return &os.PathError{Op: "walk", Path: target, Err: syscall.ENOENT}
	}
	w := &walker{ctx: ctx, fn: fn, seen: map[*inode]string{}}
	if name != "" {
		if err := w.visit(name, at); errors.Is(err, fs.SkipDir) || errors.Is(err, fs.SkipAll) {
			return nil
		} else {
			return err
		}
	}
	if err := w.below("", at); !errors.Is(err, fs.SkipAll) {
		return err
	}
	return nil
}

type walker struct {
	ctx  context.Context
	fn   fs.WalkDirFunc
	seen map[*inode]string // the first name of each file with content
}

func (w *walker) visit(name string, n *node) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	stat := n.inode.stat.Clone()
	stat.Path = name
	if fs.FileMode(stat.Mode).IsRegular() {
		if first, again := w.seen[n.inode]; again {
			stat.Linkname = first
		} else {
			w.seen[n.inode] = name
		}
	}
	if err := w.fn(name, &fsutil.DirEntryInfo{Stat: stat}, nil); err != nil || n.children == nil {
		return err
	}
	return w.below(name, n)
}

func (w *walker) below(name string, n *node) error {
	names := make([]string, 0, len(n.children))
	for c := range n.children {
		names = append(names, c)
	}
	slices.Sort(names)
	for _, c := range names {
		child := n.children[c]
		switch err := w.visit(path.Join(name, c), child); {
		case errors.Is(err, fs.SkipDir) && child.children != nil:
		case errors.Is(err, fs.SkipDir):
			return nil // asked at a file, it means the rest of its directory
		case err != nil:
			return err
		}
	}
	return nil
}

// Open opens a regular file.
func (f files) Open(name string) (io.ReadCloser, error) {
	if slices.Contains(strings.Split(name, "/"), "..") {
		return nil, fault.New(fault.Invalid, "%s leads out of the build context", name)
	}
	clean, err := clean(name)
	if err != nil {
		return nil, err
	}
	n := f.find(clean)
	switch {
	case n == nil:
		return nil, &os.PathError{Op: "open", Path: name, Err: syscall.ENOENT}
	case !fs.FileMode(n.inode.stat.Mode).IsRegular():
		return nil, &os.PathError{Op: "open", Path: name, Err: syscall.EINVAL}
	}
	return io.NopCloser(io.NewSectionReader(f.file, n.inode.offset, n.inode.stat.Size)), nil
}
