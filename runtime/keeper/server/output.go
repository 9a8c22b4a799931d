package server

import (
	"time"

	"berth/base/failpoint"
	"berth/runtime/keeper/slate"

	"golang.org/x/sys/unix"
)

// stream is one of a process's outputs: a pipe's read end, or a terminal's master.
type stream struct {
	p    *proc
	n    int // 0 stdout or terminal, 1 stderr
	fd   int
	tok  token
	hold int  // reasons not to read: attachments that are behind, a log that cannot be written
	eof  bool // read to the end, or never there

	absent *timer        // a terminal that nobody has open: held back until then
	pause  time.Duration // how long that was
}

// watch registers the stream as far as it wants to hear of anything. A stream held back is not
// registered at all: its hang-up would be reported for ever.
func (st *stream) watch() {
	var events uint32
	if st.hold == 0 {
		events = unix.EPOLLIN
	}
	if st.n == 0 && st.p.stdin.tty && len(st.p.stdin.pend) > 0 {
		events |= unix.EPOLLOUT
	}
	if err := st.p.s.poll.set(&st.tok, st.fd, !st.eof && events != 0, events, st); err != nil {
		st.p.s.say.warn("cannot watch output", "id", st.p.d.ID, "err", err.Error())
	}
}

func (st *stream) holdBack() {
	st.hold++
	st.watch()
}

func (st *stream) letGo() {
	st.hold--
	st.watch()
}

func (st *stream) ready(events uint32) {
	if events&unix.EPOLLOUT != 0 {
		st.p.stdin.flush()
	}
	if events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 && st.hold > 0 {
		st.p.stdin.dropTyped() // nobody will read it
		st.watch()
	}
	if st.hold == 0 && events&(unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		st.p.s.take(st)
	}
}

// take reads one piece of a stream and puts it where it belongs: into the log, then to the
// attachments. It reports whether there was one. This is the place at which kill -9 must cost
// nothing: see package slate for the order.
func (s *Server) take(st *stream) bool {
	p := st.p
	if p.log == nil && len(p.atts) == 0 {
		return s.discard(st)
	}
	s.settle()
	op := s.slate.Op()
	buf := s.slate.Buffer()
	want, exact := readable(st.fd), uint32(1)
	if want == 0 { // the end, or a terminal whose last words are still on the way
		want, exact = len(buf), 0
	}
	want = min(want, len(buf))
	*op = slate.Op{Slot: p.d.Slot, Stream: uint32(st.n), Want: uint32(want), Exact: exact, Time: time.Now().UnixNano()}
	op.SetCommit(p.commit(st.n))
	op.Enter(slate.Taking)
	_ = failpoint.Hit("keeper/taking")
	n, err := s.read(st.fd, buf[:want])
	_ = failpoint.Hit("keeper/read")
	if n <= 0 {
		op.Enter(slate.Idle)
		s.afterRead(st, n, err)
		return false
	}
	op.Got = uint32(n)
	op.Enter(slate.Taken)
	s.finishOp(p)
	st.pause = 0
	return true
}

// commit gives the state from which a piece of a stream starts.
func (p *proc) commit(stream int) slate.Commit {
	line := &p.s.slate.Slot(p.d.Slot).Line[stream]
	if p.log == nil {
		return slate.Commit{}
	}
	return p.log.begin(line)
}

// finishOp carries an op on from Taken: it is also what repeats the op of a dead keeper.
func (s *Server) finishOp(p *proc) {
	op := s.slate.Op()
	data := s.slate.Buffer()[:op.Got]
	if op.Phase() == slate.Taken {
		_ = failpoint.Hit("keeper/taken")
		if p.log != nil {
			p.log.write(op, data)
		} else {
			op.SetCommit(slate.Commit{Pos: op.Got})
		}
		_ = failpoint.Hit("keeper/wrote")
		op.Enter(slate.Logged)
		_ = failpoint.Hit("keeper/logged")
	}
	if op.Stash == 0 {
		for i := 0; i < len(p.atts); i++ {
			a := p.atts[i]
			if a.number <= op.Sent || !a.wants(int(op.Stream)) {
				continue
			}
			// Marked before it is sent: a keeper killed in between has sent it, but for some
			// nanoseconds.
			op.Sent = a.number
			if !a.send(int(op.Stream), data) {
				i-- // it is gone from the list
			}
			_ = failpoint.Hit("keeper/sent")
		}
	}
	s.slate.Apply()
	_ = failpoint.Hit("keeper/applied")
	s.slate.Repaint(int(op.Got))
	op.Enter(slate.Idle)
}

func (s *Server) read(fd int, b []byte) (n int, err error) {
	err = retry(func() (err error) {
		n, err = unix.Read(fd, b)
		return err
	})
	return n, err
}

// discard reads what nobody wants.
func (s *Server) discard(st *stream) bool {
	n, err := s.read(st.fd, s.scratch[:slate.BufferLen])
	if n > 0 {
		return true
	}
	s.afterRead(st, n, err)
	return false
}

// afterRead handles a read that gave nothing.
func (s *Server) afterRead(st *stream, n int, err error) {
	p := st.p
	switch {
	case err == unix.EAGAIN:
	case err == unix.EIO && p.stdin.tty && !p.reaped:
		// Nobody has the terminal open now, but the process lives and may open it again, as an init
		// with gettys does.
		st.holdBack()
		st.pause = min(max(2*st.pause, 50*time.Millisecond), 2*time.Second)
		st.absent = s.times.after(st.pause, st.present)
	default:
		s.endOfStream(st)
		p.maybeFinish()
	}
}

// present ends the wait for somebody to open the terminal: at its time, or because the process has
// ended and what it wrote last is to be read.
func (st *stream) present() {
	if st.absent == nil {
		return
	}
	st.p.s.times.stop(st.absent)
	st.absent = nil
	st.letGo()
}

// endOfStream closes a stream that is read to its end, or given up. An unfinished line is logged as
// it is.
func (s *Server) endOfStream(st *stream) {
	if st.eof {
		return
	}
	p := st.p
	st.eof = true
	st.watch()
	if st.n == 0 && p.stdin.tty {
		p.stdin.fd = -1 // the same descriptor
		p.stdin.dropTyped()
	}
	closeFD(&st.fd)
	if p.log == nil || s.slate.Slot(p.d.Slot).Line[st.n].Len == 0 || p.log.stash[st.n] {
		return
	}
	s.settle()
	op := s.slate.Op()
	*op = slate.Op{Slot: p.d.Slot, Stream: uint32(st.n), EOF: 1, Time: time.Now().UnixNano()}
	op.SetCommit(p.commit(st.n))
	op.Enter(slate.Taken)
	s.finishOp(p)
}
