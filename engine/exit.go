package engine

import (
	"context"
	"math"
	"strconv"
	"sync"
	"time"

	"berth/base/fault"
	"berth/engine/container"
	"berth/engine/restart"
	"berth/engine/store"
	"berth/kernel/cgroup"
	"berth/runtime/keeper"
)

// listenExits hears of processes that ended, for as long as the engine is open.
func (e *Engine) listenExits() {
	for {
		select {
		case <-e.done:
			return
		case x, ok := <-e.keeper.Exits():
			if !ok {
				return
			}
			e.work.Go(func() { e.onExit(x) })
		}
	}
}

// onExit puts one end on record and lets the keeper forget it. The same end may come again until it was acknowledged.
func (e *Engine) onExit(x keeper.Exit) {
	ctx := context.Background()
	if x.Proc != "" {
		e.onExecExit(ctx, x)
		return
	}
	c := e.index.get(x.ID)
	if c == nil { // removed, or a creation that was undone
		e.ack(ctx, x)
		return
	}
	end, err := e.beginUntilClosed(c, "exit")
	if err != nil {
		return // the keeper tells the next engine
	}
	defer end()
	if s := c.snapshot().State; !s.Status.Alive() || s.Pid != x.PID {
		if _, err := e.adoptHeld(ctx, c); err != nil {
			return // the keeper will tell it again
		}
		if s := c.snapshot().State; !s.Status.Alive() || s.Pid != x.PID { // noted before
			e.ack(ctx, x)
			return
		}
	}
	e.afterExit(ctx, c, e.noteExit(ctx, c, x))
}

// noteExit puts the end into memory and journal, lets the keeper forget it, answers waiters, and takes the cgroup away. c's op is held.
func (e *Engine) noteExit(ctx context.Context, c *entry, x keeper.Exit) restart.Decision {
	s := c.standing()
	e.execs.dropUnbegun(c.id)
	end := container.End{Code: x.Code, Signal: x.Signal, Unknown: x.Unknown, At: x.At}
	// Before the end is told: whoever was waiting for it may want the ports.
	if err := e.leaveNetworks(c.record()); err != nil {
		e.log.Warn("a container's network stays until the next start of the engine", "container", c.id, "error", err)
	}
	figures := figuresAtEnd(c.cgroup(), x, c.record().Spec.Resources.Memory > 0)
	end.OOM = figures != nil && figures.OOMKills > 0
	policy := c.record().Spec.Restart
	var next restart.Decision
	err := c.change(func(at *store.Standing) (err error) {
		next = restart.Decide(policy, restart.Ended{
			Code: x.Code, Manually: at.State.ManuallyStopped || e.stopping.Load(), Ran: x.At.Sub(at.State.StartedAt), Restarts: at.RestartCount, LastWait: at.RestartWait,
			Unhealthy: at.Unwell, Relapses: at.Relapses,
		})
		if at.State, err = at.State.Ended(end, next.Restart); err != nil {
			return err
		}
		at.Figures, at.Unwell, at.Reboot = figures, false, e.goingDown.Load()
		if next.Restart {
			at.RestartCount++
			at.Relapses++
			at.RestartWait = next.Wait
		}
		return nil
	})
	var acked sync.WaitGroup
	if err != nil {
		// Not acknowledged: if this engine dies, the keeper tells the next one.
		e.log.Error("the end of a container does not reach the journal", "container", c.id, "error", err)
	} else {
		acked.Go(func() { e.ack(ctx, x) })
	}
	if figures != nil && c.newKills(figures.OOMKills) {
		e.tell(c, "oom", nil)
	}
	c.signals.Lock() // a signal that ended it is told before
	e.tell(c, "die", map[string]string{
		"exitCode": strconv.Itoa(x.Code), "execDuration": strconv.Itoa(int(x.At.Sub(s.State.StartedAt) / time.Second)),
	})
	c.signals.Unlock()
	c.wake(container.ExitStatus{Code: x.Code}, false)
	e.endRun(c)
	acked.Wait() // a new run is refused for as long as the keeper has this one
	return next
}

// figuresAtEnd reads what explains an end, before the cgroup goes. A process that ended well needs no explanation, unless it had a memory
// limit that hit another process of the container.
func figuresAtEnd(cg *cgroup.Cgroup, x keeper.Exit, limited bool) *store.Figures {
	if cg == nil || x.Code == 0 && !limited {
		return nil
	}
	f := &store.Figures{OOMKills: cg.OOMKills()}
	if x.Code == 0 && f.OOMKills == 0 {
		return nil
	}
	if st, err := cg.Stats(); err == nil {
		f.MemoryPeak, f.MemoryLimit, f.ForksRefused, f.ProcessLimit = st.Memory.Max, orNone(st.Memory.Limit), st.Pids.Failures, orNone(st.Pids.Limit)
	}
	return f
}

// orNone gives 0 for no limit.
func orNone(n uint64) uint64 {
	if n >= math.MaxInt64/2 { // v1 says "unlimited" by a number near the greatest
		return 0
	}
	return n
}

// endRun takes away what a run of the container had: its cgroup and host-side mounts, and whatever still lives in the cgroup (a
// container that shares its pid namespace may leave processes behind).
func (e *Engine) endRun(c *entry) {
	mounted := c.currentRun().volumes
	e.unwatchOOM(c)
	e.endForeign(c.record())
	if cg := c.takeCgroup(); cg != nil {
		if c.record().Spec.Namespaces.PID != "" {
			if err := cg.Kill(); err != nil {
				e.log.Warn("cannot kill what a container left running", "container", c.id, "error", err)
			}
		}
		if err := e.groups.remove(context.Background(), c.record().Cgroup, cg); err != nil {
			e.log.Warn("a cgroup stays until the next start of the engine", "container", c.id, "error", err)
		}
	}
	if err := e.leaveNetworks(c.record()); err != nil {
		e.log.Warn("a container's network stays until the next start of the engine", "container", c.id, "error", err)
	}
	if mounted {
		e.tellNetwork(c.record(), "disconnect")
	}
	if err := e.unmountVolumes(c.record()); err != nil {
		e.log.Warn("a container's volumes stay mounted until the next start of the engine", "container", c.id, "error", err)
	} else if mounted {
		e.tellVolumes(c.record(), "unmount")
	}
	if err := e.unmountShm(c.record()); err != nil {
		e.log.Warn("a container's /dev/shm stays mounted until the next start of the engine", "container", c.id, "error", err)
	}
}

// afterExit does what the container asked for after its end. c's op is held.
func (e *Engine) afterExit(ctx context.Context, c *entry, next restart.Decision) {
	switch {
	case next.Restart:
		e.restartLater(c, next.Wait)
	case c.record().Spec.AutoRemove && !c.kept():
		if err := e.removeHeld(ctx, c, removing{volumes: true, good: true}); err != nil {
			e.log.Error("cannot remove a container at its end", "container", c.id, "error", err)
		}
	}
}

// restartLater starts c after a while, unless somebody stops it before.
func (e *Engine) restartLater(c *entry, wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.closing() {
		return
	}
	e.work.Add(1) // Done by the timer, or by who stops it
	c.timer = time.AfterFunc(wait, func() {
		defer e.work.Done()
		e.restartByPolicy(c)
	})
}

func (e *Engine) restartByPolicy(c *entry) {
	end, err := e.beginUntilClosed(c, "restart by policy")
	if err != nil {
		return
	}
	defer end()
	switch s := c.snapshot().State; {
	case s.Status != container.Restarting:
		return // stopped or started by a person meanwhile
	case s.ManuallyStopped: // the stop came while the end was being noted
		if err := c.become(container.Exited); err != nil {
			e.log.Error("cannot note that a restart was called off", "container", c.id, "error", err)
		}
		return
	}
	if err := e.startHeld(context.Background(), c, true); err != nil {
		e.log.Warn("a container could not be restarted", "container", c.id, "error", err)
	}
}

// beginUntilClosed takes the container's op for the engine's own work, which may wait for as long as the engine lives.
func (e *Engine) beginUntilClosed(c *entry, what string) (func(), error) {
	select {
	case c.op <- struct{}{}:
		return c.working(what), nil
	default:
	}
	defer e.cfg.Waits.BeginBehind(what, c.id, c.holder.Load().What()).End()
	select {
	case c.op <- struct{}{}:
		return c.working(what), nil
	case <-e.done:
		return nil, fault.New(fault.Unavailable, "the engine is closing")
	}
}

func (e *Engine) closing() bool {
	select {
	case <-e.done:
		return true
	default:
		return false
	}
}

func (e *Engine) ack(ctx context.Context, x keeper.Exit) {
	ctx, cancel := context.WithTimeout(ctx, keeperPatience)
	defer cancel()
	if err := e.keeper.Ack(ctx, x.ID, x.Proc); err != nil && !e.closing() {
		e.log.Warn("the keeper did not take an acknowledgement; it will tell the end again", "container", x.ID, "error", err)
	}
}

// keeperPatience bounds a question to the keeper that it answers from memory.
const keeperPatience = 10 * time.Second
