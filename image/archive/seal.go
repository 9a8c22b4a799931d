package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"berth/base/fault"
	"berth/kernel/tree"
)

// SealOptions say how an upper directory becomes a layer.
type SealOptions struct {
	Whiteouts Whiteouts // Overlay or OverlayUserNS
	Record    Recorder  // keeps what rebuilds the archive
	// Root is what the root directory looked like before: an entry for it is written where it has changed.
	RootMode, RootUID, RootGID uint32
	// Began is when writing began; zero: no time of a directory counts that has changed in nothing else.
	Began time.Time
}

// Sealed tells what Seal made.
type Sealed struct {
	Size    int64 // as Applied.Size
	TarSize int64
	Entries int64 // of the archive; 0: nothing has changed
	Root    bool  // the archive has an entry for the root itself
	Marks   bool  // it deletes something of the layers below
}

// Seal makes an overlay's upper directory, which nobody uses any more, the layer that it is: it writes the archive, and
// leaves on disk exactly what unpacking that archive would. below is the tree that the upper directory was on top of, nil for none.
//
// What goes from the disk, because it says nothing or no archive can say it: directories and files that are as they are below
// (overlayfs copies a file up for a chown that changes nothing), deletions of what is not below, sockets, overlayfs's own
// attributes, fractions of seconds, names that an archive takes for whiteouts. Times of directories that have changed in
// nothing else are those of below, unless somebody set them: such a time is from before
// writing began, or from the future. A directory that replaces the one below becomes one that deletes each of its names,
// so that the layer means the same on top of anything: opaque directories would also hide what others lay below it.
//
// So the archive depends on the difference alone: equal steps give equal layers but for the times of the files that they write.
func Seal(ctx context.Context, upper, below *tree.Dir, w io.Writer, o SealOptions) (*Sealed, error) {
	out := &sealWriter{w: w, rec: o.Record}
	s := &sealer{ctx: ctx, o: o, out: out, tw: tar.NewWriter(out), links: map[inode]string{}, buf: make([]byte, 256<<10)}
	if err := s.root(upper); err != nil {
		return nil, err
	}
	if err := s.children(upper, below, "", false); err != nil {
		return nil, err
	}
	if err := s.tw.Close(); err != nil {
		return nil, err
	}
	s.done.TarSize = out.n
	return &s.done, nil
}

// sealWriter gives the archive to the hash and, but for the contents of files, to the recorder.
type sealWriter struct {
	w       io.Writer
	rec     Recorder
	n       int64
	content bool // what comes is a file's
}

func (s *sealWriter) Write(p []byte) (int, error) {
	s.n += int64(len(p))
	if !s.content {
		if err := s.rec.Bytes(p); err != nil {
			return 0, err
		}
	}
	return s.w.Write(p)
}

type sealer struct {
	ctx     context.Context // of one Seal
	o       SealOptions
	out     *sealWriter
	tw      *tar.Writer
	links   map[inode]string // first name of files with several
	pending []*tar.Header    // directories above, not changed themselves: written with the first change in them
	done    Sealed
	buf     []byte
	count   int
	marks   int // deletions written

	upper, below tree.Descent
}

// root writes an entry for the root where it has changed.
func (s *sealer) root(upper *tree.Dir) error {
	st, err := upper.Stat("")
	if err != nil {
		return err
	}
	records, err := s.xattrs(own{upper})
	if err != nil {
		return err
	}
	perm := st.Mode & tree.PermMask
	if perm == s.o.RootMode && st.UID == s.o.RootUID && st.GID == s.o.RootGID && len(records.pax) == 0 {
		// The tree says nothing of its root; unpacked it would be a plain directory.
		if err := upper.Chown("", 0, 0); err != nil {
			return err
		}
		return upper.Chmod("", 0o755)
	}
	s.done.Root = true
	h := s.base("./", &st)
	h.Typeflag, h.PAXRecords = tar.TypeDir, records.pax
	return s.header(h)
}

// children seals what is in a directory. hide: what below has of other names is deleted.
func (s *sealer) children(upper, below *tree.Dir, name string, hide bool) error {
	entries, err := upper.Entries()
	if err != nil {
		return err
	}
	if hide && below != nil {
		if entries, err = s.hideRest(upper, below, entries); err != nil {
			return err
		}
	}
	before := s.marks
	for _, e := range entries {
		if s.count++; s.count%256 == 0 && s.ctx.Err() != nil {
			return s.ctx.Err()
		}
		if err := s.entry(upper, below, e, join(name, e.Name), hide); err != nil {
			return fault.At(err, "seal %q", join(name, e.Name))
		}
	}
	if s.marks == before {
		return nil
	}
	return s.o.Whiteouts.holdsMarks(upper)
}

// hideRest marks what below has and upper has not as deleted, and gives upper's entries with those marks, sorted.
func (s *sealer) hideRest(upper, below *tree.Dir, entries []tree.Entry) ([]tree.Entry, error) {
	have := make(map[string]bool, len(entries))
	for _, e := range entries {
		have[e.Name] = true
	}
	there, err := below.Names()
	if err != nil {
		return nil, err
	}
	for _, n := range there {
		if have[n] {
			continue
		}
		if _, err := below.Stat(n); tree.Missing(err) { // a mark that shows where directories are not merged
			continue
		} else if err != nil {
			return nil, err
		}
		if err := upper.Mknod(n, tree.TypeChar, 0, 0); err != nil {
			return nil, err
		}
		entries = append(entries, tree.Entry{Name: n, Type: tree.TypeChar})
	}
	slices.SortFunc(entries, func(a, b tree.Entry) int { return strings.Compare(a.Name, b.Name) })
	return entries, nil
}

func (s *sealer) entry(upper, below *tree.Dir, e tree.Entry, name string, hide bool) error {
	base := e.Name
	if len(name) > 4096 {
		return fault.New(fault.Invalid, "path of %d bytes: no path may be longer than 4096", len(name))
	}
	if strings.HasPrefix(base, whiteoutPrefix) {
		return upper.RemoveAll(base)
	}
	if below == nil && e.Type == tree.TypeRegular { // nearly every file of a large layer: opening it tells the rest
		return s.regular(upper, nil, base, name, nil)
	}
	st, err := upper.Stat(base)
	if err != nil {
		return err
	}
	var was *tree.Stat
	if below != nil {
		switch b, err := below.Stat(base); {
		case err == nil:
			if !b.IsWhiteout() {
				was = &b
			}
		case !tree.Missing(err):
			return err
		}
	}
	switch {
	case st.IsWhiteout():
		return s.whiteout(upper, base, name, was)
	case st.Type() == tree.TypeSocket:
		if was == nil {
			return upper.Unlink(base)
		}
		// What it replaced is gone all the same.
		if err := upper.Unlink(base); err != nil {
			return err
		}
		if err := upper.Mknod(base, tree.TypeChar, 0, 0); err != nil {
			return err
		}
		return s.whiteout(upper, base, name, was)
	case st.IsDir():
		return s.dir(upper, below, base, name, &st, was, hide)
	case st.Type() == tree.TypeRegular:
		return s.regular(upper, below, base, name, was)
	}
	return s.special(upper, below, base, name, &st, was)
}

func (s *sealer) whiteout(upper *tree.Dir, base, name string, was *tree.Stat) error {
	if was == nil {
		return upper.Unlink(base)
	}
	s.done.Marks = true
	s.marks++
	dir, _ := splitName(name)
	// When something was deleted, and by whom, is no part of the difference.
	return s.header(&tar.Header{Name: join(dir, whiteoutPrefix+base), Typeflag: tar.TypeReg, Mode: 0o600, ModTime: time.Unix(0, 0), Format: tar.FormatPAX})
}

func (s *sealer) dir(parent, belowParent *tree.Dir, base, name string, st, was *tree.Stat, hide bool) error {
	d, err := s.upper.Enter(parent, base)
	if err != nil {
		return err
	}
	defer d.Close()
	x, err := s.xattrs(own{d})
	if err != nil {
		return err
	}
	var below *tree.Dir
	if was != nil && was.IsDir() {
		if below, err = s.below.Enter(belowParent, base); err != nil {
			return err
		}
		defer below.Close()
	}
	h := s.base(name+"/", st)
	h.Typeflag, h.PAXRecords = tar.TypeDir, x.pax
	same := false
	if below != nil && sameLooks(st, was) && !s.timeSet(st, was) {
		if same, err = sameXattrs(x.pax, below); err != nil {
			return err
		}
	}
	mark := len(s.pending)
	if same {
		h.ModTime = time.Unix(was.Mtime.Sec, 0)
		s.pending = append(s.pending, h)
	} else if err := s.header(h); err != nil {
		return err
	}
	if err := s.children(d, below, name, hide || x.opaque); err != nil {
		return err
	}
	if below != nil {
		if err := s.below.Leave(below); err != nil {
			return err
		}
	}
	if len(s.pending) > mark { // still not written: nothing in it has changed
		s.pending = s.pending[:mark]
		if err := s.upper.Leave(d); err != nil {
			return err
		}
		return parent.RemoveAll(base)
	}
	if err := d.SetMtime("", tree.Time{Sec: h.ModTime.Unix()}); err != nil {
		return err
	}
	return s.upper.Leave(d)
}

// timeSet tells whether somebody gave a directory the time that it has. The kernel gives it the present one with each name that comes
// or goes in it, which says nothing.
func (s *sealer) timeSet(st, was *tree.Stat) bool {
	if s.o.Began.IsZero() || st.Mtime.Sec == was.Mtime.Sec {
		return false
	}
	const slack = 2 // seconds: the kernel's clock for files is behind by a tick, and times are kept in whole seconds
	return st.Mtime.Sec < s.o.Began.Unix()-slack || st.Mtime.Sec > time.Now().Unix()+slack
}

func (s *sealer) regular(upper, below *tree.Dir, base, name string, was *tree.Stat) error {
	f, now, err := upper.OpenEntry(base)
	if err != nil {
		return err
	}
	defer f.Close()
	st, id := &now, inode{now.Dev, now.Ino}
	if first, ok := s.links[id]; ok && st.Nlink > 1 {
		h := s.base(name, st)
		h.Typeflag, h.Linkname = tar.TypeLink, first
		return s.header(h)
	}
	x, err := s.xattrs(f)
	if err != nil {
		return err
	}
	if was != nil && st.Nlink == 1 && sameLooks(st, was) && st.Size == was.Size && st.Mtime == was.Mtime {
		same, err := s.unchanged(f, below, base, st.Size, x.pax)
		if err != nil {
			return err
		}
		if same {
			return upper.Unlink(base)
		}
	}
	h := s.base(name, st)
	h.Typeflag, h.Size, h.PAXRecords = tar.TypeReg, st.Size, x.pax
	if err := s.header(h); err != nil {
		return err
	}
	s.done.Size += st.Size
	if st.Nlink > 1 {
		s.links[id] = name
	}
	if st.Size > 0 {
		if err := s.content(f, name, st); err != nil {
			return err
		}
	}
	if st.Mtime.Nsec == 0 {
		return nil
	}
	return f.SetMtime(tree.Time{Sec: st.Mtime.Sec})
}

// content writes a file's bytes; the recorder hears only how many. Holes are not read.
func (s *sealer) content(f *tree.File, name string, st *tree.Stat) error {
	if _, err := s.o.Record.File(name, 0, st.Size); err != nil {
		return err
	}
	s.out.content = true
	defer func() { s.out.content = false }()
	sparse := st.Blocks*512 < st.Size
	for at := int64(0); at < st.Size; {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		start, end := at, st.Size
		if sparse {
			a, b, ok, err := f.NextData(at)
			if err != nil {
				return err
			}
			if start, end = min(a, st.Size), min(b, st.Size); !ok {
				start, end = st.Size, st.Size
			}
		}
		for n := start - at; n > 0; {
			m, err := s.tw.Write(zeros[:min(n, int64(len(zeros)))])
			if err == nil {
				err = s.ctx.Err() // a hole may be larger than all disks
			}
			if err != nil {
				return err
			}
			n -= int64(m)
		}
		for at = start; at < end; {
			b := s.buf[:min(end-at, int64(len(s.buf)))]
			if _, err := f.ReadAt(b, at); err != nil {
				return err // also when it shrank: nobody may write to it any more
			}
			if _, err := s.tw.Write(b); err != nil {
				return err
			}
			at += int64(len(b))
			if err := s.ctx.Err(); err != nil {
				return err
			}
		}
	}
	return nil
}

// unchanged compares a file with the one of its name below, which has the same looks, size and time.
func (s *sealer) unchanged(f *tree.File, below *tree.Dir, base string, size int64, pax map[string]string) (bool, error) {
	b, _, err := below.OpenEntry(base)
	if err != nil {
		return false, err
	}
	defer b.Close()
	x, err := portableXattrs(b)
	if err != nil || !equalRecords(pax, x.pax) {
		return false, err
	}
	one, two := s.buf[:len(s.buf)/2], s.buf[len(s.buf)/2:]
	for at := int64(0); at < size; {
		n := min(size-at, int64(len(one)))
		if _, err := f.ReadAt(one[:n], at); err != nil {
			return false, err
		}
		if _, err := b.ReadAt(two[:n], at); err != nil {
			return false, err
		}
		if !bytes.Equal(one[:n], two[:n]) {
			return false, nil
		}
		if err := s.ctx.Err(); err != nil {
			return false, err
		}
		at += n
	}
	return true, nil
}

// special seals a symbolic link, a device or a fifo.
func (s *sealer) special(upper, below *tree.Dir, base, name string, st, was *tree.Stat) error {
	h := s.base(name, st)
	switch st.Type() {
	case tree.TypeSymlink:
		target, err := upper.Readlink(base)
		if err != nil {
			return err
		}
		if was != nil && sameLooks(st, was) && st.Mtime == was.Mtime {
			if old, err := below.Readlink(base); err == nil && old == target {
				return upper.Unlink(base)
			}
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, target
		s.done.Size += int64(len(target))
	case tree.TypeChar:
		h.Typeflag = tar.TypeChar
	case tree.TypeBlock:
		h.Typeflag = tar.TypeBlock
	case tree.TypeFifo:
		h.Typeflag = tar.TypeFifo
	default:
		return fault.New(fault.Invalid, "a file of the type %o has no place in a layer", st.Type())
	}
	if h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock {
		h.Devmajor, h.Devminor = int64(st.Major), int64(st.Minor)
	}
	if st.Nlink > 1 && st.Type() != tree.TypeSymlink {
		id := inode{st.Dev, st.Ino}
		if first, ok := s.links[id]; ok {
			h.Typeflag, h.Linkname, h.Devmajor, h.Devminor = tar.TypeLink, first, 0, 0
			return s.header(h)
		}
		s.links[id] = name
	}
	if err := s.header(h); err != nil || st.Mtime.Nsec == 0 {
		return err
	}
	return upper.SetMtime(base, tree.Time{Sec: st.Mtime.Sec})
}

// header writes an entry's header, after those of the directories above that wait for something to change in them.
func (s *sealer) header(h *tar.Header) error {
	for _, p := range s.pending {
		s.done.Entries++
		if err := s.tw.WriteHeader(p); err != nil {
			return err
		}
	}
	s.pending = s.pending[:0]
	s.done.Entries++
	return s.tw.WriteHeader(h)
}

func (s *sealer) base(name string, st *tree.Stat) *tar.Header {
	return &tar.Header{Name: name, Mode: int64(st.Mode & tree.PermMask), Uid: int(st.UID), Gid: int(st.GID), ModTime: time.Unix(st.Mtime.Sec, 0), Format: tar.FormatPAX}
}

// sameLooks compares type, permissions and owner.
func sameLooks(a, b *tree.Stat) bool {
	return a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID && a.Major == b.Major && a.Minor == b.Minor
}
