package network

import (
	"context"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"

	"berth/base/fault"
	"berth/network/driver/bridge"
	"berth/network/ipam"
)

// nameservers gives the host's, which no subnet of ours may cover.
func nameservers() (list []netip.Prefix) {
	b, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil {
			list = append(list, netip.PrefixFrom(a.WithZone(""), a.BitLen()))
		}
	}
	return list
}

// taken gives what a subnet that we choose must not overlap: our networks', the host's routes and addresses, its name servers.
func (n *Networks) taken() ([]netip.Prefix, error) {
	list := nameservers()
	for _, x := range n.sorted() {
		for _, p := range x.IPAM.Pools {
			list = append(list, p.Subnet)
		}
	}
	routes, err := n.conn.Routes()
	if err != nil {
		return nil, err
	}
	for _, r := range routes {
		if r.To.Bits() > 0 && !r.To.Addr().IsLinkLocalUnicast() {
			list = append(list, r.To.Masked())
		}
	}
	addresses, err := n.conn.Addresses(0)
	if err != nil {
		return nil, err
	}
	for _, a := range addresses {
		if !a.LinkLocal {
			list = append(list, a.Prefix.Masked())
		}
	}
	return list, nil
}

// chooseSubnets gives a network the subnets and gateways that it did not ask for, and checks those that it did.
func (n *Networks) chooseSubnets(ctx context.Context, x *entry) error {
	if x.ConfigOnly || !x.traits.Addresses || x.IPAM.Driver == "null" {
		return nil
	}
	if x.IPAM.Driver != "default" {
		return n.borrowSubnets(ctx, x)
	}
	for i := range x.IPAM.Pools {
		p := &x.IPAM.Pools[i]
		if !p.Subnet.IsValid() || p.Subnet.Addr().Is6() && !x.IPv6 || p.Subnet.Addr().Is4() && !x.IPv4 {
			continue
		}
		if err := n.free(x, p.Subnet, i); err != nil {
			return err
		}
	}
	for _, v6 := range []bool{false, true} {
		if v6 && !x.IPv6 || !v6 && !x.IPv4 || slices.ContainsFunc(x.IPAM.Pools, func(p Pool) bool { return p.Subnet.IsValid() && p.Subnet.Addr().Is6() == v6 }) {
			continue
		}
		if err := n.choose(x, v6); err != nil {
			return err
		}
	}
	x.view.Pools = n.viewOf(x.Network).Pools
	return n.fillPools(x)
}

// free tells whether a subnet that was asked for is nobody's of ours.
func (n *Networks) free(x *entry, s netip.Prefix, at int) error {
	for i, p := range x.IPAM.Pools {
		if i < at && p.Subnet.Overlaps(s) {
			return overlaps()
		}
	}
	for _, o := range n.sorted() {
		if o.ConfigOnly {
			continue
		}
		for _, p := range o.view.Pools {
			if p.Subnet.Overlaps(s) {
				return overlaps()
			}
		}
	}
	return nil
}

func overlaps() error {
	return fault.New(fault.Forbidden, "invalid pool request: Pool overlaps with other one on this address space")
}

// choose adds a subnet of our blocks.
func (n *Networks) choose(x *entry, v6 bool) error {
	taken, err := n.taken()
	if err != nil {
		return err
	}
	specs := n.pools
	if x.view.Default && len(n.cfg.DefaultPools) == 0 && !v6 {
		specs = ipam.DefaultNetwork()
	}
	s, err := ipam.Pick(specs, v6, taken)
	if err != nil {
		return err
	}
	x.view.DefaultAlloc = true
	// A pool without subnet carries what was asked besides.
	if i := slices.IndexFunc(x.IPAM.Pools, func(p Pool) bool { return !p.Subnet.IsValid() }); i >= 0 && !v6 {
		x.IPAM.Pools[i].Subnet = s
		return nil
	}
	x.IPAM.Pools = append(x.IPAM.Pools, Pool{Subnet: s})
	return nil
}

// fillPools makes the pools of a network's subnets, with what is not for containers taken, and chooses gateways.
func (n *Networks) fillPools(x *entry) error {
	if len(x.lent) > 0 {
		n.fillLent(x)
		return nil
	}
	x.pools = nil
	for i := range x.view.Pools {
		p := &x.view.Pools[i]
		pool := ipam.NewPool(p.Subnet, p.Range)
		for name, a := range p.Aux {
			if err := pool.Take(a); err != nil {
				return fault.In(err, "auxiliary address %s", name)
			}
		}
		switch {
		case p.Gateway.IsValid():
			if err := pool.Take(p.Gateway); err != nil && !slices.Contains(slices.Collect(maps.Values(p.Aux)), p.Gateway) {
				return fault.In(err, "gateway %s", p.Gateway)
			}
		case x.traits.Gateway && !(x.Internal && (!x.traits.HostSide || hostless(x, p.Subnet.Addr()))):
			g, err := pool.Next()
			if err != nil {
				return err
			}
			p.Gateway = g
			x.setGateway(p.Subnet, g)
		}
		x.pools = append(x.pools, pool)
	}
	return nil
}

// hostless reports whether the options of an internal network keep the host without an address of a family in it: then there is nobody whom
// a gateway's address would be, and it is a container's, as in Docker.
func hostless(x *entry, family netip.Addr) bool {
	if family.Is6() {
		return x.Options[bridge.OptMode6] == "isolated"
	}
	return x.Options[bridge.OptMode4] == "isolated" || x.Options[bridge.OptInhibit4] == "true"
}

func (x *entry) setGateway(s netip.Prefix, g netip.Addr) {
	for i := range x.IPAM.Pools {
		if x.IPAM.Pools[i].Subnet == s {
			x.IPAM.Pools[i].Gateway = g
		}
	}
}
