package server

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"berth/api/server/wire"
	"berth/base/fault"
)

// Bounds on what a client may send where Docker has none.
const (
	maxBody     = 8 << 20          // bytes of a JSON body; a seccomp profile inside one has some 30 KB
	bodyTimeout = 30 * time.Second // for a JSON body to arrive
)

// call is one request on its way through a handler.
type call struct {
	w     http.ResponseWriter
	r     *http.Request
	asked string       // API version as the client wrote it; "" none
	v     wire.Version // the version that counts
	name  string       // what stands for {name} in the route
	q     url.Values
	began bool   // the status is out
	made  string // what the request made, for the audit log
	code  int    // which it was
}

func (c *call) ctx() context.Context { return c.r.Context() }

// text gives a query value, "" where there is none.
func (c *call) text(key string) string { return c.q.Get(key) }

// flag reads a query value as Docker reads booleans: everything is true but nothing, 0, no, false and none.
func (c *call) flag(key string) bool {
	switch strings.ToLower(strings.TrimSpace(c.q.Get(key))) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// flagOr is flag for a value whose absence means something.
func (c *call) flagOr(key string, absent bool) bool {
	if !c.q.Has(key) {
		return absent
	}
	return c.flag(key)
}

// number reads a whole number; nil where there is none.
func (c *call) number(key string) (*int, error) {
	text := c.q.Get(key)
	if text == "" {
		return nil, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "")
	}
	return &n, nil
}

// moment reads a point in time as logs have it: instant, but 0 is none.
func (c *call) moment(key string) (time.Time, error) {
	t, err := c.instant(key)
	if err == nil && t.Equal(time.Unix(0, 0)) {
		return time.Time{}, nil
	}
	return t, err
}

// instant reads a point in time, SECONDS or SECONDS.NANOSECONDS since 1970; zero where there is none. Events have it: since=0 is all
// that is remembered.
func (c *call) instant(key string) (time.Time, error) {
	text := c.q.Get(key)
	if text == "" {
		return time.Time{}, nil
	}
	whole, part, _ := strings.Cut(text, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, fault.Wrap(fault.Invalid, err, "")
	}
	var nano int64
	if part != "" {
		if nano, err = strconv.ParseInt((part + "000000000")[:9], 10, 64); err != nil {
			return time.Time{}, fault.Wrap(fault.Invalid, err, "")
		}
	}
	return time.Unix(sec, nano), nil
}

// size reads the two sides of a terminal.
func (c *call) size() (rows, cols uint16, err error) {
	side := func(key, what string) uint16 {
		text := c.q.Get(key)
		digits, negative := strings.CutPrefix(text, "-")
		n, e := strconv.ParseUint(digits, 10, 16)
		if e == nil && negative {
			e = &strconv.NumError{Err: strconv.ErrRange}
		}
		if e != nil && err == nil {
			err = fault.Wrap(fault.Invalid, errors.Unwrap(e), "invalid resize %s %q", what, text)
		}
		return uint16(n)
	}
	rows, cols = side("h", "height"), side("w", "width")
	return rows, cols, err
}

// decode reads a JSON body. An empty one is no error and leaves into as it is: false.
func (c *call) decode(into any) (unknown []string, there bool, err error) {
	data, err := c.jsonBody()
	if err != nil || len(data) == 0 {
		return nil, false, err
	}
	unknown, err = wire.Decode(data, into)
	return unknown, true, err
}

// jsonBody reads a body that must be JSON where there is one.
func (c *call) jsonBody() ([]byte, error) {
	contentType := c.r.Header.Get("Content-Type")
	if contentType == "" && (c.r.Body == nil || c.r.ContentLength == 0) {
		return nil, nil
	}
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "malformed Content-Type header (%s)", contentType)
	}
	if kind != "application/json" {
		return nil, fault.New(fault.Invalid, "unsupported Content-Type header (%s): must be 'application/json'", contentType)
	}
	control := http.NewResponseController(c.w)
	_ = control.SetReadDeadline(time.Now().Add(bodyTimeout)) // not on a connection of a test
	data, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, maxBody))
	_ = control.SetReadDeadline(time.Time{})
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "reading the request's body")
	}
	return data, nil
}
