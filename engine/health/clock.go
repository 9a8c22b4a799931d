package health

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// Clock calls a function for each container at its time. One goroutine waits for the earliest of all; another one exists for each call
// under way. A container's calls never overlap.
type Clock struct {
	call func(ctx context.Context, cid string) time.Time

	mu    sync.Mutex // guards all below; held for memory only
	items map[string]*item
	queue queue
	woken chan struct{} // has room for one: the earliest time changed
	done  chan struct{}
	ended bool
	work  sync.WaitGroup
}

// item is one container.
type item struct {
	cid   string
	at    time.Time
	index int // in the queue; -1: its call is under way, or it was dropped

	cancel  context.CancelFunc // of the call under way; nil: none
	dropped bool               // during the call: nothing follows, unless Set comes
	next    time.Time          // what Set said during the call
}

// NewClock makes a Clock and starts it. call gives when the container's next call is due; the zero time is never. Its ctx ends when the
// container is dropped.
func NewClock(call func(ctx context.Context, cid string) time.Time) *Clock {
	c := &Clock{call: call, items: map[string]*item{}, woken: make(chan struct{}, 1), done: make(chan struct{})}
	c.work.Go(c.run)
	return c
}

// Set has the container's next call made at a moment, whatever was said before. A call under way is called off.
func (c *Clock) Set(cid string, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	i := c.items[cid]
	switch {
	case i == nil:
		i = &item{cid: cid, at: at}
		c.items[cid] = i
		heap.Push(&c.queue, i)
	case i.cancel != nil:
		i.cancel()
		i.dropped, i.next = true, at
		return
	default:
		i.at = at
		heap.Fix(&c.queue, i.index)
	}
	c.wake()
}

// Drop makes no more calls for a container and calls off the one under way.
func (c *Clock) Drop(cid string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := c.items[cid]
	if i == nil {
		return
	}
	if i.cancel != nil {
		i.cancel()
		i.dropped, i.next = true, time.Time{}
		return
	}
	heap.Remove(&c.queue, i.index)
	delete(c.items, cid)
}

// Len is how many containers have a call to come or under way.
func (c *Clock) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.items)
}

// Close calls off what is under way and waits for it.
func (c *Clock) Close() {
	c.mu.Lock()
	if !c.ended {
		c.ended = true
		close(c.done)
		for _, i := range c.items {
			if i.cancel != nil {
				i.cancel()
			}
		}
	}
	c.mu.Unlock()
	c.work.Wait()
}

func (c *Clock) wake() {
	select {
	case c.woken <- struct{}{}:
	default:
	}
}

func (c *Clock) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(c.begin())
		select {
		case <-timer.C:
		case <-c.woken:
		case <-c.done:
			return
		}
	}
}

// begin starts the calls that are due and gives how long there is none.
func (c *Clock) begin() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for len(c.queue) > 0 && !c.ended {
		if wait := c.queue[0].at.Sub(now); wait > 0 {
			return wait
		}
		i := heap.Pop(&c.queue).(*item)
		ctx, cancel := context.WithCancel(context.Background())
		i.cancel = cancel
		c.work.Go(func() { c.one(ctx, i) })
	}
	return time.Hour
}

// one makes one call.
func (c *Clock) one(ctx context.Context, i *item) {
	at := c.call(ctx, i.cid)
	c.mu.Lock()
	defer c.mu.Unlock()
	i.cancel()
	i.cancel = nil
	if i.dropped {
		at = i.next
	}
	i.dropped, i.next = false, time.Time{}
	if at.IsZero() || c.ended {
		delete(c.items, i.cid)
		return
	}
	i.at = at
	heap.Push(&c.queue, i)
	if i.index == 0 {
		c.wake()
	}
}

// queue is a heap of items by time.
type queue []*item

// Len is part of heap.Interface.
func (q queue) Len() int { return len(q) }

// Less is part of heap.Interface.
func (q queue) Less(a, b int) bool { return q[a].at.Before(q[b].at) }

// Swap is part of heap.Interface.
func (q queue) Swap(a, b int) {
	q[a], q[b] = q[b], q[a]
	q[a].index, q[b].index = a, b
}

// Push is part of heap.Interface.
func (q *queue) Push(x any) {
	i := x.(*item)
	i.index = len(*q)
	*q = append(*q, i)
}

// Pop is part of heap.Interface.
func (q *queue) Pop() any {
	old := *q
	i := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	i.index = -1
	return i
}
