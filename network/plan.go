package network

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"berth/base/fault"
	"berth/base/id"
	"berth/network/driver"
)

// place is an endpoint in the making: the wish, and what was chosen for it.
type place struct {
	wish
	Endpoint
	hw      net.HardwareAddr
	request driver.Request
}

// settle chooses an endpoint's id, addresses and names. The addresses are taken; giveUp gives them back.
func (x wish) settle(w Want, ifname string) (*place, error) {
	p := &place{wish: x, hw: x.mac}
	p.Endpoint = Endpoint{
		ID: id.New(), NetworkID: x.net.ID, NetworkName: x.net.Name, Spec: x.spec, Interface: ifname, Container: w.Name,
		Names: namesOf(w, x.spec),
	}
	if x.net.traits.Addresses && x.net.IPAM.Driver != "null" {
		if err := p.address(!w.withoutIPv6() || !x.net.IPv4); err != nil {
			x.net.give(p.Endpoint)
			return nil, err
		}
	}
	if p.hw == nil && !x.net.traits.Single {
		p.hw = driver.MACOf(p.IPv4.Addr(), p.IPv6.Addr())
		if !p.IPv4.IsValid() && !p.IPv6.IsValid() {
			p.hw = nil // the kernel draws one
		}
	}
	p.MAC = p.hw.String()
	return p, nil
}

// address takes the addresses: those asked for, else the lowest that are free. six is whether the container can have one of IPv6.
func (p *place) address(six bool) (err error) {
	for _, f := range []struct {
		on   bool
		want netip.Addr
		got  *netip.Prefix
		v4   bool
	}{{p.net.IPv4, p.spec.IPv4, &p.IPv4, true}, {p.net.IPv6 && six, p.spec.IPv6, &p.IPv6, false}} {
		switch {
		case f.want.IsValid() && f.on:
			i := p.net.poolOf(f.want)
			if i < 0 {
				return fault.New(fault.Invalid, "no configured subnet contains IP address %s", f.want)
			}
			if err := p.net.pools[i].Take(f.want); err != nil {
				return err
			}
			*f.got = netip.PrefixFrom(f.want, p.net.view.Pools[i].Subnet.Bits())
		case f.on:
			if *f.got, err = p.net.next(f.v4); err != nil {
				return err
			}
		}
	}
	return nil
}

// next takes the lowest free address of a family, of the first subnet that has one.
func (x *entry) next(v4 bool) (netip.Prefix, error) {
	var full error
	for i, p := range x.view.Pools {
		if p.Subnet.Addr().Is4() != v4 {
			continue
		}
		a, err := x.pools[i].Next()
		if err == nil {
			return netip.PrefixFrom(a, p.Subnet.Bits()), nil
		}
		full = cmp.Or(full, err)
	}
	return netip.Prefix{}, full
}

// gateway gives the network's gateway for an address of its; zero where it has none.
func (x *entry) gateway(a netip.Prefix) netip.Addr {
	i := x.poolOf(a.Addr())
	if !a.IsValid() || i < 0 || x.Internal {
		return netip.Addr{}
	}
	p := x.view.Pools[i]
	other := "DefaultGatewayIPv4"
	if a.Addr().Is6() {
		other = "DefaultGatewayIPv6"
	}
	if g := p.Aux[other]; g.IsValid() {
		return g
	}
	return p.Gateway
}

// namesOf gives the names by which others on a network find the container.
func namesOf(w Want, s EndpointSpec) (names []string) {
	all := append([]string{w.Name}, s.Aliases...)
	all = append(all, id.Short(w.ContainerID), w.Hostname)
	for _, a := range all {
		if a != "" && !slices.Contains(names, a) {
			names = append(names, a)
		}
	}
	return names
}

// ifnames chooses the links' names: those asked for, and ethN, or the network's own prefix, for the others.
func ifnames(wishes []wish, used []string) ([]string, error) {
	taken := map[string]bool{"lo": true}
	for _, u := range used {
		taken[u] = true
	}
	for _, x := range wishes {
		if x.ifname != "" && taken[x.ifname] {
			return nil, fault.New(fault.Conflict, "error renaming interface to %q: file exists", x.ifname)
		}
		taken[x.ifname] = x.ifname != ""
	}
	names := make([]string, len(wishes))
	for i, x := range wishes {
		names[i] = x.ifname
		if x.ifname != "" || x.net.traits.Single {
			continue
		}
		prefix := cmp.Or(x.net.Options[driver.OptPrefix], "eth")
		for k := 0; ; k++ {
			name := fmt.Sprintf("%s%d", prefix, k)
			if err := checkIfname(name); err != nil {
				return nil, err
			}
			if !taken[name] {
				taken[name], names[i] = true, name
				break
			}
		}
	}
	return names, nil
}

// byGateway orders endpoints, the one with the default route first, as Docker does: by priority; networks that lead
// outside before others; of both families before one; by name.
func byGateway(a, b *place) int {
	rank := func(p *place) (r int) {
		if p.net.gateway(p.IPv4).IsValid() || p.leads() {
			r += 2
		}
		if p.net.gateway(p.IPv6).IsValid() {
			r++
		}
		return r
	}
	return cmp.Or(
		cmp.Compare(b.spec.GwPriority, a.spec.GwPriority),
		cmp.Compare(rank(b), rank(a)),
		strings.Compare(a.net.Name, b.net.Name),
	)
}

// leads tells whether the driver gives the default route, ours chooses none: layer 3 ipvlan, plugins.
func (p *place) leads() bool { return !p.net.Internal && !p.net.traits.Gateway && !p.net.traits.Single }
