package network

import (
	"context"
	"maps"
	"os"
	"slices"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/kernel/link"
)

// Connect puts a running container on one more network. w is what it wants now, for names and bandwidth.
func (n *Networks) Connect(ctx context.Context, w Want, s EndpointSpec) (Endpoint, error) {
	x, err := n.readOne(w, s)
	if err != nil {
		return Endpoint{}, err
	}
	b, end, err := n.change(w.ContainerID)
	if err != nil {
		return Endpoint{}, err
	}
	defer end()
	var used []string
	for _, e := range b.Endpoints {
		if e.NetworkID == x.net.ID {
			return Endpoint{}, fault.New(fault.Forbidden, "endpoint with name %s already exists in network %s", w.Name, x.net.Name)
		}
		used = append(used, e.Interface)
	}
	if x.net.traits.Single {
		return Endpoint{}, fault.New(fault.Forbidden, "container cannot be connected to network %s while it runs", x.net.Name)
	}
	j := &join{n: n, w: w, box: b}
	if err := j.settle([]wish{x}, used); err != nil {
		j.giveUp()
		return Endpoint{}, err
	}
	if err := n.plug(ctx, j, j.places[0]); err != nil {
		return Endpoint{}, fault.In(err, "failed to create endpoint %s on network %s", w.Name, x.net.Name)
	}
	n.cfg.emit("connect", &x.net.Network, map[string]string{"container": w.ContainerID})
	return j.places[0].Endpoint, nil
}

// giveUp gives the addresses of places back that came to nothing.
func (j *join) giveUp() {
	for _, p := range j.places {
		p.net.give(p.Endpoint)
	}
}

// plug makes the endpoint and leads routes, ports and names over it.
func (n *Networks) plug(ctx context.Context, j *join, p *place) error {
	b := j.box
	ns, in, err := b.open()
	if err != nil {
		j.giveUp()
		return err
	}
	defer ns.Close()
	defer in.Close()
	before := b.copy()
	ordered := j.ordered(n.placesOf(before))
	now := before.copy()
	now.want = j.w
	now.setEndpoints(ordered)
	if err := n.enter(b, now, p); err != nil {
		j.giveUp()
		return err
	}
	_ = failpoint.Hit("network/connect-written")
	err = n.attach(ctx, now, p, ns, in, p == ordered[0])
	if err == nil {
		now.setEndpoints(ordered)
		err = n.settleDown(ctx, before, now, ordered, in)
	}
	if err == nil {
		err = n.republish(ctx, now, gatesOf(ordered))
	}
	if err == nil {
		return n.put(b, now)
	}
	ctx = context.WithoutCancel(ctx)
	if serr := n.settleDown(ctx, now, before.copy(), n.placesOf(before), in); serr != nil {
		n.log.Error("a container's network is not as it was", "container", b.ContainerID, "err", serr)
	}
	if lerr := p.net.driver.Leave(ctx, p.net.view, now.left(p.Endpoint, ns, false)); lerr != nil {
		n.log.Error("a link stays of an endpoint that was not made", "container", b.ContainerID, "network", p.net.Name, "err", lerr)
	}
	n.mu.Lock()
	delete(p.net.endpoints, b.ContainerID)
	n.mu.Unlock()
	j.giveUp()
	if perr := n.put(b, before); perr != nil {
		n.log.Error("a sandbox's file is not as it was", "container", b.ContainerID, "err", perr)
	}
	return err
}

// enter writes that an endpoint is about to be made and shows it.
func (n *Networks) enter(b, now *box, p *place) error {
	n.mu.Lock()
	if n.nets[p.net.ID] != p.net {
		n.mu.Unlock()
		return fault.New(fault.NotFound, "network %s not found", p.net.Name)
	}
	e := p.Endpoint
	p.net.endpoints[b.ContainerID] = &e
	n.mu.Unlock()
	if err := n.writeBox(now.file(true)); err != nil {
		n.mu.Lock()
		delete(p.net.endpoints, b.ContainerID)
		n.mu.Unlock()
		return err
	}
	return nil
}

// settleDown leads routes, published ports and names of a sandbox over the endpoints that it has now. now's ports are set.
func (n *Networks) settleDown(ctx context.Context, before, now *box, ordered []*place, in *link.Conn) error {
	if in != nil {
		if err := n.route(in, ordered); err != nil {
			return err
		}
	}
	now.Ports = retarget(before.Ports, gatesOf(ordered))
	now.Resolver = before.Resolver || resolves(ordered)
	add, remove := difference(n.doors(now.ContainerID, before.Ports), n.doors(now.ContainerID, now.Ports))
	if err := n.changeDoors(ctx, add, remove); err != nil {
		return err
	}
	if err := n.tellPublishers(ctx, now, before.Ports, now.Ports, nil); err != nil {
		return err
	}
	if !now.Resolver {
		return nil
	}
	return n.names.Serve(ctx, n.served(now.Sandbox, now.want, !before.Resolver))
}

// republish publishes ports that the container wants and that were given up when it lost its last network that could.
func (n *Networks) republish(ctx context.Context, now *box, g gates) error {
	var missing []PortSpec
	for _, s := range slices.Concat(now.want.Ports, now.want.Publish) {
		if !slices.ContainsFunc(now.Ports, s.matches) {
			missing = append(missing, s)
		}
	}
	more, err := n.publish(ctx, now.want, g, missing)
	if err != nil || len(more) == 0 {
		return portError(err, now.want, g)
	}
	all := slices.Concat(now.Ports, more)
	err = n.changeDoors(ctx, n.doors(now.ContainerID, more), nil)
	if err == nil {
		err = n.tellPublishers(ctx, now, now.Ports, all, nil)
	}
	if err != nil {
		_ = n.changeDoors(ctx, nil, n.doors(now.ContainerID, more))
		n.ports.Release(ctx, keys(more)...)
		return portError(err, now.want, g)
	}
	now.Ports = all
	return nil
}

// difference tells what to add and to remove to come from one list to another.
func difference[T comparable](from, to []T) (add, remove []T) {
	for _, x := range to {
		if !slices.Contains(from, x) {
			add = append(add, x)
		}
	}
	for _, x := range from {
		if !slices.Contains(to, x) {
			remove = append(remove, x)
		}
	}
	return add, remove
}

// Disconnect takes a running container off a network. With force also what is left of one that nobody knows any more.
func (n *Networks) Disconnect(ctx context.Context, containerID, ref string, force bool) error {
	x, err := n.find(ref)
	if err != nil {
		return err
	}
	b, end, err := n.change(containerID)
	if err != nil && force { // by the name under which a list shows it
		b, end, err = n.change(n.containerNamed(x, containerID))
	}
	if err != nil {
		return fault.New(fault.Forbidden, "container %s is not connected to network %s", containerID, x.Name)
	}
	defer end()
	i := slices.IndexFunc(b.Endpoints, func(e Endpoint) bool { return e.NetworkID == x.ID })
	if i < 0 {
		return fault.New(fault.Forbidden, "container %s is not connected to network %s", containerID, x.Name)
	}
	if err := n.unplug(ctx, b, x, b.Endpoints[i]); err != nil {
		return err
	}
	n.cfg.emit("disconnect", &x.Network, map[string]string{"container": b.ContainerID})
	return nil
}

func (n *Networks) containerNamed(x *entry, name string) string {
	n.mu.RLock()
	defer n.mu.RUnlock()
	for cid, e := range x.endpoints {
		if e.Container == name {
			return cid
		}
	}
	return name
}

// unplug takes one endpoint away; the others take over what led over it.
func (n *Networks) unplug(ctx context.Context, b *box, x *entry, e Endpoint) error {
	ctx = context.WithoutCancel(ctx)
	before, now := b.copy(), b.copy()
	now.Endpoints = slices.DeleteFunc(slices.Clone(b.Endpoints), func(o Endpoint) bool { return o.ID == e.ID })
	ordered := n.placesOf(now)
	ns, in, err := b.open()
	if err == nil {
		defer ns.Close()
		defer in.Close()
	} else {
		ns, in = nil, nil
	}
	if x.driver != nil {
		if err := x.driver.Leave(ctx, x.view, before.left(e, ns, false)); err != nil {
			return err
		}
	}
	_ = failpoint.Hit("network/unplugged")
	if err := n.settleDown(ctx, before, now, ordered, in); err != nil {
		n.log.Error("a container's other networks do not take over", "container", b.ContainerID, "err", err)
	}
	gone, _ := difference(keys(now.Ports), keys(before.Ports))
	n.ports.Release(ctx, gone...)
	delete(now.keep, e.ID)
	now.want.Endpoints = slices.DeleteFunc(slices.Clone(now.want.Endpoints), func(s EndpointSpec) bool { return n.means(s.Network, x) })
	n.mu.Lock()
	delete(x.endpoints, b.ContainerID)
	n.mu.Unlock()
	x.give(e)
	return n.put(b, now)
}

// means tells whether a reference is to the network.
func (n *Networks) means(ref string, x *entry) bool {
	o, err := n.find(ref)
	return err == nil && o == x
}

// change takes a sandbox for a change; nobody else changes it until end.
func (n *Networks) change(containerID string) (b *box, end func(), err error) {
	n.mu.RLock()
	b = n.boxes[containerID]
	n.mu.RUnlock()
	if b == nil {
		return nil, nil, fault.New(fault.NotFound, "container %s has no network of its own", containerID)
	}
	b.changing.Lock()
	n.mu.RLock()
	same := n.boxes[containerID] == b
	n.mu.RUnlock()
	if !same {
		b.changing.Unlock()
		return nil, nil, fault.New(fault.NotFound, "container %s has no network of its own", containerID)
	}
	return b, b.changing.Unlock, nil
}

// copy is the sandbox as a value of its own, to be changed and put.
func (b *box) copy() *box {
	return &box{Sandbox: b.Sandbox, want: b.want, keep: maps.Clone(b.keep)}
}

// put makes the sandbox what now is, and writes it.
func (n *Networks) put(b, now *box) error {
	n.mu.Lock()
	b.Sandbox, b.want, b.keep = now.Sandbox, now.want, now.keep
	b.Endpoints = slices.Clone(b.Endpoints)
	n.showEndpoints(b)
	n.mu.Unlock()
	return n.writeBox(b.file(true))
}

// placesOf gives a sandbox's endpoints as places, the one with the default route first.
func (n *Networks) placesOf(b *box) (list []*place) {
	for _, e := range b.Endpoints {
		if x := n.byID(e.NetworkID); x != nil {
			list = append(list, &place{wish: wish{net: x, spec: e.Spec}, Endpoint: e})
		}
	}
	slices.SortStableFunc(list, byGateway)
	return list
}

// open opens the sandbox's namespace and a socket in it.
func (b *box) open() (*os.File, *link.Conn, error) {
	ns := b.openNS()
	if ns == nil {
		return nil, nil, fault.New(fault.Conflict, "the container's network namespace is gone")
	}
	in, err := link.DialIn(ns)
	if err != nil {
		ns.Close()
		return nil, nil, err
	}
	return ns, in, nil
}
