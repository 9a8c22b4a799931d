package network

import (
	"slices"
	"strings"

	"berth/kernel/link"
)

// sweepLinks deletes what no sandbox has of the links on our bridges and those with our marks: left by a life of the
// engine that was killed between giving a sandbox up and the kernel's destroying its namespace.
func (n *Networks) sweepLinks() {
	links, err := n.conn.Links()
	if err != nil {
		n.log.Warn("links of containers that are gone are not seen", "err", err)
		return
	}
	n.mu.RLock()
	var used, ids, bridges []string
	for _, b := range n.boxes {
		for _, e := range b.Endpoints {
			used = append(used, e.HostLink, e.ID)
		}
	}
	for _, x := range n.nets {
		ids = append(ids, x.ID)
		if x.Driver == "bridge" {
			bridges = append(bridges, x.view.Bridge)
		}
	}
	n.mu.RUnlock()
	var ours []int // our bridges
	for _, l := range links {
		if slices.Contains(bridges, l.Name) && strings.HasPrefix(l.Alias, "berth ") {
			ours = append(ours, l.Index)
		}
	}
	for _, l := range links {
		port := l.Kind == "veth" && strings.HasPrefix(l.Name, "veth") && len(l.Name) == 11 && slices.Contains(ours, l.Master) && !slices.Contains(used, l.Name)
		if port || orphan(l, ids, used) {
			if err := n.conn.Do(link.Delete(l.Index).IfThere()); err != nil {
				n.log.Error("a link of a container that is gone stays", "link", l.Name, "err", err)
			}
		}
	}
}

// orphan tells whether a link carries our mark, "berth NETWORK ENDPOINT", of an endpoint that is no more.
func orphan(l link.Info, networks, used []string) bool {
	f := strings.Fields(l.Alias)
	return len(f) == 3 && f[0] == "berth" && slices.Contains(networks, f[1]) && !slices.Contains(used, f[2])
}
