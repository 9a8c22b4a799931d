package solver

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"

	digest "github.com/opencontainers/go-digest"
)

// A step that nobody waits for any more, and that has not begun yet, leaves alone what the build held, which is closed by then.
func TestCancelledBeforeItBegan(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // it begins when the test waits for it
	w := newStores(t).open()
	defer w.shut()
	w.sources["base"] = &fakeSource{chain: w.pool[:1]}
	w.steps["run"] = func(s *step) { s.err = context.Canceled }
	b := w.Begin(BuildConfig{})
	ref, err := b.Ref(script(t, "base = source\nrun = step base"))
	if err != nil {
		t.Fatal(err)
	}
	op, err := ref.n.operation()
	if err != nil {
		t.Fatal(err)
	}
	ins, err := ref.n.resolve(t.Context(), func(int) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	ctx := &askedOnce{Context: context.Background(), done: make(chan struct{})}
	if _, err := ref.n.run(ctx, op, ins, []digest.Digest{quickKey(op.Key(), ins.identities)}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	b.Close()
	w.Solver.Close()
	if got := w.layers.Holds(w.pool[0]); got != 1 {
		t.Errorf("the base is held %d times, not once", got)
	}
}

// askedOnce is a context that ends when it has said once that it has not.
type askedOnce struct {
	context.Context
	done chan struct{}
	once sync.Once
}

func (a *askedOnce) Done() <-chan struct{} { return a.done }

func (a *askedOnce) Err() (err error) {
	err = context.Canceled
	a.once.Do(func() {
		err = nil
		close(a.done)
	})
	return err
}
