package engine

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/base/fault"
	"berth/engine/container"
	"berth/engine/store"
	"berth/network"
)

// Networks is what the engine needs of the network room.
type Networks interface {
	// Get finds a network by name, id or the beginning of an id.
	Get(ref string) (network.Network, error)
	// Check refuses what a start would refuse, as far as it can be known before.
	Check(w network.Want) (warnings []string, err error)
	// Join makes the container's network namespace with everything in it. When it fails, nothing is left.
	Join(ctx context.Context, w network.Want) (network.Sandbox, error)
	// Leave takes it away; addresses and ports are free when it returns. One that is not there is no error.
	Leave(ctx context.Context, containerID string) error
	// Sandbox gives the network of a running container.
	Sandbox(containerID string) (network.Sandbox, bool)
	// Connect and Disconnect change a running container's networks.
	Connect(ctx context.Context, w network.Want, s network.EndpointSpec) (network.Endpoint, error)
	Disconnect(ctx context.Context, containerID, ref string, force bool) error
	// Publish changes a running container's ports in one transaction.
	Publish(ctx context.Context, w network.Want, add, remove []network.PortSpec) ([]network.Port, error)
	// HandOver gives a running container's ports to another one in one transaction; no specs: all.
	HandOver(ctx context.Context, from string, to network.Want, specs []network.PortSpec) ([]network.Port, error)
	// Rename lets the container be found by another name.
	Rename(containerID, name string)
	// Recovered takes away what containers that do not run left.
	Recovered(runs func(containerID string) bool)
}

// leavePatience bounds how long the end of a container waits for its network to be given up: a plugin that hangs must not make it look
// alive. It is less than what a kill waits for the end.
const leavePatience = 8 * time.Second

// needsSandbox reports whether the engine makes a network namespace for the container: the kernel alone does for "none", and the others
// are somebody else's.
func needsSandbox(s *container.Spec) bool {
	return !s.Network.IsContainer() && s.Network.Name() != "host" && s.Network.Name() != "none"
}

// checkNetwork refuses settings that exclude each other or that no network can give, and completes the list of endpoints.
func (e *Engine) checkNetwork(s *container.Spec) ([]string, error) {
	if err := checkNetworkMode(s); err != nil {
		return nil, err
	}
	if !needsSandbox(s) {
		if len(s.Network.Endpoints) > 0 && s.Network.IsContainer() {
			return nil, fault.New(fault.Invalid, "conflicting options: network endpoints and the network mode")
		}
		return nil, nil
	}
	if e.networks == nil {
		return nil, fault.New(fault.NotImplemented, "this engine runs without networks; use --network none or host")
	}
	for _, l := range s.Network.Links {
		ref, _ := splitLink(l)
		target, err := e.index.find(ref)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "could not get container for %s", ref)
		}
		if target.record().Spec.Network.Name() == "host" {
			return nil, hostLinks()
		}
	}
	if err := e.completeEndpoints(s); err != nil {
		return nil, err
	}
	w, err := e.want(&container.Record{Spec: s})
	if err != nil {
		return nil, err
	}
	warnings, err := e.networks.Check(w)
	if fault.Is(err, fault.NotFound) {
		return nil, nil // the start refuses it: clients take "not found" in answer to a create for the image
	}
	return warnings, err
}

func hostLinks() error {
	return fault.New(fault.Invalid, "conflicting options: host type networking can't be used with links. This would result in undefined behavior")
}

func checkNetworkMode(s *container.Spec) error {
	n := &s.Network
	switch {
	case n.Name() == "none", n.Name() == "host":
		if n.MacAddress != "" {
			return fault.New(fault.Invalid, "conflicting options: mac-address and the network mode")
		}
	case n.IsContainer():
		for _, c := range []struct {
			set  bool
			what string
		}{
			{s.Hostname != "", "hostname"}, {len(n.DNS) > 0, "dns"}, {len(n.ExtraHosts) > 0, "custom host-to-IP mapping"}, {n.MacAddress != "", "mac-address"},
			{len(n.Ports) > 0 || n.PublishAll, "port publishing"}, {len(n.Links) > 0, "links"},
		} {
			if c.set {
				return fault.New(fault.Invalid, "conflicting options: %s and the container type network mode", c.what)
			}
		}
	}
	if n.Name() == "host" && len(n.Links) > 0 {
		return hostLinks()
	}
	for _, h := range n.ExtraHosts {
		if name, addr, ok := strings.Cut(h, ":"); !ok || name == "" || addr == "" {
			return fault.New(fault.Invalid, "bad format for add-host: %q", h)
		}
	}
	return nil
}

// completeEndpoints adds the endpoint that the network mode stands for, and gives it what was asked for beside the endpoints.
func (e *Engine) completeEndpoints(s *container.Spec) error {
	n := &s.Network
	main := -1
	all := slices.Clone(n.Endpoints)
	for i := range all {
		same, err := e.sameNetwork(all[i].Network, n.Name())
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		if same {
			main = i
		}
	}
	if main < 0 {
		all = append([]network.EndpointSpec{{Network: n.Name()}}, all...)
		main = 0
	}
	m := &all[main]
	m.MAC = cmp.Or(m.MAC, n.MacAddress)
	n.Endpoints = all
	return nil
}

// sameNetwork reports whether two references mean one network. The name of one that does not exist is refused by Check.
func (e *Engine) sameNetwork(a, b string) (bool, error) {
	if a == b {
		return true, nil
	}
	x, err := e.networks.Get(a)
	if err != nil {
		return false, err
	}
	y, err := e.networks.Get(b)
	if err != nil {
		return false, err
	}
	return x.ID == y.ID, nil
}

// want says what a container asks of networks.
func (e *Engine) want(r *container.Record) (network.Want, error) {
	s := r.Spec
	n := &s.Network
	w := network.Want{
		ContainerID: r.ID, Name: r.Name, Hostname: s.Hostname, Domainname: s.Domainname, Mode: n.Name(), Endpoints: slices.Clone(n.Endpoints), Ports: n.Ports,
		DNS: orElse(n.DNS, e.cfg.DNS), DNSSearch: orElse(n.DNSSearch, e.cfg.DNSSearch), DNSOpts: orElse(n.DNSOptions, e.cfg.DNSOptions),
		Sysctls: s.Security.Sysctls, Rate: n.Rate, Weight: n.Weight,
	}
	w.IDMap = r.IDMap
	if !n.PublishAll {
		return w, nil
	}
	for _, exposed := range s.ExposedPorts {
		ports, err := exposedPorts(exposed)
		if err != nil {
			return w, err
		}
		for _, p := range ports {
			if !slices.ContainsFunc(n.Ports, func(o network.PortSpec) bool { return o.Port == p.Port && o.Proto == p.Proto }) {
				w.Publish = append(w.Publish, p)
			}
		}
	}
	return w, nil
}

// exposedPorts reads "80", "80/tcp" or "8000-8010/udp".
func exposedPorts(text string) (all []network.PortSpec, err error) {
	ports, proto, _ := strings.Cut(text, "/")
	first, last, isRange := strings.Cut(ports, "-")
	if !isRange {
		last = first
	}
	from, err1 := strconv.ParseUint(first, 10, 16)
	to, err2 := strconv.ParseUint(last, 10, 16)
	if err1 != nil || err2 != nil || to < from {
		return nil, fault.New(fault.Invalid, "invalid range format for --expose: %s", text)
	}
	for p := from; p <= to; p++ {
		all = append(all, network.PortSpec{Port: uint16(p), Proto: cmp.Or(proto, "tcp")})
	}
	return all, nil
}

// joinNetworks makes the network of a run.
func (e *Engine) joinNetworks(ctx context.Context, r *container.Record) (network.Sandbox, error) {
	if !needsSandbox(r.Spec) {
		return network.Sandbox{}, nil
	}
	if e.networks == nil {
		return network.Sandbox{}, fault.New(fault.NotImplemented, "this engine runs without networks; the container wants %s", r.Spec.Network.Name())
	}
	w, err := e.want(r)
	if err != nil {
		return network.Sandbox{}, err
	}
	still := func() bool { return true }
	if r.UsernsOf != "" {
		donor, err := e.donor(r.UsernsOf, "user")
		if err != nil {
			return network.Sandbox{}, err
		}
		pid := donor.snapshot().State.Pid
		w.UserNS = nsPath(pid, "user")
		still = func() bool { return e.keeper.Holds(donor.id, pid) }
	}
	s, err := e.networks.Join(ctx, w)
	if err == nil && !still() { // the namespace may be that of whoever has the number now
		return network.Sandbox{}, errors.Join(fault.New(fault.Conflict, "failed to join user namespace: container %s is not running", r.UsernsOf), e.leaveNetworks(r))
	}
	if fault.Is(err, fault.Conflict) { // a port or an address that somebody has: Docker calls that an error of the server
		err = fault.Wrap(fault.Internal, err, "")
	}
	if err != nil {
		err = fault.In(err, "failed to set up container networking")
	}
	return s, err
}

// leaveNetworks gives the network of a run up.
func (e *Engine) leaveNetworks(r *container.Record) error {
	if e.networks == nil || !needsSandbox(r.Spec) {
		return nil
	}
	left := make(chan error, 1)
	e.work.Go(func() { left <- e.networks.Leave(context.Background(), r.ID) })
	late := time.NewTimer(leavePatience)
	defer late.Stop()
	select {
	case err := <-left:
		return err
	case <-late.C: // it goes on behind; the next start waits for it
		return fault.New(fault.Deadline, "the networks have not given container %s up within %s", r.ID, leavePatience)
	}
}

// liveSandbox gives the network that a run has now, for a container that was taken over.
func (e *Engine) liveSandbox(cid string) network.Sandbox {
	if e.networks == nil {
		return network.Sandbox{}
	}
	s, _ := e.networks.Sandbox(cid)
	return s
}

// ConnectNetwork puts a container on a further network, at once if it runs, and for all its starts to come.
func (e *Engine) ConnectNetwork(ctx context.Context, ref, containerRef string, s network.EndpointSpec) error {
	return e.changeNetwork(ctx, containerRef, "connect", func(c *entry, r *container.Record) error {
		n := &r.Spec.Network
		target, err := e.networks.Get(ref)
		switch {
		case err != nil:
			return err
		case target.Driver == "host" || n.Name() == "host":
			return fault.New(fault.Forbidden, "container cannot be disconnected from host network or connected to host network")
		case target.Driver == "null" || n.Name() == "none":
			return fault.New(fault.Forbidden, "container cannot be connected to multiple networks with one of the networks in private (none) mode")
		case n.IsContainer():
			return fault.New(fault.Forbidden, "container sharing network namespace with another container or host cannot be connected to any other network")
		}
		s.Network = ref
		for _, p := range n.Endpoints {
			same, err := e.sameNetwork(p.Network, ref)
			switch {
			case err != nil && !fault.Is(err, fault.NotFound):
				return err
			case same && e.liveOn(c, target.ID):
				return fault.New(fault.Forbidden, "endpoint with name %s already exists in network %s", r.Name, ref)
			}
		}
		n.Endpoints = append(e.without(n.Endpoints, ref), s)
		w, err := e.want(r)
		if err != nil {
			return err
		}
		if _, err := e.networks.Check(w); err != nil {
			return err
		}
		if !c.snapshot().State.Status.Alive() {
			return nil
		}
		_, err = e.networks.Connect(ctx, w, s)
		return err
	})
}

// DisconnectNetwork takes a container off a network. force also takes away what is left of a container that does not exist any more.
func (e *Engine) DisconnectNetwork(ctx context.Context, ref, containerRef string, force bool) error {
	if force && e.networks != nil {
		if _, err := e.index.find(containerRef); fault.Is(err, fault.NotFound) {
			return e.networks.Disconnect(ctx, containerRef, ref, true)
		}
	}
	return e.changeNetwork(ctx, containerRef, "disconnect", func(c *entry, r *container.Record) error {
		n := &r.Spec.Network
		if n.Name() == "host" {
			return fault.New(fault.Forbidden, "container cannot be disconnected from host network or connected to host network")
		}
		target, err := e.networks.Get(ref)
		if err != nil {
			return err
		}
		left := e.without(n.Endpoints, ref)
		if len(left) == len(n.Endpoints) && !e.liveOn(c, target.ID) {
			return fault.New(fault.Forbidden, "container %s is not connected to network %s", c.id, target.Name)
		}
		n.Endpoints = left
		if !e.liveOn(c, target.ID) {
			return nil
		}
		return e.networks.Disconnect(ctx, c.id, ref, force)
	})
}

// liveOn reports whether a container runs and is on a network now. That is not always what its record says: an engine may die between a
// change of the one and that of the other.
func (e *Engine) liveOn(c *entry, networkID string) bool {
	return c.snapshot().State.Status.Alive() && slices.ContainsFunc(e.liveSandbox(c.id).Endpoints, func(p network.Endpoint) bool { return p.NetworkID == networkID })
}

// without gives the endpoints that are not on the network.
func (e *Engine) without(all []network.EndpointSpec, ref string) (left []network.EndpointSpec) {
	for _, p := range all {
		if same, _ := e.sameNetwork(p.Network, ref); !same {
			left = append(left, p)
		}
	}
	return left
}

// PublishPorts publishes further ports of a container, or no longer, at once if it runs, and for all its starts to come.
func (e *Engine) PublishPorts(ctx context.Context, ref string, add, remove []network.PortSpec) ([]network.Port, error) {
	var now []network.Port
	err := e.changeNetwork(ctx, ref, "update the ports of", func(c *entry, r *container.Record) error {
		if !needsSandbox(r.Spec) {
			return fault.New(fault.Invalid, "container %s has no network of its own whose ports could be published (its network is %s)", r.Name, r.Spec.Network.Name())
		}
		n := &r.Spec.Network
		ports := slices.Clone(n.Ports)
		for _, gone := range remove {
			left := slices.DeleteFunc(slices.Clone(ports), func(p network.PortSpec) bool { return samePort(p, gone) })
			if len(left) == len(ports) {
				return fault.New(fault.NotFound, "container %s does not publish %d/%s", r.Name, gone.Port, gone.Proto)
			}
			ports = left
		}
		n.Ports = append(ports, add...)
		w, err := e.want(r)
		if err != nil {
			return err
		}
		if _, err := e.networks.Check(w); err != nil {
			return err
		}
		if !c.snapshot().State.Status.Alive() {
			return nil
		}
		now, err = e.networks.Publish(ctx, w, add, remove)
		return err
	})
	return now, err
}

// HandOverPorts gives published ports of a running container to another one that runs: there is no moment in which nobody answers, and
// connections stay where they are. No ports means all of them. It gives what the taker publishes then.
func (e *Engine) HandOverPorts(ctx context.Context, from, to string, ports []network.PortSpec) ([]network.Port, error) {
	if e.networks == nil {
		return nil, fault.New(fault.NotImplemented, "this engine runs without networks")
	}
	giver, err := e.index.find(from)
	if err != nil {
		return nil, err
	}
	taker, err := e.index.find(to)
	if err != nil {
		return nil, err
	}
	if giver == taker {
		return nil, fault.New(fault.Invalid, "a container cannot hand its ports over to itself")
	}
	first, second := giver, taker
	if first.id > second.id { // one order for all: two hand-overs may go opposite ways
		first, second = second, first
	}
	for _, c := range []*entry{first, second} {
		end, err := c.begin(ctx, "hand over the ports of")
		if err != nil {
			return nil, err
		}
		defer end()
	}
	for _, c := range []*entry{giver, taker} {
		if i := c.snapshot(); !i.State.Status.Alive() || !needsSandbox(i.Spec) {
			return nil, fault.New(fault.Conflict, "container %s does not run with a network of its own: ports are handed over between two that do", i.Name)
		}
	}
	w, err := e.want(taker.record())
	if err != nil {
		return nil, err
	}
	now, err := e.networks.HandOver(ctx, giver.id, w, ports)
	if err != nil {
		return nil, err
	}
	kept, moved := splitPorts(giver.record().Spec.Network.Ports, ports)
	return now, errors.Join(e.keepPorts(giver, kept), e.keepPorts(taker, append(slices.Clone(taker.record().Spec.Network.Ports), moved...)))
}

// splitPorts divides ports into those that are named and the rest; no names mean all.
func splitPorts(all, named []network.PortSpec) (rest, found []network.PortSpec) {
	for _, p := range all {
		if len(named) == 0 || slices.ContainsFunc(named, func(n network.PortSpec) bool { return samePort(p, n) }) {
			found = append(found, p)
		} else {
			rest = append(rest, p)
		}
	}
	return rest, found
}

// keepPorts writes what a running container publishes since a hand-over.
func (e *Engine) keepPorts(c *entry, ports []network.PortSpec) error {
	r, s := *c.record(), *c.record().Spec
	s.Network.Ports = ports
	r.Spec = &s
	if err := e.store.Write(&r); err != nil {
		return err
	}
	c.setRecord(&r)
	return e.networkChanged(c)
}

// samePort reports whether gone names the published port p: host address and host port only count where they are given.
func samePort(p, gone network.PortSpec) bool {
	return p.Port == gone.Port && p.Proto == gone.Proto && (!gone.HostIP.IsValid() || gone.HostIP == p.HostIP) &&
		(gone.HostFirst == 0 || gone.HostFirst == p.HostFirst)
}

// changeNetwork applies change to a copy of the container's record and keeps it. change also does it to a container that runs.
func (e *Engine) changeNetwork(ctx context.Context, ref, verb string, change func(*entry, *container.Record) error) error {
	if e.networks == nil {
		return fault.New(fault.NotImplemented, "this engine runs without networks")
	}
	c, err := e.index.find(ref)
	if err != nil {
		return err
	}
	end, err := c.begin(ctx, verb)
	if err != nil {
		return err
	}
	defer end()
	if err := c.mayChange(verb); err != nil {
		return err
	}
	r, s := *c.record(), *c.record().Spec
	r.Spec = &s
	if err := change(c, &r); err != nil {
		return err
	}
	// A running container has changed already. If the record cannot be written, its next start is as before, and the caller hears of it.
	if err := e.store.Write(&r); err != nil {
		return err
	}
	c.setRecord(&r)
	if c.snapshot().State.Status.Alive() && needsSandbox(&s) {
		return e.networkChanged(c)
	}
	return nil
}

// networkChanged shows a running container, and who inspects it, what it is connected to now.
func (e *Engine) networkChanged(c *entry) error {
	sandbox := e.liveSandbox(c.id)
	c.mu.Lock()
	c.run.sandbox = sandbox
	c.mu.Unlock()
	if err := e.writeEtc(c.record(), sandbox); err != nil {
		return err
	}
	return c.change(func(*store.Standing) error { return nil })
}
