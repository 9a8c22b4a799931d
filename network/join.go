package network

import (
	"context"
	"maps"
	"net/netip"
	"os"
	"slices"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/kernel/link"
	"berth/kernel/netns"
	"berth/network/driver"
)

// Join makes the network of a container that starts: a namespace with a link on each network, addresses, routes, published
// ports and names. On an error nothing is left.
func (n *Networks) Join(ctx context.Context, w Want) (Sandbox, error) {
	wishes, err := n.read(w)
	if err != nil {
		return Sandbox{}, err
	}
	if err := n.reaper.wait(ctx); err != nil {
		return Sandbox{}, fault.In(err, "wait for the kernel to destroy old network namespaces")
	}
	if _, stale := n.Sandbox(w.ContainerID); stale {
		n.log.Warn("a container's former network was still there", "container", w.ContainerID)
		if err := n.Leave(ctx, w.ContainerID); err != nil {
			return Sandbox{}, err
		}
	}
	j := &join{n: n, w: w, box: &box{}}
	j.box.changing.Lock() // until it is made: others can see it before
	defer j.box.changing.Unlock()
	if err := j.run(ctx, wishes); err != nil {
		j.undo(context.WithoutCancel(ctx))
		return Sandbox{}, err
	}
	for _, p := range j.places {
		n.cfg.emit("connect", &p.net.Network, map[string]string{"container": w.ContainerID})
	}
	return j.box.Sandbox, nil
}

// join is a Join under way.
type join struct {
	n      *Networks
	w      Want
	slot   *slot
	places []*place // in the order in which they were asked for
	box    *box
	doors  bool // the firewall knows the ports
	names  bool // the resolver knows the sandbox
	wrote  bool
}

func (j *join) run(ctx context.Context, wishes []wish) (err error) {
	n, w := j.n, j.w
	if err := j.settle(wishes, nil); err != nil {
		return err
	}
	if j.slot, err = n.slotFor(w); err != nil {
		return err
	}
	ordered := j.ordered(nil)
	j.box.want, j.box.keep = w, map[string]map[string]string{}
	j.box.Sandbox = Sandbox{ID: j.slot.id, Key: j.slot.key, ContainerID: w.ContainerID, Resolver: resolves(ordered)}
	j.box.setEndpoints(ordered)
	g := gatesOf(ordered)
	if j.box.Ports, err = n.publish(ctx, w, g, slices.Concat(w.Ports, w.Publish)); err != nil {
		return portError(err, w, g)
	}
	if err := n.claim(j.box, j.places); err != nil {
		return err
	}
	if err := n.writeBox(j.box.file(false)); err != nil {
		return err
	}
	j.wrote = true
	_ = failpoint.Hit("network/join-written")
	for _, p := range j.places {
		if err := n.attach(ctx, j.box, p, j.slot.ns, j.slot.in, p == ordered[0]); err != nil {
			return fault.In(err, "failed to create endpoint %s on network %s", w.Name, p.net.Name)
		}
	}
	if err := n.route(j.slot.in, ordered); err != nil {
		return err
	}
	_ = failpoint.Hit("network/attached")
	aim(j.box.Ports, g)
	j.doors = true
	if err := n.changeDoors(ctx, n.doors(w.ContainerID, j.box.Ports), nil); err != nil {
		return portError(err, w, g)
	}
	j.finish(ordered)
	if err := n.tellPublishers(ctx, j.box, nil, j.box.Ports, firstOf(ordered)); err != nil {
		return portError(err, w, g)
	}
	if j.box.Resolver {
		j.names = true
		if err := n.names.Serve(ctx, n.served(j.box.Sandbox, w, true)); err != nil {
			return err
		}
	}
	_ = failpoint.Hit("network/joined")
	if err := n.writeBox(j.box.file(true)); err != nil {
		return err
	}
	j.slot.close()
	return nil
}

// slotFor gives the namespace that a container is to have.
func (n *Networks) slotFor(w Want) (*slot, error) {
	if w.IDMap != nil {
		return n.mapped.get(*w.IDMap, w.UserNS)
	}
	return n.pool.get()
}

// settle chooses ids, names and addresses of the endpoints.
func (j *join) settle(wishes []wish, used []string) error {
	names, err := ifnames(wishes, used)
	if err != nil {
		return err
	}
	for i, x := range wishes {
		if x.net.broken != nil {
			return x.net.broken
		}
		p, err := x.settle(j.w, names[i])
		if err != nil {
			return fault.In(err, "failed to create endpoint %s on network %s", j.w.Name, x.net.Name)
		}
		j.places = append(j.places, p)
		p.Gateway4, p.Gateway6 = x.net.gateway(p.IPv4), x.net.gateway(p.IPv6)
	}
	return nil
}

// ordered gives the places beside others that exist, the one with the default route first.
func (j *join) ordered(others []*place) []*place {
	all := slices.Concat(others, j.places)
	slices.SortStableFunc(all, byGateway)
	return all
}

// firstOf gives the place with the default route; nil where there is none.
func firstOf(places []*place) *place {
	if len(places) == 0 {
		return nil
	}
	return places[0]
}

// setEndpoints sets the sandbox's endpoints, in the order of the places.
func (b *box) setEndpoints(places []*place) {
	b.Endpoints = make([]Endpoint, 0, len(places))
	for _, p := range places {
		b.Endpoints = append(b.Endpoints, p.Endpoint)
	}
}

// finish takes over into the sandbox what the drivers said of its endpoints.
func (j *join) finish(ordered []*place) {
	j.n.mu.Lock()
	defer j.n.mu.Unlock()
	j.box.setEndpoints(ordered)
	j.n.showEndpoints(j.box)
}

// showEndpoints lets others see a sandbox's endpoints as they are; mu is held.
func (n *Networks) showEndpoints(b *box) {
	for i := range b.Endpoints {
		if x := n.nets[b.Endpoints[i].NetworkID]; x != nil {
			x.endpoints[b.ContainerID] = &b.Endpoints[i]
		}
	}
}

// claim enters the sandbox and its endpoints, so that nobody removes the networks; one that is removed meanwhile is told.
func (n *Networks) claim(b *box, places []*place) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if o := n.boxes[b.ContainerID]; o != nil && o != b {
		return fault.New(fault.Conflict, "container %s is being connected already", b.want.Name)
	}
	for _, p := range places {
		if n.nets[p.net.ID] != p.net {
			return fault.New(fault.NotFound, "network %s not found", p.net.Name)
		}
	}
	n.boxes[b.ContainerID], n.bySB[b.ID] = b, b
	n.showEndpoints(b)
	return nil
}

// file is the sandbox as it is written.
func (b *box) file(ready bool) sandboxFile {
	return sandboxFile{Ready: ready, Sandbox: b.Sandbox, Want: b.want, Keep: maps.Clone(b.keep)}
}

// undo takes away what a Join that failed has made.
func (j *join) undo(ctx context.Context) {
	n := j.n
	if j.box.ID != "" {
		n.withdraw(ctx, j.box, j.doors, j.names)
		for _, p := range j.places {
			if p.request.EndpointID == "" { // not tried
				continue
			}
			if err := p.net.driver.Leave(ctx, p.net.view, j.box.left(p.Endpoint, j.slot.ns, false)); err != nil {
				n.log.Error("a link stays of a container that did not start", "container", j.w.ContainerID, "network", p.net.Name, "err", err)
			}
		}
	}
	for _, p := range j.places {
		p.net.give(p.Endpoint)
	}
	if j.slot != nil {
		n.pool.drop(j.slot)
	}
	if j.wrote {
		if err := n.removeBox(j.w.ContainerID); err != nil {
			n.log.Error("a container that did not start stays on file", "container", j.w.ContainerID, "err", err)
		}
	}
}

// attach puts a container's link on a network into its namespace, with settings and addresses, up.
func (n *Networks) attach(ctx context.Context, b *box, p *place, ns *os.File, in *link.Conn, first bool) error {
	p.request = driver.Request{
		EndpointID: p.ID, SandboxID: b.ID, ContainerID: b.ContainerID, ContainerName: p.Container, Key: b.Key, NS: ns, In: in,
		Interface: p.Interface, MAC: p.hw, IPv4: p.IPv4, IPv6: p.IPv6, Gateway4: p.Gateway4, Gateway6: p.Gateway6, Default: first,
		Options: p.spec.Options, Rate: p.rate, Weight: p.weight,
	}
	if first {
		p.request.Ports = portsOf(b.Ports, p.NetworkID)
	}
	a, err := p.net.driver.Join(ctx, p.net.view, p.request)
	if err != nil {
		if p.net.Driver == "bridge" && fault.Is(err, fault.Conflict) {
			p.request = driver.Request{} // the link of that name is somebody else's: it is not to be taken back
		}
		return err
	}
	if len(a.Keep) > 0 {
		b.keep[p.ID] = a.Keep
	}
	p.Interface, p.HostLink, p.OnLink = a.Interface, a.HostLink, a.OnLink
	if a.Done {
		p.take(a)
		return nil
	}
	p.Gateway4, p.Gateway6 = a.Gateway4, a.Gateway6
	return n.configure(ns, in, p, a)
}

// take takes over what a driver that sets everything itself has chosen.
func (p *place) take(a driver.Attachment) {
	if !p.net.traits.Addresses {
		p.IPv4, p.IPv6 = a.IPv4, a.IPv6
	}
	if len(a.MAC) > 0 {
		p.MAC = a.MAC.String()
	}
	p.Gateway4, p.Gateway6 = a.Gateway4, a.Gateway6
}

// configure gives a link that is in the namespace its settings, addresses and routes and sets it up, in one batch.
func (n *Networks) configure(ns *os.File, in *link.Conn, p *place, a driver.Attachment) error {
	if err := netns.Do(ns, func() error { return p.settings(&n.settings, a.Interface) }); err != nil {
		return err
	}
	l, err := in.ByName(a.Interface)
	if err != nil {
		return err
	}
	if p.MAC == "" {
		p.MAC = l.MAC.String()
	}
	var ops []link.Op
	for _, ip := range []netip.Prefix{p.IPv4, p.IPv6} {
		if ip.IsValid() {
			ops = append(ops, link.AddAddress(l.Index, ip))
		}
	}
	for _, ip := range p.spec.LinkLocal {
		bits := 16
		if ip.Is6() {
			bits = 64
		}
		ops = append(ops, link.AddAddress(l.Index, netip.PrefixFrom(ip, bits)))
	}
	ops = append(ops, link.Set(l.Index, link.Change{Up: true}))
	for _, r := range a.Routes {
		ops = append(ops, link.AddRoute(link.Route{To: r.To, Via: r.Via, Index: l.Index}).OrExists())
	}
	return in.Do(ops...)
}

// settings writes those of a link that is not up yet; the calling thread is in the namespace. Without an IPv6 address it
// has no IPv6 at all, as in Docker.
func (p *place) settings(to *link.Settings, ifname string) error {
	six := [2]string{"net/ipv6/conf/" + ifname + "/disable_ipv6", "1"}
	if p.IPv6.IsValid() || slices.ContainsFunc(p.spec.LinkLocal, netip.Addr.Is6) {
		// We chose the addresses. While the kernel looks whether somebody else has them, for 2 s, it would ask for no
		// neighbour: the container's first connections would fail.
		six = [2]string{"net/ipv6/conf/" + ifname + "/accept_dad", "0"}
	}
	if err := to.Write(six); err != nil && !fault.Is(err, fault.NotFound) { // a kernel without IPv6
		return err
	}
	var more [][2]string
	for _, s := range p.sets {
		more = append(more, [2]string{s.path(ifname), s.value})
	}
	if p.mac != nil && p.IPv4.IsValid() { // others may remember another address of that IP's: ours follow from it
		more = append(more, [2]string{"net/ipv4/conf/" + ifname + "/arp_notify", "1"})
	}
	return to.Write(more...)
}

// route sets the default routes of a namespace: of each family, through the first endpoint that leads outside.
func (n *Networks) route(in *link.Conn, ordered []*place) error {
	var ops []link.Op
	for _, f := range []struct {
		all     netip.Prefix
		has     func(*place) bool
		gateway func(*place) netip.Addr
	}{
		{netip.PrefixFrom(netip.IPv4Unspecified(), 0), func(p *place) bool { return p.IPv4.IsValid() }, func(p *place) netip.Addr { return p.Gateway4 }},
		{netip.PrefixFrom(netip.IPv6Unspecified(), 0), func(p *place) bool { return p.IPv6.IsValid() }, func(p *place) netip.Addr { return p.Gateway6 }},
	} {
		i := slices.IndexFunc(ordered, func(p *place) bool { return f.has(p) && (f.gateway(p).IsValid() || p.OnLink) })
		if i < 0 {
			continue
		}
		p := ordered[i]
		l, err := in.ByName(p.Interface)
		if err != nil {
			return err
		}
		ops = append(ops, link.ReplaceRoute(link.Route{To: f.all, Via: f.gateway(p), Index: l.Index}))
	}
	return in.Do(ops...)
}
