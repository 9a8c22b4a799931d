package ldap

import (
	"context"
	"errors"
	"net"
	"net/url"
	"sync"
	"time"

	ldapv3 "github.com/go-ldap/ldap/v3"

	"berth/base/fault"
)

const (
	maxIdle = 4                // connections of the service account that wait for work
	idleFor = 5 * time.Minute  // servers and firewalls cut what is idle for longer
	restFor = 30 * time.Second // how long a server that did not answer is asked last
)

// pool gives connections to a directory's servers.
type pool struct {
	config *Config

	mu      sync.Mutex
	idle    []idleConn // bound with the service account
	resting map[string]time.Time
	closed  bool
}

type idleConn struct {
	*ldapv3.Conn
	since time.Time
}

// service runs a search with a connection that is bound with the service account. A connection that had broken while it
// was idle is replaced, and the search run again.
func (p *pool) service(ctx context.Context, search func(*ldapv3.Conn) error) error {
	for {
		conn, used := p.take()
		if conn == nil {
			var err error
			if conn, err = p.dial(ctx); err != nil {
				return err
			}
			if err := p.bindService(ctx, conn); err != nil {
				conn.Close()
				return err
			}
		}
		err := within(ctx, conn, func() error { return search(conn) })
		if !broken(err) {
			p.give(conn)
			return err
		}
		conn.Close()
		if !used || ctx.Err() != nil {
			return unavailable(ctx, err)
		}
	}
}

// dial connects to the first server that answers; those that lately did not are tried last.
func (p *pool) dial(ctx context.Context) (*ldapv3.Conn, error) {
	var failures []error
	for _, server := range p.order() {
		conn, err := p.connect(ctx, server)
		p.note(server, err)
		if err == nil {
			return conn, nil
		}
		failures = append(failures, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, unavailable(ctx, errors.Join(failures...))
}

func (p *pool) order() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var good, resting []string
	for _, u := range p.config.URLs {
		if time.Now().Before(p.resting[u]) {
			resting = append(resting, u)
		} else {
			good = append(good, u)
		}
	}
	return append(good, resting...)
}

func (p *pool) note(server string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		delete(p.resting, server)
		return
	}
	p.resting[server] = time.Now().Add(restFor)
	if p.config.Log != nil {
		p.config.Log.Warn("directory server does not answer", "directory", p.config.Name, "server", server, "error", err)
	}
}

func (p *pool) connect(ctx context.Context, server string) (*ldapv3.Conn, error) {
	u, err := url.Parse(server)
	if err != nil {
		return nil, err
	}
	tls, err := p.config.tls(u.Hostname())
	if err != nil {
		return nil, fault.In(err, "%s", server)
	}
	dialer := &net.Dialer{Timeout: p.config.timeout()}
	if end, ok := ctx.Deadline(); ok {
		dialer.Deadline = end
	}
	conn, err := ldapv3.DialURL(server, ldapv3.DialWithDialer(dialer), ldapv3.DialWithTLSConfig(tls))
	if err != nil {
		return nil, fault.In(err, "%s", server)
	}
	conn.SetTimeout(p.config.timeout())
	if p.config.StartTLS && u.Scheme == "ldap" {
		if err := within(ctx, conn, func() error { return conn.StartTLS(tls) }); err != nil {
			conn.Close()
			return nil, fault.In(err, "%s: StartTLS", server)
		}
	}
	return conn, nil
}

func (p *pool) bindService(ctx context.Context, conn *ldapv3.Conn) error {
	if p.config.BindDN == "" {
		return nil // anonymous, as the connection begins
	}
	password, err := p.config.password()
	if err == nil {
		err = within(ctx, conn, func() error { return conn.Bind(p.config.BindDN, password) })
	}
	if err != nil {
		return unavailable(ctx, fault.In(err, "bind %s", p.config.BindDN))
	}
	return nil
}

func (p *pool) take() (*ldapv3.Conn, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.idle) > 0 {
		last := p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		if !last.IsClosing() && time.Since(last.since) < idleFor {
			return last.Conn, true
		}
		last.Close()
	}
	return nil, false
}

func (p *pool) give(conn *ldapv3.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || conn.IsClosing() || len(p.idle) >= maxIdle {
		conn.Close()
		return
	}
	p.idle = append(p.idle, idleConn{conn, time.Now()})
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, c := range p.idle {
		c.Close()
	}
	p.idle = nil
}

// within runs an operation, which knows no context, and closes its connection when the context ends before it.
func within(ctx context.Context, conn *ldapv3.Conn, op func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	return op()
}

// broken reports whether the connection, and not the request, is what failed.
func broken(err error) bool {
	var answer *ldapv3.Error
	if fault.Is(err, fault.Unavailable) || !errors.As(err, &answer) {
		return false // somebody's answer already: of the check of the password, on a connection of its own
	}
	switch answer.ResultCode {
	case ldapv3.ErrorNetwork, ldapv3.ErrorUnexpectedMessage, ldapv3.ErrorUnexpectedResponse, ldapv3.LDAPResultUnavailable,
		ldapv3.LDAPResultBusy, ldapv3.LDAPResultServerDown, ldapv3.LDAPResultTimeout, ldapv3.LDAPResultConnectError:
		return true
	}
	return false
}

func unavailable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fault.Wrap(fault.Unavailable, err, "the directory cannot be asked")
}
