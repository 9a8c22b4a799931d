// Package remote is addresses from plugins: programs beside the engine that speak Docker's remote IPAM protocol ("IpamDriver").
//
// Words. An address space is a plugin's name for a universe of addresses. A pool is a subnet that the plugin lent us, under an id of its
// own; an address is lent from a pool. The life of both: requested, kept by whoever asked, released. The plugin remembers them; nothing
// is written here.
package remote

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"

	"berth/base/fault"
	"berth/base/plugin"
)

const (
	subsystem = "IpamDriver"

	keyGateway = "com.docker.network.gateway"
	keyMAC     = "com.docker.network.endpoint.macaddress"
	keyType    = "RequestAddressType"

	maxOverlaps = 64 // pools that are asked for until one is clear of what is in use
)

// IPAM is one plugin that gives addresses. It is safe for concurrent use as far as the plugin is.
type IPAM struct {
	name    string
	plugins *plugin.Registry

	mu    sync.Mutex
	asked bool // needs is known
	needs Capabilities
}

// Capabilities is what a plugin wants of us.
type Capabilities struct {
	RequiresMACAddress    bool // it wants to know for which MAC an address is
	RequiresRequestReplay bool // it forgets: after its restart or ours, requests are to be repeated
}

// PoolRequest asks for a subnet.
type PoolRequest struct {
	Subnet  netip.Prefix // zero: any
	Range   netip.Prefix // part of Subnet; zero: all of it
	Options map[string]string
	V6      bool
	Exclude []netip.Prefix // what a subnet of the plugin's choice must not overlap
}

// Pool is a subnet that was lent.
type Pool struct {
	ID      string
	Subnet  netip.Prefix
	Gateway netip.Addr // zero: the plugin names none
	Data    map[string]string
}

// New gives the plugin of that name, which is not asked anything yet.
func New(plugins *plugin.Registry, name string) *IPAM { return &IPAM{name: name, plugins: plugins} }

// Capabilities asks the plugin what it wants; plugins that do not know the question want nothing.
func (i *IPAM) Capabilities(ctx context.Context) (Capabilities, error) {
	i.mu.Lock()
	needs, known := i.needs, i.asked
	i.mu.Unlock()
	if known {
		return needs, nil
	}
	err := i.call(ctx, "GetCapabilities", nil, &needs)
	if err != nil && !plugin.Lacks(err) {
		return needs, err
	}
	i.mu.Lock()
	i.needs, i.asked = needs, true
	i.mu.Unlock()
	return needs, nil
}

// RequestPool borrows a subnet. One of the plugin's choice is clear of those excluded, or the error says that none is.
func (i *IPAM) RequestPool(ctx context.Context, r PoolRequest) (Pool, error) {
	var spaces struct{ LocalDefaultAddressSpace, GlobalDefaultAddressSpace string }
	if err := i.call(ctx, "GetDefaultAddressSpaces", nil, &spaces); err != nil {
		return Pool{}, err
	}
	req := poolRequest{AddressSpace: spaces.LocalDefaultAddressSpace, Pool: text(r.Subnet), SubPool: text(r.Range), Options: r.Options, V6: r.V6}
	var refused []string // held until the end, or the plugin would offer them again
	defer func() {
		for _, id := range refused {
			i.ReleasePool(context.WithoutCancel(ctx), id) // bounded by the plugin's own limits; nothing more can be done
		}
	}()
	for range maxOverlaps {
		p, err := i.requestPool(ctx, req)
		if err != nil {
			return Pool{}, err
		}
		if r.Subnet.IsValid() || p.Subnet.Bits() == 0 || !overlaps(p.Subnet, r.Exclude) {
			return p, nil
		}
		refused = append(refused, p.ID)
	}
	return Pool{}, fault.New(fault.Conflict, "IPAM plugin %q has no subnet that is not in use: %d were looked at", i.name, maxOverlaps)
}

func (i *IPAM) requestPool(ctx context.Context, req poolRequest) (Pool, error) {
	var res struct {
		PoolID, Pool string
		Data         map[string]string
	}
	if err := i.call(ctx, "RequestPool", req, &res); err != nil {
		return Pool{}, err
	}
	p := Pool{ID: res.PoolID, Data: res.Data}
	var err error
	if p.Subnet, err = netip.ParsePrefix(res.Pool); err == nil && res.Data[keyGateway] != "" {
		var g netip.Prefix
		g, err = netip.ParsePrefix(res.Data[keyGateway])
		p.Gateway = g.Addr()
	}
	if err != nil {
		i.ReleasePool(context.WithoutCancel(ctx), res.PoolID)
		return Pool{}, fault.Wrap(fault.Internal, err, "IPAM plugin %q: its pool", i.name)
	}
	p.Subnet = p.Subnet.Masked()
	return p, nil
}

// ReleasePool gives a subnet back.
func (i *IPAM) ReleasePool(ctx context.Context, poolID string) error {
	return i.call(ctx, "ReleasePool", struct{ PoolID string }{poolID}, nil)
}

// RequestAddress borrows an address of a pool, a certain one or (zero) any, for an endpoint with a MAC (nil: not known yet).
func (i *IPAM) RequestAddress(ctx context.Context, poolID string, a netip.Addr, mac net.HardwareAddr, options map[string]string) (netip.Prefix, error) {
	needs, err := i.Capabilities(ctx)
	if err != nil {
		return netip.Prefix{}, err
	}
	all := map[string]string{}
	for k, v := range options {
		all[k] = v
	}
	if needs.RequiresMACAddress && len(mac) > 0 {
		all[keyMAC] = mac.String()
	}
	return i.requestAddress(ctx, poolID, a, all)
}

// RequestGateway borrows the address that a network's gateway shall have.
func (i *IPAM) RequestGateway(ctx context.Context, poolID string, a netip.Addr) (netip.Prefix, error) {
	return i.requestAddress(ctx, poolID, a, map[string]string{keyType: keyGateway})
}

func (i *IPAM) requestAddress(ctx context.Context, poolID string, a netip.Addr, options map[string]string) (netip.Prefix, error) {
	req := addressRequest{PoolID: poolID, Options: options}
	if a.IsValid() {
		req.Address = a.String()
	}
	var res struct{ Address string }
	if err := i.call(ctx, "RequestAddress", req, &res); err != nil {
		return netip.Prefix{}, err
	}
	if res.Address == "" {
		return netip.Prefix{}, fault.New(fault.Unavailable, "ipam driver did not return an ip address")
	}
	p, err := netip.ParsePrefix(res.Address)
	if err != nil {
		return netip.Prefix{}, fault.Wrap(fault.Internal, err, "IPAM plugin %q: its address", i.name)
	}
	if a.IsValid() && p.Addr() != a {
		i.ReleaseAddress(context.WithoutCancel(ctx), poolID, p.Addr())
		return netip.Prefix{}, fault.New(fault.Internal, "IPAM plugin %q gave %v where %v was asked for", i.name, p.Addr(), a)
	}
	return p, nil
}

// ReleaseAddress gives an address back.
func (i *IPAM) ReleaseAddress(ctx context.Context, poolID string, a netip.Addr) error {
	return i.call(ctx, "ReleaseAddress", struct{ PoolID, Address string }{poolID, a.String()}, nil)
}

type poolRequest struct {
	AddressSpace, Pool, SubPool string
	Options                     map[string]string
	V6                          bool
}

type addressRequest struct {
	PoolID, Address string
	Options         map[string]string
}

// call asks the plugin, wherever it is now. Its refusals begin with "remote: ", as Docker shows them.
func (i *IPAM) call(ctx context.Context, method string, args, ret any) error {
	p, err := i.plugins.Get(ctx, i.name, subsystem)
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

func text(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return p.String()
}

func overlaps(p netip.Prefix, with []netip.Prefix) bool {
	for _, q := range with {
		if p.Overlaps(q) {
			return true
		}
	}
	return false
}
