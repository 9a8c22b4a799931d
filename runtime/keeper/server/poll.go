package server

import (
	"golang.org/x/sys/unix"
)

// handler is told what epoll said of its descriptor.
type handler interface{ ready(events uint32) }

// poller is one epoll instance. A registered descriptor has a token; the kernel is given the token
// and its generation, so that an event fetched before a descriptor was closed never reaches what
// took the token over.
type poller struct {
	fd      int
	entries []entry
	free    []token
	buf     [64]unix.EpollEvent
}

type entry struct {
	h   handler
	fd  int32
	gen int32
}

// token names a registration; noToken is none.
type token int32

const noToken token = -1

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return &poller{fd: fd}, nil
}

// set registers, changes or, with want false, removes a registration, and keeps *t current. events
// may be 0: hang-ups and errors are always reported.
func (p *poller) set(t *token, fd int, want bool, events uint32, h handler) error {
	if !want {
		p.remove(t)
		return nil
	}
	op := unix.EPOLL_CTL_MOD
	if *t == noToken {
		op = unix.EPOLL_CTL_ADD
		if n := len(p.free); n > 0 {
			*t = p.free[n-1]
			p.free = p.free[:n-1]
		} else {
			p.entries = append(p.entries, entry{})
			*t = token(len(p.entries) - 1)
		}
		e := &p.entries[*t]
		e.h, e.fd = h, int32(fd)
	}
	ev := unix.EpollEvent{Events: events, Fd: int32(*t), Pad: p.entries[*t].gen}
	if err := unix.EpollCtl(p.fd, op, fd, &ev); err != nil {
		if op == unix.EPOLL_CTL_ADD {
			p.release(t)
		}
		return err
	}
	return nil
}

// remove ends a registration; it must come before the descriptor is closed, for a duplicate of it
// elsewhere would keep the kernel's registration alive.
func (p *poller) remove(t *token) {
	if *t == noToken {
		return
	}
	// The descriptor is open, so this can only fail for want of memory, and then loses an event.
	_ = unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, int(p.entries[*t].fd), nil)
	p.release(t)
}

func (p *poller) release(t *token) {
	e := &p.entries[*t]
	e.h, e.fd = nil, -1
	e.gen++
	p.free = append(p.free, *t)
	*t = noToken
}

// mute ends the events of a registration and leaves it to its owner to remove.
func (p *poller) mute(ev *unix.EpollEvent) {
	if p.owner(ev) != nil {
		_ = unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, int(p.entries[ev.Fd].fd), nil)
	}
}

// wait gives the next events, none after timeout milliseconds (-1: never).
func (p *poller) wait(timeout int) ([]unix.EpollEvent, error) {
	n, err := unix.EpollWait(p.fd, p.buf[:], timeout)
	if err == unix.EINTR {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return p.buf[:n], nil
}

// owner gives the handler of an event, nil when its registration has gone.
func (p *poller) owner(ev *unix.EpollEvent) handler {
	e := &p.entries[ev.Fd]
	if e.gen != ev.Pad {
		return nil
	}
	return e.h
}
