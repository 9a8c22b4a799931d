package network

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"berth/base/atomicfile"
	"berth/base/failpoint"
	"berth/base/fault"
)

// Remove removes a network that no running container is on: its links and rules first, its file last, so that a removal
// that a crash cut short can be asked for again.
func (n *Networks) Remove(ctx context.Context, ref string) error {
	end, err := n.turn(ctx)
	if err != nil {
		return err
	}
	defer end()
	x, err := n.find(ref)
	if err != nil {
		return err
	}
	if slices.Contains(predefined, x.Name) {
		return fault.New(fault.Forbidden, "%s is a pre-defined network and cannot be removed", x.Name)
	}
	if err := n.unused(x); err != nil {
		return err
	}
	n.unmake(ctx, x)
	n.releasePools(ctx, x)
	_ = failpoint.Hit("network/unmade")
	if err := atomicfile.Remove(n.networkPath(x.ID)); err != nil {
		n.mu.Lock()
		n.nets[x.ID] = x
		n.mu.Unlock()
		return fault.In(err, "remove network %s", x.Name)
	}
	n.cfg.emit("destroy", &x.Network, nil)
	return nil
}

// unused takes a network that nobody uses out of the room, so that nobody joins it from now on, or says who does.
func (n *Networks) unused(x *entry) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if x.ConfigOnly {
		for _, o := range n.nets {
			if o.ConfigFrom == x.Name {
				return fault.New(fault.Forbidden, "configuration network %q is in use", x.Name)
			}
		}
	}
	if len(x.endpoints) > 0 {
		list := slices.SortedFunc(maps.Values(x.endpoints), func(a, b *Endpoint) int { return cmp.Compare(a.Container, b.Container) })
		var who []string
		for _, e := range list {
			who = append(who, fmt.Sprintf("name:%q id:%q", e.Container, e.ID[:12]))
		}
		return fault.New(fault.Forbidden, "error while removing network: network %s has active endpoints (%s)", x.Name, strings.Join(who, ", "))
	}
	delete(n.nets, x.ID)
	return nil
}
