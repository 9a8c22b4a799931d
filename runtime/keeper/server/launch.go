package server

import (
	"fmt"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/runtime/keeper/wire"

	"golang.org/x/sys/unix"
)

// launch is one launch on its way: from a client's request through a goroutine that may block back
// to the loop.
type launch struct {
	p       *proc
	req     wire.Launch
	program []byte
	from    *peer
	seq     uint32
	within  []int // pidfds of what the program enters by number
	socks   []int // for each attachment with a socket of its own, in order

	// What the goroutine made.
	in, out, err int
	logFD        int
	res          *Process
	started      time.Time
	failed       error
}

// checkLaunch refuses what is wrong in itself.
func checkLaunch(r *wire.Launch) error {
	switch {
	case r.ID == "" || len(r.ID) > 256 || strings.IndexByte(r.ID, 0) >= 0:
		return fault.New(fault.Invalid, "launch: bad container id %q", r.ID)
	case len(r.Proc) > 256 || strings.IndexByte(r.Proc, 0) >= 0:
		return fault.New(fault.Invalid, "launch: bad process id %q", r.Proc)
	case r.Log.Format != "" && r.Log.Format != "none" && !written(&r.Log):
		return fault.New(fault.Invalid, "launch: unknown log format %q; this keeper writes json-file, local or none", r.Log.Format)
	case written(&r.Log) && !path.IsAbs(r.Log.Path):
		return fault.New(fault.Invalid, "launch: log path %q is not absolute", r.Log.Path)
	case len(r.Attach) > wire.MaxFDs-8:
		return fault.New(fault.Invalid, "launch: %d attachments at once; %d are possible", len(r.Attach), wire.MaxFDs-8)
	}
	return nil
}

// written reports whether a log is written to a file.
func written(c *wire.LogConfig) bool { return c.Format == formatJSON || c.Format == formatLocal }

// begin takes a launch on. The reply comes when the process runs, or has failed to.
func (s *Server) begin(l *launch) error {
	if err := checkLaunch(&l.req); err != nil {
		return err
	}
	k := key{l.req.ID, l.req.Proc}
	if old := s.procs[k]; old != nil {
		return fault.New(fault.Conflict, "launch: %s is held already", name(k))
	}
	if main := s.procs[key{l.req.ID, ""}]; l.req.Proc != "" && main != nil && main.reaped {
		return fault.New(fault.Conflict, "container %s is not running", l.req.ID)
	}
	if err := s.findEntered(l); err != nil {
		return err
	}
	slot, err := s.slate.Alloc()
	if err != nil {
		closeAll(l.within)
		return fault.Wrap(fault.Unavailable, err, "launch %s", name(k))
	}
	if !written(&l.req.Log) {
		l.req.Log = wire.LogConfig{}
	}
	slices.SortFunc(l.req.Log.Attrs, func(a, b wire.Attr) int { return strings.Compare(a.Key, b.Key) })
	l.p = s.newProc(wire.Desc{
		ID: l.req.ID, Proc: l.req.Proc, Terminal: l.req.Terminal,
		StdinOnce: l.req.StdinOnce, Log: l.req.Log, Slot: slot,
	})
	l.p.launching = true
	s.procs[k] = l.p
	s.waiting = append(s.waiting, l)
	s.nextLaunch()
	return nil
}

// findEntered takes the descriptors of the processes whose namespaces the program is to enter. A process that has ended may have left its number to
// another, perhaps of the host.
func (s *Server) findEntered(l *launch) error {
	for _, x := range l.req.Enters {
		p := s.procs[key{x.ID, ""}]
		fd := -1
		if p != nil && !p.reaped && !p.launching && p.d.PID == x.PID && p.pidfd >= 0 {
			fd, _ = unix.FcntlInt(uintptr(p.pidfd), unix.F_DUPFD_CLOEXEC, HighFD)
		}
		if fd < 0 {
			closeAll(l.within)
			l.within = nil
			return fault.New(fault.Gone, "container %s is not running", x.ID)
		}
		l.within = append(l.within, fd)
	}
	return nil
}

// nextLaunch starts waiting launches as far as their number and the reaping of orphans allow.
func (s *Server) nextLaunch() {
	for len(s.waiting) > 0 && s.inflight < maxLaunches && !s.reapDue {
		l := s.waiting[0]
		s.waiting = s.waiting[1:]
		s.inflight++
		go func() {
			defer func() {
				if r := recover(); r != nil {
					l.failed = fmt.Errorf("defect in the launcher: %v", r)
				}
				s.post(func() { s.launched(l) })
			}()
			l.run(s.cfg.Starter, s.devNull)
		}()
	}
}

// run is the part that may block: files, clone, execve. It touches nothing of the server's.
func (l *launch) run(starter Starter, devNull int) {
	l.in, l.out, l.err, l.logFD = -1, -1, -1, -1
	io := Stdio{In: devNull, Out: devNull, Err: devNull, Rows: l.req.Rows, Cols: l.req.Cols, Within: l.within}
	defer closeAll(l.within)
	if written(&l.req.Log) {
		if l.logFD, l.failed = openLogFile(l.req.Log.Path); l.failed != nil {
			return
		}
	}
	var theirs []int
	defer func() {
		for _, fd := range theirs {
			_ = unix.Close(fd)
		}
	}()
	pipe := func(ours, its *int, reads int) bool {
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
			l.failed = fault.Wrap(fault.Unavailable, err, "make a pipe")
			return false
		}
		*ours, *its = high(fds[1-reads]), fds[reads]
		theirs = append(theirs, fds[reads])
		return true
	}
	switch {
	case l.req.Terminal:
		io.In, io.Out, io.Err = -1, -1, -1
	case l.req.Stdin && !pipe(&l.in, &io.In, 0):
		return
	case !l.req.NoOutput && !(pipe(&l.out, &io.Out, 1) && pipe(&l.err, &io.Err, 1)):
		return
	}
	l.res, l.failed = starter.Start(l.program, io)
	l.started = time.Now()
	if l.failed == nil {
		l.res.PidFD, l.res.Console = high(l.res.PidFD), high(l.res.Console)
	}
}

// launched is called by the loop when run is over.
func (s *Server) launched(l *launch) {
	s.inflight--
	p := l.p
	if l.failed != nil {
		for _, fd := range []int{l.in, l.out, l.err, l.logFD} {
			closeFD(&fd)
		}
		closeAll(l.socks)
		p.freeSlot()
		delete(s.procs, p.key())
		l.from.fail(wire.LaunchKind, l.seq, l.failed)
		s.afterLaunch()
		return
	}
	p.launching = false
	p.d.PID, p.d.StartTime = l.res.PID, l.started
	p.pidfd = l.res.PidFD
	if l.req.Gate {
		p.release, p.d.Gated = l.res.Release, true
	}
	s.byPID[p.d.PID] = p
	if l.res.Console >= 0 { // also where the program makes a terminal that nobody asked for
		closeFD(&l.in)
		closeFD(&l.out)
		closeFD(&l.err)
	}
	p.setPipes(l.in, l.out, l.err, l.res.Console)
	p.d.PipeInodes = [3]uint64{inode(l.in), inode(l.out), inode(l.err)}
	if s.pidfs {
		p.d.PidfdInode = inode(p.pidfd)
	} else {
		p.d.StartTicks = startTicks(p.d.PID)
	}
	if l.logFD >= 0 {
		p.openLog(l.logFD)
	}
	_ = failpoint.Hit("keeper/launched")
	if err := s.jour.Launched(&p.d); err != nil {
		s.say.warn("a launch is only in memory", "id", p.d.ID, "proc", p.d.Proc, "err", err.Error())
	}
	_ = failpoint.Hit("keeper/journalled")
	s.answerLaunch(l)
	p.watch()
	s.afterLaunch()
}

// answerLaunch makes the wanted attachments and tells the client, with its insurance.
func (s *Server) answerLaunch(l *launch) {
	p := l.p
	m := wire.Launched{Started: wire.Started{PID: p.d.PID, StartTime: p.d.StartTime}}
	var fds, ours []int
	var made []*attachment
	for _, r := range l.req.Attach {
		sock, theirs := -1, -1
		if r.OwnSock && len(l.socks) > 0 {
			sock, l.socks = l.socks[0], l.socks[1:]
		}
		a, theirs, err := s.attach(l.from, p, r, sock)
		if err != nil {
			s.say.warn("an attachment of a launch failed", "id", p.d.ID, "err", err.Error())
			continue
		}
		made = append(made, a)
		if theirs >= 0 {
			fds, ours = append(fds, theirs), append(ours, theirs)
			m.Held.Roles = append(m.Held.Roles, wire.RoleAttach)
		}
	}
	closeAll(l.socks)
	if l.from.insured {
		m.Held.Desc = p.d
		roles, more := p.insurance()
		m.Held.Roles, fds = append(m.Held.Roles, roles...), append(fds, more...)
	}
	l.from.reply(wire.LaunchKind, l.seq, &m, fds)
	closeAll(ours)
	for _, a := range made {
		l.from.insureAttachment(a)
	}
	for _, c := range s.helloed() {
		if c != l.from {
			c.insure(p)
		}
	}
}

func (s *Server) afterLaunch() {
	s.times.stop(s.tidy)
	s.tidy = s.times.after(tidyAfter, func() { go debug.FreeOSMemory() })
	if s.inflight == 0 && s.reapDue {
		s.reap()
	}
	s.nextLaunch()
	if s.inflight == 0 && s.upgrade != nil {
		s.tryUpgrade()
	}
}

// releaseGate opens a process's gate and answers when it has called execve, which may block.
func (s *Server) releaseGate(c *peer, seq uint32, p *proc) error {
	if !p.d.Gated {
		return fault.New(fault.Conflict, "release: %s does not wait at a gate", name(p.key()))
	}
	release := p.release
	p.release = nil
	if release == nil {
		return fault.New(fault.Gone, "release: the gate of %s is open already, or lost with the keeper that made it", name(p.key()))
	}
	s.inflight++
	go func() {
		err := release()
		s.post(func() {
			s.inflight--
			p.d.Gated = false
			if jerr := s.jour.Launched(&p.d); jerr != nil {
				s.say.warn("an open gate is only in memory", "id", p.d.ID, "err", jerr.Error())
			}
			if err != nil {
				c.fail(wire.ReleaseKind, seq, err)
			} else {
				c.reply(wire.ReleaseKind, seq, nil, nil)
			}
			s.afterLaunch()
		})
	}()
	return nil
}

func name(k key) string {
	if k.proc == "" {
		return k.id
	}
	return k.id + "/" + k.proc
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
