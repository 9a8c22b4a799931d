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
	detach     []byte // keys that make the client leave; nil none
}

// pump joins a client and a process until both are done. It owns both ends and closes them.
func (s *Server) pump(t *takeover, process engine.Conn, o pumpOptions) {
	s.pumps.Add(1)
	defer s.pumps.Done()
	// The end of the server cuts both ends; whoever waits on them wakes.
	cut := context.AfterFunc(s.base, func() { process.Close(); t.conn.Close() })
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
	var err error
	if o.stdin {
		err = copyInput(process, t.in, o.detach)
		switch {
		case errors.Is(err, errWrite): // the process does not read any more
		case err == nil && o.closeStdin:
			_ = process.CloseWrite()
		default:
			process.Close() // the client detached, left, or broke off
			return
		}
	}
	_, _ = io.Copy(io.Discard, t.in)
}

var (
	errDetached = errors.New("detached")
	errWrite    = errors.New("the process takes no input")
)

// copyInput copies until the end of in (nil), the detach keys (errDetached), an error of in, or one of out (errWrite). Keys that
// might begin the sequence are held back until it is clear that they do not.
func copyInput(out io.Writer, in io.Reader, keys []byte) error {
	buf := make([]byte, 32<<10)
	held := 0 // how many of keys were seen
	for {
		n, err := in.Read(buf)
		pass, detached := buf[:n], false
		if len(keys) > 0 && n > 0 {
			pass, held, detached = filterKeys(buf[:n], keys, held)
		}
		if len(pass) > 0 {
			if _, e := out.Write(pass); e != nil {
				return errWrite
			}
		}
		switch {
		case detached:
			return errDetached
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// filterKeys takes what may pass out of new input, given that held of the keys came before it.
func filterKeys(in, keys []byte, held int) (pass []byte, nowHeld int, detached bool) {
	for _, b := range in {
		if b == keys[held] {
			if held++; held == len(keys) {
				return pass, 0, true
			}
			continue
		}
		// What was held back was input after all. Docker does not look whether a later part of it begins the keys again.
		pass = append(pass, keys[:held]...)
		if held = 0; b == keys[0] {
			held = 1
			continue
		}
		pass = append(pass, b)
	}
	return pass, held, false
}

// detachKeys reads "ctrl-p,ctrl-q" or single characters. Empty text means the default.
func detachKeys(text string) ([]byte, error) {
	if text == "" {
		return []byte{16, 17}, nil
	}
	var keys []byte
	for _, word := range strings.Split(text, ",") {
		if len(word) == 1 {
			keys = append(keys, word[0])
			continue
		}
		key, ok := strings.CutPrefix(strings.ToLower(word), "ctrl-")
		if !ok || len(key) != 1 {
			return nil, fault.New(fault.Invalid, "Invalid escape keys (%s) provided", text)
		}
		switch b := key[0]; {
		case b >= 'a' && b <= 'z':
			keys = append(keys, b-'a'+1)
		case b == '@':
			keys = append(keys, 0)
		case b >= '[' && b <= '_':
			keys = append(keys, b-'['+27)
		default:
			return nil, fault.New(fault.Invalid, "Invalid escape keys (%s) provided", text)
		}
	}
	return keys, nil
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
