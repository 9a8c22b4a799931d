package network

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"berth/base/fault"
	"berth/kernel/link"
)

// The kernel destroys network namespaces one after the other, about 470 a second, and a link takes it some milliseconds of
// waiting. Who leaves a network does not wait for that: his link is cut off at once, which is quick, and dies with its
// namespace. The reaper watches that they do, deletes those that do not, as when something else holds the namespace, and
// lets who makes new ones wait while too many old ones are still going.
const (
	reapEvery   = 25 * time.Millisecond
	reapPatient = time.Second // for the kernel to destroy the namespace, before the link is deleted
	reapGrace   = 10 * time.Second
	maxGoing    = 256 // half a second's worth
)

type reaper struct {
	conn *link.Conn
	log  *slog.Logger

	mu    sync.Mutex
	going []going
	room  *sync.Cond

	wake chan struct{}
	stop chan struct{}
	wg   sync.WaitGroup
}

// going is a link on its way out.
type going struct {
	name  string
	since time.Time
}

func startReaper(conn *link.Conn, log *slog.Logger) *reaper {
	r := &reaper{conn: conn, log: log, wake: make(chan struct{}, 1), stop: make(chan struct{})}
	r.room = sync.NewCond(&r.mu)
	r.wg.Go(r.run)
	return r
}

// add watches a link that is cut off and whose namespace is given up.
func (r *reaper) add(name string) {
	r.mu.Lock()
	r.going = append(r.going, going{name, time.Now()})
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// wait waits while too much is going away.
func (r *reaper) wait(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.going) < maxGoing {
		return nil
	}
	defer context.AfterFunc(ctx, r.room.Broadcast)()
	deadline := time.Now().Add(reapGrace)
	for len(r.going) >= maxGoing && ctx.Err() == nil && time.Now().Before(deadline) {
		r.room.Wait()
	}
	return ctx.Err()
}

// count is how many links are going.
func (r *reaper) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.going)
}

func (r *reaper) run() {
	for {
		select {
		case <-r.wake:
		case <-r.stop:
			return
		}
		for r.count() > 0 {
			select {
			case <-time.After(reapEvery):
			case <-r.stop:
				return
			}
			r.look()
		}
	}
}

// look forgets the links that are gone and deletes those that take too long. The oldest go first, so the first that is
// there and young ends the look.
func (r *reaper) look() {
	r.mu.Lock()
	list := r.going
	r.mu.Unlock()
	done := 0
	for _, g := range list {
		_, err := r.conn.ByName(g.name)
		if !fault.Is(err, fault.NotFound) {
			if time.Since(g.since) < reapPatient {
				break
			}
			if err := r.conn.Do(link.DeleteNamed(g.name).IfThere()); err != nil {
				r.log.Error("a link of a container that is gone stays", "link", g.name, "err", err)
			}
		}
		done++
	}
	r.mu.Lock()
	r.going = r.going[done:]
	r.mu.Unlock()
	r.room.Broadcast()
}

// close waits a moment for what is going, which the kernel destroys without us. What is there afterwards is the next
// engine's to find (sweepLinks).
func (r *reaper) close() {
	close(r.stop)
	r.wg.Wait()
	for end := time.Now().Add(reapPatient); r.count() > 0 && time.Now().Before(end); time.Sleep(reapEvery) {
		r.look()
	}
	r.mu.Lock()
	r.going = nil
	r.mu.Unlock()
	r.room.Broadcast()
}
