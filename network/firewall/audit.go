package firewall

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// From whom a container can be reached.
const (
	ReachHost     = "this host"     // programs of the host, and those who can run some there
	ReachNetwork  = "same network"  // containers on its network
	ReachLocal    = "local subnets" // whoever has a route to a private address of the host, or to the container's own
	ReachAnywhere = "anywhere"      // whoever reaches the host
)

// Exposure is one way to a container.
type Exposure struct {
	ContainerID string // "" for all containers of the network
	NetworkID   string
	Network     string
	Proto       string // "" for all
	Port        uint16 // the container's; 0 for all
	Target      netip.Addr
	Host        string // what a client connects to: "0.0.0.0:8080", "[::1]:53", or the container's own address and port
	Reach       string // one of the words above
	Rule        string // the rule that allows it, as `berth network rules` prints it
	Notes       []string
}

// Audit says who can reach which container from where, by the rules that are loaded.
func (f *Firewall) Audit() []Exposure { return Audit(f.state()) }

// Audit says who can reach which container from where, by the rules of a state. It is pure.
func Audit(s State) []Exposure {
	s = s.normal()
	c := newCompiler(s)
	var list []Exposure
	for _, n := range s.Networks {
		list = append(list, c.ofWholeNetwork(n)...)
	}
	for _, p := range s.Ports {
		list = append(list, c.exposures(p)...)
	}
	slices.SortStableFunc(list, func(a, b Exposure) int {
		return cmp.Or(cmp.Compare(a.ContainerID, b.ContainerID), cmp.Compare(a.NetworkID, b.NetworkID), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Host, b.Host))
	})
	return slices.CompactFunc(list, func(a, b Exposure) bool { // two ports of the host may open the same direct way
		return a.ContainerID == b.ContainerID && a.NetworkID == b.NetworkID && a.Host == b.Host && a.Rule == b.Rule
	})
}

// ofWholeNetwork are the ways to all containers of a network at once.
func (c compiler) ofWholeNetwork(n Network) []Exposure {
	var list []Exposure
	base := Exposure{NetworkID: n.ID, Network: n.Name, Host: "containers' addresses"}
	if n.ICC {
		e := base
		e.Reach, e.Rule = ReachNetwork, fmt.Sprintf("%s: iifname %q accept", chainTo(n), n.Bridge)
		list = append(list, e)
	}
	if n.closed() {
		return list
	}
	for _, name := range n.Trusted {
		e := base
		e.Reach, e.Rule = ReachLocal, fmt.Sprintf("%s: iifname %q accept comment \"trusted\"", chainTo(n), name)
		e.Notes = []string{"all ports, from interface " + name}
		list = append(list, e)
	}
	for _, v4 := range []bool{true, false} {
		if !slices.ContainsFunc(n.Subnets, func(p netip.Prefix) bool { return p.Addr().Is4() == v4 }) || n.mode(v4) != ModeUnprotected {
			continue
		}
		e := base
		e.Reach, e.Rule = reachOf(n, v4), fmt.Sprintf("%s: meta nfproto %s accept comment %q", chainTo(n), map[bool]string{true: "ipv4", false: "ipv6"}[v4], ModeUnprotected)
		e.Notes = append([]string{"all ports, wherever the network's addresses are routed"}, c.bypassed(v4, true)...)
		list = append(list, e)
	}
	return list
}

// Relay stands for a rule where there is none: the engine carries connections on from a socket of the host.
const Relay = "(relayed by the engine)"

// exposures are the ways that a published port opens.
func (c compiler) exposures(p Port) []Exposure {
	n, known := c.byID[p.NetworkID]
	e := Exposure{ContainerID: p.ContainerID, NetworkID: p.NetworkID, Network: n.Name, Proto: p.Proto, Port: p.TargetPort, Target: p.Target}
	if known && n.closed() {
		return nil
	}
	var list []Exposure
	c.ofPort(func(m member) {
		switch {
		case strings.HasPrefix(m.set, "open"):
			d := e
			d.Host, d.Reach = netip.AddrPortFrom(p.Target, p.TargetPort).String(), reachOf(n, p.Target.Is4())
			d.Rule = chainTo(n) + ": " + rule(m)
			d.Notes = append([]string{"by the container's own address, wherever it is routed"}, c.bypassed(p.Target.Is4(), true)...)
			list = append(list, d)
		case strings.HasPrefix(m.set, "ports"):
			d := e
			d.Host, d.Reach, d.Rule = c.door(p), reachOfAddress(p), "publish: "+rule(m)
			if d.Reach != ReachHost {
				d.Notes = c.bypassed(p.Target.Is4(), false)
			}
			list = append(list, d)
		}
	}, p)
	if needed, anyClient := p.Relayed(); needed {
		e.Host, e.Reach = c.door(p), reachOfAddress(p)
		if !anyClient { // the rules lead all others
			e.Host, e.Reach = netip.AddrPortFrom(netip.IPv6Loopback(), p.HostPort).String(), ReachHost
		}
		e.Rule = Relay
		e.Notes = []string{"the host's input rules hold, and the container sees the host's address"}
		list = append(list, e)
	}
	return list
}

// door is the address of the host that leads to the container.
func (c compiler) door(p Port) string {
	a := p.HostIP
	switch {
	case a.IsValid():
	case p.Target.Is4():
		a = netip.IPv4Unspecified()
	default:
		a = netip.IPv6Unspecified()
	}
	return netip.AddrPortFrom(a, p.HostPort).String()
}

// bypassed tells how a way stands to the host's own input policy, of which only the ports of the host's addresses can be made to obey: what goes to a
// container's own address is not for the host.
func (c compiler) bypassed(v4, direct bool) []string {
	obeys := c.Policy.ObeyInput && !direct
	var notes []string
	for _, m := range c.Managers {
		if !m.InputDrops || (m.Kind == KindIptables || m.Kind == KindLegacy) && m.V4 != v4 {
			continue
		}
		note := "bypasses " + m.name()
		if obeys {
			note = "only what " + m.name() + " lets into the host"
		}
		if !slices.Contains(notes, note) {
			notes = append(notes, note)
		}
	}
	if obeys && notes == nil {
		notes = []string{"obeys the host's input policy, which drops nothing"}
	}
	return notes
}

// rule is an element of a map as the rule that it amounts to.
func rule(m member) string {
	key := make([]string, len(m.Key))
	for i, v := range m.Key {
		key[i] = v.String()
	}
	s := "@" + m.set + " { " + strings.Join(key, " . ")
	if len(m.Data) == 2 {
		s += " : " + m.Data[0].String() + " . " + m.Data[1].String()
	}
	return s + " }"
}

// reachOfAddress says from where the address of the host on which a port is published can be reached.
func reachOfAddress(p Port) string {
	switch a := p.HostIP; {
	case !a.IsValid():
		return ReachAnywhere
	case a.IsLoopback():
		return ReachHost
	case a.IsPrivate() || a.IsLinkLocalUnicast():
		return ReachLocal
	}
	return ReachAnywhere
}

// reachOf says from where containers' own addresses can be reached: public ones from anywhere that is routed.
func reachOf(n Network, v4 bool) string {
	for _, s := range n.Subnets {
		if s.Addr().Is4() == v4 && !s.Addr().IsPrivate() && !s.Addr().IsLinkLocalUnicast() {
			return ReachAnywhere
		}
	}
	return ReachLocal
}
