package keeper

import (
	"context"
	"net"
	"os"

	"berth/base/fault"
	"berth/runtime/keeper/wire"
)

// What is said to the keeper and what comes back; the wire package describes every field.
type (
	Launch        = wire.Launch
	LogConfig     = wire.LogConfig
	Attr          = wire.Attr
	AttachRequest = wire.AttachRequest
	Exit          = wire.Exit
	ProcState     = wire.ProcState
	Info          = wire.Info
)

// Started is a launched process and the sockets of the attachments that Launch.Attach asked for,
// in that order; an entry is nil where the request brought a Sock of its own.
type Started struct {
	wire.Started
	Attached []*net.UnixConn
}

// Client is one engine's tie to the keeper of an exec root. It is safe for use by many goroutines.
//
// A client made by Open lives as long as its owner: when the connection breaks it dials again, when
// the keeper has died it starts a new one and hands it the descriptors it holds as insurance. A
// client made by Dial ends with its connection.
type Client struct{}

// Dial connects to the keeper that serves execRoot/keeper.sock and agrees on a protocol version. It
// fails with fault.Unavailable where none answers.
func Dial(ctx context.Context, execRoot string) (*Client, error) {
	return nil, fault.New(fault.NotImplemented, "not yet")
}

// Open starts a keeper unless one answers, connects to it, and keeps it so until Close.
func Open(ctx context.Context, cfg StartConfig) (*Client, error) {
	return nil, fault.New(fault.NotImplemented, "not yet")
}

// Close ends the connection; the keeper and its processes go on. Exits is closed afterwards.
func (c *Client) Close() error { return nil }

// Done is closed when a client made by Dial has lost its connection, or after Close.
func (c *Client) Done() <-chan struct{} { return nil }

// Launch starts a process and returns when execve has succeeded, or its gate is reached. A failed
// start is a *launch.Error (errors.As); nothing is left of it. A second launch of the same ID and
// Proc is fault.Conflict as long as the first is held (until Ack of its exit).
func (c *Client) Launch(ctx context.Context, l Launch) (Started, error) { return Started{}, nil }

// Release lets a process that was launched with Gate go on to execve.
func (c *Client) Release(ctx context.Context, id, proc string) error { return nil }

// Attach gives a stream socket to a process: reads give its output from now on (framed or raw),
// writes are its stdin, CloseWrite ends the caller's part of stdin. End of file comes after the
// last byte of output. With r.Sock the result is nil.
func (c *Client) Attach(ctx context.Context, r AttachRequest) (*net.UnixConn, error) {
	return nil, nil
}

// Signal sends a signal through the pidfd. A process that is gone is fault.NotFound.
func (c *Client) Signal(ctx context.Context, id, proc string, sig int) error { return nil }

// Resize sets the size of the process's terminal; one without terminal is fault.Invalid.
func (c *Client) Resize(ctx context.Context, id, proc string, rows, cols uint16) error { return nil }

// CloseStdin closes the process's stdin for good, whatever is attached.
func (c *Client) CloseStdin(ctx context.Context, id, proc string) error { return nil }

// List gives everything that the keeper holds, exits not yet acknowledged included.
func (c *Client) List(ctx context.Context) ([]ProcState, error) { return nil, nil }

// Exits delivers ends of processes, each at least once until Ack: after a new dial or a restart of
// the keeper the unacknowledged ones come again. An exit comes when the process has been reaped and
// all its output is in its log and on its way to its attachments (or two seconds after its end,
// when some other process still holds its output open). The channel never blocks the keeper.
func (c *Client) Exits() <-chan Exit { return nil }

// Ack says that the exit is known for good: the keeper forgets the process.
func (c *Client) Ack(ctx context.Context, id, proc string) error { return nil }

// Forget drops all that is held of a container's ended processes, acknowledged or not. It is
// fault.Conflict while one runs, and no error when nothing is held.
func (c *Client) Forget(ctx context.Context, id string) error { return nil }

// RotateLog rotates the container's log now, whatever its size.
func (c *Client) RotateLog(ctx context.Context, id string) error { return nil }

// ClearLog empties the container's log and removes its rotated files.
func (c *Client) ClearLog(ctx context.Context, id string) error { return nil }

// Park gives the keeper a descriptor to hold under a name until Take or Unpark: it survives this
// process. The keeper never touches what is behind it. An earlier one of that name is replaced.
func (c *Client) Park(ctx context.Context, name string, f *os.File) error { return nil }

// Take gives a new descriptor of what is parked under the name, which stays parked.
func (c *Client) Take(ctx context.Context, name string) (*os.File, error) { return nil, nil }

// Unpark closes the keeper's descriptor of that name; no error when there is none.
func (c *Client) Unpark(ctx context.Context, name string) error { return nil }

// Parked lists the names of parked descriptors.
func (c *Client) Parked(ctx context.Context) ([]string, error) { return nil, nil }

// Upgrade makes the keeper execute binary in its place: same pid, all processes, terminals,
// attachments and connections stay. When it fails the old one goes on and the error says why.
func (c *Client) Upgrade(ctx context.Context, binary string) error { return nil }

// Shutdown ends the keeper; fault.Conflict while it holds running processes.
func (c *Client) Shutdown(ctx context.Context) error { return nil }

// Info asks the keeper about itself.
func (c *Client) Info(ctx context.Context) (Info, error) { return Info{}, nil }
