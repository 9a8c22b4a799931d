package socket

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Kind is a transport protocol.
type Kind int

// The kinds of sockets.
const (
	UDP Kind = unix.SOCK_DGRAM
	TCP Kind = unix.SOCK_STREAM
)

// Listen makes a socket at the address in the calling thread's namespace; port 0 lets the kernel choose. A TCP socket
// listens, with a short queue.
func Listen(k Kind, at netip.AddrPort) (int, error) {
	fd, err := New(k, at.Addr())
	if err != nil {
		return -1, err
	}
	if err := listen(fd, k, at); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("%v %v: %w", k, at, err)
	}
	return fd, nil
}

func listen(fd int, k Kind, at netip.AddrPort) error {
	if err := unix.Bind(fd, sockaddr(at)); err != nil {
		return err
	}
	if k == UDP {
		// Room for a thousand small datagrams while nobody reads; the default has room for two hundred. Without CAP_NET_ADMIN that has to do.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 512<<10)
		return nil
	}
	return unix.Listen(fd, 64)
}

// New makes an unbound socket in the calling thread's namespace, for an address like the one given.
func New(k Kind, like netip.Addr) (int, error) {
	family := unix.AF_INET6
	if like.Is4() || like.Is4In6() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, int(k)|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	return fd, os.NewSyscallError("socket", err)
}

// Connect connects a socket, which may be of another namespace than the thread's, and gives it as a file that Go's poller
// watches, with deadlines. It owns the descriptor, also when it fails. TCP is waited for until the deadline.
func Connect(fd int, to netip.AddrPort, deadline time.Time) (*os.File, error) {
	f := os.NewFile(uintptr(fd), to.String())
	f.SetDeadline(deadline)
	err := unix.Connect(fd, sockaddr(to))
	if errors.Is(err, unix.EINPROGRESS) {
		err = connected(f)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("connect to %v: %w", to, err)
	}
	return f, nil
}

// connected waits until the socket can be written to, which is when its connection was made or failed.
func connected(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		var code int
		code, failed = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if failed == nil && code != 0 {
			failed = unix.Errno(code)
		}
		if failed != nil {
			return true
		}
		_, peer := unix.Getpeername(int(fd))
		return peer == nil // ENOTCONN: not yet
	})
	if err != nil {
		return err
	}
	return failed
}

// Receive takes one datagram if there is one; unix.EAGAIN says that there is none. cut reports that it was longer than the buffer.
func Receive(fd int, buf []byte) (n int, from netip.AddrPort, cut bool, err error) {
	n, _, flags, sa, err := unix.Recvmsg(fd, buf, nil, unix.MSG_DONTWAIT)
	if err != nil {
		return 0, netip.AddrPort{}, false, err
	}
	return n, addrPort(sa), flags&unix.MSG_TRUNC != 0, nil
}

// Send sends one datagram. It never waits: what finds no room is lost, as datagrams are.
func Send(fd int, b []byte, to netip.AddrPort) error {
	return unix.Sendto(fd, b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, sockaddr(to))
}

// Accept takes one connection if there is one, as a file that Go's poller watches; unix.EAGAIN says that there is none.
func Accept(fd int) (*os.File, error) {
	c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(c), "tcp"), nil
}

// Bound gives the address that the socket is bound to.
func Bound(fd int) (netip.AddrPort, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, os.NewSyscallError("getsockname", err)
	}
	return addrPort(sa), nil
}

// Namespace opens the network namespace of a socket (SIOCGSKNS, netdevice(7), Linux 4.9). Needs CAP_NET_ADMIN there.
func Namespace(fd int) (*os.File, error) {
	ns, err := unix.IoctlRetInt(fd, unix.SIOCGSKNS)
	if err != nil {
		return nil, os.NewSyscallError("SIOCGSKNS", err)
	}
	unix.CloseOnExec(ns)
	return os.NewFile(uintptr(ns), "netns"), nil
}

// Own takes the descriptor out of a file, which is closed, and makes it non-blocking.
func Own(f *os.File) (int, error) {
	defer f.Close()
	fd, err := dup(f)
	if err != nil {
		return -1, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("fcntl", err)
	}
	return fd, nil
}

func dup(f *os.File) (int, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	var failed error
	if err := raw.Control(func(old uintptr) { fd, failed = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return -1, err
	}
	return fd, os.NewSyscallError("dup", failed)
}

// Share gives a second descriptor of the socket as a file, to hand to somebody.
func Share(fd int, name string) (*os.File, error) {
	d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	return os.NewFile(uintptr(d), name), nil
}

// Close closes a descriptor.
func Close(fd int) { unix.Close(fd) }

// None reports whether the error says that there is nothing to read or accept now.
func None(err error) bool { return errors.Is(err, unix.EAGAIN) }

// String gives the protocol's name.
func (k Kind) String() string {
	if k == UDP {
		return "udp"
	}
	return "tcp"
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if ip := a.Addr().Unmap(); ip.Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: ip.As4()}
	}
	sa := &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	if zone := a.Addr().Zone(); zone != "" {
		sa.ZoneId = zoneOf(zone)
	}
	return sa
}

// zoneOf reads a zone that is an interface's number; names mean something else in each namespace.
func zoneOf(zone string) uint32 {
	var n uint32
	if _, err := fmt.Sscan(zone, &n); err != nil {
		return 0
	}
	return n
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}
