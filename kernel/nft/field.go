package nft

import (
	"golang.org/x/sys/unix"
)

// Field is something that is read from a packet or its connection.
type Field struct {
	name  string
	size  int // bytes
	load  func(p *program, register int)
	layer byte // NFPROTO_IPV4 or 6 where the field exists in one of them only
	proto byte // IPPROTO_… where the field belongs to one transport protocol
}

// String gives nft's name of the field.
func (f Field) String() string { return f.name }

// The fields. THDport is the port of whichever transport protocol the packet has: a rule that uses it tells the
// protocol too, or finds garbage.
var (
	IIfName      = Field{name: "iifname", size: unix.IFNAMSIZ, load: meta(unix.NFT_META_IIFNAME)}
	OIfName      = Field{name: "oifname", size: unix.IFNAMSIZ, load: meta(unix.NFT_META_OIFNAME)}
	NFProto      = Field{name: "meta nfproto", size: 1, load: meta(unix.NFT_META_NFPROTO)}
	L4Proto      = Field{name: "meta l4proto", size: 1, load: meta(unix.NFT_META_L4PROTO)}
	CTState      = Field{name: "ct state", size: 4, load: ct(unix.NFT_CT_STATE)}
	CTStatus     = Field{name: "ct status", size: 4, load: ct(unix.NFT_CT_STATUS)}
	IPSaddr      = Field{name: "ip saddr", size: 4, load: payload(unix.NFT_PAYLOAD_NETWORK_HEADER, 12, 4), layer: unix.NFPROTO_IPV4}
	IPDaddr      = Field{name: "ip daddr", size: 4, load: payload(unix.NFT_PAYLOAD_NETWORK_HEADER, 16, 4), layer: unix.NFPROTO_IPV4}
	IP6Saddr     = Field{name: "ip6 saddr", size: 16, load: payload(unix.NFT_PAYLOAD_NETWORK_HEADER, 8, 16), layer: unix.NFPROTO_IPV6}
	IP6Daddr     = Field{name: "ip6 daddr", size: 16, load: payload(unix.NFT_PAYLOAD_NETWORK_HEADER, 24, 16), layer: unix.NFPROTO_IPV6}
	THDport      = Field{name: "th dport", size: 2, load: payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2)}
	TCPDport     = Field{name: "tcp dport", size: 2, load: payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2), proto: unix.IPPROTO_TCP}
	UDPDport     = Field{name: "udp dport", size: 2, load: payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2), proto: unix.IPPROTO_UDP}
	FibDaddrType = Field{name: "fib daddr type", size: 4, load: fibDaddrType}
)

func meta(key uint32) func(*program, int) {
	return func(p *program, register int) {
		e := p.expr("meta")
		p.u32(unix.NFTA_META_KEY, key)
		p.u32(unix.NFTA_META_DREG, reg(register))
		p.close(e)
	}
}

func ct(key uint32) func(*program, int) {
	return func(p *program, register int) {
		e := p.expr("ct")
		p.u32(unix.NFTA_CT_KEY, key)
		p.u32(unix.NFTA_CT_DREG, reg(register))
		p.close(e)
	}
}

func payload(base, offset, size uint32) func(*program, int) {
	return func(p *program, register int) {
		e := p.expr("payload")
		p.u32(unix.NFTA_PAYLOAD_DREG, reg(register))
		p.u32(unix.NFTA_PAYLOAD_BASE, base)
		p.u32(unix.NFTA_PAYLOAD_OFFSET, offset)
		p.u32(unix.NFTA_PAYLOAD_LEN, size)
		p.close(e)
	}
}

func fibDaddrType(p *program, register int) {
	e := p.expr("fib")
	p.u32(unix.NFTA_FIB_DREG, reg(register))
	p.u32(unix.NFTA_FIB_RESULT, unix.NFT_FIB_RESULT_ADDRTYPE)
	p.u32(unix.NFTA_FIB_FLAGS, unix.NFTA_FIB_F_DADDR)
	p.close(e)
}
