package ipam

import (
	"net/netip"
	"slices"

	"berth/base/fault"
)

// PoolSpec is a block that subnets of one size are cut from: dockerd's --default-address-pool base=…,size=….
type PoolSpec struct {
	Base netip.Prefix `json:"base"`
	Size int          `json:"size"` // bits of each subnet's prefix
}

// docker is the subnet that Docker's default network has on most machines.
var docker = netip.MustParsePrefix("172.17.0.0/16")

// Default gives the blocks of an engine that was told none: subnets of /24 out of those private ranges that Docker uses
// too, and of /64 out of the engine's own part of fd00::/8, which ula is (48 bits; zero: no IPv6 by default).
func Default(ula netip.Prefix) []PoolSpec {
	list := []PoolSpec{
		{netip.MustParsePrefix("172.18.0.0/15"), 24},
		{netip.MustParsePrefix("172.20.0.0/14"), 24},
		{netip.MustParsePrefix("172.24.0.0/13"), 24},
		{netip.MustParsePrefix("192.168.0.0/16"), 24},
	}
	if ula.IsValid() {
		list = append(list, PoolSpec{ula, 64})
	}
	return list
}

// DefaultNetwork gives the blocks for the network "bridge": Docker's subnet, and where that is taken a /16 beside it.
func DefaultNetwork() []PoolSpec {
	return []PoolSpec{
		{docker, 16},
		{netip.MustParsePrefix("172.18.0.0/15"), 16},
		{netip.MustParsePrefix("172.20.0.0/14"), 16},
		{netip.MustParsePrefix("172.24.0.0/13"), 16},
		{netip.MustParsePrefix("192.168.0.0/16"), 20},
		{netip.MustParsePrefix("192.168.0.0/16"), 24},
		{netip.MustParsePrefix("10.0.0.0/8"), 24},
	}
}

// Check tells what is wrong with a block.
func (s PoolSpec) Check() error {
	switch {
	case !s.Base.IsValid():
		return fault.New(fault.Invalid, "invalid address pool: %s", s.Base)
	case s.Base != s.Base.Masked():
		return fault.New(fault.Invalid, "invalid address pool %s: it should be %s", s.Base, s.Base.Masked())
	case s.Size < s.Base.Bits() || s.Size > s.Base.Addr().BitLen():
		return fault.New(fault.Invalid, "the size of %d in address pool %s must be between %d and %d", s.Size, s.Base, s.Base.Bits(), s.Base.Addr().BitLen())
	}
	return nil
}

// Pick gives the first subnet of the blocks, of the family asked for, that overlaps nothing that is taken.
func Pick(specs []PoolSpec, v6 bool, taken []netip.Prefix) (netip.Prefix, error) {
	for _, s := range specs {
		if s.Base.Addr().Is6() != v6 {
			continue
		}
		if p, ok := s.pick(taken); ok {
			return p, nil
		}
	}
	if v6 {
		return netip.Prefix{}, fault.New(fault.Unavailable, "could not find an available, non-overlapping IPv6 address pool among the defaults to assign to the network")
	}
	return netip.Prefix{}, fault.New(fault.Unavailable, "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network")
}

// pick steps through one block; each step goes beyond something that is taken, so that there are no more steps than
// that, however large the block.
func (s PoolSpec) pick(taken []netip.Prefix) (netip.Prefix, bool) {
	c := netip.PrefixFrom(s.Base.Addr(), s.Size).Masked()
	for s.Base.Contains(c.Addr()) {
		i := slices.IndexFunc(taken, func(t netip.Prefix) bool { return t.IsValid() && t.Overlaps(c) })
		if i < 0 {
			return c, true
		}
		behind := c
		if taken[i].Bits() < c.Bits() {
			behind = taken[i].Masked()
		}
		next := last(behind).Next()
		if !next.IsValid() {
			return c, false
		}
		c = netip.PrefixFrom(next, s.Size).Masked()
	}
	return c, false
}

// Covers tells whether outer contains all of inner.
func Covers(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// Overlapping gives the first of the taken prefixes that p overlaps.
func Overlapping(p netip.Prefix, taken []netip.Prefix) (netip.Prefix, bool) {
	i := slices.IndexFunc(taken, func(t netip.Prefix) bool { return t.IsValid() && t.Overlaps(p) })
	if i < 0 {
		return netip.Prefix{}, false
	}
	return taken[i], true
}

// last gives a prefix's last address.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := range b {
		keep := min(max(p.Bits()-8*i, 0), 8)
		b[i] |= 0xFF >> keep
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
