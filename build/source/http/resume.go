package http

import (
	"context"
	"errors"
	"fmt"
	"io"
	nethttp "net/http"
	"strings"

	"berth/build/session"
)

// A transfer that breaks is taken up where it broke, where the server says by an entity tag that what follows belongs to what came (RFC 9110,
// 13.1.5 and 14.2). BuildKit's source begins anew, or rather its user does.
const (
	resumeTries    = 5       // without progress
	resumeProgress = 1 << 20 // bytes
)

// resuming reads an answer's body.
type resuming struct {
	ctx   context.Context
	s     *Source
	a     *address
	g     session.Group
	tag   string
	body  io.ReadCloser
	n     int64 // bytes read
	tries int   // since mark
	mark  int64 // where the last try began
}

// resumable gives the body of an answer, and asks for the rest of it when it breaks. Bytes that the transport has decompressed cannot be counted.
func (s *Source) resumable(ctx context.Context, a *address, g session.Group, resp *nethttp.Response) io.ReadCloser {
	tag := resp.Header.Get("ETag")
	if tag == "" || strings.HasPrefix(tag, "W/") || resp.Uncompressed || resp.StatusCode != nethttp.StatusOK {
		return resp.Body
	}
	return &resuming{ctx: ctx, s: s, a: a, g: g, tag: tag, body: resp.Body}
}

// Read reads on, however often the connection ends.
func (r *resuming) Read(p []byte) (int, error) {
	for {
		n, err := r.body.Read(p)
		r.n += int64(n)
		if n > 0 || err == nil || err == io.EOF {
			if n > 0 && err != io.EOF {
				err = nil // told again by the next read
			}
			return n, err
		}
		if r.ctx.Err() != nil || !r.again() {
			return 0, err
		}
	}
}

// again asks for the rest.
func (r *resuming) again() bool {
	if r.n-r.mark >= resumeProgress {
		r.tries = 0
	}
	r.mark = r.n
	for r.tries < resumeTries && r.ctx.Err() == nil {
		r.tries++
		resp, err := r.rest()
		if err == nil {
			r.body.Close()
			r.body = resp.Body
			return true
		}
		if errors.Is(err, errOther) {
			return false
		}
	}
	return false
}

// errOther says that what follows is not the rest.
var errOther = errors.New("the server does not give the rest of the file")

// rest asks the server for what is missing.
func (r *resuming) rest() (*nethttp.Response, error) {
	req, err := r.s.request(r.ctx, r.a, r.g, nethttp.MethodGet)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-", r.n))
	req.Header.Set("If-Range", r.tag)
	resp, err := r.s.client(r.g).Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != nethttp.StatusPartialContent || !strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", r.n)) ||
		resp.Header.Get("Content-Encoding") != "" {
		resp.Body.Close()
		return nil, errOther
	}
	return resp, nil
}

// Close closes the connection.
func (r *resuming) Close() error { return r.body.Close() }
