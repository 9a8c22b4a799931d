package keeper

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"berth/base/fault"
	"berth/runtime/keeper/wire"
	"berth/runtime/launch"

	"golang.org/x/sys/unix"
)

// What is said to the keeper and what comes back; the wire package describes every field.
type (
	Launch        = wire.Launch
	Entered       = wire.Entered
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
// the keeper has died it starts a new one and hands it the descriptors it holds as insurance;
// requests wait meanwhile, as long as their context allows. A client made by Dial ends with its
// connection.
//
// A request that was on its way when the connection broke is repeated where that does no harm.
// Launch is not: the client looks whether the process is there. If it is not, the error is
// fault.Unavailable, and the owner should end whatever is in the process's cgroup: a keeper killed
// in the middle of a launch leaves a process that nobody knows.
type Client struct {
	execRoot string
	cfg      *StartConfig // nil: does not dial again

	exits chan Exit
	stop  chan struct{} // closed by Close
	done  chan struct{} // closed when there will be no connection any more

	ending atomic.Bool // the keeper was asked to end: it is not started again
	onNew  func()      // see OnNew

	mu        sync.Mutex // guards what follows; never held while waiting
	cur       *conn
	up        chan struct{} // closed while cur is set
	closed    bool
	gen       int // of connections
	onRotated func(id string)
	held      map[target]*insured
	atts      map[uint32]*insuredAttachment
	queue     []Exit        // for exits
	queued    chan struct{} // has room for one token: queue is not empty
	watchers  sync.WaitGroup
}

type target struct{ id, proc string }

// Dial connects to the keeper that serves execRoot/keeper.sock and agrees on a protocol version. It
// fails with fault.Unavailable where none answers. It neither gets insurance nor ends an adoption:
// that is for Open.
func Dial(ctx context.Context, execRoot string) (*Client, error) {
	c := newClient(execRoot, nil)
	cn, err := c.connect(ctx)
	if err != nil {
		c.finish()
		return nil, err
	}
	c.begin(cn)
	return c, nil
}

// Open starts a keeper unless one answers, connects to it, and keeps it so until Close.
func Open(ctx context.Context, cfg StartConfig) (*Client, error) {
	c := newClient(cfg.ExecRoot, &cfg)
	var cn *conn
	err := Start(ctx, cfg)
	if err == nil {
		cn, err = c.connect(ctx)
	}
	if err != nil {
		c.finish()
		return nil, err
	}
	c.begin(cn)
	return c, nil
}

func newClient(execRoot string, cfg *StartConfig) *Client {
	return &Client{
		execRoot: execRoot, cfg: cfg,
		exits: make(chan Exit), stop: make(chan struct{}), done: make(chan struct{}),
		up:   make(chan struct{}),
		held: map[target]*insured{}, atts: map[uint32]*insuredAttachment{},
		queued: make(chan struct{}, 1),
	}
}

// begin starts the goroutines that belong to the client until Close.
func (c *Client) begin(cn *conn) {
	c.watchers.Add(2)
	go c.pump()
	go c.watch(cn)
}

// watch follows the connection, and renews it where the client is to last.
func (c *Client) watch(cn *conn) {
	defer c.watchers.Done()
	defer close(c.done)
	for {
		select {
		case <-cn.gone:
		case <-c.stop:
			cn.close()
			<-cn.gone
			return
		}
		if c.cfg == nil || c.ending.Load() {
			return
		}
		fresh := false
		if cn, fresh = c.renew(); cn == nil {
			return
		}
		c.mu.Lock()
		told := c.onNew
		c.mu.Unlock()
		if fresh && told != nil {
			c.watchers.Go(told)
		}
	}
}

// OnNew has f called whenever a new keeper has taken the place of one that died. Processes, their output and their terminals it has got
// back; what was parked it has not. f may use the client and ends soon after Close.
func (c *Client) OnNew(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onNew = f
}

// renew gets a new connection, to the same keeper or to a new one, however long that takes. It gives
// nil when the client was closed meanwhile. fresh tells that the keeper had to be started.
func (c *Client) renew() (cn *conn, fresh bool) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-c.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		cn, err := c.connect(ctx)
		if fault.Is(err, fault.Unavailable) {
			if err = Start(ctx, *c.cfg); err == nil {
				fresh = true
				cn, err = c.connect(ctx)
			}
		}
		if err == nil {
			return cn, fresh
		}
		select {
		case <-time.After(wait):
		case <-c.stop:
			return nil, false
		}
	}
}

// Close ends the connection; the keeper and its processes go on. Exits is closed afterwards.
func (c *Client) Close() error {
	c.mu.Lock()
	already := c.closed
	c.closed = true
	c.mu.Unlock()
	if !already {
		close(c.stop)
		c.watchers.Wait()
		c.finish()
	}
	return nil
}

// finish lets go of the insurance.
func (c *Client) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropOlder(c.gen + 1)
}

// Done is closed when a client made by Dial has lost its connection, or after Close.
func (c *Client) Done() <-chan struct{} { return c.done }

// pump moves exits from the queue, which the connection's reader fills without ever waiting, to the
// channel.
func (c *Client) pump() {
	defer c.watchers.Done()
	defer close(c.exits)
	for {
		c.mu.Lock()
		var next *Exit
		if len(c.queue) > 0 {
			x := c.queue[0]
			c.queue = c.queue[1:]
			next = &x
		}
		c.mu.Unlock()
		if next == nil {
			select {
			case <-c.queued:
			case <-c.stop:
				return
			}
			continue
		}
		select {
		case c.exits <- *next:
		case <-c.stop:
			return
		}
	}
}

func (c *Client) enqueue(x Exit) {
	c.mu.Lock()
	c.queue = append(c.queue, x)
	c.mu.Unlock()
	select {
	case c.queued <- struct{}{}:
	default:
	}
}

// Launch starts a process and returns when execve has succeeded, or its gate is reached. A failed
// start is a *launch.Error (errors.As); nothing is left of it. A second launch of the same ID and
// Proc is fault.Conflict as long as the first is held (until Ack of its exit).
func (c *Client) Launch(ctx context.Context, l Launch) (Started, error) {
	var st Started
	m, fds, flag, err := packLaunch(&l)
	if err != nil {
		return st, err
	}
	defer closeFiles(fds)
	r, err := c.once(ctx, wire.LaunchKind, flag, m, rawFDs(fds))
	if errors.Is(err, errBroken) && c.cfg != nil {
		return c.findLaunched(ctx, l)
	}
	if err != nil {
		return st, err
	}
	return r.launched(l)
}

// packLaunch gives what goes over the wire: the program by memfd where it is large, and the sockets
// of attachments that bring their own.
func packLaunch(l *Launch) (m *Launch, fds []*os.File, flag wire.Flag, err error) {
	out := *l
	if len(l.Program) > wire.MaxPacket-64<<10 {
		f, err := memfd("berth-program", l.Program)
		if err != nil {
			return nil, nil, 0, fault.Wrap(fault.Unavailable, err, "launch %s", l.ID)
		}
		fds, flag, out.Program = append(fds, f), wire.ProgramFD, nil
	}
	for _, a := range l.Attach {
		if a.Sock == nil {
			continue
		}
		// A duplicate, so that all of them are ours to close.
		d, err := dup(a.Sock)
		if err != nil {
			closeFiles(fds)
			return nil, nil, 0, fault.Wrap(fault.Invalid, err, "launch %s: attachment", l.ID)
		}
		fds = append(fds, d)
	}
	return &out, fds, flag, nil
}

// launched reads the reply to a launch.
func (r *reply) launched(l Launch) (Started, error) {
	var st Started
	var m wire.Launched
	if err := wire.Unmarshal(r.body, &m); err != nil {
		closeAll(r.fds)
		return st, fault.Wrap(fault.Internal, err, "launch %s", l.ID)
	}
	st.Started = m.Started
	socks := r.fds // the insurance was taken out by the connection's reader
	for _, a := range l.Attach {
		if a.Sock != nil || len(socks) == 0 {
			st.Attached = append(st.Attached, nil)
			continue
		}
		conn, err := unixConn(socks[0])
		socks = socks[1:]
		if err != nil {
			closeAll(socks)
			return st, fault.Wrap(fault.Internal, err, "launch %s: attachment", l.ID)
		}
		st.Attached = append(st.Attached, conn)
	}
	closeAll(socks)
	return st, nil
}

// findLaunched looks for a process whose launch was on its way when the connection broke.
func (c *Client) findLaunched(ctx context.Context, l Launch) (Started, error) {
	unknown := fault.New(fault.Unavailable, "launch %s: the keeper was lost on the way and does not know the process; end what is in its cgroup", l.ID)
	for {
		all, err := c.List(ctx)
		if err != nil {
			return Started{}, unknown
		}
		for _, p := range all {
			if p.ID != l.ID || p.Proc != l.Proc {
				continue
			}
			st := Started{Started: wire.Started{PID: p.PID, StartTime: p.StartTime}}
			for _, a := range l.Attach {
				a.ID, a.Proc = l.ID, l.Proc
				conn, err := c.Attach(ctx, a)
				if err != nil {
					conn = nil // it has ended already, or will tell so itself
				}
				st.Attached = append(st.Attached, conn)
			}
			return st, nil
		}
		info, err := c.Info(ctx)
		if err != nil || info.Launching == 0 {
			return Started{}, unknown
		}
		select { // the same keeper, still at it
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return Started{}, unknown
		}
	}
}

// Release lets a process that was launched with Gate go on to execve, and returns when that has
// succeeded; else the error is a *launch.Error and the process's exit follows.
func (c *Client) Release(ctx context.Context, id, proc string) error {
	_, err := c.once(ctx, wire.ReleaseKind, 0, &wire.Request{ID: id, Proc: proc}, nil)
	return err
}

// Attach gives a stream socket to a process: reads give its output from now on (framed or raw),
// writes are its stdin, CloseWrite ends the caller's part of stdin. End of file comes after the
// last byte of output. With r.Sock the result is nil.
func (c *Client) Attach(ctx context.Context, r AttachRequest) (*net.UnixConn, error) {
	var fds []int
	if r.Sock != nil {
		d, err := dup(r.Sock)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "attach to %s", r.ID)
		}
		defer d.Close()
		fds = []int{int(d.Fd())}
	}
	rep, err := c.again(ctx, wire.AttachKind, &r, fds)
	if err != nil || r.Sock != nil {
		return nil, err
	}
	if len(rep.fds) != 1 {
		closeAll(rep.fds)
		return nil, fault.New(fault.Internal, "attach to %s: the keeper sent no socket", r.ID)
	}
	conn, err := unixConn(rep.fds[0])
	return conn, fault.Wrap(fault.Internal, err, "attach to %s", r.ID)
}

// Signal sends a signal through the pidfd. A process that is gone is fault.NotFound.
func (c *Client) Signal(ctx context.Context, id, proc string, sig int) error {
	_, err := c.once(ctx, wire.SignalKind, 0, &wire.Request{ID: id, Proc: proc, Signal: sig}, nil)
	return err
}

// Resize sets the size of the process's terminal; one without terminal is fault.Invalid.
func (c *Client) Resize(ctx context.Context, id, proc string, rows, cols uint16) error {
	_, err := c.again(ctx, wire.ResizeKind, &wire.Request{ID: id, Proc: proc, Rows: rows, Cols: cols}, nil)
	return err
}

// CloseStdin closes the process's stdin for good, whatever is attached. A terminal's stays open.
func (c *Client) CloseStdin(ctx context.Context, id, proc string) error {
	_, err := c.again(ctx, wire.CloseStdinKind, &wire.Request{ID: id, Proc: proc}, nil)
	return err
}

// List gives everything that the keeper holds, exits not yet acknowledged included, in the order of
// their start.
func (c *Client) List(ctx context.Context) ([]ProcState, error) {
	r, err := c.again(ctx, wire.ListKind, nil, nil)
	if err != nil {
		return nil, err
	}
	var all wire.States
	for _, b := range append(r.parts, r.body) {
		if err := wire.Unmarshal(b, &all); err != nil {
			return nil, fault.Wrap(fault.Internal, err, "list")
		}
	}
	return all.Procs, nil
}

// Exits delivers ends of processes, each at least once until Ack: after a new dial or a restart of
// the keeper the unacknowledged ones come again. An exit comes when the process has been reaped and
// all its output is in its log and on its way to its attachments (or two seconds after its end,
// when some other process still holds its output open). The channel never blocks the keeper.
func (c *Client) Exits() <-chan Exit { return c.exits }

// Ack says that the exit is known for good: the keeper forgets the process. It is no error when it
// has forgotten it already.
func (c *Client) Ack(ctx context.Context, id, proc string) error {
	_, err := c.again(ctx, wire.AckKind, &wire.Request{ID: id, Proc: proc}, nil)
	return err
}

// Forget drops all that is held of a container's ended processes, acknowledged or not. It is
// fault.Conflict while one runs, and no error when nothing is held.
func (c *Client) Forget(ctx context.Context, id string) error {
	_, err := c.again(ctx, wire.ForgetKind, &wire.Request{ID: id}, nil)
	return err
}

// RotateLog rotates the log of the container's init now, whatever its size; with MaxFiles 1 that
// empties it.
func (c *Client) RotateLog(ctx context.Context, id string) error {
	_, err := c.again(ctx, wire.RotateLogKind, &wire.Request{ID: id}, nil)
	return err
}

// ClearLog begins the log of the container's init anew and removes its rotated files; also those of a
// container that does not run, whose log is at path.
func (c *Client) ClearLog(ctx context.Context, id, path string) error {
	_, err := c.again(ctx, wire.ClearLogKind, &wire.Request{ID: id, Path: path}, nil)
	return err
}

// ShippedLog says that all files of the container's log that are older than the one of this inode were
// shipped: a log of LogConfig.Keep may rotate them away. It is to be said again to a new keeper.
func (c *Client) ShippedLog(ctx context.Context, id string, inode uint64) error {
	_, err := c.again(ctx, wire.ShippedKind, &wire.LogFile{ID: id, Inode: inode}, nil)
	return err
}

// PackedLog puts a compressed copy of the rotated file of this inode into its place. path is the log's
// current file; the copy must be safe on disk on the same file system. fault.NotFound: the file was rotated
// away, or cleared.
func (c *Client) PackedLog(ctx context.Context, path string, inode uint64, packed string) error {
	_, err := c.again(ctx, wire.PackedKind, &wire.LogFile{Path: path, Inode: inode, Packed: packed}, nil)
	return err
}

// OnRotated has f called with a container's id a moment after its log was rotated, where the log has
// LogConfig.Announce. f must not wait, nor use the client.
func (c *Client) OnRotated(f func(id string)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onRotated = f
}

// Park gives the keeper a descriptor to hold under a name until Unpark: it survives this process.
// The keeper never touches what is behind it. An earlier one of that name is replaced. It does not
// survive the keeper.
func (c *Client) Park(ctx context.Context, name string, f *os.File) error {
	d, err := dup(f)
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "park %s", name)
	}
	defer d.Close()
	_, err = c.again(ctx, wire.ParkKind, &wire.Request{Name: name}, []int{int(d.Fd())})
	return err
}

// Take gives a new descriptor of what is parked under the name, which stays parked.
func (c *Client) Take(ctx context.Context, name string) (*os.File, error) {
	r, err := c.again(ctx, wire.TakeKind, &wire.Request{Name: name}, nil)
	if err != nil {
		return nil, err
	}
	if len(r.fds) != 1 {
		closeAll(r.fds)
		return nil, fault.New(fault.Internal, "take %s: the keeper sent no descriptor", name)
	}
	return os.NewFile(uintptr(r.fds[0]), name), nil
}

// Unpark closes the keeper's descriptor of that name; no error when there is none.
func (c *Client) Unpark(ctx context.Context, name string) error {
	_, err := c.again(ctx, wire.UnparkKind, &wire.Request{Name: name}, nil)
	return err
}

// Parked lists the names of parked descriptors.
func (c *Client) Parked(ctx context.Context) ([]string, error) {
	r, err := c.again(ctx, wire.ParkedKind, nil, nil)
	if err != nil {
		return nil, err
	}
	var m wire.Names
	err = wire.Unmarshal(r.body, &m)
	return m.Names, err
}

// Upgrade makes the keeper execute binary in its place: same pid, all processes, terminals,
// attachments and connections stay. When it fails the old one goes on and the error says why.
func (c *Client) Upgrade(ctx context.Context, binary string) error {
	_, err := c.once(ctx, wire.UpgradeKind, 0, &wire.Request{Path: binary}, nil)
	return err
}

// Shutdown ends the keeper; fault.Conflict while it holds running processes. A client made by Open
// starts no other in its place; it is of no use any more.
func (c *Client) Shutdown(ctx context.Context) error {
	c.ending.Store(true) // before the connection breaks
	_, err := c.once(ctx, wire.ShutdownKind, 0, &wire.Request{}, nil)
	if err != nil && !fault.Is(err, fault.Unavailable) {
		c.ending.Store(false) // it refused, and serves on
	}
	return err
}

// Info asks the keeper about itself.
func (c *Client) Info(ctx context.Context) (Info, error) {
	var m Info
	r, err := c.again(ctx, wire.InfoKind, nil, nil)
	if err == nil {
		err = wire.Unmarshal(r.body, &m)
	}
	return m, err
}

// failure turns a refused request into the error that the caller knows.
func failure(m *wire.Error) error {
	if m.Errno == 0 {
		return fault.New(m.Kind, "%s", m.Text)
	}
	return fault.Wrap(m.Kind, &launch.Error{
		Step: m.Step, Call: m.Call, Errno: unix.Errno(m.Errno), Exec: m.Exec, Arg0: m.Arg0,
	}, "")
}
