package engine

import (
	"maps"

	"berth/base/event"
)

// tell publishes that action happened to c, with Docker's attributes: the labels, image and name, then extra.
func (e *Engine) tell(c *entry, action string, extra map[string]string) {
	i := c.snapshot()
	attrs := make(map[string]string, len(i.Spec.Labels)+len(extra)+2)
	maps.Copy(attrs, i.Spec.Labels)
	attrs["image"] = i.Spec.Image
	attrs["name"] = i.Name
	maps.Copy(attrs, extra)
	e.events.Publish(event.Event{Type: "container", Action: action, ID: c.id, Attributes: attrs})
}
