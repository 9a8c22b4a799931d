package server

import (
	"context"
	"net"
	"net/http"
	"time"

	"golang.org/x/sys/unix"

	"berth/api/access"
)

// Audit says who hears of requests.
type Audit struct {
	Write func(access.Entry)
	All   bool // requests on every socket; else those on access sockets
}

// audits tells whether this server's requests are written down.
func (s *Server) audits() bool {
	return s.cfg.Audit.Write != nil && (s.gate != nil || s.cfg.Audit.All)
}

// peer is who is at the other end of a connection.
type peer struct {
	cred   *unix.Ucred // of a unix socket
	local  string
	remote string // of TCP
}

type peerKey struct{}

// socketKey finds the net.Addr that a connection's listener gives itself.
type socketKey struct{}

// withPeer remembers who connects: once a connection was taken over, it may be closed before anybody asks.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	p := &peer{local: conn.LocalAddr().Network() + "://" + conn.LocalAddr().String()}
	if u, ok := conn.(*net.UnixConn); ok {
		// The kernel tells the name that the socket was made under, not the one that it was renamed to.
		if socket, ok := ctx.Value(socketKey{}).(net.Addr); ok {
			p.local = "unix://" + socket.String()
		}
		if raw, err := u.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { p.cred, _ = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
		}
	} else {
		p.remote = conn.RemoteAddr().String()
	}
	return context.WithValue(ctx, peerKey{}, p)
}

// audit writes a request down. to is nil where no route was found; begun: it goes on.
func (s *Server) audit(c *call, to *route, code int, err error, took time.Duration, begun bool) {
	if !s.audits() {
		return
	}
	e := access.Entry{
		Time: s.now(), Method: c.r.Method, Path: c.r.URL.Path, Object: c.name, Status: code, Decision: access.Allowed, TookMS: took.Milliseconds(),
		Agent: c.r.UserAgent(), API: c.asked, Begun: begun,
	}
	if c.r.RequestURI != "" && c.r.URL.RawPath != "" {
		e.Original = c.r.RequestURI
	}
	if _, rest := splitVersion(e.Path); c.asked != "" {
		e.Path = rest
	}
	if to != nil {
		e.Verb = s.rules[to.method+" "+to.path].Verb
	}
	if c.made != "" {
		e.Object = c.made
	}
	if err != nil {
		e.Reason = err.Error()
	}
	if code == http.StatusForbidden || to == nil {
		e.Decision = access.Denied
	}
	if s.gate != nil {
		e.Socket = s.gate.policy.Name
	}
	if p, ok := c.r.Context().Value(peerKey{}).(*peer); ok {
		e.Remote = p.remote
		if s.gate == nil {
			e.Where = p.local
		}
		if p.cred != nil {
			e.UID, e.GID, e.PID = &p.cred.Uid, &p.cred.Gid, p.cred.Pid
		}
	}
	if t := c.r.TLS; t != nil && len(t.PeerCertificates) > 0 {
		e.User = t.PeerCertificates[0].Subject.String()
	}
	s.cfg.Audit.Write(e)
}
