package server

import (
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"berth/base/fault"
	"berth/runtime/keeper/wire"

	"golang.org/x/sys/unix"
)

// An upgrade in place: the keeper executes the new binary, keeping its pid, so that its children
// stay its children.
//
//	Upgrade{path}   a goroutine runs "path --check-state" with the present state as descriptor 3:
//	                the new binary must start, read it and exit 0
//	                requests wait in their sockets, for the new binary; launches under way end
//	execve          state in a memfd, CLOEXEC cleared on it and on every descriptor it names; from
//	                the main thread: from another, the kernel would kill children with a death signal
//	Resume          CLOEXEC set again, everything registered again, the client's request answered
//
// Signals that would end the process are ignored across execve until the new binary listens for
// them. When execve fails CLOEXEC is set again and the old keeper goes on.
type upgrade struct {
	path    string
	from    *peer
	seq     uint32
	checked bool
}

// StateFlag is the command line's flag with the number of the descriptor that holds the state.
const StateFlag = "--state-fd"

// CheckFlag makes the binary read a state from descriptor 3 and exit.
const CheckFlag = "--check-state"

const checkTimeout = 10 * time.Second

func (s *Server) wantUpgrade(c *peer, seq uint32, path string) error {
	if !filepath.IsAbs(path) {
		return fault.New(fault.Invalid, "upgrade: %q is not an absolute path", path)
	}
	if s.upgrade != nil {
		return fault.New(fault.Conflict, "upgrade: one is under way")
	}
	if err := s.gated(); err != nil {
		return err
	}
	if len(s.lost) > 0 || s.unsettle != nil || s.old != nil {
		return fault.New(fault.Unavailable, "upgrade: processes of a former keeper are being adopted")
	}
	state, err := s.memState(nil)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "upgrade")
	}
	u := &upgrade{path: path, from: c, seq: seq}
	s.upgrade = u
	s.watchPeers()
	s.inflight++ // the check is a child that must not be taken for an orphan
	go func() {
		err := check(path, state)
		_ = unix.Close(state)
		s.post(func() {
			s.inflight--
			if err != nil {
				s.endUpgrade(fault.Wrap(fault.Invalid, err, "upgrade: %s does not fit", path))
				return
			}
			u.checked = true
			s.afterLaunch()
		})
	}()
	return later
}

// gated refuses an upgrade while a process waits at its gate: the gate cannot be handed on.
func (s *Server) gated() error {
	for _, p := range s.procs {
		if p.d.Gated {
			return fault.New(fault.Unavailable, "upgrade: %s waits at its gate; try again when it runs", name(p.key()))
		}
	}
	return nil
}

func (s *Server) watchPeers() {
	for _, c := range s.peers {
		c.watch()
	}
}

// check has the new binary read the state.
func check(path string, state int) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	// A descriptor of its own: closing the File must not close the caller's.
	d, err := unix.FcntlInt(uintptr(state), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(d), "state")
	defer f.Close()
	proc, err := os.StartProcess(path, []string{path, CheckFlag}, &os.ProcAttr{Files: []*os.File{null, null, null, f}})
	if err != nil {
		return err
	}
	t := time.AfterFunc(checkTimeout, func() { _ = proc.Kill() })
	defer t.Stop()
	ps, err := proc.Wait()
	if err == nil && !ps.Success() {
		err = fault.New(fault.Invalid, "it cannot read this keeper's state: %s", ps.String())
	}
	return err
}

// endUpgrade answers a failed upgrade; the old keeper goes on.
func (s *Server) endUpgrade(err error) {
	u := s.upgrade
	s.upgrade = nil
	s.watchPeers()
	s.say.warn("upgrade failed, the keeper goes on as it is", "binary", u.path, "err", err.Error())
	u.from.fail(wire.UpgradeKind, u.seq, err)
	s.afterLaunch()
}

// tryUpgrade executes the checked binary. It is called when no launch is under way.
func (s *Server) tryUpgrade() {
	u := s.upgrade
	if !u.checked {
		return
	}
	if err := s.gated(); err != nil { // launched since
		s.endUpgrade(err)
		return
	}
	s.settle()
	for _, c := range slices.Clone(s.peers) {
		c.flush()
		if len(c.queue) > 0 || len(c.todo) > 0 {
			c.close() // it does not read; it will dial again
		}
	}
	state, err := s.memState(u)
	if err != nil {
		s.endUpgrade(fault.Wrap(fault.Unavailable, err, "upgrade"))
		return
	}
	fds := append(s.kept(), state)
	setCloexec(fds, false)
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT)
	args := append([]string{u.path}, s.cfg.Args[1:]...)
	args = append(args, StateFlag+"="+strconv.Itoa(state))
	s.say.info("upgrades itself", "binary", u.path)
	err = syscall.Exec(u.path, args, os.Environ())

	setCloexec(fds, true)
	if s.cfg.Signals != nil {
		s.cfg.Signals()
	}
	_ = unix.Close(state)
	s.endUpgrade(fault.Wrap(fault.Internal, err, "upgrade: execute %s", u.path))
}

func setCloexec(fds []int, on bool) {
	flag := 0
	if on {
		flag = unix.FD_CLOEXEC
	}
	for _, fd := range fds {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFD, flag)
	}
}

// kept gives every descriptor that the state names.
func (s *Server) kept() []int {
	fds := []int{s.lock, s.sock.fd, s.slate.FD()}
	add := func(fd int) {
		if fd >= 0 {
			fds = append(fds, fd)
		}
	}
	for _, p := range s.procs {
		add(p.pidfd)
		add(p.out[0].fd)
		add(p.out[1].fd)
		if !p.stdin.tty {
			add(p.stdin.fd)
		}
		if p.log != nil {
			add(p.log.fd)
		}
		for _, a := range p.atts {
			add(a.fd)
		}
	}
	for a := range s.closing {
		add(a.fd)
	}
	for _, c := range s.peers {
		add(c.fd)
	}
	for _, fd := range s.parked {
		add(fd)
	}
	return fds
}

// memState writes the state into a memfd.
func (s *Server) memState(u *upgrade) (int, error) {
	e := wire.Enc{}
	s.snapshot(u).Encode(&e)
	fd, err := unix.MemfdCreate("berth-keeper-state", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, err
	}
	for b := e.B; len(b) > 0; {
		n, err := unix.Write(fd, b)
		if err != nil {
			_ = unix.Close(fd)
			return -1, err
		}
		b = b[n:]
	}
	return fd, nil
}

func (s *Server) snapshot(u *upgrade) *snapshot {
	m := &snapshot{
		Birth: s.birth, Started: s.started, Upgrades: s.upgrades, AttNumber: s.attNumber,
		Orphans: s.orphans, LogFaults: s.logFaults, LogLost: s.logLost,
		Lock: s.lock, Sock: s.sock.fd, Slate: s.slate.FD(),
	}
	for _, p := range s.sorted() {
		if p.launching {
			continue
		}
		ps := procSnap{
			Desc: p.d, Reaped: p.reaped, Finished: p.finished, Exit: p.exit,
			Pidfd: p.pidfd, Stdin: p.stdin.fd, Out: p.out[0].fd, Err: p.out[1].fd, TTY: p.stdin.tty,
			Pend: p.stdin.pend, Log: -1,
		}
		if p.log != nil {
			ps.Log, ps.LogFaults, ps.LogLost = p.log.fd, p.log.faults, p.log.lost
			ps.Failing, ps.Lossy, ps.Skip = p.log.failing, p.log.lossy, p.log.skip
			ps.Stash = p.log.stash
		}
		m.Procs = append(m.Procs, ps)
		for _, a := range p.atts {
			m.Atts = append(m.Atts, a.snap())
		}
	}
	for a := range s.closing {
		m.Atts = append(m.Atts, a.snap())
	}
	for _, c := range s.peers {
		ps := peerSnap{FD: c.fd, PID: c.pid, Name: c.name, Hello: c.hello, Insured: c.insured}
		if u != nil && c == u.from {
			ps.Upgrade, ps.Seq = true, u.seq
		}
		m.Peers = append(m.Peers, ps)
	}
	for n, fd := range s.parked {
		m.Parked = append(m.Parked, parkSnap{Name: n, FD: fd})
	}
	return m
}

func (a *attachment) snap() attSnap {
	x := attSnap{Att: *a.desc(), FD: a.fd, Ended: a.ended, Shut: a.shut, Pend: a.pend, From: -1}
	if a.from != nil {
		x.From = a.from.fd
	}
	return x
}
