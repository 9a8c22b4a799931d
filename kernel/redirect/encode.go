package redirect

import (
	"encoding/binary"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Message types and a subsystem of nfnetlink (linux/netfilter/nfnetlink.h).
const (
	nftables   = 10
	batchBegin = 0x10
	batchEnd   = 0x11
)

// batch writes netlink messages that the kernel takes as one change. Numbers of netfilter are big-endian, those of netlink and of
// what is compared with meta values the machine's.
type batch struct {
	b   []byte
	seq uint32
}

// message begins one; end with what it gives.
func (m *batch) message(kind, flags uint16, family byte, resource uint16) int {
	m.seq++
	at := len(m.b)
	m.b = append(m.b, 0, 0, 0, 0) // length
	m.b = binary.NativeEndian.AppendUint16(m.b, kind)
	m.b = binary.NativeEndian.AppendUint16(m.b, unix.NLM_F_REQUEST|flags)
	m.b = binary.NativeEndian.AppendUint32(m.b, m.seq)
	m.b = append(m.b, 0, 0, 0, 0)                // port
	m.b = append(m.b, family, unix.NFNETLINK_V0) // struct nfgenmsg
	m.b = binary.BigEndian.AppendUint16(m.b, resource)
	return at
}

func (m *batch) change(kind, flags uint16, family byte) int {
	return m.message(nftables<<8|kind, flags, family, 0)
}

// endMessage sets the length. All that is written is a multiple of four bytes long.
func (m *batch) endMessage(at int) {
	binary.NativeEndian.PutUint32(m.b[at:], uint32(len(m.b)-at))
}

func (m *batch) attr(kind uint16, value []byte) {
	m.b = binary.NativeEndian.AppendUint16(m.b, uint16(4+len(value)))
	m.b = binary.NativeEndian.AppendUint16(m.b, kind)
	m.b = append(m.b, value...)
	for len(m.b)%4 != 0 {
		m.b = append(m.b, 0)
	}
}

func (m *batch) text(kind uint16, s string) { m.attr(kind, append([]byte(s), 0)) }

func (m *batch) number(kind uint16, v uint32) { m.attr(kind, binary.BigEndian.AppendUint32(nil, v)) }

// nest writes an attribute that is made of attributes.
func (m *batch) nest(kind uint16, inside func()) {
	at := len(m.b)
	m.attr(kind|unix.NLA_F_NESTED, nil)
	inside()
	binary.NativeEndian.PutUint16(m.b[at:], uint16(len(m.b)-at))
}

// expr writes one expression of a rule.
func (m *batch) expr(name string, inside func()) {
	m.nest(unix.NFTA_LIST_ELEM, func() {
		m.text(unix.NFTA_EXPR_NAME, name)
		if inside != nil {
			m.nest(unix.NFTA_EXPR_DATA, inside)
		}
	})
}

// register is where values go through: sixteen bytes, enough for all here.
const register = unix.NFT_REG_1

func (m *batch) meta(key uint32) {
	m.expr("meta", func() {
		m.number(unix.NFTA_META_DREG, register)
		m.number(unix.NFTA_META_KEY, key)
	})
}

func (m *batch) load(base, offset, size uint32) {
	m.expr("payload", func() {
		m.number(unix.NFTA_PAYLOAD_DREG, register)
		m.number(unix.NFTA_PAYLOAD_BASE, base)
		m.number(unix.NFTA_PAYLOAD_OFFSET, offset)
		m.number(unix.NFTA_PAYLOAD_LEN, size)
	})
}

func (m *batch) compare(op uint32, value []byte) {
	m.expr("cmp", func() {
		m.number(unix.NFTA_CMP_SREG, register)
		m.number(unix.NFTA_CMP_OP, op)
		m.nest(unix.NFTA_CMP_DATA, func() { m.attr(unix.NFTA_DATA_VALUE, value) })
	})
}

// store writes a port into the transport header; the kernel corrects a checksum that is there already (on lo there is none yet).
func (m *batch) store(port uint16, offset, sum uint32) {
	m.expr("immediate", func() {
		m.number(unix.NFTA_IMMEDIATE_DREG, register)
		m.nest(unix.NFTA_IMMEDIATE_DATA, func() { m.attr(unix.NFTA_DATA_VALUE, binary.BigEndian.AppendUint16(nil, port)) })
	})
	m.expr("payload", func() {
		m.number(unix.NFTA_PAYLOAD_SREG, register)
		m.number(unix.NFTA_PAYLOAD_BASE, unix.NFT_PAYLOAD_TRANSPORT_HEADER)
		m.number(unix.NFTA_PAYLOAD_OFFSET, offset)
		m.number(unix.NFTA_PAYLOAD_LEN, 2)
		m.number(unix.NFTA_PAYLOAD_CSUM_TYPE, unix.NFT_PAYLOAD_CSUM_INET)
		m.number(unix.NFTA_PAYLOAD_CSUM_OFFSET, sum)
	})
}

func (m *batch) accept() {
	const accept = 1 // NF_ACCEPT
	m.expr("immediate", func() {
		m.number(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
		m.nest(unix.NFTA_IMMEDIATE_DATA, func() {
			m.nest(unix.NFTA_DATA_VERDICT, func() { m.number(unix.NFTA_VERDICT_CODE, accept) })
		})
	})
}

// send makes the changes in the calling thread's namespace, all or none; last is the number of the one that asks for an answer.
func (m *batch) send(last uint32) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	limit := unix.NsecToTimeval(int64(10 * time.Second))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Sendto(fd, m.b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	buf := make([]byte, 16<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return os.NewSyscallError("recvfrom", err)
		}
		if done, err := answered(buf[:n], last); done || err != nil {
			return err
		}
	}
}

// answered reads acknowledgements: the first refusal, or that the last change was made.
func answered(b []byte, last uint32) (bool, error) {
	for len(b) >= unix.SizeofNlMsghdr+4 {
		size := int(binary.NativeEndian.Uint32(b))
		kind, seq := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:])
		if size < unix.SizeofNlMsghdr+4 || size > len(b) {
			break
		}
		if kind == unix.NLMSG_ERROR {
			if code := int32(binary.NativeEndian.Uint32(b[unix.SizeofNlMsghdr:])); code != 0 {
				return true, fmt.Errorf("nf_tables: %w", unix.Errno(-code))
			}
			if seq == last {
				return true, nil
			}
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return false, nil
}
