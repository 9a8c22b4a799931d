package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/engine/container"
	"berth/engine/store"
)

const (
	// defaultStopTimeout is how long a process has to follow its stop signal.
	defaultStopTimeout = 10
	// killPatience is how long the kernel has to end a process after SIGKILL; one that waits for a dead disk may take for ever.
	killPatience = 10 * time.Second
)

// Stop asks the process to end and kills it when it does not in time. A container that does not run is fault.NotModified. A client
// that leaves does not call it off.
func (e *Engine) Stop(ctx context.Context, ref string, o StopOptions) error {
	c, err := e.index.find(ref)
	if err != nil {
		return err
	}
	if !c.snapshot().State.Running {
		return fault.New(fault.NotModified, "Container already stopped")
	}
	return e.stop(ctx, c, o)
}

func (e *Engine) stop(ctx context.Context, c *entry, o StopOptions) error {
	sig, err := c.stopSignal(o.Signal)
	if err != nil {
		return err
	}
	if !e.stopping.Load() { // nobody asked for this container to end, and its policy holds: it comes back, also when what follows is cut off
		if err := c.setManuallyStopped(); err != nil {
			return err
		}
	}
	if e.abortRestart(ctx, c) {
		e.tell(c, "stop", nil)
		return nil
	}
	ended := c.endedChan()
	if err := e.signal(ctx, c, sig); err != nil && !fault.Is(err, fault.NotFound) {
		e.log.Warn("the stop signal was not delivered; killing", "container", c.id, "error", err)
		o.Timeout = new(int)
	}
	timeout := c.stopTimeout(o.Timeout)
	select {
	case <-ended:
	default:
		if !waitFor(ctx, ended, timeout) {
			if timeout < 0 { // waits for ever, but only as long as somebody listens
				return fault.Wrap(fault.KindOf(ctx.Err()), ctx.Err(), "stopping container %s", c.id)
			}
			if err := e.kill(c, ended); err != nil {
				return err
			}
		}
	}
	e.tell(c, "stop", nil)
	return nil
}

// Restart stops the container if it runs, and starts it. A client that leaves in between does not leave it stopped.
func (e *Engine) Restart(ctx context.Context, ref string, o StopOptions) error {
	c, err := e.index.find(ref)
	if err != nil {
		return err
	}
	if c.snapshot().State.Running {
		c.setKeep(true) // its end must not remove it
		defer c.setKeep(false)
		if err := e.stop(ctx, c, o); err != nil {
			return fault.In(err, "Cannot restart container %s", ref)
		}
	}
	ctx = context.WithoutCancel(ctx)
	end, err := c.begin(ctx, "restart")
	if err != nil {
		return err
	}
	defer end()
	if err := e.startHeld(ctx, c, false); err != nil && !fault.Is(err, fault.NotModified) {
		return fault.In(err, "Cannot restart container %s", ref)
	}
	e.tell(c, "restart", nil)
	return nil
}

// Kill sends a signal; "" is SIGKILL, which waits for the end.
func (e *Engine) Kill(ctx context.Context, ref, signal string) error {
	c, err := e.index.find(ref)
	if err != nil {
		return err
	}
	sig := unix.SIGKILL
	if signal != "" {
		if sig, err = parseSignal(signal); err != nil {
			return err
		}
	}
	if !c.snapshot().State.Running {
		return fault.New(fault.Conflict, "cannot kill container: %s: container %s is not running", ref, c.id)
	}
	stop, err := c.stopSignal("")
	if err != nil {
		return err
	}
	switch {
	case sig == unix.SIGKILL, sig == stop, sig == unix.SIGTERM:
		if err := c.setManuallyStopped(); err != nil {
			return err
		}
		if e.abortRestart(ctx, c) {
			return nil
		}
	case c.snapshot().State.Status == container.Restarting:
		return nil // as in Docker: there is nobody to send it to
	}
	if sig == unix.SIGKILL {
		return e.kill(c, c.endedChan())
	}
	if err := e.signal(ctx, c, sig); err != nil {
		if fault.Is(err, fault.NotFound) {
			return fault.New(fault.Conflict, "cannot kill container: %s: container %s is not running", ref, c.id)
		}
		return fault.In(err, "cannot kill container: %s", ref)
	}
	return nil
}

// kill sends SIGKILL and waits for the end, which nothing but the kernel can hold up.
func (e *Engine) kill(c *entry, ended <-chan struct{}) error {
	ctx, asked := context.Background(), time.Now()
	defer e.cfg.Waits.Begin("kill", c.id).End()
	err := e.signal(ctx, c, unix.SIGKILL)
	if err != nil && !fault.Is(err, fault.NotFound) {
		if cg := c.cgroup(); cg == nil || cg.Kill() != nil {
			return fault.In(err, "cannot kill container %s", c.id)
		}
	}
	if waitFor(ctx, ended, killPatience) {
		return nil
	}
	if cg := c.cgroup(); cg != nil { // processes of a shared pid namespace, or a keeper that is away
		err = cg.Kill()
	}
	if err == nil && waitFor(ctx, ended, killPatience) {
		return nil
	}
	why := e.whatHolds(c, asked)
	if why == "" {
		why = fmt.Sprintf("process %d does not end, and the kernel does not tell why", c.snapshot().State.Pid)
	}
	return fault.New(fault.Internal, "tried to kill container, but did not receive an exit event: container %s: %s", c.id, why)
}

// signal sends sig to the first process, wakes a paused container that would not see it, and tells.
func (e *Engine) signal(ctx context.Context, c *entry, sig unix.Signal) error {
	if err := e.keeperReady(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keeperPatience)
	defer cancel()
	c.signals.RLock()
	err := e.sendSignal(ctx, c, sig)
	if err == nil {
		e.tell(c, "kill", map[string]string{"signal": strconv.Itoa(int(sig))})
	}
	c.signals.RUnlock()
	if err != nil {
		return err
	}
	if s := c.snapshot().State; s.Paused && (s.ManuallyStopped || e.stopping.Load()) {
		return e.Unpause(ctx, c.id)
	}
	return nil
}

// abortRestart stops a restart by policy that waits for its time; the container is then exited.
func (e *Engine) abortRestart(ctx context.Context, c *entry) bool {
	if c.snapshot().State.Status != container.Restarting {
		return false
	}
	end, err := c.begin(ctx, "stop")
	if err != nil {
		return false
	}
	defer end()
	c.cancelRestart()
	if c.snapshot().State.Status != container.Restarting {
		return false // it started meanwhile
	}
	if err := c.change(func(at *store.Standing) (err error) { at.State, err = at.State.Become(container.Exited); return err }); err != nil {
		e.log.Error("cannot note that a restart was called off", "container", c.id, "error", err)
	}
	return true
}

// Pause freezes every process of the container.
func (e *Engine) Pause(ctx context.Context, ref string) error {
	return e.freezeOrThaw(ctx, ref, "pause", func(c *entry, s container.State) error {
		switch {
		case s.Paused:
			return fault.New(fault.Conflict, "Container %s is already paused", c.id)
		case s.Restarting:
			return fault.New(fault.Conflict, "Container %s is restarting, wait until the container is running", c.id)
		case !s.Running:
			return fault.New(fault.Conflict, "container %s is not running", c.id)
		}
		cg := c.cgroup()
		if cg == nil {
			return fault.New(fault.Internal, "container %s has no cgroup to freeze", c.id)
		}
		if err := cg.Freeze(); err != nil {
			return fault.In(err, "cannot pause container %s", c.id)
		}
		return c.become(container.Paused)
	})
}

// Unpause lets them go on.
func (e *Engine) Unpause(ctx context.Context, ref string) error {
	return e.freezeOrThaw(ctx, ref, "unpause", func(c *entry, s container.State) error {
		if !s.Paused {
			return fault.New(fault.Internal, "Container %s is not paused", c.id)
		}
		if cg := c.cgroup(); cg != nil {
			if err := cg.Thaw(); err != nil {
				return fault.In(err, "cannot unpause container %s", c.id)
			}
		}
		return c.become(container.Running)
	})
}

func (e *Engine) freezeOrThaw(ctx context.Context, ref, verb string, do func(*entry, container.State) error) error {
	c, err := e.index.find(ref)
	if err != nil {
		return err
	}
	end, err := c.begin(ctx, verb)
	if err != nil {
		return err
	}
	defer end()
	if err := do(c, c.snapshot().State); err != nil {
		return err
	}
	e.tell(c, verb, nil)
	return nil
}

// Shutdown stops every container, each by its own signal and in its own time, for `berth system shutdown` and, with machine, because the
// machine goes down. It goes on after failures and gives them all. Nothing is started or restarted any more. What had a restart policy
// comes back with the next engine, after the machine went down also by on-failure, unless it ended well.
func (e *Engine) Shutdown(ctx context.Context, machine bool) error {
	e.goingDown.Store(machine)
	e.stopping.Store(true) // what is being started now is waited for; nothing is started after it
	err := e.stopEach(ctx, func(c *entry) bool { return !c.hidden })
	// Plugins last: until their end containers write through them, and their mounts are taken away by them.
	return errors.Join(err, e.stopEach(ctx, func(c *entry) bool { return c.hidden }))
}

// stopEach stops containers side by side, and waits until what their runs had is taken away.
func (e *Engine) stopEach(ctx context.Context, which func(*entry) bool) error {
	var mu sync.Mutex
	var errs []error
	var wg sync.WaitGroup
	e.index.each(func(c *entry) {
		if !which(c) || !c.snapshot().State.Running && len(c.op) == 0 {
			return
		}
		wg.Go(func() {
			if !e.settled(ctx, c) {
				return
			}
			if err := e.stop(ctx, c, StopOptions{}); err != nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
				return
			}
			c.rest(ctx)
		})
	})
	wg.Wait()
	return errors.Join(errs...)
}

// rest waits, for a while, until nobody works on a container.
func (c *entry) rest(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, startPatience/2)
	defer cancel()
	if end, err := c.begin(ctx, "shutdown"); err == nil {
		end()
	}
}

// settled waits, for a while, until nobody works on a container that has no process, and reports whether it is to be stopped then. One
// that waits for its restart when the machine goes down goes on waiting in the next engine.
func (e *Engine) settled(ctx context.Context, c *entry) bool {
	if s := c.snapshot().State; !s.Running || s.Restarting {
		c.rest(ctx)
	}
	s := c.snapshot().State
	return s.Running && !(s.Restarting && e.goingDown.Load())
}

func (c *entry) become(s container.Status) error {
	return c.change(func(at *store.Standing) (err error) { at.State, err = at.State.Become(s); return err })
}

// setManuallyStopped keeps the restart policy from acting on the end that is to come.
func (c *entry) setManuallyStopped() error {
	if c.standing().State.ManuallyStopped {
		return nil
	}
	return c.change(func(at *store.Standing) error { at.State.ManuallyStopped = true; return nil })
}

func (c *entry) stopSignal(asked string) (unix.Signal, error) {
	if asked == "" {
		asked = c.record().Spec.StopSignal
	}
	if asked == "" {
		return unix.SIGTERM, nil
	}
	return parseSignal(asked)
}

// stopTimeout gives how long to wait before SIGKILL; negative for ever.
func (c *entry) stopTimeout(asked *int) time.Duration {
	seconds := defaultStopTimeout
	if t := c.record().Spec.StopTimeout; t != nil {
		seconds = *t
	}
	if asked != nil {
		seconds = *asked
	}
	return time.Duration(seconds) * time.Second
}

// waitFor waits until done is closed. A negative patience is bounded by ctx only, any other by time only.
func waitFor(ctx context.Context, done <-chan struct{}, patience time.Duration) bool {
	if patience < 0 {
		select {
		case <-done:
			return true
		case <-ctx.Done():
			return false
		}
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-t.C:
		return false
	}
}
