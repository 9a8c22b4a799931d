package network

import (
	"context"
	"errors"

	"berth/base/fault"
)

// Shutdown takes away what the room has on the host: rules, bridges, spare namespaces. It is for an engine that ends with all its
// containers; the networks themselves stay, and the next Open makes them again. The room is closed then.
func (n *Networks) Shutdown(ctx context.Context) error {
	end, err := n.turn(ctx)
	if err != nil {
		return err
	}
	defer end()
	n.mu.RLock()
	busy := len(n.boxes)
	n.mu.RUnlock()
	if busy > 0 {
		return fault.New(fault.Conflict, "%d containers still have a network", busy)
	}
	for _, x := range n.sorted() {
		switch x.Driver {
		case "bridge", "macvlan", "ipvlan": // what a plugin has made is its own matter
			n.unmake(ctx, x)
		}
	}
	if n.rules != nil {
		err = n.rules.Remove(ctx)
	}
	return errors.Join(err, n.closeAll())
}
