package cni

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"berth/base/fault"
	"berth/kernel/link"
	"berth/network/driver"
)

// Capabilities of plugins (CNI conventions).
const (
	capPorts     = "portMappings"
	capBandwidth = "bandwidth"
	capIPs       = "ips"
	capMAC       = "mac"
)

type portMapping struct {
	HostPort      uint16 `json:"hostPort"`
	ContainerPort uint16 `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP,omitempty"`
}

type bandwidth struct {
	IngressRate  uint64 `json:"ingressRate"` // bits a second
	IngressBurst uint64 `json:"ingressBurst"`
	EgressRate   uint64 `json:"egressRate"`
	EgressBurst  uint64 `json:"egressBurst"`
}

// runtimeConf tells the plugins what a container wants. What none of them takes is refused rather than dropped.
func runtimeConf(list *libcni.NetworkConfigList, r driver.Request) (*libcni.RuntimeConf, error) {
	rt := &libcni.RuntimeConf{ContainerID: r.SandboxID, NetNS: r.Key, IfName: r.Interface, CapabilityArgs: map[string]any{},
		Args: [][2]string{{"IgnoreUnknown", "1"}}}
	if len(r.Ports) > 0 {
		if !takes(list, capPorts) {
			return nil, fault.New(fault.Invalid, "no plugin of its CNI configuration has the capability %q, which publishing ports needs", capPorts)
		}
		rt.CapabilityArgs[capPorts] = mappings(r.Ports)
	}
	if r.Rate > 0 && takes(list, capBandwidth) {
		burst := max(r.Rate/10, 80_000) // a tenth of a second, but some packets
		rt.CapabilityArgs[capBandwidth] = bandwidth{r.Rate, burst, r.Rate, burst}
	}
	var ips []string
	for _, p := range []netip.Prefix{r.IPv4, r.IPv6} {
		if p.IsValid() {
			ips = append(ips, p.String())
		}
	}
	switch {
	case ips == nil:
	case takes(list, capIPs):
		rt.CapabilityArgs[capIPs] = ips
	default: // the way of before that capability, which static wants with a length and host-local takes so too
		rt.Args = append(rt.Args, [2]string{"IP", ips[0]})
	}
	if len(r.MAC) > 0 && r.MAC.String() != driver.MACOf(r.IPv4.Addr(), r.IPv6.Addr()).String() {
		rt.CapabilityArgs[capMAC] = r.MAC.String()
		rt.Args = append(rt.Args, [2]string{"MAC", r.MAC.String()})
	}
	more, err := arguments(r.Options[OptArgs])
	rt.Args = append(rt.Args, more...)
	return rt, err
}

// takes reports whether a plugin of the list has the capability.
func takes(list *libcni.NetworkConfigList, capability string) bool {
	for _, p := range list.Plugins {
		if p.Network.Capabilities[capability] {
			return true
		}
	}
	return false
}

func mappings(ports []driver.Port) []portMapping {
	list := []portMapping{}
	for _, p := range ports {
		m := portMapping{HostPort: p.HostPort, ContainerPort: p.Port, Protocol: p.Proto}
		if p.HostIP.IsValid() && !p.HostIP.IsUnspecified() {
			m.HostIP = p.HostIP.String()
		}
		list = append(list, m)
	}
	return list
}

// arguments reads "KEY=VALUE;KEY=VALUE".
func arguments(text string) (list [][2]string, err error) {
	for pair := range strings.SplitSeq(text, ";") {
		if pair == "" {
			continue
		}
		k, v, ok := strings.Cut(pair, "=")
		if !ok || k == "" {
			return nil, fault.New(fault.Invalid, "%s: %q is not KEY=VALUE", OptArgs, pair)
		}
		list = append(list, [2]string{k, v})
	}
	return list, nil
}

// attachment reads a result: the addresses on the interface that was asked for, and what else the engine shows.
func attachment(from types.Result, r driver.Request) (driver.Attachment, error) {
	a := driver.Attachment{Done: true}
	result, err := current.GetResult(from)
	if err != nil {
		return a, err
	}
	at := -1
	for i, f := range result.Interfaces {
		if f != nil && f.Sandbox != "" && f.Name == r.Interface {
			at = i
		}
	}
	if at >= 0 {
		a.Interface = r.Interface
		a.MAC, _ = net.ParseMAC(result.Interfaces[at].Mac)
		if at > 0 && result.Interfaces[at-1] != nil && result.Interfaces[at-1].Sandbox == "" {
			a.HostLink = result.Interfaces[at-1].Name // plugins list a pair's end on the host before the other
		}
	} else if len(result.IPs) > 0 {
		a.Interface = r.Interface
	}
	for _, ip := range result.IPs {
		if ip == nil || ip.Interface != nil && *ip.Interface != at {
			continue
		}
		p, err := prefix(ip.Address)
		if err != nil {
			return a, err
		}
		gateway, _ := netip.AddrFromSlice(ip.Gateway)
		switch {
		case p.Addr().Is4() && !a.IPv4.IsValid():
			a.IPv4, a.Gateway4 = p, gateway.Unmap()
		case p.Addr().Is6() && !a.IPv6.IsValid():
			a.IPv6, a.Gateway6 = p, gateway
		}
	}
	if err := routes(&a, result.Routes); err != nil {
		return a, err
	}
	a.DNS, a.Search = result.DNS.Nameservers, result.DNS.Search
	if result.DNS.Domain != "" && len(a.Search) == 0 {
		a.Search = []string{result.DNS.Domain}
	}
	return a, nil
}

// routes reads routes, which the plugins have set already. A gateway that no default route uses is none.
func routes(a *driver.Attachment, list []*types.Route) error {
	var default4, default6 bool
	for _, r := range list {
		if r == nil {
			continue
		}
		to, err := prefix(r.Dst)
		if err != nil {
			return err
		}
		via, _ := netip.AddrFromSlice(r.GW)
		via = via.Unmap()
		switch {
		case to.Bits() > 0:
			a.Routes = append(a.Routes, driver.Route{To: to, Via: via})
		case to.Addr().Is4():
			default4 = true
			if via.IsValid() {
				a.Gateway4 = via
			}
		default:
			default6 = true
			if via.IsValid() {
				a.Gateway6 = via
			}
		}
	}
	if !default4 {
		a.Gateway4 = netip.Addr{}
	}
	if !default6 {
		a.Gateway6 = netip.Addr{}
	}
	return nil
}

// yield takes away the default routes that plugins have set where another network of the container has the default route: a second one
// would be in its way, and which of them is used would be chance.
func yield(r driver.Request) error {
	if r.Default || r.In == nil {
		return nil
	}
	l, err := r.In.ByName(r.Interface)
	if fault.Is(err, fault.NotFound) {
		return nil // plugins made no link
	}
	if err != nil {
		return err
	}
	all, err := r.In.Routes()
	if err != nil {
		return err
	}
	var ops []link.Op
	for _, route := range all {
		if route.Index == l.Index && route.To.Bits() == 0 {
			ops = append(ops, link.DeleteRoute(route))
		}
	}
	if ops == nil {
		return nil
	}
	return r.In.Do(ops...)
}

func prefix(n net.IPNet) (netip.Prefix, error) {
	a, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if !ok || bits == 0 {
		return netip.Prefix{}, fmt.Errorf("a CNI plugin gave the address %q", n.String())
	}
	if a = a.Unmap(); a.Is4() && bits == 128 {
		ones = max(ones-96, 0)
	}
	return netip.PrefixFrom(a, ones), nil
}
