package engine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/engine/container"
	"berth/engine/logs"
	"berth/runtime/keeper"
)

// Attach connects to the streams of a container. One that does not run yet is attached when it starts, before its first output.
func (e *Engine) Attach(ctx context.Context, ref string, o AttachOptions) (Attachment, error) {
	c, err := e.index.find(ref)
	if err != nil {
		return Attachment{}, err
	}
	keys, err := ParseDetachKeys(o.DetachKeys)
	if err != nil {
		return Attachment{}, err
	}
	end, err := c.begin(ctx, "attach")
	if err != nil {
		return Attachment{}, err
	}
	defer end()
	state, spec := c.snapshot().State, c.record().Spec
	switch {
	case state.Paused:
		return Attachment{}, fault.New(fault.Conflict, "container %s is paused, unpause the container before attach", ref)
	case state.Restarting:
		return Attachment{}, fault.New(fault.Conflict, "container %s is restarting, wait until the container is running", ref)
	case state.Status == container.Removing, state.Status == container.Dead:
		return Attachment{}, fault.New(fault.Conflict, "container %s is marked for removal and cannot be attached to", ref)
	}
	var history []byte
	if o.Logs {
		if history, err = e.history(c, o); err != nil {
			return Attachment{}, err
		}
	}
	var conn Conn = endOfStream{}
	if o.Stream {
		r := keeper.AttachRequest{
			ID: c.id, Stdin: o.Stdin && spec.OpenStdin, Stdout: o.Stdout, Stderr: o.Stderr, Framed: !spec.Process.TTY, DetachKeys: ttyKeys(spec.Process.TTY, keys),
		}
		if state.Running {
			conn, err = e.attachNow(ctx, r)
		} else {
			conn, err = c.attachLater(r)
		}
		if err != nil {
			return Attachment{}, err
		}
		last := &untilEnded{Conn: conn, c: c, left: make(chan struct{})}
		conn = noticeDetach(last, spec.Process.TTY, r.Stdin, keys, func() { last.leave(); e.tell(c, "detach", nil) })
	}
	e.tell(c, "attach", nil)
	if len(history) > 0 {
		conn = &afterHistory{Conn: conn, history: *bytes.NewReader(history)}
	}
	return Attachment{Conn: conn, TTY: spec.Process.TTY}, nil
}

// endPatience bounds the time between the end of a process's output and the news of its exit: both come from the keeper, on a busy machine
// seconds after each other. A container that has closed its outputs and goes on keeps clients for as long; in Docker, until it ends.
const endPatience = 10 * time.Second

// untilEnded holds the end of a container's output back until the exit code is known: clients ask for it as soon as the stream has
// ended, and would be told that the container still runs.
type untilEnded struct {
	Conn
	c    *entry
	once sync.Once
	left chan struct{} // closed when the client detaches or goes
}

// Read tells the end of the stream after that of the container.
func (u *untilEnded) Read(p []byte) (int, error) {
	n, err := u.Conn.Read(p)
	if !errors.Is(err, io.EOF) || !u.c.snapshot().State.Running {
		return n, err
	}
	t := time.NewTimer(endPatience)
	defer t.Stop()
	select {
	case <-u.c.endedChan():
	case <-u.left:
	case <-t.C: // its outputs are closed, and it goes on
	}
	return n, err
}

// Close waits for nothing.
func (u *untilEnded) Close() error {
	u.leave()
	return u.Conn.Close()
}

func (u *untilEnded) leave() { u.once.Do(func() { close(u.left) }) }

// attachNow asks the keeper, which answers from memory: the op is held meanwhile.
func (e *Engine) attachNow(ctx context.Context, r keeper.AttachRequest) (Conn, error) {
	if err := e.keeperReady(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, keeperPatience)
	defer cancel()
	conn, err := e.keeper.Attach(ctx, r)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// attachLater makes a socket that the keeper will get with the launch.
func (c *entry) attachLater(r keeper.AttachRequest) (Conn, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "making a socket for an attachment")
	}
	r.Sock = theirs
	c.mu.Lock()
	c.pending = append(c.pending, r)
	c.mu.Unlock()
	return &laterConn{UnixConn: ours, c: c, sock: theirs}, nil
}

// laterConn is an attachment that may be closed before the process was started.
type laterConn struct {
	*net.UnixConn
	c    *entry
	sock *os.File
}

// Close also gives the waiting end up.
func (l *laterConn) Close() error {
	l.c.mu.Lock()
	for i, r := range l.c.pending {
		if r.Sock == l.sock {
			l.c.pending = append(l.c.pending[:i:i], l.c.pending[i+1:]...)
			l.sock.Close()
			break
		}
	}
	l.c.mu.Unlock()
	return l.UnixConn.Close()
}

func socketPair() (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	mine := os.NewFile(uintptr(fds[0]), "attachment")
	defer mine.Close()
	theirs = os.NewFile(uintptr(fds[1]), "attachment, keeper's end")
	conn, err := net.FileConn(mine)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn.(*net.UnixConn), theirs, nil
}

// history gives what was logged so far, framed like the stream that follows.
func (e *Engine) history(c *entry, o AttachOptions) ([]byte, error) {
	spec := c.record().Spec
	r, err := e.openLog(c, logs.Options{Stdout: o.Stdout, Stderr: o.Stderr, Tail: -1})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var b bytes.Buffer
	for {
		l, err := r.Next()
		if errors.Is(err, io.EOF) {
			return b.Bytes(), nil
		}
		if err != nil {
			return nil, err
		}
		if !spec.Process.TTY {
			n := len(l.Data)
			b.Write([]byte{l.Stream, 0, 0, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
		}
		b.Write(l.Data)
	}
}

// afterHistory reads the history, then the stream.
type afterHistory struct {
	Conn
	history bytes.Reader
}

// Read gives history first.
func (a *afterHistory) Read(p []byte) (int, error) {
	if a.history.Len() > 0 {
		return a.history.Read(p)
	}
	return a.Conn.Read(p)
}

// endOfStream is what follows the history where no stream was asked for.
type endOfStream struct{}

// Read is at the end.
func (endOfStream) Read([]byte) (int, error) { return 0, io.EOF }

// Write goes nowhere.
func (endOfStream) Write(p []byte) (int, error) { return len(p), nil }

// CloseWrite does nothing.
func (endOfStream) CloseWrite() error { return nil }

// Close does nothing.
func (endOfStream) Close() error { return nil }

// Resize sets the size of the container's terminal.
func (e *Engine) Resize(ctx context.Context, ref string, rows, cols uint16) error {
	c, err := e.index.find(ref)
	if err != nil {
		return err
	}
	if !c.snapshot().State.Status.Alive() {
		return fault.New(fault.Conflict, "container %s is not running", c.id)
	}
	if !c.record().Spec.Process.TTY {
		return nil // as in Docker, there is nothing to resize
	}
	if err := e.keeper.Resize(ctx, c.id, "", rows, cols); err != nil {
		return fault.In(err, "cannot resize container %s", c.id)
	}
	e.tell(c, "resize", map[string]string{"height": itoa(rows), "width": itoa(cols)})
	return nil
}

// defaultDetachKeys are ctrl-p ctrl-q.
var defaultDetachKeys = []byte{16, 17}

// ttyKeys gives the detach keys of an attachment: only a terminal has any.
func ttyKeys(tty bool, asked []byte) []byte {
	switch {
	case !tty:
		return nil
	case asked == nil:
		return defaultDetachKeys
	}
	return asked
}

// ParseDetachKeys reads Docker's notation: single characters and "ctrl-X" with X one of a-z @ [ \ ] ^ _, comma separated.
func ParseDetachKeys(s string) ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	var keys []byte
	for _, word := range strings.Split(s, ",") {
		rest, ctrl := strings.CutPrefix(word, "ctrl-")
		switch {
		case len(word) == 1:
			keys = append(keys, word[0])
		case ctrl && len(rest) == 1 && rest[0] >= 'a' && rest[0] <= 'z':
			keys = append(keys, rest[0]-'a'+1)
		case ctrl && len(rest) == 1 && strings.Contains(`@[\]^_`, rest):
			keys = append(keys, rest[0]-'@')
		case word == "DEL":
			keys = append(keys, 127)
		default:
			return nil, fault.New(fault.Invalid, "Invalid detach keys (%s) provided", s)
		}
	}
	return keys, nil
}
