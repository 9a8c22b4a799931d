package event

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func names(ctx context.Context, s *Subscription, n int) (got []string) {
	for range n {
		e, ok := s.Next(ctx)
		if !ok {
			return got
		}
		got = append(got, e.Action)
	}
	return got
}

func TestOrderSinceAndFilter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(nil)
		start := time.Now()
		b.Publish(Event{Type: "container", Action: "old"})
		time.Sleep(time.Second)
		b.Publish(Event{Type: "container", Action: "create"})
		b.Publish(Event{Type: "image", Action: "load"})
		s := b.Subscribe(t.Context(), start.Add(time.Second), time.Time{}, func(e Event) bool { return e.Type == "container" })
		b.Publish(Event{Type: "container", Action: "start"})
		if got := fmt.Sprint(names(t.Context(), s, 2)); got != "[create start]" {
			t.Errorf("got %s", got)
		}
		now := b.Subscribe(t.Context(), time.Time{}, time.Time{}, nil)
		b.Publish(Event{Action: "die"})
		if got := fmt.Sprint(names(t.Context(), now, 1)); got != "[die]" {
			t.Errorf("without since: %s", got)
		}
		s.Close()
		now.Close()
	})
}

func TestTimesNeverRepeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(nil)
		for range 3 {
			b.Publish(Event{Action: "x"})
		}
		s := b.Subscribe(t.Context(), time.Unix(1, 0), time.Time{}, nil)
		defer s.Close()
		last := time.Time{}
		for range 3 {
			e, _ := s.Next(t.Context())
			if !e.Time.After(last) {
				t.Errorf("%v after %v", e.Time, last)
			}
			last = e.Time
		}
	})
}

func TestEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(nil)
		until := b.Subscribe(t.Context(), time.Time{}, time.Now().Add(time.Minute), nil)
		b.Publish(Event{Action: "in"})
		if got := fmt.Sprint(names(t.Context(), until, 5)); got != "[in]" {
			t.Errorf("until: %s", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		byCtx := b.Subscribe(ctx, time.Time{}, time.Time{}, nil)
		cancel()
		if _, ok := byCtx.Next(t.Context()); ok {
			t.Error("event after the context ended")
		}
		byBus := b.Subscribe(t.Context(), time.Time{}, time.Time{}, nil)
		b.Publish(Event{Action: "last"})
		b.Close()
		b.Publish(Event{Action: "never"})
		if got := fmt.Sprint(names(t.Context(), byBus, 5)); got != "[last]" {
			t.Errorf("bus closed: %s", got)
		}
		if len(b.subs) != 0 {
			t.Errorf("%d subscriptions left", len(b.subs))
		}
	})
}

func TestSlowListenerLosesOldest(t *testing.T) {
	b := New(nil)
	s := b.Subscribe(t.Context(), time.Time{}, time.Time{}, nil)
	defer s.Close()
	for i := range keptAlone + 10 {
		b.Publish(Event{Action: fmt.Sprint(i)})
	}
	if e, _ := s.Next(t.Context()); e.Action != "10" {
		t.Errorf("first is %s", e.Action)
	}
	if s.Lost() != 10 {
		t.Errorf("lost %d", s.Lost())
	}
	if len(b.ring) != keptAlone {
		t.Errorf("kept %d", len(b.ring))
	}
}

// Whoever closes gets what was published before and nothing of what comes after.
func TestClosedListenerIsDrained(t *testing.T) {
	b := New(nil)
	s := b.Subscribe(t.Context(), time.Time{}, time.Time{}, nil)
	b.Publish(Event{Action: "a"})
	s.Close()
	b.Publish(Event{Action: "b"})
	if got := fmt.Sprint(names(t.Context(), s, 5)); got != "[a]" {
		t.Errorf("got %s", got)
	}
}

// The wall clock is what listeners see. Go's times also carry the monotonic clock, by which the second one here is the later.
func TestClockThatIsSetBack(t *testing.T) {
	at := time.Now()
	var offset time.Duration
	b := New(func() time.Time { return at.Add(offset) })
	defer b.Close()
	s := b.Subscribe(t.Context(), time.Unix(1, 0), time.Time{}, nil)
	defer s.Close()
	told := func(by time.Duration) time.Time {
		t.Helper()
		offset = by
		b.Publish(Event{Action: "x"})
		e, _ := s.Next(t.Context())
		return e.Time
	}
	first := told(0)
	if first != first.Round(0) {
		t.Error("a time carries the monotonic clock: two of them are compared by that, and not as listeners do")
	}
	if got := told(-time.Second); got != first.Add(1) {
		t.Errorf("a second back: %v after %v", got, first)
	}
	if got := told(-time.Hour); got.After(first.Add(-time.Minute)) {
		t.Errorf("an hour back: %v, which would hold all events of an hour at one moment", got)
	}
}
