package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/netns"
)

// Flow describes entries. All that is set has to be true of one.
type Flow struct {
	Proto        uint8        // IPPROTO_UDP and so on
	V4           bool         // of IPv4, else of IPv6
	To           []netip.Addr // where the first packet was sent to, one of these; none: anywhere
	ToPort       uint16       // 0: any
	Untranslated bool         // it went there, and nowhere else
	AnsweredBy   netip.Addr   // who answers; zero: anyone
}

// Constants of nfnetlink_conntrack.h.
const (
	subsystem    = 1 // NFNL_SUBSYS_CTNETLINK
	msgGet       = subsystem<<8 | 1
	msgDelete    = subsystem<<8 | 2
	ctaOrig      = 1
	ctaReply     = 2
	ctaStatus    = 3
	ctaID        = 12
	ctaZone      = 18
	ctaFilter    = 25
	ctaTupleIP   = 1
	ctaTupleL4   = 2
	ctaProtoNum  = 1
	ctaProtoDst  = 3
	origFlags    = 1      // of ctaFilter
	byProtoNum   = 1 << 3 // a bit of them
	statusDNAT   = 1 << 5
	headerLength = unix.NLMSG_HDRLEN + 4
)

// Delete ends all entries that at least one of the flows describes, in the namespace of a descriptor (nil: the calling thread's), and says how many
// there were. The kernel is asked for the entries of each family and protocol once, so the cost is that of their number.
func Delete(namespace *os.File, flows ...Flow) (int, error) {
	s, err := open(namespace)
	if err != nil {
		return 0, fault.Wrap(fault.Internal, err, "connection tracking")
	}
	defer unix.Close(s.fd)
	type kind struct {
		proto uint8
		v4    bool
	}
	byKind := map[kind][]Flow{}
	for _, f := range flows {
		byKind[kind{f.Proto, f.V4}] = append(byKind[kind{f.Proto, f.V4}], f)
	}
	ended := 0
	for k, list := range byKind {
		entries, err := s.entries(k.proto, k.v4)
		if err != nil {
			return ended, fault.Wrap(fault.Internal, err, "list tracked connections")
		}
		for _, e := range entries {
			if !slices.ContainsFunc(list, e.is) {
				continue
			}
			err := s.delete(e, k.v4)
			switch {
			case errors.Is(err, unix.ENOENT): // it has ended by itself
			case err != nil:
				return ended, fault.Wrap(fault.Internal, err, "end a tracked connection")
			default:
				ended++
			}
		}
	}
	return ended, nil
}

// entry is one tracked exchange.
type entry struct {
	orig       []byte // its first packet's tuple as the kernel gave it
	id, zone   []byte
	proto      uint8
	to         netip.Addr
	toPort     uint16
	answeredBy netip.Addr
	status     uint32
}

func (e entry) is(f Flow) bool {
	return e.proto == f.Proto && e.to.Is4() == f.V4 &&
		(len(f.To) == 0 || slices.Contains(f.To, e.to)) &&
		(f.ToPort == 0 || f.ToPort == e.toPort) &&
		(!f.Untranslated || e.status&statusDNAT == 0) &&
		(!f.AnsweredBy.IsValid() || f.AnsweredBy == e.answeredBy)
}

// parse reads the attributes of one entry.
func parse(b []byte) entry {
	var e entry
	attributes(b, func(kind uint16, value []byte) {
		switch kind {
		case ctaOrig:
			e.orig = slices.Clone(value)
			_, e.to, e.proto, e.toPort = tuple(value)
		case ctaReply:
			e.answeredBy, _, _, _ = tuple(value)
		case ctaStatus:
			if len(value) == 4 {
				e.status = binary.BigEndian.Uint32(value)
			}
		case ctaID:
			e.id = slices.Clone(value)
		case ctaZone:
			e.zone = slices.Clone(value)
		}
	})
	return e
}

// tuple reads who sends what to whom.
func tuple(b []byte) (from, to netip.Addr, proto uint8, port uint16) {
	attributes(b, func(kind uint16, value []byte) {
		switch kind {
		case ctaTupleIP:
			attributes(value, func(kind uint16, value []byte) { // 1 and 2 of IPv4, 3 and 4 of IPv6
				a, ok := netip.AddrFromSlice(value)
				switch {
				case !ok:
				case kind == 1 || kind == 3:
					from = a
				case kind == 2 || kind == 4:
					to = a
				}
			})
		case ctaTupleL4:
			attributes(value, func(kind uint16, value []byte) {
				switch {
				case kind == ctaProtoNum && len(value) == 1:
					proto = value[0]
				case kind == ctaProtoDst && len(value) == 2:
					port = binary.BigEndian.Uint16(value)
				}
			})
		}
	})
	return from, to, proto, port
}

type socket struct {
	fd  int
	seq uint32
}

func open(namespace *os.File) (*socket, error) {
	s := &socket{fd: -1}
	make := func() (err error) {
		s.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		return err
	}
	if namespace == nil {
		return s, make()
	}
	return s, netns.Do(namespace, make)
}

// entries lists those of a protocol. Kernels before 5.8 do not know the filter and give all.
func (s *socket) entries(proto uint8, v4 bool) ([]entry, error) {
	filter := attribute(nil, origFlags, binary.NativeEndian.AppendUint32(nil, byProtoNum))
	body := attribute(nil, ctaOrig|unix.NLA_F_NESTED, attribute(nil, ctaTupleL4|unix.NLA_F_NESTED, attribute(nil, ctaProtoNum, []byte{proto})))
	body = attribute(body, ctaFilter|unix.NLA_F_NESTED, filter)
	var list []entry
	err := s.ask(msgGet, unix.NLM_F_DUMP, v4, body, func(b []byte) {
		if e := parse(b); e.proto == proto && e.to.IsValid() {
			list = append(list, e)
		}
	})
	return list, err
}

func (s *socket) delete(e entry, v4 bool) error {
	body := attribute(nil, ctaOrig|unix.NLA_F_NESTED, e.orig)
	if e.id != nil {
		body = attribute(body, ctaID, e.id)
	}
	if e.zone != nil {
		body = attribute(body, ctaZone, e.zone)
	}
	return s.ask(msgDelete, unix.NLM_F_ACK, v4, body, nil)
}

func (s *socket) ask(kind, flags uint16, v4 bool, body []byte, each func([]byte)) error {
	s.seq++
	family := byte(unix.AF_INET6)
	if v4 {
		family = unix.AF_INET
	}
	m := binary.NativeEndian.AppendUint32(nil, uint32(headerLength+len(body)))
	m = binary.NativeEndian.AppendUint16(m, kind)
	m = binary.NativeEndian.AppendUint16(m, flags|unix.NLM_F_REQUEST)
	m = binary.NativeEndian.AppendUint32(m, s.seq)
	m = binary.NativeEndian.AppendUint32(m, 0)
	m = append(m, family, unix.NFNETLINK_V0, 0, 0)
	m = append(m, body...)
	if err := unix.Sendto(s.fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(s.fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if done, err := answer(buf[:n], s.seq, each); done || err != nil {
			return err
		}
	}
}

// answer reads one datagram; done says that no more will come.
func answer(b []byte, want uint32, each func([]byte)) (done bool, err error) {
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return false, fmt.Errorf("netlink: a message of %d bytes in %d", size, len(b))
		}
		kind, seq, body := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:]), b[unix.NLMSG_HDRLEN:size]
		b = b[min(len(b), (size+3)&^3):]
		switch {
		case seq != want:
		case kind == unix.NLMSG_DONE:
			return true, nil
		case kind == unix.NLMSG_ERROR && len(body) >= 4:
			if errno := unix.Errno(-int32(binary.NativeEndian.Uint32(body))); errno != 0 {
				return true, errno
			}
			return true, nil
		case each != nil && len(body) >= 4:
			each(body[4:])
		}
	}
	return false, nil
}

// attribute is one struct nlattr: two bytes of length, two of type, the value, padding to four.
func attribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func attributes(b []byte, each func(kind uint16, value []byte)) {
	for len(b) >= 4 {
		size := int(binary.NativeEndian.Uint16(b))
		if size < 4 || size > len(b) {
			return
		}
		each(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[4:size])
		b = b[min(len(b), (size+3)&^3):]
	}
}
