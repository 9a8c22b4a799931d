package server

import (
	"net/http"

	"berth/api/access"
	"berth/base/fault"
)

// Accesses is what the door asks of who keeps access sockets.
type Accesses interface {
	Create(p access.Policy) (access.Socket, error)
	Get(name string) (access.Socket, error)
	List() []access.Socket
	Remove(name string) error
	// Log gives the last n entries of the audit log, of one socket or (name "") of all.
	Log(name string, n int) ([]access.Entry, error)
}

// needAccess refuses what an engine without access sockets cannot do.
func needAccess(h func(a Accesses, c *call) error) handler {
	return func(s *Server, c *call) error {
		if s.cfg.Access == nil {
			return fault.New(fault.NotImplemented, "access sockets are not in this build of Berth")
		}
		return h(s.cfg.Access, c)
	}
}

func accessList(a Accesses, c *call) error {
	return c.json(http.StatusOK, struct {
		Sockets []access.Socket `json:"sockets"`
	}{a.List()})
}

func accessCreate(a Accesses, c *call) error {
	var p access.Policy
	if err := c.strict(&p); err != nil {
		return err
	}
	one, err := a.Create(p)
	if err != nil {
		return err
	}
	c.made = one.Name
	return c.json(http.StatusCreated, one)
}

func accessInspect(a Accesses, c *call) error {
	one, err := a.Get(c.name)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, one)
}

func accessRemove(a Accesses, c *call) error {
	if err := a.Remove(c.name); err != nil {
		return err
	}
	return c.done(http.StatusNoContent)
}

// accessLog gives the audit log's last lines.
func accessLog(a Accesses, c *call) error {
	n := 100
	switch asked, err := c.number("tail"); {
	case err != nil:
		return err
	case asked != nil && *asked > 0:
		n = min(*asked, 10000)
	}
	entries, err := a.Log(c.text("name"), n)
	if err != nil {
		return err
	}
	if entries == nil {
		entries = []access.Entry{}
	}
	return c.json(http.StatusOK, struct {
		Entries []access.Entry `json:"entries"`
	}{entries})
}
