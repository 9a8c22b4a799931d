package server

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/websocket"

	"berth/base/fault"
	"berth/engine"
)

// containerAttachSocket is containerAttach over a websocket (RFC 6455): what the process writes comes in binary messages as it is, both
// of its streams in one, with no frames of Docker's; what the client sends is its input, and the client's leaving is the end of that.
func containerAttachSocket(s *Server, c *call) error {
	o := engine.AttachOptions{Stdin: true, Stdout: true, Stderr: true, Logs: c.flag("logs"), Stream: c.flag("stream"), DetachKeys: c.text("detachKeys")}
	if c.v >= 42 {
		o.Stdin, o.Stdout, o.Stderr = c.flag("stdin"), c.flag("stdout"), c.flag("stderr")
	}
	info, err := s.cfg.Containers.Inspect(c.ctx(), c.name)
	if err != nil {
		return err
	}
	if err := checkSocketRequest(c.r); err != nil {
		return err
	}
	attached, err := s.cfg.Containers.Attach(context.WithoutCancel(c.ctx()), info.ID, o)
	if err != nil {
		return err
	}
	process := attached.Conn
	if !attached.TTY {
		process = &unframed{Conn: process, in: bufio.NewReader(process)}
	}
	served := false
	server := websocket.Server{Handler: func(conn *websocket.Conn) {
		served, c.code = true, http.StatusSwitchingProtocols
		_ = conn.SetDeadline(time.Time{})
		if c.v >= 28 {
			conn.PayloadType = websocket.BinaryFrame
		}
		s.pump(&takeover{conn: conn, in: conn}, process, pumpOptions{stdin: o.Stdin, closeStdin: info.Spec.StdinOnce && !attached.TTY, whole: true})
	}}
	c.began = true
	server.ServeHTTP(hijackable{c.w}, c.r)
	if !served {
		c.code = http.StatusBadRequest
		process.Close() // the handshake failed, and the client was told
	}
	return nil
}

// checkSocketRequest refuses what is no request for a websocket.
func checkSocketRequest(r *http.Request) error {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") || !strings.Contains(strings.ToLower(r.Header.Get("Connection")), "upgrade") {
		return fault.New(fault.Invalid, "not websocket protocol")
	}
	if r.Header.Get("Sec-Websocket-Version") != "13" {
		return fault.New(fault.Invalid, "missing or bad WebSocket Version")
	}
	if r.Header.Get("Sec-Websocket-Key") == "" {
		return fault.New(fault.Invalid, "mismatch challenge/response")
	}
	return nil
}

// hijackable lets a package that knows http.Hijacker only take over what http.ResponseController can.
type hijackable struct{ http.ResponseWriter }

func (h hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(h.ResponseWriter).Hijack()
}

// unframed takes Docker's frames off what a process writes.
type unframed struct {
	engine.Conn
	in   *bufio.Reader
	rest int // of the present frame
}

// Read gives what is inside of frames.
func (u *unframed) Read(p []byte) (int, error) {
	for u.rest == 0 {
		var head [8]byte
		if _, err := io.ReadFull(u.in, head[:]); err != nil {
			return 0, io.EOF // the stream ends between frames, or was cut
		}
		u.rest = int(binary.BigEndian.Uint32(head[4:]))
	}
	n, err := u.in.Read(p[:min(len(p), u.rest)])
	u.rest -= n
	return n, err
}
