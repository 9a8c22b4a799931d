package engine

import (
	"context"
	"time"

	"berth/base/fault"
	"berth/engine/container"
	"berth/engine/step"
	"berth/engine/store"
)

// removePatience bounds one step of a removal.
const removePatience = time.Minute

// Remove removes a container that does not run; with Force also one that does.
func (e *Engine) Remove(ctx context.Context, ref string, o RemoveOptions) error {
	c, err := e.index.find(ref)
	if err != nil {
		return err
	}
	if o.Link {
		return fault.New(fault.Invalid, "cannot remove link %s: there are no links in Berth", ref)
	}
	if o.Force && c.snapshot().State.Running {
		if err := c.setManuallyStopped(); err != nil {
			return err
		}
		if !e.abortRestart(ctx, c) {
			if err := e.kill(c, c.endedChan()); err != nil {
				return fault.In(err, "cannot remove container %q: could not kill container", "/"+c.snapshot().Name)
			}
		}
	}
	if c.snapshot().State.Status == container.Removing {
		return fault.New(fault.Conflict, "removal of container %s is already in progress", ref)
	}
	end, err := c.begin(ctx, "remove")
	if err != nil {
		return err
	}
	defer end()
	if c.isGone() {
		if c.record().Spec.AutoRemove && o.Force {
			return nil // its own end removed it, as was asked
		}
		return fault.New(fault.NotFound, "No such container: %s", ref)
	}
	i := c.snapshot()
	switch {
	case i.State.Paused:
		return fault.New(fault.Conflict, "cannot remove container %q: container is paused and must be unpaused first", "/"+i.Name)
	case i.State.Running:
		return fault.New(fault.Conflict, "cannot remove container %q: container is %s: stop the container before removing or force remove", "/"+i.Name, i.State.Status)
	}
	return e.removeHeld(ctx, c, o.Volumes)
}

// removeHeld removes c, whose op is held and whose process is gone; volumes: also those that were made for it alone. From its first line in the journal on there is no way back: a
// crash, or a failure, leaves a container that can only be removed.
func (e *Engine) removeHeld(ctx context.Context, c *entry, volumes bool) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removePatience)
	defer cancel()
	c.cancelRestart()
	if err := c.change(func(at *store.Standing) (err error) {
		at.Op = opRemove
		if volumes {
			at.Op = opRemoveVolumes
		}
		at.State, err = at.State.Become(container.Removing)
		return err
	}); err != nil {
		return err
	}
	closeSockets(c.takePending())
	err := step.Run(c.steps(ctx), "remove",
		step.Step{Name: "keeper", Do: func(ctx context.Context) error { return e.forget(ctx, c) }},
		step.Step{Name: "run", Do: func(context.Context) error { e.endRun(c); return nil }},
		step.Step{Name: "volumes", Do: func(ctx context.Context) error {
			if !volumes {
				return nil
			}
			return e.removeVolumes(ctx, ownVolumes(c.record()))
		}},
		step.Step{Name: "layer", Do: func(context.Context) error { return e.images.RemoveLayer(c.id) }},
		step.Step{Name: "record", Do: func(context.Context) error { return e.store.Remove(c.id) }},
	)
	if err != nil {
		cerr := c.change(func(at *store.Standing) (e error) {
			at.State.Error = err.Error()
			at.State, e = at.State.Become(container.Dead)
			return e
		})
		if cerr != nil {
			e.log.Error("cannot note a failed removal", "container", c.id, "error", cerr)
		}
		return fault.In(err, "container %s could not be removed", c.id)
	}
	i := c.snapshot()
	c.setGone()
	e.index.remove(c, i.Name)
	e.unconfine(c.record())
	e.execs.dropContainer(c.id)
	e.tell(c, "destroy", nil)
	c.wake(container.ExitStatus{Code: i.State.ExitCode}, true)
	return nil
}

// The removal of a container was begun and must be finished; the second: its own volumes go too.
const (
	opRemove        = "remove"
	opRemoveVolumes = "remove volumes"
)

// Prune removes every container that does not run and matches.
func (e *Engine) Prune(ctx context.Context, f container.Filters) (PruneReport, error) {
	var report PruneReport
	match, err := f.ForPrune(container.Lookup{Now: time.Now()})
	if err != nil {
		return report, err
	}
	for _, c := range e.index.all() {
		if err := ctx.Err(); err != nil {
			return report, nil // what was done is reported
		}
		i := c.snapshot()
		if i.State.Running || c.hidden || !match(i) {
			continue
		}
		size, _ := e.images.LayerSize(c.id) // only for the report
		switch err := e.Remove(ctx, c.id, RemoveOptions{Volumes: true}); {
		case err == nil:
			report.Deleted = append(report.Deleted, c.id)
			report.Reclaimed += uint64(max(0, size))
		case !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.Conflict):
			e.log.Warn("prune could not remove a container", "container", c.id, "error", err)
		}
	}
	return report, nil
}
