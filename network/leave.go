package network

import (
	"context"
	"errors"
	"sync"
	"time"

	"berth/base/failpoint"
	"berth/kernel/netns"
	"berth/network/driver"
)

// Leave takes away the network of a container that has ended. Its names, addresses and ports are free when it returns;
// what the kernel is slow at goes on behind. A container without network is no error.
func (n *Networks) Leave(ctx context.Context, containerID string) error {
	n.mu.RLock()
	b := n.boxes[containerID]
	n.mu.RUnlock()
	if b == nil {
		return nil
	}
	b.changing.Lock()
	defer b.changing.Unlock()
	n.mu.RLock()
	gone := n.boxes[containerID] != b
	endpoints := b.Endpoints
	n.mu.RUnlock()
	if gone {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	ns := b.openNS()
	var errs []error
	if err := n.tellPublishers(ctx, b, b.Ports, nil, nil); err != nil {
		n.log.Warn("a plugin was not told that ports are published no more", "container", containerID, "err", err)
	}
	for _, e := range endpoints {
		if x := n.byID(e.NetworkID); x != nil && x.driver != nil {
			errs = append(errs, x.driver.Leave(ctx, x.view, b.left(e, ns, true)))
		}
	}
	if ns != nil {
		ns.Close()
	}
	_ = failpoint.Hit("network/cut")
	n.withdraw(ctx, b, true, b.Resolver)
	errs = append(errs, netns.Remove(b.Key))
	_ = failpoint.Hit("network/unmounted")
	for _, e := range endpoints {
		if e.HostLink == driver.HostLink(e.ID) { // one that our drivers made; what a plugin's is, the plugin removes
			n.reaper.add(e.HostLink)
		}
		x := n.byID(e.NetworkID)
		if x == nil {
			continue
		}
		x.give(e)
		n.cfg.emit("disconnect", &x.Network, map[string]string{"container": containerID})
	}
	return errors.Join(append(errs, n.removeBox(containerID))...)
}

// withdraw takes back what others see of a sandbox: published ports, names, the endpoints themselves.
func (n *Networks) withdraw(ctx context.Context, b *box, doorsOpen, served bool) {
	if doorsOpen {
		if err := n.changeDoors(ctx, nil, n.doors(b.ContainerID, b.Ports)); err != nil {
			n.log.Error("rules of ports that are published no more stay", "container", b.ContainerID, "err", err)
		}
	}
	n.ports.Release(ctx, keys(b.Ports)...)
	if served && n.names != nil {
		if err := n.names.Drop(ctx, b.ID); err != nil {
			n.log.Warn("the name server keeps a sandbox", "sandbox", b.ID, "err", err)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.boxes[b.ContainerID] != b {
		return
	}
	delete(n.boxes, b.ContainerID)
	delete(n.bySB, b.ID)
	for i := range b.Endpoints {
		if x := n.nets[b.Endpoints[i].NetworkID]; x != nil {
			delete(x.endpoints, b.ContainerID)
		}
	}
}

// recoverPatience bounds how long the engine's start waits for plugins.
const recoverPatience = 10 * time.Second

// Recovered is told, once, which containers run, when the engine has found out. The sandboxes of the others, which died
// with a former engine or were being made or taken away as it did, are taken away.
func (n *Networks) Recovered(running func(containerID string) bool) {
	n.mu.RLock()
	var stale []string
	for cid := range n.boxes {
		if !running(cid) {
			stale = append(stale, cid)
		}
	}
	n.mu.RUnlock()
	var wg sync.WaitGroup
	turns := make(chan struct{}, 4)
	for _, cid := range stale {
		wg.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			if err := n.Leave(context.Background(), cid); err != nil {
				n.log.Error("the network of a container that is gone is not all taken away", "container", cid, "err", err)
			}
		})
	}
	left := make(chan struct{})
	go func() { wg.Wait(); close(left) }()
	select {
	case <-left:
	case <-time.After(recoverPatience): // a plugin does not answer; each call to it has an end of its own
		n.log.Warn("networks of containers that are gone are still being taken away; the engine does not wait for it")
	}
	if n.names != nil {
		if err := n.names.Recovered(context.Background()); err != nil {
			n.log.Warn("the name server's sockets of containers that are gone stay in the keeper", "err", err)
		}
	}
	n.sweepLinks()
	n.collect()
}

// collect tells drivers that keep attachments outside of the engine, as CNI plugins do, which of them are of use.
func (n *Networks) collect() {
	for _, x := range n.sorted() {
		c, ok := x.driver.(interface {
			GC(context.Context, driver.Network, []driver.Left) error
		})
		if !ok || x.broken != nil || x.ConfigOnly {
			continue
		}
		if err := c.GC(context.Background(), x.view, n.leftOf(x)); err != nil {
			n.log.Warn("a network's plugins do not forget what is gone", "network", x.Name, "err", err)
		}
	}
}
