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
	"berth/network/loopback6"
	"berth/network/port"
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
	n.rules, n.relay = f, loopback6.New(n.log)
	var s firewall.State
	for _, x := range n.sorted() {
		if x.ruled() {
			s.Networks = append(s.Networks, n.zone(x))
		}
	}
	for _, b := range n.boxes {
		s.Ports = append(s.Ports, n.doors(b.ContainerID, b.Ports)...)
	}
	if err := f.Replace(ctx, s); err != nil {
		return err
	}
	n.relays(ctx, s.Ports, nil)
	return nil
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

// doors are published ports as the firewall sees them: those of networks that are its matter.
func (n *Networks) doors(containerID string, ports []Port) (list []firewall.Port) {
	for _, p := range ports {
		if x := n.byID(p.NetworkID); x == nil || !x.ruled() {
			continue
		}
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
	if err := n.rules.Change(ctx, add, remove); err != nil {
		return err
	}
	n.relays(ctx, add, remove)
	return nil
}

// relays serves ports for clients that rules cannot lead to the container: those on ::1, and of IPv6 where the container
// has none. One that cannot be served is told; all other clients are.
func (n *Networks) relays(ctx context.Context, add, remove []firewall.Port) {
	for _, p := range remove {
		if needed, _ := p.Relayed(); needed {
			n.relay.Shut(doorName(p))
		}
	}
	for _, p := range add {
		needed, anyClient := p.Relayed()
		if !needed {
			continue
		}
		if err := n.serveDoor(ctx, p, anyClient); err != nil {
			n.log.Warn("a published port does not answer on IPv6", "port", doorName(p), "container", p.ContainerID, "err", err)
		}
	}
}

func (n *Networks) serveDoor(ctx context.Context, p firewall.Port, anyClient bool) error {
	s, err := n.ports.Socket(ctx, port.Key{Proto: p.Proto, IP: p.HostIP, Port: p.HostPort})
	if err != nil {
		return err
	}
	defer s.Close()
	return n.relay.Open(doorName(p), loopback6.Door{Proto: p.Proto, Socket: s, Target: netip.AddrPortFrom(p.Target, p.TargetPort), AnyClient: anyClient})
}

func doorName(p firewall.Port) string {
	return port.Key{Proto: p.Proto, IP: p.HostIP, Port: p.HostPort}.String()
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
