package buildkit

import (
	"net"
	"sync"
)

// connListener gives a gRPC server connections that others accepted.
type connListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newConnListener() *connListener {
	return &connListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

// give hands a connection to the server; it fails when the server is closed.
func (l *connListener) give(c net.Conn) error {
	select {
	case l.conns <- c:
		return nil
	case <-l.done:
		return net.ErrClosed
	}
}

// Accept waits for the next connection that was given.
func (l *connListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close makes Accept fail.
func (l *connListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr is no address: the connections have their own.
func (l *connListener) Addr() net.Addr { return &net.UnixAddr{Name: "grpc", Net: "unix"} }

// trackedConn tells when it is closed.
type trackedConn struct {
	net.Conn
	once sync.Once
	done chan struct{}
	err  error
}

// Close closes the connection once.
func (c *trackedConn) Close() error {
	c.once.Do(func() {
		c.err = c.Conn.Close()
		close(c.done)
	})
	return c.err
}
