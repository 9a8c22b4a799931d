package server

import (
	"fmt"
	"os"
	"slices"

	"berth/base/fault"
	"berth/runtime/keeper/wire"

	"golang.org/x/sys/unix"
)

// listener is EXEC-ROOT/keeper.sock.
type listener struct {
	s   *Server
	fd  int
	tok token
}

// listen makes the socket, or goes on with one that came through an upgrade.
func (s *Server) listen(fd int) error {
	if fd < 0 {
		path := s.cfg.ExecRoot + "/keeper.sock"
		_ = os.Remove(path) // a dead keeper's: we hold the lock
		var err error
		if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return fmt.Errorf("make keeper.sock: %w", err)
		}
		if err := bindUnix(fd, s.cfg.ExecRoot, "keeper.sock"); err != nil {
			return fmt.Errorf("bind %s: %w", path, err)
		}
		if err := unix.Chmod(path, 0o600); err != nil {
			return fmt.Errorf("chmod %s: %w", path, err)
		}
		if err := unix.Listen(fd, 1024); err != nil {
			return fmt.Errorf("listen on %s: %w", path, err)
		}
	}
	s.sock = &listener{s: s, fd: fd, tok: noToken}
	return s.poll.set(&s.sock.tok, fd, true, unix.EPOLLIN, s.sock)
}

// bindUnix binds to dir/name also where that is longer than the 107 bytes of sun_path, through the
// directory's descriptor.
func bindUnix(fd int, dir, name string) error {
	if len(dir)+1+len(name) < 108 {
		return unix.Bind(fd, &unix.SockaddrUnix{Name: dir + "/" + name})
	}
	d, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(d)
	return unix.Bind(fd, &unix.SockaddrUnix{Name: "/proc/self/fd/" + itoa(d) + "/" + name})
}

func (l *listener) ready(uint32) {
	for {
		fd, _, err := unix.Accept4(l.fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if err != nil {
			return // EAGAIN, or a client that has gone again; out of descriptors: the next event tries anew
		}
		fd = high(fd)
		cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil || (cred.Uid != 0 && int(cred.Uid) != os.Geteuid()) {
			l.s.say.warn("refused a client that is not root")
			_ = unix.Close(fd)
			continue
		}
		l.s.addPeer(fd, int(cred.Pid))
	}
}

// peer is a connected client.
type peer struct {
	s       *Server
	fd      int
	tok     token
	pid     int
	name    string
	hello   bool
	insured bool // gets dups of all descriptors
	queue   []packet
	queued  int     // bytes in queue
	todo    []*proc // to be insured, one after the other as the socket has room
}

// packet is one that waits for the socket to have room.
type packet struct {
	b   []byte
	fds []int // dups
}

func (s *Server) addPeer(fd, pid int) *peer {
	c := &peer{s: s, fd: fd, tok: noToken, pid: pid}
	s.peers = append(s.peers, c)
	c.watch()
	return c
}

// deaf reports that no request is to be read now. While an upgrade is prepared they wait in the socket
// for the new binary. While insurance is being given they wait so that a client knows, from the reply
// to its first request, that it has everything.
func (c *peer) deaf() bool { return c.s.upgrade != nil || len(c.todo) > 0 }

func (c *peer) watch() {
	events := uint32(0)
	if !c.deaf() {
		events = unix.EPOLLIN
	}
	if len(c.queue) > 0 || len(c.todo) > 0 {
		events |= unix.EPOLLOUT
	}
	if err := c.s.poll.set(&c.tok, c.fd, true, events, c); err != nil {
		c.s.say.warn("cannot watch a client", "err", err.Error())
	}
}

func (c *peer) ready(events uint32) {
	if events&unix.EPOLLOUT != 0 {
		c.flush()
	}
	// A few packets, then the others' turn.
	for range 8 {
		if c.fd < 0 || c.deaf() || !c.receive() {
			return
		}
	}
}

// receive handles one packet, and reports whether there may be another.
func (c *peer) receive() bool {
	s := c.s
	var n, oobn, flags int
	err := retry(func() (err error) {
		n, oobn, flags, _, err = unix.Recvmsg(c.fd, s.scratch, s.oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		return err
	})
	if err == unix.EAGAIN {
		return false
	}
	fds := received(s.oob[:oobn])
	defer func() { closeAll(fds) }()
	if err != nil || n == 0 {
		c.close()
		return false
	}
	h, body, err := wire.ParseHead(s.scratch[:n])
	if err != nil || flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		s.say.warn("hung up on a client that sent a bad packet", "pid", itoa(c.pid))
		c.close()
		return false
	}
	func() {
		defer func() {
			if r := recover(); r != nil {
				s.say.warn("a defect was caught", "in", "request", "kind", itoa(h.Kind), "panic", fmt.Sprint(r), "stack", stack())
				c.fail(h.Kind, h.Seq, fault.New(fault.Internal, "keeper: defect in request %d: %v", h.Kind, r))
			}
		}()
		s.request(c, h, body, &fds)
	}()
	return true
}

func received(oob []byte) (fds []int) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range msgs {
		if got, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			for _, fd := range got {
				fds = append(fds, high(fd))
			}
		}
	}
	return fds
}

// reply answers a request. The descriptors stay the caller's.
func (c *peer) reply(kind wire.Kind, seq uint32, m wire.Message, fds []int) {
	c.send(wire.Packet(wire.Head{Kind: kind, Flag: wire.Reply, Seq: seq}, m), fds)
}

// fail answers a request with an error.
func (c *peer) fail(kind wire.Kind, seq uint32, err error) {
	m := wire.Error{Kind: fault.KindOf(err), Text: err.Error()}
	if e, ok := err.(*StartError); ok {
		m.Step, m.Call, m.Errno, m.Exec, m.Arg0 = e.Step, e.Call, int(e.Errno), e.Exec, e.Arg0
	}
	c.send(wire.Packet(wire.Head{Kind: kind, Flag: wire.Reply | wire.Failed, Seq: seq}, &m), nil)
}

// push tells what was not asked.
func (c *peer) push(kind wire.Kind, m wire.Message, fds []int) {
	c.send(wire.Packet(wire.Head{Kind: kind}, m), fds)
}

// send sends a packet now or, where the client reads slowly, later. A client that lets too much pile
// up is hung up on: it will dial again and learn the present state.
func (c *peer) send(b []byte, fds []int) {
	if c.fd < 0 {
		return
	}
	if len(c.queue) == 0 {
		err := sendPacket(c.fd, b, fds)
		if err == nil {
			return
		}
		if err != unix.EAGAIN {
			c.s.say.warn("hung up on a client that cannot be written to", "pid", itoa(c.pid), "err", err.Error())
			c.close()
			return
		}
	}
	if c.queued+len(b) > maxQueued {
		c.s.say.warn("hung up on a client that does not read", "pid", itoa(c.pid), "bytes", itoa(c.queued))
		c.close()
		return
	}
	p := packet{b: b}
	for _, fd := range fds {
		if d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err == nil {
			p.fds = append(p.fds, d)
		}
	}
	if len(p.fds) != len(fds) {
		closeAll(p.fds)
		c.close()
		return
	}
	c.queue = append(c.queue, p)
	c.queued += len(b)
	c.watch()
}

func (c *peer) flush() {
	for len(c.queue) > 0 {
		p := c.queue[0]
		err := sendPacket(c.fd, p.b, p.fds)
		if err == unix.EAGAIN {
			return
		}
		if err != nil {
			c.close()
			return
		}
		closeAll(p.fds)
		c.queue[0] = packet{}
		c.queue = c.queue[1:]
		c.queued -= len(p.b)
	}
	c.queue = nil
	c.insureMore()
	c.watch()
}

func sendPacket(fd int, b []byte, fds []int) error {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	return retry(func() error {
		_, err := unix.SendmsgN(fd, b, oob, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		return err
	})
}

// close hangs up.
func (c *peer) close() {
	if c.fd < 0 {
		return
	}
	c.s.poll.remove(&c.tok)
	closeFD(&c.fd)
	for _, p := range c.queue {
		closeAll(p.fds)
	}
	c.queue = nil
	c.s.peers = slices.DeleteFunc(c.s.peers, func(x *peer) bool { return x == c })
}
