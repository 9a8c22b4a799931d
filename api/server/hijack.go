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

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/engine"
)

// lingering is how long a connection may stay open for its client to leave, after the last byte of output went out.
const lingering = 10 * time.Second

// What happens between a client and a process, once HTTP is done with the connection:
//
//	client ──▶ stdin   until the client closes its half; then the process's stdin is closed, or the client is let go (see closeStdin)
//	client ◀── stdout  until the process is gone and its last byte was sent; then our half is closed
//
// The connection itself is closed when the client has closed its half too, or after a while: closing earlier, with bytes of the
// client unread, would reset it and lose output that is still on its way.

// takeover is a connection that has left HTTP.
type takeover struct {
	conn  net.Conn
	in    io.Reader // first what the client had already sent
	quiet time.Time // nothing is sent before; see losesEarlyOutput
}

// hijack takes the connection over and answers the request: 101 where the client asked to upgrade, else a bare 200. headers go into the
// answer, as "Name: value" lines.
func (c *call) hijack(framed bool, headers ...string) (*takeover, error) {
	if err := c.passBody(); err != nil {
		return nil, err
	}
	conn, buffered, err := http.NewResponseController(c.w).Hijack()
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "taking the connection over")
	}
	c.began, c.code = true, http.StatusSwitchingProtocols
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
	if losesEarlyOutput(c.r.UserAgent()) {
		t.quiet = time.Now().Add(earlyOutput)
	}
	if n := buffered.Reader.Buffered(); n > 0 {
		early, _ := buffered.Reader.Peek(n)
		t.in = io.MultiReader(bytes.NewReader(bytes.Clone(early)), conn)
	}
	return t, nil
}

// passBody reads the request's own body away, which some clients (dockerode) fill with what stands in the query: what follows it is the
// process's input, it is not.
func (c *call) passBody() error {
	if c.r.ContentLength <= 0 {
		return nil
	}
	control := http.NewResponseController(c.w)
	_ = control.SetReadDeadline(time.Now().Add(bodyTimeout)) // not on a connection of a test
	_, err := io.Copy(io.Discard, http.MaxBytesReader(c.w, c.r.Body, maxBody))
	_ = control.SetReadDeadline(time.Time{})
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "reading the request's body")
	}
	return nil
}

// refuseStream answers a request for a stream with an error as Docker does: the sentence alone, and the end of the connection.
func (c *call) refuseStream(failed error) error {
	conn, _, err := http.NewResponseController(c.w).Hijack()
	if err != nil {
		return failed // on a connection that cannot be taken over it is an answer like others
	}
	c.began = true
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(lingering))
	code := codeOf(failed)
	c.code = code
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\n\r\n%s\r\n", code, http.StatusText(code), rawStream, failed)
	return nil
}

// earlyOutput is how long such clients are given to read the head of an answer alone.
const earlyOutput = 40 * time.Millisecond

// losesEarlyOutput reports whether a client loses output that arrives together with the head of the answer. Docker's Python library
// reads the head through a buffer and the stream past it; with dockerd it gets away with that, because dockerd needs longer to start
// anything than the library to wake up.
func losesEarlyOutput(userAgent string) bool {
	agent := strings.ToLower(userAgent)
	return strings.HasPrefix(agent, "docker-sdk-python") || strings.HasPrefix(agent, "docker-py") || strings.HasPrefix(agent, "python-requests") || strings.Contains(agent, "ansible")
}

// pumpOptions says how a stream and its client are joined.
type pumpOptions struct {
	stdin bool // what the client sends goes to the process
	// closeStdin: the end of the client's input is the end of the process's. Otherwise it means that the client leaves, as in Docker.
	closeStdin bool
	// whole: the client's connection has no halves, so that the end of its input is its leaving in any case.
	whole bool
}

// pump joins a client and a process until both are done. It owns both ends and closes them.
func (s *Server) pump(t *takeover, process engine.Conn, o pumpOptions) {
	s.mu.Lock()
	if s.leaving.Err() != nil {
		s.mu.Unlock()
		process.Close()
		t.conn.Close()
		return
	}
	s.pumps.Add(1)
	s.mu.Unlock()
	defer s.pumps.Done()
	// A server that leaves cuts both ends; whoever waits on them wakes.
	cut := context.AfterFunc(s.leaving, func() { process.Close(); t.conn.Close() })
	defer cut()

	inputDone, outputDone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(inputDone)
		t.input(process, o, outputDone)
	}()
	time.Sleep(time.Until(t.quiet))
	_, err := io.Copy(t.conn, process)
	if err != nil {
		// Either the client is gone, or the stream broke: nothing more can be said to it.
		process.Close()
	}
	closeWrite(t.conn)
	close(outputDone)
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

// input passes the client's bytes on, and then reads them away so that the connection can end in order. A client that has gone
// altogether, while a silent process gives no occasion to notice it by writing, is looked for now and then.
func (t *takeover) input(process engine.Conn, o pumpOptions, outputDone <-chan struct{}) {
	if o.stdin {
		in := &errReader{r: t.in}
		_, _ = io.Copy(process, in)
		switch {
		case in.err == nil: // the process does not take any more
		case errors.Is(in.err, io.EOF) && o.closeStdin:
			_ = process.CloseWrite()
			if o.whole {
				process.Close()
				return
			}
		default:
			process.Close() // the client has left or broke off
			return
		}
	}
	_, _ = io.Copy(io.Discard, t.in)
	if o.whole {
		process.Close()
		return
	}
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-outputDone:
			return
		case <-look.C:
			if hungUp(t.conn) {
				process.Close()
				return
			}
		}
	}
}

// lookEvery is how long a client may be gone before a silent attachment of it is given up.
const lookEvery = time.Second

// hungUp reports whether the other end of a unix socket is closed, not only its sending half; see unix(7) and POLLHUP in poll(2).
// Of a TCP connection nothing can be said without sending.
func hungUp(conn net.Conn) bool {
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return false
	}
	raw, err := unixConn.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		poll := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(poll, 0)
		gone = err == nil && n == 1 && poll[0].Revents&unix.POLLHUP != 0
	})
	return gone || err != nil
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
	time.Sleep(time.Until(t.quiet))
	w := bufio.NewWriter(t.conn)
	_ = writeFrame(w, framed, 1, []byte(err.Error()+"\r\n"))
	_ = w.Flush()
	closeWrite(t.conn)
	_ = t.conn.SetReadDeadline(time.Now().Add(lingering))
	_, _ = io.Copy(io.Discard, t.in)
	t.conn.Close()
}
