package firewall

import (
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"berth/kernel/nft"
)

// Names of sets and maps. Those of both families end with 4 or 6; "at" are for ports of one address of the host.
const (
	setBridges = "bridges"
	setLinks   = "links"
	mapFrom    = "from"
	mapTo      = "to"
)

func family(name string, v4 bool) string {
	if v4 {
		return name + "4"
	}
	return name + "6"
}

func ports(v4 bool) string     { return family("ports", v4) }
func portsAt(v4 bool) string   { return family("ports_at", v4) }
func guarded(v4 bool) string   { return family("guarded", v4) }
func guardedAt(v4 bool) string { return family("guarded_at", v4) }
func setOpen(v4 bool) string   { return family("open", v4) }
func mapOut(v4 bool) string    { return family("out", v4) }

func chainTo(n Network) string   { return "to-" + short(n.ID) }
func chainFrom(n Network) string { return "from-" + short(n.ID) }
func chainOut(n Network) string  { return "out-" + short(n.ID) }

// short is the form of an id that people see.
func short(id string) string { return id[:min(12, len(id))] }

// shape gives the set of that name without elements.
func shape(name string, v4 bool) nft.Set {
	addr := nft.IPv6Addr
	if v4 {
		addr = nft.IPv4Addr
	}
	one := []nft.Type{nft.InetProto, nft.InetService}
	at := append([]nft.Type{addr}, one...)
	target := []nft.Type{addr, nft.InetService}
	verdict := []nft.Type{nft.Verdict}
	switch name {
	case "bridges", "links":
		return nft.Set{Name: name, Key: []nft.Type{nft.IfName}}
	case "from", "to":
		return nft.Set{Name: name, Key: []nft.Type{nft.IfName}, Data: verdict}
	case "out":
		return nft.Set{Name: family(name, v4), Key: []nft.Type{addr}, Data: verdict, Interval: true}
	case "ports":
		return nft.Set{Name: family(name, v4), Key: one, Data: target}
	case "ports_at":
		return nft.Set{Name: family(name, v4), Key: at, Data: target}
	case "guarded":
		return nft.Set{Name: family(name, v4), Key: one}
	case "guarded_at", "open":
		return nft.Set{Name: family(name, v4), Key: at}
	}
	return nft.Set{Name: family("admitted", v4), Key: at, Dynamic: true, Timeout: admittedFor, Size: admittedMost}
}

// sets are all sets and maps of the table, in the order in which they print.
func (c compiler) sets() []nft.Set {
	names := []string{"out", "ports", "ports_at", "open"}
	if c.Policy.ObeyInput {
		names = append(names, "guarded", "guarded_at", "admitted")
	}
	sets := []nft.Set{shape(setBridges, true), shape(mapFrom, true), shape(mapTo, true)}
	if c.Policy.OnlyOurs {
		sets = append(sets, shape(setLinks, true))
	}
	for _, name := range names {
		sets = append(sets, shape(name, true), shape(name, false))
	}
	elements := c.elements()
	for i := range sets {
		sets[i].Elements = elements[sets[i].Name]
	}
	return sets
}

// elements are those of all sets by the set's name.
func (c compiler) elements() map[string][]nft.Element {
	all, seen := map[string][]nft.Element{}, map[string]bool{}
	once := func(m member) {
		if !seen[m.id()] {
			seen[m.id()] = true
			all[m.set] = append(all[m.set], m.Element)
		}
	}
	for _, n := range c.Networks {
		c.ofNetwork(once, n)
	}
	for _, name := range c.Links {
		if c.Policy.OnlyOurs && !slices.ContainsFunc(c.Networks, func(n Network) bool { return n.Bridge == name }) {
			once(member{setLinks, nft.Element{Key: []nft.Value{nft.Name(name)}}})
		}
	}
	for _, p := range c.Ports {
		c.ofPort(once, p)
	}
	return all
}

// member is an element of a set. Several ports may need the same one.
type member struct {
	set string
	nft.Element
}

func (m member) id() string { return m.set + "\x00" + m.ID() }

// ofNetwork adds what a network puts into sets.
func (c compiler) ofNetwork(add func(member), n Network) {
	key := []nft.Value{nft.Name(n.Bridge)}
	add(member{setBridges, nft.Element{Key: key, Comment: n.Name}})
	add(member{mapTo, nft.Element{Key: key, Verdict: nft.Goto(chainTo(n))}})
	if n.closed() {
		add(member{mapFrom, nft.Element{Key: key, Verdict: nft.Jump(chainFrom(n))}})
	}
	for _, s := range n.Subnets {
		if v4 := s.Addr().Is4(); n.nats(v4) {
			add(member{mapOut(v4), nft.Element{Key: []nft.Value{nft.Prefix(s)}, Verdict: nft.Goto(chainOut(n))}})
		}
	}
}

// ofPort adds what a published port puts into sets.
func (c compiler) ofPort(add func(member), p Port) {
	n, ok := c.byID[p.NetworkID]
	if ok && n.closed() || !p.Target.IsValid() {
		return // nothing comes in
	}
	v4 := p.Target.Is4()
	proto, comment := nft.Proto(protocol(p.Proto)), short(p.ContainerID)
	if ok && n.mode(v4) == ModeRouted || c.Policy.AllowDirect {
		add(member{setOpen(v4), nft.Element{Key: []nft.Value{nft.Addr(p.Target), proto, nft.Port(p.TargetPort)}, Comment: comment}})
	}
	if ok && n.mode(v4) == ModeRouted || !p.translated() {
		return
	}
	set, guard, key := ports(v4), guarded(v4), []nft.Value{proto, nft.Port(p.HostPort)}
	if !p.wildcard() {
		set, guard, key = portsAt(v4), guardedAt(v4), append([]nft.Value{nft.Addr(p.HostIP)}, key...)
	}
	add(member{set, nft.Element{Key: key, Data: []nft.Value{nft.Addr(p.Target), nft.Port(p.TargetPort)}, Comment: comment}})
	if c.Policy.ObeyInput && !(p.HostIP.IsValid() && p.HostIP.IsLoopback()) {
		add(member{guard, nft.Element{Key: key}})
	}
}

// protocol gives a transport protocol's number; 255, which no packet has, for one that is unknown.
func protocol(name string) uint8 {
	switch name {
	case "tcp", "":
		return unix.IPPROTO_TCP
	case "udp":
		return unix.IPPROTO_UDP
	case "sctp":
		return unix.IPPROTO_SCTP
	}
	return 255
}

// shapeOf gives the set by its full name, without elements.
func shapeOf(name string) nft.Set {
	if base, ok := strings.CutSuffix(name, "4"); ok {
		return shape(base, true)
	}
	return shape(strings.TrimSuffix(name, "6"), false)
}

// overlaps reports whether two networks have addresses in common; the map of subnets can hold only one of them.
func overlaps(a, b []netip.Prefix) (netip.Prefix, bool) {
	for _, p := range a {
		for _, q := range b {
			if p.Overlaps(q) {
				return p, true
			}
		}
	}
	return netip.Prefix{}, false
}
