package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"berth/api/access"
	"berth/api/server/wire"
	"berth/base/fault"
	"berth/base/wait"
)

// Config wires a Server. Every room is an interface of the file that uses it; one that is nil answers 501.
type Config struct {
	Containers Containers
	Images     Images
	Transfer   Transfer
	Registries Registries
	Networks   Networks
	Volumes    Volumes
	Plugins    Plugins
	Builds     Builds    // of images
	BuildWire  BuildWire // BuildKit's protocol; nil, like Builds: images are not built
	Events     Events
	System     System
	Access     Accesses
	Trash      Trash     // nil: what is removed is gone
	Collector  Collector // of images; nil: there is none

	TrashWindow func() time.Duration // how long what is removed now can be restored; nil or 0: not at all

	Audit Audit // who hears of requests

	Checks []Checker      // the rooms beside Images that verify what they keep on disk
	Waits  *wait.Registry // where requests are noted while they go on, beside what else is under way; nil: nowhere

	// Authorizers gives the plugins that decide about requests, in their order; nil: nobody is asked. When it fails, nothing is allowed.
	Authorizers func(ctx context.Context) ([]Authorizer, error)

	About About

	Defaults wire.Defaults        // what the engine does where a container's specification says nothing
	Observe  func(Answered)       // hears of every request that had a route, after its answer; nil: nobody
	Traces   trace.TracerProvider // collects spans; nil: nobody
	// Reload reads the engine's configuration again and tells what differs; with apply, what can take effect does. nil: it cannot.
	Reload   func(apply bool) ([]Setting, error)
	Shutdown func() // begins the end: all containers stop, then the engine; it returns at once

	Log *slog.Logger
	Now func() time.Time
}

// Server answers both APIs. It is an http.Handler; Serve adds listeners with the limits that a socket needs.
type Server struct {
	cfg   Config
	log   *slog.Logger
	now   func() time.Time
	table *table
	rules map[string]access.Rule // of the routes, for policies and the audit log
	gate  *gate                  // of an access socket; nil: everything is allowed

	describes atomic.Pointer[About]

	base    context.Context // ends when nobody waits for requests any more; every request's context comes from it
	cut     context.CancelFunc
	leaving context.Context // ends when Shutdown begins: streams, which never end by themselves, watch it
	leave   context.CancelFunc
	http    *http.Server
	mu      sync.Mutex     // held while pumps grows or leave is called, so that nothing is added while it is waited for
	pumps   sync.WaitGroup // connections that were taken over
	serving sync.WaitGroup
}

// New makes a Server. It serves nothing yet.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg, log: cfg.Log, now: cfg.Now, table: newTable(routes()), rules: rules()}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.Describe(cfg.About)
	s.base, s.cut = context.WithCancel(context.Background())
	s.leaving, s.leave = context.WithCancel(s.base)
	s.http = &http.Server{
		Handler:           s,
		BaseContext:       func(l net.Listener) context.Context { return context.WithValue(s.base, socketKey{}, l.Addr()) },
		ConnContext:       withPeer,
		ReadHeaderTimeout: time.Minute,     // a client that dribbles its headers
		IdleTimeout:       5 * time.Minute, // between two requests; bodies and answers may take as long as they need
		MaxHeaderBytes:    256 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	return s
}

// Serve answers on l until Shutdown. It returns at once; an error that ends a listener is logged.
func (s *Server) Serve(l net.Listener) {
	s.serving.Go(func() {
		if err := s.http.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("a listener ended", "address", l.Addr().String(), "error", err)
		}
	})
}

// Shutdown stops listening, ends streams, lets other requests finish, and waits for both until ctx ends; then it cuts what is left.
// Containers do not notice.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.leave()
	s.mu.Unlock()
	err := s.http.Shutdown(ctx)
	s.cut()
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	s.pumps.Wait()
	s.serving.Wait()
	return err
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{w: w, r: r}
	defer s.survive(c)
	for _, check := range []func(*http.Request) error{wellFormed, ofBrowser} {
		if err := check(r); err != nil {
			s.audit(c, nil, codeOf(err), err, 0, false)
			s.fail(c, err)
			return
		}
	}
	if clean := cleanPath(r.URL.Path); clean != r.URL.Path {
		to := url.URL{Path: clean, RawQuery: r.URL.RawQuery}
		http.Redirect(w, r, to.String(), http.StatusMovedPermanently)
		return
	}
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusOK)
		return
	}
	var rest string
	c.asked, rest = splitVersion(routed(r.URL))
	found, name := s.table.find(r.Method, rest)
	if found == nil {
		s.audit(c, nil, http.StatusNotFound, nil, 0, false)
		_ = c.json(http.StatusNotFound, errorBody{"page not found"})
		return
	}
	name = strings.ReplaceAll(name, encodedSlash, "/")
	c.name = name
	h := w.Header()
	if len(r.TransferEncoding) > 0 {
		// net/http passes a length over where there are chunks as well. Who counted bytes takes what follows for another thing than we do,
		// so nothing may follow (RFC 9112, section 6.1).
		h.Set("Connection", "close")
	}
	h.Set("Server", "Berth/"+s.about().Version+" (linux)")
	h.Set("Api-Version", wire.Newest.String())
	h.Set("Ostype", "linux")
	s.attend(c, found)
}

func (s *Server) answer(c *call, to *route) error {
	c.v = wire.Newest
	if c.asked != "" {
		c.v = wire.ParseVersion(c.asked)
	}
	switch {
	case c.v < wire.Oldest:
		return fault.New(fault.Invalid, "client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", c.asked, wire.Oldest)
	case c.v > wire.Newest:
		return fault.New(fault.Invalid, "client version %s is too new. Maximum supported API version is %s", c.asked, wire.Newest)
	}
	experimental := "false"
	if s.about().Experimental {
		experimental = "true"
	}
	c.w.Header().Set("Docker-Experimental", experimental)
	var err error
	if c.q, err = url.ParseQuery(c.r.URL.RawQuery); err != nil {
		return fault.Wrap(fault.Invalid, err, "")
	}
	if s.gate != nil {
		if err := s.gate.admit(c, to); err != nil {
			return err
		}
	}
	if to.handle == nil && to.absent != "" {
		// `docker inspect NAME` asks every kind of thing for the name, and stops at any other answer than 404.
		return fault.New(fault.NotFound, to.absent+" (%s not in this build of Berth)", c.name, to.lacks)
	}
	if to.handle == nil && to.alone != "" {
		return c.json(http.StatusServiceUnavailable, errorBody{to.alone}) // no failure to log: clients ask every few seconds
	}
	if to.handle == nil {
		return fault.New(fault.NotImplemented, "%s not in this build of Berth", to.lacks)
	}
	if to.stream {
		ctx, cancel := context.WithCancel(c.r.Context())
		defer cancel()
		defer context.AfterFunc(s.leaving, cancel)()
		c.r = c.r.WithContext(ctx)
		s.audit(c, to, 0, nil, 0, true)
	}
	return s.carry(c, to)
}

// survive keeps one request's defect from taking the engine down.
func (s *Server) survive(c *call) {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler {
		panic(p)
	}
	s.log.Error("a request ended in a panic", "method", c.r.Method, "path", c.r.URL.Path, "panic", p, "stack", stack())
	if !c.began {
		_ = c.json(http.StatusInternalServerError, errorBody{"internal error: see the engine's log"})
		return
	}
	panic(http.ErrAbortHandler)
}
