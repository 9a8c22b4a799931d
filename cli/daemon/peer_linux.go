package daemon

import (
	"context"
	"net"

	"golang.org/x/sys/unix"
)

// PeerPID gives the process that listens behind a connection on a unix socket of this machine: 0 when
// it cannot be told (another machine, or systemd listened for it).
func PeerPID(conn net.Conn) int {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return 0
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	var cred *unix.Ucred
	ctlErr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if ctlErr != nil || err != nil || cred.Pid <= 1 {
		return 0
	}
	return int(cred.Pid)
}

// WaitGone returns when the process has ended. It is held by a pidfd, so another that gets its number
// is not waited for.
func WaitGone(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil // gone already; or a kernel that no engine runs on
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
		if err == nil && n > 0 {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
