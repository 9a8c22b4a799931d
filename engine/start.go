package engine

import (
	"context"
	"errors"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/engine/container"
	"berth/engine/mergedroot"
	"berth/engine/step"
	"berth/engine/store"
	"berth/kernel/cgroup"
	"berth/network"
	"berth/runtime/keeper"
	"berth/runtime/launch"
)

// startPatience bounds a start once it is under way; it then no longer depends on the client that asked for it.
const startPatience = time.Minute

// Start runs a created or ended container.
func (e *Engine) Start(ctx context.Context, ref string) error {
	c, err := e.index.find(ref)
	if err != nil {
		return err
	}
	end, err := c.begin(ctx, "start")
	if err != nil {
		return err
	}
	defer end()
	c.cancelRestart()
	return e.startHeld(ctx, c, false)
}

// startHeld starts c, whose op is held. byPolicy: a restart, which counts.
func (e *Engine) startHeld(ctx context.Context, c *entry, byPolicy bool) error {
	switch s := c.snapshot().State; s.Status {
	case container.Running:
		return fault.New(fault.NotModified, "container %s is already running", c.id)
	case container.Paused:
		return fault.New(fault.Conflict, "cannot start a paused container, try unpause instead")
	case container.Removing:
		return fault.New(fault.Conflict, "container is marked for removal and cannot be started")
	case container.Dead:
		return fault.New(fault.Conflict, "container is dead and cannot be started: its removal failed; remove it again")
	}
	if e.stopping.Load() {
		return fault.New(fault.Unavailable, "the engine is shutting down and starts nothing any more")
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startPatience)
	defer cancel()

	if !byPolicy {
		if err := e.probeCollector(ctx, c.record()); err != nil {
			return e.startFailed(c, err)
		}
	}
	started, adopted, err := e.launchOrAdopt(ctx, c)
	if err != nil {
		return e.startFailed(c, err)
	}
	if adopted {
		return nil
	}
	err = c.change(func(at *store.Standing) (err error) {
		if !byPolicy {
			at.RestartCount, at.Relapses, at.RestartWait, at.State.ManuallyStopped = 0, 0, 0, false
		}
		at.Figures, at.Reboot, at.Unwell = nil, false, false
		at.State, err = at.State.Started(started.PID, started.StartTime)
		return err
	})
	if err != nil {
		return err
	}
	e.imageUsed(c.record())
	e.tell(c, "start", nil)
	return nil
}

// launch makes everything that a run of the container needs, and the process. When it fails nothing of it is left.
func (e *Engine) launch(ctx context.Context, c *entry) (started keeper.Started, err error) {
	var p *startPlan
	var sandbox network.Sandbox
	var paths sources
	var cg *cgroup.Cgroup
	joined := func() {} // to be called when the process is in the cgroup
	var compiled func(cgroup.Attach) ([]byte, error)
	var why error // why the keeper did not launch
	var attached []keeper.AttachRequest
	if err := e.keeperReady(); err != nil {
		return started, err
	}
	err = step.Run(c.steps(ctx), "start",
		step.Step{Name: "network", Do: func(ctx context.Context) (err error) {
			sandbox, err = e.joinNetworks(ctx, c.record())
			return err
		}, Undo: func() error { return e.leaveNetworks(c.record()) }},
		step.Step{Name: "volumes", Do: func(ctx context.Context) (err error) {
			paths, err = e.mountVolumes(ctx, c.record())
			return err
		}, Undo: func() error { return e.unmountVolumes(c.record()) }},
		step.Step{Name: "plan", Do: func(context.Context) (err error) {
			p, err = e.plan(c, sandbox, paths)
			return err
		}},
		step.Step{Name: "files", Do: func(ctx context.Context) error { return p.prepareFiles(ctx) }, Undo: func() error { return p.undoFiles() }},
		step.Step{Name: "cgroup", Do: func(ctx context.Context) error {
			compiled = p.compileAside(p.cgroup.Attach())
			made, in, err := e.groups.make(ctx, p.cgroup, p.Spec.Linux.Resources)
			if err == nil {
				cg, joined = made, in
			} else {
				_, _ = compiled(p.cgroup.Attach()) // nothing that it reads is undone under it
			}
			return late(err)
		}, Undo: func() error {
			if errors.Is(why, errLate) { // it is the late one's
				return nil
			}
			e.killCut(c, cg, why)
			return e.groups.remove(ctx, p.rec.Cgroup, cg)
		}},
		step.Step{Name: "launch", Do: func(ctx context.Context) error {
			program, err := compiled(cg.Attach())
			if err != nil {
				joined()
				return err
			}
			attached = c.takePending()
			p.launch.Program, p.launch.Attach = program, attached
			started, err = e.launchOrFind(ctx, p.launch)
			if dangles(err) && p.followLinks() {
				if p.launch.Program, err = p.compile(cg.Attach()); err == nil {
					started, err = e.launchOrFind(ctx, p.launch)
				}
			}
			joined()
			if err == nil {
				c.remember(run{cgroup: cg, sandbox: sandbox, volumes: true})
				e.watchOOM(c)
				e.tellNetwork(c.record(), "connect")
				e.tellVolumes(c.record(), "mount")
			}
			why = late(err)
			return left(why, "failed to join a namespace: %v", err)
		}},
	)
	closeSockets(attached) // the keeper has its own descriptors; after a failure the clients see the end
	return started, err
}

// launchOrFind asks the keeper for the process. When the connection broke in between, the keeper is asked what became of it.
func (e *Engine) launchOrFind(ctx context.Context, l keeper.Launch) (keeper.Started, error) {
	started, err := e.keeper.Launch(ctx, l)
	var refused *launch.Error
	if err == nil || errors.As(err, &refused) || !fault.Is(err, fault.Unavailable) {
		return started, err
	}
	all, lerr := e.keeper.List(ctx)
	if lerr != nil {
		return started, err
	}
	for _, p := range all {
		if p.ID == l.ID && p.Proc == l.Proc {
			started.PID, started.StartTime = p.PID, p.StartTime
			return started, nil
		}
	}
	return started, err
}

// startFailed notes why a start failed, as Docker does: an exit code that the client's own follows, and the text.
func (e *Engine) startFailed(c *entry, err error) error {
	var l *launch.Error
	if dir := c.record().Spec.Process.WorkingDir; errors.As(err, &l) && l.Errno == unix.ENOTDIR && strings.HasPrefix(l.Step, "chdir to cwd") {
		err = fault.New(fault.Invalid, "Cannot mkdir: %s is not a directory", dir)
	}
	code, err := e.translateStart(err, c, c.record().Path, "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: ")
	cerr := c.change(func(at *store.Standing) error {
		at.State.ExitCode, at.State.Error = code, err.Error()
		if at.State.Status == container.Restarting {
			at.State, _ = at.State.Become(container.Exited)
		}
		return nil
	})
	if cerr != nil {
		e.log.Error("cannot note a failed start", "container", c.id, "error", cerr)
	}
	c.wakeFailed(container.ExitStatus{Code: code, Err: err.Error()})
	if c.record().Spec.AutoRemove {
		if rerr := e.removeHeld(context.Background(), c, removing{volumes: true, good: true}); rerr != nil {
			e.log.Error("a container that could not be started was not removed", "container", c.id, "error", rerr)
		}
	}
	return err
}

// Exit codes of a process that could not be started.
const (
	exitNotFound   = 127
	exitCannotRun  = 126
	exitStartOther = 128
)

// translateStart puts a failed launch into the words that tools look for, and gives the exit code that goes with them.
func (e *Engine) translateStart(err error, c *entry, arg0, prefix string) (int, error) {
	var l *launch.Error
	if !errors.As(err, &l) {
		if code, err, is := foreignStart(err, prefix); is {
			return code, err
		}
		return exitStartOther, err
	}
	if l.Arg0 != "" {
		arg0 = l.Arg0
	}
	if !l.Exec {
		return exitStartOther, fault.New(fault.Internal, "%s%s: unknown", prefix, l.Error())
	}
	code, why := exitCannotRun, errnoText(l.Errno)
	switch {
	case l.Errno == unix.ENOENT && !strings.Contains(arg0, "/"):
		code, why = exitNotFound, "executable file not found in $PATH"
	case l.Errno == unix.ENOENT, l.Errno == unix.ENOTDIR:
		code, why = exitNotFound, "stat "+arg0+": "+errnoText(l.Errno)
	case l.Errno == unix.EACCES && e.isDirectory(c, arg0):
		why = "is a directory"
	case l.Errno == unix.ENOEXEC:
		return 255, fault.New(fault.Invalid, "%sexec %s: exec format error: unknown", prefix, arg0)
	}
	return code, fault.New(fault.Invalid, "%sexec: %q: %s: unknown", prefix, arg0, why)
}

// isDirectory tells why execve denied a program: the kernel does not.
func (e *Engine) isDirectory(c *entry, path string) bool {
	layer, err := e.images.Layer(c.id)
	if err != nil {
		return false
	}
	root, err := mergedroot.Open(layer.Upper, layer.Lower)
	if err != nil {
		return false
	}
	defer root.Close()
	st, err := root.Stat(path)
	return err == nil && st.IsDir()
}

// errnoText is the kernel's word for an error.
func errnoText(errno unix.Errno) string { return errno.Error() }
