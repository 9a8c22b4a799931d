package firewall

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"

	"berth/base/fault"
	"berth/kernel/conntrack"
	"berth/kernel/nft"
)

// Change publishes and takes back ports, all at one instant: a port that is in remove with one container and in add with another moves without a
// moment in which nobody answers. TCP and SCTP connections that exist stay where they are; so do exchanges by UDP, but for those that the
// change would leave without an answer. A port to add that leads elsewhere already is a Conflict; one to remove that is not there is no error.
func (f *Firewall) Change(ctx context.Context, add, remove []Port) error {
	if err := f.take(ctx); err != nil {
		return err
	}
	defer f.give()
	add, remove = normals(add), normals(remove)
	batch, plan, err := f.plan(add, remove)
	if err != nil {
		return err
	}
	err = f.conn.Load(batch)
	if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Conflict) {
		// The table is not what we think: somebody has emptied it. All of it is loaded anew.
		f.config.Log.Warn("firewall rules were changed by somebody else; they are loaded anew", "error", err)
		f.mu.Lock()
		networks, ports := maps.Clone(f.networks), maps.Clone(f.ports)
		f.mu.Unlock()
		apply(ports, add, remove)
		return f.replace(ctx, networks, ports)
	}
	if err != nil {
		return fault.In(err, "publish ports")
	}
	f.mu.Lock()
	apply(f.ports, add, remove)
	plan.apply(f.members)
	f.mu.Unlock()
	f.forget(add, remove)
	return nil
}

// plan says which elements a change of ports adds and deletes.
func (f *Firewall) plan(add, remove []Port) (*nft.Batch, changes, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := compiler{State: State{Table: f.config.Table, Policy: f.config.Policy}, byID: f.networks}
	delta := changes{}
	for _, p := range remove {
		if _, ok := f.ports[p]; ok {
			c.ofPort(func(m member) { delta.at(m, f.members).drop() }, p)
		}
	}
	var conflict error
	for _, p := range add {
		if _, ok := f.ports[p]; ok && !slices.Contains(remove, p) {
			continue
		}
		c.ofPort(func(m member) {
			if !delta.at(m, f.members).take(m) && conflict == nil {
				conflict = fault.New(fault.Conflict, "port %d/%s is published for another container already", p.HostPort, p.Proto)
			}
		}, p)
	}
	if conflict != nil {
		return nil, nil, conflict
	}
	b := nft.NewBatch()
	for _, id := range slices.Sorted(maps.Keys(delta)) {
		if d := delta[id]; d.before != nil && (d.ports == 0 || !d.SameData(d.before.Element)) {
			b.DeleteElements(nft.Inet, c.table(), shapeOf(d.set), d.before.Element)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(delta)) {
		if d := delta[id]; d.ports > 0 && (d.before == nil || !d.SameData(d.before.Element)) {
			b.AddElements(nft.Inet, c.table(), shapeOf(d.set), d.Element)
		}
	}
	return b, delta, nil
}

// changes are elements that a change of ports touches, by their ids.
type changes map[string]*changed

type changed struct {
	used
	before *used // nil: it was not in the set
}

func (c changes) at(m member, now map[string]*used) *changed {
	id := m.id()
	if c[id] == nil {
		c[id] = &changed{used: used{member: m}, before: now[id]}
		if b := now[id]; b != nil {
			c[id].used = *b
		}
	}
	return c[id]
}

func (c *changed) drop() { c.ports = max(0, c.ports-1) }

// take counts one more port that needs the element; false when others need it with other data.
func (c *changed) take(m member) bool {
	if c.ports > 0 && !c.SameData(m.Element) {
		return false
	}
	c.member = m
	c.ports++
	return true
}

func (c changes) apply(now map[string]*used) {
	for id, d := range c {
		if d.ports == 0 {
			delete(now, id)
			continue
		}
		now[id] = &used{member: d.member, ports: d.ports}
	}
}

// apply changes a set of ports.
func apply(ports map[Port]struct{}, add, remove []Port) {
	for _, p := range remove {
		delete(ports, p)
	}
	for _, p := range add {
		ports[p] = struct{}{}
	}
}

// normals gives the ports in their normal form, each once.
func normals(ports []Port) []Port {
	seen := make(map[Port]struct{}, len(ports))
	list := make([]Port, 0, len(ports))
	for _, p := range ports {
		p = p.normal()
		if _, ok := seen[p]; !ok {
			seen[p] = struct{}{}
			list = append(list, p)
		}
	}
	return list
}

// difference gives the ports of a that are not in b.
func difference(a, b map[Port]struct{}) []Port {
	var list []Port
	for p := range a {
		if _, ok := b[p]; !ok {
			list = append(list, p)
		}
	}
	return list
}

// forget ends exchanges of UDP that a change of ports would leave without an answer: the kernel goes on to send their packets to where the first one went.
// Exchanges with other hosts' ports of the same number are none of ours.
func (f *Firewall) forget(add, remove []Port) {
	var flows []conntrack.Flow
	ended := func(ports, kept []Port, flow func(p Port) conntrack.Flow) {
		for _, p := range ports {
			if p.Proto == "udp" && p.translated() && !slices.ContainsFunc(kept, func(k Port) bool { return sameDoor(p, k) }) {
				flows = append(flows, flow(p))
			}
		}
	}
	ended(add, remove, func(p Port) conntrack.Flow {
		return conntrack.Flow{Proto: protocol(p.Proto), To: addressesOf(p), ToPort: p.HostPort, V4: p.Target.Is4(), Untranslated: true}
	})
	ended(remove, add, func(p Port) conntrack.Flow {
		return conntrack.Flow{Proto: protocol(p.Proto), ToPort: p.HostPort, V4: p.Target.Is4(), AnsweredBy: p.Target}
	})
	if len(flows) == 0 {
		return
	}
	if _, err := conntrack.Delete(nil, flows...); err != nil {
		f.config.Log.Warn("exchanges by UDP with a port that was published before are not ended", "error", err)
	}
}

// addressesOf are the addresses of the host on which a port is published.
func addressesOf(p Port) (list []netip.Addr) {
	if !p.wildcard() {
		return []netip.Addr{p.HostIP}
	}
	all, _ := net.InterfaceAddrs() // without them the unspecified address stands alone, which no packet has
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				list = append(list, ip.Unmap())
			}
		}
	}
	return append(list, netip.IPv4Unspecified())
}

// sameDoor reports whether two ports are the same one of the host.
func sameDoor(a, b Port) bool {
	return a.Proto == b.Proto && a.HostPort == b.HostPort && a.HostIP == b.HostIP && a.Target.Is4() == b.Target.Is4()
}

// Forget ends what exchanges of UDP there still are with containers' addresses that are about to belong to others.
func (f *Firewall) Forget(addrs ...netip.Addr) error {
	var flows []conntrack.Flow
	for _, a := range addrs {
		flows = append(flows, conntrack.Flow{Proto: protocol("udp"), V4: a.Unmap().Is4(), AnsweredBy: a.Unmap()})
	}
	if len(flows) == 0 {
		return nil
	}
	_, err := conntrack.Delete(nil, flows...)
	return err
}
