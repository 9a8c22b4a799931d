package session

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	bksession "github.com/moby/buildkit/session"

	"berth/base/fault"
)

// Caller is the builder's end of a session, in the type that BuildKit's library takes.
type Caller = bksession.Caller

// Group names sessions of which any will do. NewGroup makes one.
type Group = bksession.Group

// NewGroup makes a group of session ids, asked in this order.
func NewGroup(ids ...string) Group { return bksession.NewGroup(ids...) }

// IDs lists the ids of a group; nil has none.
func IDs(g Group) []string { return bksession.AllSessionIDs(g) }

// Patience is how long Get and Any wait for a session that is not there yet: a client dials its session and its build at the
// same time.
const Patience = 5 * time.Second

// Headers of a session, as BuildKit's clients send them.
const (
	headerID               = "X-Docker-Expose-Session-Uuid"
	headerName             = "X-Docker-Expose-Session-Name"
	headerSharedKey        = "X-Docker-Expose-Session-Sharedkey"
	headerSharedKeyEncoded = "X-Docker-Expose-Session-Sharedkey-Encoded"
	headerMethod           = "X-Docker-Expose-Session-Grpc-Method"
	headerHealth           = "X-Buildkit-Session-Health-Custom-Timeout" // milliseconds
)

// maxSessions bounds what clients can keep open at one engine.
const maxSessions = 1024

// Manager finds sessions by id. It is safe for concurrent use.
type Manager struct {
	log  *slog.Logger
	salt []byte // of this process; what clients prove to us they cannot prove to the next one

	mu       sync.Mutex // guards what follows; held for memory only
	sessions map[string]*caller
	came     chan struct{} // closed and replaced when a session comes
	closed   bool
}

// NewManager makes a manager without sessions. A nil log logs nothing.
func NewManager(log *slog.Logger) *Manager {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	salt := make([]byte, 32)
	_, _ = rand.Read(salt) // never fails
	return &Manager{log: log, salt: salt, sessions: map[string]*caller{}, came: make(chan struct{})}
}

// HandleHTTP takes a request to POST /session over and serves the session until it ends. An error means that nothing was
// written: the handler answers.
func (m *Manager) HandleHTTP(ctx context.Context, w http.ResponseWriter, r *http.Request) error {
	switch proto := r.Header.Get("Upgrade"); {
	case proto == "":
		return fault.New(fault.Invalid, "no upgrade proto in request")
	case !strings.EqualFold(proto, "h2c"):
		return fault.New(fault.Invalid, "protocol %s not supported", proto)
	}
	c, err := m.admit(r.Header)
	if err != nil {
		return err
	}
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		m.leave(c)
		return fault.New(fault.Internal, "handler does not support hijack")
	}
	conn, buffered, err := hijacker.Hijack()
	if err != nil {
		m.leave(c)
		return fault.In(err, "failed to hijack connection")
	}
	// The client may send the first bytes of HTTP/2 only after the answer: what is buffered is nothing, or a client in a hurry.
	_ = conn.SetDeadline(time.Time{})
	if _, err := conn.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")); err != nil {
		m.leave(c)
		_ = conn.Close()
		m.log.Debug("session: client went away before it began", "err", err)
		return nil
	}
	if n := buffered.Reader.Buffered(); n > 0 {
		head, _ := buffered.Reader.Peek(n)
		conn = &prefixed{Conn: conn, head: slices.Clone(head)}
	}
	m.serve(ctx, c, conn)
	return nil
}

// HandleConn serves a session over a connection that somebody else has made, until it ends. headers are those of the stream.
func (m *Manager) HandleConn(ctx context.Context, conn net.Conn, headers map[string][]string) error {
	h := http.Header{}
	for k, v := range headers {
		h[http.CanonicalHeaderKey(k)] = v
	}
	c, err := m.admit(h)
	if err != nil {
		return err
	}
	m.serve(ctx, c, conn)
	return nil
}

// Get gives a session, and waits up to Patience for one that is not there yet. NotFound means that it did not come. What stands before a
// colon in the id is somebody's mark and no part of it.
func (m *Manager) Get(ctx context.Context, id string) (Caller, error) {
	if _, rest, ok := strings.Cut(id, ":"); ok && rest != "" {
		id = rest
	}
	if id == "" {
		return nil, fault.New(fault.NotFound, "no active sessions")
	}
	timer := time.NewTimer(Patience)
	defer timer.Stop()
	for {
		c, came := m.find(id)
		if c != nil {
			return c, nil
		}
		if came == nil {
			return nil, fault.New(fault.Unavailable, "the builder is closing")
		}
		select {
		case <-came:
		case <-timer.C:
			return nil, fault.New(fault.NotFound, "no active session for %s: context deadline exceeded", id)
		case <-ctx.Done():
			return nil, fault.In(context.Cause(ctx), "no active session for %s", id)
		}
	}
}

// find gives the session, or else what is closed when another one comes; both are nil after Close.
func (m *Manager) find(id string) (*caller, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.sessions[id]; c != nil && c.conn != nil {
		return c, nil
	}
	if m.closed {
		return nil, nil
	}
	return nil, m.came
}

// Any calls f with the sessions of a group, one after another, until it succeeds with one, and gives the last error else. The context
// that f gets ends with the session too.
func (m *Manager) Any(ctx context.Context, g Group, f func(ctx context.Context, id string, c Caller) error) error {
	last := fault.New(fault.NotFound, "no active sessions")
	for _, id := range IDs(g) {
		if err := m.one(ctx, id, f); err == nil {
			return nil
		} else if last = err; ctx.Err() != nil {
			return last
		}
	}
	return last
}

func (m *Manager) one(ctx context.Context, id string, f func(ctx context.Context, id string, c Caller) error) error {
	c, err := m.Get(ctx, id)
	if err != nil {
		return err
	}
	// Context gives one that ends when either side does; it needs an end of its own, or it would stay for the session's life.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return f(c.Context(ctx), id, c)
}

// Sessions lists the ids of the sessions that are there, sorted.
func (m *Manager) Sessions() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	ids := make([]string, 0, len(m.sessions))
	for id, c := range m.sessions {
		if c.conn != nil {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Close ends all sessions and lets none in any more.
func (m *Manager) Close() error {
	m.mu.Lock()
	m.closed = true
	close(m.came)
	m.came = make(chan struct{})
	list := make([]*caller, 0, len(m.sessions))
	for _, c := range m.sessions {
		list = append(list, c)
	}
	m.mu.Unlock()
	for _, c := range list {
		c.end(fault.New(fault.Unavailable, "the builder is closing"))
	}
	return nil
}

// validID reports whether an id may be one: clients use 25 letters and digits. It stands in logs and in keys.
func validID(id string) bool {
	if id == "" || len(id) > 128 || id[0] == '.' || id[0] == '-' {
		return false
	}
	for i := range len(id) {
		switch b := id[i]; {
		case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b >= '0' && b <= '9', b == '_', b == '.', b == '-':
		default:
			return false
		}
	}
	return true
}

// admit reads a session's headers and reserves its id.
func (m *Manager) admit(h http.Header) (*caller, error) {
	id := h.Get(headerID)
	if !validID(id) {
		return nil, fault.New(fault.Invalid, "invalid session id %q", id)
	}
	c := &caller{id: id, name: h.Get(headerName), sharedKey: h.Get(headerSharedKey), methods: map[string]bool{}, health: healthOf(h)}
	if on, err := strconv.ParseBool(h.Get(headerSharedKeyEncoded)); err == nil && on {
		if plain, err := url.QueryUnescape(c.sharedKey); err == nil {
			c.sharedKey = plain
		}
	}
	for _, method := range h[headerMethod] {
		c.methods[strings.ToLower(method)] = true
	}
	c.ctx, c.end = context.WithCancelCause(context.Background())
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return nil, fault.New(fault.Unavailable, "the builder is closing")
	case m.sessions[id] != nil:
		return nil, fault.New(fault.Conflict, "session %s already exists", id)
	case len(m.sessions) >= maxSessions:
		return nil, fault.New(fault.Unavailable, "there are %d sessions already", maxSessions)
	}
	m.sessions[id] = c
	return c, nil
}

func (m *Manager) leave(c *caller) {
	m.mu.Lock()
	delete(m.sessions, c.id)
	m.mu.Unlock()
	c.end(nil)
}

// serve lets a session be found until it ends: with the connection, with ctx, or with the client's health.
func (m *Manager) serve(ctx context.Context, c *caller, conn net.Conn) {
	m.serveFound(ctx, c, conn, make(chan struct{}))
}

// serveFound closes found when the session can be found, or never will.
func (m *Manager) serveFound(ctx context.Context, c *caller, conn net.Conn, found chan<- struct{}) {
	announce := sync.OnceFunc(func() { close(found) })
	defer announce()
	defer m.leave(c)
	stop := context.AfterFunc(ctx, func() { c.end(context.Cause(ctx)) })
	defer stop()
	watched := &watched{Conn: conn, gone: func(err error) { c.end(fault.Wrap(fault.Cancelled, err, "session %s ended", c.id)) }}
	defer watched.Close()
	cc, err := dial(watched)
	if err != nil {
		m.log.Warn("session cannot be used", "session", c.id, "err", err)
		return
	}
	defer cc.Close()
	m.mu.Lock()
	c.conn = cc
	if m.closed {
		c.end(fault.New(fault.Unavailable, "the builder is closing"))
	}
	close(m.came)
	m.came = make(chan struct{})
	m.mu.Unlock()
	announce()
	cc.Connect()
	c.watchHealth(m.log)
}
