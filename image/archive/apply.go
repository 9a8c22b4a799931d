package archive

import (
	"context"
	"errors"
	"io"
	"path"
	"strings"

	"berth/base/fault"
	"berth/base/tarstream"
	"berth/kernel/tree"
)

// Whiteouts says what the names .wh.* mean.
type Whiteouts int

// How to treat whiteouts.
const (
	NoWhiteouts   Whiteouts = iota // ordinary files: an archive that is no layer
	Overlay                        // to overlayfs's marks, with trusted.overlay.* attributes
	OverlayUserNS                  // the same with user.overlay.* attributes, for mounts with userxattr
)

const (
	whiteoutPrefix = ".wh."
	metaPrefix     = ".wh..wh." // AUFS's own files; only the next one means anything
	opaqueName     = ".wh..wh..opq"
)

// Limits bound what an archive may unpack to. Zero means the default.
type Limits struct {
	tarstream.Limits
	Bytes int64 // content of all files together, holes not counted; default 1 TiB
	// A compressed archive may grow to Ratio times what was read of it, beyond the first RatioFrom bytes; long runs of zeros
	// are holes and not counted. Default 400 and 2 GiB: what people compress stays far below 100.
	Ratio, RatioFrom int64
}

// Defaults gives the limits with every zero replaced.
func (l Limits) Defaults() Limits {
	l.Limits = l.Limits.Defaults()
	if l.Bytes == 0 {
		l.Bytes = 1 << 40
	}
	if l.Ratio == 0 {
		l.Ratio = 400
	}
	if l.RatioFrom == 0 {
		l.RatioFrom = 2 << 30
	}
	return l
}

// Recorder keeps what is needed to rebuild the archive: split.Writer is one.
type Recorder interface {
	tarstream.Recorder
	File(name string, offset, size int64) (position int, err error)
}

// ApplyOptions say how to unpack. The zero value unpacks an ordinary archive with its own owners.
type ApplyOptions struct {
	Whiteouts Whiteouts
	Limits    Limits
	Input     func() int64      // bytes read of the compressed archive so far; nil: it was not compressed
	Record    Recorder          // nil: none
	Shadows   *tree.Dir         // empty directory for replaced files, on the same file system; nil: they are deleted
	Owner     OwnerFunc         // maps owners; nil: as they are
	CapRoot   uint32            // host id of the root that capabilities of files are to belong to; 0: the host's
	KeepKinds bool              // refuse to replace a directory by a file or the reverse (docker cp)
	KeepRoot  bool              // an entry for the root itself changes nothing of it: what is unpacked goes into a place with looks of its own
	Created   func(name string) // called for each path made or changed; nil: not
}

// OwnerFunc maps the owner in an archive to the owner on disk.
type OwnerFunc func(uid, gid uint32) (uint32, uint32)

// Applied tells what was unpacked.
type Applied struct {
	Size       int64    // bytes of all files and links in the tree, holes included, each file once: Docker's size of a layer
	Entries    int64    // entries that were made
	Implied    []string // directories made without an entry, at most 1000
	Root       bool     // the archive had an entry for the root itself
	OpaqueRoot bool     // the whole tree hides what is below
	Marks      bool     // it has deletions of what is below
	Shadows    []Shadow
}

// Shadow tells where the old content of a replaced path is: in the shadow directory under the name N, for
// records before Before.
type Shadow struct {
	Path   string `json:"path"`
	Before int    `json:"before"`
	N      int    `json:"n"`
}

// Apply unpacks the archive that src gives into root. It reads src to its end. On an error the tree is
// half made and good for nothing but deletion. Malformed or hostile archives give Invalid errors.
func Apply(ctx context.Context, root *tree.Dir, src tarstream.Source, o ApplyOptions) (*Applied, error) {
	o.Limits = o.Limits.Defaults()
	a := &applier{ctx: ctx, root: root, o: o, dirs: map[string]*openDir{}, marks: map[string]mark{}, hidden: map[uint64]uint64{}}
	a.r = tarstream.NewReader(src, a.recorder(), o.Limits.Limits)
	defer a.closeDirs()
	for {
		h, err := a.r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if err := a.entry(h); err != nil {
			kind := fault.KindOf(err)
			if tree.Impossible(err) {
				kind = fault.Invalid // the archive asked for it
			}
			return nil, fault.Wrap(kind, err, "unpack %q", shorten(h.Name))
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	if err := a.r.Rest(); err != nil {
		return nil, err
	}
	if err := a.setDirTimes(); err != nil {
		return nil, err
	}
	return &a.done, nil
}

type applier struct {
	ctx      context.Context
	root     *tree.Dir
	o        ApplyOptions
	r        *tarstream.Reader
	done     Applied
	stored   int64               // bytes of content so far
	written  int64               // of these, bytes that are no holes
	dirs     map[string]*openDir // by the path as entries write it
	marks    map[string]mark     // by real path: what whiteouts did
	times    []dirTime           // of directories, set when nothing is made in them any more
	position int                 // records made, as the recorder counts
	shadowed int
	hidden   map[uint64]uint64 // by inode: names that are in the shadows and no longer in the tree
}

// mark remembers what a whiteout of this archive did at a path.
type mark uint8

const (
	marked  mark = 1 << iota // a whiteout stands, or stood, here
	opaque                   // the directory is opaque
	holding                  // the directory is known to have whiteouts in it
)

type dirTime struct {
	real         string
	atime, mtime tree.Time
}

// entry unpacks one entry.
func (a *applier) entry(h *tarstream.Header) error {
	name, err := cleanName(h.Name)
	if err != nil {
		return err
	}
	if v, has := h.Xattrs[capAttr]; has && a.o.CapRoot != 0 {
		h.Xattrs[capAttr] = string(capOf([]byte(v), a.o.CapRoot))
	}
	if len(a.dirs) > dirCacheMax {
		a.closeDirs()
	}
	if name == "" {
		return a.rootEntry(h)
	}
	dirPath, base := splitName(name)
	if a.o.Whiteouts != NoWhiteouts && strings.HasPrefix(base, whiteoutPrefix) {
		return a.whiteout(dirPath, base)
	}
	dir, err := a.parent(dirPath)
	if err != nil {
		return err
	}
	uid, gid, err := a.owner(h)
	if err != nil {
		return err
	}
	e := &making{h: h, dir: dir, base: base, real: join(dir.real, base), uid: uid, gid: gid, perm: uint32(h.Mode & tree.PermMask)}
	switch h.Type {
	case tarstream.Regular:
		err = a.regular(e)
	case tarstream.Directory:
		err = a.directory(e, name)
	case tarstream.Symlink:
		err = a.symlink(e)
	case tarstream.HardLink:
		err = a.hardlink(e)
	case tarstream.Char, tarstream.Block, tarstream.Fifo:
		err = a.node(e)
	default:
		return fault.New(fault.Invalid, "unhandled tar entry type %q", h.Type)
	}
	if err != nil {
		return err
	}
	a.done.Entries++
	if a.o.Created != nil {
		a.o.Created(e.real)
	}
	return nil
}

// making is the entry in work.
type making struct {
	h        *tarstream.Header
	dir      *openDir
	base     string
	real     string // path below the root by which the entry is found without following links
	uid, gid uint32
	perm     uint32
}

func (a *applier) rootEntry(h *tarstream.Header) error {
	if h.Type != tarstream.Directory {
		return fault.New(fault.Invalid, "the root of an archive must be a directory")
	}
	uid, gid, err := a.owner(h)
	if err != nil {
		return err
	}
	a.done.Root = true
	if a.o.KeepRoot {
		return nil
	}
	a.done.Entries++
	if err := a.root.Chown("", int(uid), int(gid)); err != nil {
		return err
	}
	if err := a.root.Chmod("", uint32(h.Mode&tree.PermMask)); err != nil {
		return err
	}
	if err := setXattrs(h.Xattrs, func(attr string, v []byte) error { return a.root.SetXattr("", attr, v) }); err != nil {
		return err
	}
	a.laterTimes("", h)
	return nil
}

func (a *applier) directory(e *making, name string) error {
	err := e.dir.Mkdir(e.base, 0o755)
	if tree.Exists(err) {
		st, serr := e.dir.Stat(e.base)
		if serr != nil {
			return serr
		}
		if !st.IsDir() {
			if err := a.replace(e, &st); err != nil {
				return err
			}
			err = e.dir.Mkdir(e.base, 0o755)
		} else {
			err = nil
		}
	}
	if err != nil {
		return err
	}
	sub, err := e.dir.Sub(e.base)
	if err != nil {
		return err
	}
	a.remember(name, &openDir{Dir: sub, real: e.real})
	if err := sub.Chown("", int(e.uid), int(e.gid)); err != nil {
		return err
	}
	if err := sub.Chmod("", e.perm); err != nil {
		return err
	}
	set := func(attr string, v []byte) error { return sub.SetXattr("", attr, v) }
	if err := setXattrs(e.h.Xattrs, set); err != nil {
		return err
	}
	// Deleted below and made anew here: what the layers below have in it must stay hidden.
	if m := a.marks[e.real]; m&marked != 0 && m&opaque == 0 {
		if err := a.makeOpaque(sub, e.real); err != nil {
			return err
		}
	}
	a.laterTimes(e.real, e.h)
	return nil
}

func (a *applier) symlink(e *making) error {
	if e.h.Linkname == "" {
		return fault.New(fault.Invalid, "symbolic link without a target")
	}
	err := a.fresh(e, func() error { return e.dir.Symlink(e.h.Linkname, e.base) })
	if err != nil {
		return err
	}
	a.done.Size += int64(len(e.h.Linkname))
	if err := e.dir.Chown(e.base, int(e.uid), int(e.gid)); err != nil {
		return err
	}
	atime, mtime := timesOf(e.h)
	return e.dir.Chtimes(e.base, atime, mtime)
}

// hardlink gives an earlier file another name. Its header's attributes are not applied: the file has them, and
// setting an owner again would drop its capabilities.
func (a *applier) hardlink(e *making) error {
	target, err := cleanName(e.h.Linkname)
	if err != nil {
		return fault.In(err, "hard link")
	}
	targetDir, targetBase := splitName(target)
	if targetBase == "" {
		return fault.New(fault.Invalid, "hard link to the root")
	}
	from, err := a.existing(targetDir)
	if tree.Missing(err) {
		return fault.New(fault.Invalid, "hard link to %q, which is not in the archive", shorten(e.h.Linkname))
	}
	if err != nil {
		return fault.In(err, "hard link to %q", shorten(e.h.Linkname))
	}
	if join(from.real, targetBase) == e.real {
		return nil
	}
	err = a.fresh(e, func() error {
		// Asked again: taking away what stood at the entry's name may have closed or removed the directory.
		from, err := a.existing(targetDir)
		if err != nil {
			return err
		}
		return e.dir.Link(from.Dir, targetBase, e.base)
	})
	switch {
	case tree.Missing(err):
		return fault.New(fault.Invalid, "hard link to %q, which is not in the archive", shorten(e.h.Linkname))
	case tree.Denied(err):
		return fault.Wrap(fault.Invalid, err, "hard link to %q", shorten(e.h.Linkname)) // a directory
	}
	return err
}

func (a *applier) node(e *making) error {
	var typ uint32 = tree.TypeFifo
	var major, minor uint32
	if e.h.Type != tarstream.Fifo {
		typ = tree.TypeChar
		if e.h.Type == tarstream.Block {
			typ = tree.TypeBlock
		}
		if e.h.Major < 0 || e.h.Minor < 0 || e.h.Major > 0xfff || e.h.Minor > 0xfffff {
			return fault.New(fault.Invalid, "no device has the number %d:%d", e.h.Major, e.h.Minor)
		}
		major, minor = uint32(e.h.Major), uint32(e.h.Minor)
	}
	err := a.fresh(e, func() error { return e.dir.Mknod(e.base, typ|e.perm&0o777, major, minor) })
	if err != nil {
		return err
	}
	if err := e.dir.Chown(e.base, int(e.uid), int(e.gid)); err != nil {
		return err
	}
	if err := e.dir.Chmod(e.base, e.perm); err != nil {
		return err
	}
	if err := setXattrs(e.h.Xattrs, func(attr string, v []byte) error { return e.dir.SetXattr(e.base, attr, v) }); err != nil {
		return err
	}
	atime, mtime := timesOf(e.h)
	return e.dir.Chtimes(e.base, atime, mtime)
}

// owner gives the entry's owner on disk.
func (a *applier) owner(h *tarstream.Header) (uid, gid uint32, err error) {
	const top = 1<<32 - 2 // the last number means "leave it" to chown(2)
	if h.UID < 0 || h.GID < 0 || h.UID > top || h.GID > top {
		return 0, 0, fault.New(fault.Invalid, "no user or group has the number %d:%d", h.UID, h.GID)
	}
	uid, gid = uint32(h.UID), uint32(h.GID)
	if a.o.Owner != nil {
		uid, gid = a.o.Owner(uid, gid)
	}
	return uid, gid, nil
}

func timesOf(h *tarstream.Header) (atime, mtime tree.Time) {
	mtime = tree.Time(h.ModTime)
	atime = tree.Time(h.Access)
	if atime.Sec < mtime.Sec {
		atime = mtime
	}
	return atime, mtime
}

func (a *applier) laterTimes(real string, h *tarstream.Header) {
	atime, mtime := timesOf(h)
	a.times = append(a.times, dirTime{real, atime, mtime})
}

func (a *applier) setDirTimes() error {
	for _, t := range a.times {
		dir, linked, err := a.root.Open(t.real)
		if tree.Missing(err) || tree.Impossible(err) {
			continue // replaced by a later entry
		}
		if err == nil && !linked {
			err = dir.Chtimes("", t.atime, t.mtime)
		}
		if dir != nil {
			dir.Close()
		}
		if err != nil {
			return fault.In(err, "set times of %q", t.real)
		}
	}
	return nil
}

// recorder gives the tar reader its recorder: a nil Recorder must become a nil interface of the other type.
func (a *applier) recorder() tarstream.Recorder {
	if a.o.Record == nil {
		return nil
	}
	return a.o.Record
}

// cleanName gives an entry's path below the root, "" for the root itself.
func cleanName(name string) (string, error) {
	if len(name) > 4096 {
		return "", fault.New(fault.Invalid, "path of %d bytes: no path may be longer than 4096", len(name))
	}
	clean := path.Clean(strings.TrimLeft(name, "/"))
	switch {
	case name == "":
		return "", fault.New(fault.Invalid, "entry without a name")
	case clean == "." || clean == "/":
		return "", nil
	case clean == ".." || strings.HasPrefix(clean, "../"):
		return "", fault.New(fault.Invalid, "path %q leads out of the root", shorten(name))
	}
	return clean, nil
}

func splitName(name string) (dir, base string) {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i], name[i+1:]
	}
	return "", name
}

func join(dir, base string) string {
	if dir == "" {
		return base
	}
	return strings.TrimSuffix(dir, "/") + "/" + base // the root alone has a slash at its end
}

// shorten keeps a hostile name from filling a log.
func shorten(name string) string {
	if len(name) > 200 {
		return name[:200] + "…"
	}
	return name
}
