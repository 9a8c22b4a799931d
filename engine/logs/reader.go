package logs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"sync"
	"time"

	"berth/base/fault"
)

const (
	chunk = 64 << 10
	// maxLine bounds one line of a file. The keeper splits output at 16 KiB, which JSON may blow up sixfold, plus attributes.
	maxLine = 4 << 20
	// poll is how often a follower looks without being woken: the safety net for a lost or impossible inotify watch.
	poll = time.Second
)

// Options selects lines.
type Options struct {
	Stdout, Stderr bool
	Since, Until   time.Time // zero: no bound
	Tail           int       // last N lines of all files, whatever their stream; negative: all
	Follow         bool
	// Ended tells a follower that nothing will be written any more; it then reads to the end. Nil: never.
	Ended <-chan struct{}
}

// Reader hands out the lines of one log. Next may be called by one goroutine, Close by any.
type Reader struct {
	path  string
	opt   Options
	watch *Watch // nil unless following

	mu    sync.Mutex // held by Next, and by the end of Close; guards all below up to the next gap
	files []*os.File // still to read, oldest first; the first is being read
	off   int64      // how far the first was read
	buf   []byte     // read, not yet handed out
	drop  bool       // skipping the rest of a line that was too long

	closeOnce sync.Once
	closed    chan struct{}
}

// Open starts reading the log at path. A log that does not exist is empty. w may be nil: followers then only poll.
func Open(path string, opt Options, w *Watcher) (*Reader, error) {
	r := &Reader{path: path, opt: opt, closed: make(chan struct{})}
	if opt.Follow && w != nil {
		r.watch = w.Watch(path) // before the first look: no wake-up is lost
	}
	var err error
	if r.files, err = openAll(path); err == nil && opt.Tail >= 0 {
		err = r.seekTail(opt.Tail)
	}
	if err != nil {
		r.release()
		return nil, fault.Wrap(fault.Internal, err, "opening the container's log")
	}
	return r, nil
}

// Next gives the next line; io.EOF at the end, after Close, and beyond Until.
func (r *Reader) Next() (Line, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		raw, err := r.rawLine()
		if err != nil {
			return Line{}, err
		}
		l, ok := decode(raw)
		if !ok || !r.opt.Since.IsZero() && l.Time.Before(r.opt.Since) {
			continue
		}
		if !r.opt.Until.IsZero() && l.Time.After(r.opt.Until) {
			return Line{}, io.EOF
		}
		if l.Stream == 1 && r.opt.Stdout || l.Stream == 2 && r.opt.Stderr {
			return l, nil
		}
	}
}

// Close ends the reader, wakes a Next that waits, and returns when that has left.
func (r *Reader) Close() error {
	r.closeOnce.Do(func() {
		close(r.closed)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.release()
	})
	return nil
}

// rawLine gives the next whole line without its newline. The slice is good until the next call.
func (r *Reader) rawLine() ([]byte, error) {
	for {
		if r.isClosed() {
			return nil, io.EOF
		}
		if line, ok := r.cut(); ok {
			return line, nil
		}
		more, err := r.fill()
		if err != nil {
			r.release()
			return nil, err
		}
		if more {
			continue
		}
		ended := r.ended() // asked before the last look, so that nothing written before the end is missed
		if more, err = r.fill(); err == nil && !more {
			more, err = r.nextFile()
		}
		switch {
		case err != nil:
			r.release()
			return nil, err
		case more:
		case !r.opt.Follow || ended:
			r.release()
			return nil, io.EOF
		default:
			if !r.wait() {
				r.release()
				return nil, io.EOF
			}
		}
	}
}

// cut takes a line out of what was read.
func (r *Reader) cut() ([]byte, bool) {
	for {
		i := bytes.IndexByte(r.buf, '\n')
		if i < 0 {
			if len(r.buf) > maxLine {
				r.buf, r.drop = r.buf[:0], true
			}
			return nil, false
		}
		line := r.buf[:i]
		r.buf = r.buf[i+1:]
		if !r.drop {
			return line, true
		}
		r.drop = false
	}
}

// fill reads on in the first file.
func (r *Reader) fill() (bool, error) {
	if len(r.files) == 0 {
		return false, nil
	}
	if cap(r.buf)-len(r.buf) < chunk {
		r.buf = append(make([]byte, 0, 2*len(r.buf)+chunk), r.buf...)
	}
	n, err := r.files[0].ReadAt(r.buf[len(r.buf):len(r.buf)+chunk], r.off)
	r.buf = r.buf[:len(r.buf)+n]
	r.off += int64(n)
	if n > 0 {
		return true, nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fault.Wrap(fault.Internal, err, "reading the container's log")
	}
	if st, err := r.files[0].Stat(); err == nil && st.Size() < r.off { // cleared: begin anew
		r.off, r.buf = 0, r.buf[:0]
		return st.Size() > 0, nil
	}
	return false, nil
}

// nextFile goes on to the next newer file, if there is one.
func (r *Reader) nextFile() (bool, error) {
	if len(r.files) > 1 {
		r.files[0].Close()
		r.files, r.off, r.buf = r.files[1:], 0, r.buf[:0] // what a file holds after its last newline is no line
		return true, nil
	}
	if !r.opt.Follow {
		return false, nil
	}
	var last fs.FileInfo
	if len(r.files) == 1 {
		st, err := r.files[0].Stat()
		if err != nil {
			return false, fault.Wrap(fault.Internal, err, "reading the container's log")
		}
		if now, err := os.Stat(r.path); err != nil || os.SameFile(st, now) {
			return false, nil // not rotated, or in the middle of it
		}
		last = st
		// The writer's last words in it may have come after the last look and before the rotation.
		if more, err := r.fill(); more || err != nil {
			return more, err
		}
	}
	newer, err := openAll(r.path)
	if err != nil {
		return false, err
	}
	for i, f := range newer {
		if st, err := f.Stat(); last != nil && err == nil && os.SameFile(st, last) {
			for _, f := range newer[:i+1] {
				f.Close()
			}
			newer = newer[i+1:]
			break
		}
	}
	if len(newer) == 0 {
		return false, nil
	}
	for _, f := range r.files {
		f.Close()
	}
	r.files, r.off, r.buf = newer, 0, r.buf[:0]
	return true, nil
}

func (r *Reader) isClosed() bool {
	select {
	case <-r.closed:
		return true
	default:
		return false
	}
}

func (r *Reader) ended() bool {
	select {
	case <-r.opt.Ended:
		return true
	default:
		return false
	}
}

// wait sleeps until there may be more; false when the reader is to end.
func (r *Reader) wait() bool {
	every := poll
	if r.watch == nil || !r.watch.Works() {
		every = poll / 20
	}
	if !r.opt.Until.IsZero() {
		left := time.Until(r.opt.Until)
		if left <= 0 {
			return false
		}
		every = min(every, left)
	}
	t := time.NewTimer(every)
	defer t.Stop()
	var woken <-chan struct{}
	if r.watch != nil {
		woken = r.watch.C
	}
	select {
	case <-woken:
	case <-r.opt.Ended:
	case <-t.C:
	case <-r.closed:
		return false
	}
	return true
}

func (r *Reader) release() {
	for _, f := range r.files {
		f.Close()
	}
	r.files = nil
	if r.watch != nil {
		r.watch.Close()
	}
}

// openAll opens all files of the log, oldest first, as they were at one moment between two rotations.
func openAll(path string) ([]*os.File, error) {
	for try := range 200 {
		if try > 10 {
			time.Sleep(time.Millisecond) // a rotation under way is a few renames
		}
		files, whole, err := openOnce(path)
		if err == nil && whole {
			return files, nil
		}
		for _, f := range files {
			f.Close()
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, fault.New(fault.Unavailable, "the log rotates faster than it can be opened")
}

// openOnce also tells whether it saw the whole log: a rotation, which renames from the oldest file to the newest, leaves a hole while
// it is under way, may show a file at two places, and puts another file at path when it is done.
func openOnce(path string) (files []*os.File, whole bool, err error) {
	var newest, before fs.FileInfo
	for n := 0; ; n++ {
		f, err := os.Open(numbered(path, n))
		if errors.Is(err, fs.ErrNotExist) {
			if _, err := os.Lstat(numbered(path, n+1)); err == nil {
				return files, false, nil
			}
			break
		}
		if err != nil {
			return files, false, err
		}
		files = append([]*os.File{f}, files...)
		st, err := f.Stat()
		if err != nil {
			return files, false, err
		}
		if n == 0 {
			newest = st
		} else if os.SameFile(st, before) {
			return files, false, nil
		}
		before = st
	}
	if newest == nil {
		return nil, true, nil
	}
	now, err := os.Stat(path)
	return files, err == nil && os.SameFile(newest, now), nil
}

func numbered(path string, n int) string {
	if n == 0 {
		return path
	}
	return path + "." + strconv.Itoa(n)
}

// seekTail drops all but the last n lines.
func (r *Reader) seekTail(n int) error {
	for i := len(r.files) - 1; i >= 0; i-- {
		off, found, err := tailOffset(r.files[i], n)
		if err != nil {
			return err
		}
		if n -= found; n > 0 {
			continue
		}
		for _, f := range r.files[:i] {
			f.Close()
		}
		r.files, r.off = r.files[i:], off
		return nil
	}
	return nil
}

// tailOffset finds where the last n whole lines of f begin, and how many there are (at most n). It reads from the end.
func tailOffset(f *os.File, n int) (off int64, found int, err error) {
	st, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	end := st.Size() // exclusive end of what was not looked at
	buf := make([]byte, chunk)
	lastLineEnd := int64(-1)
	for end > 0 {
		from := max(0, end-chunk)
		b := buf[:end-from]
		if _, err := f.ReadAt(b, from); err != nil && !errors.Is(err, io.EOF) {
			return 0, 0, err
		}
		for i := len(b) - 1; i >= 0; i-- {
			if b[i] != '\n' {
				continue
			}
			at := from + int64(i) + 1 // a line ends before at; the next begins there
			if lastLineEnd < 0 {
				if lastLineEnd = at; n == 0 {
					return at, 0, nil
				}
				continue
			}
			if found++; found == n {
				return at, found, nil
			}
		}
		end = from
	}
	if lastLineEnd < 0 { // not one whole line yet
		return 0, 0, nil
	}
	return 0, found + 1, nil
}
