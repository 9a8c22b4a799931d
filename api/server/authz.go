package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/pem"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
	"time"

	"berth/base/fault"
)

// Authorizer is a plugin that is asked about each request before it is carried out, and about its answer before it is sent
// (docs.docker.com/engine/extend/plugins_authorization).
type Authorizer interface {
	Name() string
	Call(ctx context.Context, method string, args, ret any) error
}

// authzQuestion is what a plugin is told.
type authzQuestion struct {
	User                    string            `json:"User,omitempty"`
	UserAuthNMethod         string            `json:"UserAuthNMethod,omitempty"`
	RequestMethod           string            `json:"RequestMethod,omitempty"`
	RequestURI              string            `json:"RequestUri,omitempty"`
	RequestBody             []byte            `json:"RequestBody,omitempty"`
	RequestHeaders          map[string]string `json:"RequestHeaders,omitempty"`
	RequestPeerCertificates []string          `json:"RequestPeerCertificates,omitempty"`
	ResponseStatusCode      int               `json:"ResponseStatusCode,omitempty"`
	ResponseBody            []byte            `json:"ResponseBody,omitempty"`
	ResponseHeaders         map[string]string `json:"ResponseHeaders,omitempty"`
}

type authzAnswer struct {
	Allow bool   `json:"Allow"`
	Msg   string `json:"Msg,omitempty"`
	Err   string `json:"Err,omitempty"`
}

// maxAuthzBody bounds a body that plugins are shown. A longer one is refused: to let it pass unseen is how such plugins were got
// around in Docker (CVE-2024-41110 and its kin).
const maxAuthzBody = 1 << 20

// carry hands a request to its handler, if every authorizer agrees, and its answer to the client, if they agree again.
func (s *Server) carry(c *call, to *route) error {
	if s.cfg.Authorizers == nil {
		return to.handle(s, c)
	}
	plugins, err := s.cfg.Authorizers(c.ctx())
	if err != nil {
		return err
	}
	if len(plugins) == 0 {
		return to.handle(s, c)
	}
	q, err := authzRequest(c, to)
	if err != nil {
		return err
	}
	for _, p := range plugins {
		if err := allowed(c.ctx(), p, "AuthZPlugin.AuthZReq", q); err != nil {
			return err
		}
	}
	w := &heldAnswer{ResponseWriter: c.w, code: http.StatusOK}
	c.w = w
	if err := to.handle(s, c); err != nil {
		c.w = w.ResponseWriter
		if w.sent {
			return err
		}
		c.began = false
		return err // its text is the engine's own
	}
	if w.sent {
		return nil
	}
	q.ResponseStatusCode, q.ResponseHeaders = w.code, flat(w.Header())
	if isJSON(w.Header().Get("Content-Type")) && !to.secret() {
		q.ResponseBody = w.body.Bytes()
	}
	for i := len(plugins) - 1; i >= 0; i-- {
		if err := allowed(c.ctx(), plugins[i], "AuthZPlugin.AuthZRes", q); err != nil {
			c.w, c.began = w.ResponseWriter, false
			c.w.Header().Del("Content-Length")
			return err
		}
	}
	return w.send()
}

// allowed asks one plugin.
func allowed(ctx context.Context, p Authorizer, method string, q *authzQuestion) error {
	var a authzAnswer
	if err := p.Call(ctx, method, q, &a); err != nil {
		return fault.New(fault.Internal, "plugin %s failed with error: %v", p.Name(), err)
	}
	switch {
	case a.Err != "":
		return fault.New(fault.Internal, "plugin %s failed with error: %s", p.Name(), a.Err)
	case !a.Allow:
		return fault.New(fault.Forbidden, "authorization denied by plugin %s: %s", p.Name(), a.Msg)
	}
	return nil
}

// authzRequest describes a request. Its body is read where it is JSON, and put back.
func authzRequest(c *call, to *route) (*authzQuestion, error) {
	q := &authzQuestion{RequestMethod: c.r.Method, RequestURI: c.r.RequestURI, RequestHeaders: flat(c.r.Header)}
	delete(q.RequestHeaders, "X-Registry-Auth")
	delete(q.RequestHeaders, "X-Registry-Config")
	if t := c.r.TLS; t != nil {
		for _, cert := range t.PeerCertificates {
			q.RequestPeerCertificates = append(q.RequestPeerCertificates, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})))
		}
		if len(t.PeerCertificates) > 0 {
			q.User, q.UserAuthNMethod = t.PeerCertificates[0].Subject.CommonName, "TLS"
		}
	}
	if c.r.Body == nil || !isJSON(c.r.Header.Get("Content-Type")) || to.secret() {
		return q, nil
	}
	body, err := io.ReadAll(io.LimitReader(c.r.Body, maxAuthzBody+1))
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "reading the request's body")
	}
	if len(body) > maxAuthzBody {
		return nil, fault.New(fault.Forbidden, "the request's body is longer than the %d bytes that authorization plugins are shown", maxAuthzBody)
	}
	q.RequestBody = body
	c.r.Body = io.NopCloser(bytes.NewReader(body))
	return q, nil
}

// secret reports whether a request or its answer carries a password.
func (r *route) secret() bool { return r.path == "/auth" }

func isJSON(contentType string) bool {
	kind, _, err := mime.ParseMediaType(contentType)
	return err == nil && kind == "application/json"
}

func flat(h http.Header) map[string]string {
	out := make(map[string]string, len(h))
	for k, v := range h {
		out[k] = strings.Join(v, ", ")
	}
	return out
}

// heldAnswer keeps an answer until it may be sent. One that is a stream, or long, goes out as it comes: the plugins agreed to the
// request, and Docker does the same.
type heldAnswer struct {
	http.ResponseWriter
	code int
	body bytes.Buffer
	sent bool
}

const maxHeld = 64 << 10

func (h *heldAnswer) WriteHeader(code int) { h.code = code }

func (h *heldAnswer) Write(p []byte) (int, error) {
	if h.sent {
		return h.ResponseWriter.Write(p)
	}
	h.body.Write(p)
	if h.body.Len() > maxHeld {
		return len(p), h.send()
	}
	return len(p), nil
}

func (h *heldAnswer) send() error {
	h.sent = true
	h.ResponseWriter.WriteHeader(h.code)
	_, err := h.ResponseWriter.Write(h.body.Bytes())
	return err
}

// FlushError sends what is held: whoever flushes has a reader who waits.
func (h *heldAnswer) FlushError() error {
	if !h.sent {
		if err := h.send(); err != nil {
			return err
		}
	}
	return http.NewResponseController(h.ResponseWriter).Flush()
}

// Hijack is for http.ResponseController. A connection that is taken over is out of the plugins' reach, as in Docker.
func (h *heldAnswer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	h.sent = true
	return http.NewResponseController(h.ResponseWriter).Hijack()
}

// SetReadDeadline is the connection's.
func (h *heldAnswer) SetReadDeadline(t time.Time) error {
	return http.NewResponseController(h.ResponseWriter).SetReadDeadline(t)
}

// SetWriteDeadline is the connection's.
func (h *heldAnswer) SetWriteDeadline(t time.Time) error {
	return http.NewResponseController(h.ResponseWriter).SetWriteDeadline(t)
}

// EnableFullDuplex is the connection's.
func (h *heldAnswer) EnableFullDuplex() error {
	return http.NewResponseController(h.ResponseWriter).EnableFullDuplex()
}
