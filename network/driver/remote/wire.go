package remote

import (
	"net/netip"
	"strings"

	"berth/base/fault"
	"berth/network/driver"
)

// Keys of options that Docker's drivers and plugins know.
const (
	keyGeneric  = "com.docker.network.generic"
	keyInternal = "com.docker.network.internal"
	keyPortMap  = "com.docker.network.portmap"
	keyExposed  = "com.docker.network.endpoint.exposedports"
)

// Capabilities is what a plugin says of itself.
type Capabilities struct {
	Scope             string // "local" or "global"
	ConnectivityScope string
	GwAllocChecker    bool
}

// ids names a network and an endpoint of it.
type ids struct {
	NetworkID  string
	EndpointID string `json:",omitempty"`
}

type networkRequest struct {
	NetworkID string
	Options   map[string]any
	IPv4Data  []ipamData
	IPv6Data  []ipamData
}

// ipamData is a subnet; addresses are written with its length.
type ipamData struct {
	AddressSpace string
	Pool         string
	Gateway      string            `json:",omitempty"`
	AuxAddresses map[string]string `json:",omitempty"`
}

type iface struct {
	Address     string
	AddressIPv6 string
	MacAddress  string
}

type endpointRequest struct {
	ids
	Interface *iface `json:",omitempty"`
	Options   map[string]any
}

type joinRequest struct {
	ids
	SandboxKey string
	Options    map[string]any
}

type interfaceName struct {
	SrcName   string // on the host
	DstName   string // in the container; "": DstPrefix and a number
	DstPrefix string
}

type joinResponse struct {
	InterfaceName         *interfaceName
	Gateway               string
	GatewayIPv6           string
	StaticRoutes          []staticRoute
	DisableGatewayService bool
}

type staticRoute struct {
	Destination string
	RouteType   int // 0: by NextHop; 1: on the link
	NextHop     string
}

// portBinding is a published port as Docker's drivers are told of it.
type portBinding struct {
	Proto       int // of IP
	IP          string
	Port        uint16
	HostIP      string
	HostPort    uint16
	HostPortEnd uint16
}

type transportPort struct {
	Proto int
	Port  uint16
}

func createNetwork(n driver.Network) networkRequest {
	generic := n.Options
	if generic == nil {
		generic = map[string]string{}
	}
	r := networkRequest{NetworkID: n.ID, IPv4Data: []ipamData{}, IPv6Data: []ipamData{}, Options: map[string]any{
		keyGeneric: generic, driver.OptEnableIPv4: n.IPv4, driver.OptEnableIPv6: n.IPv6,
	}}
	if n.Internal {
		r.Options[keyInternal] = true
	}
	for _, p := range n.Pools {
		d := ipamData{AddressSpace: "LocalDefault", Pool: p.Subnet.String()}
		if p.Gateway.IsValid() {
			d.Gateway = netip.PrefixFrom(p.Gateway, p.Subnet.Bits()).String()
		}
		for name, a := range p.Aux {
			if d.AuxAddresses == nil {
				d.AuxAddresses = map[string]string{}
			}
			d.AuxAddresses[name] = netip.PrefixFrom(a, p.Subnet.Bits()).String()
		}
		if p.Subnet.Addr().Is4() {
			r.IPv4Data = append(r.IPv4Data, d)
		} else {
			r.IPv6Data = append(r.IPv6Data, d)
		}
	}
	return r
}

// asked tells the addresses that were chosen. A MAC is told only if it is not the one that follows from them: the plugin may
// want to choose.
func asked(r driver.Request) *iface {
	i := &iface{}
	if r.IPv4.IsValid() {
		i.Address = r.IPv4.String()
	}
	if r.IPv6.IsValid() {
		i.AddressIPv6 = r.IPv6.String()
	}
	if len(r.MAC) > 0 && r.MAC.String() != driver.MACOf(r.IPv4.Addr(), r.IPv6.Addr()).String() {
		i.MacAddress = r.MAC.String()
	}
	return i
}

func endpointOptions(given map[string]string, ports []driver.Port) map[string]any {
	options := map[string]any{}
	for k, v := range given {
		options[k] = v
	}
	bindings, exposed := []portBinding{}, []transportPort{}
	for _, p := range ports {
		proto := protocol(p.Proto)
		b := portBinding{Proto: proto, Port: p.Port, HostPort: p.HostPort, HostPortEnd: p.HostPort}
		if p.HostIP.IsValid() {
			b.HostIP = p.HostIP.String()
		}
		bindings = append(bindings, b)
		exposed = append(exposed, transportPort{proto, p.Port})
	}
	options[keyPortMap], options[keyExposed] = bindings, exposed
	return options
}

// protocol gives the number of a transport protocol.
func protocol(name string) int {
	return map[string]int{"tcp": 6, "udp": 17, "sctp": 132}[strings.ToLower(name)]
}

// in gives the link's name in the container; "": a number after DstPrefix is to be found.
func (n interfaceName) in(r driver.Request) string {
	switch {
	case r.Options[driver.OptIfname] != "": // the user's word goes first
		return r.Interface
	case n.DstName != "":
		return n.DstName
	case n.DstPrefix == "" || n.DstPrefix == strings.TrimRight(r.Interface, "0123456789"):
		return r.Interface
	}
	return ""
}

// into reads gateways and routes.
func (j joinResponse) into(a *driver.Attachment) error {
	for _, f := range []struct {
		name, text string
		to         *netip.Addr
	}{{"Gateway", j.Gateway, &a.Gateway4}, {"GatewayIPv6", j.GatewayIPv6, &a.Gateway6}} {
		if f.text == "" {
			continue
		}
		g, err := netip.ParseAddr(f.text)
		if err != nil {
			return fault.New(fault.Internal, "unable to parse %s \"%s\"", f.name, f.text)
		}
		*f.to = g
	}
	for _, r := range j.StaticRoutes {
		to, err := netip.ParsePrefix(r.Destination)
		if err != nil {
			return fault.Wrap(fault.Internal, err, "a network plugin's route")
		}
		route := driver.Route{To: to.Masked()}
		if r.RouteType == 0 {
			if route.Via, err = netip.ParseAddr(r.NextHop); err != nil {
				return fault.New(fault.Internal, "failed to parse nexthop IP %s", r.NextHop)
			}
		}
		a.Routes = append(a.Routes, route)
	}
	return nil
}
