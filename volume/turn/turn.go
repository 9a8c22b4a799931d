// Package turn lets one caller at a time work on a name, and lets those who wait give up with their context. It guards long work,
// not memory: who only reads or changes memory takes a mutex.
package turn

import (
	"context"
	"slices"
	"sync"
)

// Turns gives one caller at a time the turn to work on a name. The zero value is ready.
type Turns struct {
	mu   sync.Mutex
	held map[string]*turn
}

type turn struct {
	token chan struct{} // holds one value while nobody has the turn
	users int           // who has it or waits for it
}

// Take waits for the turns of all names, in an order that cannot lock two callers out of each other's, and gives what ends them.
func (t *Turns) Take(ctx context.Context, names ...string) (release func(), err error) {
	slices.Sort(names)
	names = slices.Compact(names)
	var have []string
	release = func() {
		for _, n := range have {
			t.end(n)
		}
	}
	for _, n := range names {
		if err := t.begin(ctx, n); err != nil {
			release()
			return nil, err
		}
		have = append(have, n)
	}
	return release, nil
}

func (t *Turns) begin(ctx context.Context, name string) error {
	t.mu.Lock()
	one := t.held[name]
	if one == nil {
		one = &turn{token: make(chan struct{}, 1)}
		one.token <- struct{}{}
		if t.held == nil {
			t.held = map[string]*turn{}
		}
		t.held[name] = one
	}
	one.users++
	t.mu.Unlock()
	select {
	case <-one.token:
		return nil
	case <-ctx.Done():
		t.forget(name, one)
		return ctx.Err()
	}
}

func (t *Turns) end(name string) {
	t.mu.Lock()
	one := t.held[name]
	t.mu.Unlock()
	one.token <- struct{}{}
	t.forget(name, one)
}

func (t *Turns) forget(name string, one *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if one.users--; one.users == 0 {
		delete(t.held, name)
	}
}
