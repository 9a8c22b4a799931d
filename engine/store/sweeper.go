package store

import (
	"log/slog"
	"os"
	"slices"
	"sync"
)

// sweeper deletes what removed containers have left, beside whoever removed them. It runs only while there is something: an idle
// engine has no goroutine of it. What a crash leaves is deleted by the next Open.
type sweeper struct {
	log  *slog.Logger
	work sync.WaitGroup

	mu      sync.Mutex // guards all below
	waiting []string   // the first is being deleted
	running bool
}

// sweepBacklog is how many directories may wait. Who removes faster than the disk can is slowed down to its pace.
const sweepBacklog = 128

// take deletes a directory soon.
func (w *sweeper) take(dir string) {
	w.mu.Lock()
	full := len(w.waiting) >= sweepBacklog
	if !full {
		w.waiting = append(w.waiting, dir)
		if !w.running {
			w.running = true
			w.work.Go(w.run)
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
	for len(w.waiting) > 0 {
		dir := w.waiting[0]
		w.mu.Unlock()
		w.delete(dir)
		w.mu.Lock()
		w.waiting = w.waiting[1:]
	}
	w.running = false
}

func (w *sweeper) delete(dir string) {
	if err := os.RemoveAll(dir); err != nil {
		w.log.Warn("files of a removed container stay until the next start", "directory", dir, "error", err)
	}
}

// close waits until everything is deleted. Nothing is taken any more.
func (w *sweeper) close() { w.work.Wait() }
