package logs

import (
	"io"
	"os"
	"slices"

	"berth/base/fault"
)

// Pos is a place in a log that lasts: behind the record that was handed out last. The zero value is before all.
type Pos struct {
	Inode uint64
	Off   int64
	Head  [headLen]byte // how the file begins, against an inode that is another file's by now; zero where Off is 0
}

// headLen is as much of a local log as holds the first record's time.
const headLen = 24

// OpenAt reads on from pos, following. missed: the file of pos is gone, so that something may have been; it reads from the oldest file on
// that is not compressed (what is was shipped).
func OpenAt(path string, pos Pos, opt Options, w *Watcher) (r *Reader, missed bool, err error) {
	r = &Reader{path: path, opt: opt, format: newFormat(opt.Local), closed: make(chan struct{})}
	if w != nil && opt.Follow {
		r.watch = w.Watch(path)
	}
	all, err := openAll(path)
	if err != nil {
		r.release()
		return nil, false, fault.Wrap(fault.Internal, err, "opening the container's log")
	}
	for _, f := range all {
		if f.packed() {
			f.Close()
		} else {
			r.files = append(r.files, f)
		}
	}
	at := slices.IndexFunc(r.files, func(f *file) bool { return f.inode() == pos.Inode && f.begins(pos) })
	if at < 0 {
		return r, pos != Pos{}, nil
	}
	closeFiles(r.files[:at])
	r.goTo(r.files[at:])
	r.off = pos.Off
	return r, false, nil
}

// begins reports whether a file is the one of pos.
func (f *file) begins(pos Pos) bool {
	if pos.Off == 0 {
		return true
	}
	head, err := f.head()
	return err == nil && head == pos.Head && f.info.Size() >= pos.Off
}

func (f *file) head() (head [headLen]byte, err error) {
	_, err = io.ReadFull(io.NewSectionReader(f, 0, headLen), head[:])
	return head, err
}

// Pos gives where Next goes on, or would if the Reader had not been closed meanwhile. It is for the goroutine that calls Next.
func (r *Reader) Pos() Pos {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return r.last
	}
	return r.pos()
}

// pos is Pos of a Reader that is open; r.mu is held.
func (r *Reader) pos() Pos {
	if len(r.files) == 0 {
		return Pos{}
	}
	p := Pos{Inode: r.files[0].inode(), Off: r.off - int64(len(r.buf))}
	if p.Off > 0 {
		if r.headOf != p.Inode {
			r.head, _ = r.files[0].head()
			r.headOf = p.Inode
		}
		p.Head = r.head
	}
	return p
}

// Behind gives how many bytes of the log come after what was handed out.
func (r *Reader) Behind() int64 {
	pos := r.Pos()
	return After(r.path, pos)
}

// After gives how many bytes of a log come after pos; all, where its file is gone.
func After(path string, pos Pos) (sum int64) {
	missing := 0
	for n := 0; missing < 2; n++ {
		st, err := os.Lstat(numbered(path, n))
		if err != nil {
			missing++
			continue
		}
		missing = 0
		if inodeOf(st) == pos.Inode {
			return sum + max(0, st.Size()-pos.Off)
		}
		sum += st.Size()
	}
	return sum
}

// Gap reports, once, that files may have been rotated away, or cleared, before they were read.
func (r *Reader) Gap() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	gap := r.gap
	r.gap = false
	return gap
}

// Waiting reports whether Next would hand out a record, or find the end, without waiting for the writer.
func (r *Reader) Waiting() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, n := r.format.cut(r.buf)
	return n > 0
}

// Newer reports whether the plain file of an inode is newer than the one that was seen as number n. Rotations may go on meanwhile: they only
// raise numbers, so that what has a lower one by now always had. False where it is not known.
func Newer(path string, inode uint64, n int) bool {
	for i := range n {
		if st, err := os.Lstat(numbered(path, i)); err == nil && inodeOf(st) == inode {
			return true
		}
	}
	return false
}
