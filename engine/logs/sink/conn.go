package sink

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"syscall"
	"time"
)

// Conn is a connection that is made when it is needed, and made anew after it broke.
type Conn struct {
	Network, Address string
	TLS              *tls.Config // nil: none
	Quiet            bool        // a stream on which the collector never says anything: its end is noticed before the next write

	c    net.Conn
	gone chan struct{} // closed when a quiet stream has ended
}

// Dial connects unless it is connected.
func (c *Conn) Dial(ctx context.Context) (net.Conn, error) {
	if c.c != nil {
		select {
		case <-c.gone: // nil, which never comes, where nobody watches
			c.Close()
		default:
			return c.c, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, DialTimeout)
	defer cancel()
	d := net.Dialer{KeepAlive: 15 * time.Second}
	conn, err := d.DialContext(ctx, c.Network, c.Address)
	if err != nil {
		return nil, err
	}
	if c.TLS != nil {
		t := tls.Client(conn, c.TLS)
		if err := t.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, err
		}
		conn = t
	}
	c.c = conn
	if c.Quiet {
		c.gone = make(chan struct{})
		go watch(conn, c.gone)
	}
	return conn, nil
}

// watch ends with the connection: Close closes that.
func watch(conn net.Conn, gone chan struct{}) {
	defer close(gone)
	for small := make([]byte, 64); ; { // one for each container: no buffer of io.Copy's
		if _, err := conn.Read(small); err != nil {
			return
		}
	}
}

// Write writes b whole, within WriteTimeout and ctx. After an error the connection is closed.
func (c *Conn) Write(ctx context.Context, b []byte) error {
	conn, err := c.Dial(ctx)
	if err != nil {
		return err
	}
	stop, err := Bound(ctx, conn, conn.SetWriteDeadline)
	if err == nil {
		if _, err = conn.Write(b); c.Network == "udp" && errors.Is(err, syscall.ECONNREFUSED) {
			// It speaks of an earlier datagram, which is lost as datagrams are; this one was not sent. Nobody is to wait for a UDP collector.
			if _, err = conn.Write(b); errors.Is(err, syscall.ECONNREFUSED) {
				err = nil
			}
		}
		stop()
	}
	if err != nil {
		c.Close()
	}
	return err
}

// Bound bounds what is done with a connection by WriteTimeout and ctx. set sets the deadline that counts; the caller calls what it gets.
func Bound(ctx context.Context, conn net.Conn, set func(time.Time) error) (stop func() bool, err error) {
	if err := set(time.Now().Add(WriteTimeout)); err != nil {
		return nil, err
	}
	return context.AfterFunc(ctx, func() { _ = set(time.Unix(1, 0)) }), ctx.Err()
}

// Close ends the connection; the next use connects anew.
func (c *Conn) Close() {
	if c.c == nil {
		return
	}
	_ = c.c.Close()
	if c.gone != nil {
		<-c.gone
	}
	c.c, c.gone = nil, nil
}
