package engine

import (
	"context"
	"errors"
	"syscall"
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
	return e.removeIf(ctx, ref, o, nil)
}

// removeIf is Remove if the container, once nobody else works on it, is as wanted says; nil: however it is.
func (e *Engine) removeIf(ctx context.Context, ref string, o RemoveOptions, wanted func(*container.Info) error) error {
	if o.Link {
		return e.removeLink(ctx, ref)
	}
	c, err := e.index.find(ref)
	if err != nil {
		return err
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
	if wanted != nil {
		if err := wanted(i); err != nil {
			return err
		}
	}
	switch {
	case i.State.Paused:
		return fault.New(fault.Conflict, "cannot remove container %q: container is paused and must be unpaused first", "/"+i.Name)
	case i.State.Running:
		return fault.New(fault.Conflict, "cannot remove container %q: container is %s: stop the container before removing or force remove", "/"+i.Name, i.State.Status)
	}
	return e.removeHeld(ctx, c, removing{volumes: o.Volumes})
}

// removalBegins brings to disk that a removal has begun which takes volumes along. Without that, a power cut in its middle would bring back
// a container whose volumes are gone. One that removes itself at its end is removed after a power cut anyway, and is spared the wait.
func (e *Engine) removalBegins(c *entry, was store.Standing) {
	if c.record().Spec.AutoRemove && !was.State.StartedAt.IsZero() {
		return
	}
	if err := e.store.Flush(); err != nil { // on a full disk one must be able to remove
		e.log.Warn("a removal begins without a note on the disk", "container", c.id, "error", err)
	}
}

// removing says how a container is removed.
type removing struct {
	volumes bool // those, too, that were made for it alone
	good    bool // for good: nobody asked for it by hand, so there is nothing to be taken back
}

// removeHeld removes c, whose op is held and whose process is gone. From its first line in the journal on there is no way back: a
// crash, or a failure, leaves a container that can only be removed. Where there is a trash, its record and its layer stay, under another name.
func (e *Engine) removeHeld(ctx context.Context, c *entry, o removing) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removePatience)
	defer cancel()
	c.cancelRestart()
	was := c.standing()
	window := e.trashWindow(c, o)
	if err := c.change(func(at *store.Standing) (err error) {
		at.Op = o.op()
		at.State, err = at.State.Become(container.Removing)
		return err
	}); err != nil {
		return err
	}
	if o.volumes && len(ownVolumes(c.record())) > 0 {
		e.removalBegins(c, was)
	}
	closeSockets(c.takePending())
	err := step.Run(c.steps(ctx), "remove",
		step.Step{Name: "keeper", Do: func(ctx context.Context) error { return e.forget(ctx, c) }},
		step.Step{Name: "run", Do: func(context.Context) error { e.endRun(c); return nil }},
		step.Step{Name: "volumes", Do: func(ctx context.Context) error {
			if !o.volumes {
				return nil
			}
			names := e.unmissed(c.record(), ownVolumes(c.record()))
			if o.good {
				return e.removeVolumes(ctx, names)
			}
			return e.removeVolumesWith(ctx, c.id, names)
		}},
		step.Step{Name: "record", Do: func(context.Context) error {
			e.leaveLog(c)
			if window > 0 {
				return e.store.Trash(c.id, trashNote(c, was, window))
			}
			return e.store.Remove(c.id)
		}},
		// After the record: a power cut in between leaves a layer that belongs to nobody, which the next start removes, and never a container
		// without what it wrote.
		step.Step{Name: "layer", Do: func(context.Context) error {
			if window > 0 {
				return nil
			}
			return e.removeLayer(c.record())
		}},
	)
	if err != nil {
		if window > 0 && (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)) {
			err = fault.In(err, "there is no room for its note in the trash: free some (berth trash empty deletes what is in there), then remove it again; trash-min-free keeps some free")
		}
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
	e.unconfine(c.record())
	e.execs.dropContainer(c.id)
	e.index.remove(c, i.Name) // last: from here on the container may come back from the trash
	e.tell(c, "destroy", nil)
	c.wake(container.ExitStatus{Code: i.State.ExitCode}, true)
	return nil
}

// The removal of a container was begun and must be finished.
const (
	opRemove        = "remove"
	opRemoveVolumes = "remove volumes" // its own volumes go too
	opDelete        = "delete"         // for good
	opDeleteVolumes = "delete volumes"
)

func (o removing) op() string {
	switch {
	case o.good && o.volumes:
		return opDeleteVolumes
	case o.good:
		return opDelete
	case o.volumes:
		return opRemoveVolumes
	}
	return opRemove
}

// removalBegun reads an operation that a crash cut off.
func removalBegun(op string) (o removing, ok bool) {
	switch op {
	case opRemove:
		return removing{}, true
	case opRemoveVolumes:
		return removing{volumes: true}, true
	case opDelete:
		return removing{good: true}, true
	case opDeleteVolumes:
		return removing{volumes: true, good: true}, true
	}
	return removing{}, false
}
