package volume

import (
	"context"
	"slices"
	"sync"
)

// turns gives one caller at a time the turn to work on a name.
type turns struct {
	mu   sync.Mutex
	held map[string]*turn
}

type turn struct {
	token chan struct{} // holds one value while nobody has the turn
	users int           // who has it or waits for it
}

// take waits for the turns of all names, in an order that cannot lock two callers out of each other's, and gives what ends them.
func (t *turns) take(ctx context.Context, names ...string) (release func(), err error) {
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

func (t *turns) begin(ctx context.Context, name string) error {
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

func (t *turns) end(name string) {
	t.mu.Lock()
	one := t.held[name]
	t.mu.Unlock()
	one.token <- struct{}{}
	t.forget(name, one)
}

func (t *turns) forget(name string, one *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if one.users--; one.users == 0 {
		delete(t.held, name)
	}
}
