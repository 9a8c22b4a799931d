package server

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"berth/base/fault"
	"berth/engine"
)

// lingering is how long a connection may stay open for its client to leave, after the last byte of output went out.
const lingering = 10 * time.Second

// wire between a client and a process, once HTTP is done with the connection:
//
//	client ──▶ stdin   until the client closes its half; then the process's stdin is closed, or the client is let go (see closeStdin)
//	client ◀── stdout  until the process is gone and its last byte was sent; then our half is closed
//
// The connection itself is closed when the client has closed its half too, or after a while: closing earlier, with bytes of the
// client unread, would reset it and lose output that is still on its way.

// takeover is a connection that has left HTTP.
type takeover struct {
	conn net.Conn
	in   io.Reader // first what the client had already sent
}

// hijack takes the connection over and answers the request: 101 where the client asked to upgrade, else a bare 200. headers go into the
// answer, as "Name: value" lines.
func (c *call) hijack(framed bool, headers ...string) (*takeover, error) {
	conn, buffered, err := http.NewResponseController(c.w).Hijack()
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "taking the connection over")
	}
	c.began = true
	_ = conn.SetDeadline(time.Time{})
	var head strings.Builder
	if _, upgrade := c.r.Header["Upgrade"]; upgrade {
		fmt.Fprintf(&head, "HTTP/1.1 101 UPGRADED\r\nContent-Type: %s\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n", streamType(c, framed))
	} else {
		fmt.Fprintf(&head, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\n", rawStream)
	}
	for _, h := range headers {
		head.WriteString(h + "\r\n")
	}
	head.WriteString("\r\n")
	if _, err := io.WriteString(conn, head.String()); err != nil {
		conn.Close()
		return nil, fault.Wrap(fault.Cancelled, err, "answering before the stream")
	}
	t := &takeover{conn: conn, in: conn}
	if n := buffered.Reader.Buffered(); n > 0 {
		early, _ := buffered.Reader.Peek(n)
		t.in = io.MultiReader(bytes.NewReader(bytes.Clone(early)), conn)
	}
	return t, nil
}

// pumpOptions says how a stream and its client are joined.
type pumpOptions struct {
	stdin bool // what the client sends goes to the process
	// closeStdin: the end of the client's input is the end of the process's. Otherwise it means that the client leaves, as in Docker.
	closeStdin bool
}

// pump joins a client and a process until both are done. It owns both ends and closes them.
func (s *Server) pump(t *takeover, process engine.Conn, o pumpOptions) {
	s.pumps.Add(1)
	defer s.pumps.Done()
	// A server that leaves cuts both ends; whoever waits on them wakes.
	cut := context.AfterFunc(s.leaving, func() { process.Close(); t.conn.Close() })
	defer cut()

	inputDone := make(chan struct{})
	go func() {
		defer close(inputDone)
		t.input(process, o)
	}()
	_, err := io.Copy(t.conn, process)
	if err != nil {
		// Either the client is gone, or the stream broke: nothing more can be said to it.
		process.Close()
	}
	closeWrite(t.conn)
	wait := time.NewTimer(lingering)
	defer wait.Stop()
	select {
	case <-inputDone:
	case <-wait.C:
	}
	process.Close()
	t.conn.Close()
	<-inputDone
}

// input passes the client's bytes on, and then reads them away so that the connection can end in order.
func (t *takeover) input(process engine.Conn, o pumpOptions) {
	if o.stdin {
		in := &errReader{r: t.in}
		_, _ = io.Copy(process, in)
		switch {
		case in.err == nil: // the process does not take any more
		case errors.Is(in.err, io.EOF) && o.closeStdin:
			_ = process.CloseWrite()
		default:
			process.Close() // the client has left or broke off
			return
		}
	}
	_, _ = io.Copy(io.Discard, t.in)
}

// errReader remembers how a reader ended, so that a copy that stopped can say whose fault it was.
type errReader struct {
	r   io.Reader
	err error
}

func (e *errReader) Read(p []byte) (n int, err error) {
	n, err = e.r.Read(p)
	e.err = err
	return n, err
}

// closeWrite ends our half of a connection, whatever kind it is.
func closeWrite(conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
		return
	}
	conn.Close()
}

// complain says on a stream that was already taken over what went wrong.
func (t *takeover) complain(err error, framed bool) {
	w := bufio.NewWriter(t.conn)
	_ = writeFrame(w, framed, 1, []byte(err.Error()+"\r\n"))
	_ = w.Flush()
	closeWrite(t.conn)
	_ = t.conn.SetReadDeadline(time.Now().Add(lingering))
	_, _ = io.Copy(io.Discard, t.in)
	t.conn.Close()
}
