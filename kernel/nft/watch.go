package nft

import (
	"encoding/binary"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// Watcher tells when somebody else has changed the rules of a network namespace.
type Watcher struct {
	file *os.File // the socket, with the runtime's poller
	own  uint32   // netlink's address of the connection whose changes do not count
}

// Watch begins to watch the calling thread's namespace. What goes over the connection itself is not told.
func (c *Conn) Watch() (*Watcher, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "watch firewall rules")
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return nil, fault.Wrap(fault.Internal, err, "watch firewall rules")
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.NFNLGRP_NFTABLES); err != nil {
		unix.Close(fd)
		return nil, fault.Wrap(fault.Internal, err, "watch firewall rules")
	}
	return &Watcher{file: os.NewFile(uintptr(fd), "nftables events"), own: c.address}, nil
}

// Next waits for a change that somebody else has made. Its error is os.ErrClosed after Close, from whatever goroutine.
func (w *Watcher) Next() error {
	buf := make([]byte, 64<<10)
	raw, err := w.file.SyscallConn()
	if err != nil {
		return err
	}
	for {
		var n int
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			n, _, failed = unix.Recvfrom(int(fd), buf, 0)
			return failed != unix.EAGAIN
		})
		switch {
		case err != nil:
			return os.ErrClosed
		case errors.Is(failed, unix.ENOBUFS): // more happened than we have read
			return nil
		case failed == unix.EINTR:
			continue
		case failed != nil:
			return fault.Wrap(fault.Internal, failed, "watch firewall rules")
		}
		if foreign(buf[:n], w.own) {
			return nil
		}
	}
}

// foreign reports whether a datagram of events ends a batch that did not come from the netlink address own. Each batch ends with a message that
// has its sender's address. (It names a process, too, but that is the number of the thread.)
func foreign(b []byte, own uint32) bool {
	const newGeneration = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWGEN
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return false
		}
		if binary.NativeEndian.Uint16(b[4:]) == newGeneration && binary.NativeEndian.Uint32(b[12:]) != own {
			return true
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return false
}

// Close ends the watch, and a Next that waits.
func (w *Watcher) Close() error { return w.file.Close() }
