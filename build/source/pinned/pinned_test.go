package pinned

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

type live struct {
	mu  sync.Mutex
	ids []string
}

func (l *live) Sessions() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.ids)
}

func (l *live) set(ids ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ids = ids
}

func TestMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &live{ids: []string{"a", "b"}}
		var dropped []int
		m := New(l, func(v int) { dropped = append(dropped, v) })
		made := 0
		get := func(want int, kept bool, sessions ...string) {
			t.Helper()
			v, k, err := m.Get(t.Context(), sessions, "name", func() (int, error) { made++; return made, nil })
			if err != nil || v != want || k != kept {
				t.Errorf("%d, %v, %v; want %d, %v", v, k, err, want, kept)
			}
		}
		get(1, true, "a")
		get(1, true, "a", "b") // b takes part in what a was told
		get(1, true, "b")
		get(2, true, "later") // a session that has not come yet
		get(3, false)

		time.Sleep(grace - time.Second)
		get(2, true, "later")
		l.set("b", "later")
		time.Sleep(2 * grace)
		synctest.Wait()
		if len(dropped) != 0 {
			t.Errorf("dropped %v", dropped)
		}
		get(1, true, "b")
		l.set()
		time.Sleep(2 * grace)
		synctest.Wait()
		slices.Sort(dropped)
		if !slices.Equal(dropped, []int{1, 2}) || m.timer != nil || len(m.bySession) != 0 {
			t.Errorf("dropped %v, left %v", dropped, m.bySession)
		}
	})
}

func TestMadeOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &live{ids: []string{"a"}}
		m := New[int](l, nil)
		made := 0
		fail := errors.New("first try")
		var wg sync.WaitGroup
		var failed int
		for range 10 {
			wg.Go(func() {
				_, _, err := m.Get(t.Context(), []string{"a"}, "x", func() (int, error) {
					time.Sleep(time.Second)
					if made++; made == 1 {
						return 0, fail
					}
					return made, nil
				})
				if err != nil {
					failed++ // one at a time: they take turns
				}
			})
		}
		wg.Wait()
		if made != 2 || failed != 1 {
			t.Errorf("made %d times, failed %d", made, failed)
		}
		l.set()
		time.Sleep(2 * grace)
	})
}

// A session that ends while its value is being made: the value is who made it's.
func TestEndsMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(&live{}, func(int) { t.Error("dropped what is not the memory's") })
		_, kept, err := m.Get(t.Context(), []string{"a"}, "x", func() (int, error) { time.Sleep(3 * grace); return 1, nil })
		if kept || err != nil {
			t.Errorf("%v, %v", kept, err)
		}
	})
}
