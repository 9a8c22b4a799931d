package upstream

import (
	"context"
	"net/http"
	"time"

	"berth/base/fault"
	"berth/registry/door"
)

const adminPrefix = "/berth/registry/v1/mirrors"

// Status is a source and how it does since the registry was started.
type Status struct {
	Source
	Fixed   bool      `json:"fixed,omitempty"` // part of the registry's settings
	Copies  int       `json:"copies"`          // repositories
	Hits    int64     `json:"hits"`            // answered from here
	Misses  int64     `json:"misses"`          // fetched, or not there
	Stale   int64     `json:"stale"`           // answered from here because the source failed
	Errors  int64     `json:"errors"`
	Bytes   int64     `json:"bytes"` // fetched
	Failed  time.Time `json:"failed,omitzero"`
	Message string    `json:"message,omitempty"` // what it failed with
}

// List gives the sources in the order in which they are asked.
func (c *Cache) List() []Status {
	c.mu.Lock()
	order, copies, fixed := c.order, map[string]int{}, map[string]bool{}
	for _, s := range c.copies {
		copies[s]++
	}
	for _, s := range c.fixed {
		fixed[s.Name] = true
	}
	c.mu.Unlock()
	list := []Status{}
	for _, s := range order {
		s.mu.Lock()
		st := Status{Source: s.Source, Fixed: fixed[s.Name], Copies: copies[s.Name], Hits: s.hits, Misses: s.misses, Stale: s.stale, Errors: s.errors, Bytes: s.bytes,
			Failed: s.failed, Message: s.reason}
		s.mu.Unlock()
		st.Password = ""
		st.Fresh = door.Duration(s.fresh())
		list = append(list, st)
	}
	return list
}

// Check asks a source whether it answers and takes our credentials.
func (c *Cache) Check(ctx context.Context, name string) error {
	c.mu.Lock()
	s := c.sources[name]
	c.mu.Unlock()
	if s == nil {
		return fault.New(fault.NotFound, "mirror %s is not known", name)
	}
	if s.Username != "" {
		_, _, err := s.client.Login(ctx, s.credentials())
		return err
	}
	return s.client.Ping(ctx, s.Registry)
}

// AdminHandler serves the routes that doc.go lists.
func (c *Cache) AdminHandler(d *door.Door) http.Handler {
	mux := http.NewServeMux()
	admin := func(pattern string, serve func(http.ResponseWriter, *http.Request)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if _, ok := d.Admin(w, r); ok {
				serve(w, r)
			}
		})
	}
	admin("GET "+adminPrefix, func(w http.ResponseWriter, r *http.Request) { door.Answer(w, http.StatusOK, c.List()) })
	admin("GET "+adminPrefix+"/{name}", func(w http.ResponseWriter, r *http.Request) {
		for _, s := range c.List() {
			if s.Name == r.PathValue("name") {
				door.Answer(w, http.StatusOK, s)
				return
			}
		}
		d.Fail(w, r, fault.New(fault.NotFound, "mirror %s is not known", r.PathValue("name")))
	})
	admin("PUT "+adminPrefix+"/{name}", func(w http.ResponseWriter, r *http.Request) {
		var s Source
		if !d.Body(w, r, &s) {
			return
		}
		if s.Name != "" && s.Name != r.PathValue("name") {
			d.Fail(w, r, fault.New(fault.Invalid, "the body names mirror %s, the path %s", s.Name, r.PathValue("name")))
			return
		}
		s.Name = r.PathValue("name")
		if err := c.Set(s); err != nil {
			d.Fail(w, r, err)
			return
		}
		door.Answer(w, http.StatusNoContent, nil)
	})
	admin("DELETE "+adminPrefix+"/{name}", func(w http.ResponseWriter, r *http.Request) {
		if err := c.Remove(r.PathValue("name")); err != nil {
			d.Fail(w, r, err)
			return
		}
		door.Answer(w, http.StatusNoContent, nil)
	})
	admin("POST "+adminPrefix+"/{name}/check", func(w http.ResponseWriter, r *http.Request) {
		err := c.Check(r.Context(), r.PathValue("name"))
		if fault.Is(err, fault.NotFound) {
			d.Fail(w, r, err)
			return
		}
		answer := map[string]any{"answers": err == nil}
		if err != nil {
			answer["message"] = err.Error()
		}
		door.Answer(w, http.StatusOK, answer)
	})
	return mux
}
