package engine

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"berth/base/fault"
	"berth/base/wait"
	"berth/engine/bundle"
	"berth/engine/container"
	"berth/engine/store"
	"berth/kernel/cgroup"
	"berth/network"
	"berth/runtime/keeper"
)

// opPatience bounds how long a verb waits for another verb on the same container.
const opPatience = 2 * time.Minute

// entry is one container in memory.
//
// Locks, in this order: op, order, mu. op is held by a verb for as long as it works on the container and may be held over I/O;
// whoever waits for the process to end does not hold it. order makes the journal's lines come in the order of the changes. mu guards
// memory only. Readers use snapshot and take no lock. signals is read-locked while a signal is sent and told, with none of the others taken
// meanwhile: the end of a run is told after the signal that brought it about.
type entry struct {
	id     string
	hidden bool // it runs a managed plugin: no list shows it, only its full id finds it
	e      *Engine

	op     chan struct{}             // one token: the right to work on the container
	holder atomic.Pointer[wait.Wait] // what the holder does, for the error of who cannot wait; nil within where nobody registers

	snap atomic.Pointer[container.Info]

	order   sync.Mutex
	signals sync.RWMutex

	oomBusy atomic.Bool // somebody looks whether the kernel has killed

	mu      sync.Mutex
	rec     *container.Record
	at      store.Standing
	run     run // what belongs to the process that runs now
	pending []keeper.AttachRequest
	waiters map[*waiter]struct{}
	ended   chan struct{} // closed at the next end of the process; new at each start
	timer   *time.Timer   // of a restart to come
	execIDs []string
	keep    bool       // the next end does not remove it, whatever AutoRemove says: it is being restarted
	probe   *execution // the last process of its health check
	gone    bool
}

// run is what one run of a container has, beside its standing.
type run struct {
	bundle.Built                // made for the first exec and then kept; zero before
	cgroup       *cgroup.Cgroup // nil: none, or taken away already
	sandbox      network.Sandbox
	volumes      bool   // it has volumes mounted, whose unmounting is told
	oomTold      uint64 // kills for want of memory of which an event has told
}

type waiter struct {
	condition container.WaitCondition
	c         chan container.ExitStatus
}

func newEntry(e *Engine, r *container.Record, at store.Standing) *entry {
	c := &entry{id: r.ID, hidden: r.Spec.Plugin != "", e: e, op: make(chan struct{}, 1), rec: r, at: at, waiters: map[*waiter]struct{}{}, ended: make(chan struct{})}
	if !at.State.Status.Alive() {
		close(c.ended)
	}
	c.publish()
	return c
}

// snapshot is the container as of now, for reading only.
func (c *entry) snapshot() *container.Info { return c.snap.Load() }

// begin takes the right to work on the container; what names the work. The caller calls the function it gets.
func (c *entry) begin(ctx context.Context, what string) (func(), error) {
	select {
	case c.op <- struct{}{}:
	default:
		defer c.e.cfg.Waits.BeginBehind(what, c.id, c.holder.Load().What()).End()
		ctx, cancel := context.WithTimeoutCause(ctx, opPatience, fault.New(fault.Unavailable, "waited too long"))
		defer cancel()
		select {
		case c.op <- struct{}{}:
		case <-ctx.Done():
			return nil, fault.Wrap(fault.KindOf(context.Cause(ctx)), context.Cause(ctx), "container %s is busy: %s waits for %s", c.id, what, c.otherWork())
		}
	}
	return c.working(what), nil
}

// change applies f to the container's standing, shows the result to readers and notes it in the journal. An error of f changes nothing.
func (c *entry) change(f func(*store.Standing) error) error {
	return c.changeAnd(f, c.e.store.SetStanding)
}

// changeAnd is change with another way of noting the result.
func (c *entry) changeAnd(f func(*store.Standing) error, note func(cid string, at store.Standing) error) error {
	c.order.Lock()
	defer c.order.Unlock()
	c.mu.Lock()
	at := c.at
	if err := f(&at); err != nil {
		c.mu.Unlock()
		return err
	}
	was, is := c.at.State.Status.Alive(), at.State.Status.Alive()
	if is && !was {
		c.ended = make(chan struct{})
		at.State.Health = healthAtStart(c.rec.Spec, at.State.Health)
	}
	before := c.at.State.Status
	c.at = at
	c.publish()
	if was && !is {
		close(c.ended) // after the snapshot: who is woken by it finds the end there
	}
	c.mu.Unlock()
	if was != is {
		c.e.logChanged(c, is)
	}
	if before != at.State.Status {
		c.e.watchHealth(c, at.State)
	}
	return note(c.id, at)
}

// setRecord replaces the record after it was written to disk.
func (c *entry) setRecord(r *container.Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rec = r
	c.publish()
}

// record gives the record; it is never changed in place.
func (c *entry) record() *container.Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rec
}

func (c *entry) standing() store.Standing {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

// publish makes a new snapshot. c.mu is held, or c is not shared yet.
func (c *entry) publish() {
	r := c.rec
	dir := c.e.store.Dir(r.ID)
	i := &container.Info{
		ID: r.ID, Name: r.Name, Created: r.Created, Path: r.Path, Args: r.Args, Spec: r.Spec, State: c.at.State,
		ImageID: r.ImageID, Platform: r.Platform, Driver: "overlay2", RestartCount: c.at.RestartCount, LogPath: r.LogPath,
		HostnamePath: dir + "/hostname", HostsPath: dir + "/hosts", ResolvConfPath: dir + "/resolv.conf",
		AppArmorProfile: r.AppArmorProfile, ProcessLabel: r.ProcessLabel, MountLabel: r.MountLabel, Command: r.CommandLine(),
		ExecIDs: c.execIDs, Mounts: r.MountPoints(),
	}
	if c.at.State.Status.Alive() {
		i.Sandbox = c.run.sandbox
	}
	if c.at.State.StartedAt.IsZero() { // Docker shows the files once they were made
		i.HostnamePath, i.HostsPath, i.ResolvConfPath = "", "", ""
	}
	c.snap.Store(i)
}

// addExec and dropExec keep the list that inspect shows. The slice is replaced, never changed: snapshots share it.
func (c *entry) addExec(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.execIDs = append(slices.Clip(slices.Clone(c.execIDs)), id)
	c.publish()
}

func (c *entry) dropExec(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.execIDs, id); i >= 0 {
		c.execIDs = slices.Delete(slices.Clone(c.execIDs), i, i+1)
		if len(c.execIDs) == 0 {
			c.execIDs = nil // null in inspect, as in Docker
		}
		c.publish()
	}
}

// wake answers waiters. removed: the container is gone, which answers everybody.
func (c *entry) wake(status container.ExitStatus, removed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for w := range c.waiters {
		if w.condition == container.WaitRemoved && !removed {
			continue
		}
		w.c <- status // has room for one
		delete(c.waiters, w)
	}
}

// wakeFailed answers who waits for the end of a run that could not begin.
func (c *entry) wakeFailed(status container.ExitStatus) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for w := range c.waiters {
		if w.condition == container.WaitNextExit {
			w.c <- status // has room for one
			delete(c.waiters, w)
		}
	}
}

// endedChan is closed when the process that runs now has ended; closed already when none runs.
func (c *entry) endedChan() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}

// cancelRestart stops a restart that waits for its time, if there is one.
func (c *entry) cancelRestart() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil && c.timer.Stop() {
		c.e.work.Done()
	}
	c.timer = nil
}

// takePending gives the attachments that wait for the process, to whoever starts it or gives up.
func (c *entry) takePending() []keeper.AttachRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.pending
	c.pending = nil
	return p
}

func closeSockets(rs []keeper.AttachRequest) {
	for _, r := range rs {
		if r.Sock != nil {
			r.Sock.Close()
		}
	}
}

// remember keeps what a run has.
func (c *entry) remember(r run) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.run = r
}

// currentRun gives what is known of the last run.
func (c *entry) currentRun() run {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.run
}

// cgroup gives the cgroup of the run, or nil.
func (c *entry) cgroup() *cgroup.Cgroup { return c.currentRun().cgroup }

// takeCgroup gives the cgroup to the one who removes it. Nothing of the run is kept.
func (c *entry) takeCgroup() *cgroup.Cgroup {
	c.mu.Lock()
	defer c.mu.Unlock()
	cg := c.run.cgroup
	c.run = run{}
	return cg
}

func (c *entry) setKeep(keep bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keep = keep
}

func (c *entry) kept() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.keep
}

func (c *entry) setGone() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = true
}

func (c *entry) isGone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gone
}
