package event

import (
	"context"
	"sync"
	"time"
)

// Kept is how many past events a Bus remembers.
const Kept = 256

// queueMax bounds the events that wait for one slow listener.
const queueMax = 8192

// Event says that Action happened to a thing.
type Event struct {
	Type       string // "container", "image", "network", "volume", "daemon" …
	Action     string // "create", "start", "die", "exec_create: sh -c true" …
	ID         string
	Attributes map[string]string // read only for everybody once published
	Time       time.Time
}

// Bus passes events on. The zero value is not ready; use New.
type Bus struct {
	now func() time.Time

	mu    sync.Mutex // guards all below; held for memory only
	past  []Event    // at most Kept, oldest first
	subs  map[*Subscription]struct{}
	close bool
}

// New makes a Bus. now tells the time, time.Now if nil.
func New(now func() time.Time) *Bus {
	if now == nil {
		now = time.Now
	}
	return &Bus{now: now, subs: map[*Subscription]struct{}{}}
}

// Publish hands e to every listener whose filter takes it. It never blocks. A zero Time becomes now; times never go backwards,
// so that a listener may resume from the last one it saw.
func (b *Bus) Publish(e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.close {
		return
	}
	if e.Time.IsZero() {
		e.Time = b.now()
	}
	if n := len(b.past); n > 0 && !e.Time.After(b.past[n-1].Time) {
		e.Time = b.past[n-1].Time.Add(1)
	}
	if len(b.past) == Kept {
		b.past = append(b.past[:0:0], b.past[1:]...)
	}
	b.past = append(b.past, e)
	for s := range b.subs {
		s.offer(e)
	}
}

// Subscribe listens to events that match (all if match is nil). Remembered events from since on come first when since is not zero.
// With a non-zero until the subscription ends at that moment. It also ends with ctx, with the Bus, and by Close.
func (b *Bus) Subscribe(ctx context.Context, since, until time.Time, match func(Event) bool) *Subscription {
	s := &Subscription{bus: b, match: match, until: until, wake: make(chan struct{}, 1), ended: make(chan struct{})}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !until.IsZero() {
		s.timer = time.AfterFunc(until.Sub(b.now()), s.Close)
	}
	s.stop = context.AfterFunc(ctx, s.Close)
	if !since.IsZero() {
		for _, e := range b.past {
			if !e.Time.Before(since) {
				s.offer(e)
			}
		}
	}
	if b.close {
		s.end()
	} else {
		b.subs[s] = struct{}{}
	}
	return s
}

// Close ends every subscription; later events are dropped.
func (b *Bus) Close() {
	b.mu.Lock()
	subs := b.subs
	b.subs, b.close = map[*Subscription]struct{}{}, true
	b.mu.Unlock()
	for s := range subs {
		s.end()
	}
}

// Subscription is one listener's queue.
type Subscription struct {
	bus   *Bus
	match func(Event) bool
	until time.Time
	timer *time.Timer
	stop  func() bool

	wake  chan struct{} // holds one token when the queue may have something
	once  sync.Once
	ended chan struct{}

	mu    sync.Mutex // guards queue and lost
	queue []Event
	lost  int
}

// offer queues e; the oldest event gives way when the queue is full.
func (s *Subscription) offer(e Event) {
	if s.match != nil && !s.match(e) || !s.until.IsZero() && e.Time.After(s.until) {
		return
	}
	s.mu.Lock()
	if len(s.queue) == queueMax {
		s.queue = s.queue[1:]
		s.lost++
	}
	s.queue = append(s.queue, e)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Next gives the next event, waiting for one. It reports false once the subscription has ended and its queue is empty, or ctx ended.
func (s *Subscription) Next(ctx context.Context) (Event, bool) {
	for {
		if e, ok := s.take(); ok {
			return e, true
		}
		select {
		case <-s.wake:
		case <-s.ended:
			return s.take()
		case <-ctx.Done():
			return Event{}, false
		}
	}
}

func (s *Subscription) take() (Event, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return Event{}, false
	}
	e := s.queue[0]
	s.queue = s.queue[1:]
	return e, true
}

// Lost tells how many events the listener missed because it read too slowly.
func (s *Subscription) Lost() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost
}

// Close ends the subscription. It may be called more than once and from anywhere.
func (s *Subscription) Close() {
	s.bus.mu.Lock()
	delete(s.bus.subs, s)
	s.bus.mu.Unlock()
	s.end()
}

func (s *Subscription) end() {
	s.once.Do(func() {
		close(s.ended)
		s.stop()
		if s.timer != nil {
			s.timer.Stop()
		}
	})
}
