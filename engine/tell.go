package engine

import (
	"maps"
	"strconv"
	"strings"

	"berth/base/event"
	"berth/base/ref"
	"berth/engine/container"
)

// tell publishes that action happened to c, with Docker's attributes: the labels, image and name, then extra.
func (e *Engine) tell(c *entry, action string, extra map[string]string) {
	if c.hidden {
		return
	}
	i := c.snapshot()
	attrs := make(map[string]string, len(i.Spec.Labels)+len(extra)+2)
	maps.Copy(attrs, i.Spec.Labels)
	attrs["image"] = i.Spec.Image
	attrs["name"] = i.Name
	maps.Copy(attrs, extra)
	e.events.Publish(event.Event{Type: "container", Action: action, ID: c.id, Attributes: attrs})
}

// pruneEvent says how much a prune has freed.
func pruneEvent(reclaimed int64) event.Event {
	return event.Event{Type: "container", Action: "prune", Attributes: map[string]string{"reclaimed": strconv.FormatInt(reclaimed, 10)}}
}

// tellVolumes publishes that a container's volumes were mounted, or are no longer.
func (e *Engine) tellVolumes(r *container.Record, action string) {
	for _, m := range r.MountPoints() {
		if m.Type != "volume" {
			continue
		}
		attrs := map[string]string{"container": r.ID, "driver": m.Driver}
		if action == "mount" {
			attrs["destination"], attrs["propagation"], attrs["read/write"] = m.Destination, m.Propagation, strconv.FormatBool(m.RW)
		}
		e.events.Publish(event.Event{Type: "volume", Action: action, ID: m.Name, Attributes: attrs})
	}
}

// tellNetwork publishes that a container came to one of the networks that are only a name, "none" or "host", or left it. Of the others the
// network room tells.
func (e *Engine) tellNetwork(r *container.Record, action string) {
	if e.networks == nil || r.Spec.Plugin != "" || r.Spec.Network.IsContainer() || needsSandbox(r.Spec) {
		return
	}
	n, err := e.networks.Get(r.Spec.Network.Name())
	if err != nil {
		return
	}
	e.events.Publish(event.Event{Type: "network", Action: action, ID: n.ID, Attributes: map[string]string{"container": r.ID, "name": n.Name, "type": n.Driver}})
}

// commandText is a command as Docker has it in an exec's events: the program, a space, its arguments.
func commandText(cmd []string) string {
	if len(cmd) == 0 {
		return ""
	}
	return cmd[0] + " " + strings.Join(cmd[1:], " ")
}

// familiar is a reference as people write it.
func familiar(text string) string {
	if r, err := ref.Parse(text); err == nil && text != "" {
		return r.Familiar()
	}
	return text
}
