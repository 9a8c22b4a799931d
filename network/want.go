package network

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"berth/base/fault"
	"berth/network/driver"
)

// wish is one endpoint that a container asks for, read.
type wish struct {
	net    *entry
	spec   EndpointSpec
	mac    net.HardwareAddr // asked for; nil: chosen
	ifname string           // asked for; "": chosen
	rate   uint64
	weight uint16
	sets   []setting // of its link
}

// setting is a sysctl of an interface, "net.ipv4.conf.IFNAME.…".
type setting struct{ family, kind, key, value string }

// path is where the setting is written, for the link of that name.
func (s setting) path(ifname string) string {
	return "net/" + s.family + "/" + s.kind + "/" + ifname + "/" + s.key
}

// Check tells what is wrong with a want, as far as that can be known before the container starts. It changes nothing.
func (n *Networks) Check(w Want) (warnings []string, err error) {
	wishes, err := n.read(w)
	if err != nil {
		return nil, err
	}
	for _, p := range slices.Concat(w.Ports, w.Publish) {
		if err := checkPort(p); err != nil {
			return nil, err
		}
	}
	if len(w.Ports)+len(w.Publish) > 0 && len(wishes) > 0 && !slices.ContainsFunc(wishes, func(x wish) bool { return x.net.traits.Ports && !x.net.Internal }) {
		if wishes[0].net.traits.HostSide {
			warnings = append(warnings, "Published ports are discarded: none of the container's networks leads outside")
		}
	}
	for _, x := range wishes {
		if w := x.weightWarning(); w != "" {
			warnings = append(warnings, w)
		}
	}
	return warnings, nil
}

// weightWarning says that a weight has no effect without a bandwidth to share.
func (w wish) weightWarning() string {
	if w.weight == 0 || w.net.Driver != "bridge" || w.net.Options[driver.OptRate] != "" {
		return ""
	}
	return fmt.Sprintf("network %s has no bandwidth to share out by weight: make it with --opt %s=RATE", w.net.Name, driver.OptRate)
}

// read reads a want against the networks that there are.
func (n *Networks) read(w Want) ([]wish, error) {
	wishes := make([]wish, 0, len(w.Endpoints))
	names := map[string]bool{}
	for _, s := range w.Endpoints {
		if n.cfg.DefaultBridge == "none" && (s.Network == "default" || s.Network == "bridge") {
			continue // as with dockerd's --bridge none: who asks for no network has its loopback only
		}
		x, err := n.readOne(w, s)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(wishes, func(o wish) bool { return o.net == x.net }) {
			return nil, fault.New(fault.Invalid, "container cannot be connected to network %s twice", x.net.Name)
		}
		if x.ifname != "" && names[x.ifname] {
			return nil, fault.New(fault.Invalid, "two endpoints ask for the interface name %s", x.ifname)
		}
		names[x.ifname] = true
		wishes = append(wishes, x)
	}
	if len(wishes) > 1 {
		for _, x := range wishes {
			if x.net.traits.Single {
				return nil, fault.New(fault.Invalid, "container cannot be connected to multiple networks with one of the networks in %s mode", map[string]string{"host": "host", "null": "private (none)"}[x.net.Driver])
			}
		}
	}
	return wishes, nil
}

func (n *Networks) readOne(w Want, s EndpointSpec) (x wish, err error) {
	if s.Network == "default" {
		s.Network = "bridge"
	}
	x = wish{spec: s, rate: w.Rate, weight: w.Weight}
	if x.net, err = n.find(s.Network); err != nil {
		return x, err
	}
	if s.ID != "" && s.ID != x.net.ID {
		return x, fault.New(fault.NotFound, "network %s not found: another network has that name now", s.Network)
	}
	if x.net.ConfigOnly {
		return x, fault.New(fault.Forbidden, "configuration network %s cannot be joined", x.net.Name)
	}
	if err := x.addresses(); err != nil {
		return x, err
	}
	if s.MAC != "" {
		x.mac, err = net.ParseMAC(s.MAC)
		if err != nil || len(x.mac) != 6 || x.mac[0]&1 != 0 {
			return x, fault.New(fault.Invalid, "invalid MAC address: %s", s.MAC)
		}
	}
	for _, l := range s.Links {
		if name, _, _ := strings.Cut(l, ":"); name == "" {
			return x, fault.New(fault.Invalid, "invalid link %q: want CONTAINER:ALIAS", l)
		}
	}
	return x, x.options()
}

// addresses checks the addresses asked for, in Docker's words.
func (x *wish) addresses() error {
	s := x.spec
	if !s.IPv4.IsValid() && !s.IPv6.IsValid() {
		return nil
	}
	if IsPredefined(x.net.Name) {
		return fault.New(fault.Invalid, "invalid config for network %s: invalid endpoint settings:\nuser specified IP address is supported on user defined networks only", x.net.Name)
	}
	var wrong []string
	for _, a := range []netip.Addr{s.IPv4, s.IPv6} {
		switch {
		case !a.IsValid():
		case x.net.view.DefaultAlloc && !x.net.asked(a):
			wrong = append(wrong, "user specified IP address is supported only when connecting to networks with user configured subnets")
		case x.net.poolOf(a) < 0 && x.net.traits.Addresses:
			wrong = append(wrong, fmt.Sprintf("no configured subnet contains IP address %s", a))
		}
	}
	if len(wrong) > 0 {
		return fault.New(fault.Invalid, "invalid config for network %s: invalid endpoint settings:\n%s", x.net.Name, strings.Join(slices.Compact(wrong), "\n"))
	}
	return nil
}

// asked tells whether the subnet of an address was asked for by the user, in a network where another was chosen by us.
func (x *entry) asked(a netip.Addr) bool {
	four, six := 0, 0
	for _, p := range x.view.Pools {
		if p.Subnet.Addr().Is4() {
			four++
		} else {
			six++
		}
	}
	return four > 0 && six > 0 && a.Is6() // of the two, IPv6 is the one that users name
}

// options reads the endpoint's options.
func (x *wish) options() error {
	for k, v := range x.spec.Options {
		switch k {
		case driver.OptIfname:
			if err := checkIfname(v); err != nil {
				return err
			}
			x.ifname = v
		case driver.OptSysctls:
			sets, err := readSettings(v)
			if err != nil {
				return err
			}
			x.sets = sets
		case driver.OptRate:
			r, err := driver.Rate(v)
			if err != nil {
				return err
			}
			x.rate = r
		case driver.OptWeight:
			n, err := strconv.ParseUint(v, 10, 16)
			if err != nil || n < 1 || n > 1000 {
				return fault.New(fault.Invalid, "invalid network weight %q: it must be 1 to 1000", v)
			}
			x.weight = uint16(n)
		}
	}
	if x.weight > 1000 {
		return fault.New(fault.Invalid, "invalid network weight %d: it must be 1 to 1000", x.weight)
	}
	return nil
}

func checkIfname(name string) error {
	switch {
	case name == "", name == ".", name == "..", len(name) > 15, strings.ContainsAny(name, "/: \t\n\r\v\f%"):
		return fault.New(fault.Invalid, "invalid interface name %q", name)
	case name == "lo", name == "all", name == "default":
		return fault.New(fault.Invalid, "interface name %q is reserved", name)
	}
	return nil
}

// withoutIPv6 reports whether the container turns IPv6 off for itself: an address would only be found by others, in vain.
func (w *Want) withoutIPv6() bool { return w.Sysctls["net.ipv6.conf.all.disable_ipv6"] == "1" }

// readSettings reads "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.accept_ra=2", as Docker wants it: IFNAME
// stands for the link, whatever its name will be.
func readSettings(text string) (list []setting, err error) {
	for one := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(one, "=")
		parts := strings.SplitN(strings.TrimSpace(key), ".", 5)
		if !ok || len(parts) != 5 || parts[0] != "net" || !strings.EqualFold(parts[3], "IFNAME") || strings.ContainsAny(one, "/\n") || parts[4] == "" || strings.Contains(parts[4], ".") {
			return nil, fault.New(fault.Invalid, "invalid endpoint settings:\nunrecognised network interface sysctl '%s'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'", one)
		}
		if !slices.Contains([]string{"ipv4", "ipv6", "mpls"}, parts[1]) || !slices.Contains([]string{"conf", "neigh"}, parts[2]) {
			return nil, fault.New(fault.Invalid, "invalid endpoint settings:\nunrecognised network interface sysctl '%s'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'", one)
		}
		list = append(list, setting{parts[1], parts[2], parts[4], strings.TrimSpace(value)})
	}
	return list, nil
}

func checkPort(p PortSpec) error {
	switch {
	case p.Port == 0:
		return fault.New(fault.Invalid, "invalid containerPort: 0")
	case !slices.Contains([]string{"tcp", "udp", "sctp"}, p.Proto):
		return fault.New(fault.Invalid, "invalid proto: %s", cmp.Or(p.Proto, "''"))
	case p.HostLast != 0 && p.HostLast < p.HostFirst, p.HostFirst == 0 && p.HostLast != 0:
		return fault.New(fault.Invalid, "invalid range format for hostPort: %d-%d", p.HostFirst, p.HostLast)
	}
	return nil
}
