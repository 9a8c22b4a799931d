package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// errSilent is the cause of what ends because a server sends nothing, or too little.
var errSilent = errors.New("the server does not answer")

// watch ends an exchange in which the other side makes too little progress. There is no limit to how long an exchange may take as a
// whole, and the time in which we are slow ourselves does not count.
type watch struct {
	cancel context.CancelCauseFunc
	stall  time.Duration
	rate   int64

	mu    sync.Mutex
	timer *time.Timer
	spent time.Duration // waited for the other side in this window
	got   int64         // bytes in this window
}

func newWatch(cancel context.CancelCauseFunc, stall time.Duration, rate int64) *watch {
	return &watch{cancel: cancel, stall: stall, rate: rate}
}

// arm ends the exchange after d unless disarm or arm comes first.
func (w *watch) arm(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer == nil {
		w.timer = time.AfterFunc(d, func() { w.cancel(fmt.Errorf("%w: nothing for %v", errSilent, d)) })
		return
	}
	w.timer.Reset(d)
}

func (w *watch) disarm() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
	}
}

// progress counts n bytes that were waited for, and tells when the rate over the last window was too low.
func (w *watch) progress(n int, waited time.Duration) error {
	w.got += int64(n)
	w.spent += waited
	if w.spent < w.stall {
		return nil
	}
	if least := int64(w.stall.Seconds() * float64(w.rate)); w.got < least {
		return fmt.Errorf("%w: only %d bytes in %v", errSilent, w.got, w.spent.Round(time.Second))
	}
	w.got, w.spent = 0, 0
	return nil
}

// receiving is the body of an answer under watch.
type receiving struct {
	body   io.ReadCloser
	w      *watch
	ctx    context.Context // of the exchange, for its cause
	cancel context.CancelCauseFunc
}

func (r *receiving) Read(p []byte) (int, error) {
	start := time.Now()
	r.w.arm(r.w.stall)
	n, err := r.body.Read(p)
	r.w.disarm()
	if err == nil {
		err = r.w.progress(n, time.Since(start))
		if err != nil {
			r.cancel(err)
		}
		return n, err
	}
	if err != io.EOF {
		if cause := context.Cause(r.ctx); cause != nil {
			err = cause
		}
	}
	return n, err
}

func (r *receiving) Close() error {
	err := r.body.Close()
	r.w.disarm()
	r.cancel(nil)
	return err
}

// sending is the body of a request under watch: between two reads the other side has to take what it was sent, and after the last
// one it has to answer.
type sending struct {
	io.ReadCloser
	w    *watch
	last time.Duration
}

func (s *sending) Read(p []byte) (int, error) {
	s.w.disarm()
	n, err := s.ReadCloser.Read(p)
	if err != nil {
		s.w.arm(s.last)
	} else {
		s.w.arm(max(2*s.w.stall, s.last/4))
	}
	return n, err
}
