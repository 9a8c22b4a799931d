package socket

import (
	"os"

	"golang.org/x/sys/unix"
)

// Set is many descriptors that are watched together. Add, Remove and Close may be called from any goroutine, Wait from one.
type Set struct {
	epoll *os.File
	ready [64]unix.EpollEvent
}

// NewSet makes an empty set.
//
// The epoll descriptor is itself watched by Go's poller, so that Wait parks a goroutine instead of blocking a thread.
func NewSet() (*Set, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // tells os.NewFile to watch it
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return &Set{epoll: os.NewFile(uintptr(fd), "epoll")}, nil
}

// Add watches a descriptor for something to read, under a token that is not 0.
func (s *Set) Add(fd int, token uint64) error {
	e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(uint32(token)), Pad: int32(uint32(token >> 32))}
	return s.control(unix.EPOLL_CTL_ADD, fd, &e)
}

// Remove watches the descriptor no more.
func (s *Set) Remove(fd int) error { return s.control(unix.EPOLL_CTL_DEL, fd, nil) }

func (s *Set) control(op, fd int, e *unix.EpollEvent) error {
	raw, err := s.epoll.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(epfd uintptr) { failed = unix.EpollCtl(int(epfd), op, fd, e) })
	if err != nil {
		return err
	}
	return os.NewSyscallError("epoll_ctl", failed)
}

// Wait appends the tokens of descriptors that have something to read, at least one; what is not read is told again.
// os.ErrClosed after Close.
func (s *Set) Wait(tokens []uint64) ([]uint64, error) {
	raw, err := s.epoll.SyscallConn()
	if err != nil {
		return tokens, err
	}
	var failed error
	n := 0
	err = raw.Read(func(epfd uintptr) bool {
		for {
			n, failed = unix.EpollWait(int(epfd), s.ready[:], 0)
			if failed != unix.EINTR {
				break
			}
		}
		return n > 0 || failed != nil
	})
	if err != nil {
		return tokens, os.ErrClosed // nothing else ends the waiting: there is no deadline
	}
	if failed != nil {
		return tokens, os.NewSyscallError("epoll_wait", failed)
	}
	for _, e := range s.ready[:n] {
		tokens = append(tokens, uint64(uint32(e.Fd))|uint64(uint32(e.Pad))<<32)
	}
	return tokens, nil
}

// Close ends Wait. The descriptors stay open.
func (s *Set) Close() error { return s.epoll.Close() }
