package solver

import (
	"context"
	"sync"

	own "berth/build/session"
)

// tasks is work that several may want at once: of each key it runs once, for as long as somebody waits for it.
// S is what those who wait share while it runs, T what it gives.
type tasks[K comparable, S, T any] struct {
	take func(T) T // a waiter's own share of the result; nil: the result itself
	drop func(T)   // the result's last own hold is given up; nil: there is none

	mu      sync.Mutex
	running map[K]*task[S, T]
	closed  bool
	all     sync.WaitGroup
}

type task[S, T any] struct {
	shared  S
	cancel  context.CancelCauseFunc
	done    chan struct{}
	waiters int // guarded by tasks.mu, as what follows
	ended   bool
	val     T
	err     error
}

// do waits for the task of a key and starts it with f if it does not run. open makes what is shared, by the first; join
// is called with it by each who waits and gives what to call when he waits no more. The task's context ends when nobody
// waits any more; who comes then starts it anew. While it runs somebody has always joined: f begins after the first has, and
// one who comes has before the last goes. A step asks those for secrets, and nobody means that there are none.
func (g *tasks[K, S, T]) do(ctx context.Context, key K, open func() S, join func(S) (leave func()), f func(context.Context, S) (T, error)) (T, error) {
	var none T
	if err := ctx.Err(); err != nil {
		return none, context.Cause(ctx)
	}
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return none, context.Canceled
	}
	t := g.running[key]
	begin := func() {}
	if t == nil {
		t, begin = g.start(ctx, key, open, f)
	}
	t.waiters++
	if join != nil {
		defer join(t.shared)()
	}
	begin()
	g.mu.Unlock()
	defer g.leave(key, t)
	select {
	case <-t.done:
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
	if g.take != nil {
		return g.take(t.val), t.err
	}
	return t.val, t.err
}

// start makes a task and gives what begins it. Its context has the values of the one who started it, but not his end. The caller holds mu until
// he has begun it.
func (g *tasks[K, S, T]) start(ctx context.Context, key K, open func() S, f func(context.Context, S) (T, error)) (_ *task[S, T], begin func()) {
	inner, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	t := &task[S, T]{cancel: cancel, done: make(chan struct{})}
	if open != nil {
		t.shared = open()
	}
	if g.running == nil {
		g.running = map[K]*task[S, T]{}
	}
	g.running[key] = t
	work := func() {
		val, err := survive(inner, t.shared, f)
		cancel(nil)
		g.mu.Lock()
		t.val, t.err, t.ended = val, err, true
		unwanted := t.waiters == 0
		if g.running[key] == t {
			delete(g.running, key)
		}
		g.mu.Unlock()
		close(t.done)
		if unwanted && g.drop != nil {
			g.drop(val)
		}
	}
	return t, func() { g.all.Go(work) }
}

// survive runs f; its panic is its error, for nobody stands between it and the end of the engine.
func survive[S, T any](ctx context.Context, shared S, f func(context.Context, S) (T, error)) (val T, err error) {
	defer own.Survive(&err)
	return f(ctx, shared)
}

// leave is called once by each waiter. The last one ends a task that still runs.
func (g *tasks[K, S, T]) leave(key K, t *task[S, T]) {
	g.mu.Lock()
	t.waiters--
	last, ended := t.waiters == 0, t.ended
	if last && !ended && g.running[key] == t {
		delete(g.running, key)
	}
	g.mu.Unlock()
	switch {
	case !last:
	case !ended:
		t.cancel(context.Canceled)
	case g.drop != nil:
		g.drop(t.val)
	}
}

// close ends all tasks, waits for them and lets none begin.
func (g *tasks[K, S, T]) close() {
	g.mu.Lock()
	g.closed = true
	for _, t := range g.running {
		t.cancel(context.Canceled)
	}
	g.mu.Unlock()
	g.all.Wait()
}
