package server

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/runtime/keeper/slate"
	"berth/runtime/keeper/wire"

	"golang.org/x/sys/unix"
)

// The files of a log:
//
//	PATH                the current one, written to
//	PATH.1, PATH.2 …    rotated, older and older
//	PATH.N.gz           the same, compressed: somebody else's work, whose last step (packed) is done here
//
// Only the keeper names them, so that a rotation never meets another's renaming, and a reader that knows
// the order of its steps sees the whole log at any time (berth/engine/logs).

// Log formats.
const (
	formatJSON  = "json-file"
	formatLocal = "local"
)

// errUnshipped says that a rotation would take away what was not shipped.
var errUnshipped = errors.New("the oldest file of the log was not shipped")

// announceAfter is how long after a rotation it is told: logs with tiny files rotate all the time.
const announceAfter = 250 * time.Millisecond

// rotate is a point of no return within a piece: what was written is committed first, so that a
// repetition goes on in the new file.
func (w *writer) rotate() error {
	l := w.l
	if err := w.flush(); err != nil {
		return err
	}
	if l.p.d.Log.Keep && l.unshipped() {
		if l.p.reaped || l.p.finished { // its last words: what pipes hold
			return nil
		}
		return errUnshipped
	}
	if time.Now().Before(l.noRotate) {
		return nil
	}
	w.op.SetCommit(w.done)
	if err := l.rotate(); err != nil {
		l.faults++
		l.p.s.logFaults++
		l.noRotate = time.Now().Add(time.Second)
		l.p.s.say.warn("log rotation failed, the file grows on", "path", l.p.d.Log.Path, "err", err.Error())
		return nil
	}
	c := l.begin(&slate.Line{})
	w.done.Off, w.done.Inode = c.Off, c.Inode
	w.op.SetCommit(w.done)
	w.now = w.done
	return nil
}

// rotate moves path to path.1, path.1 to path.2 and so on up to the first number that is free, and begins
// anew. Where none is free the oldest file goes, as with Docker's driver. With one file that is taken away;
// who reads it reads it to its end. A keeper killed between any two steps leaves a number free, and its
// successor's rotation goes on from there.
func (l *logFile) rotate() error {
	path, files := l.p.d.Log.Path, l.p.d.Log.MaxFiles
	if files < 2 {
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			return err
		}
		return l.reopen()
	}
	free := 1
	for free < files-1 && held(path, free) {
		free++
	}
	for _, suffix := range []string{"", packedSuffix} {
		if err := os.Remove(numbered(path, free) + suffix); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	for i := free; i > 1; i-- { // number by number, so that there is never more than one hole
		if err := move(numbered(path, i-1), numbered(path, i)); err != nil {
			return err
		}
	}
	_ = failpoint.Hit("keeper/rotating")
	if err := os.Rename(path, numbered(path, 1)); err != nil && !os.IsNotExist(err) {
		return err
	}
	if err := l.reopen(); err != nil {
		return err
	}
	if l.p.d.Log.Announce && l.announce == nil {
		l.announce = l.p.s.times.after(announceAfter, l.told)
	}
	return nil
}

// reopen begins a new current file.
func (l *logFile) reopen() error {
	_ = failpoint.Hit("keeper/renamed")
	fd, err := unix.Open(l.p.d.Log.Path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC, 0o640)
	if err != nil {
		// Go on in the rotated file rather than nowhere; the next rotation renames what is there.
		return fmt.Errorf("open %s: %w", l.p.d.Log.Path, err)
	}
	_ = unix.Close(l.fd)
	l.fd = high(fd)
	_ = failpoint.Hit("keeper/rotated")
	return nil
}

// told tells clients that there were rotations.
func (l *logFile) told() {
	l.announce = nil
	for _, c := range l.p.s.helloed() {
		c.push(wire.RotatedKind, &wire.Request{ID: l.p.d.ID}, nil)
	}
}

const packedSuffix = ".gz"

func numbered(path string, n int) string { return path + "." + strconv.Itoa(n) }

// held reports whether a number is in use.
func held(path string, n int) bool {
	return exists(numbered(path, n)) || exists(numbered(path, n)+packedSuffix)
}

// move gives a rotated file another number. A file that is there both plain and compressed, since somebody
// died in between, goes on plain.
func move(from, to string) error {
	if !exists(from) {
		err := os.Rename(from+packedSuffix, to+packedSuffix)
		if os.IsNotExist(err) {
			return nil
		}
		return err
	}
	if err := os.Remove(from + packedSuffix); err != nil && !os.IsNotExist(err) {
		return err
	}
	return os.Rename(from, to)
}

func exists(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil
}

// unshipped reports whether the file that the next rotation takes away was not shipped: unless a newer one
// is being shipped already, or it is compressed, which is done to shipped files only.
func (l *logFile) unshipped() bool {
	path, files := l.p.d.Log.Path, max(l.p.d.Log.MaxFiles, 2)
	for n := 1; n < files; n++ {
		if !held(path, n) {
			return false // nothing is taken away
		}
	}
	oldest := inodeOf(numbered(path, files-1))
	if oldest == 0 {
		return false
	}
	for n := 0; n < files-1; n++ {
		name := path
		if n > 0 {
			name = numbered(path, n)
		}
		if i := inodeOf(name); i != 0 && i == l.p.s.slate.Slot(l.p.d.Slot).Shipped {
			return false
		}
	}
	return true
}

// inodeOf gives a file's inode, 0 where there is none.
func inodeOf(path string) uint64 {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return 0
	}
	return st.Ino
}

// shippedFile notes which file is being shipped and goes on where that was waited for.
func (s *Server) shippedFile(m *wire.LogFile) error {
	p := s.procs[key{m.ID, ""}]
	if p == nil || p.log == nil || p.finished {
		return nil // it has ended: nobody waits
	}
	s.slate.Slot(p.d.Slot).Shipped = m.Inode
	if p.log.stalled() && p.log.failing.IsZero() {
		s.times.stop(p.log.retry)
		p.log.tryAgain()
	}
	return nil
}

// packed puts a compressed copy in the place of the rotated file that it is of. Killed between the two
// steps it leaves both; readers prefer the plain one.
func packed(m *wire.LogFile) error {
	for n := 1; held(m.Path, n) || held(m.Path, n+1); n++ {
		name := numbered(m.Path, n)
		if inodeOf(name) != m.Inode {
			continue
		}
		if err := os.Rename(m.Packed, name+packedSuffix); err != nil {
			return fault.Wrap(fault.Internal, err, "replace a rotated log")
		}
		_ = failpoint.Hit("keeper/packed")
		return fault.Wrap(fault.Internal, os.Remove(name), "replace a rotated log")
	}
	return fault.New(fault.NotFound, "the rotated log is gone")
}

// logFileRequest handles what is told of a log's files.
func (s *Server) logFileRequest(c *peer, h wire.Head, body []byte) error {
	var m wire.LogFile
	err := wire.Unmarshal(body, &m)
	switch {
	case err != nil:
		return fault.Wrap(fault.Invalid, err, "keeper: file of a log")
	case h.Kind == wire.ShippedKind:
		err = s.shippedFile(&m)
	default:
		err = packed(&m)
	}
	if err != nil {
		return err
	}
	c.reply(h.Kind, h.Seq, nil, nil)
	return later
}

// clear begins a new current file and removes all others. Who reads the old ones reads them to their ends.
func (l *logFile) clear() error {
	if err := clearFiles(l.p.d.Log.Path); err != nil {
		return err
	}
	l.p.s.slate.Slot(l.p.d.Slot).Shipped = 0 // a new file may get that inode
	return l.reopen()
}

// clearFiles removes a log's files, the oldest first: what a crash leaves is the newest part.
func clearFiles(path string) error {
	last := 0
	for held(path, last+1) || held(path, last+2) {
		last++
	}
	for n := last; n > 0; n-- {
		for _, suffix := range []string{packedSuffix, ""} {
			if err := os.Remove(numbered(path, n) + suffix); err != nil && !os.IsNotExist(err) {
				return err
			}
		}
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}
