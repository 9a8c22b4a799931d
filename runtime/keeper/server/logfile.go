package server

import (
	"bytes"
	"time"

	"berth/base/fault"
	"berth/runtime/keeper/jsonfile"
	"berth/runtime/keeper/localfile"
	"berth/runtime/keeper/slate"

	"golang.org/x/sys/unix"
)

// logFile is a process's log, in the format of Docker's json-file or local driver.
//
// When the file cannot be written (a full disk), what was not written waits in the slate and its
// stream is not read, so that the process blocks in the end; every logRetry it is tried again.
// After logStall the piece is dropped, counted, and the log is lossy: the process runs on, each
// further piece is tried once, and the first success ends it. Records are written whole or not at
// all, and after a drop the log goes on with the next whole line. A log of NonBlock drops at once; one
// of Keep whose files were not shipped waits for that as long as it takes (rotate.go).
type logFile struct {
	p     *proc
	fd    int
	attrs []byte // encoded as the format has them

	failing time.Time // since when writes have failed; zero: they do not
	lossy   bool
	skip    [2]bool // a drop ended within a line: what is left of it is dropped too
	retry   *timer
	stash   [2]bool // a refused piece waits in the slate

	faults, lost uint64
	noRotate     time.Time // rotation failed: not again before this
	announce     *timer    // tells of rotations
}

func openLogFile(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o640)
	if err != nil {
		return -1, fault.Wrap(fault.Internal, err, "open log %s", path)
	}
	return high(fd), nil
}

// begin gives the commit from which a piece starts: the present end of the file, which is not ours
// alone (logrotate and administrators truncate it).
func (l *logFile) begin(line *slate.Line) slate.Commit {
	c := slate.Commit{Line: line.Len, More: line.More, First: line.First}
	var st unix.Stat_t
	if unix.Fstat(l.fd, &st) == nil {
		c.Off, c.Inode = st.Size, st.Ino
	}
	return c
}

// writer makes records of one piece. done is the state up to what has been written; now runs ahead
// of it by the records in the server's out buffer.
type writer struct {
	l         *logFile
	op        *slate.Op
	data      []byte // the piece
	each      bool   // a write for each record
	done, now slate.Commit
}

// write puts the op's piece into the log and leaves the commit in the op.
func (l *logFile) write(op *slate.Op, data []byte) {
	s := l.p.s
	stream := int(op.Stream & 1)
	w := writer{l: l, op: op, data: data, done: *op.Commit()}
	if l.skip[stream] {
		w.skipLine(stream)
	}
	err := w.all(stream)
	if err != nil && err != errUnshipped && !l.lossy {
		w.each = true // again, as far as whole records fit
		err = w.all(stream)
	}
	if err != nil {
		w.refused(stream, err)
	} else if !l.failing.IsZero() && w.done.Pos > 0 {
		s.say.info("log is written again", "id", l.p.d.ID, "path", l.p.d.Log.Path)
		l.failing, l.lossy = time.Time{}, false
	}
	op.SetCommit(w.done)
}

// all writes everything that is not done.
func (w *writer) all(stream int) error {
	w.now = w.done
	w.l.p.s.out = w.l.p.s.out[:0]
	if err := w.records(stream); err != nil {
		return err
	}
	return w.flush()
}

func (w *writer) records(stream int) error {
	line := w.l.p.s.slate.LineBuf(w.op.Slot, stream)
	for int(w.now.Pos) < len(w.data) {
		rest := w.data[w.now.Pos:]
		room := slate.LineLen - int(w.now.Line)
		if len(rest) > room {
			rest = rest[:room]
		}
		n := bytes.IndexByte(rest, '\n')
		if n < 0 && len(rest) < room {
			if w.op.EOF == 0 {
				w.now.Tail = uint32(len(rest))
				break
			}
		}
		newline := n >= 0
		if newline {
			rest = rest[:n]
		}
		if err := w.record(line, rest, newline); err != nil {
			return err
		}
	}
	if w.op.EOF != 0 && w.now.Line > 0 {
		return w.record(line, nil, false)
	}
	return nil
}

// record encodes one record: what waits in line, then piece.
func (w *writer) record(line, piece []byte, newline bool) error {
	s, l := w.l.p.s, w.l
	if max := l.p.d.Log.MaxSize; max > 0 && w.now.Off+int64(len(s.out)) >= max {
		if err := w.rotate(); err != nil {
			return err
		}
	}
	at := w.op.Time
	if w.now.More != 0 {
		at = w.now.First
	} else if !newline {
		w.now.First = at
	}
	ordinal := uint32(0) // the line is this record
	if w.now.More != 0 || !newline {
		w.now.More++
		ordinal = w.now.More
	}
	text := piece
	if w.now.Line > 0 {
		s.line = append(append(s.line[:0], line[:w.now.Line]...), piece...)
		text = s.line
	}
	s.out = l.encode(s.out, text, w.op.Stream&1, newline, ordinal, at)
	w.now.Line = 0
	w.now.Pos += uint32(len(piece))
	if newline {
		w.now.Pos++
		w.now.More, w.now.First = 0, 0
	}
	if w.each || len(s.out) >= slate.BufferLen {
		return w.flush()
	}
	return nil
}

// encode appends one record: text, at which a newline was or not, the ordinal-th of its line, 0 where it
// is the whole line.
func (l *logFile) encode(dst, text []byte, stream uint32, newline bool, ordinal uint32, at int64) []byte {
	if l.p.d.Log.Format != formatLocal {
		return jsonfile.Append(dst, text, newline, streamNames[stream], l.attrs, time.Unix(0, at))
	}
	var part localfile.Partial
	if ordinal > 0 {
		part = localfile.Partial{ID: localfile.PartialID(l.p.d.ID, stream, at), Ordinal: int32(ordinal), Last: newline}
	}
	return localfile.Append(dst, text, streamNames[stream], at, part, l.attrs)
}

var streamNames = [2]string{"stdout", "stderr"}

// flush writes what is encoded at the end of the good part of the file. Part of it that lands there
// before a failure is cut off again.
func (w *writer) flush() error {
	s := w.l.p.s
	for b, off := s.out, w.now.Off; len(b) > 0; {
		n, err := unix.Pwrite(w.l.fd, b, off)
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = unix.ENOSPC
		}
		if err != nil {
			_ = unix.Ftruncate(w.l.fd, w.done.Off)
			return err
		}
		b, off = b[n:], off+int64(n)
	}
	w.now.Off += int64(len(s.out))
	s.out = s.out[:0]
	w.done = w.now
	return nil
}

// refused decides about what could not be written: wait, or drop.
func (w *writer) refused(stream int, err error) {
	l, s := w.l, w.l.p.s
	rest := w.data[w.done.Pos:]
	w.done.Tail = 0
	if err == errUnshipped {
		w.stash(stream, rest)
		return
	}
	l.faults++
	s.logFaults++
	if l.failing.IsZero() {
		l.failing = time.Now()
		s.say.warn("log cannot be written", "id", l.p.d.ID, "path", l.p.d.Log.Path, "err", err.Error())
	}
	if !l.lossy && !l.p.d.Log.NonBlock && time.Since(l.failing) < logStall && !l.p.finished {
		w.stash(stream, rest)
		return
	}
	if !l.lossy {
		l.lossy = true
		s.say.warn("log stays unwritable, output is dropped from it", "id", l.p.d.ID, "path", l.p.d.Log.Path)
	}
	l.drop(uint64(w.done.Line) + uint64(len(rest)))
	if len(rest) > 0 {
		l.skip[stream] = rest[len(rest)-1] != '\n'
	} else if w.done.Line > 0 {
		l.skip[stream] = true
	}
	w.done.Pos, w.done.Line, w.done.More, w.done.First = uint32(len(w.data)), 0, 0, 0
}

// stash puts what could not be written aside, to be tried again.
func (w *writer) stash(stream int, rest []byte) {
	l, s := w.l, w.l.p.s
	line := &s.slate.Slot(w.op.Slot).Line[stream]
	copy(s.slate.StashBuf(w.op.Slot, stream), rest)
	line.StashTime, line.StashEOF = w.op.Time, w.op.EOF
	line.StashLen = uint32(len(rest))
	w.done.Pos = uint32(len(w.data))
	l.wait(stream)
}

func (l *logFile) drop(n uint64) {
	l.lost += n
	l.p.s.logLost += n
}

// skipLine drops the rest of a line whose beginning was dropped.
func (w *writer) skipLine(stream int) {
	n := bytes.IndexByte(w.data[w.done.Pos:], '\n') + 1
	if n > 0 {
		w.l.skip[stream] = false
	} else {
		n = len(w.data) - int(w.done.Pos)
	}
	w.done.Pos += uint32(n)
	w.l.drop(uint64(n))
}

// wait keeps a stream unread until its stash is written.
func (l *logFile) wait(stream int) {
	if !l.stash[stream] {
		l.stash[stream] = true
		l.p.out[stream].holdBack()
	}
	if l.retry == nil {
		l.retry = l.p.s.times.after(logRetry, l.tryAgain)
	}
}

// stalled reports that output waits for the log.
func (l *logFile) stalled() bool { return l != nil && (l.stash[0] || l.stash[1]) }

func (l *logFile) tryAgain() {
	l.retry = nil
	for i := range l.stash {
		if l.stash[i] {
			l.unstash(i)
		}
	}
	l.p.maybeFinish()
}

// unstash makes the stream's stash the op's piece again. Refused again, it is stashed again.
func (l *logFile) unstash(stream int) {
	s, p := l.p.s, l.p
	s.settle()
	line := &s.slate.Slot(p.d.Slot).Line[stream]
	op := s.slate.Op()
	n := copy(s.slate.Buffer(), s.slate.StashBuf(p.d.Slot, stream)[:line.StashLen])
	*op = slate.Op{Slot: p.d.Slot, Stream: uint32(stream), Got: uint32(n), EOF: line.StashEOF, Stash: 1, Time: line.StashTime}
	if p.out[stream].eof {
		op.EOF = 1
	}
	op.SetCommit(l.begin(line))
	l.stash[stream] = false
	p.out[stream].hold-- // and held again if it is refused again
	op.Enter(slate.Taken)
	line.StashLen = 0
	s.finishOp(p)
	if !l.stash[stream] {
		s.slate.DropStash(p.d.Slot, stream)
	}
	p.out[stream].watch()
}

// giveUp writes or drops a stream's stash now.
func (l *logFile) giveUp(st *stream) {
	if l == nil || !l.stash[st.n] {
		return
	}
	l.lossy = true
	l.unstash(st.n)
}

func (l *logFile) close() {
	l.p.s.times.stop(l.retry)
	l.p.s.times.stop(l.announce)
	closeFD(&l.fd)
}
