package sock

import (
	"errors"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Listen lets a TCP socket that holds a port take connections after all. The file stays the caller's; the port goes on listening for as long as
// the socket is open anywhere, so that clients wait in its queue while nobody accepts.
func Listen(f *os.File) (*net.TCPListener, error) {
	err := control(f, func(fd int) error {
		// Connections take this over: those that ended a moment ago must not keep the next from the port. One that listens
		// has it to itself all the same.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
		return unix.Listen(fd, unix.SOMAXCONN)
	})
	if err != nil {
		return nil, os.NewSyscallError("listen", err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	t, ok := l.(*net.TCPListener)
	if !ok {
		l.Close()
		return nil, errors.New("not a socket of TCP")
	}
	return t, nil
}

// Hear lets a UDP socket that holds a port hear what arrives after all. The file stays the caller's.
func Hear(f *os.File) (*net.UDPConn, error) {
	err := control(f, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0) })
	if err != nil && !errors.Is(err, unix.ENOENT) { // it was not deaf
		return nil, os.NewSyscallError("setsockopt", err)
	}
	p, err := net.FilePacketConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := p.(*net.UDPConn)
	if !ok {
		p.Close()
		return nil, errors.New("not a socket of UDP")
	}
	return u, nil
}

func control(f *os.File, call func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = call(int(fd)) }); err != nil {
		return err
	}
	return failed
}
