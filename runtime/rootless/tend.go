package rootless

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"berth/kernel/process"
)

// tender starts what carries packets again when it ends, as long as the namespaces are there: without it containers reach nobody, and nobody reaches
// them.
type tender struct {
	cfg  Config
	lead func(h *holder) // opens the way out; h.Network is the process then, or zero
	// Pauses between a start and the next one: first and longest.
	first, longest time.Duration

	mu   sync.Mutex // held over a start, so that none is under way when stop returns
	over bool       // guarded by mu
}

// newTender tends with the program that is found then: it may have been installed meanwhile.
func newTender(ctx context.Context, cfg Config) *tender {
	return &tender{cfg: cfg, first: time.Second, longest: time.Minute, lead: func(h *holder) { cfg.lead(ctx, h, findWayOut(ctx)) }}
}

// tend returns when the namespaces have ended, or after stop. It notices stop when what it watches ends, so nobody waits for it. Where nothing
// could be started at first, the next engine tries.
func (t *tender) tend(h holder) {
	if h.Network.PID <= 0 {
		return
	}
	pause := t.first
	for {
		began := time.Now()
		h.Network.await()
		if time.Since(began) > t.longest {
			pause = t.first
		}
		// `berth system shutdown` ends it, too, and has said so before.
		if Ended(t.cfg.ExecRoot) {
			return
		}
		time.Sleep(pause)
		pause = min(2*pause, t.longest)
		if !t.again(&h) {
			return
		}
	}
}

// again starts it; false: it is not wanted any more.
func (t *tender) again(h *holder) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return false
	}
	unlock, err := lock(t.cfg.ExecRoot)
	if err != nil {
		t.cfg.Log.Warn("what carries packets is not started again", "error", err)
		return false
	}
	defer unlock()
	now, ok := found(t.cfg.ExecRoot)
	if !ok || now.task != h.task {
		return false
	}
	if now.Network.alive() { // another engine of the same namespaces was faster
		*h = now
		return true
	}
	t.cfg.Log.Warn("what carries packets for containers has ended; it is started again")
	now.Network = task{}
	t.lead(&now)
	*h = now
	if Ended(t.cfg.ExecRoot) { // meanwhile
		now.Network.end()
		return false
	}
	if err := now.write(t.cfg.ExecRoot); err != nil {
		t.cfg.Log.Warn("who carries packets is not written down", "error", err)
	}
	return true
}

// stop lets what is under way end, and starts nothing any more.
func (t *tender) stop() {
	t.mu.Lock()
	t.over = true
	t.mu.Unlock()
}

// await returns when the process has ended, at once where there is none.
func (t task) await() {
	if t.PID <= 0 {
		return
	}
	fd, err := unix.PidfdOpen(t.PID, 0)
	if err != nil {
		return // gone
	}
	defer unix.Close(fd)
	if t.alive() {
		_, _ = process.Ended(fd, -1)
	}
}
