package exec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/mount"
	"berth/kernel/process"
	"berth/kernel/tty"
	"berth/runtime/launch"
)

// command is what is started in a box.
type command struct {
	args, env      []string
	user, cwd      string
	tty            bool
	rows, cols     uint16
	stdin          io.Reader // nil: the end of a file
	stdout, stderr io.Writer
	insecure       bool
}

// child is a process that was started.
type child struct {
	b       *box
	proc    *launch.Process
	pump    sync.WaitGroup // copies its output
	stdin   io.Reader      // where its input comes from, or nil
	input   *os.File       // our end of its input, or nil
	console *os.File       // master of its terminal, or nil

	// Who goes by the process's number or descriptor holds numbers: both mean something else once it was reaped.
	numbers sync.RWMutex
	reaped  bool // guarded by numbers

	gone   chan struct{} // closed when it has ended
	done   chan struct{} // closed when its output is written, too
	status process.Exit
	err    error // the status is not known
}

// start starts a process. first: it is the box's number 1, else it enters the box beside pid, which is.
func (b *box) start(cmd command, first bool, pid int) (*child, error) {
	if first {
		if err := b.settle(cmd.insecure); err != nil {
			return nil, err
		}
	}
	return b.startSettled(cmd, first, pid)
}

// startSettled is start once the box is all decided.
func (b *box) startSettled(cmd command, first bool, pid int) (*child, error) {
	p, err := b.process(cmd)
	if err != nil {
		return nil, err
	}
	s := *b.spec
	s.Process = p
	o := launch.Options{
		Cgroup: b.group.Attach(), Covered: !b.r.cfg.InUserNS, InUserNS: b.r.cfg.InUserNS, Seccomp: b.filter, NewKeyring: true, Facts: b.r.facts,
		RootFD: b.root.fd, RootMapped: b.mapping != nil, OwnerNS: b.ownsNet(), Trees: b.trees,
	}
	var program *launch.Program
	if first {
		// It dies with the engine, and what enters with it.
		if o.Enclosure, err = b.r.enclosure(); err != nil {
			return nil, fault.In(err, "prepare to run build steps")
		}
		defer unix.Close(o.Enclosure)
		program, err = launch.Compile(&s, o)
	} else {
		o.RootFD, o.RootMapped, o.Trees = 0, false, nil
		if cmd.insecure && !b.insecure {
			o.Seccomp, s.Linux = nil, withoutFilter(s.Linux)
		}
		program, err = launch.CompileExec(p, &s, launch.Target{PID: pid}, o)
	}
	if err != nil {
		return nil, err
	}
	c := &child{b: b, stdin: cmd.stdin, gone: make(chan struct{}), done: make(chan struct{})}
	if err := c.launch(program, cmd); err != nil {
		return nil, err
	}
	go c.reap()
	return c, nil
}

func withoutFilter(l *specs.Linux) *specs.Linux {
	c := *l
	c.Seccomp = nil
	return &c
}

// process is the OCI process of a command.
func (b *box) process(cmd command) (*specs.Process, error) {
	if len(cmd.args) == 0 {
		return nil, fault.New(fault.Invalid, "no command is given")
	}
	u, err := b.lookup(cmd.user)
	if err != nil {
		return nil, err
	}
	cwd := cmd.cwd
	if cwd == "" {
		cwd = "/"
	}
	uid, gid, err := b.host(u.UID, u.GID)
	if err != nil {
		return nil, err
	}
	if err := b.asRoot(func() error { return b.makeWorkingDir(cwd, uid, gid) }); err != nil {
		return nil, err
	}
	for _, g := range u.Groups {
		if _, _, err := b.host(u.UID, g); err != nil {
			return nil, err
		}
	}
	adj := b.r.adj
	p := &specs.Process{
		Terminal: cmd.tty, Args: cmd.args, Env: cmd.env, Cwd: cwd, Rlimits: b.rlimits(), OOMScoreAdj: &adj, NoNewPrivileges: b.cfg.limits.NoNewPrivileges,
		User: specs.User{UID: u.UID, GID: u.GID, AdditionalGids: append([]uint32{u.GID}, slices.DeleteFunc(slices.Clone(u.Groups), func(g uint32) bool { return g == u.GID })...)},
	}
	if b.spec.Process.Env != nil { // what devices bring along
		p.Env = append(slices.Clip(p.Env), b.spec.Process.Env...)
	}
	if !hasEnv(p.Env, "HOME") {
		p.Env = append(slices.Clip(p.Env), "HOME="+u.Home)
	}
	setCapabilities(p, cmd.insecure)
	p.ApparmorProfile, p.SelinuxLabel = b.modules(cmd)
	if cmd.tty && cmd.rows != 0 {
		p.ConsoleSize = &specs.Box{Height: uint(cmd.rows), Width: uint(cmd.cols)}
	}
	return p, nil
}

// hasEnv tells whether a variable is set and not empty.
func hasEnv(env []string, name string) bool {
	return slices.ContainsFunc(env, func(e string) bool { v, ok := strings.CutPrefix(e, name+"="); return ok && v != "" })
}

// addDefaultEnv sets a variable that is not set.
func addDefaultEnv(env []string, name, value string) []string {
	if slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") }) {
		return env
	}
	return append(slices.Clip(env), name+"="+value)
}

// launch makes the streams and the process.
func (c *child) launch(program *launch.Program, cmd command) (err error) {
	l, err := c.b.r.launcher()
	if err != nil {
		return err
	}
	io := launch.Stdio{In: -1, Out: -1, Err: -1, Rows: cmd.rows, Cols: cmd.cols}
	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
	}()
	if !cmd.tty {
		in, out, errs, err := c.streams(cmd)
		theirs = []*os.File{in, out, errs}
		if err != nil {
			return err
		}
		io.In, io.Out, io.Err = int(in.Fd()), int(out.Fd()), int(errs.Fd())
	}
	c.proc, err = l.Start(program, io)
	for _, f := range theirs {
		f.Close()
	}
	theirs = nil
	if err != nil {
		if c.input != nil {
			c.input.Close()
		}
		c.pump.Wait() // nobody writes to the pipes any more
		return c.b.translate(err, cmd)
	}
	if cmd.tty {
		return c.terminal(cmd)
	}
	return nil
}

// streams makes pipes and lets our ends be copied. What is returned are the process's ends.
func (c *child) streams(cmd command) (in, out, errs *os.File, err error) {
	if cmd.stdin == nil {
		in, err = os.Open(os.DevNull)
	} else {
		in, c.input, err = os.Pipe()
	}
	if err != nil {
		return in, nil, nil, err
	}
	for _, s := range []struct {
		to io.Writer
		f  **os.File
	}{{cmd.stdout, &out}, {cmd.stderr, &errs}} {
		if s.to == nil {
			s.to = io.Discard
		}
		r, w, err := os.Pipe()
		if err != nil {
			return in, out, errs, err
		}
		*s.f = w
		c.pump.Go(func() {
			defer r.Close()
			copyOut(s.to, r)
		})
	}
	if c.input != nil {
		go func() {
			// Ends with its source, or when the process has closed its end. Nobody waits for it: a source may never end.
			_, _ = io.Copy(c.input, cmd.stdin)
			c.input.Close()
		}()
	}
	return in, out, errs, nil
}

// copyOut copies until the end. A writer that fails (a client that is gone) must not stop the process: the rest is read and dropped.
func copyOut(w io.Writer, r io.Reader) {
	if _, err := io.Copy(w, r); err != nil {
		_, _ = io.Copy(io.Discard, r)
	}
}

// terminal lets the process's terminal be copied both ways.
func (c *child) terminal(cmd command) error {
	var err error
	if c.console, err = tty.ConsoleFile(c.proc.Console); err != nil {
		c.kill()
		return err
	}
	if cmd.stdin != nil {
		go func() { _, _ = io.Copy(c.console, cmd.stdin) }()
	}
	c.pump.Go(func() {
		out := cmd.stdout
		if out == nil {
			out = io.Discard
		}
		copyOut(out, c.console) // ends with EIO when nobody has the terminal open any more
	})
	return nil
}

// reap waits for the end.
func (c *child) reap() {
	_, _ = process.Ended(c.proc.PidFD, -1) // as a zombie it keeps its number
	c.numbers.Lock()
	c.status, c.err = process.WaitBlocking(c.proc.PidFD)
	_ = unix.Close(c.proc.PidFD)
	c.reaped = true
	c.numbers.Unlock()
	close(c.gone)
	c.pump.Wait()
	c.closeInput()
	if c.console != nil {
		c.console.Close()
	}
	close(c.done)
}

// stillborn is a process that could not be started, as one that ended: whoever reads its streams may begin after it was asked for.
func (b *box) stillborn(e *unstarted, cmd command) *child {
	c := &child{b: b, stdin: cmd.stdin, gone: make(chan struct{}), done: make(chan struct{}), status: process.Exit{Code: notStarted}}
	close(c.gone)
	go func() {
		e.tell(cmd)
		c.closeInput()
		close(c.done)
	}()
	return c
}

// while calls f while the process's number and descriptor are its own; false: it has ended.
func (c *child) while(f func(p *launch.Process)) bool {
	c.numbers.RLock()
	defer c.numbers.RUnlock()
	if c.proc == nil || c.reaped {
		return false
	}
	f(c.proc)
	return true
}

// runs tells whether the process has not ended yet.
func (c *child) runs() bool {
	select {
	case <-c.gone:
		return false
	default:
		return true
	}
}

// closeInput lets who copies the input end.
func (c *child) closeInput() {
	if closer, ok := c.stdin.(io.Closer); ok {
		closer.Close()
	}
}

// wait waits for the end; when the context is done first the process is killed.
func (c *child) wait(ctx context.Context) error {
	select {
	case <-c.done:
	case <-ctx.Done():
		c.kill()
		<-c.done
	}
	if c.err != nil {
		return fault.Wrap(fault.Internal, c.err, "wait for the process")
	}
	code := c.status.Status()
	if code == 0 {
		return nil
	}
	e := &gatewaypb.ExitError{ExitCode: uint32(code)}
	switch {
	case ctx.Err() != nil:
		e.Err = fmt.Errorf("%s: %w", e.Error(), context.Cause(ctx))
	case c.b.group.OOMKills() > c.b.ooms:
		e.Err = unix.ENOMEM // BuildKit's: "cannot allocate memory"
	}
	return e
}

// kill ends the process; as number 1 it takes all others of its box along.
func (c *child) kill() { _ = c.signal(int(unix.SIGKILL)) }

func (c *child) signal(sig int) (err error) {
	c.while(func(p *launch.Process) { err = process.Signal(p.PidFD, sig) })
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EBADF) {
		return nil
	}
	return err
}

func (c *child) resize(rows, cols uint16) error {
	if c.console == nil {
		return nil
	}
	rc, err := c.console.SyscallConn()
	if err != nil {
		return nil
	}
	var serr error
	err = rc.Control(func(fd uintptr) { serr = tty.SetSize(int(fd), tty.Size{Rows: rows, Cols: cols}) })
	if err != nil { // it has ended
		return nil
	}
	return serr
}

// notStarted is the exit code of a process that could not be started: runc's, whatever the reason.
const notStarted = 1

// translate puts a failed launch into the words that runc's are known by.
func (b *box) translate(err error, cmd command) error {
	var l *launch.Error
	if !errors.As(err, &l) {
		return err
	}
	why := l.Error()
	if l.Exec {
		switch arg0 := cmd.args[0]; {
		case l.Errno == unix.ENOENT && !strings.Contains(arg0, "/"):
			why = fmt.Sprintf("exec: %q: executable file not found in $PATH", arg0)
		case l.Errno == unix.ENOENT, l.Errno == unix.ENOTDIR:
			why = fmt.Sprintf("exec: %q: stat %s: %v", arg0, arg0, l.Errno)
		case l.Errno == unix.ENOEXEC:
			why = fmt.Sprintf("exec %s: exec format error%s", arg0, b.foreign())
		case l.Errno == unix.EACCES && b.isDirectory(arg0):
			why = fmt.Sprintf("exec: %q: is a directory", arg0)
		default:
			why = fmt.Sprintf("exec: %q: %v", arg0, l.Errno)
		}
	}
	return &unstarted{why}
}

// unstarted is the error of a process that could not be started; why goes to its error stream. To clients it is one that ended at once.
type unstarted struct{ why string }

// Error is that of a process that ended.
func (e *unstarted) Error() string { return e.Unwrap().Error() }

// Unwrap gives the exit code.
func (e *unstarted) Unwrap() error { return exitError(notStarted) }

// tell writes why to the process's error stream, or with a terminal to the only one that it has.
func (e *unstarted) tell(cmd command) {
	w, end := cmd.stderr, "\n"
	if cmd.tty {
		w, end = cmd.stdout, "\r\n"
	}
	if w != nil {
		_, _ = io.WriteString(w, "unable to start container process: "+e.why+end)
	}
}

// isDirectory tells why execve denied a program: the kernel does not.
func (b *box) isDirectory(name string) bool {
	fd, err := mount.OpenInRoot(b.r.facts, b.root.fd, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	mount.Drop(fd)
	return true
}
