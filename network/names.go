package network

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"berth/base/id"
	"berth/network/dns"
)

// resolver is what the room needs of the name server.
type resolver interface {
	Serve(context.Context, dns.Sandbox) error
	Drop(ctx context.Context, sandboxID string) error
	Recovered(context.Context) error
	Repark()
	Close() error
}

var _ dns.Names = (*Networks)(nil)

// openResolver serves the sandboxes of running containers again.
func (n *Networks) openResolver(ctx context.Context) error {
	var parker dns.Parker
	if n.cfg.Keeper != nil {
		parker = n.cfg.Keeper
	}
	s, err := dns.New(dns.Config{Names: n, Parker: parker, Log: n.log})
	if err != nil {
		return err
	}
	n.names = s
	for _, b := range n.boxes {
		if !b.Resolver {
			continue
		}
		if err := s.Serve(ctx, n.served(b.Sandbox, b.want, false)); err != nil {
			n.log.Warn("a running container finds no names", "container", b.ContainerID, "err", err)
		}
	}
	return nil
}

// served is a sandbox as the name server sees it.
func (n *Networks) served(s Sandbox, w Want, fresh bool) dns.Sandbox {
	servers, fromHost := n.upstream(w)
	d := dns.Sandbox{ID: s.ID, Key: s.Key, FromHost: fromHost, Options: w.DNSOpts, Fresh: fresh, Internal: true}
	for _, e := range s.Endpoints {
		if x := n.byID(e.NetworkID); x != nil && !x.Internal {
			d.Internal = false
		}
	}
	for _, a := range servers {
		d.Upstream = append(d.Upstream, netip.AddrPortFrom(a, 0))
	}
	return d
}

func (n *Networks) byID(networkID string) *entry {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.nets[networkID]
}

// upstream gives the servers for names that are not ours: the container's, the engine's, else the host's.
func (n *Networks) upstream(w Want) (list []netip.Addr, fromHost bool) {
	asked := w.DNS
	if len(asked) == 0 {
		asked = n.cfg.DNS
	}
	for _, s := range asked {
		if a, err := netip.ParseAddr(s); err == nil {
			list = append(list, a)
		}
	}
	if len(list) > 0 {
		return list, false
	}
	for _, p := range nameservers() {
		list = append(list, p.Addr())
	}
	return list, true
}

// resolves tells whether names are answered in the namespace of these endpoints: on all networks but the default one.
func resolves(places []*place) bool {
	return slices.ContainsFunc(places, func(p *place) bool { return p.net.traits.Names && !p.net.view.Default })
}

// Lookup gives the addresses of a name for a sandbox: its links first, then the names of containers on its networks; a
// name with the network's behind it, as in "web.mynet", asks for that network. All that have the name answer.
func (n *Networks) Lookup(sandboxID, name string) (v4, v6 []netip.Addr, known bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	b := n.bySB[sandboxID]
	if b == nil {
		return nil, nil, false
	}
	for _, e := range b.Endpoints {
		x := n.nets[e.NetworkID]
		if x == nil || x.view.Default {
			continue
		}
		bare := name
		if s, ok := strings.CutSuffix(name, "."+strings.ToLower(x.Name)); ok {
			bare = s
		}
		if target, ok := linked(e.Spec.Links, bare); ok {
			bare = target
		}
		for cid, o := range x.endpoints {
			if !o.named(cid, bare) {
				continue
			}
			known = true
			if o.IPv4.IsValid() {
				v4 = append(v4, o.IPv4.Addr())
			}
			if o.IPv6.IsValid() {
				v6 = append(v6, o.IPv6.Addr())
			}
		}
		if known {
			break // Docker asks network by network
		}
	}
	slices.SortFunc(v4, netip.Addr.Compare)
	slices.SortFunc(v6, netip.Addr.Compare)
	return v4, v6, known
}

// linked follows an endpoint's links: "container:alias" lets it find the container as alias.
func linked(links []string, name string) (string, bool) {
	for _, l := range links {
		target, alias, ok := strings.Cut(l, ":")
		if !ok {
			alias = target
		}
		if strings.EqualFold(alias, name) {
			return strings.ToLower(target), true
		}
	}
	return "", false
}

// named tells whether an endpoint has the name, which is lower case.
func (e *Endpoint) named(containerID, name string) bool {
	return containerID == name || slices.ContainsFunc(e.Names, func(s string) bool { return strings.EqualFold(s, name) })
}

// Reverse gives the name of the container that has an address on a network of the sandbox's.
func (n *Networks) Reverse(sandboxID string, a netip.Addr) (string, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	b := n.bySB[sandboxID]
	if b == nil {
		return "", false
	}
	for _, e := range b.Endpoints {
		x := n.nets[e.NetworkID]
		if x == nil || x.view.Default {
			continue
		}
		for cid, o := range x.endpoints {
			if o.IPv4.Addr() == a || o.IPv6.Addr() == a {
				if o.Container != "" {
					return o.Container + "." + x.Name, true
				}
				return id.Short(cid) + "." + x.Name, true
			}
		}
	}
	return "", false
}

// Rename lets a running container be found by another name.
func (n *Networks) Rename(containerID, name string) {
	n.mu.RLock()
	b := n.boxes[containerID]
	n.mu.RUnlock()
	if b == nil {
		return
	}
	b.changing.Lock()
	defer b.changing.Unlock()
	n.ports.Rename(containerID, name)
	n.mu.Lock()
	b.want.Name = name
	b.Endpoints = slices.Clone(b.Endpoints)
	for i := range b.Endpoints {
		e := &b.Endpoints[i]
		e.Container, e.Names = name, namesOf(b.want, e.Spec)
		if x := n.nets[e.NetworkID]; x != nil && x.endpoints[containerID] != nil {
			x.endpoints[containerID] = e
		}
	}
	f := b.file(true)
	n.mu.Unlock()
	if err := n.writeBox(f); err != nil {
		n.log.Warn("a container's new name is not kept over a restart", "container", containerID, "err", err)
	}
}
