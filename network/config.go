package network

import (
	"context"
	"log/slog"
	"net/netip"
	"os"

	"berth/base/plugin"
	"berth/kernel/idmap"
	"berth/network/ipam"
)

// Config is what the engine tells the room.
type Config struct {
	Root     string // durable: one JSON file for each network
	RunRoot  string // of this boot: sandboxes, and the namespaces' mounts
	EngineID string // "", or the six hex digits that tell this engine's things from another's

	BIP          netip.Prefix    // the default network's address and size; zero: chosen
	BIP6         netip.Prefix    // likewise of IPv6, dockerd's --bip6
	FixedCIDR    netip.Prefix    // part of it that containers get addresses from
	FixedCIDR6   netip.Prefix    // the default network's IPv6 subnet
	Gateway4     netip.Addr      // dockerd's --default-gateway: another gateway than the bridge
	Gateway6     netip.Addr      // dockerd's --default-gateway-v6
	IPv6         bool            // the default network has IPv6 (dockerd's --ipv6)
	DefaultPools []ipam.PoolSpec // subnets of networks that ask for none; empty: ipam.Default
	MTU          int             // 0: of the host's default route
	ICC          *bool           // nil: true
	IPForward    *bool           // nil: true: switch forwarding on
	Masquerade   *bool           // nil: true
	Firewall     *bool           // nil: true: rules are made
	ObeyInput    bool            // published ports obey the host's input policy
	NoForeign    bool            // other managers of the host's firewall are left alone
	AllowDirect  bool            // published ports can be reached by containers' own addresses
	// DefaultBridge is the default network's link: "" docker0 where that name is free, else berth0; "none" for no default
	// network; else a bridge of the user's.
	DefaultBridge string
	BindIP        netip.Addr // where ports are published that name no address; zero: everywhere

	// PortsListen makes published TCP ports listen, for what carries clients into this network namespace; LowestPort is the first port
	// that it can bind outside, 0 for all.
	PortsListen bool
	LowestPort  uint16
	PortTaken   func(port uint16) bool // a program outside listens there by TCP; nil: clients come to this namespace

	DNS, DNSSearch, DNSOptions []string // for containers that ask for none

	DefaultNetworkOpts map[string]map[string]string // by driver: options of networks that do not set them

	// UserNet makes a network namespace that belongs to the user namespace at the path in, "" to a new one with the mapping; nil: to a
	// new one, by a copy of this process, which takes the longer the more memory it has.
	UserNet func(m idmap.Pair, in string) (fd int, err error)

	Keeper Parker // nil: nothing outlives this process
	// Emit tells an event: "create", "destroy", "connect", "disconnect". It must not call what changes networks or sandboxes,
	// which may be changing still.
	Emit func(action, networkID, name, netType string, attrs map[string]string)
	Log  *slog.Logger

	PluginSockets string          // directory of plugins' sockets; "": Docker's
	PluginSpecs   []string        // directories of plugins' specifications; nil: Docker's
	Managed       plugin.Supplier // plugins that the engine runs itself; nil: none
	CNIPath       []string        // where CNI plugins are; nil: the usual places
	CNIConf       string          // where CNI configurations are found by name; "": /etc/cni/net.d

	PoolSize int // namespaces held ready; 0: 4; negative: none
}

// Parker keeps descriptors by name while this process is away: the keeper.
type Parker interface {
	Park(ctx context.Context, name string, f *os.File) error
	Take(ctx context.Context, name string) (*os.File, error)
	Unpark(ctx context.Context, name string) error
	Parked(ctx context.Context) ([]string, error)
}

func yes(b *bool) bool { return b == nil || *b }

func (c *Config) emit(action string, n *Network, attrs map[string]string) {
	if c.Emit != nil {
		c.Emit(action, n.ID, n.Name, n.Driver, attrs)
	}
}
