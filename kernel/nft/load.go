package nft

import (
	"encoding/binary"
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/netns"
)

const subsystem = 10 // NFNL_SUBSYS_NFTABLES

// Message types of nfnetlink that begin and end a batch.
const (
	batchBegin = 0x10
	batchEnd   = 0x11
)

// Load makes the batch's changes in the network namespace of a descriptor (nil: the calling thread's), all at one instant. On an
// error nothing has changed; it is NotFound, Conflict or NotImplemented where the kernel said so, and tells which change was refused.
//
// A batch that deletes something takes some 10 ms here: when a socket of nf_tables is closed, the kernel waits until what was deleted in its
// namespace is out of use. Who changes rules often keeps a Conn.
func Load(namespace *os.File, b *Batch) error {
	if b.Empty() {
		return nil
	}
	c, err := Dial(namespace)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Load(b)
}

// Conn is a socket to the nf_tables of one network namespace. Its methods may be called from several goroutines.
type Conn struct {
	mu  sync.Mutex // guards the socket and seq; the one lock that is held while the kernel works, because answers come in turn
	fd  int
	seq uint32 // number of the last message sent

	address uint32 // netlink's address of the socket, fixed
}

// Dial opens a socket to the namespace of a descriptor (nil: the calling thread's), which it keeps whatever the thread does later.
func Dial(namespace *os.File) (*Conn, error) {
	fd, err := socketIn(namespace)
	if err != nil {
		return nil, err
	}
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1) // no copy of the request in its answer
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<20)
	c := &Conn{fd: fd}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err == nil {
		name, _ := unix.Getsockname(fd)
		if a, ok := name.(*unix.SockaddrNetlink); ok {
			c.address = a.Pid
		}
	}
	return c, nil
}

// Close closes the socket. What was loaded stays.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return unix.Close(c.fd)
}

// Load is the function Load over this socket.
func (c *Conn) Load(b *Batch) error {
	if b.Empty() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	w := b.encode(c.seq)
	c.seq = w.seq
	err := c.send(w)
	var no *refusal
	if errors.As(err, &no) {
		return fault.Wrap(kindOf(no.errno), err, "load firewall rules")
	}
	return fault.Wrap(fault.Internal, err, "load firewall rules")
}

// encode writes the messages, which are numbered from after first.
func (b *Batch) encode(first uint32) *writer {
	w := &writer{seq: first + 1, first: first + 1, names: []string{"batch"}}
	w.finish(w.begin(batchBegin, 0, w.seq, 0, subsystem))
	last := 0
	for _, c := range b.changes {
		c.encode(w)
	}
	// The kernel answers errors in any case, and here the last change in any case: when its answer comes, all are in. The end of
	// the batch itself is answered since Linux 6.10 only.
	for at := 0; at < len(w.b); at += int(binary.NativeEndian.Uint32(w.b[at:])) {
		last = at
	}
	flags := binary.NativeEndian.Uint16(w.b[last+6:])
	binary.NativeEndian.PutUint16(w.b[last+6:], flags|unix.NLM_F_ACK)
	w.finish(w.begin(batchEnd, 0, w.seq, 0, subsystem))
	return w
}

// refusal is the kernel's answer to one change.
type refusal struct {
	errno unix.Errno
	what  string // the change
	hint  string // the kernel's own words, if any
}

func (r *refusal) Error() string {
	s := r.what + ": " + r.errno.Error()
	if r.hint != "" {
		s += " (" + r.hint + ")"
	}
	return s
}

func (r *refusal) Unwrap() error { return r.errno }

func kindOf(errno unix.Errno) fault.Kind {
	switch errno {
	case unix.ENOENT:
		return fault.NotFound
	case unix.EEXIST, unix.EBUSY:
		return fault.Conflict
	case unix.EPERM:
		return fault.Forbidden
	case unix.EOPNOTSUPP, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT:
		return fault.NotImplemented
	}
	return fault.Internal
}

// socketIn gives a NETLINK_NETFILTER socket of the namespace, whose namespace stays that in which it was made.
func socketIn(namespace *os.File) (fd int, err error) {
	make := func() error {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		return err
	}
	if namespace == nil {
		err = make()
	} else {
		err = netns.Do(namespace, make)
	}
	if err != nil {
		return -1, fault.Wrap(fault.Internal, err, "netlink socket for nf_tables")
	}
	return fd, nil
}

// send hands the batch over and waits for the kernel's answers.
func (c *Conn) send(w *writer) error {
	// One datagram has to hold all; the limit of the socket buffer is lifted for whoever may change the firewall at all.
	if size := 2*len(w.b) + 4096; size > 200<<10 {
		unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, size)
	}
	if err := unix.Sendto(c.fd, w.b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(c.fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if done, err := w.answer(buf[:n]); done || err != nil {
			return err
		}
	}
}

// answer reads one datagram of answers. An error of any change comes before the answer to the last.
func (w *writer) answer(b []byte) (done bool, err error) {
	err = messages(b, func(kind, flags uint16, seq uint32, body []byte) error {
		if kind != unix.NLMSG_ERROR || len(body) < 4 || seq < w.first || seq > w.seq {
			return nil // of an earlier batch, of which only the first error was read
		}
		errno := unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
		if errno == 0 {
			done = done || seq == w.seq
			return nil
		}
		r := &refusal{errno: errno, what: "change"}
		if n := int(seq - w.first); n < len(w.names) {
			r.what = w.names[n]
		}
		if flags&unix.NLM_F_ACK_TLVS != 0 && len(body) > 20 {
			attributes(body[20:], func(kind uint16, value []byte) {
				if kind == unix.NLMSGERR_ATTR_MSG {
					r.hint = text(value)
				}
			})
		}
		return r
	})
	return done, err
}
