package wire

import (
	"github.com/moby/moby/api/types/events"

	"berth/base/event"
)

// Event is one event as GET /events shows it at API version v.
func Event(e *event.Event, v Version) any {
	m := events.Message{
		Type: events.Type(e.Type), Action: events.Action(e.Action), Actor: events.Actor{ID: e.ID, Attributes: e.Attributes},
		Scope: "local", Time: e.Time.Unix(), TimeNano: e.Time.UnixNano(),
	}
	if m.Actor.Attributes == nil {
		m.Actor.Attributes = map[string]string{}
	}
	if v >= 52 || e.Type != "container" && e.Type != "image" {
		return &m
	}
	old := &legacyEvent{Message: &m, Status: e.Action, ID: e.ID}
	if e.Type == "container" {
		old.From = e.Attributes["image"]
	}
	return old
}

// legacyEvent has the fields that 1.22 deprecated and 1.52 dropped; clients until 25 need them.
type legacyEvent struct {
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
	*events.Message
}
