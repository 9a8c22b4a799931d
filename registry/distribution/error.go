package distribution

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"berth/auth"
	"berth/base/fault"
	"berth/registry/storage"
)

// apiError is an answer that says no, with the specification's code.
type apiError struct {
	status  int
	code    string
	message string
	detail  any
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

type errorBody struct {
	Errors []errorEntry `json:"errors"`
}

type errorEntry struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Detail  any    `json:"detail,omitempty"`
}

func notFound() error {
	return &apiError{status: http.StatusNotFound, code: "UNSUPPORTED", message: "there is nothing at this path"}
}

func nameInvalid(name string) error {
	if len(name) > 300 {
		name = name[:300]
	}
	return &apiError{status: http.StatusBadRequest, code: "NAME_INVALID", message: "invalid repository name", detail: map[string]string{"name": name}}
}

func manifestUnknown(err error) error {
	if !fault.Is(err, fault.NotFound) {
		return err
	}
	return &apiError{status: http.StatusNotFound, code: "MANIFEST_UNKNOWN", message: "manifest unknown", detail: err.Error()}
}

func blobUnknown(err error) error {
	if !fault.Is(err, fault.NotFound) {
		return err
	}
	return &apiError{status: http.StatusNotFound, code: "BLOB_UNKNOWN", message: "blob unknown to registry", detail: err.Error()}
}

func nameUnknown(err error) error {
	if !fault.Is(err, fault.NotFound) {
		return err
	}
	return &apiError{status: http.StatusNotFound, code: "NAME_UNKNOWN", message: "repository name not known to registry", detail: err.Error()}
}

func digestInvalid(err error) error {
	return &apiError{status: http.StatusBadRequest, code: "DIGEST_INVALID", message: "provided digest did not match uploaded content", detail: err.Error()}
}

// fail writes the answer for an error. The connection's own failures are nobody's to read.
func (c *call) fail(err error) {
	var e *apiError
	if !errors.As(err, &e) {
		e = c.translate(err)
	}
	if e.status >= 500 {
		c.cfg.Log.Error("request failed", "request", c.id, "method", c.r.Method, "path", c.r.URL.Path, "error", err)
		if e.detail == nil {
			e.detail = map[string]string{"request": c.id}
		}
	}
	c.json(e.status, errorBody{Errors: []errorEntry{{Code: e.code, Message: e.message, Detail: e.detail}}})
}

// translate gives errors of the rooms below a code. What an operator has to know stays in the log.
func (c *call) translate(err error) *apiError {
	if errors.Is(err, storage.ErrDigest) {
		return digestInvalid(err).(*apiError)
	}
	var slow *auth.Slow
	if errors.As(err, &slow) { // too many wrong passwords
		c.w.Header().Set("Retry-After", strconv.Itoa(int(slow.After.Seconds())+1))
		return &apiError{status: http.StatusTooManyRequests, code: "TOOMANYREQUESTS", message: slow.Error()}
	}
	if storage.Full(err) {
		c.w.Header().Set("Retry-After", "30")
		return &apiError{status: http.StatusServiceUnavailable, code: "UNAVAILABLE", message: "the registry's disk is full"}
	}
	switch kind := fault.KindOf(err); kind {
	case fault.Invalid:
		return &apiError{status: http.StatusBadRequest, code: "UNSUPPORTED", message: err.Error()}
	case fault.NotFound:
		return &apiError{status: http.StatusNotFound, code: "NAME_UNKNOWN", message: err.Error()}
	case fault.Forbidden:
		return &apiError{status: http.StatusForbidden, code: "DENIED", message: err.Error()}
	case fault.Unauthorized:
		return &apiError{status: http.StatusUnauthorized, code: "UNAUTHORIZED", message: err.Error()}
	case fault.Conflict:
		return &apiError{status: http.StatusConflict, code: "UNSUPPORTED", message: err.Error()}
	case fault.NotImplemented:
		return &apiError{status: http.StatusMethodNotAllowed, code: "UNSUPPORTED", message: err.Error()}
	case fault.Unavailable:
		c.w.Header().Set("Retry-After", "5")
		return &apiError{status: http.StatusServiceUnavailable, code: "TOOMANYREQUESTS", message: "the registry cannot do this now, try again"}
	case fault.Cancelled, fault.Deadline:
		return &apiError{status: http.StatusRequestTimeout, code: "UNKNOWN", message: "the request took too long or was given up"}
	}
	return &apiError{status: http.StatusInternalServerError, code: "UNKNOWN", message: "unknown error"}
}

// json writes a small document.
func (c *call) json(status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		status, data = http.StatusInternalServerError, []byte(`{"errors":[{"code":"UNKNOWN","message":"unknown error"}]}`)
	}
	h := c.w.Header()
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", "application/json; charset=utf-8")
	}
	h.Set("Content-Length", strconv.Itoa(len(data)))
	c.w.WriteHeader(status)
	if c.r.Method != http.MethodHead {
		c.w.Write(data)
	}
}
