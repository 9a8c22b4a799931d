package server

import (
	"expvar"
	"net/http"
	"net/http/pprof"

	"berth/base/fault"
)

// debugging lets a handler run while the engine is told to debug. Otherwise there is no such page, as in Docker: a profile shows memory.
func debugging(h handler) handler {
	return func(s *Server, c *call) error {
		if !s.about().Debug {
			return fault.New(fault.NotFound, "page not found (start the engine with --debug, or set \"debug\": true and reload it)")
		}
		return h(s, c)
	}
}

// debugVars shows the process's counters.
func debugVars(_ *Server, c *call) error { return c.handOver(expvar.Handler()) }

// debugIndex lists the profiles.
func debugIndex(_ *Server, c *call) error {
	c.r.URL.Path = "/debug/pprof/" // the package looks at the path, which may begin with a version
	return c.handOver(http.HandlerFunc(pprof.Index))
}

// debugProfile makes one profile, for `go tool pprof`.
func debugProfile(_ *Server, c *call) error {
	switch c.name {
	case "cmdline":
		return c.handOver(http.HandlerFunc(pprof.Cmdline))
	case "profile":
		return c.handOver(http.HandlerFunc(pprof.Profile))
	case "symbol":
		return c.handOver(http.HandlerFunc(pprof.Symbol))
	case "trace":
		return c.handOver(http.HandlerFunc(pprof.Trace))
	}
	return c.handOver(pprof.Handler(c.name))
}

// handOver lets somebody else's handler answer.
func (c *call) handOver(h http.Handler) error {
	c.began = true
	h.ServeHTTP(c.w, c.r)
	return nil
}
