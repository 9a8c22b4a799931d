package keeper

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"berth/base/fault"
	"berth/runtime/keeper/wire"

	"golang.org/x/sys/unix"
)

// errBroken is a connection that ended before the answer came.
var errBroken = fault.New(fault.Unavailable, "the connection to the keeper broke")

// conn is one connection.
type conn struct {
	c    *Client
	gen  int
	u    *net.UnixConn
	gone chan struct{} // closed when the reader has ended

	hello wire.Hello
	slate *slateRef // the reader's, until greet

	mu      sync.Mutex // guards what follows; taken after Client.mu where both are
	seq     uint32
	pending map[uint32]chan *reply
	broken  bool

	writing sync.Mutex // one packet at a time: a blocked write must not hold mu
}

// reply is the answer to a request. The descriptors are the receiver's.
type reply struct {
	body  []byte
	parts [][]byte // bodies of the packets before it, for long answers
	fds   []int
	err   error
}

// connect makes a connection, brings the insurance to a new keeper where it is needed, and makes
// the connection the current one.
func (c *Client) connect(ctx context.Context) (*conn, error) {
	u, err := dialPacket(ctx, c.execRoot)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "connect to the keeper of %s", c.execRoot)
	}
	c.mu.Lock()
	c.gen++
	cn := &conn{c: c, gen: c.gen, u: u, gone: make(chan struct{}), pending: map[uint32]chan *reply{}}
	c.mu.Unlock()
	go cn.read()
	err = cn.greet(ctx)
	c.mu.Lock()
	if err == nil && !cn.isBroken() {
		c.cur = cn
		close(c.up)
		c.mu.Unlock()
		return cn, nil
	}
	c.mu.Unlock()
	cn.close()
	<-cn.gone
	if err == nil {
		err = errBroken
	}
	return nil, err
}

// dialPacket connects to keeper.sock, also where its path is longer than sun_path's 107 bytes.
func dialPacket(ctx context.Context, execRoot string) (*net.UnixConn, error) {
	path := execRoot + "/keeper.sock"
	if len(path) > 107 {
		d, err := os.Open(execRoot)
		if err != nil {
			return nil, err
		}
		defer d.Close()
		path = "/proc/self/fd/" + strconv.Itoa(int(d.Fd())) + "/keeper.sock"
	}
	var d net.Dialer
	for {
		u, err := d.DialContext(ctx, "unixpacket", path)
		if err == nil {
			return u.(*net.UnixConn), nil
		}
		if !errors.Is(err, unix.EAGAIN) {
			return nil, err
		}
		select { // its backlog is full (unix(7))
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// greet agrees on a version, adopts, and waits until everything that the keeper had to say first has
// been read.
func (cn *conn) greet(ctx context.Context) error {
	r, err := cn.call(ctx, wire.HelloKind, 0, &wire.Hello{
		MinVersion: wire.MinVersion, MaxVersion: wire.MaxVersion,
		Name: "pid " + strconv.Itoa(os.Getpid()), Insure: cn.c.cfg != nil,
	}, nil)
	if err != nil {
		return fault.In(err, "greet the keeper")
	}
	closeAll(r.fds)
	if cn.hello.Missing > 0 && cn.c.cfg != nil {
		cn.c.adopt(ctx, cn)
		if _, err := cn.call(ctx, wire.AdoptEndKind, 0, nil, nil); err != nil {
			return fault.In(err, "have the keeper adopt")
		}
	} else if _, err := cn.call(ctx, wire.InfoKind, 0, nil, nil); err != nil {
		return fault.In(err, "greet the keeper")
	}
	// What was not given again is void.
	cn.c.mu.Lock()
	cn.c.dropOlder(cn.gen)
	cn.c.mu.Unlock()
	return nil
}

// once sends a request over the current connection, waiting for one if need be. When the connection
// breaks before the answer, the error is errBroken.
func (c *Client) once(ctx context.Context, kind wire.Kind, flag wire.Flag, m wire.Message, fds []int) (*reply, error) {
	cn, err := c.current(ctx)
	if err != nil {
		return nil, err
	}
	return cn.call(ctx, kind, flag, m, fds)
}

// again is once for requests that do no harm when they are repeated.
func (c *Client) again(ctx context.Context, kind wire.Kind, m wire.Message, fds []int) (*reply, error) {
	for {
		r, err := c.once(ctx, kind, 0, m, fds)
		if !errors.Is(err, errBroken) || c.cfg == nil {
			return r, err
		}
	}
}

// current gives the current connection.
func (c *Client) current(ctx context.Context) (*conn, error) {
	for {
		c.mu.Lock()
		cn, up := c.cur, c.up
		c.mu.Unlock()
		if cn != nil && !cn.isBroken() {
			return cn, nil
		}
		var change <-chan struct{} = up
		if cn != nil {
			change = cn.gone // its reader is about to take it away
		}
		select {
		case <-change:
		case <-ctx.Done():
			return nil, fault.In(ctx.Err(), "wait for the keeper")
		case <-c.stop:
			return nil, fault.New(fault.Unavailable, "the keeper's client is closed")
		case <-c.done:
			return nil, errBroken
		}
	}
}

// call sends a request and waits for its answer.
func (cn *conn) call(ctx context.Context, kind wire.Kind, flag wire.Flag, m wire.Message, fds []int) (*reply, error) {
	ch := make(chan *reply, 1)
	cn.mu.Lock()
	if cn.broken {
		cn.mu.Unlock()
		return nil, errBroken
	}
	cn.seq++
	seq := cn.seq
	cn.pending[seq] = ch
	cn.mu.Unlock()

	b := wire.Packet(wire.Head{Kind: kind, Flag: flag, Seq: seq}, m)
	if len(b) > wire.MaxPacket {
		cn.forget(seq)
		return nil, fault.New(fault.Invalid, "a request of %d bytes to the keeper; %d are possible", len(b), wire.MaxPacket)
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	cn.writing.Lock()
	_, _, err := cn.u.WriteMsgUnix(b, oob, nil)
	cn.writing.Unlock()
	if err != nil {
		cn.forget(seq)
		cn.close()
		return nil, errBroken
	}
	select {
	case r := <-ch:
		if r.err != nil {
			return nil, r.err
		}
		return r, nil
	case <-ctx.Done():
		if late := cn.forget(seq); late != nil {
			closeAll(late.fds)
		}
		return nil, ctx.Err()
	}
}

// forget ends the wait for an answer and gives one that has come all the same.
func (cn *conn) forget(seq uint32) *reply {
	cn.mu.Lock()
	ch := cn.pending[seq]
	delete(cn.pending, seq)
	cn.mu.Unlock()
	if ch == nil {
		return nil
	}
	select {
	case r := <-ch:
		return r
	default:
		return nil
	}
}

func (cn *conn) isBroken() bool {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	return cn.broken
}

func (cn *conn) close() {
	cn.mu.Lock()
	cn.broken = true
	cn.mu.Unlock()
	cn.u.Close()
}

// read is the connection's reader: answers go to who waits for them, the rest into the client.
func (cn *conn) read() {
	defer close(cn.gone)
	buf := make([]byte, wire.MaxPacket)
	oob := make([]byte, unix.CmsgSpace(4*wire.MaxFDs))
	parts := map[uint32][][]byte{}
	for {
		n, oobn, flags, _, err := cn.u.ReadMsgUnix(buf, oob)
		fds := rights(oob[:oobn])
		if err != nil || n == 0 || flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
			closeAll(fds)
			break
		}
		h, body, err := wire.ParseHead(buf[:n])
		if err != nil {
			closeAll(fds)
			break
		}
		body = append([]byte(nil), body...)
		switch {
		case h.Flag&wire.Reply == 0:
			cn.c.pushed(cn, h.Kind, body, fds)
		case h.Flag&wire.More != 0:
			parts[h.Seq] = append(parts[h.Seq], body)
		default:
			r := &reply{body: body, parts: parts[h.Seq], fds: fds}
			delete(parts, h.Seq)
			cn.answer(h, r)
		}
	}
	cn.c.mu.Lock()
	cn.mu.Lock()
	cn.broken = true
	pending := cn.pending
	cn.pending = nil
	cn.mu.Unlock()
	if cn.c.cur == cn {
		cn.c.cur = nil
		cn.c.up = make(chan struct{})
	}
	if cn.slate != nil {
		cn.slate.drop()
	}
	cn.c.mu.Unlock()
	cn.u.Close()
	for _, ch := range pending {
		ch <- &reply{err: errBroken}
	}
}

// answer gives a reply to who waits for it. Insurance that comes with it is taken out here, in the
// order of packets.
func (cn *conn) answer(h wire.Head, r *reply) {
	if h.Flag&wire.Failed != 0 {
		var m wire.Error
		if r.err = wire.Unmarshal(r.body, &m); r.err == nil {
			r.err = failure(&m)
		}
	} else if h.Kind == wire.HelloKind {
		r.err = wire.Unmarshal(r.body, &cn.hello)
		if len(r.fds) == 1 {
			cn.slate = &slateRef{fd: r.fds[0]}
			cn.c.mu.Lock()
			cn.slate.use()
			cn.c.mu.Unlock()
			r.fds = nil
		}
	} else if h.Kind == wire.LaunchKind {
		r.fds = cn.c.keepLaunched(cn, r)
	}
	cn.mu.Lock()
	ch := cn.pending[h.Seq]
	delete(cn.pending, h.Seq)
	if ch != nil {
		ch <- r // has room for one; under mu so that forget finds it
	}
	cn.mu.Unlock()
	if ch == nil {
		closeAll(r.fds)
	}
}

func rights(oob []byte) (fds []int) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range msgs {
		if got, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}

// unixConn makes a connection of a socket and takes it over.
func unixConn(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "attachment")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("not a unix socket")
	}
	return u, nil
}

// dup gives a descriptor of one's own of f without changing f's mode, as Fd would.
func dup(f *os.File) (*os.File, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	d := -1
	var derr error
	if err := raw.Control(func(fd uintptr) {
		d, derr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	}); err != nil {
		return nil, err
	}
	if derr != nil {
		return nil, derr
	}
	return os.NewFile(uintptr(d), f.Name()), nil
}

func memfd(name string, b []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.Write(b); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func rawFDs(files []*os.File) []int {
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	return fds
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
