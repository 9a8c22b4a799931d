package bridge

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/kernel/link"
	"berth/network/driver"
)

// Options of Docker's bridge driver.
const (
	OptName       = "com.docker.network.bridge.name"
	OptICC        = "com.docker.network.bridge.enable_icc"
	OptMasquerade = "com.docker.network.bridge.enable_ip_masquerade"
	OptBinding    = "com.docker.network.bridge.host_binding_ipv4"
	OptDefault    = "com.docker.network.bridge.default_bridge"
	OptInhibit4   = "com.docker.network.bridge.inhibit_ipv4"
	OptMode4      = "com.docker.network.bridge.gateway_mode_ipv4"
	OptMode6      = "com.docker.network.bridge.gateway_mode_ipv6"
	OptTrusted    = "com.docker.network.bridge.trusted_host_interfaces"
	OptHost4      = "com.docker.network.host_ipv4"
	OptHost6      = "com.docker.network.host_ipv6"
)

// Modes are the gateway modes: "nat" is the default; "nat-unprotected" and "routed" say how traffic from outside is
// treated, "isolated" that the host has no address on the bridge of an internal network.
var Modes = []string{"nat", "nat-unprotected", "routed", "isolated"}

// Config is what the driver must know of the host.
type Config struct {
	Forward bool // switch forwarding on for networks that are not internal: dockerd's --ip-forward
	Log     *slog.Logger
}

// Driver is the driver "bridge".
type Driver struct {
	cfg  Config
	conn *link.Conn

	mu     sync.Mutex
	index  map[string]int     // of bridges, by network id
	shares map[string]*shares // of networks whose bandwidth is shared out
}

var _ driver.Driver = (*Driver)(nil)

// New opens the driver in the calling thread's network namespace.
func New(cfg Config) (*Driver, error) {
	conn, err := link.Dial()
	if err != nil {
		return nil, err
	}
	return &Driver{cfg: cfg, conn: conn, index: map[string]int{}, shares: map[string]*shares{}}, nil
}

// Close closes the driver and leaves all links.
func (d *Driver) Close() error { return d.conn.Close() }

// Traits: the host is the gateway, and so all of it is the firewall's matter.
func (d *Driver) Traits() driver.Traits {
	return driver.Traits{Addresses: true, Gateway: true, HostSide: true, Ports: true, Names: true}
}

// mark is the alias by which a bridge is known as ours.
func mark(n driver.Network) string { return "berth " + n.ID }

// Create makes the bridge, or takes the one that is there, with the host's addresses and settings.
func (d *Driver) Create(ctx context.Context, n driver.Network) error {
	l, err := d.conn.ByName(n.Bridge)
	switch {
	case fault.Is(err, fault.NotFound):
		if l, err = d.make(n); err != nil {
			return err
		}
	case err != nil:
		return err
	case l.Kind != "bridge":
		return fault.New(fault.Conflict, "existing interface %s is not a bridge", n.Bridge)
	case strings.HasPrefix(l.Alias, "berth ") && l.Alias != mark(n):
		return fault.New(fault.Conflict, "bridge %s belongs to another network (%s)", n.Bridge, strings.TrimPrefix(l.Alias, "berth "))
	}
	if err := d.dress(n, l); err != nil {
		if l.Alias == mark(n) && !l.Up { // made now
			d.conn.Do(link.Delete(l.Index).IfThere())
		}
		return err
	}
	d.mu.Lock()
	d.index[n.ID] = l.Index
	d.mu.Unlock()
	return d.shapeNetwork(n, l.Index)
}

// make makes the bridge's link. Its hardware address is set, or it would follow that of its ports as they come and go.
func (d *Driver) make(n driver.Network) (link.Info, error) {
	v4, v6 := gateways(n)
	err := d.conn.Do(link.Add(link.Link{
		Name: n.Bridge, Kind: "bridge", MTU: mtu(n), MAC: driver.MACOf(v4.Addr(), v6.Addr()), Bridge: &link.BridgeOptions{},
	}), link.SetNamed(n.Bridge, link.Change{Alias: mark(n)}))
	if err != nil {
		return link.Info{}, err
	}
	_ = failpoint.Hit("network/bridge-made")
	return d.conn.ByName(n.Bridge)
}

// gateways gives the host's addresses in a network; zero where it has none.
func gateways(n driver.Network) (v4, v6 netip.Prefix) {
	for _, p := range n.Pools {
		switch g := netip.PrefixFrom(p.Gateway, p.Subnet.Bits()); {
		case !p.Gateway.IsValid():
		case p.Gateway.Is4() && !v4.IsValid() && !isolated(n, OptMode4):
			v4 = g
		case p.Gateway.Is6() && !v6.IsValid() && !isolated(n, OptMode6):
			v6 = g
		}
	}
	return v4, v6
}

func isolated(n driver.Network, option string) bool { return n.Options[option] == "isolated" }

// dress gives the bridge its addresses and settings and sets it up.
func (d *Driver) dress(n driver.Network, l link.Info) error {
	if err := d.settings(n); err != nil {
		return err
	}
	ours := l.Alias == mark(n)
	have, err := d.conn.Addresses(l.Index)
	if err != nil {
		return err
	}
	v4, v6 := gateways(n)
	if n.Options[OptInhibit4] == "true" {
		v4 = netip.Prefix{}
	}
	var ops []link.Op
	for _, a := range have {
		if ours && a.Prefix != v4 && a.Prefix != v6 && !a.LinkLocal {
			ops = append(ops, link.DeleteAddress(l.Index, a.Prefix).IfThere())
		}
	}
	for _, p := range []netip.Prefix{v4, v6} {
		there := slices.ContainsFunc(have, func(a link.Address) bool { return a.Prefix == p })
		if p.IsValid() && !there {
			ops = append(ops, link.AddAddress(l.Index, p).OrExists())
		}
	}
	change := link.Change{Up: true}
	if ours && l.MTU != mtu(n) {
		change.MTU = mtu(n)
	}
	return d.conn.Do(append(ops, link.Set(l.Index, change))...)
}

// mtu is the size of a network's packets: its option, else what the host's default route has.
func mtu(n driver.Network) int {
	if m, err := driver.MTU(n.Options); err == nil && m > 0 {
		return m
	}
	if n.MTU > 0 {
		return n.MTU
	}
	return 1500
}

// Delete takes away the bridge, where it is ours.
func (d *Driver) Delete(_ context.Context, n driver.Network) error {
	d.mu.Lock()
	delete(d.index, n.ID)
	delete(d.shares, n.ID)
	d.mu.Unlock()
	d.conn.Do(link.DeleteNamed(shareLink(n.ID)).IfThere())
	l, err := d.conn.ByName(n.Bridge)
	if fault.Is(err, fault.NotFound) || err == nil && l.Alias != mark(n) {
		return nil
	}
	if err != nil {
		return err
	}
	return d.conn.Do(link.Delete(l.Index).IfThere())
}

// Join makes the container's veth pair.
func (d *Driver) Join(_ context.Context, n driver.Network, r driver.Request) (driver.Attachment, error) {
	host := driver.HostLink(r.EndpointID)
	bridge, err := d.bridge(n)
	if err != nil {
		return driver.Attachment{}, err
	}
	add := link.Add(link.Link{
		Name: host, Kind: "veth", MTU: mtu(n), Master: bridge,
		Peer: &link.Link{Name: r.Interface, MTU: mtu(n), MAC: r.MAC, NS: r.NS},
	})
	icc, err := driver.Bool(n.Options, OptICC, true)
	if err != nil {
		return driver.Attachment{}, err
	}
	// Hairpin: where br_netfilter is on, what a container sends to its own published port is turned round by the bridge.
	// Frames between isolated ports are dropped by the bridge itself, whatever the firewall sees of them.
	flags := link.SetPort(host, link.Port{Hairpin: true, Isolated: !icc})
	// The host has no address on its end. One of the kernel's making would be asked for, announced and kept for nothing.
	plain := link.SetNamed(host, link.Change{NoLinkLocal: true})
	if err := d.conn.Do(add, plain.Try(), flags, link.SetNamed(host, link.Change{Up: true})); err != nil {
		if fault.Is(err, fault.Conflict) { // the name is somebody else's: 28 bits of an id are not always one's own
			return driver.Attachment{}, err
		}
		d.conn.Do(link.DeleteNamed(host).IfThere())
		if errors.Is(err, syscall.EXFULL) {
			return driver.Attachment{}, fault.Wrap(fault.Unavailable, err, "network %s is full: the kernel has 1023 ports for a bridge", n.Name)
		}
		return driver.Attachment{}, err
	}
	_ = failpoint.Hit("network/veth-made")
	a := driver.Attachment{Interface: r.Interface, HostLink: host, MAC: r.MAC, IPv4: r.IPv4, IPv6: r.IPv6}
	if err := d.shapeEndpoint(n, r, &a); err != nil {
		d.conn.Do(link.DeleteNamed(host).IfThere(), link.DeleteNamed(rateLink(r.EndpointID)).IfThere())
		return driver.Attachment{}, err
	}
	if !n.Internal {
		a.Gateway4, a.Gateway6 = r.Gateway4, r.Gateway6
	}
	return a, nil
}

// Repair is told at the engine's start which containers run on the network: links are put back onto the bridge, where it
// was deleted and made again, and their shares of its bandwidth are known again.
func (d *Driver) Repair(n driver.Network, all []driver.Left) error {
	if len(all) == 0 {
		return nil
	}
	d.rememberShares(n, all)
	bridge, err := d.bridge(n)
	if err != nil {
		return err
	}
	var ops []link.Op
	for _, e := range all {
		l, err := d.conn.ByName(driver.HostLink(e.EndpointID))
		if fault.Is(err, fault.NotFound) {
			continue // its container is gone
		}
		if err != nil {
			return err
		}
		if l.Master != bridge {
			ops = append(ops, link.Set(l.Index, link.Change{Master: bridge, Up: true}))
		}
	}
	return d.conn.Do(ops...)
}

// bridge gives the index of a network's bridge.
func (d *Driver) bridge(n driver.Network) (int, error) {
	d.mu.Lock()
	i := d.index[n.ID]
	d.mu.Unlock()
	if i == 0 {
		return 0, fault.New(fault.Unavailable, "network %s has no bridge %s: it could not be made when the engine started", n.Name, n.Bridge)
	}
	return i, nil
}

// Leave takes the pair away; deleting the host's end deletes both, which waits in the kernel for some milliseconds. Where
// the namespace is about to go the pair goes with it, and is only cut off: the bridge neither takes frames from it nor
// sends it any, and forgets what it learned there, so that the address can be another's at once.
func (d *Driver) Leave(_ context.Context, n driver.Network, l driver.Left) error {
	d.unshape(n, l)
	d.unlimit(l)
	if l.Ending && l.NS != nil {
		host, err := d.conn.ByName(driver.HostLink(l.EndpointID))
		if fault.Is(err, fault.NotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return d.conn.Do(link.CutPort(host.Index).IfThere())
	}
	return d.conn.Do(link.DeleteNamed(driver.HostLink(l.EndpointID)).IfThere())
}
