package nft

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// message is the netlink messages of a batch in the making.
type message struct {
	b []byte
}

// begin starts one message of nfnetlink: a struct nlmsghdr, then a struct nfgenmsg with family and resource.
func (m *message) begin(kind, flags uint16, seq uint32, family Family, resource uint16) int {
	at := len(m.b)
	m.b = binary.NativeEndian.AppendUint32(m.b, 0)
	m.b = binary.NativeEndian.AppendUint16(m.b, kind)
	m.b = binary.NativeEndian.AppendUint16(m.b, flags|unix.NLM_F_REQUEST)
	m.b = binary.NativeEndian.AppendUint32(m.b, seq)
	m.b = binary.NativeEndian.AppendUint32(m.b, 0)
	m.b = append(m.b, byte(family), unix.NFNETLINK_V0)
	m.b = binary.BigEndian.AppendUint16(m.b, resource)
	return at
}

// finish writes the length of the message that begins at at.
func (m *message) finish(at int) {
	binary.NativeEndian.PutUint32(m.b[at:], uint32(len(m.b)-at))
}

// attr is one struct nlattr: two bytes of length, two of type, the value, padding to four.
func (m *message) attr(kind uint16, value string) {
	m.b = binary.NativeEndian.AppendUint16(m.b, uint16(4+len(value)))
	m.b = binary.NativeEndian.AppendUint16(m.b, kind)
	m.b = append(m.b, value...)
	m.pad()
}

func (m *message) pad() {
	for len(m.b)%4 != 0 {
		m.b = append(m.b, 0)
	}
}

// u32 is a number, which nf_tables takes in network order.
func (m *message) u32(kind uint16, v uint32) {
	m.b = binary.NativeEndian.AppendUint16(m.b, 8)
	m.b = binary.NativeEndian.AppendUint16(m.b, kind)
	m.b = binary.BigEndian.AppendUint32(m.b, v)
}

func (m *message) u64(kind uint16, v uint64) {
	m.b = binary.NativeEndian.AppendUint16(m.b, 12)
	m.b = binary.NativeEndian.AppendUint16(m.b, kind)
	m.b = binary.BigEndian.AppendUint64(m.b, v)
}

func (m *message) str(kind uint16, s string) { m.attr(kind, s+"\x00") }

// open starts an attribute that holds others; end closes it.
func (m *message) open(kind uint16) int {
	at := len(m.b)
	m.b = binary.NativeEndian.AppendUint16(m.b, 0)
	m.b = binary.NativeEndian.AppendUint16(m.b, kind|unix.NLA_F_NESTED)
	return at
}

func (m *message) end(at int) {
	binary.NativeEndian.PutUint16(m.b[at:], uint16(len(m.b)-at))
}

// program writes the expressions of one rule and remembers what they have found out about the packet, so that a protocol is tested once.
type program struct {
	message
	layer byte // NFPROTO_IPV4 or 6 once it is known
	proto byte // IPPROTO_… once it is known
}

// expr starts one expression by its name; close ends it.
func (p *program) expr(name string) [2]int {
	elem := p.open(unix.NFTA_LIST_ELEM)
	p.str(unix.NFTA_EXPR_NAME, name)
	return [2]int{elem, p.open(unix.NFTA_EXPR_DATA)}
}

func (p *program) close(e [2]int) {
	p.end(e[1])
	p.end(e[0])
}

// need tests that the packet has the field at all, where the rule has not done so.
func (p *program) need(f Field) {
	p.needLayer(f.layer)
	if f.proto != 0 && p.proto != f.proto {
		L4Proto.load(p, 0)
		p.compare(unix.NFT_CMP_EQ, string([]byte{f.proto}))
		p.proto = f.proto
	}
}

func (p *program) needLayer(layer byte) {
	if layer != 0 && p.layer != layer {
		NFProto.load(p, 0)
		p.compare(unix.NFT_CMP_EQ, string([]byte{layer}))
		p.layer = layer
	}
}

// knows notes what a test of the rule itself has found out.
func (p *program) knows(f Field, v Value) {
	switch f.name {
	case NFProto.name:
		p.layer = v.lo[0]
	case L4Proto.name:
		p.proto = v.lo[0]
	}
}

// loadAll loads fields one after the other into registers, each from a whole register on, as the key of a set.
func (p *program) loadAll(fields []Field) {
	for _, f := range fields {
		p.need(f)
	}
	at := 0
	for _, f := range fields {
		f.load(p, at)
		at += slot(f.size)
	}
}

func (p *program) compare(op uint32, value string) {
	e := p.expr("cmp")
	p.u32(unix.NFTA_CMP_SREG, reg(0))
	p.u32(unix.NFTA_CMP_OP, op)
	p.data(unix.NFTA_CMP_DATA, value)
	p.close(e)
}

// inRange tests that the first register is in the value's range; a range of addresses with a common prefix is masked, as nft does, so that it
// is listed as a prefix.
func (p *program) inRange(v Value, not bool) {
	op := uint32(unix.NFT_CMP_EQ)
	if not {
		op = unix.NFT_CMP_NEQ
	}
	if mask, ok := maskOf(v.lo, v.hi); ok {
		p.mask(mask, zeros(len(mask)))
		p.compare(op, v.lo)
		return
	}
	e := p.expr("range")
	p.u32(unix.NFTA_RANGE_SREG, reg(0))
	p.u32(unix.NFTA_RANGE_OP, op)
	p.data(unix.NFTA_RANGE_FROM_DATA, v.lo)
	p.data(unix.NFTA_RANGE_TO_DATA, v.hi)
	p.close(e)
}

// maskOf gives the mask of a range that is a prefix.
func maskOf(lo, hi string) (string, bool) {
	mask, free := make([]byte, len(lo)), false
	for i := range len(lo) * 8 {
		bit := byte(0x80 >> (i % 8))
		l, h := lo[i/8]&bit, hi[i/8]&bit
		switch {
		case l == h && !free:
			mask[i/8] |= bit
		case l != 0 || h == 0:
			return "", false
		default:
			free = true
		}
	}
	return string(mask), len(lo) >= 4
}

func (p *program) mask(mask, xor string) {
	e := p.expr("bitwise")
	p.u32(unix.NFTA_BITWISE_SREG, reg(0))
	p.u32(unix.NFTA_BITWISE_DREG, reg(0))
	p.u32(unix.NFTA_BITWISE_LEN, uint32(len(mask)))
	p.data(unix.NFTA_BITWISE_MASK, mask)
	p.data(unix.NFTA_BITWISE_XOR, xor)
	p.close(e)
}

func (p *program) immediate(register int, value string) {
	e := p.expr("immediate")
	p.u32(unix.NFTA_IMMEDIATE_DREG, reg(register))
	p.data(unix.NFTA_IMMEDIATE_DATA, value)
	p.close(e)
}

// nat translates to what stands in the first registers: an address, then a port.
func (p *program) nat(destination, v4, port bool) {
	kind, size := uint32(unix.NFT_NAT_SNAT), 4
	if destination {
		kind = unix.NFT_NAT_DNAT
	}
	if !v4 {
		size = 16
	}
	e := p.expr("nat")
	p.u32(unix.NFTA_NAT_TYPE, kind)
	p.u32(unix.NFTA_NAT_FAMILY, uint32(layerOf(v4)))
	p.u32(unix.NFTA_NAT_REG_ADDR_MIN, reg(0))
	if port {
		p.u32(unix.NFTA_NAT_REG_PROTO_MIN, reg(size))
	}
	p.close(e)
}

func (m *message) data(kind uint16, value string) {
	d := m.open(kind)
	m.attr(unix.NFTA_DATA_VALUE, value)
	m.end(d)
}

// reg is the kernel's number of the 32-bit register that begins at the byte.
func reg(at int) uint32 { return unix.NFT_REG32_00 + uint32(at/4) }

// slot is the room that a value of size bytes takes in registers.
func slot(size int) int { return (size + 3) &^ 3 }

func zeros(n int) string { return string(make([]byte, n)) }
