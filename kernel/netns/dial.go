package netns

import (
	"context"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// Dial connects a TCP socket that was made in a namespace; ns nil is that of this process. Only the socket is made on a thread inside:
// while the connection is awaited no thread is held, and a thousand of them that never come cost a thousand small goroutines. It gives up
// with ctx. An error of connect(2) can be found with errors.Is.
func Dial(ctx context.Context, ns *os.File, to netip.AddrPort) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	fd := -1
	begin := func() (err error) {
		fd, err = beginConnect(to)
		return err
	}
	var err error
	if ns == nil {
		err = begin()
	} else {
		err = Do(ns, begin)
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "tcp "+to.String())
	defer f.Close()
	if err := awaitConnect(ctx, f); err != nil {
		return nil, err
	}
	conn, err := net.FileConn(f)
	return conn, fault.Wrap(fault.Internal, err, "connect to %s", to)
}

// beginConnect makes a socket and sends it on its way, without waiting.
func beginConnect(to netip.AddrPort) (int, error) {
	var addr unix.Sockaddr = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	family := unix.AF_INET6
	if a := to.Addr().Unmap(); a.Is4() {
		family, addr = unix.AF_INET, &unix.SockaddrInet4{Port: int(to.Port()), Addr: a.As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := unix.Connect(fd, addr); err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return -1, os.NewSyscallError("connect", err)
	}
	return fd, nil
}

// awaitConnect waits until the socket is connected, or is not going to be.
func awaitConnect(ctx context.Context, f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		var done bool
		done, failed = connected(int(fd))
		return done
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	return failed
}

// connected tells how far a socket is: SO_ERROR has what became of connect, and without an error a peer is there or is awaited.
func connected(fd int) (done bool, err error) {
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return true, os.NewSyscallError("getsockopt", err)
	}
	if errno != 0 {
		return true, os.NewSyscallError("connect", syscall.Errno(errno))
	}
	_, err = unix.Getpeername(fd)
	return err == nil, nil
}
