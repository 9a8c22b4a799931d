package exec

import (
	"context"
	"io"

	"github.com/moby/buildkit/solver/pb"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/build/session"
	"berth/build/snapshot"
	"berth/kernel/tree"
)

// ContainerConfig is a container that a frontend or a person asks for.
type ContainerConfig struct {
	ID       string // unique among those of the engine
	Mounts   []Mount
	Network  pb.NetMode
	Hostname string // "" BuildKit's
	Hosts    []*pb.HostIP
	Platform *ocispec.Platform // nil: the engine's
	Sessions session.Group     // for secrets and agents
	Limits   Limits
}

// Mount is a mount with what it shows. Input of the pb.Mount counts for nothing, nor does Output but for its sign: what is written
// is dropped with the container.
type Mount struct {
	*pb.Mount
	Snapshot *snapshot.Snapshot // stays the caller's, who holds it as long as the container; nil: the empty tree
}

// Container is a box in which processes are started one after the other.
type Container struct{}

// Process says what to start in a container.
type Process struct {
	Args, Env      []string
	User, Cwd      string
	Tty            bool
	Rows, Cols     uint16        // of the terminal at first
	Stdin          io.ReadCloser // nil: the end of a file
	Stdout, Stderr io.WriteCloser
	Security       pb.SecurityMode
	SecretEnv      []*pb.SecretEnv
}

// Container prepares one.
func (r *Runner) Container(ctx context.Context, c ContainerConfig) (*Container, error) {
	return nil, fault.New(fault.NotImplemented, "containers")
}

// Start starts a process: the first is number 1, with which all others end.
func (c *Container) Start(ctx context.Context, p Process) (*Running, error) {
	return nil, fault.New(fault.NotImplemented, "containers")
}

// View gives the root of the container's i-th mount to f, as its processes see it, read-only.
func (c *Container) View(ctx context.Context, i int, f func(root *tree.Dir) error) error {
	return fault.New(fault.NotImplemented, "containers")
}

// Release ends what runs in the container and takes it down.
func (c *Container) Release() error { return nil }

// Running is a process that was started.
type Running struct{}

// Wait waits for its end and for its output to be written. A code other than 0 is a *gatewaypb.ExitError.
func (p *Running) Wait() error { return nil }

// Signal sends a signal by number.
func (p *Running) Signal(sig int) error { return nil }

// Resize sets the size of its terminal.
func (p *Running) Resize(rows, cols uint16) error { return nil }
