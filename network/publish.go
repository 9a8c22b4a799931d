package network

import (
	"context"
	"slices"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/network/port"
)

// Publish changes the published ports of a running container in one transaction of the firewall. It gives all ports that
// are published then.
func (n *Networks) Publish(ctx context.Context, w Want, add, remove []PortSpec) ([]Port, error) {
	for _, s := range add {
		if err := checkPort(s); err != nil {
			return nil, err
		}
	}
	b, end, err := n.change(w.ContainerID)
	if err != nil {
		return nil, err
	}
	defer end()
	before := b.copy()
	var left, gone []Port
	for _, p := range before.Ports {
		if slices.ContainsFunc(remove, func(s PortSpec) bool { return s.matches(p) }) {
			gone = append(gone, p)
		} else {
			left = append(left, p)
		}
	}
	for _, s := range remove {
		if !slices.ContainsFunc(gone, s.matches) {
			return nil, fault.New(fault.NotFound, "port %d/%s is not published by container %s", s.Port, s.Proto, w.Name)
		}
	}
	g := gatesOf(n.placesOf(before))
	if len(add) > 0 && g.none() {
		return nil, fault.New(fault.Invalid, "container %s is on no network that can publish ports", w.Name)
	}
	more, err := n.publish(ctx, w, g, add)
	if err != nil {
		return nil, portError(err, w, g)
	}
	now := before.copy()
	now.want, now.Ports = w, slices.Concat(left, more)
	if err := n.swap(ctx, b, before, now); err != nil {
		n.ports.Release(context.WithoutCancel(ctx), keys(more)...)
		return nil, portError(err, w, g)
	}
	n.ports.Release(ctx, keys(gone)...)
	return slices.Clone(now.Ports), nil
}

// matches tells whether a published port is one that the spec names. A spec without host address or host port means any.
func (s PortSpec) matches(p Port) bool {
	return s.Port == p.Port && s.Proto == p.Proto && (!s.HostIP.IsValid() || s.HostIP == p.HostIP) &&
		(s.HostFirst == 0 || p.HostPort >= s.HostFirst && p.HostPort <= max(s.HostFirst, s.HostLast))
}

// swap changes a sandbox's ports in the firewall. The file says both sets meanwhile, so that the next engine, after a
// crash, holds every port that may be led to the container.
func (n *Networks) swap(ctx context.Context, b, before, now *box) error {
	add, remove := difference(n.doors(b.ContainerID, before.Ports), n.doors(b.ContainerID, now.Ports))
	if slices.Equal(before.Ports, now.Ports) {
		return nil
	}
	both := now.copy()
	both.Ports = union(before.Ports, now.Ports)
	if err := n.writeBox(both.file(true)); err != nil {
		return err
	}
	_ = failpoint.Hit("network/publish-written")
	err := n.changeDoors(ctx, add, remove)
	if err == nil {
		if err = n.tellPublishers(ctx, now, before.Ports, now.Ports, nil); err != nil {
			_ = n.changeDoors(ctx, remove, add)
		}
	}
	if err != nil {
		if werr := n.writeBox(before.file(true)); werr != nil {
			n.log.Error("a sandbox's file is not as it was", "container", b.ContainerID, "err", werr)
		}
		return err
	}
	return n.put(b, now)
}

func union[T comparable](a, b []T) []T {
	more, _ := difference(a, b)
	return slices.Concat(a, more)
}

// HandOver gives published ports of one running container to another, in one transaction of the firewall: there is no
// moment in which nobody answers, and connections that exist stay where they are. specs name the ports; none means all.
// The other container's port of the same number gets the traffic.
func (n *Networks) HandOver(ctx context.Context, from string, to Want, specs []PortSpec) ([]Port, error) {
	if from == to.ContainerID {
		return nil, fault.New(fault.Invalid, "a container cannot hand its ports over to itself")
	}
	giver, taker, end, err := n.both(from, to.ContainerID)
	if err != nil {
		return nil, err
	}
	defer end()
	g := gatesOf(n.placesOf(taker))
	gnow, tnow := giver.copy(), taker.copy()
	tnow.want = to
	var moved []Port
	gnow.Ports = nil
	for _, p := range giver.Ports {
		if len(specs) > 0 && !slices.ContainsFunc(specs, func(s PortSpec) bool { return s.matches(p) }) {
			gnow.Ports = append(gnow.Ports, p)
			continue
		}
		moved = append(moved, p)
	}
	for _, s := range specs {
		if !slices.ContainsFunc(moved, s.matches) {
			return nil, fault.New(fault.NotFound, "port %d/%s is not published by container %s", s.Port, s.Proto, giver.want.Name)
		}
	}
	arrived := retarget(moved, g)
	if len(arrived) != len(moved) || len(moved) == 0 {
		return nil, fault.New(fault.Conflict, "container %s cannot take the ports over: it has no address that they could lead to", to.Name)
	}
	tnow.Ports = slices.Concat(taker.Ports, arrived)
	if err := n.handOver(ctx, giver, gnow, taker, tnow, moved, arrived); err != nil {
		return nil, err
	}
	return slices.Clone(tnow.Ports), nil
}

func (n *Networks) handOver(ctx context.Context, giver, gnow, taker, tnow *box, moved, arrived []Port) error {
	old := taker.copy()
	if err := n.writeBox(tnow.file(true)); err != nil { // for a moment both have them; the next engine would settle it
		return err
	}
	_ = failpoint.Hit("network/handover-written")
	holder := port.Holder{ID: taker.ContainerID, Name: tnow.want.Name}
	err := n.ports.Move(giver.ContainerID, holder, keys(moved)...)
	if err == nil {
		err = n.changeDoors(ctx, n.doors(taker.ContainerID, arrived), n.doors(giver.ContainerID, moved))
		if err != nil {
			_ = n.ports.Move(taker.ContainerID, port.Holder{ID: giver.ContainerID, Name: giver.want.Name}, keys(moved)...)
		}
	}
	if err != nil {
		if werr := n.writeBox(old.file(true)); werr != nil {
			n.log.Error("a sandbox's file is not as it was", "container", taker.ContainerID, "err", werr)
		}
		return err
	}
	if err := n.put(giver, gnow); err != nil {
		return err
	}
	return n.put(taker, tnow)
}

// both takes two sandboxes for a change, in the order of their ids.
func (n *Networks) both(a, b string) (x, y *box, end func(), err error) {
	if a > b {
		y, x, end, err = n.both(b, a)
		return x, y, end, err
	}
	x, endX, err := n.change(a)
	if err != nil {
		return nil, nil, nil, err
	}
	y, endY, err := n.change(b)
	if err != nil {
		endX()
		return nil, nil, nil, err
	}
	return x, y, func() { endY(); endX() }, nil
}

// settleDoubles gives a port that two sandboxes' files name, after a hand-over that a crash cut short, to the one that was
// to take it: its file is the younger, since the giver's is written last.
func (n *Networks) settleDoubles() {
	by := map[port.Key]*box{}
	for _, b := range n.boxes {
		for _, k := range keys(b.Ports) {
			o := by[k]
			by[k] = b
			if o == nil {
				continue
			}
			giver := o
			if o.written.After(b.written) {
				giver, by[k] = b, o
			}
			giver.Ports = slices.DeleteFunc(slices.Clone(giver.Ports), func(p Port) bool {
				return p.HostPort == k.Port && p.HostIP == k.IP && p.Proto == k.Proto
			})
		}
	}
}
