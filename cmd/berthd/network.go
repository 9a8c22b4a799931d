package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"berth/network/ipam"
)

// netOptions is what the command line and daemon.json ask of networks.
type netOptions struct {
	Bridge    string       // of the default network: "" docker0, or berth0 where that is taken; "none": there is no default network
	BIP, BIP6 netip.Prefix // address of the default bridge
	Fixed     netip.Prefix // part of it that containers get addresses from
	Fixed6    netip.Prefix
	Gateway   netip.Addr // default gateway of containers on the default bridge, where it is not the bridge itself
	Gateway6  netip.Addr
	Pools     []ipam.PoolSpec
	MTU       int // 0: that of the default route's link
	BindIP    netip.Addr
	NoICC     bool
	IPv6      bool
	NoForward bool
	NoMasq    bool
	NoRules   bool // neither IPv4's nor IPv6's
	ObeyInput bool
	Direct    bool                         // containers' own addresses may be used for published ports
	NoForeign bool                         // other managers of the firewall are not asked
	Defaults  map[string]map[string]string // by driver
}

// networkOptions lists the options that concern networks.
func networkOptions(n *netOptions) []option {
	return []option{
		{"bridge", "b", "bridge", `Bridge of the default network, or "none" (default docker0, or berth0 where another engine has that)`, newText(&n.Bridge, "")},
		{"bip", "", "bip", "Address of the default bridge, with its prefix", &prefix{to: &n.BIP}},
		{"bip6", "", "bip6", "IPv6 address of the default bridge, with its prefix", &prefix{to: &n.BIP6, v6: true}},
		{"fixed-cidr", "", "fixed-cidr", "Part of the default bridge's subnet that containers get addresses from", &prefix{to: &n.Fixed}},
		{"fixed-cidr-v6", "", "fixed-cidr-v6", "The same for IPv6", &prefix{to: &n.Fixed6, v6: true}},
		{"default-gateway", "", "default-gateway", "Gateway of containers on the default bridge", &address{to: &n.Gateway}},
		{"default-gateway-v6", "", "default-gateway-v6", "The same for IPv6", &address{to: &n.Gateway6, v6: true}},
		{"default-address-pool", "", "default-address-pools", "Where networks get their subnets from, base=PREFIX,size=BITS; may be repeated", &pools{to: &n.Pools}},
		{"default-network-opt", "", "default-network-opts", "Default option of networks, DRIVER=NAME=VALUE; may be repeated", &driverOptions{to: &n.Defaults}},
		{"mtu", "", "mtu", "MTU of the default bridge (default that of the default route's link)", newNumber(&n.MTU, 0)},
		{"ip", "", "ip", "Default address of the host on which ports are published; 127.0.0.1 keeps them on this machine", &address{to: &n.BindIP}},
		{"icc", "", "icc", "Let containers of the default bridge reach each other", &negated{to: &n.NoICC}},
		{"ipv6", "", "ipv6", "Give the default bridge IPv6 too", &boolean{to: &n.IPv6}},
		{"ip-forward", "", "ip-forward", "Turn on forwarding in the kernel", &negated{to: &n.NoForward}},
		{"ip-masq", "", "ip-masq", "Masquerade what leaves the default bridge", &negated{to: &n.NoMasq}},
		{"iptables", "", "iptables", "Write firewall rules, into a table of Berth's own", &negated{to: &n.NoRules}},
		{"ip6tables", "", "ip6tables", "Accepted for dockerd's sake: one table holds the rules of both; --iptables decides", &boolean{to: new(bool)}},
		{"published-obey-input", "", "published-obey-input", "Published ports are open only to whom the host's own input rules let in", &boolean{to: &n.ObeyInput}},
		{"allow-direct-routing", "", "allow-direct-routing", "Let other hosts reach published ports by the containers' own addresses", &boolean{to: &n.Direct}},
		{"foreign-firewalls", "", "foreign-firewalls", "Ask ufw, firewalld and iptables to let containers' traffic through, at the place that each has for it", &negated{to: &n.NoForeign}},
		{"userland-proxy", "", "userland-proxy", "Accepts false: the kernel alone carries published ports", &fixed{accepts: "false", flag: true, why: "the kernel alone carries published ports; there is no userland proxy"}},
	}
}

// prefix is an address with a prefix length.
type prefix struct {
	to *netip.Prefix
	v6 bool
}

func (p *prefix) Type() string { return "prefix" }
func (p *prefix) given() bool  { return p.to.IsValid() }

func (p *prefix) String() string {
	if p.to == nil || !p.to.IsValid() {
		return ""
	}
	return p.to.String()
}

func (p *prefix) Set(s string) error {
	v, err := netip.ParsePrefix(s)
	if err != nil {
		return fmt.Errorf("%q is no address with a prefix length, such as 10.9.0.1/24", s)
	}
	if v.Addr().Is6() != p.v6 {
		return fmt.Errorf("%s is not of the family that this option is for", s)
	}
	*p.to = v
	return nil
}

func (p *prefix) setJSON(raw json.RawMessage) error { return setText(raw, p.Set) }

// address is an IP address.
type address struct {
	to *netip.Addr
	v6 bool
}

func (a *address) Type() string { return "ip" }
func (a *address) given() bool  { return a.to.IsValid() }

func (a *address) String() string {
	if a.to == nil || !a.to.IsValid() {
		return ""
	}
	return a.to.String()
}

func (a *address) Set(s string) error {
	v, err := netip.ParseAddr(s)
	if err != nil {
		return fmt.Errorf("%s is not an ip address", s)
	}
	if a.v6 && !v.Is6() {
		return fmt.Errorf("%s is not an IPv6 address", s)
	}
	*a.to = v
	return nil
}

func (a *address) setJSON(raw json.RawMessage) error { return setText(raw, a.Set) }

// setText gives a JSON string to a flag's Set.
func setText(raw json.RawMessage, set func(string) error) error {
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return err
	}
	return set(s)
}

// negated is a flag that is true unless it is said otherwise; it is kept the other way round, so that the zero value is the default.
type negated struct {
	to  *bool
	set bool
}

func (n *negated) Type() string   { return "bool" }
func (n *negated) given() bool    { return n.set }
func (n *negated) String() string { return strconv.FormatBool(n.to == nil || !*n.to) }

func (n *negated) Set(s string) error {
	on, err := strconv.ParseBool(s)
	*n.to, n.set = !on, true
	return err
}

func (n *negated) setJSON(raw json.RawMessage) error {
	var on bool
	err := json.Unmarshal(raw, &on)
	*n.to, n.set = !on, true
	return err
}

// pools are address pools, "base=10.0.0.0/8,size=24".
type pools struct{ to *[]ipam.PoolSpec }

func (p *pools) Type() string { return "pool" }
func (p *pools) given() bool  { return len(*p.to) > 0 }

func (p *pools) String() string {
	if p.to == nil {
		return ""
	}
	var all []string
	for _, s := range *p.to {
		all = append(all, fmt.Sprintf("base=%s,size=%d", s.Base, s.Size))
	}
	return strings.Join(all, " ")
}

func (p *pools) Set(s string) error {
	var base string
	var size int
	for _, part := range strings.Split(s, ",") {
		name, value, _ := strings.Cut(part, "=")
		switch name {
		case "base":
			base = value
		case "size":
			var err error
			if size, err = strconv.Atoi(value); err != nil {
				return fmt.Errorf("invalid size value: %q", value)
			}
		default:
			return fmt.Errorf("unexpected key '%s' in '%s'", name, s)
		}
	}
	return p.add(base, size)
}

func (p *pools) add(base string, size int) error {
	b, err := netip.ParsePrefix(base)
	if err != nil {
		return fmt.Errorf("%q is no prefix such as 10.0.0.0/8", base)
	}
	spec := ipam.PoolSpec{Base: b.Masked(), Size: size}
	if err := spec.Check(); err != nil {
		return err
	}
	*p.to = append(*p.to, spec)
	return nil
}

func (p *pools) setJSON(raw json.RawMessage) error {
	var list []struct {
		Base string `json:"base"`
		Size int    `json:"size"`
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return err
	}
	for _, l := range list {
		if err := p.add(l.Base, l.Size); err != nil {
			return err
		}
	}
	return nil
}

// driverOptions are default options of networks by driver, "bridge=com.docker.network.driver.mtu=1400".
type driverOptions struct{ to *map[string]map[string]string }

func (d *driverOptions) Type() string { return "map" }
func (d *driverOptions) given() bool  { return len(*d.to) > 0 }

func (d *driverOptions) String() string {
	if d.to == nil || len(*d.to) == 0 {
		return ""
	}
	return fmt.Sprint(*d.to)
}

func (d *driverOptions) Set(s string) error {
	driver, option, ok := strings.Cut(s, "=")
	name, value, ok2 := strings.Cut(option, "=")
	if !ok || !ok2 || driver == "" || name == "" {
		return fmt.Errorf("invalid value %q: write DRIVER=NAME=VALUE", s)
	}
	if *d.to == nil {
		*d.to = map[string]map[string]string{}
	}
	if (*d.to)[driver] == nil {
		(*d.to)[driver] = map[string]string{}
	}
	(*d.to)[driver][name] = value
	return nil
}

func (d *driverOptions) setJSON(raw json.RawMessage) error { return json.Unmarshal(raw, d.to) }
