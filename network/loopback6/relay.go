package loopback6

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"berth/base/fault"
	"berth/kernel/sock"
)

// Door is a port of the host and what is behind it.
type Door struct {
	Proto     string         // "tcp" or "udp"
	Socket    *os.File       // bound to the port; a TCP socket need not listen yet. It stays the caller's
	Target    netip.AddrPort // the container's
	AnyClient bool           // serve all clients; else those on the host's loopback only
}

// Relay serves doors.
type Relay struct {
	log  *slog.Logger
	wait sync.WaitGroup // of everything that serves

	mu    sync.Mutex // guards doors
	doors map[string]*served
}

// served is a door that is open.
type served struct {
	Door
	log  *slog.Logger
	sock io.Closer          // our copy of the door's socket
	stop context.CancelFunc // of what serves it

	mu    sync.Mutex             // guards conns
	conns map[io.Closer]struct{} // what shut has to close; nil afterwards
}

// New makes a Relay without doors; a nil log is the default one.
func New(log *slog.Logger) *Relay {
	return &Relay{log: cmp.Or(log, slog.Default()), doors: map[string]*served{}}
}

// Open serves a door under a name of the caller's, until Shut or Close. A door of that name that is open is shut first. Invalid: the socket is
// none of the protocol.
func (r *Relay) Open(name string, d Door) error {
	s := &served{Door: d, log: r.log, conns: map[io.Closer]struct{}{}}
	serve, err := s.start()
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "serve %s for %s", d.Proto, d.Target)
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	r.mu.Lock()
	before := r.doors[name]
	r.doors[name] = s
	r.wait.Go(func() { serve(ctx) })
	r.mu.Unlock()
	before.shut()
	return nil
}

// Shut ends a door and its connections. One that is not open is no error.
func (r *Relay) Shut(name string) {
	r.mu.Lock()
	s := r.doors[name]
	delete(r.doors, name)
	r.mu.Unlock()
	s.shut()
}

// Close shuts all doors and waits until nothing serves any more.
func (r *Relay) Close() error {
	r.mu.Lock()
	doors := r.doors
	r.doors = map[string]*served{}
	r.mu.Unlock()
	for _, s := range doors {
		s.shut()
	}
	r.wait.Wait()
	return nil
}

func (s *served) shut() {
	if s == nil {
		return
	}
	s.stop()
	s.sock.Close()
	s.mu.Lock()
	conns := s.conns
	s.conns = nil
	s.mu.Unlock()
	for c := range conns {
		c.Close()
	}
}

// start takes a copy of the socket and says how it is served.
func (s *served) start() (serve func(context.Context), err error) {
	switch s.Proto {
	case "tcp":
		l, err := sock.Listen(s.Socket)
		if err != nil {
			return nil, err
		}
		s.sock = l
		return func(ctx context.Context) { s.accept(ctx, l) }, nil
	case "udp":
		u, err := sock.Hear(s.Socket)
		if err != nil {
			return nil, err
		}
		s.sock = u
		return func(context.Context) { s.datagrams(u) }, nil
	}
	return nil, errors.New("unknown protocol")
}

// accept serves a TCP door.
func (s *served) accept(ctx context.Context, l *net.TCPListener) {
	var all sync.WaitGroup
	defer all.Wait()
	for {
		client, err := l.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // no descriptors left, most likely: those who wait can wait a little
			s.log.Warn("a published port cannot take connections", "port", l.Addr().String(), "error", err)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				return
			}
			continue
		}
		if !s.welcome(client.RemoteAddr()) {
			client.SetLinger(0)
			client.Close()
			continue
		}
		all.Go(func() { s.carry(ctx, client) })
	}
}

// welcome reports whether a client is served.
func (s *served) welcome(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return s.AnyClient || ok && t.IP.IsLoopback()
}

// dialTime is how long a container may take to accept.
const dialTime = 10 * time.Second

// carry connects a client with the container until both have ended.
func (s *served) carry(ctx context.Context, client *net.TCPConn) {
	defer s.track(client)()
	d := net.Dialer{Timeout: dialTime}
	c, err := d.DialContext(ctx, "tcp", s.Target.String())
	if err != nil {
		client.SetLinger(0) // the client learns of it by a reset, as from the container itself
		return
	}
	container := c.(*net.TCPConn)
	defer s.track(container)()
	var back sync.WaitGroup
	back.Go(func() { half(client, container) })
	half(container, client)
	back.Wait()
}

// half carries one direction and passes its end on.
func half(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		to.SetLinger(0)
		from.SetLinger(0)
		to.Close() // one that was reset is of no use to the other direction
		from.Close()
		return
	}
	to.CloseWrite()
}

// track notes a connection, so that shut ends it; what it gives closes it.
func (s *served) track(c io.Closer) (done func()) {
	s.mu.Lock()
	if s.conns == nil {
		c.Close() // the door was shut meanwhile
	} else {
		s.conns[c] = struct{}{}
	}
	s.mu.Unlock()
	return func() {
		c.Close()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}
}
