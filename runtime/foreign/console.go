package foreign

import (
	"time"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// listener is a console socket: the runtime connects and sends the master of a terminal (runc's docs/terminals.md).
type listener struct {
	fd   int
	path string
}

func listen(path string) (*listener, error) {
	_ = unix.Unlink(path)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "make a console socket")
	}
	l := &listener{fd, path}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		l.close()
		return nil, fault.Wrap(fault.Internal, err, "make the console socket %s", path)
	}
	if err := unix.Listen(fd, 1); err != nil {
		l.close()
		return nil, fault.Wrap(fault.Internal, err, "make the console socket %s", path)
	}
	return l, nil
}

func (l *listener) close() {
	_ = unix.Close(l.fd)
	_ = unix.Unlink(l.path)
}

// receive takes the terminal from a runtime that connects.
func (l *listener) receive(until time.Time) (int, error) {
	conn, _, err := unix.Accept4(l.fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		return -1, fault.Wrap(fault.Internal, err, "the console socket")
	}
	defer unix.Close(conn)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(conn), Events: unix.POLLIN}}, int(max(time.Until(until).Milliseconds(), 0)))
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return -1, fault.New(fault.Internal, "the console socket: no terminal came")
		}
		break
	}
	name, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*4))
	_, oobn, _, _, err := unix.Recvmsg(conn, name, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, fault.Wrap(fault.Internal, err, "the console socket")
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return -1, fault.Wrap(fault.Internal, err, "the console socket")
	}
	var got []int
	for i := range messages {
		if fds, err := unix.ParseUnixRights(&messages[i]); err == nil {
			got = append(got, fds...)
		}
	}
	if len(got) != 1 {
		for _, fd := range got {
			_ = unix.Close(fd)
		}
		return -1, fault.New(fault.Internal, "the console socket: %d descriptors came, not one terminal", len(got))
	}
	return got[0], nil
}
