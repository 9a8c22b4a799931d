package build

import (
	"context"
	"slices"
	"time"

	"berth/base/fault"
	"berth/base/id"
	"berth/build/frontend"
	"berth/build/progress"
)

const (
	// entryPatience is how long who asks for a build by its id waits for it: clients ask for the status of a build and
	// start it at the same time.
	entryPatience = 5 * time.Second
	// keepFinished is how many builds that are over can still be followed from memory.
	keepFinished = 8
)

// running is a build under way.
type running struct {
	id     string
	hub    *progress.Hub
	cancel context.CancelCauseFunc
	bridge *frontend.Bridge // of a build whose frontend runs at the client; set before it is entered
	policy *policy          // what the client says to each source; nil: it is not asked. Set like bridge
	ready  chan struct{}    // closed once bridge is set or never will be
}

// enter registers a build, so that others find it by its id.
func (b *Builder) enter(ctx context.Context, name string) (*running, context.Context, error) {
	if name == "" {
		name = id.New()[:25]
	}
	ctx, cancel := context.WithCancelCause(ctx)
	r := &running{id: name, hub: progress.NewHub(), cancel: cancel, ready: make(chan struct{})}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.leaving:
		cancel(nil)
		return nil, nil, fault.New(fault.Unavailable, "the engine is being stopped")
	case len(b.builds) >= maxBuilds:
		cancel(nil)
		return nil, nil, fault.New(fault.Unavailable, "there are %d builds under way already", maxBuilds)
	case b.builds[name] != nil:
		cancel(nil)
		return nil, nil, fault.New(fault.Conflict, "job ID %s exists", name)
	}
	b.builds[name] = r
	b.finished = slices.DeleteFunc(b.finished, func(f *running) bool { return f.id == name })
	b.working.Add(1)
	close(b.came)
	b.came = make(chan struct{})
	return r, ctx, nil
}

// leave ends a build's time among those under way. Its hub was closed before.
func (b *Builder) leave(r *running) {
	r.cancel(nil)
	b.mu.Lock()
	delete(b.builds, r.id)
	b.finished = append(b.finished, r)
	if over := len(b.finished) - keepFinished; over > 0 {
		b.finished = slices.Delete(b.finished, 0, over)
	}
	b.mu.Unlock()
	b.working.Done()
}

// find gives a build by its id, under way or just over, or what is closed when another is entered.
func (b *Builder) find(name string) (*running, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r := b.builds[name]; r != nil {
		return r, nil
	}
	for _, r := range b.finished {
		if r.id == name {
			return r, nil
		}
	}
	return nil, b.came
}

// await finds a build that may not be there yet. NotFound: it did not come.
func (b *Builder) await(ctx context.Context, name string) (*running, error) {
	timer := time.NewTimer(entryPatience)
	defer timer.Stop()
	for {
		r, came := b.find(name)
		if r != nil {
			return r, nil
		}
		select {
		case <-came:
		case <-timer.C:
			return nil, fault.New(fault.NotFound, "no such job %s", name)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Cancel ends a build; false: there is none of this id under way.
func (b *Builder) Cancel(name string) bool {
	b.mu.Lock()
	r := b.builds[name]
	b.mu.Unlock()
	if r == nil {
		return false
	}
	r.cancel(context.Canceled)
	return true
}

// Bridge gives the way by which the client of a build runs its frontend itself. It waits for a build that is not
// there yet. NotFound: there is none, or it has a frontend of its own.
func (b *Builder) Bridge(ctx context.Context, name string) (*frontend.Bridge, error) {
	r, err := b.await(ctx, name)
	if err != nil {
		return nil, err
	}
	select {
	case <-r.ready:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if r.bridge == nil {
		return nil, fault.New(fault.NotFound, "no such job %s", name)
	}
	return r.bridge, nil
}
