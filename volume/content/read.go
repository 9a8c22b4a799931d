package content

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"

	"berth/base/fault"
	"berth/base/tarstream"
	"berth/kernel/tree"
)

// Read unpacks an archive into root, an empty directory, which gets the archive's own owner and permissions where it tells them. The
// archive may be compressed by gzip or zstd, and be anybody's tar; one of ours is verified. It is read to its end. fault.Invalid: it
// is malformed, damaged, cut short, or leads out of root. On an error root is half filled.
func Read(ctx context.Context, root *tree.Dir, r io.Reader) error {
	in, done, err := decompressed(r)
	if err != nil {
		return err
	}
	defer done()
	x := &reader{ctx: ctx, root: root, sum: newDigest()}
	x.tar = tarstream.NewReader(tarstream.FromReader(in), nil, tarstream.Limits{})
	err = x.all()
	if x.dir != nil && x.dir != root {
		x.dir.Close()
	}
	if err == nil {
		err = x.verify()
	}
	if err == nil {
		err = x.dressDirs()
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, gzip.ErrChecksum) || errors.Is(err, gzip.ErrHeader) || errors.Is(err, zstd.ErrCRCMismatch) {
		return fault.Wrap(fault.Invalid, err, "the archive is damaged or cut short")
	}
	return err
}

type reader struct {
	ctx  context.Context
	root *tree.Dir
	tar  *tarstream.Reader
	sum  *digest
	ours bool // the archive says it is one of ours

	dir     *tree.Dir // the directory of the last entry
	dirName string
	dirs    []dirEntry // whose attributes are set when nothing is made in them any more
}

// dirEntry is what a directory's entry says.
type dirEntry struct {
	name         string
	uid, gid     int
	perm         uint32
	attrs        []attribute
	atime, mtime tree.Time
}

func (x *reader) all() error {
	for {
		h, err := x.tar.Next()
		if errors.Is(err, io.EOF) {
			return x.tar.Rest()
		}
		if err != nil {
			return err
		}
		if x.tar.Comment() == commentStart {
			x.ours = true
		}
		if err := x.entry(h); err != nil {
			kind := fault.KindOf(err)
			if tree.Impossible(err) {
				kind = fault.Invalid // the archive asked for it
			}
			return fault.Wrap(kind, err, "unpack %.200q", h.Name)
		}
		if err := x.ctx.Err(); err != nil {
			return err
		}
	}
}

// verify compares what was unpacked with what the archive's end says of it.
func (x *reader) verify() error {
	if x.tar.Position() == 0 {
		return fault.New(fault.Invalid, "there is no archive: nothing came")
	}
	if !x.ours && !strings.HasPrefix(x.tar.Comment(), commentStart) {
		return nil // anybody's
	}
	var entries int64
	var sum string
	if n, _ := fmt.Sscanf(x.tar.Comment(), commentStart+" end %d %64s", &entries, &sum); n != 2 {
		return fault.New(fault.Invalid, "the archive is cut short: its end is missing")
	}
	if entries != x.sum.entries || sum != x.sum.sum() {
		return fault.New(fault.Invalid, "the archive is damaged: its content is not what it was (sha256 %s, made with %s)", x.sum.sum(), sum)
	}
	return nil
}

func (x *reader) entry(h *tarstream.Header) error {
	attrs, err := attributesOf(h)
	if err != nil {
		return err
	}
	x.sum.entry(h, attrs)
	name, err := clean(h.Name)
	if err != nil {
		return err
	}
	const top = 1<<32 - 2 // the last number means "leave it" to chown(2)
	if h.UID < 0 || h.GID < 0 || h.UID > top || h.GID > top {
		return fault.New(fault.Invalid, "no user or group has the number %d:%d", h.UID, h.GID)
	}
	if h.Type == tarstream.Directory {
		return x.directory(h, name, attrs)
	}
	if name == "" {
		return fault.New(fault.Invalid, "the root of an archive must be a directory")
	}
	parent, base := split(name)
	dir, err := x.parent(parent)
	if err != nil {
		return err
	}
	if err := x.place(dir, base); err != nil {
		return err
	}
	switch h.Type {
	case tarstream.Regular:
		return x.file(dir, base, h, attrs)
	case tarstream.HardLink:
		return x.link(dir, base, h)
	case tarstream.Symlink:
		if h.Linkname == "" {
			return fault.New(fault.Invalid, "symbolic link without a target")
		}
		err = dir.Symlink(h.Linkname, base)
	case tarstream.Fifo, tarstream.Char, tarstream.Block:
		err = node(dir, base, h)
	default:
		return fault.New(fault.Invalid, "unhandled tar entry type %q", h.Type)
	}
	if err != nil {
		return err
	}
	return dressEntry(dir, base, h, attrs)
}

// place frees a name: a later entry of an archive replaces an earlier one.
func (x *reader) place(dir *tree.Dir, base string) error {
	if _, err := dir.Stat(base); tree.Missing(err) {
		return nil
	}
	return dir.RemoveAll(base)
}

// parent opens the directory that an entry lies in, making what is missing. Links on the way lead nowhere out of root.
func (x *reader) parent(name string) (*tree.Dir, error) {
	if name == "" {
		return x.root, nil
	}
	if x.dir != nil && x.dirName == name {
		return x.dir, nil
	}
	dir, _, err := x.root.Open(name)
	if tree.Missing(err) {
		up, base := split(name)
		var above *tree.Dir
		if above, err = x.parent(up); err != nil {
			return nil, err
		}
		if err = above.Mkdir(base, 0o755); err != nil && !tree.Exists(err) {
			return nil, err
		}
		if dir, _, err = x.root.Open(name); tree.Missing(err) {
			return nil, fault.New(fault.Invalid, "%.200q is a link that leads nowhere in the archive", name)
		}
	}
	if err != nil {
		return nil, err
	}
	if x.dir != nil {
		x.dir.Close()
	}
	x.dir, x.dirName = dir, name
	return dir, nil
}

func (x *reader) directory(h *tarstream.Header, name string, attrs []attribute) error {
	atime, mtime := times(h)
	x.dirs = append(x.dirs, dirEntry{name, int(h.UID), int(h.GID), uint32(h.Mode & tree.PermMask), attrs, atime, mtime})
	if name == "" {
		return nil
	}
	parent, base := split(name)
	dir, err := x.parent(parent)
	if err != nil {
		return err
	}
	st, err := dir.Stat(base)
	if err == nil && st.IsDir() {
		return nil
	}
	if err == nil {
		if err := dir.RemoveAll(base); err != nil {
			return err
		}
	}
	return dir.Mkdir(base, 0o700)
}

func (x *reader) file(dir *tree.Dir, base string, h *tarstream.Header, attrs []attribute) error {
	f, err := dir.Create(base, 0o600)
	if err != nil {
		return err
	}
	if err = x.bytes(f, h); err == nil {
		err = dressNew(f, h, attrs)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

func (x *reader) bytes(f *tree.File, h *tarstream.Header) error {
	stretches := h.Sparse
	if !h.IsSparse {
		stretches = []tarstream.Fragment{{Length: h.Size}}
	}
	for _, s := range stretches {
		for at, left := s.Offset, s.Length; left > 0; {
			b, err := x.tar.Payload(left)
			if errors.Is(err, io.EOF) {
				return io.ErrUnexpectedEOF
			}
			if err != nil {
				return err
			}
			x.sum.Write(b)
			if _, err := f.WriteAt(b, at); err != nil {
				return err
			}
			at, left = at+int64(len(b)), left-int64(len(b))
			if err := x.ctx.Err(); err != nil {
				return err
			}
		}
	}
	if h.IsSparse {
		return f.Truncate(h.Size)
	}
	return nil
}

// link gives an earlier file of the archive another name.
func (x *reader) link(dir *tree.Dir, base string, h *tarstream.Header) error {
	target, err := clean(h.Linkname)
	if err != nil {
		return err
	}
	up, name := split(target)
	from, _, err := x.root.Open(up)
	if err == nil {
		defer from.Close()
		err = dir.Link(from, name, base)
	}
	if tree.Missing(err) || tree.Denied(err) { // EPERM: a directory
		return fault.New(fault.Invalid, "hard link to %.200q, which is no file of the archive", h.Linkname)
	}
	return err
}

func node(dir *tree.Dir, base string, h *tarstream.Header) error {
	typ := uint32(tree.TypeFifo)
	switch h.Type {
	case tarstream.Char:
		typ = tree.TypeChar
	case tarstream.Block:
		typ = tree.TypeBlock
	}
	if h.Major < 0 || h.Minor < 0 || h.Major > 0xfff || h.Minor > 0xfffff {
		return fault.New(fault.Invalid, "no device has the number %d:%d", h.Major, h.Minor)
	}
	return dir.Mknod(base, typ|0o600, uint32(h.Major), uint32(h.Minor))
}

// dressEntry gives what was made by name its owner, permissions, attributes and times; the order is dress's.
func dressEntry(dir *tree.Dir, base string, h *tarstream.Header, attrs []attribute) error {
	if err := dir.Chown(base, int(h.UID), int(h.GID)); err != nil {
		return err
	}
	if h.Type != tarstream.Symlink {
		if err := dir.Chmod(base, uint32(h.Mode&tree.PermMask)); err != nil {
			return err
		}
		for _, a := range attrs {
			if err := dir.SetXattr(base, a.name, a.value); err != nil {
				return err
			}
		}
	}
	atime, mtime := times(h)
	return dir.Chtimes(base, atime, mtime)
}

func dressNew(f *tree.File, h *tarstream.Header, attrs []attribute) error {
	if err := f.Chown(int(h.UID), int(h.GID)); err != nil {
		return err
	}
	if err := f.Chmod(uint32(h.Mode & tree.PermMask)); err != nil {
		return err
	}
	for _, a := range attrs {
		if err := f.SetXattr(a.name, a.value); err != nil {
			return err
		}
	}
	atime, mtime := times(h)
	return f.Chtimes(atime, mtime)
}

// dressDirs gives the directories what their entries say, the last first: making things in a directory changes its time, and
// default ACLs set earlier would have been inherited.
func (x *reader) dressDirs() error {
	seen := map[string]bool{}
	for i := len(x.dirs) - 1; i >= 0; i-- {
		e := &x.dirs[i]
		if seen[e.name] {
			continue // an earlier entry for the same directory
		}
		seen[e.name] = true
		if err := x.dressDir(e); err != nil {
			return fault.In(err, "unpack %.200q", e.name)
		}
	}
	return nil
}

func (x *reader) dressDir(e *dirEntry) error {
	dir, linked, err := x.root.Open(e.name)
	if tree.Missing(err) || tree.NotDir(err) {
		return nil // replaced by a later entry
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	if linked {
		return nil
	}
	if err := dir.Chown("", e.uid, e.gid); err != nil {
		return err
	}
	if err := dir.Chmod("", e.perm); err != nil {
		return err
	}
	for _, a := range e.attrs {
		if err := dir.SetXattr("", a.name, a.value); err != nil {
			return err
		}
	}
	return dir.Chtimes("", e.atime, e.mtime)
}

func times(h *tarstream.Header) (atime, mtime tree.Time) {
	mtime, atime = tree.Time(h.ModTime), tree.Time(h.Access)
	if atime == (tree.Time{}) {
		atime = mtime
	}
	return atime, mtime
}

// attributesOf gives what an entry says of extended attributes.
func attributesOf(h *tarstream.Header) ([]attribute, error) {
	var attrs []attribute
	for name, value := range h.Xattrs {
		if travels(name) {
			attrs = append(attrs, attribute{name, []byte(value)})
		}
	}
	odd, ok := strings.CutPrefix(h.Comment, commentXattrs)
	if !ok {
		return attrs, nil
	}
	for pair := range strings.SplitSeq(odd, ",") {
		name, value, _ := strings.Cut(pair, ":")
		n, err1 := hex.DecodeString(name)
		v, err2 := hex.DecodeString(value)
		if err1 != nil || err2 != nil {
			return nil, fault.New(fault.Invalid, "extended attributes are malformed")
		}
		attrs = append(attrs, attribute{string(n), v})
	}
	return attrs, nil
}

// clean gives an entry's path below the root, "" for the root itself.
func clean(name string) (string, error) {
	if name == "" || len(name) > 4096 {
		return "", fault.New(fault.Invalid, "path of %d bytes", len(name))
	}
	c := path.Clean(strings.TrimLeft(name, "/"))
	switch {
	case c == ".":
		return "", nil
	case c == "..", strings.HasPrefix(c, "../"):
		return "", fault.New(fault.Invalid, "path leads out of the volume")
	}
	return c, nil
}

// maxWindow is the largest window of zstd: the decoder takes that memory because the archive says so. It is that of layers.
const maxWindow = 256 << 20

// decompressed looks at how an archive begins and unpacks it if need be.
func decompressed(r io.Reader) (io.Reader, func(), error) {
	b := bufio.NewReaderSize(r, 64<<10)
	magic, err := b.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	switch {
	case len(magic) >= 2 && magic[0] == 0x1f && magic[1] == 0x8b:
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, nil, fault.Wrap(fault.Invalid, err, "the archive is damaged")
		}
		return z, func() { z.Close() }, nil
	case len(magic) == 4 && string(magic) == "\x28\xb5\x2f\xfd":
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}
	return b, func() {}, nil
}
