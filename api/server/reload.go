package server

import (
	"net/http"

	"berth/base/fault"
)

// Setting is one key of daemon.json that differs from what is in force.
type Setting struct {
	Key  string
	Old  string // JSON; "" it was not there
	New  string // JSON; "" it is not there any more
	Live bool   // it takes effect at once; otherwise when the engine starts again, which containers do not notice
}

// reloadPlan tells what a reload would change.
func reloadPlan(s *Server, c *call) error { return s.reload(c, false) }

// reload reads the configuration again, as SIGHUP does.
func reload(s *Server, c *call) error { return s.reload(c, true) }

func (s *Server) reload(c *call, apply bool) error {
	if s.cfg.Reload == nil {
		return fault.New(fault.NotImplemented, "reading the configuration again is not in this build of Berth")
	}
	all, err := s.cfg.Reload(apply)
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "")
	}
	return c.json(http.StatusOK, all)
}
