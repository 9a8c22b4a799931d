package engine

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/base/id"
	"berth/engine/bundle"
	"berth/engine/container"
	"berth/engine/store"
	"berth/runtime/keeper"
)

// execKept is how long an ended exec can be asked for its exit code.
const execKept = 5 * time.Minute

// execution is one further process of a container.
type execution struct {
	id   string
	c    *entry
	spec container.ExecSpec

	probed chan struct{} // closed at its end; nil: it is no health check's. One that is has no line in the journal
	forget sync.Once     // closes probed

	order sync.Mutex // held over a change and its line in the journal; taken before mu

	mu      sync.Mutex // guards all below
	begun   bool       // started once, or being started
	running bool
	pid     int
	code    *int
	endedAt time.Time
}

// execTable holds all executions.
type execTable struct {
	mu   sync.Mutex
	byID map[string]*execution
}

func (t *execTable) init() { t.byID = map[string]*execution{} }

func (t *execTable) get(eid string) (*execution, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if x := t.byID[eid]; x != nil {
		return x, nil
	}
	return nil, fault.New(fault.NotFound, "No such exec instance: %s", eid)
}

// put adds x and forgets those that ended long ago.
func (t *execTable) put(x *execution) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.byID[x.id] = x
	for eid, old := range t.byID {
		if old.endedLongAgo() {
			delete(t.byID, eid)
		}
	}
}

func (t *execTable) drop(eid string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byID, eid)
}

func (t *execTable) dropContainer(cid string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for eid, x := range t.byID {
		if x.c.id == cid {
			delete(t.byID, eid)
		}
	}
}

// dropUnbegun forgets the execs of a run that has ended which nobody has started: they are not for the next run.
func (t *execTable) dropUnbegun(cid string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for eid, x := range t.byID {
		if x.c.id == cid && x.untouched() {
			delete(t.byID, eid)
			x.c.dropExec(eid)
		}
	}
}

func (x *execution) endedLongAgo() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.code != nil && time.Since(x.endedAt) > execKept
}

// ExecCreate prepares a further process in a running container.
func (e *Engine) ExecCreate(ctx context.Context, ref string, s container.ExecSpec) (string, error) {
	c, err := e.index.find(ref)
	if err != nil {
		return "", err
	}
	if len(s.Cmd) == 0 {
		return "", fault.New(fault.Invalid, "No exec command specified")
	}
	if err := c.mayExec(ref); err != nil {
		return "", err
	}
	for _, kv := range s.Env {
		if kv == "" || kv[0] == '=' {
			return "", fault.New(fault.Invalid, "invalid environment variable: %s", kv)
		}
	}
	if s.WorkingDir != "" && !strings.HasPrefix(s.WorkingDir, "/") {
		return "", fault.New(fault.Invalid, "the working directory '%s' is invalid, it needs to be an absolute path", s.WorkingDir)
	}
	if _, err := ParseDetachKeys(s.DetachKeys); err != nil {
		return "", fault.New(fault.Invalid, "Invalid escape keys (%s) provided", s.DetachKeys)
	}
	if s.User != "" { // said now, with a status: at the start it would be a line in the process's output
		if _, err := e.lookupUser(c, s.User, nil); err != nil {
			return "", fault.Wrap(fault.Invalid, err, "")
		}
	}
	x := &execution{id: id.New(), c: c, spec: s}
	e.execs.put(x)
	c.addExec(x.id)
	e.tell(c, "exec_create: "+commandText(s.Cmd), map[string]string{"execID": x.id})
	return x.id, nil
}

func (c *entry) mayExec(ref string) error {
	switch s := c.snapshot().State; {
	case s.Paused:
		return fault.New(fault.Conflict, "Container %s is paused, unpause the container before exec", ref)
	case s.Restarting:
		return fault.New(fault.Conflict, "Container %s is restarting, wait until the container is running", ref)
	case !s.Running:
		return fault.New(fault.Conflict, "container %s is not running", c.id)
	}
	return nil
}

// ExecStart runs a created exec, once. With Detach the Attachment has no Conn. A command that cannot be executed is an error, and the
// exec's exit code is then 126 or 127.
func (e *Engine) ExecStart(ctx context.Context, execID string, o ExecStartOptions) (Attachment, error) {
	x, err := e.execs.get(execID)
	if err != nil {
		return Attachment{}, err
	}
	if x.untouched() { // a container that is paused does not use its exec up
		if err := x.c.mayExec(x.c.id); err != nil {
			return Attachment{}, err
		}
	}
	if err := x.claim(); err != nil {
		return Attachment{}, err
	}
	conn, err := e.execStart(ctx, x, o)
	if err != nil {
		return Attachment{}, e.execFailed(x, err)
	}
	a := Attachment{TTY: x.spec.TTY}
	if conn != nil {
		a.Conn = conn
	}
	return a, nil
}

func (x *execution) untouched() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return !x.begun
}

// claim makes sure that an exec is started once.
func (x *execution) claim() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.running:
		return fault.New(fault.Conflict, "Error: Exec command %s is already running", x.id)
	case x.begun:
		return fault.New(fault.Conflict, "Error: Exec command %s has already run", x.id)
	}
	x.begun = true
	return nil
}

func (e *Engine) execStart(ctx context.Context, x *execution, o ExecStartOptions) (Conn, error) {
	c := x.c
	if err := c.mayExec(c.id); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startPatience)
	defer cancel()
	built, err := e.builtOf(c)
	if err != nil {
		return nil, err
	}
	process, err := e.execProcess(c, built.Spec, x.spec)
	if err != nil {
		return nil, err
	}
	state := c.snapshot().State
	cg := c.cgroup()
	if !state.Running || cg == nil {
		return nil, fault.New(fault.Conflict, "container %s is not running", c.id)
	}
	if err := e.ensureProfile(ctx, c.record()); err != nil {
		return nil, err
	}
	program, err := e.compileExec(x, process, built, cg, state.Pid)
	if err != nil {
		return nil, err
	}
	if err := e.keeperReady(); err != nil {
		return nil, err
	}
	if err := failpoint.Hit("engine/exec/launch"); err != nil {
		return nil, err
	}
	l := keeper.Launch{
		ID: c.id, Proc: x.id, Program: program.Encode(), Enters: entered(program, c.id, state.Pid), Terminal: x.spec.TTY, Rows: o.Rows, Cols: o.Cols,
		Stdin: x.spec.AttachStdin, NoOutput: !x.spec.TTY && (o.Detach || !x.spec.AttachStdout && !x.spec.AttachStderr),
	}
	if l.Rows == 0 && l.Cols == 0 {
		l.Rows, l.Cols = uint16(x.spec.ConsoleSize[0]), uint16(x.spec.ConsoleSize[1])
	}
	if !o.Detach {
		keys, _ := ParseDetachKeys(x.spec.DetachKeys) // checked at creation
		l.StdinOnce = true
		l.Attach = []keeper.AttachRequest{{
			Stdin: x.spec.AttachStdin, Stdout: x.spec.AttachStdout, Stderr: x.spec.AttachStderr, Framed: !x.spec.TTY, DetachKeys: ttyKeys(x.spec.TTY, keys),
		}}
	}
	e.tell(c, "exec_start: "+commandText(x.spec.Cmd), map[string]string{"execID": x.id}) // as in Docker before it is sure: its end may be told first
	// Known as running before the launch: an end that is told at once must find it so.
	x.mu.Lock()
	x.running = true
	x.mu.Unlock()
	started, err := e.launchOrFind(ctx, l)
	if fault.Is(err, fault.Unavailable) {
		e.killCutExecs(ctx, c)
	}
	if err != nil {
		return nil, left(err, "container %s is not running", c.id)
	}
	x.change(func() bool { x.pid = started.PID; return x.running }) // it may have ended by now
	if len(started.Attached) > 0 {
		keys, _ := ParseDetachKeys(x.spec.DetachKeys)
		return noticeDetach(started.Attached[0], x.spec.TTY, x.spec.AttachStdin, keys, func() {
			e.tell(c, "exec_detach", map[string]string{"execID": x.id})
		}), nil
	}
	return nil, nil
}

// left puts the end of a container whose namespaces were to be entered, of which the keeper knew before us, into Docker's words.
func left(err error, format string, args ...any) error {
	if fault.Is(err, fault.Gone) {
		return fault.New(fault.Conflict, format, args...)
	}
	return err
}

// execFailed notes why an exec could not be started.
func (e *Engine) execFailed(x *execution, err error) error {
	code, err := e.translateStart(err, x.c, x.spec.Cmd[0], "OCI runtime exec failed: exec failed: unable to start container process: ")
	if code == exitStartOther {
		code = exitCannotRun // an exec has no other word for it
	}
	x.mu.Lock()
	x.running, x.code, x.endedAt = false, &code, time.Now()
	x.mu.Unlock()
	x.c.dropExec(x.id)
	return err
}

// onExecExit notes the end of an exec.
func (e *Engine) onExecExit(ctx context.Context, k keeper.Exit) {
	defer e.ack(ctx, k)
	x, err := e.execs.get(k.Proc)
	if err != nil {
		return // of a container that is gone
	}
	first := x.change(func() bool {
		if x.code != nil {
			return false // told twice
		}
		x.running, x.code, x.endedAt = false, &k.Code, k.At
		return true
	})
	if !first {
		return
	}
	x.c.dropExec(x.id)
	e.tell(x.c, "exec_die", map[string]string{"execID": x.id, "exitCode": strconv.Itoa(k.Code)})
	if x.probed != nil {
		e.forgetProbe(x)
	}
}

// change applies f and, if it says so, notes the result in the journal, in the order of the changes.
func (x *execution) change(f func() bool) bool {
	x.order.Lock()
	defer x.order.Unlock()
	x.mu.Lock()
	changed := f()
	line := store.Exec{ID: x.id, Container: x.c.id, Spec: x.spec, Pid: x.pid, Running: x.running, ExitCode: x.code}
	x.mu.Unlock()
	if !changed || x.probed != nil {
		return changed
	}
	if err := x.c.e.store.SetExec(line); err != nil {
		x.c.e.log.Warn("an exec is not in the journal; a new engine will not know it", "exec", x.id, "error", err)
	}
	return true
}

// ExecInspect gives a snapshot of an exec.
func (e *Engine) ExecInspect(ctx context.Context, execID string) (ExecInfo, error) {
	x, err := e.execs.get(execID)
	if err != nil {
		return ExecInfo{}, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	i := ExecInfo{ID: x.id, ContainerID: x.c.id, Spec: x.spec, User: x.spec.User, Running: x.running, ExitCode: x.code, Pid: x.pid}
	if i.User == "" {
		i.User = x.c.snapshot().Spec.Process.User
	}
	return i, nil
}

// execReady bounds the wait for an exec that is about to start. Docker waits as long.
const execReady = 10 * time.Second

// ExecResize sets the size of an exec's terminal. Clients ask for it as soon as they have the answer to the start, which may be before the
// process is there: it is waited for.
func (e *Engine) ExecResize(ctx context.Context, execID string, rows, cols uint16) error {
	x, err := e.execs.get(execID)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, execReady)
	defer cancel()
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		x.mu.Lock()
		there, ended := x.running && x.pid != 0, x.code != nil
		x.mu.Unlock()
		switch {
		case ended:
			if !x.c.snapshot().State.Running {
				return fault.New(fault.Conflict, "container %s is not running", x.c.id)
			}
			return fault.New(fault.Conflict, "exec process is not started")
		case there:
			return e.keeper.Resize(ctx, x.c.id, execID, rows, cols)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fault.New(fault.Conflict, "timeout waiting for exec session ready")
		}
	}
}

// execProcess gives the OCI process of an exec: the container's, changed by what was asked.
func (e *Engine) execProcess(c *entry, s *specs.Spec, x container.ExecSpec) (*specs.Process, error) {
	spec := c.record().Spec
	p := *s.Process
	p.Args, p.Terminal, p.ConsoleSize = x.Cmd, x.TTY, nil
	if x.ConsoleSize != [2]uint{} {
		p.ConsoleSize = &specs.Box{Height: x.ConsoleSize[0], Width: x.ConsoleSize[1]}
	}
	if x.WorkingDir != "" {
		p.Cwd = x.WorkingDir
	}
	user := x.User
	if user == "" {
		user = spec.Process.User
	}
	u, err := e.lookupUser(c, user, spec.Process.GroupAdd)
	if err != nil {
		return nil, err
	}
	p.User = bundle.ProcessUser(u)
	base := spec.ExecEnvironment(x.TTY, e.linkEnv(c.record(), c.snapshot().Sandbox))
	p.Env = bundle.WithHome(container.OverrideEnv(base, x.Env), u.Home)
	bundle.ExecCapabilities(&p, x.Privileged)
	return &p, nil
}
