package server

import (
	"bytes"

	"golang.org/x/sys/unix"
)

// stdin is a process's input: a pipe's write end, or its terminal's master. Several attachments may
// feed it. What they send goes from socket to pipe by splice and never lies in the keeper's memory;
// input of a terminal is read, for the sake of detach keys.
//
// While it takes no more, its attachments are not read.
type stdin struct {
	p    *proc
	fd   int // -1: none, or closed
	tok  token
	tty  bool
	full bool   // takes no more for now
	pend []byte // of a terminal: read from a client, not yet taken
}

// ready is the pipe: it has room again, or its reader is gone.
func (in *stdin) ready(events uint32) {
	if events&unix.EPOLLERR != 0 {
		in.close()
		return
	}
	in.setFull(false)
}

func (in *stdin) setFull(full bool) {
	if in.full == full {
		return
	}
	in.full = full
	if !in.tty && in.fd >= 0 {
		// The reader's end shows as an error, which is reported unasked: hence only while full.
		if err := in.p.s.poll.set(&in.tok, in.fd, full, unix.EPOLLOUT, in); err != nil {
			in.p.s.say.warn("cannot watch stdin", "id", in.p.d.ID, "err", err.Error())
		}
	}
	for _, a := range in.p.atts {
		a.watch()
	}
}

// splice moves what a client has sent into the pipe. It reports whether the client's stdin goes on.
func (in *stdin) splice(sock int) bool {
	var n int64
	err := retry(func() (err error) {
		n, err = unix.Splice(sock, nil, in.fd, nil, 64<<10, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		return err
	})
	switch {
	case err == nil:
		return n > 0
	case err == unix.EAGAIN:
		if readable(sock) > 0 {
			in.setFull(true)
		}
		return true
	case err == unix.EPIPE:
		in.close() // the process reads no more; what clients still send is discarded
		return true
	}
	return false
}

// typed gives a terminal what was typed.
func (in *stdin) typed(b []byte) {
	if len(in.pend) > 0 {
		in.pend = append(in.pend, b...)
		return
	}
	if rest := in.write(b); len(rest) > 0 {
		in.pend = bytes.Clone(rest)
		in.setFull(true)
		in.p.out[0].watch()
	}
}

// write gives what the terminal did not take. What can never be taken is dropped.
func (in *stdin) write(b []byte) []byte {
	for len(b) > 0 && in.fd >= 0 {
		n, err := unix.Write(in.fd, b)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return b
		case err != nil:
			return nil
		default:
			b = b[n:]
		}
	}
	return nil
}

// flush writes what a terminal did not take before.
func (in *stdin) flush() {
	in.pend = in.write(in.pend)
	if len(in.pend) == 0 {
		in.pend = nil
		in.setFull(false)
	}
	in.p.out[0].watch()
}

// dropTyped forgets what the terminal has not taken.
func (in *stdin) dropTyped() {
	in.pend = nil
	in.setFull(false)
}

// close ends the process's input for good. A terminal has no such end: it stays.
func (in *stdin) close() {
	if in.fd < 0 || in.tty {
		return
	}
	in.p.s.poll.remove(&in.tok)
	closeFD(&in.fd)
	in.full = false
	for _, a := range in.p.atts {
		a.watch()
	}
	in.p.s.pushStdinGone(in.p)
}
