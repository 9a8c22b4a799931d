package server

import (
	"errors"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/propagation"

	"berth/base/trace"
)

// Answered is one request that was answered, for who counts them.
type Answered struct {
	Method string
	Route  string // of the route table, "/containers/{name}/json": never a path, of which a stranger could send a million
	Code   int    // HTTP status
	Took   time.Duration
	Stream bool // it went on until somebody left: Took says nothing about the engine
}

// errDefect is what the audit log tells of a request that ended in a panic.
var errDefect = errors.New("internal error: see the engine's log")

// attend answers a request that has a route, as a span, and tells Observe.
func (s *Server) attend(c *call, to *route) {
	begun := s.now()
	end := s.span(c, to)
	under := s.waiting(c, to)
	answered := false
	defer func() {
		if !answered { // a panic is on its way, which survive sees to
			under.End()
			end(errDefect)
			s.audit(c, to, http.StatusInternalServerError, errDefect, s.now().Sub(begun), false)
		}
	}()
	err := s.answer(c, to)
	answered = true
	under.End()
	code := c.code
	switch {
	case err != nil && !c.began:
		code = codeOf(err)
	case code == 0: // the handler wrote without a word about the status
		code = http.StatusOK
	}
	end(err)
	if s.cfg.Observe != nil {
		s.cfg.Observe(Answered{Method: to.method, Route: to.path, Code: code, Took: s.now().Sub(begun), Stream: to.stream})
	}
	s.audit(c, to, code, err, s.now().Sub(begun), false)
	if err != nil {
		s.fail(c, err)
	}
}

// span begins the outermost span of a request, within the client's where its headers name one (W3C Trace Context).
func (s *Server) span(c *call, to *route) (end func(error)) {
	if s.cfg.Traces == nil {
		return func(error) {}
	}
	ctx := propagation.TraceContext{}.Extract(c.ctx(), propagation.HeaderCarrier(c.r.Header))
	ctx, end, recorded := trace.Root(ctx, s.cfg.Traces, to.method+" "+to.path)
	if recorded {
		trace.Add(ctx, "http.request.method", to.method, "http.route", to.path, "url.path", c.r.URL.Path, "user_agent.original", c.r.UserAgent(), "berth.name", c.name)
	}
	c.r = c.r.WithContext(ctx)
	return end
}

// about is what the engine tells of itself at the moment.
func (s *Server) about() *About {
	if s.gate != nil {
		return s.gate.plain.about()
	}
	return s.describes.Load()
}

// Describe replaces what the engine tells of itself, after its configuration was read again.
func (s *Server) Describe(a About) { s.describes.Store(&a) }
