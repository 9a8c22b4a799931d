package wait

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Registry is what is under way in one process. Its methods may be called from many goroutines.
type Registry struct {
	mu  sync.Mutex
	all map[*Wait]struct{}
}

// New gives an empty registry.
func New() *Registry { return &Registry{all: map[*Wait]struct{}{}} }

// Wait is one piece of work.
type Wait struct {
	r        *Registry
	what, on string
	behind   string
	since    time.Time
	step     atomic.Pointer[step]
}

type step struct {
	name  string
	since time.Time
}

// Entry tells of one piece of work.
type Entry struct {
	What      string    `json:"what"`             // "start", "POST /containers/{name}/start"
	On        string    `json:"on,omitempty"`     // a container's id, a name; "" where it is about nothing in particular
	Behind    string    `json:"behind,omitempty"` // what it waits for before it can begin: another piece of work on the same
	Since     time.Time `json:"since"`
	Step      string    `json:"step,omitempty"`
	StepSince time.Time `json:"stepSince,omitzero"`
}

// Begin notes a piece of work. Its End takes it away again.
func (r *Registry) Begin(what, on string) *Wait { return r.BeginBehind(what, on, "") }

// BeginBehind notes somebody who waits until something else is done.
func (r *Registry) BeginBehind(what, on, behind string) *Wait {
	if r == nil {
		return nil
	}
	w := &Wait{r: r, what: what, on: on, behind: behind, since: time.Now()}
	r.mu.Lock()
	r.all[w] = struct{}{}
	r.mu.Unlock()
	return w
}

// End takes the work away. Ending twice is fine.
func (w *Wait) End() {
	if w == nil {
		return
	}
	w.r.mu.Lock()
	delete(w.r.all, w)
	w.r.mu.Unlock()
}

// Step names what is being done now.
func (w *Wait) Step(name string) {
	if w == nil {
		return
	}
	w.step.Store(&step{name, time.Now()})
}

// What is the name of the work and, where it is known, its step: "start (volumes)".
func (w *Wait) What() string {
	if w == nil {
		return ""
	}
	if s := w.step.Load(); s != nil {
		return w.what + " (" + s.name + ")"
	}
	return w.what
}

// Since is when it began.
func (w *Wait) Since() time.Time {
	if w == nil {
		return time.Time{}
	}
	return w.since
}

// List gives what has been under way for at least that long, the longest first.
func (r *Registry) List(atLeast time.Duration) []Entry {
	if r == nil {
		return nil
	}
	now := time.Now()
	r.mu.Lock()
	var list []Entry
	for w := range r.all {
		if now.Sub(w.since) < atLeast {
			continue
		}
		e := Entry{What: w.what, On: w.on, Behind: w.behind, Since: w.since}
		if s := w.step.Load(); s != nil {
			e.Step, e.StepSince = s.name, s.since
		}
		list = append(list, e)
	}
	r.mu.Unlock()
	slices.SortFunc(list, func(a, b Entry) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.What, b.What), cmp.Compare(a.On, b.On))
	})
	return list
}

type key struct{}

// With carries the work to where its steps are.
func With(ctx context.Context, w *Wait) context.Context {
	if w == nil {
		return ctx
	}
	return context.WithValue(ctx, key{}, w)
}

// From gives the work that ctx carries, or nil.
func From(ctx context.Context) *Wait {
	w, _ := ctx.Value(key{}).(*Wait)
	return w
}
