package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/netns"
)

// Conn is a NETLINK_ROUTE socket. Its methods may be called from several goroutines; they take turns.
type Conn struct {
	mu  sync.Mutex
	fd  int
	seq uint32
	buf []byte
}

// Dial makes a socket in the calling thread's namespace.
func Dial() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "netlink socket")
	}
	// Errors come with the kernel's own words (Linux 4.12), and without a copy of the request (4.3). Old kernels lack them.
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	// Dumps show only what was asked for, and only where the kernel can be strict (4.20).
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	// The kernel answers within the request; this bounds a defect, not its work.
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 30})
	return &Conn{fd: fd}, nil
}

// DialIn makes a socket in the namespace ns.
func DialIn(ns *os.File) (c *Conn, err error) {
	err = netns.Do(ns, func() (err error) {
		c, err = Dial()
		return err
	})
	return c, err
}

// Close closes the socket.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return nil
	}
	err := unix.Close(c.fd)
	c.fd = -1
	return err
}

// Op is one request. what is for the reader of an error.
type Op struct {
	what   string
	kind   uint16
	flags  uint16
	body   []byte
	absent bool // that the object is not there is what was wanted
	exists bool // that it is there already too
	try    bool // a refusal is no error
}

// String says what the request is.
func (o Op) String() string { return o.what }

// IfThere makes a request that deletes succeed when there is nothing to delete.
func (o Op) IfThere() Op { o.absent = true; return o }

// Try makes a request whose refusal is no error: for what some kernels lack and nothing depends on.
func (o Op) Try() Op { o.try = true; return o }

// OrExists makes a request that adds succeed when it is there already.
func (o Op) OrExists() Op { o.exists = true; return o }

// Error is a request that the kernel refused.
type Error struct {
	What  string // the request
	Errno unix.Errno
	Text  string // the kernel's own words, often ""
	Index int    // of the Op in its batch
}

// Error gives the request, the errno and the kernel's words.
func (e *Error) Error() string {
	if e.Text != "" {
		return e.What + ": " + e.Errno.Error() + " (" + e.Text + ")"
	}
	return e.What + ": " + e.Errno.Error()
}

// Unwrap gives the errno.
func (e *Error) Unwrap() error { return e.Errno }

// Do sends the requests in as few datagrams as they fit into and gives the first refusal, an *Error within a fault.
// Requests after a refused one are worked off too.
func (c *Conn) Do(ops ...Op) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var first error
	for i := 0; i < len(ops); {
		n := c.fit(ops[i:])
		err := c.send(ops[i:i+n], i)
		if err != nil && first == nil {
			first = err
		}
		var refused *Error
		if err != nil && !errors.As(err, &refused) {
			return first // the socket is no good
		}
		i += n
	}
	return first
}

// What a datagram may hold: the socket's buffers must take it and, at about a kilobyte each, the answers.
const (
	maxBatch = 16 << 10
	maxOps   = 64
)

// fit tells how many of the requests go into one datagram; at least one.
func (c *Conn) fit(ops []Op) int {
	size := 0
	for i, o := range ops {
		size += unix.NLMSG_HDRLEN + len(o.body) + 4
		if i > 0 && (size > maxBatch || i == maxOps) {
			return i
		}
	}
	return len(ops)
}

// send sends one datagram and reads an answer for each of its requests. at is the first one's index.
func (c *Conn) send(ops []Op, at int) error {
	start := c.seq + 1
	var out []byte
	for _, o := range ops {
		c.seq++
		out = header(out, o.kind, o.flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK, c.seq, o.body)
	}
	if err := unix.Sendto(c.fd, out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fault.Wrap(fault.Internal, err, "netlink")
	}
	var first error
	for open := len(ops); open > 0; {
		b, err := c.receive()
		if err != nil {
			return err
		}
		err = messages(b, func(m message) error {
			i := int(m.seq - start)
			if m.kind != unix.NLMSG_ERROR || m.seq < start || i >= len(ops) {
				return nil // an echo, or the late answer to a request whose reader gave up
			}
			open--
			if err := ops[i].refusal(m, at+i); err != nil && first == nil {
				first = err
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return first
}

// refusal turns an answer into an error; nil for an acknowledgement.
func (o Op) refusal(m message, index int) error {
	e := m.refused()
	switch {
	case e == nil || o.try:
		return nil
	case o.exists && e.Errno == unix.EEXIST:
		return nil
	case o.absent && (e.Errno == unix.ENODEV || e.Errno == unix.ENOENT || e.Errno == unix.ESRCH || e.Errno == unix.EADDRNOTAVAIL):
		return nil
	}
	e.What, e.Index = o.what, index
	return fault.Wrap(kind(e.Errno), e, "")
}

func kind(errno unix.Errno) fault.Kind {
	switch errno {
	case unix.ENODEV, unix.ENOENT, unix.ESRCH, unix.EADDRNOTAVAIL:
		return fault.NotFound
	case unix.EEXIST, unix.EBUSY, unix.EADDRINUSE:
		return fault.Conflict
	case unix.EPERM, unix.EACCES:
		return fault.Forbidden
	case unix.EOPNOTSUPP:
		return fault.NotImplemented
	case unix.EINVAL, unix.ERANGE:
		return fault.Invalid
	}
	return fault.Internal
}

// ask sends one request and calls each for every message of the answer.
func (c *Conn) ask(o Op, each func(kind uint16, body []byte)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	out := header(nil, o.kind, o.flags|unix.NLM_F_REQUEST, c.seq, o.body)
	if err := unix.Sendto(c.fd, out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fault.Wrap(fault.Internal, err, "netlink")
	}
	for done := false; !done; {
		b, err := c.receive()
		if err != nil {
			return err
		}
		err = messages(b, func(m message) error {
			if m.seq != c.seq {
				return nil
			}
			switch m.kind {
			case unix.NLMSG_DONE:
				done = true
				return nil
			case unix.NLMSG_ERROR:
				done = true
				return o.refusal(m, 0)
			}
			each(m.kind, m.body)
			if m.flags&unix.NLM_F_MULTI == 0 {
				done = true
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// receive reads one datagram whole. What it gives is valid until the next call.
func (c *Conn) receive() ([]byte, error) {
	if c.buf == nil {
		c.buf = make([]byte, 32<<10) // the kernel's dumps come in datagrams of at most 32 KiB
	}
	for {
		n, _, err := unix.Recvfrom(c.fd, c.buf, unix.MSG_TRUNC)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, fault.Wrap(fault.Internal, err, "netlink")
		case n > len(c.buf):
			return nil, fault.New(fault.Internal, "netlink: a datagram of %d bytes", n)
		}
		return c.buf[:n], nil
	}
}

// message is one netlink message.
type message struct {
	kind, flags uint16
	seq         uint32
	body        []byte
}

// messages calls each for every message in a datagram, until one gives an error.
func messages(b []byte, each func(message) error) error {
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return fault.New(fault.Internal, "netlink: a message of %d bytes in %d", size, len(b))
		}
		m := message{
			kind: binary.NativeEndian.Uint16(b[4:]), flags: binary.NativeEndian.Uint16(b[6:]),
			seq: binary.NativeEndian.Uint32(b[8:]), body: b[unix.NLMSG_HDRLEN:size],
		}
		if err := each(m); err != nil {
			return err
		}
		b = b[min(len(b), align(size)):]
	}
	return nil
}

// refused reads struct nlmsgerr and the attributes behind it; nil for an acknowledgement.
func (m message) refused() *Error {
	if len(m.body) < 4 {
		return &Error{Errno: unix.EPROTO}
	}
	code := int32(binary.NativeEndian.Uint32(m.body))
	if code == 0 {
		return nil
	}
	e := &Error{Errno: unix.Errno(-code)}
	rest := m.body[min(len(m.body), 4+unix.NLMSG_HDRLEN):]
	if m.flags&unix.NLM_F_CAPPED == 0 && len(m.body) >= 8 { // the request is copied whole
		rest = m.body[min(len(m.body), 4+align(int(binary.NativeEndian.Uint32(m.body[4:])))):]
	}
	attributes(rest, func(kind uint16, value []byte) {
		if kind == unix.NLMSGERR_ATTR_MSG {
			e.Text = text(value)
		}
	})
	return e
}

func align(n int) int { return (n + 3) &^ 3 }

// header appends one whole message.
func header(b []byte, kind, flags uint16, seq uint32, body []byte) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.NLMSG_HDRLEN+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0) // the kernel fills in who we are
	b = append(b, body...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// builder makes the body of a message: a fixed head and attributes (struct rtattr: two bytes of length, two of type, the
// value, padding to four).
type builder struct{ b []byte }

func (m *builder) attr(kind uint16, value []byte) {
	m.b = binary.NativeEndian.AppendUint16(m.b, uint16(4+len(value)))
	m.b = binary.NativeEndian.AppendUint16(m.b, kind)
	m.b = append(m.b, value...)
	for len(m.b)%4 != 0 {
		m.b = append(m.b, 0)
	}
}

func (m *builder) u8(kind uint16, v uint8)    { m.attr(kind, []byte{v}) }
func (m *builder) flag(kind uint16, v bool)   { m.u8(kind, one(v)) }
func (m *builder) u16(kind uint16, v uint16)  { m.attr(kind, binary.NativeEndian.AppendUint16(nil, v)) }
func (m *builder) u32(kind uint16, v uint32)  { m.attr(kind, binary.NativeEndian.AppendUint32(nil, v)) }
func (m *builder) u64(kind uint16, v uint64)  { m.attr(kind, binary.NativeEndian.AppendUint64(nil, v)) }
func (m *builder) text(kind uint16, v string) { m.attr(kind, append([]byte(v), 0)) }
func (m *builder) nest(kind uint16, f func()) { m.within(kind|unix.NLA_F_NESTED, f) }
func (m *builder) raw(b ...byte)              { m.b = append(m.b, b...) }
func (m *builder) native16(v uint16)          { m.b = binary.NativeEndian.AppendUint16(m.b, v) }
func (m *builder) native32(v uint32)          { m.b = binary.NativeEndian.AppendUint32(m.b, v) }
func (m *builder) within(kind uint16, f func()) {
	at := len(m.b)
	m.native16(0)
	m.native16(kind)
	f()
	binary.NativeEndian.PutUint16(m.b[at:], uint16(len(m.b)-at))
}

func one(v bool) uint8 {
	if v {
		return 1
	}
	return 0
}

// attributes calls each for every rtattr in b; what is cut short ends it.
func attributes(b []byte, each func(kind uint16, value []byte)) {
	for len(b) >= 4 {
		size := int(binary.NativeEndian.Uint16(b))
		if size < 4 || size > len(b) {
			return
		}
		each(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[4:size])
		b = b[min(len(b), align(size)):]
	}
}

// text is a string attribute's value without its closing zero.
func text(b []byte) string { return strings.TrimRight(string(b), "\x00") }

func number(b []byte) int {
	if len(b) < 4 {
		return 0
	}
	return int(binary.NativeEndian.Uint32(b))
}

func name(index int) string { return fmt.Sprintf("link %d", index) }
