package engine

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/base/id"
	"berth/engine/container"
	"berth/engine/health"
	"berth/engine/restart"
	"berth/engine/store"
	"berth/kernel/netns"
	"berth/kernel/process"
	"berth/runtime/keeper"
)

const (
	// launchedAtOnce bounds how many probes are being launched at a time: a thousand that come due together do not starve a start.
	launchedAtOnce = 8
	// launchUsual is longer than a launch takes on a busy machine. One that takes longer is not counted any more.
	launchUsual = 2 * time.Second
	// launchPatience bounds the launch of a probe, which does not count towards its timeout, as in Docker.
	launchPatience = 30 * time.Second
	// probeKillPatience is how long the kernel has to end a probe after SIGKILL before it is reported as one that does not end.
	probeKillPatience = 2 * time.Second
)

// checkCounts are figures for whoever watches the engine.
type checkCounts struct{ all, failed atomic.Uint64 }

// healthAtStart is the health of a container whose process was just made; nil where there is nothing to be probed.
func healthAtStart(s *container.Spec, was *container.Health) *container.Health {
	if !probed(s) {
		return nil
	}
	return health.Begin(was)
}

// probed reports whether there is a check to be made.
func probed(s *container.Spec) bool {
	if s.Healthcheck == nil || s.Plugin != "" {
		return false
	}
	_, ok, err := health.Parse(s.Healthcheck.Test, s.Shell)
	return ok && err == nil
}

// healthWarning tells who asks for a restart of what cannot become unhealthy.
func healthWarning(s *container.Spec) []string {
	if s.Restart.Name != restart.OnUnhealthy || probed(s) {
		return nil
	}
	return []string{"The container has no health check: its restart policy on-unhealthy acts as on-failure"}
}

// restartsOf gives the restarts that the policy's bound counts.
func restartsOf(l store.Loaded) int {
	if l.Record.Spec.Restart.Name == restart.OnUnhealthy {
		return l.Standing.Relapses
	}
	return l.Standing.RestartCount
}

// watchHealth follows a move of a container's status: only what runs, and is not paused, is probed.
func (e *Engine) watchHealth(c *entry, s container.State) {
	if s.Status != container.Running || s.Health == nil {
		e.health.Drop(c.id)
		return
	}
	e.health.Set(c.id, health.Due(s.Health, c.snapshot().Spec.Healthcheck, s.StartedAt, time.Now()))
}

// resumeHealth begins to probe what runs when the engine starts. Status and streak are those that the last engine noted.
func (e *Engine) resumeHealth() {
	now := time.Now()
	e.index.each(func(c *entry) {
		i := c.snapshot()
		if i.State.Status != container.Running || !probed(i.Spec) {
			return
		}
		if i.State.Health == nil { // started by an engine that knew no checks
			if err := c.change(func(at *store.Standing) error { at.State.Health = health.Begin(nil); return nil }); err != nil {
				e.log.Warn("a container's health is not in the journal", "container", c.id, "error", err)
			}
			i = c.snapshot()
		}
		e.health.Set(c.id, health.Resume(c.id, i.State.Health, i.Spec.Healthcheck, i.State.StartedAt, now))
		if c.standing().Unwell {
			ended := c.endedChan()
			e.work.Go(func() { e.endUnhealthy(c, ended) })
		}
	})
}

// probe makes one probe of a container and gives when the next one is due; the zero time where none is.
func (e *Engine) probe(ctx context.Context, cid string) time.Time {
	c := e.index.get(cid)
	if c == nil {
		return time.Time{}
	}
	i := c.snapshot()
	check := i.Spec.Healthcheck
	if i.State.Status != container.Running || i.State.Health == nil || check == nil {
		return time.Time{}
	}
	p, ok, err := health.Parse(check.Test, i.Spec.Shell)
	if !ok || err != nil {
		return time.Time{}
	}
	var r container.HealthResult
	unable := false
	if p.Kind == health.Command {
		r, unable = e.probeByCommand(ctx, c, p.Args, health.Timeout(check))
	} else {
		r = health.Ask(ctx, p, e.dialerOf(c, i), health.Timeout(check))
	}
	if ctx.Err() != nil { // it was paused, ended, or the engine closes: nothing was found out
		return time.Time{}
	}
	e.checks.all.Add(1)
	h, err := e.noteHealth(c, i, r, unable)
	if err != nil {
		e.log.Warn("a container's health is not in the journal", "container", c.id, "error", err)
	}
	if h == nil {
		return time.Time{}
	}
	return health.Due(h, check, i.State.StartedAt, time.Now())
}

// errOther stops a change that is about a run which is over.
var errOther = errors.New("it is another run")

// noteHealth puts a result on record and does what follows from it. It gives nil when the run that was probed is over. unable: the probe
// could not be made for a reason of ours (the keeper does not answer, the machine is overloaded). It counts, as in Docker, but nothing is
// restarted for it: that would only make matters worse, and for all containers at once.
func (e *Engine) noteHealth(c *entry, i *container.Info, r container.HealthResult, unable bool) (*container.Health, error) {
	var was, is *container.Health
	var ends <-chan struct{} // the end of the run, where it is to be brought about
	err := c.changeAnd(func(at *store.Standing) error {
		if at.State.Status != container.Running || at.State.Pid != i.State.Pid || !at.State.StartedAt.Equal(i.State.StartedAt) || at.State.Health == nil {
			return errOther
		}
		was = at.State.Health
		is = health.Decide(was, i.Spec.Healthcheck, i.State.StartedAt, r)
		at.State.Health = is
		switch {
		case is.Status == container.Healthy && at.Relapses > 0:
			at.Relapses, at.RestartWait = 0, 0
		case !unable && health.Failing(is, i.Spec.Healthcheck) && !at.Unwell && !at.State.ManuallyStopped && !e.stopping.Load() && restart.Unhealthy(c.rec.Spec.Restart, at.Relapses):
			at.Unwell, ends = true, c.ended
		}
		return nil
	}, func(cid string, at store.Standing) error {
		if was.Status == is.Status && was.FailingStreak == is.FailingStreak { // most of them
			return nil
		}
		return e.store.SetHealth(cid, at)
	})
	if errors.Is(err, errOther) {
		return nil, nil
	}
	if was.Status != is.Status {
		e.tell(c, "health_status: "+string(is.Status), nil)
	}
	if ends != nil {
		e.work.Go(func() { e.endUnhealthy(c, ends) })
	}
	return is, err
}

// endUnhealthy ends a run that was found unhealthy, with the container's own stop signal and timeout. That it is started again is decided
// at its end, like any restart.
func (e *Engine) endUnhealthy(c *entry, ended <-chan struct{}) {
	sig, err := c.stopSignal("")
	if err != nil {
		sig = unix.SIGTERM
	}
	if closed(ended) { // by itself
		return
	}
	e.log.Info("ending a container that is unhealthy, to start it again", "container", c.id)
	if err := e.signal(context.Background(), c, sig); err != nil && !fault.Is(err, fault.NotFound) {
		e.log.Warn("the stop signal was not delivered; killing", "container", c.id, "error", err)
	} else if !e.waitForEnd(ended, c.stopTimeout(nil)) {
		return // the next engine goes on
	}
	if closed(ended) {
		return
	}
	if err := e.kill(c, ended); err != nil {
		e.log.Error("a container that is unhealthy cannot be ended", "container", c.id, "error", err)
		// The next failure tries again. If it ends by itself, by the signal that it got, that is a failure too.
		if err := c.change(func(at *store.Standing) error { at.Unwell = false; return nil }); err != nil {
			e.log.Error("cannot note it", "container", c.id, "error", err)
		}
	}
}

// waitForEnd waits for the end of a run; a negative patience has no bound. It gives false when the engine closes first.
func (e *Engine) waitForEnd(ended <-chan struct{}, patience time.Duration) bool {
	var late <-chan time.Time
	if patience >= 0 {
		t := time.NewTimer(patience)
		defer t.Stop()
		late = t.C
	}
	select {
	case <-ended:
	case <-late:
	case <-e.done:
		return false
	}
	return true
}

// dialerOf connects to addresses as seen in a container's network.
func (e *Engine) dialerOf(c *entry, i *container.Info) health.Dial {
	return func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
		if i.Spec.Network.Name() == "host" {
			return netns.Dial(ctx, nil, to)
		}
		ns, err := netns.OfProcess(i.State.Pid)
		if err != nil {
			return nil, err
		}
		defer ns.Close()
		if !e.keeper.Holds(c.id, i.State.Pid) { // the number may have another owner, whose network this is
			return nil, fault.New(fault.Conflict, "container %s is not running", c.id)
		}
		return netns.Dial(ctx, ns, to)
	}
}

// probeByCommand runs a check's command in the container. A process that does not end in time is killed with all that it started; if that
// does not end it, there is no further one beside it.
func (e *Engine) probeByCommand(ctx context.Context, c *entry, args []string, patience time.Duration) (r container.HealthResult, unable bool) {
	start := time.Now()
	if last := c.lastProbe(); last != nil && !closed(last.probed) {
		if err := e.keeperReady(); err != nil {
			return health.Failed(start, err), true
		}
		pid := last.processID()
		if !e.killProbe(c, last.id, pid) {
			e.forgetProbe(last)
		}
		switch {
		case waitFor(ctx, last.probed, probeKillPatience):
		case pid == 0:
			return health.Failed(start, fault.New(fault.Unavailable, "the keeper has not yet answered to the launch of the last health check")), true
		default:
			return health.Failed(start, fault.New(fault.Unavailable, "the last health check does not end: %s", cmp.Or(stuck(pid), fmt.Sprintf("process %d was killed and is still there", pid)))), false
		}
	}
	x, conn, err := e.launchProbe(ctx, c, args)
	if err != nil {
		e.checks.failed.Add(1)
		return health.Failed(start, err), fault.Is(err, fault.Unavailable) || fault.Is(err, fault.Deadline)
	}
	defer conn.Close()
	deadline := time.Now().Add(patience)
	conn.SetReadDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	out, more, err := readFrames(conn)
	t := time.NewTimer(time.Until(deadline))
	defer t.Stop()
	if err == nil {
		select {
		case <-x.probed:
			return health.Result(start, x.exitCode(), out, more), false
		case <-t.C:
		case <-ctx.Done():
		}
	}
	e.killProbe(c, x.id, x.processID())
	if ctx.Err() != nil {
		return health.Failed(start, ctx.Err()), false
	}
	waitFor(ctx, x.probed, probeKillPatience)
	return health.TimedOut(start, patience, out, more), false
}

// launchProbe begins a check's command. It is an exec like any other but for three things: its id tells what it is (see probeID), so that
// the journal need not know of it; it is forgotten at its end; and it has no stdin.
func (e *Engine) launchProbe(ctx context.Context, c *entry, args []string) (*execution, *net.UnixConn, error) {
	if err := e.keeperReady(); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, launchPatience)
	defer cancel()
	select {
	case e.probes <- struct{}{}:
		release := sync.OnceFunc(func() { <-e.probes })
		defer release()
		defer time.AfterFunc(launchUsual, release).Stop() // what hangs is not in the way of others
	case <-ctx.Done():
		return nil, nil, fault.Wrap(fault.Deadline, ctx.Err(), "timed out starting health check for container %s", c.id)
	}
	x := &execution{
		id: probeID(c.id), c: c, begun: true, running: true, probed: make(chan struct{}),
		spec: container.ExecSpec{Cmd: args, AttachStdout: true, AttachStderr: true},
	}
	l, err := e.planProbe(ctx, c, x)
	if err != nil {
		return nil, nil, err
	}
	e.execs.put(x)
	c.addProbe(x)
	line := strings.Join(args, " ")
	e.tell(c, "exec_create: "+line, map[string]string{"execID": x.id})
	e.tell(c, "exec_start: "+line, map[string]string{"execID": x.id})
	started, err := e.launchOrFind(ctx, l)
	if fault.Is(err, fault.Unavailable) {
		e.killCutExecs(ctx, c)
	}
	if err == nil && len(started.Attached) == 0 { // found, after the connection to the keeper broke
		e.killProbe(c, x.id, started.PID)
		err = fault.New(fault.Unavailable, "the connection to the keeper broke while a health check was started")
	}
	if err != nil {
		if !fault.Is(err, fault.Deadline) { // else the keeper may yet make it: the next probe looks after it
			defer e.forgetProbe(x)
		}
		return nil, nil, e.execFailed(x, left(err, "container %s is not running", c.id))
	}
	x.change(func() bool { x.pid = started.PID; return x.running })
	return x, started.Attached[0], nil
}

// planProbe decides everything about the launch of a probe.
func (e *Engine) planProbe(ctx context.Context, c *entry, x *execution) (l keeper.Launch, err error) {
	built, err := e.builtOf(c)
	if err != nil {
		return l, err
	}
	process, err := e.execProcess(c, built.Spec, x.spec)
	if err != nil {
		return l, err
	}
	state, cg := c.snapshot().State, c.cgroup()
	if !state.Running || cg == nil {
		return l, fault.New(fault.Conflict, "container %s is not running", c.id)
	}
	if err := e.ensureProfile(ctx, c.record()); err != nil {
		return l, err
	}
	program, err := e.compileExec(x, process, built, cg, state.Pid)
	if err != nil {
		return l, err
	}
	return keeper.Launch{
		ID: c.id, Proc: x.id, Program: program.Encode(), Enters: entered(program, c.id, state.Pid), Attach: []keeper.AttachRequest{{Stdout: true, Stderr: true, Framed: true}},
	}, nil
}

// readFrames gives the beginning of a process's output, both streams in the order in which they were written, and whether there was more.
// It ends with the output.
func readFrames(r io.Reader) (out []byte, more bool, err error) {
	in := bufio.NewReaderSize(r, health.MaxOutput)
	var head [8]byte // Docker's: the stream, three zeros, the length
	for {
		if _, err := io.ReadFull(in, head[:]); err != nil {
			if err == io.EOF {
				err = nil
			}
			return out, more, err
		}
		n := int64(head[4])<<24 | int64(head[5])<<16 | int64(head[6])<<8 | int64(head[7])
		keep := min(n, int64(health.MaxOutput-len(out)))
		more = more || keep < n
		at := len(out)
		out = slices.Grow(out, int(keep))[:at+int(keep)]
		if _, err := io.ReadFull(in, out[at:]); err != nil {
			return out[:at], more, err
		}
		if _, err := io.CopyN(io.Discard, in, n-keep); err != nil {
			return out, more, err
		}
	}
}

// forgetProbe is the end of a probe's process.
func (e *Engine) forgetProbe(x *execution) {
	x.forget.Do(func() {
		e.execs.drop(x.id)
		close(x.probed)
	})
}

// killProbe ends a probe and what it started. It gives false when there is no such process any more.
func (e *Engine) killProbe(c *entry, eid string, pid int) bool {
	if cg := c.cgroup(); cg != nil && pid != 0 {
		if fd, err := process.Open(pid); err == nil {
			defer unix.Close(fd)
			// The descriptor is of the probe if its number is in the container's cgroup after it was opened.
			if procs, err := cg.Procs(); err == nil && slices.Contains(procs, pid) && killTree(cg, pid, fd) == nil {
				return true
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeKillPatience)
	defer cancel()
	err := e.keeper.Signal(ctx, c.id, eid, int(unix.SIGKILL))
	if err != nil && !fault.Is(err, fault.NotFound) {
		e.log.Warn("cannot kill a health check", "container", c.id, "error", err)
	}
	return !fault.Is(err, fault.NotFound)
}

// killProbes ends the probes that the last engine left running: nobody waits for them any more.
func (e *Engine) killProbes(c *entry, procs map[string]keeper.ProcState) {
	for eid, p := range procs {
		if p.Running && isProbe(c.id, eid) {
			e.killProbe(c, eid, p.PID)
		}
	}
}

// probeID gives an id for a health check's process. Its last eight digits are a checksum of the others and the container's id: by that an
// engine knows what its predecessor left running, without a line in the journal for each probe.
func probeID(cid string) string {
	eid := id.New()[:id.Len-8]
	return eid + probeSum(cid, eid)
}

func isProbe(cid, eid string) bool {
	return len(eid) == id.Len && eid[id.Len-8:] == probeSum(cid, eid[:id.Len-8])
}

func probeSum(cid, eid string) string {
	return fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte("berth-health "+cid+eid)))
}

func (c *entry) lastProbe() *execution {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.probe
}

// addProbe keeps the process, which inspect shows as long as it runs.
func (c *entry) addProbe(x *execution) {
	c.mu.Lock()
	c.probe = x
	c.mu.Unlock()
	c.addExec(x.id)
}

func (x *execution) processID() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.pid
}

// exitCode is that of an exec that ended.
func (x *execution) exitCode() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.code == nil {
		return -1
	}
	return *x.code
}
