package exec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/system"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/base/id"
	"berth/build/session"
	"berth/build/snapshot"
	"berth/kernel/tree"
	"berth/runtime/launch"
)

// ContainerConfig is a container that a frontend or a person asks for.
type ContainerConfig struct {
	Mounts   []Mount
	Network  pb.NetMode
	Hostname string // "" BuildKit's
	Hosts    []*pb.HostIP
	Platform ocispec.Platform // the zero value: the engine's
	Sessions session.Group    // for secrets and agents
	Limits   Limits
	What     string // for people: what the container is for
}

// Mount is a mount with what it shows. Input of the pb.Mount counts for nothing, nor does Output but for its sign: what is written
// is dropped with the container.
type Mount struct {
	*pb.Mount
	Snapshot *snapshot.Snapshot // stays the caller's, who holds it as long as the container; nil: the empty tree
}

// Container is a box in which processes are started one after the other. It is safe for concurrent use.
type Container struct {
	b      *box
	ctx    context.Context // ends with Release
	cancel context.CancelCauseFunc

	mu       sync.Mutex // guards what follows; held over a start
	first    *child
	children []*child
	released bool
}

// Process says what to start in a container.
type Process struct {
	Args, Env      []string // without a PATH it gets the usual one, with a terminal and without a TERM "xterm"
	User, Cwd      string
	Tty            bool
	Rows, Cols     uint16        // of the terminal at first
	Stdin          io.ReadCloser // nil: the end of a file; closed at the process's end
	Stdout, Stderr io.Writer     // nil: dropped; with a terminal all goes to Stdout
	Security       pb.SecurityMode
	SecretEnv      []*pb.SecretEnv
}

// Container prepares one. Whoever gets it calls Release.
func (r *Runner) Container(ctx context.Context, c ContainerConfig) (*Container, error) {
	cfg := boxConfig{
		id: id.New()[:25], mounts: c.Mounts, network: c.Network, hostname: c.Hostname, hosts: c.Hosts, platform: c.Platform, sessions: c.Sessions,
		limits: c.Limits, what: c.What,
	}
	b, err := r.box(ctx, cfg)
	if err != nil {
		return nil, err
	}
	out := &Container{b: b}
	out.ctx, out.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	return out, nil
}

// Start starts a process: the first is number 1, with which all others end. ctx bounds the start alone. One whose program cannot be executed
// is no error here: it says so on its error stream and ends with code 1.
func (c *Container) Start(ctx context.Context, p Process) (*Running, error) {
	cmd, err := c.command(ctx, p)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.released {
		return nil, fault.New(fault.Unavailable, "container is closed")
	}
	var ch *child
	if c.first == nil {
		ch, err = c.b.start(cmd, true, 0)
	} else if !c.first.while(func(p *launch.Process) { ch, err = c.b.start(cmd, false, p.PID) }) {
		return nil, fault.New(fault.Unavailable, "the container's first process has ended")
	}
	var not *unstarted
	if errors.As(err, &not) {
		ch = c.b.stillborn(not, cmd) // as in BuildKit: Wait tells
	} else if err != nil {
		return nil, err
	}
	if c.first == nil {
		c.first = ch // what was mounted for it is used up, whether it lived or not
	}
	c.children = append(c.children, ch)
	return &Running{c, ch}, nil
}

func (c *Container) command(ctx context.Context, p Process) (command, error) {
	if hasNUL(&pb.ExecOp{Meta: &pb.Meta{Args: p.Args, Env: p.Env, Cwd: p.Cwd, User: p.User}}) {
		return command{}, fault.New(fault.Invalid, "invalid process: a string with a NUL byte")
	}
	if err := pb.ValidateSecurityMode(p.Security); err != nil {
		return command{}, fault.Wrap(fault.Invalid, err, "start a process")
	}
	cmd := command{
		args: p.Args, user: p.User, cwd: p.Cwd, tty: p.Tty, rows: p.Rows, cols: p.Cols, stdout: p.Stdout, stderr: p.Stderr,
		insecure: p.Security == pb.SecurityMode_INSECURE, env: addDefaultEnv(p.Env, "PATH", system.DefaultPathEnv(c.b.cfg.platform.OS)),
	}
	if p.Stdin != nil {
		cmd.stdin = p.Stdin
	}
	if p.Tty {
		cmd.env = addDefaultEnv(cmd.env, "TERM", "xterm")
	}
	secret, err := c.b.r.secretEnv(ctx, c.b.cfg.sessions, p.SecretEnv)
	cmd.env = append(cmd.env, secret...)
	return cmd, err
}

// View gives the root of the container's i-th mount to f, as its processes see it but for what is mounted in it.
func (c *Container) View(ctx context.Context, i int, f func(root *tree.Dir) error) error {
	c.mu.Lock()
	if c.released {
		c.mu.Unlock()
		return fault.New(fault.Unavailable, "container is closed")
	}
	if i < 0 || i >= len(c.b.places) {
		c.mu.Unlock()
		return fault.New(fault.Invalid, "mount index %d is out of bounds (%d available)", i, len(c.b.places))
	}
	p := c.b.places[i]
	fd := p.tree
	if p == c.b.root {
		fd = p.fd
	}
	if fd < 0 || p.file {
		c.mu.Unlock()
		return fault.New(fault.NotFound, "mount %d (%s) has no files to look at", i, p.dest)
	}
	dir, err := tree.OpenFD(fd)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	defer dir.Close()
	return f(dir)
}

// Owner gives the ids that the owner of a file has inside the container. View shows those on the host.
func (c *Container) Owner(uid, gid uint32) (uint32, uint32) { return c.b.inside(uid, gid) }

// Release ends what runs in the container and takes it down; where there was something, it says so with an error that is context.Canceled, as
// BuildKit does. A second call does nothing.
func (c *Container) Release() error {
	c.cancel(errReleased)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.released {
		return nil
	}
	c.released = true
	var ended error
	for _, ch := range c.children {
		if ch.runs() {
			ended = errReleased
		}
		ch.kill()
	}
	late := time.After(outputPatience)
	for _, ch := range c.children {
		<-ch.gone
		select {
		case <-ch.done:
		case <-late: // whoever reads its output has stopped to
		}
	}
	c.b.close()
	c.b.drop()
	return ended
}

// outputPatience is how long Release waits for output to be taken of processes that are gone.
const outputPatience = 5 * time.Second

var errReleased = fmt.Errorf("the container was released: %w", context.Canceled)

// Running is a process that was started.
type Running struct {
	c  *Container
	ch *child
}

// Wait waits for its end and for its output to be written. A code other than 0 is a *gatewaypb.ExitError.
func (p *Running) Wait() error { return p.ch.wait(p.c.ctx) }

// Signal sends a signal by number. A process that has ended takes none, without an error.
func (p *Running) Signal(sig int) error { return p.ch.signal(sig) }

// Resize sets the size of its terminal.
func (p *Running) Resize(rows, cols uint16) error { return p.ch.resize(rows, cols) }
