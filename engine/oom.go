package engine

import (
	"time"

	"berth/base/fault"
	"berth/engine/store"
	"berth/kernel/cgroup"
)

// The event oom is told when the kernel kills in a container, which may go on without the process that was killed.

// oomPatience is how long a kill is waited for that was announced. cgroup v1 signals first and counts afterwards. v2 counts first, but tells
// of other events by the same file, a hundred times a second of a container at its limit: one look is enough, and the next has time.
func (e *Engine) oomPatience() (patience, between time.Duration) {
	if e.layout.Mode == cgroup.V2 {
		return 200 * time.Millisecond, 200 * time.Millisecond
	}
	return 5 * time.Second, 10 * time.Millisecond
}

// openOOM begins to listen, to what runs already as well.
func (e *Engine) openOOM() {
	var err error
	if e.ooms, err = cgroup.NewOOMWatcher(); err != nil {
		e.log.Warn("the event oom is told at the end of containers only", "error", err)
		return
	}
	for _, c := range e.index.all() {
		if s := c.snapshot().State; s.Status.Alive() {
			if cg := c.cgroup(); cg != nil && s.OOMKilled { // an earlier engine told of it
				c.mu.Lock()
				c.run.oomTold = cg.OOMKills()
				c.mu.Unlock()
			}
			e.watchOOM(c)
		}
	}
	e.work.Go(func() {
		for {
			ids, ok := e.ooms.Wait()
			if !ok {
				return
			}
			for _, cid := range ids {
				if c := e.index.get(cid); c != nil {
					e.lookForOOM(c)
				}
			}
		}
	})
}

// closeOOM ends the listening; releaseOOM gives it up once nobody listens any more.
func (e *Engine) closeOOM() {
	if e.ooms != nil {
		e.ooms.Close()
	}
}

func (e *Engine) releaseOOM() {
	if e.ooms != nil {
		e.ooms.Release()
	}
}

// watchOOM begins to watch a container's run. On v1 each takes a descriptor, and only a limit brings a kill that is announced.
func (e *Engine) watchOOM(c *entry) {
	cg, r := c.cgroup(), &c.record().Spec.Resources
	if e.ooms == nil || cg == nil || e.layout.Mode != cgroup.V2 && r.Memory == 0 && r.CgroupParent == "" {
		return
	}
	if err := e.ooms.Add(c.id, cg); err != nil && !fault.Is(err, fault.NotImplemented) {
		e.log.Warn("the event oom of a container is told at its end only", "container", c.id, "error", err)
	} else if err == nil && r.Memory != 0 && cg.OOMKills() > c.currentRun().oomTold { // before anybody listened
		e.lookForOOM(c)
	}
}

func (e *Engine) unwatchOOM(c *entry) {
	if e.ooms != nil {
		e.ooms.Remove(c.id)
	}
}

// lookForOOM has somebody look whether the kernel has killed, unless somebody does.
func (e *Engine) lookForOOM(c *entry) {
	if c.oomBusy.CompareAndSwap(false, true) {
		e.work.Go(func() { e.onOOM(c) })
	}
}

// onOOM looks whether the kernel has killed, and tells of it.
func (e *Engine) onOOM(c *entry) {
	patience, between := e.oomPatience()
	news := func() bool {
		cg := c.cgroup()
		return cg != nil && cg.OOMKills() > c.currentRun().oomTold
	}
	for deadline := time.Now().Add(patience); !news() && !closed(c.endedChan()) && !e.closing() && time.Now().Before(deadline); {
		time.Sleep(between)
	}
	c.oomBusy.Store(false) // what comes from here on is looked at anew
	if !news() {
		return
	}
	end, err := e.beginUntilClosed(c, "oom")
	if err != nil {
		return
	}
	defer end()
	if cg := c.cgroup(); cg != nil && c.newKills(cg.OOMKills()) {
		// Noted first: who hears the event finds the state as it says.
		if err := c.change(func(at *store.Standing) error { at.State.OOMKilled = true; return nil }); err != nil {
			e.log.Error("cannot note an OOM kill", "container", c.id, "error", err)
		}
		e.tell(c, "oom", nil)
	}
}

// newKills reports whether some of that many kills were not told yet, and takes them for told. c's op is held.
func (c *entry) newKills(kills uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	news := kills > c.run.oomTold
	c.run.oomTold = max(kills, c.run.oomTold)
	return news
}
