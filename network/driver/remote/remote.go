package remote

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"berth/base/atomicfile"
	"berth/base/fault"
	"berth/base/plugin"
	"berth/kernel/link"
	"berth/kernel/netns"
	"berth/network/driver"
)

const subsystem = "NetworkDriver"

// Config is what a Driver needs.
type Config struct {
	Name    string           // the plugin's
	Plugins *plugin.Registry // where it is found
	Dir     string           // where it is written down which networks the plugin knows; durable; is made
	Log     *slog.Logger     // nil: nothing is logged
}

// Driver is one plugin as a driver. It is safe for concurrent use as far as the plugin is.
type Driver struct {
	cfg  Config
	host *link.Conn // the host's links
	home *os.File   // the host's namespace
}

var (
	_ driver.Driver    = (*Driver)(nil)
	_ driver.Publisher = (*Driver)(nil)
)

// New makes a driver of the plugin in the calling thread's network namespace; the plugin is not asked anything yet.
func New(cfg Config) (*Driver, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "network plugin %q", cfg.Name)
	}
	home, err := netns.Current()
	if err != nil {
		return nil, err
	}
	host, err := link.DialIn(home)
	if err != nil {
		home.Close()
		return nil, err
	}
	return &Driver{cfg: cfg, host: host, home: home}, nil
}

// Close closes the driver. The plugin notices nothing.
func (d *Driver) Close() error { return errors.Join(d.host.Close(), d.home.Close()) }

// Capabilities asks the plugin what it is. NotFound in Docker's words when there is no such plugin or it is no network driver.
func (d *Driver) Capabilities(ctx context.Context) (Capabilities, error) {
	var c Capabilities
	if err := d.call(ctx, "GetCapabilities", nil, &c); err != nil {
		return c, err
	}
	if c.Scope != "local" && c.Scope != "global" {
		return c, fault.New(fault.Invalid, "network plugin %q: invalid capability: expecting 'local' or 'global', got %s", d.cfg.Name, c.Scope)
	}
	return c, nil
}

// Traits: addresses and a gateway come from us unless the network's IPAM driver says otherwise.
func (d *Driver) Traits() driver.Traits {
	return driver.Traits{Addresses: true, Gateway: true, Ports: true, Names: true}
}

// Check finds nothing wrong: only the plugin knows, and says so at Create.
func (d *Driver) Check(driver.Network, []driver.Network) error { return nil }

// Create tells the plugin of the network, once.
func (d *Driver) Create(ctx context.Context, n driver.Network) error {
	_, err := os.Stat(d.told(n.ID))
	if err == nil {
		return nil
	}
	c, err := d.Capabilities(ctx)
	if err != nil {
		return err
	}
	if c.Scope == "global" {
		return fault.New(fault.Forbidden, "datastore for scope \"global\" is not initialized: network plugin %q serves clusters only", d.cfg.Name)
	}
	if err := d.call(ctx, "CreateNetwork", createNetwork(n), nil); err != nil {
		return err
	}
	if err := atomicfile.Write(d.told(n.ID), nil, 0o600); err != nil {
		d.call(ctx, "DeleteNetwork", ids{NetworkID: n.ID}, nil)
		return fault.Wrap(fault.Internal, err, "network plugin %q", d.cfg.Name)
	}
	return nil
}

// Delete tells the plugin that the network is no more.
func (d *Driver) Delete(ctx context.Context, n driver.Network) error {
	if _, err := os.Stat(d.told(n.ID)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := d.call(ctx, "DeleteNetwork", ids{NetworkID: n.ID}, nil); err != nil {
		return err
	}
	return fault.Wrap(fault.Internal, atomicfile.Remove(d.told(n.ID)), "network plugin %q", d.cfg.Name)
}

// told is the file that says that the plugin knows a network.
func (d *Driver) told(networkID string) string { return filepath.Join(d.cfg.Dir, networkID) }

// Join makes an endpoint at the plugin and moves the link that it names into the namespace.
func (d *Driver) Join(ctx context.Context, n driver.Network, r driver.Request) (a driver.Attachment, err error) {
	id := ids{NetworkID: n.ID, EndpointID: r.EndpointID}
	options := endpointOptions(r.Options, r.Ports)
	var made struct{ Interface *iface }
	create := endpointRequest{ids: id, Interface: asked(r), Options: options}
	if err := d.call(ctx, "CreateEndpoint", create, &made); err != nil {
		return a, err
	}
	defer d.undo(&err, "DeleteEndpoint", id)
	a = driver.Attachment{MAC: r.MAC, IPv4: r.IPv4, IPv6: r.IPv6}
	if err := made.Interface.into(&a, create.Interface); err != nil {
		return a, err
	}
	var joined joinResponse
	if err := d.call(ctx, "Join", joinRequest{ids: id, SandboxKey: r.Key, Options: options}, &joined); err != nil {
		return a, err
	}
	defer d.undo(&err, "Leave", id)
	if err := joined.into(&a); err != nil {
		return a, err
	}
	if joined.InterfaceName == nil || joined.InterfaceName.SrcName == "" {
		a.Done = true // there is no link to be given anything
		return a, nil
	}
	err = d.move(r, *joined.InterfaceName, &a)
	return a, err
}

// undo takes back a step of Join that failed later on.
func (d *Driver) undo(failed *error, method string, id ids) {
	if *failed == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second) // the caller's may be over
	defer cancel()
	if err := d.call(ctx, method, id, nil); err != nil {
		d.cfg.Log.Warn("a network plugin did not take back an endpoint", "plugin", d.cfg.Name, "endpoint", id.EndpointID, "err", err)
	}
}

// move puts the plugin's link into the namespace.
func (d *Driver) move(r driver.Request, names interfaceName, a *driver.Attachment) error {
	l, err := d.host.ByName(names.SrcName)
	if err != nil {
		return fault.In(err, "network plugin %q names the link %s", d.cfg.Name, names.SrcName)
	}
	name := names.in(r)
	for i := 0; name == ""; i++ {
		free := names.DstPrefix + strconv.Itoa(i)
		if _, err := r.In.ByName(free); fault.Is(err, fault.NotFound) {
			name = free
		} else if err != nil {
			return err
		}
	}
	// A link must be down to be renamed, and its new name free on the host; both hold in the namespace.
	if err := d.host.Do(link.Set(l.Index, link.Change{Down: true, NS: r.NS, Name: name, MAC: a.MAC})); err != nil {
		return fault.In(err, "move link %s into the container as %s", names.SrcName, name)
	}
	a.Interface = name
	a.Keep = map[string]string{"link": names.SrcName}
	return nil
}

// Leave ends the endpoint at the plugin, as far as there is one.
func (d *Driver) Leave(ctx context.Context, n driver.Network, l driver.Left) error {
	id := ids{NetworkID: n.ID, EndpointID: l.EndpointID}
	left := d.call(ctx, "Leave", id, nil)
	if fault.Is(left, fault.Unavailable) || fault.Is(left, fault.Deadline) {
		return left // it does not answer: a second wait would not help
	}
	if err := d.giveBack(l); err != nil {
		d.cfg.Log.Warn("a plugin's link could not be given back", "plugin", d.cfg.Name, "link", l.Keep["link"], "err", err)
	}
	return errors.Join(left, d.call(ctx, "DeleteEndpoint", id, nil))
}

// giveBack moves the link to the host again, under the name by which the plugin knows it.
func (d *Driver) giveBack(l driver.Left) error {
	name := l.Keep["link"]
	if name == "" || l.Interface == "" || l.NS == nil {
		return nil
	}
	in, err := link.DialIn(l.NS)
	if err != nil {
		return err
	}
	defer in.Close()
	there, err := in.ByName(l.Interface)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return in.Do(link.Set(there.Index, link.Change{Down: true, NS: d.home, Name: name}))
}

// Publish tells the plugin which ports of an endpoint the world shall reach. Plugins need not know how.
func (d *Driver) Publish(ctx context.Context, n driver.Network, l driver.Left, ports []driver.Port) error {
	id := ids{NetworkID: n.ID, EndpointID: l.EndpointID}
	method, args := "RevokeExternalConnectivity", any(id)
	if len(ports) > 0 {
		method, args = "ProgramExternalConnectivity", endpointRequest{ids: id, Options: endpointOptions(l.Options, ports)}
	}
	err := d.call(ctx, method, args, nil)
	if plugin.Lacks(err) {
		return nil
	}
	return err
}

// Info gives what the plugin tells about an endpoint, for inspect.
func (d *Driver) Info(ctx context.Context, networkID, endpointID string) (map[string]any, error) {
	var info struct{ Value map[string]any }
	err := d.call(ctx, "EndpointOperInfo", ids{NetworkID: networkID, EndpointID: endpointID}, &info)
	return info.Value, err
}

// Node is a machine of a cluster.
type Node struct {
	Address     string
	BindAddress string
	Self        bool
}

// Discover tells the plugin that a machine came or went.
func (d *Driver) Discover(ctx context.Context, n Node, gone bool) error {
	const node = 1 // of Docker's discovery types
	method := "DiscoverNew"
	if gone {
		method = "DiscoverDelete"
	}
	return d.call(ctx, method, struct {
		DiscoveryType int
		DiscoveryData Node
	}{node, n}, nil)
}

// call asks the plugin, wherever it is now. Its refusals begin with "remote: ", as Docker shows them.
func (d *Driver) call(ctx context.Context, method string, args, ret any) error {
	p, err := d.cfg.Plugins.Get(ctx, d.cfg.Name, subsystem)
	if err != nil {
		return err
	}
	err = p.Call(ctx, subsystem+"."+method, args, ret)
	var refusal *plugin.RemoteError
	if errors.As(err, &refusal) && refusal.Status == 200 {
		return fault.Wrap(fault.Internal, err, "remote")
	}
	return err
}

// into reads what the plugin says of an endpoint. What was asked for stands: a plugin may add, not change.
func (i *iface) into(a *driver.Attachment, asked *iface) error {
	if i == nil {
		return nil
	}
	for _, f := range []struct {
		text, asked string
		to          *netip.Prefix
	}{{i.Address, asked.Address, &a.IPv4}, {i.AddressIPv6, asked.AddressIPv6, &a.IPv6}} {
		if f.text == "" {
			continue
		}
		p, err := netip.ParsePrefix(f.text)
		if err != nil {
			return fault.Wrap(fault.Internal, err, "a network plugin's address")
		}
		if f.asked != "" && f.asked != f.text {
			return fault.New(fault.Forbidden, "driver modified interface address: endpoint interface IP present (%s). Cannot be modified with (%s).", f.asked, f.text)
		}
		*f.to = p
	}
	if i.MacAddress == "" {
		return nil
	}
	mac, err := net.ParseMAC(i.MacAddress)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "a network plugin's MAC address")
	}
	if asked.MacAddress != "" && asked.MacAddress != mac.String() {
		return fault.New(fault.Forbidden, "driver modified interface MAC address: endpoint interface MAC address present (%s). Cannot be modified with %s.", asked.MacAddress, mac)
	}
	a.MAC = mac
	return nil
}
