package engine

import (
	"context"

	"berth/base/fault"
	"berth/engine/container"
)

// Wait gives a channel that receives once: when the condition comes true. When ctx ends first, the channel is closed without a value.
func (e *Engine) Wait(ctx context.Context, ref string, condition container.WaitCondition) (<-chan container.ExitStatus, error) {
	c, err := e.index.find(ref)
	if err != nil {
		return nil, err
	}
	switch condition {
	case container.WaitNotRunning, container.WaitNextExit, container.WaitRemoved:
	case "":
		condition = container.WaitNotRunning
	default:
		return nil, fault.New(fault.Invalid, "invalid condition: %q", condition)
	}
	w := &waiter{condition: condition, c: make(chan container.ExitStatus, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone || condition == container.WaitNotRunning && !c.at.State.Status.Alive() {
		w.c <- container.ExitStatus{Code: c.at.State.ExitCode}
		return w.c, nil
	}
	c.waiters[w] = struct{}{}
	context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if _, waits := c.waiters[w]; waits {
			delete(c.waiters, w)
			close(w.c)
		}
	})
	return w.c, nil
}
