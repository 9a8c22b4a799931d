package server

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"berth/api/server/wire"
	"berth/base/event"
	"berth/base/fault"
	"berth/base/ref"
)

// Events is where the door listens.
type Events interface {
	Subscribe(ctx context.Context, since, until time.Time, match func(event.Event) bool) *event.Subscription
	Publish(e event.Event)
}

// eventFilters are the filters of GET /events.
var eventFilters = []string{"config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret", "service", "type", "volume"}

// events sends what happens as one JSON text after the other, first what is remembered since the moment asked for.
func events(s *Server, c *call) error {
	since, err := c.instant("since")
	if err != nil {
		return err
	}
	until, err := c.instant("until")
	if err != nil {
		return err
	}
	if !until.IsZero() && until.Before(since) {
		return fault.New(fault.Invalid, "`since` time (%s) cannot be after `until` time (%s)", c.text("since"), c.text("until"))
	}
	filters, err := c.filters(eventFilters...)
	if err != nil {
		return err
	}
	if s.cfg.Events == nil {
		return fault.New(fault.NotImplemented, "events are not in this build of Berth")
	}
	if !until.IsZero() && since.IsZero() && until.Before(s.now()) {
		since = time.Unix(0, 1) // all that is remembered until then
	}
	kind := negotiate(c.r.Header.Values("Accept"))
	feed := s.cfg.Events.Subscribe(c.ctx(), since, until, func(e event.Event) bool {
		return (c.v >= 46 || e.Type != "image" || e.Action != "create") && matchEvent(e, filters)
	})
	defer feed.Close()
	c.w.Header().Set("Content-Type", kind)
	c.begin(http.StatusOK)
	flush := http.NewResponseController(c.w).Flush
	_ = flush()
	enc := json.NewEncoder(c.w)
	enc.SetEscapeHTML(false)
	for {
		e, ok := feed.Next(c.ctx())
		if !ok {
			return nil
		}
		if kind == "application/json-seq" {
			if _, err := c.w.Write([]byte{0x1e}); err != nil { // RFC 7464: a record separator before each
				return nil
			}
		}
		if enc.Encode(wire.Event(&e, c.v)) != nil || flush() != nil {
			return nil
		}
	}
}

// negotiate picks the form of the stream. Docker calls the default JSON although it is a line each.
func negotiate(accept []string) string {
	for _, line := range accept {
		for _, part := range strings.Split(line, ",") {
			kind, _, _ := strings.Cut(part, ";")
			switch kind = strings.TrimSpace(kind); kind {
			case "application/x-ndjson", "application/jsonl", "application/json-seq", "application/json":
				return kind
			}
		}
	}
	return "application/json"
}

// matchEvent applies the filters; each one that is there must fit, with any of its values.
func matchEvent(e event.Event, filters map[string][]string) bool {
	for name, values := range filters {
		if len(values) == 0 {
			continue
		}
		fits := false
		switch name {
		case "event":
			// "exec_create: sh -c true" is also found as "exec_create".
			short, _, _ := strings.Cut(e.Action, ":")
			fits = slices.Contains(values, e.Action) || slices.Contains(values, short)
		case "type":
			fits = slices.Contains(values, e.Type)
		case "scope":
			fits = slices.Contains(values, "local")
		case "label":
			fits = hasAll(e.Attributes, values)
		case "image":
			fits = slices.ContainsFunc(values, func(v string) bool { return matchImageEvent(e, v) })
		default: // container, network, volume, …: by what an id or name begins with, whatever it is the id or name of, as in Docker
			fits = slices.ContainsFunc(values, func(v string) bool {
				return strings.HasPrefix(e.ID, v) || strings.HasPrefix(e.Attributes["name"], strings.TrimPrefix(v, "/"))
			})
		}
		if !fits {
			return false
		}
	}
	return true
}

// matchImageEvent fits an image's own events and those of containers made from it, with or without a tag.
func matchImageEvent(e event.Event, want string) bool {
	id, name := e.ID, e.Attributes["name"]
	if e.Type != "image" {
		id, name = "", e.Attributes["image"]
	}
	if want == id && id != "" || want == name {
		return true
	}
	r, err := ref.Parse(name)
	return err == nil && r.FamiliarName() == want
}
