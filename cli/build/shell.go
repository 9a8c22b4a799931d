package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/docker/cli/cli/command"
	"github.com/moby/buildkit/client/llb"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/tonistiigi/fsutil"

	"berth/cli/build/request"
	"berth/cli/build/stepshell"
)

const (
	// toolMount is the local source that has our own program, for steps whose files have no shell.
	toolMount = "berth-shell"
	// toolDir is where it is in such a step.
	toolDir = "/.berth"
)

// A stepShell opens a shell in the state that a failed step has left: its files with what it wrote to them, its mounts, secrets, network, user and environment.
type stepShell struct {
	d    *command.DockerCli
	tool string // our own program's file name; "" where it cannot be brought
	tty  bool
}

// newStepShell prepares r for a shell: our own program is offered to the engine, which asks for it only when it is needed.
func newStepShell(d *command.DockerCli, r *request.Request, spec *request.Spec) (*stepShell, error) {
	if spec.Context == "-" || spec.Dockerfile == "-" {
		return nil, errors.New("--on-error=shell needs the standard input: neither context nor Dockerfile can come from there")
	}
	s := &stepShell{d: d, tty: d.In().IsTerminal() && d.Out().IsTerminal()}
	self, err := os.Executable()
	if err == nil {
		self, err = filepath.EvalSymlinks(self)
	}
	if err != nil || runtime.GOOS != "linux" {
		return s, nil
	}
	all, err := fsutil.NewFS(filepath.Dir(self))
	if err != nil {
		return s, nil
	}
	one, err := fsutil.NewFilterFS(all, &fsutil.FilterOpt{IncludePatterns: []string{filepath.Base(self)}})
	if err != nil {
		return s, nil
	}
	r.Solve.LocalMounts[toolMount] = one
	s.tool = filepath.Base(self)
	return s, nil
}

// open runs the shell, or says why there is none.
func (s *stepShell) open(ctx context.Context, g gateway.Client, show *display, failed error) {
	ended := make(chan error, 1)
	go func() { ended <- s.try(ctx, g, show, failed) }()
	watched, stop := context.WithCancel(ctx)
	defer stop()
	gone := make(chan error, 1)
	go func() { gone <- lost(watched, g, lookEvery) }()
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done(): // whatever the engine still has to say
		s.restore()
		return
	case err = <-gone:
		s.restore()
		show.yield()
		fmt.Fprintf(s.d.Err(), "\nThe engine has ended the build, and the shell with it: %v\n", err)
		return
	}
	if err != nil {
		show.yield()
		fmt.Fprintf(s.d.Err(), "\nNo shell could be opened: %v\n", err)
	}
}

// lookEvery is how often the engine is asked whether the build is there still.
const lookEvery = time.Second

// lost waits until the engine does not know the build any more, or is not there: the library waits for a process whose connection is
// broken for as long as somebody types nothing.
func lost(ctx context.Context, g gateway.Client, every time.Duration) error {
	if _, err := g.Inputs(ctx); err != nil { // an engine that does not know the question
		<-ctx.Done()
		return ctx.Err()
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if _, err := g.Inputs(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// restore gives the terminal back as it was. A shell that was left may still think that it has it.
func (s *stepShell) restore() {
	if s.tty {
		s.d.In().RestoreTerminal()
		s.d.Out().RestoreTerminal()
	}
}

func (s *stepShell) try(ctx context.Context, g gateway.Client, show *display, failed error) error {
	var at *errdefs.SolveError
	if !errors.As(failed, &at) {
		return nil // not a step: nothing to look into
	}
	state, err := stateOf(at)
	if err != nil {
		return err
	}
	show.yield()
	shell := []string{"/bin/sh"}
	if err := run1(ctx, g, state.box, state.start, "/bin/sh", "-c", "exit 0"); err != nil {
		if shell, err = s.bring(ctx, g, &state.box, at.Op.Platform); err != nil {
			return fmt.Errorf("the step's files have no /bin/sh, and %w", err)
		}
	}
	fmt.Fprintf(s.d.Err(), "\nThe step failed: %s\nThis shell has %s. What is changed here is not kept; exit leaves it.\n", state.step, state.what)
	return s.interact(ctx, g, state.box, state.start, shell)
}

// A state is a container with what there is to see of a failed step.
type state struct {
	box   gateway.NewContainerRequest
	start gateway.StartRequest // but for what is started
	step  string               // what failed
	what  string               // what the container has
}

// stateOf gives the state that the engine has kept of a failed step.
func stateOf(at *errdefs.SolveError) (state, error) {
	if op := at.Op.GetFile(); op != nil {
		return stateOfFiles(at, op)
	}
	step := at.Op.GetExec()
	if step == nil {
		return state{}, errors.New("only steps that run a program or change files have a state to look into")
	}
	box, err := boxOf(at, step)
	return state{box: box, step: strings.Join(step.Meta.Args, " "), what: "its files, mounts, user and environment", start: gateway.StartRequest{
		Env: step.Meta.Env, User: step.Meta.User, Cwd: step.Meta.Cwd, SecretEnv: step.Secretenv, SecurityMode: step.Security, RemoveMountStubsRecursive: true,
	}}, err
}

// sourceDir is where a shell finds what a failed COPY copies from.
const sourceDir = "/.source"

// stateOfFiles gives the files as they were before the operation (COPY, ADD, WORKDIR), and beside them those that it copies from.
func stateOfFiles(at *errdefs.SolveError, op *pb.FileOp) (state, error) {
	inputs, trees := int64(len(at.Op.Inputs)), at.InputIDs
	if _, ok := at.Subject.(*errdefs.Solve_Cache); ok && len(trees) > 1 { // before them all is the one that was read when it failed
		trees = trees[1:]
	}
	if int64(len(trees)) < inputs || len(op.Actions) == 0 {
		return state{}, fmt.Errorf("the engine has not kept the step's state (%d of %d inputs)", len(trees), inputs)
	}
	action := op.Actions[0]
	if f, ok := at.Subject.(*errdefs.Solve_File); ok && f.File.Index >= 0 && f.File.Index < int64(len(op.Actions)) {
		action = op.Actions[f.File.Index]
	}
	// An action goes on with an input or with what an earlier action has left; the first of them began with an input, or with nothing.
	base := action.Input
	for range op.Actions {
		if base >= inputs && base-inputs < int64(len(op.Actions)) {
			base = op.Actions[base-inputs].Input
		}
	}
	tree := func(dest string, input int64, readonly bool) gateway.Mount {
		m := gateway.Mount{Dest: dest, MountType: pb.MountType_BIND, Readonly: readonly}
		if input >= 0 && input < inputs {
			m.ResultID = trees[input]
		}
		return m
	}
	s := state{step: at.Description["llb.customname"], what: "the files as they were before it"}
	s.box = gateway.NewContainerRequest{Platform: at.Op.Platform, Mounts: []gateway.Mount{tree("/", base, false)}}
	if from := action.SecondaryInput; action.GetCopy() != nil && from >= 0 && from < inputs {
		s.box.Mounts = append(s.box.Mounts, tree(sourceDir, from, true))
		s.what += ", and those that it copies from at " + sourceDir
	}
	if s.step == "" {
		s.step = "an operation on files"
	}
	s.start = gateway.StartRequest{Cwd: "/", RemoveMountStubsRecursive: true}
	return s, nil
}

// boxOf is a container with the mounts of a failed step, as it left them.
func boxOf(at *errdefs.SolveError, step *pb.ExecOp) (gateway.NewContainerRequest, error) {
	box := gateway.NewContainerRequest{NetMode: step.Network, Hostname: step.Meta.Hostname, ExtraHosts: step.Meta.ExtraHosts, Platform: at.Op.Platform}
	if len(at.MountIDs) < len(step.Mounts) {
		return box, fmt.Errorf("the engine has not kept the step's state (%d of %d mounts)", len(at.MountIDs), len(step.Mounts))
	}
	for i, m := range step.Mounts {
		box.Mounts = append(box.Mounts, gateway.Mount{
			Selector: m.Selector, Dest: m.Dest, ResultID: at.MountIDs[i], Readonly: m.Readonly, MountType: m.MountType,
			CacheOpt: m.CacheOpt, SecretOpt: m.SecretOpt, SSHOpt: m.SSHOpt,
		})
	}
	return box, nil
}

// run1 runs one program in a container of its own and gives its failure.
func run1(ctx context.Context, g gateway.Client, box gateway.NewContainerRequest, start gateway.StartRequest, args ...string) error {
	c, err := g.NewContainer(ctx, box)
	if err != nil {
		return err
	}
	defer release(c)
	start.Args = args
	start.Stdin, start.Stdout, start.Stderr = io.NopCloser(strings.NewReader("")), discard{}, discard{}
	p, err := c.Start(ctx, start)
	if err != nil {
		return err
	}
	return p.Wait()
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close() error                { return nil }

// bring mounts our own program, which has a small shell in it, into the container.
func (s *stepShell) bring(ctx context.Context, g gateway.Client, box *gateway.NewContainerRequest, p *pb.Platform) ([]string, error) {
	if p != nil && (p.OS != runtime.GOOS || p.Architecture != runtime.GOARCH) || s.tool == "" {
		return nil, fmt.Errorf("berth for %s/%s cannot be its shell", runtime.GOOS, runtime.GOARCH)
	}
	def, err := llb.Local(toolMount, llb.IncludePatterns([]string{s.tool}), llb.SharedKeyHint(toolMount), llb.WithCustomName("[internal] bring a shell")).Marshal(ctx)
	if err != nil {
		return nil, err
	}
	res, err := g.Solve(ctx, gateway.SolveRequest{Definition: def.ToPB()})
	if err != nil {
		return nil, fmt.Errorf("berth's own could not be brought: %w", err)
	}
	ref, err := res.SingleRef()
	if err != nil {
		return nil, err
	}
	box.Mounts = append(box.Mounts, gateway.Mount{Dest: toolDir, Ref: ref, Readonly: true, MountType: pb.MountType_BIND})
	return []string{toolDir + "/" + s.tool, stepshell.Word}, nil
}

// interact runs the shell with our terminal, or with whatever stands in for it.
func (s *stepShell) interact(ctx context.Context, g gateway.Client, box gateway.NewContainerRequest, start gateway.StartRequest, shell []string) error {
	c, err := g.NewContainer(ctx, box)
	if err != nil {
		return err
	}
	defer release(c)
	start.Args, start.Tty = shell, s.tty
	start.Stdin, start.Stdout, start.Stderr = io.NopCloser(s.d.In()), keepOpen{s.d.Out()}, keepOpen{s.d.Err()}
	if s.tty {
		if err := s.d.In().SetRawTerminal(); err != nil {
			return err
		}
		defer s.d.In().RestoreTerminal()
		if err := s.d.Out().SetRawTerminal(); err != nil {
			return err
		}
		defer s.d.Out().RestoreTerminal()
		if !hasTerm(start.Env) {
			start.Env = append(append([]string{}, start.Env...), "TERM="+os.Getenv("TERM"))
		}
	}
	p, err := c.Start(ctx, start)
	if err != nil {
		return err
	}
	if s.tty {
		stop := s.follow(ctx, p)
		defer stop()
	}
	_ = p.Wait() // how the shell ended is its user's affair
	return nil
}

func hasTerm(env []string) bool {
	for _, e := range env {
		if strings.HasPrefix(e, "TERM=") {
			return true
		}
	}
	return false
}

// follow keeps the shell's terminal as large as ours. It looks: a signal for it is not known everywhere.
func (s *stepShell) follow(ctx context.Context, p gateway.ContainerProcess) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		var rows, cols uint
		for {
			if h, w := s.d.Out().GetTtySize(); h != rows || w != cols {
				rows, cols = h, w
				_ = p.Resize(ctx, gateway.WinSize{Rows: uint32(h), Cols: uint32(w)})
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}

// keepOpen hides Close: the terminal is not the shell's to close.
type keepOpen struct{ io.Writer }

func (keepOpen) Close() error { return nil }

// release ends a container. Its failure changes nothing for anybody: the engine ends it with the build.
func release(c gateway.Container) { _ = c.Release(context.Background()) }
