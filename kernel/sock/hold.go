package sock

import (
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Hold binds a port so that no other program can, and takes no traffic: a client that reaches it past all rules is refused
// (TCP) or not heard (UDP). proto is "tcp", "udp" or "sctp". An unspecified address is all of its family. Errors are
// errnos: EADDRINUSE, EADDRNOTAVAIL, EACCES, and EPROTONOSUPPORT or ESOCKTNOSUPPORT where the kernel has no such protocol.
func Hold(proto string, at netip.AddrPort) (*os.File, error) {
	family, address := sockaddr(at)
	kind, number := unix.SOCK_STREAM, 0
	switch proto {
	case "tcp":
	case "udp":
		kind = unix.SOCK_DGRAM
	case "sctp":
		number = unix.IPPROTO_SCTP
	default:
		return nil, unix.EPROTONOSUPPORT
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, number)
	if err != nil {
		return nil, err
	}
	if err := hold(fd, proto, family, address); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), fmt.Sprintf("%s/%s", at, proto)), nil
}

// Again gives another descriptor of a socket.
func Again(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

func hold(fd int, proto string, family int, address unix.Sockaddr) error {
	if family == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return err
		}
	}
	if proto == "udp" {
		if err := unix.Bind(fd, address); err != nil {
			return err
		}
		return deaf(fd)
	}
	// Connections that ended a moment ago (TIME_WAIT) must not be in the way, so reuse is allowed while we bind. Listening
	// makes the claim exclusive again (inet_csk_get_port clears the bucket's fastreuse), and shutting down ends that but
	// keeps the port.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if err := unix.Bind(fd, address); err != nil {
		return err
	}
	if err := unix.Listen(fd, 0); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 0); err != nil {
		return err
	}
	if proto == "sctp" {
		return nil
	}
	return unix.Shutdown(fd, unix.SHUT_RD)
}

// deaf lets the socket drop all that arrives, with a filter that accepts no byte, so that its buffer holds nothing.
func deaf(fd int) error {
	filter := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &filter[0]})
}

func sockaddr(at netip.AddrPort) (int, unix.Sockaddr) {
	if at.Addr().Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	}
	a := &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	return unix.AF_INET6, a
}
