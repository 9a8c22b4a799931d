package firewall

import (
	"cmp"
	"net/netip"
	"slices"
)

// Gateway modes of a network, for one address family, with Docker's names and meanings. "" is ModeNAT.
const (
	ModeNAT         = "nat"             // containers leave with the host's address; only published ports can be reached, by the host's addresses
	ModeUnprotected = "nat-unprotected" // as nat, and all ports can be reached by the container's address, from wherever it is routed
	ModeRouted      = "routed"          // no translation: published ports can be reached by the container's own address
	ModeIsolated    = "isolated"        // an internal network of which the host has no address
)

// Network is one bridge network as the firewall sees it.
type Network struct {
	ID, Name, Bridge string
	Subnets          []netip.Prefix
	Internal         bool       // nothing goes in or out
	ICC              bool       // containers of the network reach each other; if not, and bridge-nf-call-iptables is not 1, the driver isolates the bridge's ports
	Masquerade       bool       // what leaves gets an address of the host as its source
	HostIP, HostIP6  netip.Addr // that source; zero: of the interface by which it leaves
	GatewayMode4     string
	GatewayMode6     string
	Trusted          []string // interfaces of the host from which containers can be reached by their own addresses, all ports
}

// mode gives the gateway mode of a family.
func (n Network) mode(v4 bool) string {
	m := n.GatewayMode6
	if v4 {
		m = n.GatewayMode4
	}
	if m == "" {
		return ModeNAT
	}
	return m
}

// closed reports whether nothing goes in or out.
func (n Network) closed() bool {
	return n.Internal || n.GatewayMode4 == ModeIsolated || n.GatewayMode6 == ModeIsolated
}

// nats reports whether the network's addresses of a family are translated on their way out.
func (n Network) nats(v4 bool) bool {
	m := n.mode(v4)
	return !n.closed() && (m == ModeNAT || m == ModeUnprotected)
}

// Port is a published port.
type Port struct {
	NetworkID   string
	ContainerID string
	Proto       string     // "tcp", "udp", "sctp"
	HostIP      netip.Addr // zero, 0.0.0.0 or ::: all addresses of the host of Target's family
	HostPort    uint16     // 0 with a routed network: nothing is translated
	Target      netip.Addr // the container's address
	TargetPort  uint16
}

// wildcard reports whether the port is published on all addresses.
func (p Port) wildcard() bool { return !p.HostIP.IsValid() || p.HostIP.IsUnspecified() }

// translated reports whether the rules can lead the host's port to the container: both are of one family. For the
// others (a client of IPv6, a container that has IPv4 only) a relay is needed, see Relayed.
func (p Port) translated() bool {
	return p.HostPort != 0 && (!p.HostIP.IsValid() || p.HostIP.Is4() == p.Target.Is4())
}

// Relayed reports whether a socket of the host has to serve the port too, beside the rules, and whether it serves all its clients or only those on ::1.
// See network/loopback6.
func (p Port) Relayed() (needed, anyClient bool) {
	p = p.normal()
	switch {
	case p.HostPort == 0 || p.Proto == "sctp":
		return false, false
	case !p.HostIP.IsValid(): // all addresses of Target's family
		return p.Target.Is6(), false
	case p.HostIP.Is4():
		return p.Target.Is6(), p.Target.Is6()
	}
	return p.Target.Is4() || p.HostIP.IsLoopback(), p.Target.Is4()
}

// normal gives the port with plain IPv4 addresses instead of those that are mapped into IPv6.
func (p Port) normal() Port {
	p.HostIP, p.Target = p.HostIP.Unmap().WithZone(""), p.Target.Unmap().WithZone("")
	if p.wildcard() {
		if p.HostIP.IsValid() && p.HostIP.Is6() != p.Target.Is6() {
			p.HostIP = netip.IPv6Unspecified()
		} else {
			p.HostIP = netip.Addr{}
		}
	}
	return p
}

// Policy is what the daemon's settings say about the firewall.
type Policy struct {
	// ObeyInput makes published ports obey the host's input policy: see docs/decisions/0012-obey-input.md.
	ObeyInput bool
	// NoForeign keeps us from asking other managers of the firewall to let containers' traffic through; Rules then tells what to ask them by hand.
	NoForeign bool
	// AllowDirect lets published ports be reached by the container's own address too, from wherever it is routed (dockerd's --allow-direct-routing).
	AllowDirect bool
	// OnlyOurs keeps the host from forwarding between the interfaces that it has when the Firewall is opened, but for our bridges: for a host on which the
	// engine itself has switched forwarding on, and which was no router before. Interfaces that come later (of a virtual machine, of a dockerd) are their makers' matter.
	OnlyOurs bool
}

// State is everything that the rules are made of.
type State struct {
	Table    string // name of our table; "" is "berth"
	Networks []Network
	Ports    []Port
	Policy   Policy
	Managers []Manager // others who have rules on the host, as they are found there
	Links    []string  // with Policy.OnlyOurs: the host's own interfaces
}

func (s State) table() string {
	if s.Table == "" {
		return "berth"
	}
	return s.Table
}

// normal gives a copy in one order, so that equal states make equal rules.
func (s State) normal() State {
	s.Networks = slices.Clone(s.Networks)
	slices.SortFunc(s.Networks, func(a, b Network) int { return cmp.Compare(a.ID, b.ID) })
	ports := make([]Port, len(s.Ports))
	for i, p := range s.Ports {
		ports[i] = p.normal()
	}
	slices.SortFunc(ports, comparePorts)
	s.Links = slices.Sorted(slices.Values(s.Links))
	s.Ports = slices.Compact(ports)
	return s
}

func comparePorts(a, b Port) int {
	return cmp.Or(cmp.Compare(a.HostPort, b.HostPort), cmp.Compare(a.Proto, b.Proto), a.HostIP.Compare(b.HostIP), a.Target.Compare(b.Target),
		cmp.Compare(a.TargetPort, b.TargetPort), cmp.Compare(a.NetworkID, b.NetworkID), cmp.Compare(a.ContainerID, b.ContainerID))
}
