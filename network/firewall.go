package network

import (
	"cmp"
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"berth/base/fault"
	"berth/kernel/link"
	"berth/network/driver"
	"berth/network/driver/bridge"
	"berth/network/firewall"
)

// rules is what the room needs of the firewall.
type rules interface {
	Replace(context.Context, firewall.State) error
	SetNetwork(context.Context, firewall.Network) error
	RemoveNetwork(ctx context.Context, id string) error
	Change(ctx context.Context, add, remove []firewall.Port) error
	Rules() string
	Audit() []firewall.Exposure
	Remove(context.Context) error
	Close() error
}

// openRules loads the rules of all networks and sandboxes at one instant. Connections of running containers stay.
func (n *Networks) openRules(ctx context.Context) error {
	if !yes(n.cfg.Firewall) {
		return nil
	}
	table := "berth"
	if n.cfg.EngineID != "" {
		table += "-" + n.cfg.EngineID
	}
	f, err := firewall.Open(ctx, firewall.Config{Table: table, Log: n.log, Policy: firewall.Policy{
		ObeyInput: n.cfg.ObeyInput, NoForeign: n.cfg.NoForeign, AllowDirect: n.cfg.AllowDirect, OnlyOurs: n.madeRouter,
	}})
	if fault.Is(err, fault.NotImplemented) {
		n.log.Error("this kernel has no nftables: containers reach nothing outside, and no port can be published", "err", err)
		return nil
	}
	if err != nil {
		return err
	}
	n.rules = f
	var s firewall.State
	for _, x := range n.sorted() {
		if x.ruled() {
			s.Networks = append(s.Networks, n.zone(x))
		}
	}
	for _, b := range n.boxes {
		s.Ports = append(s.Ports, doors(b.ContainerID, b.Ports)...)
	}
	return f.Replace(ctx, s)
}

// ruled tells whether the firewall has anything to do with a network.
func (x *entry) ruled() bool {
	return x.traits.HostSide && x.Driver == "bridge" && !x.ConfigOnly && x.broken == nil
}

// zone is a network as the firewall sees it.
func (n *Networks) zone(x *entry) firewall.Network {
	icc, _ := driver.Bool(x.Options, bridge.OptICC, true)
	masquerade, _ := driver.Bool(x.Options, bridge.OptMasquerade, true)
	z := firewall.Network{
		ID: x.ID, Name: x.Name, Bridge: x.view.Bridge, Internal: x.Internal, ICC: icc, Masquerade: masquerade,
		GatewayMode4: cmp.Or(x.Options[bridge.OptMode4], firewall.ModeNAT), GatewayMode6: cmp.Or(x.Options[bridge.OptMode6], firewall.ModeNAT),
	}
	z.HostIP, _ = netip.ParseAddr(x.Options[bridge.OptHost4])
	z.HostIP6, _ = netip.ParseAddr(x.Options[bridge.OptHost6])
	if t := x.Options[bridge.OptTrusted]; t != "" {
		z.Trusted = strings.Split(t, ":")
	}
	for _, p := range x.view.Pools {
		z.Subnets = append(z.Subnets, p.Subnet)
	}
	return z
}

func (n *Networks) setRules(ctx context.Context, x *entry) error {
	if n.rules == nil || !x.ruled() {
		return nil
	}
	return n.rules.SetNetwork(ctx, n.zone(x))
}

func (n *Networks) dropRules(ctx context.Context, x *entry) error {
	if n.rules == nil || !x.ruled() {
		return nil
	}
	return n.rules.RemoveNetwork(ctx, x.ID)
}

// doors are published ports as the firewall sees them.
func doors(containerID string, ports []Port) (list []firewall.Port) {
	for _, p := range ports {
		list = append(list, firewall.Port{
			NetworkID: p.NetworkID, ContainerID: containerID, Proto: p.Proto, HostIP: p.HostIP, HostPort: p.HostPort, Target: p.Target, TargetPort: p.Port,
		})
	}
	return list
}

// changeDoors publishes and withdraws ports in one transaction.
func (n *Networks) changeDoors(ctx context.Context, add, remove []firewall.Port) error {
	if len(add)+len(remove) == 0 {
		return nil
	}
	if n.rules == nil {
		if len(add) > 0 && yes(n.cfg.Firewall) {
			return fault.New(fault.NotImplemented, "this kernel has no nftables: ports cannot be published")
		}
		return nil
	}
	return n.rules.Change(ctx, add, remove)
}

// Rules gives the firewall's rules as nft prints them; "" when none are made.
func (n *Networks) Rules() string {
	if n.rules == nil {
		return ""
	}
	return n.rules.Rules()
}

// Audit says who can reach which container from where, by which rule.
func (n *Networks) Audit() []firewall.Exposure {
	if n.rules == nil {
		return nil
	}
	return n.rules.Audit()
}

// RemoveRules takes the rules away, and what other managers of the firewall were asked for: for the engine's shutdown,
// when no container runs any more.
func (n *Networks) RemoveRules(ctx context.Context) error {
	if n.rules == nil {
		return nil
	}
	return n.rules.Remove(ctx)
}

// wasRouter notes, before the first network is made, whether the host forwarded packets before we came: one that did not
// shall forward nothing but ours. What was seen first in this boot counts.
func (n *Networks) wasRouter() error {
	note := filepath.Join(n.cfg.RunRoot, "forwarding")
	b, err := os.ReadFile(note)
	if err != nil {
		now, err := link.Sysctl("net.ipv4.ip_forward")
		if err != nil {
			now = "1"
		}
		b = []byte(now + "\n")
		if err := os.WriteFile(note, b, 0o600); err != nil {
			return err
		}
	}
	n.madeRouter = yes(n.cfg.IPForward) && strings.TrimSpace(string(b)) == "0"
	return nil
}
