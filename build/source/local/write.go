package local

import (
	"bytes"
	"crypto/sha256"
	"hash"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/mem"

	"berth/base/fault"
	"berth/kernel/tree"
)

// file is a regular file on its way.
type file struct {
	record   int    // of the new index
	path     string // below the tree's root
	mode     uint32
	uid, gid uint32
	mtime    int64
	raw      []byte // the stat, where it has extended attributes

	// The writer's until it has ended.
	out    *tree.File
	hash   hash.Hash
	digest [sumLen]byte
	done   bool
}

func newFile(record int, st *stat) *file {
	f := &file{record: record, path: string(st.path), mode: st.unixMode(), uid: st.uid, gid: st.gid, mtime: st.mtime}
	if st.xattrs {
		f.raw = bytes.Clone(st.raw)
	}
	return f
}

// writers write files, each one's pieces in their order. What they wrote in part is deleted when they end.
type writers struct {
	root   *tree.Dir
	list   []*writer
	wg     sync.WaitGroup
	failed func(error) // called with the first error

	mu  sync.Mutex // guards err
	err error
}

// writer is one of them.
type writer struct {
	all  *writers
	jobs chan job
	dirs dirs
	open map[*file]bool
}

// job is a piece of a file; no bytes are its end.
type job struct {
	f    *file
	data []byte
	buf  mem.Buffer
}

const (
	maxWriters = 4
	queueLen   = 64   // pieces of 32 KB that wait for a writer
	maxOpen    = 1024 // files at once; a client sends four at a time
)

func newWriters(root *tree.Dir, failed func(error)) *writers {
	return &writers{root: root, failed: failed}
}

// write hands a piece to the file's writer, which frees buf.
func (w *writers) write(f *file, data []byte, buf mem.Buffer) error {
	if w.list == nil {
		for range min(maxWriters, runtime.GOMAXPROCS(0)) {
			one := &writer{all: w, jobs: make(chan job, queueLen), dirs: dirs{root: w.root}, open: map[*file]bool{}}
			w.list = append(w.list, one)
			w.wg.Go(one.run)
		}
	}
	w.mu.Lock()
	err := w.err
	w.mu.Unlock()
	if err != nil {
		buf.Free()
		return err
	}
	w.list[f.record%len(w.list)].jobs <- job{f, data, buf}
	return nil
}

// wait waits until everything is written, and gives the first error. It ends the writers.
func (w *writers) wait() error {
	for _, one := range w.list {
		close(one.jobs)
	}
	w.wg.Wait()
	w.list = nil
	return w.err
}

func (w *writers) fail(err error) {
	w.mu.Lock()
	first := w.err == nil
	if first {
		w.err = err
	}
	w.mu.Unlock()
	if first {
		w.failed(err)
	}
}

func (w *writer) run() {
	defer w.dirs.close()
	broken := false
	for j := range w.jobs {
		if !broken {
			if err := w.piece(j); err != nil {
				broken = true
				w.all.fail(err)
			}
		}
		j.buf.Free()
	}
	for f := range w.open {
		_ = f.out.Close()
		if d, base, err := w.place(f); err == nil {
			_ = d.Unlink(base)
		}
	}
}

func (w *writer) place(f *file) (*tree.Dir, string, error) {
	dir, base := split([]byte(f.path))
	d, err := w.dirs.get(dir)
	return d, string(base), err
}

// piece writes a piece; the first makes the file, the last gives it its attributes.
func (w *writer) piece(j job) error {
	f := j.f
	if f.out == nil {
		if len(w.open) >= maxOpen {
			return fault.New(fault.Invalid, "the client sends more than %d files at once", maxOpen)
		}
		d, base, err := w.place(f)
		if err != nil {
			return err
		}
		if f.out, err = d.Create(base, 0o600); err != nil {
			return err
		}
		f.hash = sha256.New()
		w.open[f] = true
	}
	if len(j.data) > 0 {
		f.hash.Write(j.data)
		_, err := f.out.Write(j.data)
		return err
	}
	f.hash.Sum(f.digest[:0])
	if err := f.finish(); err != nil {
		return err
	}
	delete(w.open, f)
	f.hash, f.done = nil, true
	return nil
}

// finish gives a file its attributes.
func (f *file) finish() error {
	if f.uid != 0 || f.gid != 0 {
		if err := f.out.Chown(int(f.uid), int(f.gid)); err != nil {
			return err
		}
	}
	if f.raw != nil {
		st, _ := parseStat(f.raw)
		for _, x := range st.attrs() {
			_ = f.out.SetXattr(x.Name, []byte(x.Value)) // a file system without them is no reason to fail
		}
	}
	if err := f.out.Chmod(f.mode & tree.PermMask); err != nil {
		return err
	}
	if err := f.out.Chtimes(timeOf(f.mtime), timeOf(f.mtime)); err != nil {
		return err
	}
	return f.out.Close()
}

// makeSpecial makes what is neither a regular file nor a directory.
func makeSpecial(d *tree.Dir, base string, st *stat) error {
	mode := st.unixMode()
	var err error
	switch mode & tree.TypeMask {
	case tree.TypeSymlink:
		err = d.Symlink(string(st.link), base)
	case tree.TypeChar, tree.TypeBlock, tree.TypeFifo:
		if mode&tree.TypeMask == tree.TypeChar && st.major == 0 && st.minor == 0 {
			return fault.New(fault.Invalid, "%s is a device 0/0, which an image cannot hold", st.path)
		}
		err = d.Mknod(base, mode&^tree.PermMask|0o600, uint32(st.major), uint32(st.minor))
	default:
		return fault.New(fault.Invalid, "%s is of a kind that an image cannot hold", st.path)
	}
	if err != nil {
		return err
	}
	return setAttributes(d, base, st)
}

// setAttributes gives a file that is there its owner, mode, attributes and time. A base of "" is the directory itself.
func setAttributes(d *tree.Dir, base string, st *stat) error {
	if err := d.Chown(base, int(st.uid), int(st.gid)); err != nil {
		return err
	}
	mode := st.unixMode()
	if mode&tree.TypeMask != tree.TypeSymlink {
		for _, x := range st.attrs() {
			_ = d.SetXattr(base, x.Name, []byte(x.Value))
		}
		if err := d.Chmod(base, mode&tree.PermMask); err != nil {
			return err
		}
	}
	return d.Chtimes(base, timeOf(st.mtime), timeOf(st.mtime))
}

func timeOf(ns int64) tree.Time {
	ts := unix.NsecToTimespec(ns)
	return tree.Time{Sec: int64(ts.Sec), Nsec: int64(ts.Nsec)}
}

// dirs keeps the directory open that was used last: files come directory by directory.
type dirs struct {
	root *tree.Dir
	path []byte
	dir  *tree.Dir
}

// get opens a directory by its path below the root, "" being that. It is good until the next get or forget.
func (d *dirs) get(path []byte) (*tree.Dir, error) {
	if len(path) == 0 {
		return d.root, nil
	}
	if d.dir != nil && bytes.Equal(d.path, path) {
		return d.dir, nil
	}
	d.forget()
	sub, linked, err := d.root.Open(string(path))
	if err != nil {
		return nil, err
	}
	if linked { // nobody but us makes names here, and we look at every parent
		_ = sub.Close()
		return nil, fault.New(fault.Internal, "%s is a link", path)
	}
	d.path, d.dir = append(d.path[:0], path...), sub
	return sub, nil
}

// forget closes it: it is going to be removed.
func (d *dirs) forget() {
	if d.dir != nil {
		_ = d.dir.Close()
		d.dir = nil
	}
}

func (d *dirs) close() { d.forget() }
