package host

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/probe"
	"berth/kernel/process"
	"berth/runtime/launch"
	"berth/runtime/spec"
)

// Config says where and how.
type Config struct {
	Root         string         // a directory of the package alone, for the roots of boxes; made when it is needed
	CgroupParent string         // programs run in CGROUP-PARENT/build-host-ID, with limits; "": in the engine's own cgroup
	Memory       int64          // how many bytes of memory a command may take; 0: half of the machine's
	InUserNS     bool           // the engine is root of a user namespace only
	Facts        probe.Features // what the kernel can do; the zero value asks it
	Log          *slog.Logger
}

// Runner runs programs. It is safe for concurrent use.
type Runner struct {
	cfg       Config
	profiles  spec.Profiles
	limitless sync.Once     // says that there are no limits
	patience  time.Duration // closePatience, but in tests

	launching sync.Once // makes starter
	starter   *launch.Launcher
	startErr  error

	mu      sync.Mutex // guards closed
	closed  bool
	closing chan struct{}  // closed with Close
	running sync.WaitGroup // calls of Run
}

// New gives a runner. It makes nothing before it is used.
func New(cfg Config) *Runner {
	if cfg.Facts == (probe.Features{}) {
		cfg.Facts = probe.Host()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Runner{cfg: cfg, closing: make(chan struct{}), patience: closePatience}
}

// closePatience bounds how long an engine's end waits for programs, which are killed.
const closePatience = 20 * time.Second

// Close ends what still runs, and the runner's threads. Nothing can be run any more. A program that sleeps in the kernel is not waited for to its end:
// it ends with this process.
func (r *Runner) Close() error {
	r.mu.Lock()
	again := r.closed
	r.closed = true
	r.mu.Unlock()
	if again {
		return nil
	}
	close(r.closing)
	over := make(chan struct{})
	go func() { r.running.Wait(); close(over) }()
	select {
	case <-over:
	case <-time.After(r.patience): // the launcher would wait for it
		return fault.New(fault.Deadline, "programs that fetch sources have not ended %v after they were killed", r.patience)
	}
	r.launching.Do(func() { r.startErr = errClosed })
	if r.starter != nil {
		return r.starter.Close()
	}
	return nil
}

// begin counts a call of Run.
func (r *Runner) begin() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errClosed
	}
	r.running.Add(1)
	return nil
}

func (r *Runner) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

var errClosed = fault.New(fault.Unavailable, "the builder is shutting down")

// Command is a program with what it may reach.
type Command struct {
	Args     []string // the first is the program's path
	Env      []string
	Dir      string   // working directory: one of Writable or below
	Writable []string // directories that it may change, by the path that they have on the host; they hold no programs for it
	Readable []string // files, directories and sockets that it may read besides the host's programs
	Programs []string // directories of programs of its own, besides the host's
	Network  bool     // it has the engine's network, else none
	Stdout   io.Writer
	Stderr   io.Writer
}

// ExitError is a program that ended with something else than 0.
type ExitError struct {
	Code   int
	Memory bool // it, or what it had started, was ended for want of memory
}

// Error is what os/exec says.
func (e *ExitError) Error() string {
	s := "exit status " + strconv.Itoa(e.Code)
	if e.Memory {
		s += " (out of memory)"
	}
	return s
}

// Run runs a command to its end. *ExitError: it ran, and failed. When ctx ends it is killed, and the error is ctx's.
func (r *Runner) Run(ctx context.Context, c Command) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if err := r.begin(); err != nil {
		return err
	}
	defer r.running.Done()
	s, err := r.describe(&c)
	if err != nil {
		return err
	}
	root, down, err := r.root(s)
	if err != nil {
		return err
	}
	defer down()
	s.Root.Path = root
	r.launching.Do(func() { r.starter, r.startErr = launch.NewLauncher(!r.cfg.InUserNS) })
	if r.startErr != nil {
		return r.startErr
	}
	filter, err := r.profiles.Get(spec.Builtin, nil)
	if err != nil {
		return fault.In(err, "the seccomp profile of programs on what builds fetch")
	}
	s.Linux.Seccomp = filter.Spec
	around, err := r.starter.Enclosed() // it dies with the engine
	if err != nil {
		return fault.In(err, "prepare to run %s", c.Args[0])
	}
	defer unix.Close(around)
	o := launch.Options{Covered: !r.cfg.InUserNS, InUserNS: r.cfg.InUserNS, Seccomp: filter.Filter, NewKeyring: true, Facts: r.cfg.Facts, Enclosure: around}
	g, err := r.group()
	if err != nil {
		return fault.In(err, "prepare to run %s", c.Args[0])
	}
	var before uint64
	if g != nil {
		defer func() {
			if err := g.Remove(); err != nil {
				r.cfg.Log.Error("build: a program's cgroup stays", "program", c.Args[0], "err", err)
			}
		}()
		before = g.OOMKills()
		o.Cgroup = g.Attach()
	}
	program, err := launch.Compile(s, o)
	if err != nil {
		return fault.In(err, "run %s", c.Args[0])
	}
	err = r.start(ctx, program, &c)
	if failed, ok := errors.AsType[*ExitError](err); ok && g != nil {
		failed.Memory = g.OOMKills() > before
	}
	return err
}

// start starts the program, copies its output, and waits.
func (r *Runner) start(ctx context.Context, program *launch.Program, c *Command) error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	theirs := []*os.File{null}
	closeTheirs := func() {
		for _, f := range theirs {
			f.Close()
		}
		theirs = nil
	}
	var pumps sync.WaitGroup
	defer pumps.Wait()
	defer closeTheirs()
	stdio := launch.Stdio{In: int(null.Fd())}
	for _, s := range []struct {
		to io.Writer
		fd *int
	}{{c.Stdout, &stdio.Out}, {c.Stderr, &stdio.Err}} {
		if s.fd == &stdio.Err && c.Stdout != nil && c.Stdout == c.Stderr {
			stdio.Err = stdio.Out // one writer takes turns
			break
		}
		w, err := pump(s.to, &pumps)
		if err != nil {
			return err
		}
		theirs = append(theirs, w)
		*s.fd = int(w.Fd())
	}
	p, err := r.starter.Start(program, stdio)
	if err != nil {
		return fault.In(err, "run %s", c.Args[0])
	}
	defer unix.Close(p.PidFD)
	closeTheirs()
	over := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-over:
			return
		case <-ctx.Done():
		case <-r.closing:
		}
		_ = process.Signal(p.PidFD, int(unix.SIGKILL))
	})
	_, err = process.Ended(p.PidFD, -1)
	close(over)
	watch.Wait() // the descriptor is the process's until then
	exit, werr := process.WaitBlocking(p.PidFD)
	if err == nil {
		err = werr
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fault.Wrap(fault.Internal, err, "wait for %s", c.Args[0])
	case exit.Status() != 0 && r.isClosed():
		return errClosed
	case exit.Status() != 0:
		return &ExitError{Code: exit.Status()}
	}
	return nil
}

// pump makes a pipe whose other end is copied to w until nobody writes to it any more.
func pump(w io.Writer, running *sync.WaitGroup) (*os.File, error) {
	if w == nil {
		w = io.Discard
	}
	from, to, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	running.Go(func() {
		defer from.Close()
		if _, err := io.Copy(w, from); err != nil {
			_, _ = io.Copy(io.Discard, from)
		}
	})
	return to, nil
}
