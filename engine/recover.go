package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/base/id"
	"berth/engine/container"
	"berth/engine/restart"
	"berth/engine/store"
	"berth/kernel/cgroup"
	"berth/runtime/keeper"
)

// lockRoot makes this process the only engine of a data root. The lock goes with the process.
func lockRoot(dataRoot string) (*os.File, error) {
	if err := os.MkdirAll(dataRoot, 0o710); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "making the data root")
	}
	f, err := os.OpenFile(filepath.Join(dataRoot, "engine.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "opening the data root's lock")
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		owner, _ := os.ReadFile(f.Name())
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fault.New(fault.Conflict, "another engine (pid %s) has the data root %s; give this one a --data-root of its own", strings.TrimSpace(string(owner)), dataRoot)
		}
		return nil, fault.Wrap(fault.Internal, err, "locking the data root")
	}
	f.Truncate(0)
	f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0) // for the message above only
	return f, nil
}

// recover makes the engine know what it knew when it died, and what happened since:
//
//	on disk        in the keeper     becomes
//	──────────────────────────────────────────────────────────────────────────
//	directory, no record     any     creation undone
//	the same, but it stood   any     its files are left alone; a process is killed
//	removal begun            any     removal finished
//	running        running           running
//	running        ended             exited, with the keeper's code, once the keeper tells that all output has arrived
//	running        nothing           ended by the reboot (255), or unknown if there was none
//	not running    running           running: the launch had happened, only its note was lost
//	nothing        running           killed: nobody owns it
//
// What must be told to clients is done before it returns; sweeping and restarts go on behind.
func (e *Engine) recover(ctx context.Context) error {
	s, all, half, err := store.Open(e.cfg.DataRoot, e.cfg.ExecRoot, e.boot, e.log)
	if err != nil {
		return err
	}
	e.store = s
	if err := e.clearCopies(); err != nil {
		e.log.Warn("what copies left", "error", err)
	}
	held, err := e.settledList(ctx)
	if err != nil {
		return fault.In(err, "asking the keeper what runs")
	}
	procs := map[string]map[string]keeper.ProcState{}
	for _, p := range held {
		if procs[p.ID] == nil {
			procs[p.ID] = map[string]keeper.ProcState{}
		}
		procs[p.ID][p.Proc] = p
	}
	for _, cid := range half {
		e.log.Info("undoing a creation that was cut off", "container", cid)
		if len(e.store.NotedVolumes(cid)) == 0 {
			e.undoCreation(ctx, cid)
			continue
		}
		// Behind: whether a volume was made may be known to a plugin only, which may not answer.
		e.behind = append(e.behind, func() { e.work.Go(func() { e.undoCreation(context.Background(), cid) }) })
	}
	for _, cid := range e.images.Layers() {
		if _, err := os.Lstat(e.store.Dir(cid)); errors.Is(err, os.ErrNotExist) && id.Valid(cid) && !e.store.InTrash(cid) {
			e.log.Info("removing a layer that belongs to no container", "container", cid)
			if err := e.sweepLayer(cid); err != nil {
				e.log.Warn("cannot remove it", "container", cid, "error", err)
			}
		}
	}
	for _, l := range all {
		if err := e.recoverOne(ctx, l, procs[l.Record.ID]); err != nil {
			return err
		}
	}
	e.disown(ctx, procs)
	if e.volumes != nil { // before a removal that was cut off goes on: it must not take what another container refers to
		e.volumes.UsedBy(e.VolumeUsers)
	}
	runs := func(cid string) bool {
		c := e.index.get(cid)
		return c != nil && c.snapshot().State.Status.Alive()
	}
	if e.networks != nil {
		e.networks.Recovered(runs)
	}
	if e.volumes != nil {
		e.volumes.Recovered(runs)
	}
	// Only now: a container that is started has a network before it runs, which would be taken away with those of the others.
	for _, begin := range e.behind {
		begin()
	}
	e.behind = nil
	e.work.Go(func() { e.sweep(); e.adoptLate() })
	return nil
}

// undoCreation removes what there is of a container whose creation was cut off; its directory, by which that is known, last.
func (e *Engine) undoCreation(ctx context.Context, cid string) {
	ctx, cancel := context.WithTimeout(ctx, removePatience)
	defer cancel()
	err := errors.Join(e.removeNoted(ctx, cid), e.sweepLayer(cid))
	if err == nil {
		err = e.store.Abandon(cid)
	}
	if err != nil {
		e.log.Warn("a half-created container is not wholly gone", "container", cid, "error", err)
	}
}

// awaitEnds gives the ends that happened while no engine looked a moment to be noted, so that the first answer knows them. They are told
// at once, unless output is still on its way.
func (e *Engine) awaitEnds() {
	deadline := time.Now().Add(endsPatience)
	for _, ended := range e.ending {
		if !waitFor(context.Background(), ended, max(0, time.Until(deadline))) {
			break
		}
	}
	e.ending = nil
}

const endsPatience = 150 * time.Millisecond

// settlePatience bounds the wait for launches that the last engine asked for and that are still on their way.
const settlePatience = 2 * time.Second

// settledList gives what the keeper holds once it works on no launch any more: those are counted by Info and left out of List. What
// comes later still is found by adoptLate.
func (e *Engine) settledList(ctx context.Context) ([]keeper.ProcState, error) {
	for end := time.Now().Add(settlePatience); ; {
		held, err := e.list(ctx)
		if err != nil {
			return nil, err
		}
		info, err := e.keeperInfo(ctx)
		if err != nil {
			return nil, err
		}
		if info.Procs <= len(held) || time.Now().After(end) || !pause(ctx, 5*time.Millisecond) {
			return held, nil
		}
	}
}

func (e *Engine) recoverOne(ctx context.Context, l store.Loaded, procs map[string]keeper.ProcState) error {
	cid := l.Record.ID
	if err := e.index.reserve(l.Record.Name, cid); err != nil {
		// Nothing makes two records of one name; but if there are, one odd name is better than no engine.
		e.log.Error("two containers have one name; the second is now called by its id", "container", cid, "name", l.Record.Name)
		l.Record.Name = cid
		if err := errors.Join(e.index.reserve(cid, cid), e.store.Write(l.Record)); err != nil {
			return fault.In(err, "recovering container %s", cid)
		}
	}
	e.reconfine(l.Record)
	c := newEntry(e, l.Record, l.Standing)
	e.index.add(c)
	if cg, err := cgroup.Open(e.layout, l.Record.Cgroup); err == nil {
		c.run.cgroup = cg
	}
	if l.Standing.State.Status.Alive() {
		c.run.sandbox, c.run.volumes = e.liveSandbox(cid), true
		c.publish()
	}
	main, known := procs[""]
	then, err := e.recoverState(c, l, main, known)
	if err != nil {
		return fault.In(err, "recovering container %s", cid)
	}
	for _, x := range l.Execs {
		e.recoverExec(c, x, procs[x.ID])
	}
	e.killProbes(c, procs)
	if then != nil {
		e.behind = append(e.behind, e.inBackground(c, "recovery", then))
	}
	return nil
}

// recoverState brings the standing up to date. It gives what is to be done behind, with c's op held, or nil.
func (e *Engine) recoverState(c *entry, l store.Loaded, main keeper.ProcState, known bool) (then func(), err error) {
	state := l.Standing.State
	removal, begun := removalBegun(l.Standing.Op)
	switch {
	case begun:
		return func() { e.finishRemoval(c, removal) }, nil
	case known && main.Running && state.Pid == main.PID:
		return nil, e.recoverPaused(c)
	case known && main.Running:
		return nil, c.noteStarted(main)
	case known && state.Status.Alive() && state.Pid == main.PID:
		e.ending = append(e.ending, c.ended)
		return nil, nil
	case known && main.StartTime.After(state.FinishedAt):
		// Launched and ended without this engine's predecessor noting either.
		err = c.noteStarted(main)
		e.ending = append(e.ending, c.ended)
		return nil, err
	case known: // the standing says it already; it is told once more, and acknowledged then
	case state.Status.Alive():
		return e.recoverLost(c, l)
	}
	return e.recoverStopped(c, l), nil
}

func (e *Engine) finishRemoval(c *entry, o removing) {
	if err := e.removeHeld(context.Background(), c, o); err != nil {
		e.log.Error("a removal that was cut off cannot be finished", "container", c.id, "error", err)
	}
}

// noteStarted takes over a process whose start nobody noted, with the network and the volumes that it was given.
func (c *entry) noteStarted(p keeper.ProcState) error {
	sandbox := c.e.liveSandbox(c.id)
	c.mu.Lock()
	c.run.sandbox, c.run.volumes = sandbox, true
	c.mu.Unlock()
	return c.change(func(at *store.Standing) (err error) {
		at.State, err = at.State.Started(p.PID, p.StartTime)
		return err
	})
}

// recoverLost is for a container that ran and of which nobody knows anything: the machine was restarted, or engine and keeper died
// together.
func (e *Engine) recoverLost(c *entry, l store.Loaded) (func(), error) {
	reboot := l.Boot != e.boot
	err := c.change(func(at *store.Standing) (err error) {
		at.State, err = at.State.Ended(container.End{Code: 255, Unknown: true, At: time.Now().UTC()}, false)
		at.Reboot = reboot
		return err
	})
	if err != nil {
		return nil, err
	}
	again := restart.AtOpen(l.Record.Spec.Restart, 255, l.Standing.State.ManuallyStopped, true, restartsOf(l))
	return func() {
		if cg := c.cgroup(); cg != nil { // whatever still lives has lost its streams
			if err := cg.Kill(); err != nil {
				e.log.Warn("cannot kill what is left of a container", "container", c.id, "error", err)
			}
		}
		e.endRun(c)
		if again {
			e.startAtOpen(c)
			return
		}
		e.afterExit(context.Background(), c, restart.Decision{})
	}, nil
}

// recoverStopped gives what a container that does not run waits for: its restart, or a start with the engine.
func (e *Engine) recoverStopped(c *entry, l store.Loaded) func() {
	state, policy := l.Standing.State, l.Record.Spec.Restart
	switch {
	case state.Status == container.Restarting:
		return func() { e.restartLater(c, l.Standing.RestartWait) }
	case state.Status == container.Exited && restart.AtOpen(policy, state.ExitCode, state.ManuallyStopped, l.Standing.Reboot, restartsOf(l)):
		return func() { e.endRun(c); e.startAtOpen(c) }
	case state.Status == container.Exited && l.Record.Spec.AutoRemove:
		return func() { e.afterExit(context.Background(), c, restart.Decision{}) }
	}
	return nil
}

// startAtOpen starts a container by its policy. c's op is held.
func (e *Engine) startAtOpen(c *entry) {
	e.awaitOthers(c)
	if err := e.startHeld(context.Background(), c, false); err != nil {
		e.log.Warn("a container with a restart policy could not be started", "container", c.id, "error", err)
	}
}

// awaitOthers waits for the containers in whose namespaces, or with links to whom, c is to start, while they are started with the engine
// too. Two that wait for each other go on after a while, and the start says what is missing.
func (e *Engine) awaitOthers(c *entry) {
	ctx, cancel := context.WithTimeout(context.Background(), othersPatience)
	defer cancel()
	for _, ref := range others(c.record().Spec) {
		for {
			o, err := e.index.find(ref)
			if err != nil || o == c || o.snapshot().State.Status.Alive() || len(o.op) == 0 { // the last: nobody is at work on it
				break
			}
			if e.closing() || !pause(ctx, 20*time.Millisecond) {
				return
			}
		}
	}
}

const othersPatience = 30 * time.Second

// others gives the containers that must run before one with this spec can.
func others(s *container.Spec) (refs []string) {
	for _, mode := range []string{s.Network.Mode, s.Namespaces.PID, s.Namespaces.IPC, s.Security.UsernsMode} {
		if ref := joined(mode); ref != "" {
			refs = append(refs, ref)
		}
	}
	for _, l := range s.Network.Links {
		ref, _, _ := strings.Cut(l, ":")
		refs = append(refs, strings.TrimPrefix(ref, "/"))
	}
	return refs
}

// recoverPaused believes the kernel about who is frozen: the engine may have died between the act and its note.
func (e *Engine) recoverPaused(c *entry) error {
	if c.cgroup() == nil {
		return nil
	}
	frozen, err := c.cgroup().Frozen()
	paused := c.snapshot().State.Paused
	switch {
	case err != nil:
		e.log.Warn("cannot tell whether a container is frozen", "container", c.id, "error", err)
	case frozen && !paused:
		return c.become(container.Paused)
	case !frozen && paused:
		return c.become(container.Running)
	}
	return nil
}

// recoverExec makes an exec known again. One that ended meanwhile is told on the channel of exits; one that nobody holds is lost.
func (e *Engine) recoverExec(c *entry, x store.Exec, p keeper.ProcState) {
	n := &execution{id: x.ID, c: c, spec: x.Spec, begun: true, running: x.Running, pid: x.Pid, code: x.ExitCode, endedAt: time.Now()}
	if x.Running && p.ID == "" {
		unknown := 255
		n.running, n.code = false, &unknown
	}
	e.execs.put(n)
	if n.running {
		c.addExec(n.id)
	}
}

// disown kills processes whose container does not exist.
func (e *Engine) disown(ctx context.Context, procs map[string]map[string]keeper.ProcState) {
	for cid, ps := range procs {
		if e.index.get(cid) != nil {
			continue
		}
		if p, ok := ps[""]; ok && p.Running {
			e.disownOne(ctx, p)
			continue // its end comes as an exit and is acknowledged there
		}
		if err := e.keeper.Forget(ctx, cid); err != nil {
			e.log.Warn("the keeper does not forget a container that does not exist", "container", cid, "error", err)
		}
	}
}

// inBackground gives what does work on c behind, and takes c's op for it at once.
func (e *Engine) inBackground(c *entry, what string, work func()) (begin func()) {
	c.op <- struct{}{} // nobody else knows c yet
	end := c.working(what)
	return func() {
		e.work.Go(func() {
			defer end()
			work()
		})
	}
}

// sweep removes cgroups and mounts below the engine's parents that belong to no running container.
func (e *Engine) sweep() {
	for _, cid := range e.strayCgroups() {
		cg, err := cgroup.Open(e.layout, filepath.Join(e.cfg.CgroupParent, cid))
		if err != nil {
			continue
		}
		e.log.Info("removing a cgroup that belongs to no running container", "container", cid)
		if err := errors.Join(cg.Kill(), cg.Remove()); err != nil {
			e.log.Warn("cannot remove a stray cgroup", "container", cid, "error", err)
		}
	}
	e.sweepMounts()
	e.sweepBundles()
}

// strayCgroups gives the ids of cgroups below the parent whose container does not exist. Of containers that exist and do not run it
// removes the empty ones: in one that is not, a process may just have come late (see adopt.go). A container that somebody works on is
// left to him.
func (e *Engine) strayCgroups() []string {
	var stray []string
	for cid := range e.cgroupIDs() {
		c := e.index.get(cid)
		if c == nil {
			stray = append(stray, cid)
			continue
		}
		select {
		case c.op <- struct{}{}:
			if !c.snapshot().State.Status.Alive() && !c.cgroupBusy() {
				e.endRun(c)
			}
			<-c.op
		default:
		}
	}
	return stray
}

// cgroupIDs lists the ids of which there is a cgroup in some hierarchy.
func (e *Engine) cgroupIDs() map[string]bool {
	seen := map[string]bool{}
	for i := range e.layout.Hierarchies {
		h := &e.layout.Hierarchies[i]
		entries, err := os.ReadDir(h.Place(e.layout.Mode, e.cfg.CgroupParent))
		if err != nil {
			continue
		}
		for _, d := range entries {
			if d.IsDir() && id.Valid(d.Name()) {
				seen[d.Name()] = true
			}
		}
	}
	return seen
}

// cgroupBusy reports whether there are processes in the cgroup that a container which does not run still has.
func (c *entry) cgroupBusy() bool {
	cg := c.cgroup()
	if cg == nil {
		return false
	}
	procs, err := cg.Procs()
	return err == nil && len(procs) > 0
}
