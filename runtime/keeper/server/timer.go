package server

import (
	"container/heap"
	"time"
)

// timers are functions to be called by the loop at a time.
type timers struct{ h timerHeap }

type timer struct {
	at    time.Time
	fn    func()
	index int // in the heap; -1: fired or stopped
}

func (t *timers) after(d time.Duration, fn func()) *timer {
	x := &timer{at: time.Now().Add(d), fn: fn}
	heap.Push(&t.h, x)
	return x
}

// stop prevents the call; a nil or fired timer is fine.
func (t *timers) stop(x *timer) {
	if x != nil && x.index >= 0 {
		heap.Remove(&t.h, x.index)
	}
}

// timeout gives the milliseconds until the next call, rounded up, -1 when there is none.
func (t *timers) timeout() int {
	if len(t.h) == 0 {
		return -1
	}
	d := time.Until(t.h[0].at)
	if d <= 0 {
		return 0
	}
	return int(d/time.Millisecond) + 1
}

// due removes and gives the next function whose time has come, or nil.
func (t *timers) due(now time.Time) func() {
	if len(t.h) == 0 || t.h[0].at.After(now) {
		return nil
	}
	return heap.Pop(&t.h).(*timer).fn
}

type timerHeap []*timer

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *timerHeap) Push(x any) {
	t := x.(*timer)
	t.index = len(*h)
	*h = append(*h, t)
}
func (h *timerHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = nil
	t.index = -1
	*h = old[:len(old)-1]
	return t
}
