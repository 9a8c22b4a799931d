package ipam

import (
	"net/netip"
	"testing"

	"berth/base/fault"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

func TestPick(t *testing.T) {
	ula := prefix("fd12:3456:789a::/48")
	for _, c := range []struct {
		name  string
		specs []PoolSpec
		v6    bool
		taken []string
		want  string // "" none is free
	}{
		{"first", Default(ula), false, nil, "172.18.0.0/24"},
		{"second", Default(ula), false, []string{"172.18.0.0/24"}, "172.18.1.0/24"},
		{"beyond a large route", Default(ula), false, []string{"172.16.0.0/12"}, "192.168.0.0/24"},
		{"beside a host route", Default(ula), false, []string{"172.18.0.77/32", "172.18.1.128/25"}, "172.18.2.0/24"},
		{"all private ranges routed", Default(ula), false, []string{"172.16.0.0/12", "192.168.0.0/16"}, ""},
		{"v6", Default(ula), true, []string{"fd12:3456:789a::/64"}, "fd12:3456:789a:1::/64"},
		{"v6 without prefix", Default(netip.Prefix{}), true, nil, ""},
		{"default network", DefaultNetwork(), false, []string{"10.0.0.0/8"}, "172.17.0.0/16"},
		{"default network beside Docker's", DefaultNetwork(), false, []string{"172.17.0.0/16"}, "172.18.0.0/16"},
		{"default network, half of it routed", DefaultNetwork(), false, []string{"172.17.128.0/17", "172.18.3.0/24"}, "172.19.0.0/16"},
		{"end of the space", []PoolSpec{{prefix("255.255.255.0/24"), 25}}, false, []string{"255.255.255.0/25", "255.255.255.128/25"}, ""},
		{"a huge block full at its start", []PoolSpec{{prefix("fd00::/8"), 64}}, true, []string{"fd00::/9"}, "fd80::/64"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var taken []netip.Prefix
			for _, s := range c.taken {
				taken = append(taken, prefix(s))
			}
			got, err := Pick(c.specs, c.v6, taken)
			if c.want == "" {
				if !fault.Is(err, fault.Unavailable) {
					t.Errorf("got %v %v", got, err)
				}
				return
			}
			if err != nil || got.String() != c.want {
				t.Errorf("got %v %v, want %s", got, err, c.want)
			}
		})
	}
}

func TestSpecs(t *testing.T) {
	for _, c := range []struct {
		s  PoolSpec
		ok bool
	}{
		{PoolSpec{prefix("10.0.0.0/8"), 24}, true}, {PoolSpec{prefix("10.0.0.0/8"), 8}, true}, {PoolSpec{prefix("10.0.0.0/8"), 7}, false},
		{PoolSpec{prefix("10.0.0.1/8"), 24}, false}, {PoolSpec{prefix("10.0.0.0/8"), 33}, false}, {PoolSpec{}, false},
	} {
		if err := c.s.Check(); (err == nil) != c.ok {
			t.Errorf("%v: %v", c.s, err)
		}
	}
}

func TestPool(t *testing.T) {
	p := NewPool(prefix("172.17.0.0/16"), netip.Prefix{})
	next := func(want string) {
		t.Helper()
		if a, err := p.Next(); err != nil || a != addr(want) {
			t.Errorf("got %v %v, want %s", a, err, want)
		}
	}
	next("172.17.0.1")
	next("172.17.0.2")
	if err := p.Take(addr("172.17.0.3")); err != nil {
		t.Error(err)
	}
	next("172.17.0.4")
	p.Give(addr("172.17.0.2"))
	p.Give(addr("172.17.0.2"))
	next("172.17.0.2")
	next("172.17.0.5")
	for a, want := range map[string]fault.Kind{"172.17.0.3": fault.Conflict, "172.17.0.0": fault.Conflict, "172.17.255.255": fault.Conflict, "172.18.0.1": fault.Invalid, "fd00::1": fault.Invalid} {
		if err := p.Take(addr(a)); !fault.Is(err, want) {
			t.Errorf("take %s: %v", a, err)
		}
	}
}

// TestPoolIsUsedUp takes every address of small subnets.
func TestPoolIsUsedUp(t *testing.T) {
	for _, c := range []struct {
		subnet, span string
		n            int
	}{
		{"10.0.0.0/24", "", 254}, {"10.0.0.0/30", "", 2}, {"10.0.0.0/31", "", 2}, {"10.0.0.1/32", "", 1}, {"fd00::/126", "", 3},
		{"10.0.0.0/16", "10.0.5.0/24", 256}, {"10.0.0.0/16", "10.0.255.0/24", 255}, {"255.255.255.0/24", "", 254},
	} {
		span := netip.Prefix{}
		if c.span != "" {
			span = prefix(c.span)
		}
		p := NewPool(prefix(c.subnet), span)
		for round := range 2 {
			var got []netip.Addr
			for {
				a, err := p.Next()
				if err != nil {
					break
				}
				got = append(got, a)
				if len(got) > 1000 {
					t.Fatalf("%s: no end", c.subnet)
				}
			}
			if len(got) != c.n {
				t.Errorf("%s of %s, round %d: %d addresses, want %d", c.span, c.subnet, round, len(got), c.n)
			}
			for _, a := range got {
				p.Give(a)
			}
		}
	}
}
