package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"berth/api/server/wire"
	"berth/base/fault"
)

// answerTimeout is how long a client may take to read one large answer that is no stream.
const answerTimeout = 2 * time.Minute

// codes maps the kinds of errors to HTTP. It is the only place that does.
var codes = map[fault.Kind]int{
	fault.Internal:       http.StatusInternalServerError,
	fault.Invalid:        http.StatusBadRequest,
	fault.NotFound:       http.StatusNotFound,
	fault.Conflict:       http.StatusConflict,
	fault.NotModified:    http.StatusNotModified,
	fault.Forbidden:      http.StatusForbidden,
	fault.Unauthorized:   http.StatusUnauthorized,
	fault.Unavailable:    http.StatusServiceUnavailable,
	fault.NotImplemented: http.StatusNotImplemented,
	fault.Cancelled:      http.StatusInternalServerError, // the client is gone: nobody reads it
	fault.Deadline:       http.StatusGatewayTimeout,
	fault.Gone:           http.StatusGone,
}

func codeOf(err error) int {
	var tooBig *http.MaxBytesError
	if errors.As(err, &tooBig) {
		return http.StatusRequestEntityTooLarge
	}
	if code, ok := codes[fault.KindOf(err)]; ok {
		return code
	}
	return http.StatusInternalServerError
}

// fail answers with an error, in JSON. A client that asks for an API from before 1.24 reads plain text only.
func (s *Server) fail(c *call, err error) {
	code := codeOf(err)
	if code >= http.StatusInternalServerError && code != http.StatusNotImplemented && c.r.Context().Err() == nil {
		s.log.Error("request failed", "method", c.r.Method, "path", c.r.URL.Path, "error", err)
	} else {
		s.log.Debug("request refused", "method", c.r.Method, "path", c.r.URL.Path, "code", code, "error", err)
	}
	switch {
	case c.began:
		// The status is out. What can be said is said in the stream by its handler; here the connection ends.
		panic(http.ErrAbortHandler)
	case code == http.StatusNotModified:
		c.w.WriteHeader(code)
	case c.asked != "" && wire.ParseVersion(c.asked) < wire.Oldest:
		http.Error(c.w, err.Error(), code)
	default:
		c.json(code, errorBody{err.Error()})
	}
}

type errorBody struct {
	Message string `json:"message"`
}

// encode writes v as Docker does: one line, and < > & as themselves.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// json answers with v.
func (c *call) json(code int, v any) error {
	body, err := encode(v)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "writing the answer")
	}
	return c.body(code, "application/json", body)
}

func (c *call) body(code int, contentType string, body []byte) error {
	h := c.w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	c.begin(code)
	if len(body) > 64<<10 { // more than a socket takes at once: the client must read
		control := http.NewResponseController(c.w)
		_ = control.SetWriteDeadline(time.Now().Add(answerTimeout))
		defer func() { _ = control.SetWriteDeadline(time.Time{}) }()
	}
	_, _ = c.w.Write(body) // a client that does not listen any more is no error of ours
	return nil
}

// done answers with a code and nothing else.
func (c *call) done(code int) error {
	c.begin(code)
	return nil
}

func (c *call) begin(code int) {
	c.began, c.code = true, code
	c.w.WriteHeader(code)
}
