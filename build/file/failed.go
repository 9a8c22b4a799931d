package file

import (
	"context"
	"sync"

	"berth/base/fault"
	"berth/build/snapshot"
)

// Failed is the error of an action: which one of its op it was, counted from 0. It keeps the file trees of the op as the actions left them, for who
// wants to look at them, until Release.
type Failed struct {
	Action int
	Err    error

	mu      sync.Mutex
	inputs  int
	results []result // by number: inputs, and behind them actions; none once they are gone
}

// Error is the text of the cause.
func (f *Failed) Error() string { return f.Err.Error() }

// Unwrap gives the cause.
func (f *Failed) Unwrap() error { return f.Err }

// failed says which action an error is of. The innermost action is the one.
func (r *run) failed(n int, err error) error {
	if err == nil {
		return nil
	}
	if _, known := err.(*Failed); known {
		return err
	}
	return &Failed{Action: n - r.inputs, Err: err}
}

// keep takes what the run has over from it.
func (f *Failed) keep(r *run) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inputs, f.results = r.inputs, r.results
	for i := range f.inputs {
		f.results[i].snap = f.results[i].snap.Share()
	}
	r.results = nil
}

// Trees tells how many file trees there may be: of inputs, and of actions.
func (f *Failed) Trees() (inputs, actions int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.inputs, len(f.results) - f.inputs
}

// Input gives the tree of the op's i-th input, or nil. The snapshot is the caller's.
func (f *Failed) Input(i int) *snapshot.Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	if i < 0 || i >= f.inputs || f.results[i].snap == nil {
		return nil
	}
	return f.results[i].snap.Share()
}

// Mount gives the tree that the i-th action has worked on as it left it, and nil for one that was not begun, or whose tree another has gone on with.
// The snapshot is the caller's. What was written is made a layer when it is first asked for.
func (f *Failed) Mount(ctx context.Context, i int) (*snapshot.Snapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case len(f.results) == 0:
		return nil, fault.New(fault.NotFound, "the state of the failed step is gone with its build")
	case i < 0 || f.inputs+i >= len(f.results):
		return nil, fault.New(fault.Invalid, "the failed step has no action %d", i)
	}
	s, err := f.results[f.inputs+i].seal(ctx)
	if err != nil || s == nil {
		return nil, fault.In(err, "keep what file action %d left", i)
	}
	return s.Share(), nil
}

// Release gives the trees up. A second call does nothing.
func (f *Failed) Release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.results {
		f.results[i].end()
	}
	f.results, f.inputs = nil, 0
}
