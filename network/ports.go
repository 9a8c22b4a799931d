package network

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"

	"berth/base/fault"
	"berth/kernel/link"
	"berth/network/driver"
	"berth/network/driver/bridge"
	"berth/network/port"
)

// binding is a port that is to be published on some addresses of the host, each with where it leads.
type binding struct {
	spec PortSpec
	to   []Port // HostPort still 0 where it is to be reserved
}

// gates are the endpoints to which published ports lead: those with the default routes. They are nil where there is none,
// or where its network publishes nothing. own is one whose driver leads traffic to ports by itself; there is no other then.
type gates struct{ four, six, own *place }

func (g gates) none() bool { return g.four == nil && g.six == nil && g.own == nil }

// first is the gate by which errors are told.
func (g gates) first() *place { return cmp.Or(g.four, g.six, g.own) }

// publisher gives a network's driver where it leads traffic to ports by itself.
func (x *entry) publisher() (driver.Publisher, bool) {
	p, ok := x.driver.(driver.Publisher)
	return p, ok && x.traits.Ports
}

// gatesOf finds them among places that are ordered by gateway.
func gatesOf(places []*place) (g gates) {
	if len(places) > 0 && !places[0].net.Internal {
		if _, ok := places[0].net.publisher(); ok {
			return gates{own: places[0]}
		}
	}
	publishes := func(p *place) *place {
		if _, ok := p.net.publisher(); ok {
			return nil
		}
		if p.net.traits.Ports && !p.net.Internal {
			return p
		}
		return nil
	}
	if i := slices.IndexFunc(places, func(p *place) bool { return p.IPv4.IsValid() && (p.Gateway4.IsValid() || p.OnLink) }); i >= 0 {
		g.four = publishes(places[i])
	}
	if i := slices.IndexFunc(places, func(p *place) bool { return p.IPv6.IsValid() && (p.Gateway6.IsValid() || p.OnLink) }); i >= 0 {
		g.six = publishes(places[i])
	}
	return g
}

// bind settles on which addresses of the host a port is published and where each leads.
func (n *Networks) bind(g gates, s PortSpec) (b binding, err error) {
	b.spec = s
	hosts, err := n.hostIPs(g, s)
	if err != nil {
		return b, err
	}
	for _, ip := range hosts {
		p := Port{Port: s.Port, Proto: s.Proto, HostIP: ip}
		switch {
		case g.own != nil:
			p.NetworkID, p.Target = g.own.NetworkID, g.own.IPv4.Addr()
		case ip.Is6() && g.six != nil:
			p.NetworkID, p.Target = g.six.NetworkID, g.six.IPv6.Addr()
		case g.four != nil: // from IPv6 to it, too: the firewall relays that of the host's own
			p.NetworkID, p.Target = g.four.NetworkID, g.four.IPv4.Addr()
		case s.HostIP.IsValid():
			return b, fault.New(fault.Invalid, "cannot publish %d/%s on %s: the container has no address of that family", s.Port, s.Proto, ip)
		default:
			continue
		}
		b.to = append(b.to, p)
	}
	return b, nil
}

// hostIPs gives the addresses of the host on which a port is published: the one asked for, else the network's or the
// engine's default, else all of both families.
func (n *Networks) hostIPs(g gates, s PortSpec) ([]netip.Addr, error) {
	if s.HostIP.IsValid() {
		return []netip.Addr{s.HostIP.Unmap()}, nil
	}
	for _, p := range []*place{g.four, g.six} {
		if p == nil {
			continue
		}
		if a, err := netip.ParseAddr(p.net.Options[bridge.OptBinding]); err == nil && !(a.Is4() && a.IsUnspecified()) {
			return []netip.Addr{a}, nil
		}
	}
	if n.cfg.BindIP.IsValid() && n.cfg.BindIP != netip.IPv4Unspecified() {
		return []netip.Addr{n.cfg.BindIP}, nil
	}
	if hasIPv6() && g.own == nil {
		return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}, nil
	}
	return []netip.Addr{netip.IPv4Unspecified()}, nil
}

// hasIPv6 tells whether the host has IPv6 at all.
func hasIPv6() bool {
	v, err := link.Sysctl("net/ipv6/conf/all/disable_ipv6")
	return err == nil && v == "0"
}

// routed tells whether a port of a network is reached by the container's own address: no port of the host is taken.
func (n *Networks) routed(p Port) bool {
	x := n.byID(p.NetworkID)
	if x == nil {
		return false
	}
	mode := bridge.OptMode4
	if p.Target.Is6() {
		mode = bridge.OptMode6
	}
	return x.Options[mode] == "routed"
}

// publish chooses and reserves the host's ports for what a container wants. The keys are what to release.
func (n *Networks) publish(ctx context.Context, w Want, g gates, specs []PortSpec) (ports []Port, err error) {
	if g.none() {
		return nil, nil
	}
	var all []binding
	type request struct {
		port.Want
		of int // index into all
	}
	var requests []request
	for _, s := range specs {
		b, err := n.bind(g, s)
		if err != nil {
			return nil, err
		}
		ips := make([]netip.Addr, 0, len(b.to))
		for _, p := range b.to {
			if !n.routed(p) {
				ips = append(ips, p.HostIP)
			}
		}
		all = append(all, b)
		if len(ips) > 0 {
			last := s.HostLast
			if last == 0 {
				last = s.HostFirst
			}
			requests = append(requests, request{port.Want{Proto: s.Proto, IPs: ips, First: s.HostFirst, Last: last}, len(all) - 1})
		}
	}
	// Who leaves a choice chooses last: not what the same container names further on.
	slices.SortStableFunc(requests, func(a, b request) int { return cmp.Compare(choice(a.Want), choice(b.Want)) })
	wants := make([]port.Want, len(requests))
	for i, r := range requests {
		wants[i] = r.Want
	}
	got, err := n.ports.Reserve(ctx, port.Holder{ID: w.ContainerID, Name: w.Name}, wants)
	if err != nil {
		return nil, err
	}
	for i, r := range requests {
		for k, p := range all[r.of].to {
			if !n.routed(p) {
				all[r.of].to[k].HostPort = got[i]
			}
		}
	}
	for _, b := range all {
		ports = append(ports, b.to...)
	}
	return ports, nil
}

// choice is how much of a choice a want leaves: one port of the host, several, any.
func choice(w port.Want) int {
	switch {
	case w.First == 0:
		return 2
	case w.Last > w.First:
		return 1
	}
	return 0
}

// keys are the reservations of published ports.
func keys(ports []Port) (list []port.Key) {
	for _, p := range ports {
		if p.HostPort != 0 {
			list = append(list, port.Key{Proto: p.Proto, IP: p.HostIP, Port: p.HostPort})
		}
	}
	return list
}

// adoptPorts takes up the reservations of sandboxes that were made before.
func (n *Networks) adoptPorts(ctx context.Context) {
	all := map[port.Key]port.Holder{}
	for _, b := range n.boxes {
		for _, k := range keys(b.Ports) {
			all[k] = port.Holder{ID: b.ContainerID, Name: b.want.Name}
		}
	}
	n.ports.Adopt(ctx, all)
}

// retarget leads ports that are published to other gates. A port whose family has no gate any more is withdrawn.
func retarget(ports []Port, g gates) (now []Port) {
	for _, p := range ports {
		to := g.four
		if p.Target.Is6() {
			to = g.six
		}
		if g.own != nil {
			to = g.own
		}
		if to == nil {
			continue
		}
		was := p.Target
		p.NetworkID, p.Target = to.NetworkID, to.IPv4.Addr()
		if was.Is6() {
			p.Target = to.IPv6.Addr()
		}
		now = append(now, p)
	}
	return now
}

// portError puts Docker's words before what went wrong with a container's ports.
func portError(err error, w Want, g gates) error {
	if err == nil {
		return nil
	}
	e := g.first()
	if e == nil {
		return err
	}
	return fault.In(err, "driver failed programming external connectivity on endpoint %s (%s)", strings.TrimPrefix(w.Name, "/"), e.ID)
}

// aim fills in where ports lead, whose target was not known before the driver had made the endpoint.
func aim(ports []Port, g gates) {
	for i := range ports {
		if g.own != nil && ports[i].NetworkID == g.own.NetworkID {
			ports[i].Target = g.own.IPv4.Addr()
		}
	}
}

// tellPublishers tells drivers that lead traffic to ports by themselves what has changed. joined is an endpoint whose
// driver got its ports at Join; nil: none.
func (n *Networks) tellPublishers(ctx context.Context, b *box, before, now []Port, joined *place) error {
	for i := range b.Endpoints {
		e := b.Endpoints[i]
		x := n.byID(e.NetworkID)
		if x == nil || joined != nil && joined.ID == e.ID && !x.traits.Addresses {
			continue
		}
		p, ok := x.publisher()
		was, is := portsOf(before, e.NetworkID), portsOf(now, e.NetworkID)
		if !ok || slices.Equal(was, is) {
			continue
		}
		if err := p.Publish(ctx, x.view, b.left(e, nil, false), is); err != nil {
			return err
		}
	}
	return nil
}

// portsOf gives the ports that lead to one network, as its driver knows them.
func portsOf(ports []Port, networkID string) (list []driver.Port) {
	for _, p := range ports {
		if p.NetworkID == networkID {
			list = append(list, driver.Port{Proto: p.Proto, HostIP: p.HostIP, HostPort: p.HostPort, Port: p.Port})
		}
	}
	return list
}
