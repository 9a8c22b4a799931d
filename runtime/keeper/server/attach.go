package server

import (
	"encoding/binary"
	"slices"

	"berth/base/fault"
	"berth/runtime/keeper/wire"

	"golang.org/x/sys/unix"
)

// sendBuffer is what a client may lag behind before it blocks the process: the kernel keeps it, in
// the socket, so that the keeper's memory does not grow and its death loses nothing. The kernel
// doubles the number for its own overhead (socket(7)): 1 MiB in all.
const sendBuffer = 512 << 10

// attachment is a client's stream socket to a process.
//
//	attached ─▶ ended: output is sent to the end, our side is shut ─▶ the client hangs up, or linger is over
type attachment struct {
	p       *proc
	s       *Server
	fd      int
	tok     token
	number  uint32
	req     wire.AttachRequest
	eof     bool   // the client's stdin has ended
	ended   bool   // no process any more: what remains is to be sent and shut
	shut    bool   // our side is shut
	pend    []byte // the part of one piece that the socket did not take
	holds   bool   // pend holds the process's streams back
	matched int    // of the detach keys
	over    bool   // what the end of the client's stdin means has been settled
	from    *peer  // who asked for it; nil: gone
	timer   *timer
}

// attach makes an attachment. With sock -1 it makes a pair and gives the client's end, else -1.
func (s *Server) attach(from *peer, p *proc, r wire.AttachRequest, sock int) (a *attachment, theirs int, err error) {
	theirs = -1
	if sock < 0 {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return nil, -1, fault.Wrap(fault.Unavailable, err, "attach: make a socket pair")
		}
		sock, theirs = high(pair[0]), pair[1]
		if unix.SetsockoptInt(sock, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer) != nil {
			_ = unix.SetsockoptInt(sock, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
		}
	} else {
		kind, err := unix.GetsockoptInt(sock, unix.SOL_SOCKET, unix.SO_TYPE)
		if err != nil || kind != unix.SOCK_STREAM {
			unix.Close(sock)
			return nil, -1, fault.New(fault.Invalid, "attach: the descriptor is no stream socket")
		}
		_ = unix.SetNonblock(sock, true)
	}
	s.attNumber++
	r.ID, r.Proc, r.Sock = p.d.ID, p.d.Proc, nil
	a = &attachment{p: p, s: s, fd: sock, tok: noToken, number: s.attNumber, req: r, from: from}
	p.atts = append(p.atts, a)
	a.watch()
	return a, theirs, nil
}

func (a *attachment) wants(stream int) bool {
	if stream == 0 {
		return a.req.Stdout
	}
	return a.req.Stderr
}

// watch registers the socket for what is of interest now. One that is not read because stdin is
// full is not registered: its hang-up would be reported for ever.
func (a *attachment) watch() {
	if a.fd < 0 {
		return
	}
	blocked := !a.eof && !a.ended && a.req.Stdin && a.p.stdin.full
	var events uint32
	if !a.eof && !blocked {
		events |= unix.EPOLLIN
	}
	if len(a.pend) > 0 {
		events |= unix.EPOLLOUT
	}
	if err := a.s.poll.set(&a.tok, a.fd, !blocked || events != 0, events, a); err != nil {
		a.s.say.warn("cannot watch an attachment", "id", a.p.d.ID, "err", err.Error())
	}
}

func (a *attachment) ready(events uint32) {
	if events&unix.EPOLLOUT != 0 && len(a.pend) > 0 {
		a.flush()
	}
	if a.fd >= 0 && !a.eof && events&(unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		a.receive()
	}
	if a.fd >= 0 && a.eof && events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		a.drop()
	}
}

// receive takes what the client has sent.
func (a *attachment) receive() {
	in := &a.p.stdin
	if !a.ended && a.req.Stdin && in.fd >= 0 && in.full {
		a.watch()
		return
	}
	if !a.ended && a.req.Stdin && in.fd >= 0 && !in.tty {
		if !in.splice(a.fd) {
			a.stdinEnded()
		}
		return
	}
	buf := a.s.scratch[:4096]
	n, err := 0, error(nil)
	err = retry(func() (err error) {
		n, _, err = unix.Recvfrom(a.fd, buf, unix.MSG_DONTWAIT)
		return err
	})
	switch {
	case err == unix.EAGAIN:
	case err != nil:
		a.drop()
	case n == 0:
		a.stdinEnded()
	case !a.ended && a.req.Stdin && in.fd >= 0:
		a.typed(buf[:n])
	}
}

// stdinEnded is the client's half-close, or the first sign of its hang-up.
func (a *attachment) stdinEnded() {
	a.eof = true
	a.watch()
	if a.shut {
		a.close()
		return
	}
	a.stdinOver()
}

// stdinOver closes the process's stdin where it is to end with the first client's. A half-close means
// that, and so does a client's own socket that is gone. The gone end of a pair means it only if the
// engine, which had that end, lives: its death is no concern of the process.
func (a *attachment) stdinOver() {
	p := a.p
	if a.over || !a.req.Stdin || !p.d.StdinOnce || p.reaped || a.detached() {
		return
	}
	a.over = true
	if a.req.OwnSock || !hungUp(a.fd) {
		p.stdin.close()
		return
	}
	a.s.times.after(engineDies, func() {
		if a.from != nil && a.from.fd >= 0 && !p.reaped {
			p.stdin.close()
		}
	})
}

func hungUp(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd)}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1 && fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
}

// typed passes a terminal's input on, looking for the detach keys. Keys that may turn out to be the
// beginning of the sequence wait; when they are not, they are passed on.
func (a *attachment) typed(b []byte) {
	keys := a.req.DetachKeys
	if len(keys) == 0 {
		a.p.stdin.typed(b)
		return
	}
	out := make([]byte, 0, len(b)+len(keys))
	for _, c := range b {
		if c == keys[a.matched] {
			a.matched++
			if a.matched == len(keys) {
				a.p.stdin.typed(out)
				a.finish()
				return
			}
			continue
		}
		out = append(out, keys[:a.matched]...)
		a.matched = 0
		if c == keys[0] {
			a.matched = 1
			continue
		}
		out = append(out, c)
	}
	a.p.stdin.typed(out)
}

// send gives the client a piece of output, and reports whether the attachment still is.
func (a *attachment) send(stream int, data []byte) bool {
	if len(data) == 0 {
		return true
	}
	bufs := [][]byte{data}
	if a.req.Framed {
		// Docker's framing (stdcopy): stream 1 or 2, three zeros, length, big-endian.
		head := make([]byte, 8)
		head[0] = byte(stream + 1)
		binary.BigEndian.PutUint32(head[4:], uint32(len(data)))
		bufs = [][]byte{head, data}
	}
	if len(a.pend) > 0 {
		for _, b := range bufs {
			a.pend = append(a.pend, b...)
		}
		return true
	}
	n, err := sendBufs(a.fd, bufs)
	if err != nil && err != unix.EAGAIN {
		a.drop()
		return false
	}
	for _, b := range bufs {
		k := min(n, len(b))
		n -= k
		a.pend = append(a.pend, b[k:]...)
	}
	if len(a.pend) > 0 {
		a.hold(true)
		a.watch()
	}
	return true
}

func sendBufs(fd int, bufs [][]byte) (n int, err error) {
	err = retry(func() (err error) {
		n, err = unix.SendmsgBuffers(fd, bufs, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		return err
	})
	return max(n, 0), err
}

// flush sends what the socket did not take before.
func (a *attachment) flush() {
	n, err := sendBufs(a.fd, [][]byte{a.pend})
	if err != nil && err != unix.EAGAIN {
		a.drop()
		return
	}
	a.pend = a.pend[n:]
	if len(a.pend) > 0 {
		return
	}
	a.pend = nil
	a.hold(false)
	a.watch()
	if a.ended {
		a.shutdown()
	}
}

// hold keeps the process's output unread while this client is behind, and says so in the slate: a
// keeper that takes over cannot know the rest of the piece.
func (a *attachment) hold(on bool) {
	if a.holds == on || a.ended {
		return
	}
	a.holds = on
	a.p.setTorn()
	for i := range a.p.out {
		if !a.wants(i) {
			continue
		}
		if on {
			a.p.out[i].holdBack()
		} else {
			a.p.out[i].letGo()
		}
	}
}

// setTorn writes the attachments that are behind into the slate.
func (p *proc) setTorn() {
	if p.d.Slot == noSlot {
		return
	}
	slot := p.s.slate.Slot(p.d.Slot)
	n := uint32(0)
	for _, a := range p.atts {
		if a.holds {
			if int(n) < len(slot.Torn) {
				slot.Torn[n] = a.number
			}
			n++
		}
	}
	slot.TornN = n
}

// finish ends an attachment from our side: after the last byte the client sees the end of file.
func (a *attachment) finish() {
	if a.ended {
		return
	}
	a.hold(false)
	a.ended = true
	a.s.closing[a] = true
	a.leave()
	if len(a.pend) == 0 {
		a.shutdown()
	} else {
		a.watch()
	}
}

// shutdown shuts our side and waits for the client to hang up: closing while its input is unread
// would reset the connection and may cost it the output's end.
func (a *attachment) shutdown() {
	_ = unix.Shutdown(a.fd, unix.SHUT_WR)
	a.shut = true
	a.s.pushAttachGone(a)
	if a.eof {
		a.close()
		return
	}
	a.timer = a.s.times.after(linger, a.close)
	a.watch()
}

// drop ends an attachment whose client is gone.
func (a *attachment) drop() {
	wasShut := a.shut
	if !a.ended {
		a.pend = nil
		a.hold(false)
		a.ended = true
		a.leave()
	}
	// A duplicate held as insurance would keep the connection open.
	_ = unix.Shutdown(a.fd, unix.SHUT_RDWR)
	if !wasShut {
		a.shut = true
		a.s.pushAttachGone(a)
	}
	a.close()
}

// leave takes the attachment out of its process's list.
func (a *attachment) leave() {
	a.p.atts = slices.DeleteFunc(a.p.atts, func(b *attachment) bool { return a == b })
	a.p.setTorn()
	a.stdinOver()
}

// detached reports that the client typed its detach keys: StdinOnce does not mean that.
func (a *attachment) detached() bool {
	return len(a.req.DetachKeys) > 0 && a.matched == len(a.req.DetachKeys)
}

func (a *attachment) close() {
	a.s.times.stop(a.timer)
	a.s.poll.remove(&a.tok)
	closeFD(&a.fd)
	delete(a.s.closing, a)
}
