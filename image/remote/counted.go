package remote

import (
	"errors"
	"io"
	"sync/atomic"
)

// counted watches what is read of a source while a request sends it: how much, whether it ended, and whether it was the source that failed. The
// connection's goroutine reads it, the caller asks when the request is over.
type counted struct {
	n     atomic.Int64
	ended atomic.Bool
	err   error // set by the reading goroutine before the request fails
}

func (c *counted) reset() {
	c.n.Store(0)
	c.ended.Store(false)
	c.err = nil
}

// over gives a reader of at most n bytes of the source (< 0: all) that is counted.
func (c *counted) over(rc io.ReadCloser, n int64) io.ReadCloser {
	return &countedReader{c: c, rc: rc, left: n}
}

type countedReader struct {
	c    *counted
	rc   io.ReadCloser
	left int64
}

func (r *countedReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	if r.left > 0 && int64(len(p)) > r.left {
		p = p[:r.left]
	}
	n, err := r.rc.Read(p)
	r.c.n.Add(int64(n))
	if r.left > 0 {
		r.left -= int64(n)
	}
	switch {
	case err == io.EOF && r.left > 0:
		err = errors.New("the content ended early")
		r.c.err = err
	case err == io.EOF:
		r.c.ended.Store(true)
	case err != nil:
		r.c.err = err
	}
	return n, err
}

func (r *countedReader) Close() error { return r.rc.Close() }
