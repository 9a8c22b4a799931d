package netdev

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// socket is a NETLINK_ROUTE socket. Its namespace is the one in which it was made.
type socket struct {
	fd  int
	seq uint32
}

func newSocket() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	return &socket{fd: fd}, nil
}

func (s *socket) close() { unix.Close(s.fd) }

// attribute is one struct rtattr: two bytes of length, two of type, the value, padding to four.
func attribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// ask sends one request and calls each for the body of every message of the answer (none for an
// acknowledgement). The kernel's refusal is an errno.
func (s *socket) ask(kind uint16, flags uint16, body []byte, each func(kind uint16, body []byte)) error {
	s.seq++
	m := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(body)))
	m = binary.NativeEndian.AppendUint16(m, kind)
	m = binary.NativeEndian.AppendUint16(m, flags|unix.NLM_F_REQUEST)
	m = binary.NativeEndian.AppendUint32(m, s.seq)
	m = binary.NativeEndian.AppendUint32(m, 0) // the kernel fills in who we are
	m = append(m, body...)
	if err := unix.Sendto(s.fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(s.fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("netlink: %w", err)
		}
		done, err := s.answer(buf[:n], each)
		if done || err != nil {
			return err
		}
	}
}

// answer reads the messages of one datagram; done says that no more will come.
func (s *socket) answer(b []byte, each func(kind uint16, body []byte)) (done bool, err error) {
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return false, fmt.Errorf("netlink: a message of %d bytes in %d", size, len(b))
		}
		kind, flags, seq, body := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:]), binary.NativeEndian.Uint32(b[8:]), b[unix.NLMSG_HDRLEN:size]
		b = b[min(len(b), (size+3)&^3):]
		if seq != s.seq {
			continue
		}
		switch kind {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			if len(body) < 4 {
				return false, fmt.Errorf("netlink: a short error")
			}
			if code := int32(binary.NativeEndian.Uint32(body)); code != 0 {
				return true, unix.Errno(-code)
			}
			return true, nil
		}
		if each != nil {
			each(kind, body)
		}
		if flags&unix.NLM_F_MULTI == 0 {
			done = true
		}
	}
	return done, nil
}

// attributes calls each for every rtattr in b.
func attributes(b []byte, each func(kind uint16, value []byte)) {
	for len(b) >= 4 {
		size := int(binary.NativeEndian.Uint16(b))
		if size < 4 || size > len(b) {
			return
		}
		each(binary.NativeEndian.Uint16(b[2:])&^unix.NLA_F_NESTED, b[4:size])
		b = b[min(len(b), (size+3)&^3):]
	}
}
