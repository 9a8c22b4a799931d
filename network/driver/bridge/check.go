package bridge

import (
	"net/netip"
	"slices"
	"strings"

	"berth/base/fault"
	"berth/network/driver"
)

// known are the options that the driver understands; the values are checked by kind.
var booleans = []string{OptICC, OptMasquerade, OptDefault, OptInhibit4, driver.OptEnableIPv4, driver.OptEnableIPv6}

// Check tells what is wrong with a network's options and subnets. Options that it does not know are kept, as Docker does.
func (d *Driver) Check(n driver.Network, others []driver.Network) error {
	for _, k := range booleans {
		if _, err := driver.Bool(n.Options, k, false); err != nil {
			return err
		}
	}
	if _, err := driver.MTU(n.Options); err != nil {
		return err
	}
	for _, k := range []string{OptMode4, OptMode6} {
		if m, ok := n.Options[k]; ok && !slices.Contains(Modes, m) {
			return fault.New(fault.Invalid, "unknown gateway mode %s", m)
		}
		if n.Options[k] == "isolated" && !n.Internal {
			return fault.New(fault.Invalid, "gateway mode 'isolated' can only be used for an internal network")
		}
	}
	for k, v4 := range map[string]bool{OptBinding: false, OptHost4: true, OptHost6: false} {
		v := n.Options[k]
		if v == "" {
			continue
		}
		a, err := netip.ParseAddr(v)
		if err != nil || v4 && !a.Is4() || k == OptHost6 && !a.Is6() {
			return fault.New(fault.Invalid, "failed to parse %s value: %s (invalid ip address)", k, v)
		}
	}
	if v := n.Options[driver.OptRate]; v != "" {
		if _, err := driver.Rate(v); err != nil {
			return err
		}
	}
	if err := CheckName(n.Bridge); err != nil {
		return err
	}
	return checkBeside(n, others)
}

// CheckName tells whether a link can have the name (dev_valid_name in the kernel).
func CheckName(name string) error {
	switch {
	case name == "", name == ".", name == "..", len(name) > 15, strings.ContainsAny(name, "/: \t\n\r\v\f"):
		return fault.New(fault.Invalid, "invalid interface name %q: it must have 1 to 15 characters, none of them a space, a slash or a colon", name)
	}
	return nil
}

func checkBeside(n driver.Network, others []driver.Network) error {
	var four, six int
	for _, p := range n.Pools {
		if p.Subnet.Addr().Is4() {
			four++
		} else {
			six++
		}
	}
	if four > 1 || six > 1 {
		return fault.New(fault.Forbidden, "bridge driver doesn't support multiple subnets")
	}
	for _, o := range others {
		if o.Bridge == n.Bridge {
			return fault.New(fault.Forbidden, "cannot create network %s (%s): conflicts with network %s (%s): networks have same bridge name", n.ID, n.Bridge, o.ID, o.Bridge)
		}
		for _, p := range n.Pools {
			for _, q := range o.Pools {
				if p.Subnet.Overlaps(q.Subnet) {
					return fault.New(fault.Forbidden, "cannot create network %s (%s): conflicts with network %s (%s): networks have overlapping IPv%d", n.ID, n.Bridge, o.ID, o.Bridge, 4+2*min(six, 1))
				}
			}
		}
	}
	return nil
}
