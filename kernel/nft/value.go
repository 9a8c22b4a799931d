package nft

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Type is what a field, or one part of a set's key, is made of. nft(8) calls these data types.
type Type struct {
	name string
	id   uint32 // as nft numbers it, kept by the kernel for nft's listing only
	size int    // bytes, before it is padded to a register of four
	host bool   // in the machine's byte order
}

// The types, by their names in nft(8).
var (
	IPv4Addr    = Type{name: "ipv4_addr", id: 7, size: 4}
	IPv6Addr    = Type{name: "ipv6_addr", id: 8, size: 16}
	InetProto   = Type{name: "inet_proto", id: 12, size: 1}
	InetService = Type{name: "inet_service", id: 13, size: 2}
	IfName      = Type{name: "ifname", id: 41, size: unix.IFNAMSIZ, host: true}
	// Verdict is the data of a verdict map; it is no type of keys.
	Verdict = Type{name: "verdict", id: 0xffffff00, size: 16}
)

// String gives nft's name of the type.
func (t Type) String() string { return t.name }

// Value is a constant of some type: a single one, or all from a first to a last. Values compare with ==.
type Value struct {
	lo, hi string // bytes as in the packet; hi is "" for a single value
	text   string
}

// String gives the value as nft prints it.
func (v Value) String() string { return v.text }

// Addr is one address.
func Addr(a netip.Addr) Value { return Value{lo: string(a.AsSlice()), text: a.String()} }

// Prefix is all addresses of p; a single address where p has no host bits.
func Prefix(p netip.Prefix) Value {
	p = p.Masked()
	if p.IsSingleIP() {
		return Addr(p.Addr())
	}
	return Value{lo: string(p.Addr().AsSlice()), hi: string(last(p)), text: p.String()}
}

// Port is a port of TCP, UDP or SCTP.
func Port(p uint16) Value {
	return Value{lo: string(binary.BigEndian.AppendUint16(nil, p)), text: strconv.Itoa(int(p))}
}

// Proto is a transport protocol by its number, IPPROTO_TCP and so on.
func Proto(number uint8) Value {
	v := Value{lo: string([]byte{number}), text: strconv.Itoa(int(number))}
	switch number {
	case unix.IPPROTO_TCP:
		v.text = "tcp"
	case unix.IPPROTO_UDP:
		v.text = "udp"
	case unix.IPPROTO_SCTP:
		v.text = "sctp"
	case unix.IPPROTO_ICMP:
		v.text = "icmp"
	case unix.IPPROTO_ICMPV6:
		v.text = "ipv6-icmp"
	}
	return v
}

// Name is an interface's name, at most 15 bytes; a longer one would match nothing and is cut.
func Name(name string) Value {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b[:unix.IFNAMSIZ-1], name)
	return Value{lo: string(b), text: quote(name)}
}

// The values of NFProto and FibDaddrType that are needed.
var (
	ProtoIPv4 = Value{lo: string([]byte{unix.NFPROTO_IPV4}), text: "ipv4"}
	ProtoIPv6 = Value{lo: string([]byte{unix.NFPROTO_IPV6}), text: "ipv6"}
	Local     = Value{lo: string(binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL)), text: "local"}
)

// Flag is one bit of a field that Has tests.
type Flag struct {
	bit  uint32
	name string
}

// The flags of CTState and CTStatus that are needed.
var (
	Established = Flag{2, "established"}
	Related     = Flag{4, "related"}
	DNATed      = Flag{0x20, "dnat"}
)

// last is the highest address of a prefix.
func last(p netip.Prefix) []byte {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return b
}

// next is the value after b, of the same size; false when b is the highest.
func next(b string) (string, bool) {
	n := []byte(b)
	for i := len(n) - 1; i >= 0; i-- {
		if n[i]++; n[i] != 0 {
			return string(n), true
		}
	}
	return "", false
}

// quote puts a string between nft's quotes, which know no escape: a quote or control character inside becomes '_'.
func quote(s string) string {
	return `"` + strings.Map(func(r rune) rune {
		if r == '"' || r < ' ' || r == 0x7f || r == '\\' {
			return '_'
		}
		return r
	}, s) + `"`
}
