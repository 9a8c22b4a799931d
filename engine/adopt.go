package engine

import (
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/engine/container"
	"berth/kernel/cgroup"
	"berth/runtime/keeper"
)

// An engine may die between asking the keeper for a process and hearing of it. The keeper then carries the request out, perhaps only
// after the next engine has asked what there is. Such a process is found at one of four moments: when the container is started again
// and the keeper says that it is held, when its end is told, when the container is removed, or when the engine looks again a little
// after its own start. It is then taken as what it is: the run that was asked for. One whose network or volumes were taken away meanwhile is killed: the start has not
// happened.

// settle are the moments after the engine's start at which it looks again. A launch takes milliseconds; the last one is for a machine
// that hardly moves.
var settle = []time.Duration{200 * time.Millisecond, 2 * time.Second, 20 * time.Second}

// adoptLate looks for processes that came after recovery.
func (e *Engine) adoptLate() {
	ctx := context.Background()
	for _, wait := range settle {
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-e.done:
			t.Stop()
			return
		}
		held, err := e.list(ctx)
		if err != nil {
			e.log.Warn("the keeper cannot be asked", "error", err)
			continue
		}
		for _, p := range held {
			e.adoptOne(ctx, p)
		}
		e.strayCgroups()
	}
	e.killUnheld(ctx)
}

func (e *Engine) adoptOne(ctx context.Context, p keeper.ProcState) {
	if p.Proc != "" || !p.Running {
		return // ends are told
	}
	c := e.index.get(p.ID)
	if c == nil {
		e.disownOne(ctx, p)
		return
	}
	if c.snapshot().State.Status.Alive() {
		return
	}
	end, err := e.beginUntilClosed(c, "adoption")
	if err != nil {
		return
	}
	defer end()
	if _, err := e.adoptHeld(ctx, c); err != nil {
		e.log.Error("a process of a container cannot be adopted", "container", c.id, "pid", p.PID, "error", err)
	}
}

// adoptHeld takes over what the keeper holds of c, whose op is held, if the engine does not know it. It reports whether there was
// something. If that has ended already, its end is told once its output has arrived.
func (e *Engine) adoptHeld(ctx context.Context, c *entry) (bool, error) {
	state := c.snapshot().State
	if state.Status.Alive() || c.isGone() {
		return false, nil
	}
	held, err := e.list(ctx)
	if err != nil {
		return false, err
	}
	for _, p := range held {
		if p.ID != c.id || p.Proc != "" || !p.Running && !p.StartTime.After(state.FinishedAt) {
			continue
		}
		if p.Running && !e.whole(c) {
			e.log.Warn("killing a process that an earlier engine asked for: its network or its volumes are gone", "container", c.id, "pid", p.PID)
			ctx, cancel := context.WithTimeout(ctx, killPatience)
			defer cancel()
			return false, e.forget(ctx, c)
		}
		e.log.Info("taking over a process that an earlier engine asked for", "container", c.id, "pid", p.PID)
		if cg, err := cgroup.Open(e.layout, c.record().Cgroup); err == nil {
			c.mu.Lock()
			c.run.cgroup = cg
			c.mu.Unlock()
			e.watchOOM(c)
		}
		if err := c.noteStarted(p); err != nil {
			return false, err
		}
		e.tell(c, "start", nil)
		return true, nil
	}
	return false, nil
}

// whole reports whether a process that came late has what it was started with. Networks and volumes of containers that do not run are
// taken away at the engine's start, and by a start that finds such a process.
func (e *Engine) whole(c *entry) bool {
	r := c.record()
	if slices.ContainsFunc(r.AllMounts(), func(m container.Mount) bool { return m.Type == "volume" || m.Type == "image" }) {
		return false
	}
	if !needsSandbox(r.Spec) {
		return true
	}
	return e.liveSandbox(c.id).ID != ""
}

func (e *Engine) list(ctx context.Context) ([]keeper.ProcState, error) {
	ctx, cancel := context.WithTimeout(ctx, keeperPatience)
	defer cancel()
	return e.keeper.List(ctx)
}

// keeperInfo asks with a bound, as list does.
func (e *Engine) keeperInfo(ctx context.Context) (keeper.Info, error) {
	ctx, cancel := context.WithTimeout(ctx, keeperPatience)
	defer cancel()
	return e.keeper.Info(ctx)
}

// disownOne kills a process whose container does not exist. Its end is told and acknowledged like any other.
func (e *Engine) disownOne(ctx context.Context, p keeper.ProcState) {
	e.log.Info("killing a process whose container does not exist", "container", p.ID, "pid", p.PID)
	if err := e.keeper.Signal(ctx, p.ID, "", int(unix.SIGKILL)); err != nil && !fault.Is(err, fault.NotFound) {
		e.log.Warn("cannot kill it", "container", p.ID, "error", err)
	}
}

// lateTries bounds how often a start looks after a process that is on its way, 25 ms apart.
const lateTries = 40

// errLate marks the conflicts by which a start notices such a process.
var errLate = errors.New("there is a process already")

// launchOrAdopt launches c. Where the keeper, or the cgroup, has a process already, that one is waited for and taken.
func (e *Engine) launchOrAdopt(ctx context.Context, c *entry) (started keeper.Started, adopted bool, err error) {
	for range lateTries {
		started, err = e.launch(ctx, c)
		if !errors.Is(err, errLate) {
			return started, false, err
		}
		if adopted, aerr := e.adoptHeld(ctx, c); adopted || aerr != nil {
			return started, adopted, aerr
		}
		if !pause(ctx, 25*time.Millisecond) {
			break
		}
	}
	return started, false, err
}

// late marks a conflict.
func late(err error) error {
	if fault.Is(err, fault.Conflict) {
		return fault.Wrap(fault.Conflict, errors.Join(err, errLate), "")
	}
	return err
}

// pause sleeps; false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// forget makes the keeper forget a container that is being removed. A process that came late is killed first.
func (e *Engine) forget(ctx context.Context, c *entry) error {
	for {
		err := e.keeper.Forget(ctx, c.id)
		if !fault.Is(err, fault.Conflict) {
			return err
		}
		if serr := e.keeper.Signal(ctx, c.id, "", int(unix.SIGKILL)); serr != nil && !fault.Is(serr, fault.NotFound) {
			return serr
		}
		if !pause(ctx, 10*time.Millisecond) {
			return fault.Wrap(fault.Deadline, err, "waiting for the end of a process of container %s", c.id)
		}
	}
}
