package oci

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/kernel/cgroup"
	"berth/kernel/process"
	"berth/runtime/launch"
)

// birth is one container on its way from a bundle to a process: what create and run have in common.
type birth struct {
	t      *tool
	f      *flagSet
	c      *container
	cfg    *configuration
	bundle string
	extra  extras
	// wait: the program does not run before `start` (create)
	wait   bool
	detach bool        // we do not stay until the end (create, run --detach)
	fg     *foreground // us standing by, unless detach

	cg     *cgroup.Cgroup // nil without cgroups
	holder *holder        // keeps systemd's scope until the process is in it
	proc   *launch.Process
	ready  *readiness // the container's socket, when it runs and somebody wants to hear
	hooked bool       // a hook was run: poststop hooks are due even if the birth fails
}

// read reads and checks the flags and the configuration. done says that the whole command was carried
// out on the way, with that exit status.
func (b *birth) read() (done bool, code int, err error) {
	if b.bundle, err = filepath.Abs(b.f.text("bundle")); err != nil {
		return false, 1, err
	}
	if b.cfg, err = loadConfig(b.bundle + "/" + configFile); err != nil {
		return false, 1, err
	}
	if err := checkID(b.f.arg(0)); err != nil {
		return false, 1, err
	}
	if err := b.checkTerminal(); err != nil {
		return false, 1, err
	}
	if b.extra, err = extraFiles(int(b.f.int("preserve-fds"))); err != nil {
		return false, 1, err
	}
	if err := checkSpec(b.cfg.Spec, b.bundle); err != nil {
		return false, 1, err
	}
	b.t.warnOfCapabilities(b.cfg.Spec.Process)
	return b.throughUserNamespace()
}

// give makes the container and its process. On an error nothing is left of it.
func (b *birth) give() (err error) {
	if err := b.prepare(); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			b.undo()
		}
	}()
	_ = failpoint.Hit("oci-directory-made")
	if err := b.cgroups(); err != nil {
		return err
	}
	_ = failpoint.Hit("oci-cgroup-made")
	if err := b.offerReadiness(); err != nil {
		return err
	}
	var ready *readiness
	if b.wait {
		if err := b.c.makeFifo(); err != nil {
			return err
		}
	} else if ready, err = b.c.listenReady(); err != nil {
		return err
	}
	defer func() {
		if b.ready != ready {
			ready.close()
		}
	}()
	err = b.launch()
	b.holder.leave()
	b.holder = nil
	if err != nil && b.schedulerMeetsCPUs(err) {
		err = fmt.Errorf("process scheduler can't be used together with AllowedCPUs: %w", err)
	}
	if err != nil {
		return unable(err, b.c.rec.Rootfs)
	}
	_ = failpoint.Hit("oci-launched")
	if b.ready = ready; b.fg != nil {
		b.fg.ready = ready
	}
	if err := b.remember(b.proc.PID); err != nil {
		return err
	}
	_ = failpoint.Hit("oci-remembered")
	if err := handOut(b.f, b.proc); err != nil {
		return err
	}
	if path := b.f.text("pid-file"); path != "" {
		return writePIDFile(path, b.proc.PID)
	}
	return nil
}

// schedulerMeetsCPUs recognises a deadline refused because the process may not run on all CPUs (sched_setattr(2)).
func (b *birth) schedulerMeetsCPUs(err error) bool {
	r := b.cfg.Spec.Linux.Resources
	return errors.Is(err, unix.EPERM) && b.cfg.Spec.Process.Scheduler != nil && r != nil && r.CPU != nil && r.CPU.Cpus != ""
}

// unable puts a failed launch into the words that docker and podman look for.
func unable(err error, root string) error {
	return fmt.Errorf("unable to start container process: %w", describe(err, root))
}

// prepare makes the container's directory.
func (b *birth) prepare() (err error) {
	id := b.f.arg(0)
	if b.c, err = b.t.newContainer(id); err != nil {
		return err
	}
	if err := writeFile(b.c.dir+"/"+configFile, b.cfg.text, 0o600); err != nil {
		_ = b.c.remove()
		return err
	}
	s := b.cfg.Spec
	b.c.rec = &record{
		Version: recordVersion, OCIVersion: s.Version, ID: id, Bundle: b.bundle, Rootfs: rootPath(s, b.bundle),
		Created: time.Now(), ConfigHash: hashText(b.cfg.text), Annotations: s.Annotations,
		PIDNS: ownNamespace(s, specs.PIDNamespace), Systemd: b.t.systemd,
	}
	if err := b.c.rec.noteMount(s); err != nil {
		_ = b.c.remove()
		return err
	}
	return nil
}

// checkTerminal refuses combinations of flags and process.terminal in which nobody would hold the
// terminal's other end.
func (b *birth) checkTerminal() error {
	p := b.cfg.Spec.Process
	return checkConsole(p != nil && p.Terminal, b.detach, b.f.text("console-socket"))
}

func checkConsole(terminal, detach bool, socket string) error {
	switch {
	case detach && terminal && socket == "":
		return fault.New(fault.Invalid, "cannot allocate tty if runc will detach without setting console socket")
	case socket != "" && !(detach && terminal):
		return fault.New(fault.Invalid, "cannot use console socket if runc will not detach or allocate tty")
	}
	return nil
}

// launch compiles the configuration and starts the process.
func (b *birth) launch() error {
	s := b.cfg.Spec
	b.extra.keepOthers()
	filter, err := b.t.filter(b.cfg)
	if err != nil {
		return err
	}
	s.Process.Env = b.extra.tell(s.Process.Env)
	s.Process.Env = completeEnv(s.Process.Env, s.Process.User.UID, b.c.rec.Rootfs, s.Mounts)
	o := launch.Options{
		Bundle: b.bundle, Seccomp: filter, NoPivot: b.f.bool("no-pivot"), NewKeyring: !b.f.bool("no-new-keyring"), PreserveFDs: b.extra.all(),
		OpenFiles: openFiles(), InUserNS: inUserNamespace(), DirMode: b.c.rec.dirMode,
	}
	if b.cg != nil {
		o.Cgroup = b.cg.Attach()
	}
	if o.NoPivot {
		if o.KernelViews, err = kernelViews(b.c.rec.Rootfs); err != nil {
			return err
		}
	}
	if b.wait {
		o.GateFifo = b.c.dir + "/" + fifoFile
	}
	beforePivot := len(prestart.hooks(s))+len(createRuntime.hooks(s))+len(createContainer.hooks(s))+len(s.Linux.NetDevices) > 0
	beforeExec := !b.wait && len(startContainer.hooks(s)) > 0
	// Our terminal and the container's must be connected before anything is written.
	o.Gate = b.fg != nil && s.Process.Terminal
	o.HookGates = launch.HookGates{BeforePivot: beforePivot, BeforeExec: beforeExec}
	p, err := launch.Compile(s, o)
	if err != nil {
		return err
	}
	b.t.logProgram(p)
	l, err := launch.NewLauncher(false)
	if err != nil {
		return err
	}
	io := launch.Stdio{In: 0, Out: 1, Err: 2, Rows: rows(s.Process), Cols: columns(s.Process)}
	if b.proc, err = l.StartHooked(p, io, launch.Hooks{BeforePivot: b.beforePivot, BeforeExec: b.beforeExec, Listener: b.listener}); err != nil || b.fg == nil {
		return err
	}
	if err := b.fg.attach(b.proc); err != nil || !o.Gate {
		return err
	}
	return b.proc.Release()
}

// logProgram shows what is about to be done, with --debug.
func (t *tool) logProgram(p *launch.Program) {
	if !t.log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	for line := range strings.Lines(p.String()) {
		t.log.Debug(strings.TrimRight(line, "\n"))
	}
}

// beforePivot is called while the container's namespaces exist and its root is not entered yet.
func (b *birth) beforePivot(pid int) error {
	s := b.cfg.Spec
	if err := moveNetDevices(s.Linux.NetDevices, pid); err != nil {
		return err
	}
	// Hooks may ask us for the container's state.
	if err := b.remember(pid); err != nil {
		return err
	}
	b.hooked = true
	// The environment is there and the hooks' time is after it was made (step 2 of the lifecycle): to
	// them the container is created. runc says "creating"; the specification's own tests want this.
	state := stateJSON(b.c.rec, created, pid)
	for _, kind := range [...]hookKind{prestart, createRuntime} {
		if err := b.t.runHooks(kind, kind.hooks(s), state, inRuntime(b.bundle)); err != nil {
			return err
		}
	}
	state = stateJSON(b.c.rec, created, pidInside(pid))
	return b.t.runHooks(createContainer, createContainer.hooks(s), state, inContainer(s, b.c.rec, pid, false, nil))
}

// beforeExec is called (run only) while the process is ready to execute the user's program.
func (b *birth) beforeExec(pid int) error {
	if err := b.remember(pid); err != nil {
		return err
	}
	b.hooked = true
	return b.t.runStartContainer(b.c, b.cfg, pid)
}

// listener is called when the process has its seccomp filter and waits for us.
func (b *birth) listener(pid, fd int) error {
	if err := b.remember(pid); err != nil {
		return err
	}
	return sendListener(b.c, b.cfg, creating, pid, fd)
}

// runStartContainer runs the hooks that belong inside the container, right before its program and under
// its seccomp filter.
func (t *tool) runStartContainer(c *container, cfg *configuration, pid int) error {
	hooks := startContainer.hooks(cfg.Spec)
	if len(hooks) == 0 {
		return nil
	}
	filter, err := t.filter(cfg)
	if err != nil {
		return err
	}
	if filter != nil && filter.Notify {
		filter = nil // its agent answers for the program, not for us
	}
	return t.runHooks(startContainer, hooks, stateJSON(c.rec, created, pidInside(pid)), inContainer(cfg.Spec, c.rec, pid, true, filter))
}

// remember writes state.json. It is called once the process exists, and again only if that changed.
func (b *birth) remember(pid int) error {
	if b.c.rec.PID == pid {
		return nil
	}
	start, err := process.StartTicks(pid)
	if err != nil {
		return err
	}
	b.c.rec.PID, b.c.rec.StartTime = pid, start
	return b.c.save()
}

// undo takes everything back after a failure.
func (b *birth) undo() {
	b.holder.leave()
	if b.proc != nil {
		_ = unix.Kill(b.proc.PID, unix.SIGKILL)
		_, _ = reap(b.proc.PID)
		b.closeProcess()
	}
	if err := b.c.destroy(b.cg); err != nil {
		b.t.log.Warn("clean up after a failure", "error", err.Error())
	}
	if b.hooked {
		b.t.runPoststop(b.c.rec, b.cfg.Spec)
	}
}

// closeProcess drops the descriptors that belong to the process.
func (b *birth) closeProcess() {
	for _, fd := range [...]int{b.proc.PidFD, b.proc.Console, b.proc.Listener} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// makeFifo makes the file at which the process will wait for `start`. Only we open it, for the process too.
func (c *container) makeFifo() error {
	path := c.dir + "/" + fifoFile
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return &os.PathError{Op: "mkfifo", Path: path, Err: err}
	}
	return nil
}

// runPoststop runs the hooks that come after a container's end. Their failures are told and change nothing.
func (t *tool) runPoststop(rec *record, s *specs.Spec) {
	if hooks := poststop.hooks(s); len(hooks) > 0 {
		t.tryHooks(poststop, hooks, stateJSON(rec, stopped, 0), rec.Bundle)
	}
}
