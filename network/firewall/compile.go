package firewall

import (
	"net/netip"
	"strings"
	"time"

	"berth/kernel/nft"
)

// Ruleset is what is loaded: our own table, and what is asked of others.
type Ruleset struct {
	Table nft.Table
	Asks  []Ask // what other managers are asked to let through, in the order in which it is done
}

// Priorities of our base chains. Those that filter come before those of others, which is of no consequence: a drop is final
// wherever it happens, an accept nowhere.
const (
	destination   = -100
	source        = 100
	beforeFilters = -1
	afterAll      = 1<<31 - 3 // the last place before the kernel takes a connection for made: the highest number for IPv4, one less for IPv6
)

// How long a sender whom the input policy has let in may make new connections before it is asked again (which it also is when somebody changes
// any rule of nftables, see check), and how many are remembered.
const (
	admittedFor  = 10 * time.Minute
	admittedMost = 65535
)

// Compile makes the rules of a state. It is pure: equal states, in whatever order, make equal rules.
func Compile(s State) Ruleset {
	s = s.normal()
	c := newCompiler(s)
	main := nft.Table{Family: nft.Inet, Name: s.table(), Sets: c.sets()}
	main.Chains = append(main.Chains, c.protect(), c.prerouting(), c.output(), c.publish())
	if s.Policy.ObeyInput {
		main.Chains = append(main.Chains, c.admit()...)
	}
	main.Chains = append(main.Chains, c.forward(), c.postrouting())
	for _, n := range s.Networks {
		main.Chains = append(main.Chains, c.chains(n)...)
	}
	return Ruleset{Table: main, Asks: asks(s)}
}

// String gives the ruleset as nft(8) takes it; what is asked of others follows as comments.
func (r Ruleset) String() string {
	var b strings.Builder
	b.WriteString(r.Table.String())
	for _, a := range r.Asks {
		b.WriteString(a.String())
	}
	return b.String()
}

type compiler struct {
	State
	byID map[string]Network
}

func newCompiler(s State) compiler {
	c := compiler{State: s, byID: make(map[string]Network, len(s.Networks))}
	for _, n := range s.Networks {
		c.byID[n.ID] = n
	}
	return c
}

// protect drops what a container sends to a loopback address: its bridge has route_localnet, or the host's own connections to published ports at
// 127.0.0.1 would not come back, so the kernel does not drop it any more. Answers to these connections have such an address by now, too. It hangs
// where only packets for the host come by.
func (c compiler) protect() nft.Chain {
	return nft.Chain{Name: "protect", Hook: nft.Hook{Type: nft.Filter, Point: nft.Input, Priority: beforeFilters}, Rules: []nft.Rule{
		nft.NewRule(nft.Has(nft.CTState, nft.Established, nft.Related), nft.Accept()),
		nft.NewRule(nft.Is(nft.IPDaddr, loopback4), nft.In(setBridges, nft.IIfName), nft.Drop()).Commented("loopback addresses are the host's"),
	}}
}

var loopback4 = nft.Prefix(netip.MustParsePrefix("127.0.0.0/8"))

// prerouting leads what comes from outside to published ports. What is published on 127.0.0.1 is for the host itself, however a neighbour
// addresses his packets.
func (c compiler) prerouting() nft.Chain {
	ch := nft.Chain{Name: "prerouting", Hook: nft.Hook{Type: nft.NAT, Point: nft.Prerouting, Priority: destination}, Rules: []nft.Rule{
		nft.NewRule(nft.Is(nft.IPDaddr, loopback4), nft.Return()),
	}}
	local := []nft.Expr{nft.Is(nft.FibDaddrType, nft.Local), nft.Jump("publish")}
	if !c.Policy.ObeyInput {
		ch.Rules = append(ch.Rules, nft.NewRule(local...))
		return ch
	}
	for _, test := range []nft.Expr{nft.In(setBridges, nft.IIfName), nft.In("admitted4", nft.IPSaddr, nft.L4Proto, nft.THDport), nft.In("admitted6", nft.IP6Saddr, nft.L4Proto, nft.THDport)} {
		ch.Rules = append(ch.Rules, nft.NewRule(append([]nft.Expr{test}, local...)...))
	}
	return ch
}

// output does the same for the host's own connections. Those to ::1 are left alone: IPv6 has no route_localnet, so an answer would not come back; network/loopback6
// serves them.
func (c compiler) output() nft.Chain {
	return nft.Chain{Name: "output", Hook: nft.Hook{Type: nft.NAT, Point: nft.Output, Priority: destination}, Rules: []nft.Rule{
		nft.NewRule(nft.Is(nft.IP6Daddr, nft.Addr(netip.IPv6Loopback())), nft.Return()),
		nft.NewRule(nft.Is(nft.FibDaddrType, nft.Local), nft.Jump("publish")),
	}}
}

func (c compiler) publish() nft.Chain {
	return nft.Chain{Name: "publish", Rules: []nft.Rule{
		nft.NewRule(nft.DNATBy(portsAt(true), true, nft.IPDaddr, nft.L4Proto, nft.THDport)),
		nft.NewRule(nft.Is(nft.NFProto, nft.ProtoIPv4), nft.DNATBy(ports(true), true, nft.L4Proto, nft.THDport)),
		nft.NewRule(nft.DNATBy(portsAt(false), false, nft.IP6Daddr, nft.L4Proto, nft.THDport)),
		nft.NewRule(nft.Is(nft.NFProto, nft.ProtoIPv6), nft.DNATBy(ports(false), false, nft.L4Proto, nft.THDport)),
	}}
}

// admit hangs after all input chains of the host. A new connection to a published port that comes here was not dropped by any of
// them: its sender is remembered, and the packet is dropped; the next of the same kind is led to the container.
func (c compiler) admit() []nft.Chain {
	last := nft.Chain{Name: "admit", Hook: nft.Hook{Type: nft.Filter, Point: nft.Input, Priority: afterAll}, Rules: []nft.Rule{
		nft.NewRule(nft.Is(nft.IIfName, nft.Name("lo")), nft.Accept()),
		nft.NewRule(nft.In(setBridges, nft.IIfName), nft.Accept()),
		nft.NewRule(nft.Has(nft.CTState, nft.Established, nft.Related), nft.Accept()),
	}}
	remember := nft.Chain{Name: "remember", Rules: []nft.Rule{
		nft.NewRule(nft.AddTo("admitted4", nft.IPSaddr, nft.L4Proto, nft.THDport), nft.Drop()),
		nft.NewRule(nft.AddTo("admitted6", nft.IP6Saddr, nft.L4Proto, nft.THDport), nft.Drop()),
	}}
	for _, v4 := range []bool{true, false} {
		proto, daddr := nft.ProtoIPv4, nft.IPDaddr
		if !v4 {
			proto, daddr = nft.ProtoIPv6, nft.IP6Daddr
		}
		last.Rules = append(last.Rules,
			nft.NewRule(nft.In(guardedAt(v4), daddr, nft.L4Proto, nft.THDport), nft.Jump("remember")),
			nft.NewRule(nft.Is(nft.NFProto, proto), nft.In(guarded(v4), nft.L4Proto, nft.THDport), nft.Jump("remember")))
	}
	return []nft.Chain{remember, last}
}

func (c compiler) forward() nft.Chain {
	ch := nft.Chain{Name: "forward", Hook: nft.Hook{Type: nft.Filter, Point: nft.Forward, Priority: beforeFilters}, Rules: []nft.Rule{
		nft.NewRule(nft.Has(nft.CTState, nft.Established, nft.Related), nft.Accept()),
		nft.NewRule(nft.Via(mapFrom, nft.IIfName)),
		nft.NewRule(nft.Via(mapTo, nft.OIfName)),
	}}
	if c.Policy.OnlyOurs {
		ch.Rules = append(ch.Rules, nft.NewRule(nft.In(setLinks, nft.IIfName), nft.In(setLinks, nft.OIfName), nft.Drop()).Commented("this host was no router before the engine came"))
	}
	return ch
}

// postrouting gives the host's own connections to 127.0.0.1 an address that a container can answer to, and what leaves a network
// an address of the host. Clients from elsewhere keep their address.
func (c compiler) postrouting() nft.Chain {
	return nft.Chain{Name: "postrouting", Hook: nft.Hook{Type: nft.NAT, Point: nft.Postrouting, Priority: source}, Rules: []nft.Rule{
		nft.NewRule(nft.Is(nft.IPSaddr, loopback4), nft.In(setBridges, nft.OIfName), nft.Masquerade()),
		nft.NewRule(nft.Via(mapOut(true), nft.IPSaddr)),
		nft.NewRule(nft.Via(mapOut(false), nft.IP6Saddr)),
	}}
}

// chains are those of one network: into it, out of it where that is not free, and the translation of what leaves.
func (c compiler) chains(n Network) []nft.Chain {
	chains := []nft.Chain{c.into(n)}
	if n.closed() {
		return append(chains, nft.Chain{Name: chainFrom(n), Rules: []nft.Rule{
			nft.NewRule(nft.IsNot(nft.OIfName, nft.Name(n.Bridge)), nft.Drop()).Commented("internal"),
		}})
	}
	if n.nats(true) || n.nats(false) {
		chains = append(chains, c.outOf(n))
	}
	return chains
}

func (c compiler) into(n Network) nft.Chain {
	ch := nft.Chain{Name: chainTo(n)}
	add := func(r nft.Rule) { ch.Rules = append(ch.Rules, r) }
	own := nft.Is(nft.IIfName, nft.Name(n.Bridge))
	if !n.closed() {
		add(nft.NewRule(nft.Has(nft.CTStatus, nft.DNATed), nft.Accept()).Commented("published"))
	}
	if n.ICC {
		add(nft.NewRule(own, nft.Accept()))
	} else {
		add(nft.NewRule(own, nft.Drop()).Commented("icc=false"))
	}
	if n.closed() {
		add(nft.NewRule(nft.Drop()).Commented("internal"))
		return ch
	}
	for _, name := range n.Trusted {
		add(nft.NewRule(nft.Is(nft.IIfName, nft.Name(name)), nft.Accept()).Commented("trusted"))
	}
	for _, v4 := range []bool{true, false} {
		for _, r := range c.direct(n, v4) {
			add(r)
		}
	}
	add(nft.NewRule(nft.Drop()).Commented("not published"))
	return ch
}

// direct lets in what is addressed to a container itself, without translation.
func (c compiler) direct(n Network, v4 bool) []nft.Rule {
	proto, daddr, ping := nft.ProtoIPv4, nft.IPDaddr, nft.Proto(1)
	if !v4 {
		proto, daddr, ping = nft.ProtoIPv6, nft.IP6Daddr, nft.Proto(58)
	}
	open := nft.NewRule(nft.In(setOpen(v4), daddr, nft.L4Proto, nft.THDport), nft.Accept()).Commented("published")
	switch m := n.mode(v4); {
	case m == ModeUnprotected:
		return []nft.Rule{nft.NewRule(nft.Is(nft.NFProto, proto), nft.Accept()).Commented(m)}
	case m == ModeRouted:
		return []nft.Rule{open, nft.NewRule(nft.Is(nft.L4Proto, ping), nft.Accept()).Commented(m)}
	case c.Policy.AllowDirect:
		return []nft.Rule{open}
	}
	return nil
}

// outOf translates the sources of what comes from the network's subnets. A container that asks for a published port of its own network gets an
// answer only over the host, so the host stands in for it.
func (c compiler) outOf(n Network) nft.Chain {
	name := nft.Name(n.Bridge)
	ch := nft.Chain{Name: chainOut(n), Rules: []nft.Rule{
		nft.NewRule(nft.Is(nft.OIfName, name), nft.Has(nft.CTStatus, nft.DNATed), nft.Masquerade()).Commented("to itself by the host's address"),
	}}
	if !n.Masquerade {
		return ch
	}
	for _, a := range []netip.Addr{n.HostIP, n.HostIP6} {
		if a.IsValid() {
			ch.Rules = append(ch.Rules, nft.NewRule(nft.IsNot(nft.OIfName, name), nft.SNAT(a)))
		}
	}
	if n.HostIP.IsValid() && n.HostIP6.IsValid() {
		return ch
	}
	ch.Rules = append(ch.Rules, nft.NewRule(nft.IsNot(nft.OIfName, name), nft.Masquerade()))
	return ch
}
