package wire

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	containertypes "github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"

	"berth/base/fault"
	"berth/engine/container"
	"berth/network"
)

// Ports gives what -p asks for, in the order of the container's ports. A port with an empty list of bindings gets any port of the host.
func Ports(asked networktypes.PortMap) (out []network.PortSpec, err error) {
	for _, p := range sortedPorts(asked) {
		if err := checkPort(p); err != nil {
			return nil, err
		}
		bindings := asked[p]
		if len(bindings) == 0 {
			bindings = []networktypes.PortBinding{{}}
		}
		for _, b := range bindings {
			s := network.PortSpec{Port: p.Num(), Proto: string(p.Proto()), HostIP: b.HostIP.Unmap()}
			if s.HostFirst, s.HostLast, err = hostPorts(b.HostPort); err != nil {
				return nil, err
			}
			out = append(out, s)
		}
	}
	return out, nil
}

func checkPort(p networktypes.Port) error {
	switch p.Proto() {
	case networktypes.TCP, networktypes.UDP, networktypes.SCTP:
	default:
		return fault.New(fault.Invalid, "invalid proto: %s", p.Proto())
	}
	if p.Num() == 0 {
		return fault.New(fault.Invalid, "invalid port specification: %q", p.Port())
	}
	return nil
}

// hostPorts reads "", "8080" or "8000-8010".
func hostPorts(text string) (first, last uint16, err error) {
	if text == "" {
		return 0, 0, nil
	}
	from, to, isRange := strings.Cut(text, "-")
	a, err1 := strconv.ParseUint(from, 10, 16)
	b, err2 := a, error(nil)
	if isRange {
		b, err2 = strconv.ParseUint(to, 10, 16)
	}
	if err1 != nil || err2 != nil || b < a || a == 0 && b != 0 {
		return 0, 0, fault.New(fault.Invalid, "invalid port specification: %q", text)
	}
	return uint16(a), uint16(b), nil
}

// portBindings gives -p back as it was asked.
func portBindings(in []network.PortSpec) networktypes.PortMap {
	var out networktypes.PortMap
	for _, s := range in {
		p, ok := networktypes.PortFrom(s.Port, networktypes.IPProtocol(s.Proto))
		if !ok {
			continue
		}
		b := networktypes.PortBinding{HostIP: s.HostIP}
		if s.HostFirst != 0 {
			b.HostPort = strconv.Itoa(int(s.HostFirst))
		}
		if s.HostLast > s.HostFirst {
			b.HostPort += "-" + strconv.Itoa(int(s.HostLast))
		}
		if out == nil {
			out = networktypes.PortMap{}
		}
		out[p] = append(out[p], b)
	}
	return out
}

// LivePorts is NetworkSettings.Ports: what is published, and null for what is only exposed. A container that does not run has none.
func LivePorts(i *container.Info) networktypes.PortMap {
	out := networktypes.PortMap{}
	if i.Sandbox.ID == "" {
		return out
	}
	for _, p := range exposed(i) {
		out[p] = nil
	}
	for _, s := range i.Sandbox.Ports {
		if p, ok := networktypes.PortFrom(s.Port, networktypes.IPProtocol(s.Proto)); ok {
			b := networktypes.PortBinding{HostIP: s.HostIP}
			if s.HostPort != 0 { // a routed one takes none
				b.HostPort = strconv.Itoa(int(s.HostPort))
			}
			out[p] = append(out[p], b)
		}
	}
	return out
}

// portSummaries is Ports in the list of containers.
func portSummaries(i *container.Info) []containertypes.PortSummary {
	out := []containertypes.PortSummary{}
	if i.Sandbox.ID == "" {
		return out
	}
	published := map[networktypes.Port]bool{}
	for _, s := range i.Sandbox.Ports {
		if p, ok := networktypes.PortFrom(s.Port, networktypes.IPProtocol(s.Proto)); ok {
			published[p] = true
		}
		out = append(out, containertypes.PortSummary{IP: s.HostIP, PrivatePort: s.Port, PublicPort: s.HostPort, Type: s.Proto})
	}
	for _, p := range exposed(i) {
		if !published[p] {
			out = append(out, containertypes.PortSummary{PrivatePort: p.Num(), Type: string(p.Proto())})
		}
	}
	slices.SortStableFunc(out, func(a, b containertypes.PortSummary) int {
		return cmp.Or(cmp.Compare(a.PrivatePort, b.PrivatePort), cmp.Compare(a.Type, b.Type))
	})
	return out
}

// exposed gives the ports that image and client say something listens on.
func exposed(i *container.Info) (out []networktypes.Port) {
	for _, text := range i.Spec.ExposedPorts {
		r, err := networktypes.ParsePortRange(text)
		if err != nil {
			continue // an image may say anything
		}
		for p := range r.All() {
			out = append(out, p)
		}
	}
	return out
}

func sortedPorts[V any](m map[networktypes.Port]V) []networktypes.Port {
	var all []networktypes.Port
	for p := range m {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b networktypes.Port) int {
		return cmp.Or(cmp.Compare(a.Num(), b.Num()), cmp.Compare(a.Proto(), b.Proto()))
	})
	return all
}

// macText gives an address as text, "" where there is none.
func macText(m networktypes.HardwareAddr) string {
	if len(m) == 0 {
		return ""
	}
	return m.String()
}

func parseMAC(text string) networktypes.HardwareAddr {
	var m networktypes.HardwareAddr
	_ = m.UnmarshalText([]byte(text)) // what is kept was read once
	return m
}

func addrOf(p netip.Prefix) netip.Addr {
	if !p.IsValid() {
		return netip.Addr{}
	}
	return p.Addr()
}

func bitsOf(p netip.Prefix) int {
	if !p.IsValid() {
		return 0
	}
	return p.Bits()
}
