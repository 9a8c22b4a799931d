package network

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/base/atomicfile"
	"berth/base/fault"
	"berth/base/id"
	"berth/kernel/link"
	"berth/network/driver"
	"berth/network/driver/bridge"
	"berth/network/ipam"
)

// predefine sees to it that there are the networks bridge, host and none, as the daemon's configuration wants them now.
func (n *Networks) predefine(ctx context.Context) error {
	for _, p := range []struct{ name, driver string }{{"host", "host"}, {"none", "null"}} {
		if n.named(p.name) != nil {
			continue
		}
		x := &entry{endpoints: map[string]*Endpoint{}, driver: n.drivers[p.driver], Network: Network{
			ID: id.New(), Name: p.name, Driver: p.driver, Created: time.Now().UTC(), IPv4: true, IPAM: IPAM{Driver: "default"},
		}}
		x.traits, x.view = x.driver.Traits(), n.viewOf(x.Network)
		if err := n.write(x); err != nil {
			return err
		}
		n.nets[x.ID] = x
	}
	return n.predefineBridge(ctx)
}

// named gives the network of that name, or nil.
func (n *Networks) named(name string) *entry {
	for _, x := range n.nets {
		if x.Name == name {
			return x
		}
	}
	return nil
}

func (n *Networks) predefineBridge(ctx context.Context) error {
	old := n.named("bridge")
	if n.cfg.DefaultBridge == "none" {
		return n.withoutBridge(ctx, old)
	}
	x := &entry{endpoints: map[string]*Endpoint{}, driver: n.bridges, traits: n.bridges.Traits(), Network: Network{
		ID: id.New(), Name: "bridge", Driver: "bridge", Created: time.Now().UTC(), IPv4: true, IPv6: n.cfg.IPv6, IPAM: IPAM{Driver: "default"},
	}}
	if old != nil {
		x.ID, x.Created, x.endpoints = old.ID, old.Created, old.endpoints
	}
	name, err := n.bridgeName(x.ID, old)
	if err != nil {
		return err
	}
	bind := netip.IPv4Unspecified()
	if n.cfg.BindIP.IsValid() {
		bind = n.cfg.BindIP
	}
	x.Options = map[string]string{
		bridge.OptDefault: "true", bridge.OptICC: strconv.FormatBool(yes(n.cfg.ICC)), bridge.OptMasquerade: strconv.FormatBool(yes(n.cfg.Masquerade)),
		bridge.OptBinding: bind.String(), bridge.OptName: name, driver.OptMTU: strconv.Itoa(cmp.Or(n.mtu(), 1500)),
	}
	n.defaults(x, &CreateRequest{})
	if x.IPAM.Pools, err = n.bridgePools(name); err != nil {
		return err
	}
	delete(n.nets, x.ID)
	keeps := old != nil && len(x.IPAM.Pools) == 0 && n.keepsSubnets(old, name)
	if keeps {
		x.IPAM.Pools = old.IPAM.Pools
	}
	x.view = n.viewOf(x.Network)
	x.view.Bridge, x.view.DefaultAlloc = name, keeps
	if err := n.chooseSubnets(ctx, x); err != nil {
		return fault.In(err, "default network")
	}
	if old != nil {
		n.carryAddresses(x)
	}
	if err := n.write(x); err != nil {
		return err
	}
	n.nets[x.ID] = x
	return nil
}

// withoutBridge takes the default network away.
func (n *Networks) withoutBridge(ctx context.Context, old *entry) error {
	switch {
	case old == nil:
		return nil
	case len(old.endpoints) > 0:
		n.log.Warn("the default network stays while containers run on it, although the configuration says none")
		return nil
	}
	delete(n.nets, old.ID)
	if err := n.bridges.Delete(ctx, old.view); err != nil {
		n.log.Error("the default network's bridge stays", "err", err)
	}
	return atomicfile.Remove(n.networkPath(old.ID))
}

// bridgeName chooses the default network's link: what the configuration says, what it was, docker0, or a name of ours
// where somebody else has that.
func (n *Networks) bridgeName(networkID string, old *entry) (string, error) {
	if n.cfg.DefaultBridge != "" {
		if err := bridge.CheckName(n.cfg.DefaultBridge); err != nil {
			return "", err
		}
		return n.cfg.DefaultBridge, nil
	}
	ours := "berth0"
	if n.cfg.EngineID != "" {
		ours = "berth-" + n.cfg.EngineID
	}
	candidates := []string{"docker0", ours}
	if old != nil && old.view.Bridge != "" && (old.view.Bridge == ours || old.view.Bridge == "docker0") {
		candidates = []string{old.view.Bridge, "docker0", ours}
	}
	for _, c := range candidates {
		l, err := n.conn.ByName(c)
		if fault.Is(err, fault.NotFound) || err == nil && l.Alias == "berth "+networkID {
			return c, nil
		}
	}
	return "", fault.New(fault.Conflict, "the links docker0 and %s belong to somebody else: name another with --bridge", ours)
}

// bridgePools gives the subnets that the configuration fixes; none where it fixes none.
func (n *Networks) bridgePools(name string) (pools []Pool, err error) {
	four := Pool{Range: n.cfg.FixedCIDR}
	if n.cfg.BIP.IsValid() {
		four.Subnet, four.Gateway = n.cfg.BIP.Masked(), n.cfg.BIP.Addr()
	} else if n.cfg.DefaultBridge != "" {
		l, err := n.conn.ByName(name)
		if err != nil {
			return nil, fault.In(err, "bridge %s", name)
		}
		if p, ok := n.addressOf(l); ok {
			four.Subnet, four.Gateway = p.Masked(), p.Addr()
		}
	}
	if four.Subnet.IsValid() || four.Range.IsValid() {
		if !four.Subnet.IsValid() {
			four.Subnet = four.Range
		}
		if four.Range.IsValid() && !ipam.Covers(four.Subnet, four.Range) {
			return nil, fault.New(fault.Invalid, "the range %s (--fixed-cidr) is not within the default network's subnet %s", four.Range, four.Subnet)
		}
		if n.cfg.Gateway4.IsValid() {
			four.Aux = map[string]netip.Addr{"DefaultGatewayIPv4": n.cfg.Gateway4}
		}
		pools = append(pools, four)
	}
	if six := n.cfg.FixedCIDR6; n.cfg.IPv6 && (six.IsValid() || n.cfg.BIP6.IsValid()) {
		p := Pool{Subnet: six.Masked()}
		if n.cfg.BIP6.IsValid() {
			p = Pool{Subnet: n.cfg.BIP6.Masked(), Gateway: n.cfg.BIP6.Addr()}
			if six.IsValid() && six.Masked() != p.Subnet {
				p.Range = six.Masked()
			}
		}
		if n.cfg.Gateway6.IsValid() {
			p.Aux = map[string]netip.Addr{"DefaultGatewayIPv6": n.cfg.Gateway6}
		}
		pools = append(pools, p)
	}
	return pools, nil
}

func (n *Networks) addressOf(l link.Info) (netip.Prefix, bool) {
	list, err := n.conn.Addresses(l.Index)
	if err != nil {
		return netip.Prefix{}, false
	}
	i := slices.IndexFunc(list, func(a link.Address) bool { return a.Prefix.Addr().Is4() && !a.LinkLocal })
	if i < 0 {
		return netip.Prefix{}, false
	}
	return list[i].Prefix, true
}

// keepsSubnets tells whether the default network keeps what was chosen for it: its bridge is there, or nobody has taken
// the subnet since.
func (n *Networks) keepsSubnets(old *entry, name string) bool {
	if len(old.view.Pools) == 0 || !old.view.DefaultAlloc {
		return false
	}
	if six := slices.ContainsFunc(old.view.Pools, func(p driver.Pool) bool { return p.Subnet.Addr().Is6() }); six != n.cfg.IPv6 {
		return false
	}
	if l, err := n.conn.ByName(name); err == nil && strings.HasSuffix(l.Alias, old.ID) {
		return true
	}
	if len(old.endpoints) > 0 {
		return true
	}
	taken, err := n.taken()
	if err != nil {
		return true
	}
	for _, p := range old.view.Pools {
		if by, ok := ipam.Overlapping(p.Subnet, taken); ok {
			n.log.Warn("the default network gets another subnet: its own is used on the host now", "subnet", p.Subnet, "by", by)
			return false
		}
	}
	return true
}

// carryAddresses takes the addresses of running containers in a network's new pools.
func (n *Networks) carryAddresses(x *entry) {
	for cid, e := range x.endpoints {
		if err := x.take(*e); err != nil {
			n.log.Warn("a running container's address is not of its network any more", "container", cid, "network", x.Name, "err", err)
		}
	}
}

// take takes the addresses of an endpoint that exists.
func (x *entry) take(e Endpoint) error {
	for _, p := range []netip.Prefix{e.IPv4, e.IPv6} {
		if !p.IsValid() {
			continue
		}
		i := x.poolOf(p.Addr())
		if i < 0 {
			if !x.traits.Addresses {
				continue
			}
			return fmt.Errorf("no subnet contains %s", p.Addr())
		}
		if err := x.pools[i].Hold(p.Addr()); err != nil {
			return err
		}
	}
	return nil
}

// poolOf gives the index of the pool whose subnet contains the address; -1 when none does.
func (x *entry) poolOf(a netip.Addr) int {
	return slices.IndexFunc(x.view.Pools, func(p driver.Pool) bool { return p.Subnet.Contains(a) })
}

// give gives the addresses of an endpoint back.
func (x *entry) give(e Endpoint) {
	for _, p := range []netip.Prefix{e.IPv4, e.IPv6} {
		if i := x.poolOf(p.Addr()); p.IsValid() && i >= 0 && i < len(x.pools) {
			x.pools[i].Give(p.Addr())
		}
	}
}
