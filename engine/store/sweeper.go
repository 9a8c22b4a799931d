package store

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"
)

// sweeper deletes what removed containers have left, beside whoever removed them. It runs only while there is something: an idle
// engine has no goroutine of it. What a crash leaves is deleted by the next Open.
type sweeper struct {
	log *slog.Logger

	mu      sync.Mutex    // guards all below
	waiting []string      // the first is being deleted
	idle    chan struct{} // closed when nothing waits any more; nil: nothing does
	closed  bool
}

// sweepBacklog is how many directories may wait. Who removes faster than the disk can is slowed down to its pace.
const sweepBacklog = 128

// sweepPatience bounds how long the engine's end waits for what is still to be deleted.
const sweepPatience = 10 * time.Second

// take deletes a directory soon.
func (w *sweeper) take(dir string) {
	w.mu.Lock()
	full := len(w.waiting) >= sweepBacklog && !w.closed
	if !full {
		w.waiting = append(w.waiting, dir)
		if w.idle == nil && !w.closed {
			w.idle = make(chan struct{})
			go w.run()
		}
	}
	w.mu.Unlock()
	if full {
		w.delete(dir)
	}
}

// has reports whether a directory is still to be deleted.
func (w *sweeper) has(dir string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Contains(w.waiting, dir)
}

func (w *sweeper) run() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.waiting) > 0 && !w.closed {
		dir := w.waiting[0]
		w.mu.Unlock()
		w.delete(dir)
		w.mu.Lock()
		w.waiting = w.waiting[1:]
	}
	close(w.idle)
	w.idle = nil
}

// settle waits until what was taken is deleted.
func (w *sweeper) settle(ctx context.Context) error {
	w.mu.Lock()
	idle := w.idle
	w.mu.Unlock()
	if idle == nil {
		return nil
	}
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *sweeper) delete(dir string) {
	if err := os.RemoveAll(dir); err != nil {
		w.log.Warn("files of a removed container stay until the next start", "directory", dir, "error", err)
	}
}

// close waits, for a while, until everything is deleted. What is left then, or taken later, is for the next Open.
func (w *sweeper) close() {
	ctx, cancel := context.WithTimeout(context.Background(), sweepPatience)
	defer cancel()
	if err := w.settle(ctx); err != nil {
		w.log.Warn("files of removed containers stay until the next start")
	}
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
}
