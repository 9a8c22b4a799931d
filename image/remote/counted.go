package remote

import (
	"context"
	"errors"
	"io"
	"sync"
)

// counted watches what one request reads of its source: how much, whether it ended, and whether it was the source that failed. A connection
// may go on reading after its answer came, so each request has its own.
type counted struct {
	rc   io.ReadCloser
	left int64 // bytes that the request may still send; < 0: all

	mu    sync.Mutex
	n     int64
	ended bool
	err   error
}

// state tells what was read, whether the source ended there, and the source's failure.
func (c *counted) state() (n int64, ended bool, err error) {
	if c == nil {
		return 0, false, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n, c.ended, c.err
}

// failure gives the source's failure.
func (c *counted) failure() error {
	_, _, err := c.state()
	return err
}

func (c *counted) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	if c.left > 0 && int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.rc.Read(p)
	if c.left > 0 {
		c.left -= int64(n)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += int64(n)
	switch {
	case err == io.EOF && c.left > 0:
		err = errors.New("the content ended early")
		c.err = err
	case err == io.EOF:
		c.ended = true
	case err != nil:
		c.err = err
	}
	return n, err
}

// Close closes the source.
func (c *counted) Close() error { return c.rc.Close() }

// gate is a lock that is waited for no longer than the caller lives.
type gate chan struct{}

func newGate() gate { return make(gate, 1) }

func (g gate) lock(ctx context.Context) error {
	select {
	case g <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g gate) unlock() { <-g }
