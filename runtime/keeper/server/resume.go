package server

import (
	"fmt"
	"os"
	"time"

	"berth/runtime/keeper/journal"
	"berth/runtime/keeper/slate"
	"berth/runtime/keeper/wire"

	"golang.org/x/sys/unix"
)

// CheckState reads a state as Resume would and says whether this binary could go on from it. It
// changes nothing.
func CheckState(fd int) error {
	_, err := readState(fd)
	return err
}

func readState(fd int) (*snapshot, error) {
	b, err := readMemfd(fd)
	if err != nil {
		return nil, err
	}
	m := &snapshot{}
	if err := wire.Unmarshal(b, m); err != nil {
		return nil, err
	}
	if m.Lock < 0 || m.Sock < 0 || m.Slate < 0 {
		return nil, fmt.Errorf("the state names no lock, socket or slate")
	}
	return m, nil
}

// Resume goes on where the keeper that executed this binary left off. fd is the state.
func Resume(cfg Config, fd int) (*Server, error) {
	m, err := readState(fd)
	if err != nil {
		return nil, err
	}
	_ = unix.Close(fd)
	m.clearLow()
	s, err := newServer(cfg)
	if err != nil {
		return nil, err
	}
	s.birth, s.started, s.upgrades, s.attNumber = m.Birth, m.Started, m.Upgrades+1, m.AttNumber
	s.orphans, s.logFaults, s.logLost = m.Orphans, m.LogFaults, m.LogLost
	s.lock = m.Lock
	if s.slate, err = slate.Open(m.Slate); err != nil {
		return nil, err
	}
	if s.jour, _, _, err = journal.Open(cfg.ExecRoot+"/keeper.journal", bootID()); err != nil {
		return nil, err
	}
	for i := range m.Procs {
		s.resumeProc(&m.Procs[i])
	}
	for _, x := range m.Parked {
		s.parked[x.Name] = x.FD
	}
	if err := s.listen(m.Sock); err != nil {
		return nil, err
	}
	for _, x := range m.Peers {
		c := s.addPeer(x.FD, x.PID)
		c.name, c.hello, c.insured = x.Name, x.Hello, x.Insured
		if x.Upgrade {
			c.reply(wire.UpgradeKind, x.Seq, nil, nil)
		}
	}
	for i := range m.Atts {
		s.resumeAttachment(&m.Atts[i])
	}
	setCloexec(s.kept(), true)
	// Only now, with all attachments in place, may anything be read.
	for _, p := range s.sorted() {
		s.resumeWatch(p)
	}
	s.compact()
	s.say.info("keeper goes on after an upgrade", "pid", itoa(os.Getpid()), "version", cfg.Version, "held", itoa(len(s.procs)))
	return s, nil
}

// clearLow moves the descriptors of a keeper that did not keep them at HighFD and above.
func (m *snapshot) clearLow() {
	moved := map[int]int{}
	move := func(fd *int) {
		to, done := moved[*fd]
		if !done {
			to = high(*fd)
			moved[*fd] = to
		}
		*fd = to
	}
	for i := range m.Procs {
		p := &m.Procs[i]
		for _, fd := range []*int{&p.Pidfd, &p.Stdin, &p.Out, &p.Err, &p.Log} {
			move(fd)
		}
	}
	for i := range m.Parked {
		move(&m.Parked[i].FD)
	}
	for i := range m.Peers {
		move(&m.Peers[i].FD)
	}
	for i := range m.Atts {
		move(&m.Atts[i].FD)
		move(&m.Atts[i].From) // a peer's
	}
}

func (s *Server) resumeProc(x *procSnap) {
	p := s.newProc(x.Desc)
	p.reaped, p.finished, p.exit = x.Reaped, x.Finished, x.Exit
	p.pidfd = x.Pidfd
	s.procs[p.key()] = p
	if p.finished {
		p.d.Slot = noSlot
		return
	}
	if !p.reaped {
		s.byPID[p.d.PID] = p
	}
	if x.TTY {
		p.setPipes(-1, -1, -1, x.Out)
		p.stdin.tty = true
		p.stdin.fd = x.Out
	} else {
		p.setPipes(x.Stdin, x.Out, x.Err, -1)
	}
	if len(x.Pend) > 0 {
		p.stdin.pend, p.stdin.full = x.Pend, true
	}
	if x.Log >= 0 {
		p.openLog(x.Log)
		l := p.log
		l.faults, l.lost, l.lossy, l.skip, l.failing = x.LogFaults, x.LogLost, x.Lossy, x.Skip, x.Failing
		for i := range x.Stash {
			if x.Stash[i] {
				l.stash[i] = true
				p.out[i].hold++
				if l.retry == nil {
					l.retry = s.times.after(logRetry, l.tryAgain)
				}
			}
		}
	}
}

func (s *Server) resumeAttachment(x *attSnap) {
	r := x.Att.Request
	p := s.procs[key{r.ID, r.Proc}]
	if p == nil { // acknowledged already: an attachment that only waits for its client to hang up
		p = s.newProc(wire.Desc{ID: r.ID, Proc: r.Proc, Slot: noSlot})
	}
	a := &attachment{
		p: p, s: s, fd: x.FD, tok: noToken, number: x.Att.Number, req: r, eof: x.Att.EOF,
		matched: x.Att.Matched, ended: x.Ended, shut: x.Shut, pend: x.Pend,
	}
	if a.ended {
		s.closing[a] = true
		if a.shut {
			a.timer = s.times.after(linger, a.close)
		}
		a.watch()
		return
	}
	a.over = a.eof
	for _, c := range s.peers {
		if c.fd == x.From {
			a.from = c
		}
	}
	if a.matched >= len(r.DetachKeys) {
		a.matched = 0
	}
	p.atts = append(p.atts, a)
	if len(a.pend) > 0 {
		a.holds = true
		for i := range p.out {
			if a.wants(i) {
				p.out[i].hold++
			}
		}
	}
}

func (s *Server) resumeWatch(p *proc) {
	if p.finished {
		return
	}
	p.watch()
	for _, a := range p.atts {
		a.watch()
	}
	if p.reaped {
		p.grace = s.times.after(drainGrace, p.graceOver)
		s.times.after(time.Nanosecond, p.maybeFinish)
	}
}
