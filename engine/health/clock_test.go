package health

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// calls notes who was called when.
type calls struct {
	mu  sync.Mutex
	all []string
}

func (c *calls) add(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, fmt.Sprintf(format, args...))
}

func (c *calls) sorted() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(slices.Values(c.all))
}

func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got calls
		start := time.Now()
		c := NewClock(func(_ context.Context, cid string) time.Time {
			got.add("%s %v", cid, time.Since(start))
			switch cid {
			case "once":
				return time.Time{}
			case "slow":
				time.Sleep(3 * time.Second)
			}
			return time.Now().Add(2 * time.Second)
		})
		defer c.Close()
		c.Set("every", start.Add(2*time.Second))
		c.Set("slow", start.Add(time.Second))
		c.Set("once", start.Add(5*time.Second))
		c.Set("dropped", start.Add(time.Second))
		c.Set("moved", start.Add(time.Hour))
		c.Drop("dropped")
		c.Drop("unknown")
		time.Sleep(6500 * time.Millisecond)
		c.Set("moved", start.Add(7*time.Second))
		time.Sleep(time.Second)
		synctest.Wait()
		want := []string{"slow 1s", "every 2s", "every 4s", "once 5s", "every 6s", "slow 6s", "moved 7s"}
		slices.Sort(want)
		if all := got.sorted(); !slices.Equal(all, want) {
			t.Errorf("%v\nwant %v", all, want)
		}
		if n := c.Len(); n != 3 {
			t.Errorf("%d wait", n)
		}
	})
}

// TestClockCallsOff drops and sets anew what is under way.
func TestClockCallsOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got calls
		c := NewClock(func(ctx context.Context, cid string) time.Time {
			got.add("%s", cid)
			<-ctx.Done()
			return time.Now() // not asked any more
		})
		c.Set("drop", time.Now())
		c.Set("set", time.Now())
		synctest.Wait()
		c.Drop("drop")
		c.Set("set", time.Now().Add(time.Second))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if want := []string{"drop", "set", "set"}; !slices.Equal(got.sorted(), want) {
			t.Errorf("%v, want %v", got.sorted(), want)
		}
		c.Drop("set")
		c.Set("set", time.Now().Add(time.Second)) // paused and unpaused while the call ends
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if len(got.sorted()) != 4 || c.Len() != 1 {
			t.Errorf("%v, %d", got.sorted(), c.Len())
		}
		c.Close()
		c.Set("late", time.Now())
		c.Close()
	})
}

// TestNoGoroutineEach holds ten thousand containers that wait.
func TestNoGoroutineEach(t *testing.T) {
	before := runtime.NumGoroutine()
	c := NewClock(func(context.Context, string) time.Time { return time.Time{} })
	defer c.Close()
	for i := range 10_000 {
		c.Set(fmt.Sprint(i), time.Now().Add(time.Hour+time.Duration(i*7919%10_000)))
	}
	if n := runtime.NumGoroutine(); n > before+2 {
		t.Errorf("%d goroutines more", n-before)
	}
	for i := range 10_000 {
		c.Drop(fmt.Sprint(i))
	}
	if c.Len() != 0 || len(c.queue) != 0 {
		t.Error("something stays")
	}
}

func BenchmarkClock(b *testing.B) {
	c := NewClock(func(context.Context, string) time.Time { return time.Time{} })
	defer c.Close()
	for i := range 1000 {
		c.Set(fmt.Sprint(i), time.Now().Add(time.Hour))
	}
	for b.Loop() {
		c.Set("x", time.Now().Add(time.Hour))
		c.Drop("x")
	}
}
