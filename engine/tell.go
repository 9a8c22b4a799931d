package engine

import (
	"maps"
	"strconv"

	"berth/base/event"
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
