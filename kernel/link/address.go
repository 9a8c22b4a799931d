package link

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Address is an address of a link.
type Address struct {
	Index     int // of the link
	Prefix    netip.Prefix
	LinkLocal bool // its scope is the link
}

// AddAddress gives a link an address. An IPv4 address gets its broadcast address as label tools expect it only where the
// subnet has one; an IPv6 address is usable at once: duplicate detection is off, since nobody else gives out addresses
// there.
func AddAddress(index int, p netip.Prefix) Op {
	var m builder
	m.address(index, p)
	if p.Addr().Is4() && p.Bits() < 31 {
		b := p.Addr().As4()
		v := binary.BigEndian.Uint32(b[:]) | (1<<(32-p.Bits()) - 1)
		m.attr(unix.IFA_BROADCAST, binary.BigEndian.AppendUint32(nil, v))
	}
	return Op{what: "add address " + p.String() + " to " + name(index), kind: unix.RTM_NEWADDR, flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, body: m.b}
}

// DeleteAddress takes an address from a link.
func DeleteAddress(index int, p netip.Prefix) Op {
	var m builder
	m.address(index, p)
	return Op{what: "delete address " + p.String() + " of " + name(index), kind: unix.RTM_DELADDR, body: m.b}
}

// address appends struct ifaddrmsg and the address.
func (m *builder) address(index int, p netip.Prefix) {
	family, scope := uint8(unix.AF_INET), uint8(unix.RT_SCOPE_UNIVERSE)
	flags := uint32(unix.IFA_F_PERMANENT)
	if p.Addr().Is6() {
		family, flags = unix.AF_INET6, flags|unix.IFA_F_NODAD
	}
	if p.Addr().IsLinkLocalUnicast() {
		scope = unix.RT_SCOPE_LINK
	}
	m.raw(family, uint8(p.Bits()), uint8(flags), scope)
	m.native32(uint32(index))
	m.attr(unix.IFA_LOCAL, p.Addr().AsSlice())
	m.attr(unix.IFA_ADDRESS, p.Addr().AsSlice())
}

// Addresses lists the addresses of a link, or with index 0 of all.
func (c *Conn) Addresses(index int) (list []Address, err error) {
	var m builder
	m.raw(unix.AF_UNSPEC, 0, 0, 0)
	m.native32(uint32(index))
	err = c.ask(Op{what: "list addresses", kind: unix.RTM_GETADDR, flags: unix.NLM_F_DUMP, body: m.b}, func(kind uint16, b []byte) {
		if kind != unix.RTM_NEWADDR || len(b) < unix.SizeofIfAddrmsg {
			return
		}
		a := Address{Index: number(b[4:]), LinkLocal: b[3] == unix.RT_SCOPE_LINK}
		var local, peer netip.Addr
		attributes(b[unix.SizeofIfAddrmsg:], func(kind uint16, v []byte) {
			switch kind {
			case unix.IFA_LOCAL:
				local, _ = netip.AddrFromSlice(v)
			case unix.IFA_ADDRESS:
				peer, _ = netip.AddrFromSlice(v)
			}
		})
		if !local.IsValid() {
			local = peer
		}
		if !local.IsValid() || index != 0 && a.Index != index {
			return
		}
		a.Prefix = netip.PrefixFrom(local, int(b[1]))
		list = append(list, a)
	})
	return list, err
}

// Route is a route of the main table.
type Route struct {
	To     netip.Prefix // zero bits: the default route; its address says the family
	Via    netip.Addr   // zero: To is on the link
	Index  int          // of the link
	Source netip.Addr   // preferred source address
	Metric int
	MTU    int
}

// AddRoute adds a route, ReplaceRoute puts it in the place of one to the same destination.
func AddRoute(r Route) Op {
	return r.op("add", unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
}

// ReplaceRoute adds a route in the place of the one to the same destination with the same metric.
func ReplaceRoute(r Route) Op {
	return r.op("replace", unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
}

// DeleteRoute deletes a route.
func DeleteRoute(r Route) Op { return r.op("delete", unix.RTM_DELROUTE, 0) }

func (r Route) op(verb string, kind, flags uint16) Op {
	var m builder
	family := uint8(unix.AF_INET)
	if r.To.Addr().Is6() {
		family = unix.AF_INET6
	}
	scope := uint8(unix.RT_SCOPE_UNIVERSE)
	if !r.Via.IsValid() && family == unix.AF_INET && r.To.Bits() > 0 {
		scope = unix.RT_SCOPE_LINK
	}
	if kind == unix.RTM_DELROUTE {
		scope = unix.RT_SCOPE_NOWHERE // any
	}
	// struct rtmsg
	m.raw(family, uint8(r.To.Bits()), 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, scope, unix.RTN_UNICAST)
	m.native32(0)
	if r.To.Bits() > 0 {
		m.attr(unix.RTA_DST, r.To.Masked().Addr().AsSlice())
	}
	if r.Via.IsValid() {
		m.attr(unix.RTA_GATEWAY, r.Via.AsSlice())
	}
	if r.Index > 0 {
		m.u32(unix.RTA_OIF, uint32(r.Index))
	}
	if r.Source.IsValid() {
		m.attr(unix.RTA_PREFSRC, r.Source.AsSlice())
	}
	if r.Metric > 0 {
		m.u32(unix.RTA_PRIORITY, uint32(r.Metric))
	}
	if r.MTU > 0 {
		m.nest(unix.RTA_METRICS, func() { m.u32(unix.RTAX_MTU, uint32(r.MTU)) })
	}
	to := r.To.String()
	if r.To.Bits() == 0 {
		to = "default"
	}
	if r.Via.IsValid() {
		to += " via " + r.Via.String()
	}
	return Op{what: verb + " route " + to, kind: kind, flags: flags, body: m.b}
}

// Routes lists the unicast routes of all tables but the local one, of both families.
func (c *Conn) Routes() (list []Route, err error) {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		var m builder
		m.raw(family, 0, 0, 0, 0, 0, 0, 0)
		m.native32(0)
		err := c.ask(Op{what: "list routes", kind: unix.RTM_GETROUTE, flags: unix.NLM_F_DUMP, body: m.b}, func(kind uint16, b []byte) {
			if r, ok := route(b); ok && kind == unix.RTM_NEWROUTE {
				list = append(list, r)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// route reads struct rtmsg and its attributes.
func route(b []byte) (r Route, ok bool) {
	if len(b) < unix.SizeofRtMsg || b[7] != unix.RTN_UNICAST || b[4] == unix.RT_TABLE_LOCAL {
		return r, false
	}
	to := netip.IPv4Unspecified()
	if b[0] == unix.AF_INET6 {
		to = netip.IPv6Unspecified()
	}
	attributes(b[unix.SizeofRtMsg:], func(kind uint16, v []byte) {
		switch kind {
		case unix.RTA_DST:
			if a, ok := netip.AddrFromSlice(v); ok {
				to = a
			}
		case unix.RTA_GATEWAY:
			r.Via, _ = netip.AddrFromSlice(v)
		case unix.RTA_OIF:
			r.Index = number(v)
		case unix.RTA_PREFSRC:
			r.Source, _ = netip.AddrFromSlice(v)
		case unix.RTA_PRIORITY:
			r.Metric = number(v)
		case unix.RTA_MULTIPATH: // the first hop stands for all: who asks wants to know a link of it
			if len(v) >= 8 {
				r.Index = number(v[4:])
			}
		}
	})
	r.To = netip.PrefixFrom(to, int(b[1]))
	return r, r.To.IsValid()
}
