package logs

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"berth/base/fault"
)

const (
	chunk = 64 << 10
	// poll is how often a follower looks without being woken: the safety net for a lost or impossible inotify watch.
	poll = time.Second
)

// Options selects lines.
type Options struct {
	Stdout, Stderr bool
	Since, Until   time.Time // zero: no bound
	Tail           int       // last N lines of all files, whatever their stream; negative: all
	Follow         bool
	Local          bool // the files have the local driver's format, not json-file's
	// Ended tells a follower that nothing will be written any more; it then reads to the end. Nil: never.
	Ended <-chan struct{}
}

// Reader hands out the lines of one log. Next may be called by one goroutine, Close by any.
type Reader struct {
	path   string
	opt    Options
	format format
	watch  *Watch // nil unless following

	mu    sync.Mutex // held by Next, and by the end of Close; guards all below up to the next gap
	files []*file    // still to read, oldest first; the first is being read
	off   int64      // how far the first was read
	buf   []byte     // read, not yet handed out
	skip  int        // records to pass over
	gap   bool       // the file that was read last had gone when it was to be followed: there may have been others
	over  bool       // nothing more is handed out

	head   [headLen]byte // of the file with the inode headOf
	headOf uint64
	last   Pos // once over: where it was

	closeOnce sync.Once
	closed    chan struct{}
}

// Open starts reading the log at path. A log that does not exist is empty. w may be nil: followers then only poll.
func Open(path string, opt Options, w *Watcher) (*Reader, error) {
	r := &Reader{path: path, opt: opt, format: newFormat(opt.Local), closed: make(chan struct{})}
	if opt.Follow && w != nil {
		r.watch = w.Watch(path) // before the first look: no wake-up is lost
	}
	var err error
	if r.files, err = openAll(path); err == nil {
		if opt.Tail >= 0 {
			err = r.seekTail(opt.Tail)
		} else if !opt.Since.IsZero() {
			r.skipBefore(opt.Since)
		}
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
		l, ok := r.format.decode(raw)
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
		if r.over || r.isClosed() {
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
			more = (ended || len(r.files) > 1) && r.resume()
		}
		if err == nil && !more {
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
			if len(r.buf) == 0 {
				r.buf = nil // there may be a thousand followers that wait
			}
			if !r.wait() {
				r.release()
				return nil, io.EOF
			}
		}
	}
}

// cut takes a record out of what was read.
func (r *Reader) cut() ([]byte, bool) {
	for {
		record, n := r.format.cut(r.buf)
		if n == 0 {
			return nil, false
		}
		r.buf = r.buf[n:]
		if record == nil {
			continue
		}
		if r.skip > 0 {
			r.skip--
			continue
		}
		return record, true
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
	f := r.files[0]
	n, err := f.read(r.buf[len(r.buf):len(r.buf)+chunk], r.off)
	r.buf = r.buf[:len(r.buf)+n]
	r.off += int64(n)
	if n > 0 {
		return true, nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fault.Wrap(fault.Internal, err, "reading the container's log")
	}
	st, err := f.Stat()
	switch {
	case err != nil || f.packed() || st.Size() >= r.off:
	case st.Size() > 0 && st.Size() >= r.off-int64(len(r.buf)): // on a full disk the keeper took back a part of a record
		r.buf = r.buf[:st.Size()-(r.off-int64(len(r.buf)))]
		r.off = st.Size()
	default: // somebody emptied it: begin anew
		r.goTo(r.files)
		return st.Size() > 0, nil
	}
	return false, nil
}

// resume passes over a record that will not become whole, to the next one behind it: a power cut may have torn it.
func (r *Reader) resume() bool {
	n := r.format.resume(r.buf)
	r.buf = r.buf[n:]
	return n > 0
}

// goTo goes on with the first of these files.
func (r *Reader) goTo(files []*file) {
	r.files, r.off, r.buf, r.skip = files, 0, r.buf[:0], 0
	r.format.reset()
}

// nextFile goes on to the next newer file, if there is one. What a file holds after its last whole record is no record.
func (r *Reader) nextFile() (bool, error) {
	if len(r.files) > 1 {
		r.files[0].Close()
		r.goTo(r.files[1:])
		return true, nil
	}
	if !r.opt.Follow {
		return false, nil
	}
	var last *file
	if len(r.files) == 1 {
		last = r.files[0]
		if now, err := os.Stat(r.path); err != nil || os.SameFile(last.info, now) {
			return false, nil // not rotated, or in the middle of it
		}
		// The writer's last words in it may have come after the last look and before the rotation.
		if more, err := r.fill(); more || err != nil {
			return more, err
		}
	}
	newer, err := openAll(r.path)
	if err != nil {
		return false, err
	}
	if last != nil {
		all := len(newer)
		newer = newerThan(newer, last)
		r.gap = r.gap || len(newer) == all
	}
	if len(newer) == 0 {
		return false, nil
	}
	closeFiles(r.files)
	r.goTo(newer)
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
	if !r.over {
		r.last = r.pos()
	}
	closeFiles(r.files)
	r.files, r.over = nil, true
	if r.watch != nil {
		r.watch.Close()
	}
}

// seekTail drops all but the last n records.
func (r *Reader) seekTail(n int) error {
	for i := len(r.files) - 1; i >= 0; i-- {
		t, err := r.files[i].tail(r.format, n)
		if err != nil {
			return err
		}
		if n -= t.found; n > 0 {
			continue
		}
		closeFiles(r.files[:i])
		r.goTo(r.files[i:])
		r.off, r.skip = t.off, t.skip
		return nil
	}
	return nil
}

// skipBefore drops compressed files whose last record is older.
func (r *Reader) skipBefore(since time.Time) {
	for len(r.files) > 1 && r.files[0].packed() && !r.files[0].last.IsZero() && r.files[0].last.Before(since) {
		r.files[0].Close()
		r.files = r.files[1:]
	}
}
