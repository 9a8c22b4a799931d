package network

import (
	"context"
	"log/slog"
	"net/netip"

	"berth/base/fault"
	"berth/network/driver"
	remotedriver "berth/network/driver/remote"
	"berth/network/ipam/remote"
)

// findDriver gives a driver of ours, or a plugin's. NotFound, in Docker's words, when there is neither.
func (n *Networks) findDriver(ctx context.Context, name string) (driver.Driver, error) {
	n.mu.RLock()
	d := n.drivers[name]
	n.mu.RUnlock()
	if d != nil {
		return d, nil
	}
	return n.finder.Find(ctx, name)
}

// later is a plugin as the driver of a network that was made before: it is looked for when it is needed, so that one that
// is away holds up nothing but its own networks.
type later struct {
	finder *remotedriver.Finder
	name   string
}

var _ interface {
	driver.Driver
	driver.Publisher
} = later{}

// Traits are those of all plugins.
func (later) Traits() driver.Traits { return (*remotedriver.Driver)(nil).Traits() }

// Check was made at the creation.
func (later) Check(driver.Network, []driver.Network) error { return nil }

// Create waits until somebody joins.
func (later) Create(context.Context, driver.Network) error { return nil }

// Delete lets the plugin forget the network.
func (l later) Delete(ctx context.Context, n driver.Network) error {
	d, err := l.finder.Find(ctx, l.name)
	if err != nil {
		return err
	}
	return d.Delete(ctx, n)
}

// Join makes the network where the plugin was not told of it, and joins it.
func (l later) Join(ctx context.Context, n driver.Network, r driver.Request) (driver.Attachment, error) {
	d, err := l.finder.Find(ctx, l.name)
	if err == nil {
		err = d.Create(ctx, n)
	}
	if err != nil {
		return driver.Attachment{}, err
	}
	return d.Join(ctx, n, r)
}

// Leave lets the plugin forget the endpoint.
func (l later) Leave(ctx context.Context, n driver.Network, e driver.Left) error {
	d, err := l.finder.Find(ctx, l.name)
	if err != nil {
		return err
	}
	return d.Leave(ctx, n, e)
}

// Publish tells the plugin which ports are published.
func (l later) Publish(ctx context.Context, n driver.Network, e driver.Left, ports []driver.Port) error {
	d, err := l.finder.Find(ctx, l.name)
	if err != nil {
		return err
	}
	return d.Publish(ctx, n, e, ports)
}

// lent is the addresses of a subnet that an IPAM plugin has lent us. The plugin remembers who has which.
type lent struct {
	ipam *remote.IPAM
	pool string
	log  *slog.Logger
}

var _ addresses = lent{}

// Next borrows any address.
func (l lent) Next() (netip.Addr, error) {
	p, err := l.ipam.RequestAddress(context.Background(), l.pool, netip.Addr{}, nil, nil)
	return p.Addr(), err
}

// Take borrows a certain address.
func (l lent) Take(a netip.Addr) error {
	_, err := l.ipam.RequestAddress(context.Background(), l.pool, a, nil, nil)
	return err
}

// Hold repeats a request to a plugin that forgets; others know it.
func (l lent) Hold(a netip.Addr) error {
	needs, err := l.ipam.Capabilities(context.Background())
	if err != nil || !needs.RequiresRequestReplay {
		return err
	}
	return l.Take(a)
}

// Give gives an address back.
func (l lent) Give(a netip.Addr) {
	if err := l.ipam.ReleaseAddress(context.Background(), l.pool, a); err != nil {
		l.log.Warn("an address is not given back to its IPAM plugin", "address", a, "err", err)
	}
}

// borrowSubnets gets a network's subnets and gateways from its IPAM plugin: those that were asked for, and one of each
// family that the network has and none was asked for.
func (n *Networks) borrowSubnets(ctx context.Context, x *entry) error {
	plug := remote.New(n.plugins, x.IPAM.Driver)
	taken, err := n.taken()
	if err != nil {
		return err
	}
	asked := x.IPAM.Pools
	x.IPAM.Pools = nil
	for _, v6 := range []bool{false, true} {
		if v6 && !x.IPv6 || !v6 && !x.IPv4 {
			continue
		}
		var of []Pool
		for _, p := range asked {
			if p.Subnet.IsValid() && p.Subnet.Addr().Is6() == v6 {
				of = append(of, p)
			}
		}
		if len(of) == 0 {
			of = []Pool{{}}
		}
		for _, p := range of {
			if err := n.borrow(ctx, x, plug, p, v6, taken); err != nil {
				return err
			}
		}
	}
	x.view.Pools = n.viewOf(x.Network).Pools
	n.fillLent(x)
	return nil
}

func (n *Networks) borrow(ctx context.Context, x *entry, plug *remote.IPAM, p Pool, v6 bool, taken []netip.Prefix) error {
	got, err := plug.RequestPool(ctx, remote.PoolRequest{Subnet: p.Subnet, Range: p.Range, Options: x.IPAM.Options, V6: v6, Exclude: taken})
	if err != nil {
		return err
	}
	x.lent = append(x.lent, got.ID)
	p.Subnet = got.Subnet
	if !p.Gateway.IsValid() {
		p.Gateway = got.Gateway
	}
	if x.traits.Gateway {
		g, err := plug.RequestGateway(ctx, got.ID, p.Gateway)
		if err != nil {
			return err
		}
		p.Gateway = g.Addr()
	}
	for name, a := range p.Aux {
		if _, err := plug.RequestAddress(ctx, got.ID, a, nil, nil); err != nil {
			return fault.In(err, "auxiliary address %s", name)
		}
	}
	x.IPAM.Pools = append(x.IPAM.Pools, p)
	return nil
}

// fillLent makes the pools of a network whose subnets are lent.
func (n *Networks) fillLent(x *entry) {
	plug := remote.New(n.plugins, x.IPAM.Driver)
	x.pools = nil
	for i := range min(len(x.view.Pools), len(x.lent)) {
		x.pools = append(x.pools, lent{plug, x.lent[i], n.log})
	}
}

// releasePools gives borrowed subnets back.
func (n *Networks) releasePools(ctx context.Context, x *entry) {
	if len(x.lent) == 0 {
		return
	}
	ctx = context.WithoutCancel(ctx)
	plug := remote.New(n.plugins, x.IPAM.Driver)
	for i, pool := range x.lent {
		if i < len(x.view.Pools) && x.view.Pools[i].Gateway.IsValid() {
			if err := plug.ReleaseAddress(ctx, pool, x.view.Pools[i].Gateway); err != nil {
				n.log.Warn("a gateway's address is not given back to its IPAM plugin", "network", x.Name, "err", err)
			}
		}
		if err := plug.ReleasePool(ctx, pool); err != nil {
			n.log.Warn("a subnet is not given back to its IPAM plugin", "network", x.Name, "err", err)
		}
	}
}
