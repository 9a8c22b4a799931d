package network

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"berth/base/atomicfile"
	"berth/base/fault"
	"berth/base/id"
	"berth/base/plugin"
	"berth/kernel/idmap"
	"berth/kernel/link"
	"berth/network/driver"
	"berth/network/driver/bridge"
	"berth/network/driver/cni"
	"berth/network/driver/host"
	"berth/network/driver/ipvlan"
	"berth/network/driver/macvlan"
	"berth/network/driver/null"
	"berth/network/driver/remote"
	"berth/network/ipam"
	"berth/network/loopback6"
	"berth/network/port"
)

// Networks is the room: all networks of an engine and the sandboxes of its running containers.
type Networks struct {
	cfg     Config
	log     *slog.Logger
	conn    *link.Conn // in the engine's own namespace
	drivers map[string]driver.Driver
	bridges *bridge.Driver
	ports   *port.Table
	pool    *pool
	mapped  mapped
	reaper  *reaper
	rules   rules
	relay   *loopback6.Relay

	settings link.Settings // of containers' namespaces
	names    resolver
	plugins  *plugin.Registry
	finder   *remote.Finder
	pools    []ipam.PoolSpec

	madeRouter bool // the host forwarded nothing before we came

	closing  sync.Once
	changing chan struct{} // holds one token while somebody makes or removes a network

	mu    sync.RWMutex // guards what follows; held for memory only
	nets  map[string]*entry
	boxes map[string]*box // by container
	bySB  map[string]*box // by sandbox
}

// entry is a network with what belongs to it here. All but endpoints and broken stays as it is.
type entry struct {
	Network
	driver driver.Driver
	traits driver.Traits
	view   driver.Network // as the driver sees it
	pools  []addresses    // of view.Pools, in their order
	lent   []string       // ids of the pools at the plugin that they are of; empty for ours
	broken error          // why it could not be made when the engine started; nil: it is there

	endpoints map[string]*Endpoint // by container; guarded by Networks.mu, the values are not changed
}

// addresses is the addresses of one subnet: an ipam.Pool, or a plugin's.
type addresses interface {
	Next() (netip.Addr, error)
	Take(netip.Addr) error
	Hold(netip.Addr) error // takes an address that a container has since before
	Give(netip.Addr)
}

// Open recovers the room: networks are read and made as far as they are missing, sandboxes of this boot are kept until
// Recovered says which of them are of use, and the firewall's rules are loaded in one batch.
func Open(ctx context.Context, cfg Config) (*Networks, error) {
	n, err := open(ctx, cfg)
	if err != nil {
		return nil, fault.In(err, "open networks")
	}
	return n, nil
}

func open(ctx context.Context, cfg Config) (_ *Networks, err error) {
	n := &Networks{cfg: cfg, log: cfg.Log, nets: map[string]*entry{}, boxes: map[string]*box{}, bySB: map[string]*box{}, changing: make(chan struct{}, 1)}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	for _, dir := range []string{cfg.Root, cfg.RunRoot, n.sandboxDir(), n.nsDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	if err := atomicfile.Sweep(cfg.Root); err != nil {
		return nil, err
	}
	if n.conn, err = link.Dial(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			n.closeAll()
		}
	}()
	n.bridges, err = bridge.New(bridge.Config{Forward: yes(cfg.IPForward), Log: n.log})
	if err != nil {
		return nil, err
	}
	if n.drivers, err = n.openDrivers(); err != nil {
		return nil, err
	}
	n.ports = port.New(parkerOf(cfg.Keeper), n.log)
	n.ports.Listens, n.ports.Lowest, n.ports.Elsewhere = cfg.PortsListen, cfg.LowestPort, cfg.PortTaken
	n.reaper = startReaper(n.conn, n.log)
	if err := n.openPools(); err != nil {
		return nil, err
	}
	if err := n.readNetworks(); err != nil {
		return nil, err
	}
	if err := n.readSandboxes(); err != nil {
		return nil, err
	}
	n.settleDoubles()
	if err := n.predefine(ctx); err != nil {
		return nil, err
	}
	if err := n.wasRouter(); err != nil {
		return nil, err
	}
	n.makeAll(ctx)
	n.adoptPorts(ctx)
	if err := n.openRules(ctx); err != nil {
		return nil, err
	}
	if err := n.openResolver(ctx); err != nil {
		return nil, err
	}
	n.pool = openPool(n.nsDir(), n.cfg.PoolSize, n.sandboxFiles(), n.log)
	n.mapped.dir, n.mapped.log, n.mapped.space = n.nsDir(), n.log, n.cfg.UserNet
	if n.mapped.space == nil {
		n.mapped.space = func(m idmap.Pair, in string) (int, error) {
			if in != "" {
				return -1, fault.New(fault.NotImplemented, "networks of containers that share a user namespace need Config.UserNet")
			}
			return idmap.NetNamespace(m)
		}
	}
	return n, nil
}

func (n *Networks) openDrivers() (map[string]driver.Driver, error) {
	mac, err := macvlan.New(n.log)
	if err != nil {
		return nil, err
	}
	ipv, err := ipvlan.New(n.log)
	if err != nil {
		return nil, err
	}
	plugins, err := cni.New(cni.Config{Dir: filepath.Join(n.cfg.Root, "cni"), RunDir: filepath.Join(n.cfg.RunRoot, "cni"), Path: n.cfg.CNIPath, ConfDir: n.cfg.CNIConf, Log: n.log})
	if err != nil {
		return nil, err
	}
	n.plugins = plugin.New(plugin.Config{Sockets: n.cfg.PluginSockets, Specs: n.cfg.PluginSpecs, Managed: n.cfg.Managed, Log: n.log})
	n.finder = remote.NewFinder(n.plugins, filepath.Join(n.cfg.Root, "plugin"), n.log)
	return map[string]driver.Driver{"bridge": n.bridges, "host": host.Driver{}, "null": null.Driver{}, "macvlan": mac, "ipvlan": ipv, "cni": plugins}, nil
}

// Repark gives a keeper that is new what the one before held: the name server's sockets and those that reserve ports.
func (n *Networks) Repark(ctx context.Context) {
	n.names.Repark()
	n.ports.Repark(ctx)
}

// Close ends the room's own goroutines and leaves all networks, sandboxes and rules as they are.
func (n *Networks) Close() error { return n.closeAll() }

func (n *Networks) closeAll() (err error) {
	n.closing.Do(func() { err = n.closeOnce() })
	return err
}

func (n *Networks) closeOnce() (err error) {
	if n.pool != nil {
		n.pool.close()
	}
	n.mapped.close()
	if n.reaper != nil {
		n.reaper.close()
	}
	if n.names != nil {
		err = errors.Join(err, n.names.Close())
	}
	if n.relay != nil {
		err = errors.Join(err, n.relay.Close())
	}
	if n.rules != nil {
		err = errors.Join(err, n.rules.Close())
	}
	if n.finder != nil {
		err = errors.Join(err, n.finder.Close())
		n.plugins.Close()
	}
	for _, d := range n.drivers {
		if c, ok := d.(interface{ Close() error }); ok {
			err = errors.Join(err, c.Close())
		}
	}
	if n.drivers == nil && n.bridges != nil {
		err = errors.Join(err, n.bridges.Close())
	}
	return errors.Join(err, n.settings.Close(), n.conn.Close())
}

// turn waits until nobody else makes or removes a network. One that a plugin holds up holds up others no longer than
// they want to wait.
func (n *Networks) turn(ctx context.Context) (end func(), err error) {
	select {
	case n.changing <- struct{}{}:
		return func() { <-n.changing }, nil
	case <-ctx.Done():
		return nil, fault.In(ctx.Err(), "wait for another change of networks")
	}
}

// Get finds a network by its id, its name, or the beginning of its id, in this order.
func (n *Networks) Get(ref string) (Network, error) {
	x, err := n.find(ref)
	if err != nil {
		return Network{}, err
	}
	return x.Network, nil
}

func (n *Networks) find(ref string) (*entry, error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if x := n.nets[ref]; x != nil {
		return x, nil
	}
	var found []*entry
	for _, x := range n.nets {
		if x.Name == ref {
			return x, nil
		}
		if id.IsHex(ref) && strings.HasPrefix(x.ID, ref) {
			found = append(found, x)
		}
	}
	switch len(found) {
	case 0:
		return nil, fault.New(fault.NotFound, "network %s not found", ref)
	case 1:
		return found[0], nil
	}
	return nil, fault.New(fault.Invalid, "network %s is ambiguous (%d matches found on ID prefix)", ref, len(found))
}

// List gives all networks, the oldest first.
func (n *Networks) List() []Network {
	n.mu.RLock()
	defer n.mu.RUnlock()
	list := make([]Network, 0, len(n.nets))
	for _, x := range n.nets {
		list = append(list, x.Network)
	}
	slices.SortFunc(list, func(a, b Network) int { return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name)) })
	return list
}

// Endpoints gives the running containers' places on a network, by their names.
func (n *Networks) Endpoints(networkID string) []Endpoint {
	n.mu.RLock()
	defer n.mu.RUnlock()
	x := n.nets[networkID]
	if x == nil {
		return nil
	}
	list := make([]Endpoint, 0, len(x.endpoints))
	for _, cid := range slices.Sorted(maps.Keys(x.endpoints)) {
		list = append(list, *x.endpoints[cid])
	}
	slices.SortStableFunc(list, func(a, b Endpoint) int { return cmp.Compare(a.Container, b.Container) })
	return list
}

// Drivers names the drivers that there are, for info.
func (n *Networks) Drivers() []string {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return slices.Sorted(maps.Keys(n.drivers))
}

// Config is what the room was opened with.
func (n *Networks) Config() Config { return n.cfg }

// Pools are the blocks that subnets are chosen from.
func (n *Networks) Pools() []ipam.PoolSpec { return slices.Clone(n.pools) }

// Firewall tells how rules are made, for info: "nftables", or "" when they are not.
func (n *Networks) Firewall() string {
	if !yes(n.cfg.Firewall) {
		return ""
	}
	return "nftables"
}

func (n *Networks) sandboxDir() string { return filepath.Join(n.cfg.RunRoot, "sandbox") }
func (n *Networks) nsDir() string      { return filepath.Join(n.cfg.RunRoot, "netns") }

// parkerOf keeps a nil interface nil.
func parkerOf(p Parker) port.Parker {
	if p == nil {
		return nil
	}
	return p
}
