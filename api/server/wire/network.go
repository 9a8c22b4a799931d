package wire

import (
	"math"
	"math/bits"
	"net/netip"

	networktypes "github.com/moby/moby/api/types/network"

	"berth/network"
)

// NetworkCreateRequest is the body of POST /networks/create.
type NetworkCreateRequest struct {
	networktypes.CreateRequest
	CheckDuplicate bool // until 1.43 it asked for what always holds now: names are unique
}

// Request gives what is asked for. What is wrong with its values the network room says.
func (r *NetworkCreateRequest) Request(v Version) network.CreateRequest {
	out := network.CreateRequest{
		Name: r.Name, Driver: r.Driver, Scope: r.Scope, IPv4: r.EnableIPv4, IPv6: r.EnableIPv6, Internal: r.Internal, Attachable: r.Attachable,
		Ingress: r.Ingress, ConfigOnly: r.ConfigOnly, Options: r.Options, Labels: r.Labels,
	}
	if v < 48 {
		out.IPv4 = nil
	}
	if r.ConfigFrom != nil {
		out.ConfigFrom = r.ConfigFrom.Network
	}
	if r.IPAM == nil {
		return out
	}
	out.IPAM = network.IPAM{Driver: r.IPAM.Driver, Options: r.IPAM.Options}
	for _, c := range r.IPAM.Config {
		out.IPAM.Pools = append(out.IPAM.Pools, network.Pool{Subnet: c.Subnet, Range: c.IPRange, Gateway: c.Gateway, Aux: c.AuxAddress})
	}
	return out
}

// ConnectRequest is the body of POST /networks/ID/connect.
type ConnectRequest struct{ networktypes.ConnectRequest }

// Endpoint gives what is asked for on the network called name.
func (r *ConnectRequest) Endpoint(name string, v Version) (network.EndpointSpec, error) {
	s := r.EndpointConfig.Copy()
	if s != nil && v < 44 {
		s.MacAddress = nil
	}
	if s != nil && v < 48 {
		s.GwPriority = 0
	}
	e, _, err := Endpoint(name, s, "EndpointConfig")
	return e, err
}

// Network is a network as lists show it.
func Network(n *network.Network) networktypes.Network {
	out := networktypes.Network{
		Name: n.Name, ID: n.ID, Created: n.Created, Scope: "local", Driver: n.Driver, EnableIPv4: n.IPv4, EnableIPv6: n.IPv6,
		IPAM: networktypes.IPAM{Driver: or(n.IPAM.Driver, "default"), Options: n.IPAM.Options}, Internal: n.Internal, Attachable: n.Attachable,
		Ingress: n.Ingress, ConfigFrom: networktypes.ConfigReference{Network: n.ConfigFrom}, ConfigOnly: n.ConfigOnly,
		Options: dict(n.Options), Labels: dict(n.Labels),
	}
	for _, p := range n.IPAM.Pools {
		out.IPAM.Config = append(out.IPAM.Config, networktypes.IPAMConfig{Subnet: p.Subnet, IPRange: p.Range, Gateway: p.Gateway, AuxAddress: p.Aux})
	}
	return out
}

// NetworkSummary is one network in the answer to GET /networks at API version v. Old versions have containers there: none, and before
// 1.28 those of endpoints.
func NetworkSummary(n *network.Network, endpoints []network.Endpoint, v Version) any {
	if v >= 52 {
		return networktypes.Summary{Network: Network(n)}
	}
	if v >= 28 {
		endpoints = nil
	}
	return networktypes.Inspect{Network: Network(n), Containers: networkContainers(endpoints)}
}

// NetworkInspect is the answer to GET /networks/ID at API version v.
func NetworkInspect(n *network.Network, endpoints []network.Endpoint, v Version) networktypes.Inspect {
	out := networktypes.Inspect{Network: Network(n), Containers: networkContainers(endpoints)}
	if v >= 52 && len(n.IPAM.Pools) > 0 {
		out.Status = &networktypes.Status{IPAM: networktypes.IPAMStatus{Subnets: subnets(n, endpoints)}}
	}
	return out
}

func networkContainers(endpoints []network.Endpoint) map[string]networktypes.EndpointResource {
	out := map[string]networktypes.EndpointResource{}
	for _, e := range endpoints {
		id := e.ContainerID
		if id == "" {
			id = "ep-" + e.ID // so Docker calls one that belongs to no container
		}
		out[id] = networktypes.EndpointResource{
			Name: e.Container, EndpointID: e.ID, MacAddress: parseMAC(e.MAC), IPv4Address: e.IPv4, IPv6Address: e.IPv6,
		}
	}
	return out
}

// subnets says how many addresses of each pool are taken and how many a container may still get.
func subnets(n *network.Network, endpoints []network.Endpoint) networktypes.SubnetStatuses {
	out := networktypes.SubnetStatuses{}
	for _, p := range n.IPAM.Pools {
		if !p.Subnet.IsValid() {
			continue
		}
		subnet := p.Subnet.Masked()
		taken := map[netip.Addr]bool{subnet.Addr(): true}
		if subnet.Addr().Is4() && subnet.Bits() < 31 {
			taken[lastAddr(subnet)] = true // broadcast
		}
		if p.Gateway.IsValid() {
			taken[p.Gateway] = true
		}
		for _, a := range p.Aux {
			taken[a] = true
		}
		for _, e := range endpoints {
			for _, a := range []netip.Addr{addrOf(e.IPv4), addrOf(e.IPv6)} {
				if a.IsValid() && subnet.Contains(a) {
					taken[a] = true
				}
			}
		}
		given := subnet
		if p.Range.IsValid() {
			given = p.Range.Masked()
		}
		free := size(given)
		for a := range taken {
			if given.Contains(a) && free > 0 {
				free--
			}
		}
		out[p.Subnet] = networktypes.SubnetStatus{IPsInUse: uint64(len(taken)), DynamicIPsAvailable: free}
	}
	return out
}

// size is the number of addresses, or the largest number there is.
func size(p netip.Prefix) uint64 {
	host := p.Addr().BitLen() - p.Bits()
	if host >= bits.UintSize {
		return math.MaxUint64
	}
	return 1 << host
}

func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// dict makes an empty object of none: Docker's answers have {} there.
func dict(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// NetworkIDs gives the id of a network by its name, "" where there is none. nil knows none.
type NetworkIDs func(name string) string

func (ids NetworkIDs) of(name string) string {
	if ids == nil {
		return ""
	}
	return ids(name)
}
