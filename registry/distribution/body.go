package distribution

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"berth/base/fault"
	"berth/registry/storage"
)

var errLength = errors.New("the body is shorter or longer than its range")

// quotaStep is after how many bytes of a body without a length the quota is asked again.
const quotaStep = 16 << 20

// body is a request's body that gives up on a client who sends nothing, and on one who sends more than fits.
type body struct {
	c       *call
	control *http.ResponseController
	before  int64 // what the upload has already
	read    int64
	asked   int64
}

func (c *call) body(u *storage.Upload) io.Reader {
	return &body{c: c, control: http.NewResponseController(c.w), before: u.Size()}
}

func (b *body) Read(p []byte) (int, error) {
	b.control.SetReadDeadline(time.Now().Add(b.c.cfg.Idle)) // not every writer can, in tests
	n, err := b.c.r.Body.Read(p)
	b.read += int64(n)
	if err != nil {
		// The server goes on reading to learn whether the client leaves; our deadline must not look like that.
		b.control.SetReadDeadline(time.Time{})
	}
	if err != nil && err != io.EOF {
		return n, fault.Wrap(fault.Cancelled, err, "reading the body")
	}
	if b.c.r.ContentLength < 0 && b.read-b.asked >= quotaStep {
		b.asked = b.read
		if full := b.c.room(b.before + b.read); full != nil {
			return n, full
		}
	}
	return n, err
}

// exactly is a reader of so many bytes; fewer or more are an error.
type exactly struct {
	r    io.Reader
	left int64
}

func (e *exactly) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	e.left -= int64(n)
	switch {
	case e.left < 0:
		n += int(e.left)
		e.left = 0
		return max(n, 0), fmt.Errorf("%w: too long", errLength)
	case err == io.EOF && e.left > 0:
		return n, fmt.Errorf("%w: %d bytes are missing", errLength, e.left)
	}
	return n, err
}
