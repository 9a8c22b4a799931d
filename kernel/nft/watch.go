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
}

// Watch begins to watch the calling thread's namespace.
func Watch() (*Watcher, error) {
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
	return &Watcher{file: os.NewFile(uintptr(fd), "nftables events")}, nil
}

// Next waits for a change that another process has made. Its error is os.ErrClosed after Close, from whatever goroutine.
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
		if foreign(buf[:n], os.Getpid()) {
			return nil
		}
	}
}

// foreign reports whether a datagram of events ends a batch of a process that is not ours. Each batch ends with a message that names its maker.
func foreign(b []byte, own int) bool {
	const newGeneration, processID = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWGEN, 2 // NFTA_GEN_PROC_PID
	found := false
	messages(b, func(kind, flags uint16, seq uint32, body []byte) error {
		if kind != newGeneration || len(body) < 4 {
			return nil
		}
		attributes(body[4:], func(kind uint16, value []byte) {
			if kind == processID && len(value) == 4 && binary.BigEndian.Uint32(value) != uint32(own) {
				found = true
			}
		})
		return nil
	})
	return found
}

// Close ends the watch, and a Next that waits.
func (w *Watcher) Close() error { return w.file.Close() }
