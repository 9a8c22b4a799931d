// Package parent is what macvlan and ipvlan have in common: networks that sit on a link of the host, their parent.
//
// A parent is a link of the host's, a VLAN of one, "eth0.10", which is made when it is not there, or, for a network
// without any, a link of our own that leads nowhere. What was made here carries our mark and goes with its network.
package parent

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/kernel/link"
	"berth/network/driver"
)

// Driver makes links of one kind upon parents. It is the larger part of macvlan's and ipvlan's drivers.
type Driver struct {
	Kind string // "macvlan", "ipvlan"
	// Link completes the wish for a container's link.
	Link func(n driver.Network, l *link.Link)
	// Attached completes what comes of it.
	Attached func(n driver.Network, a *driver.Attachment)
	// Options checks the kind's own.
	Options func(n driver.Network) error
	// Shared tells whether two networks can have one parent.
	Shared func(a, b driver.Network) bool
	Log    *slog.Logger

	conn *link.Conn
	mu   sync.Mutex // a parent is made and deleted by one at a time
}

// Dial opens the driver in the calling thread's network namespace.
func (d *Driver) Dial() (err error) {
	d.conn, err = link.Dial()
	return err
}

// Close leaves all links.
func (d *Driver) Close() error { return d.conn.Close() }

// Traits: the host has no part in these networks; what leaves them goes out by the parent.
func (d *Driver) Traits() driver.Traits {
	return driver.Traits{Addresses: true, Gateway: true, Names: true}
}

// Check refuses options that are wrong and parents that another network has.
func (d *Driver) Check(n driver.Network, others []driver.Network) error {
	if err := d.Options(n); err != nil {
		return err
	}
	if _, err := driver.MTU(n.Options); err != nil {
		return err
	}
	p := n.Options[driver.OptParent]
	if p == "" {
		return nil
	}
	if p == "lo" {
		return fault.New(fault.Invalid, "loopback interface is not a valid %s parent link", d.Kind)
	}
	for _, o := range others {
		if o.Options[driver.OptParent] == p && !d.Shared(n, o) {
			return fault.New(fault.Conflict, "network %s is already using parent interface %s", o.Name, p)
		}
	}
	return nil
}

// Name is the parent's: the option's, or that of a link of our own.
func Name(n driver.Network) string {
	if p := n.Options[driver.OptParent]; p != "" {
		return p
	}
	return "dm-" + n.ID[:min(12, len(n.ID))]
}

func mark(n driver.Network) string { return "berth " + n.ID }

// Create makes the parent where it is not there.
func (d *Driver) Create(_ context.Context, n driver.Network) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, err := d.conn.ByName(Name(n))
	if !fault.Is(err, fault.NotFound) {
		return err
	}
	if n.Options[driver.OptParent] == "" {
		return d.make(n, link.Link{Name: Name(n), Kind: "dummy", Up: true}, link.Link{Name: Name(n), Kind: "bridge", Up: true, Bridge: &link.BridgeOptions{}})
	}
	base, id, err := VLAN(Name(n))
	if err != nil {
		return err
	}
	l, err := d.conn.ByName(base)
	if err != nil {
		return fault.New(fault.NotFound, "failed to find master interface %s on the Docker host: link not found", base)
	}
	err = d.make(n, link.Link{Name: Name(n), Kind: "vlan", VLAN: id, Parent: l.Index, Up: true})
	if fault.Is(err, fault.NotImplemented) {
		return fault.Wrap(fault.NotImplemented, err, "this kernel has no VLAN links (8021q)")
	}
	return err
}

// make makes a parent of the first kind that the kernel has.
func (d *Driver) make(n driver.Network, kinds ...link.Link) (err error) {
	for _, l := range kinds {
		if err = d.conn.Do(link.Add(l), link.SetNamed(l.Name, link.Change{Alias: mark(n)})); !fault.Is(err, fault.NotImplemented) {
			break
		}
	}
	_ = failpoint.Hit("network/parent-made")
	return err
}

// VLAN reads "eth0.10".
func VLAN(name string) (base string, id uint16, err error) {
	i := strings.LastIndexByte(name, '.')
	if i <= 0 {
		return "", 0, fault.New(fault.Invalid, "invalid subinterface vlan name %s, example formatting is eth0.10", name)
	}
	v, err := strconv.ParseUint(name[i+1:], 10, 16)
	if err != nil {
		return "", 0, fault.New(fault.Invalid, "unable to find a valid vlan id from: %s", name)
	}
	if v < 1 || v > 4094 {
		return "", 0, fault.New(fault.Invalid, "vlan id must be between 1-4094, received: %d", v)
	}
	return name[:i], uint16(v), nil
}

// Delete takes the parent away where it was made here.
func (d *Driver) Delete(_ context.Context, n driver.Network) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	l, err := d.conn.ByName(Name(n))
	if fault.Is(err, fault.NotFound) || err == nil && l.Alias != mark(n) {
		return nil
	}
	if err != nil {
		return err
	}
	return d.conn.Do(link.Delete(l.Index).IfThere())
}

// Join makes the container's link, in its namespace, by one message.
func (d *Driver) Join(_ context.Context, n driver.Network, r driver.Request) (driver.Attachment, error) {
	p, err := d.conn.ByName(Name(n))
	if err != nil {
		return driver.Attachment{}, fault.In(err, "parent interface of network %s", n.Name)
	}
	l := link.Link{Name: r.Interface, Kind: d.Kind, Parent: p.Index, MTU: size(n, p), MAC: r.MAC, NS: r.NS}
	d.Link(n, &l)
	if err := d.conn.Do(link.Add(l)); err != nil {
		if fault.Is(err, fault.NotImplemented) {
			return driver.Attachment{}, fault.Wrap(fault.NotImplemented, err, "this kernel has no %s links", d.Kind)
		}
		return driver.Attachment{}, err
	}
	_ = failpoint.Hit("network/link-made")
	if r.Rate > 0 {
		if err := limit(r); err != nil {
			r.In.Do(link.DeleteNamed(r.Interface).IfThere())
			return driver.Attachment{}, err
		}
	}
	a := driver.Attachment{Interface: r.Interface, MAC: l.MAC, IPv4: r.IPv4, IPv6: r.IPv6}
	if !n.Internal {
		a.Gateway4, a.Gateway6 = r.Gateway4, r.Gateway6
	}
	if d.Attached != nil {
		d.Attached(n, &a)
	}
	return a, nil
}

// size is the links' MTU: the option's, at most the parent's.
func size(n driver.Network, p link.Info) int {
	if m, err := driver.MTU(n.Options); err == nil && m > 0 {
		return m
	}
	return p.MTU
}

// limit caps an endpoint both ways. There is no link of it on the host, so all that it takes is in the container's
// namespace: what leaves waits; what comes in beyond the rate is dropped, or waits behind an ifb where the kernel cannot
// drop by rate.
func limit(r driver.Request) error {
	l, err := r.In.ByName(r.Interface)
	if err != nil {
		return err
	}
	burst, queue := driver.Burst(r.Rate)
	err = r.In.Do(link.TBF(l.Index, r.Rate, burst, queue), link.ClsAct(l.Index))
	if err != nil {
		return err
	}
	if err := r.In.Do(link.PoliceIn(l.Index, r.Rate, max(4*burst, 256<<10))); !fault.Is(err, fault.NotFound) {
		return err
	}
	if err := r.In.Do(link.Add(link.Link{Name: "ifb%d", Kind: "ifb", Up: true, TxQueue: 32})); err != nil {
		return err
	}
	links, err := r.In.Links()
	if err != nil {
		return err
	}
	for _, i := range links {
		if i.Kind == "ifb" && i.Alias == "" {
			return r.In.Do(link.Set(i.Index, link.Change{Alias: limits(r.Interface)}), link.TBF(i.Index, r.Rate, burst, queue), link.RedirectIn(l.Index, i.Index))
		}
	}
	return fault.New(fault.Internal, "the ifb link is not there")
}

// Leave takes the link away, where its namespace does not go with it.
func (d *Driver) Leave(_ context.Context, n driver.Network, l driver.Left) error {
	if l.NS == nil || l.Interface == "" {
		return nil
	}
	in, err := link.DialIn(l.NS)
	if err != nil {
		return err
	}
	defer in.Close()
	if l.Ending {
		// It dies with the namespace, some time; until then it must not answer for its address, and its hardware address
		// must be free for the next.
		return in.Do(link.SetNamed(l.Interface, link.Change{Down: true}).IfThere())
	}
	ops := []link.Op{link.DeleteNamed(l.Interface).IfThere()}
	links, err := in.Links()
	if err != nil {
		return err
	}
	for _, i := range links {
		if i.Kind == "ifb" && i.Alias == limits(l.Interface) {
			ops = append(ops, link.Delete(i.Index).IfThere())
		}
	}
	return in.Do(ops...)
}

// limits is the mark of the ifb in a container's namespace that limits one of its interfaces.
func limits(ifname string) string { return "berth " + ifname }

// Mode reads an option that is one of some words, the first being the default.
func Mode(n driver.Network, option string, words ...string) (string, error) {
	v := n.Options[option]
	if v == "" {
		return words[0], nil
	}
	for _, w := range words {
		if v == w {
			return v, nil
		}
	}
	return "", fault.New(fault.Invalid, "requested %s '%s' is not valid, '%s' mode is the %s driver default", strings.ReplaceAll(option, "_", " "), v, words[0], fmt.Sprintf("%.7s", option))
}
