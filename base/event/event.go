package event

import (
	"context"
	"sync"
	"time"
)

// Kept is how many past events a Bus with a Journal remembers in memory; the rest is on disk.
const Kept = 1024

// keptAlone is the same for a Bus without a Journal.
const keptAlone = 8192

// Event says that Action happened to a thing.
type Event struct {
	Type       string // "container", "image", "network", "volume", "daemon" …
	Action     string // "create", "start", "die", "exec_create: sh -c true" …
	ID         string
	Attributes map[string]string // read only for everybody once published
	Time       time.Time
}

// Bus passes events on. The zero value is not ready; use New or NewDurable.
type Bus struct {
	now     func() time.Time
	journal *Journal // nil: only memory remembers
	kept    int      // events in memory, at most

	mu      sync.Mutex // guards all below; held for memory only
	ring    []Event    // the event of number n is at (n-base) % kept
	base    uint64     // number of the first event of this process
	next    uint64     // number that the next event gets
	last    time.Time  // of the last event
	changed chan struct{}
	subs    map[*Subscription]struct{}
	close   bool
}

// New makes a Bus that remembers in memory only. now tells the time, time.Now if nil.
func New(now func() time.Time) *Bus { return newBus(now, nil, keptAlone) }

// NewDurable makes a Bus that goes on where j ends. The Bus owns j from now on and closes it.
func NewDurable(now func() time.Time, j *Journal) *Bus { return newBus(now, j, Kept) }

func newBus(now func() time.Time, j *Journal, kept int) *Bus {
	if now == nil {
		now = time.Now
	}
	b := &Bus{now: now, journal: j, kept: kept, subs: map[*Subscription]struct{}{}}
	if j != nil {
		b.base, b.last = j.end()
		b.next = b.base
	}
	return b
}

// clockJump is how far the clock may be set back without the order of times being given up. Beyond it the clock was far ahead once and is
// right again: going on from there would give all events of the next years one moment.
const clockJump = 5 * time.Minute

// Publish hands e to every listener. It never blocks. A zero Time becomes now; times never go backwards (but see clockJump), so that a
// listener may resume from the last one it saw.
func (b *Bus) Publish(e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.close {
		return
	}
	if e.Time.IsZero() {
		e.Time = b.now()
	}
	e.Time = e.Time.Round(0) // listeners see the wall clock: the monotonic one, which is never set back, must not decide
	if !e.Time.After(b.last) && b.last.Sub(e.Time) <= clockJump {
		e.Time = b.last.Add(1)
	}
	b.last = e.Time
	if len(b.ring) < b.kept {
		b.ring = append(b.ring, e)
	} else {
		b.ring[int((b.next-b.base)%uint64(b.kept))] = e
	}
	if b.journal != nil {
		b.journal.put(b.next, e)
	}
	b.next++
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
}

// oldest is the number of the oldest event in memory; mu is held.
func (b *Bus) oldest() uint64 { return b.next - uint64(len(b.ring)) }

func (b *Bus) at(n uint64) Event { return b.ring[int((n-b.base)%uint64(b.kept))] }

// Subscribe listens to events that match (all if match is nil). Those that are kept from since on come first when since is not zero.
// With a non-zero until the subscription ends at that moment. It also ends with ctx, with the Bus, and by Close.
func (b *Bus) Subscribe(ctx context.Context, since, until time.Time, match func(Event) bool) *Subscription {
	s := &Subscription{bus: b, match: match, since: since, until: until, ended: make(chan struct{})}
	b.mu.Lock()
	defer b.mu.Unlock()
	s.next, s.live = b.next, b.next
	if !since.IsZero() {
		s.next = b.oldest()
		// What is older than memory is looked for by whoever reads: it takes time.
		s.seek = b.journal != nil && (len(b.ring) == 0 || !b.at(s.next).Time.Before(since))
	}
	if !until.IsZero() {
		s.timer = time.AfterFunc(until.Sub(b.now()), s.Close)
	}
	s.stop = context.AfterFunc(ctx, s.Close)
	if b.close {
		s.end()
	} else {
		b.subs[s] = struct{}{}
	}
	return s
}

// Count tells how many events this process has published, and how many listeners there are.
func (b *Bus) Count() (published uint64, listeners int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.next - b.base, len(b.subs)
}

// Close ends every subscription, drops later events and brings the journal to disk.
func (b *Bus) Close() {
	b.mu.Lock()
	subs := b.subs
	b.subs, b.close = map[*Subscription]struct{}{}, true
	b.mu.Unlock()
	for s := range subs {
		s.end()
	}
	if b.journal != nil {
		b.journal.Close()
	}
}

// Subscription is one listener's place among the events. One goroutine reads from it; Close may be called from anywhere.
type Subscription struct {
	bus          *Bus
	match        func(Event) bool
	since, until time.Time
	live         uint64 // number of the first event after Subscribe
	timer        *time.Timer
	stop         func() bool

	once  sync.Once
	ended chan struct{}
	limit uint64 // once ended is closed: number of the first event that is not this listener's

	// Of the goroutine that reads.
	next uint64 // number of the event that is looked at next
	seek bool   // next is still to be found in the journal, by since
	file *cursor

	mu   sync.Mutex // guards lost
	lost int
}

// Next gives the next event, waiting for one. It reports false once the subscription has ended and everything of its time was given, or
// ctx ended.
func (s *Subscription) Next(ctx context.Context) (Event, bool) {
	for {
		e, wait := s.take()
		if wait == nil {
			return e, true
		}
		select {
		case <-wait:
		case <-s.ended:
			// What was published before the end is given all the same.
			e, wait := s.take()
			if wait != nil {
				s.file.close()
				s.file = nil
			}
			return e, wait == nil
		case <-ctx.Done():
			return Event{}, false
		}
	}
}

// take gives the next event that fits. Where there is none yet, wait is closed when one may have come.
func (s *Subscription) take() (_ Event, wait <-chan struct{}) {
	b := s.bus
	if s.seek {
		s.seek = false
		s.file = b.journal.cursor()
		// First what is not on disk yet: what comes there in between is found there.
		n, found := b.journal.waitingSince(s.since)
		if found {
			s.next = min(s.next, n)
		}
		if n, found = s.file.seek(s.since); found {
			s.next = min(s.next, n)
		}
	}
	for {
		b.mu.Lock()
		end, oldest := b.next, b.oldest()
		if s.limit > 0 {
			end = min(end, s.limit-1)
		}
		if s.next >= end {
			if b.changed == nil {
				b.changed = make(chan struct{})
			}
			wait := b.changed
			b.mu.Unlock()
			return Event{}, wait
		}
		if s.next < oldest {
			b.mu.Unlock()
			if e, ok := s.past(min(oldest, end)); ok && s.fits(e) {
				return e, nil
			}
			continue
		}
		e := b.at(s.next)
		s.next++
		b.mu.Unlock()
		if s.file != nil { // caught up
			s.file.close()
			s.file = nil
		}
		if s.fits(e) {
			return e, nil
		}
	}
}

// past reads one event of before limit from the journal. What is not there any more is counted, and passed over.
func (s *Subscription) past(limit uint64) (Event, bool) {
	if s.bus.journal != nil {
		if s.file == nil {
			s.file = s.bus.journal.cursor()
		}
		n, e, ok := s.file.read(s.next, limit)
		if !ok || n > s.next { // it may wait for the disk, or have come there just now
			if wn, we, waits := s.bus.journal.waiting(s.next, limit); waits && (!ok || wn < n) {
				s.file.giveBack(n, e, ok)
				n, e, ok = wn, we, true
			} else if !ok {
				n, e, ok = s.file.read(s.next, limit)
			}
		}
		if ok {
			s.miss(n - s.next)
			s.next = n + 1
			return e, true
		}
	}
	s.miss(limit - s.next)
	s.next = limit
	return Event{}, false
}

// fits reports whether the event just read is one for this listener.
func (s *Subscription) fits(e Event) bool {
	if !s.since.IsZero() && s.next <= s.live && e.Time.Before(s.since) {
		return false
	}
	return (s.until.IsZero() || !e.Time.After(s.until)) && (s.match == nil || s.match(e))
}

func (s *Subscription) miss(n uint64) {
	if n == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost += int(n)
}

// Lost tells how many events the listener could not be given because they are not kept any more.
func (s *Subscription) Lost() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost
}

// Close ends the subscription. It may be called more than once and from anywhere.
func (s *Subscription) Close() {
	s.bus.mu.Lock()
	delete(s.bus.subs, s)
	if s.limit == 0 {
		s.limit = s.bus.next + 1
	}
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
