package exec

import (
	"io"
	"sync"
)

// tail keeps the last output of a process, both streams as they came.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

// tee passes what is written on to w and keeps its end.
func (t *tail) tee(w io.Writer) io.Writer {
	if w == nil {
		w = io.Discard
	}
	return tee{t, w}
}

// String gives the end of the output, at most TailSize bytes.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf[max(0, len(t.buf)-TailSize):])
}

type tee struct {
	t *tail
	w io.Writer
}

// Write keeps p's end and writes p.
func (w tee) Write(p []byte) (int, error) {
	w.t.add(p)
	return w.w.Write(p)
}

func (t *tail) add(p []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p = p[max(0, len(p)-TailSize):]
	if len(t.buf)+len(p) > 2*TailSize {
		t.buf = append(t.buf[:0], t.buf[max(0, len(t.buf)-TailSize):]...)
	}
	t.buf = append(t.buf, p...)
}
