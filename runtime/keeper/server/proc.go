package server

import (
	"slices"
	"strconv"
	"time"

	"berth/base/failpoint"
	"berth/runtime/keeper/jsonfile"
	"berth/runtime/keeper/localfile"
	"berth/runtime/keeper/wire"

	"golang.org/x/sys/unix"
)

// proc is one process: a container's init or one executed in it.
//
//	launching ─▶ running ─▶ reaped ─▶ finished ─▶ (acknowledged) gone
//	             │          │         └ output drained, exit pushed to clients
//	             │          └ exit known and journalled, output still being read: a successor adopts it
//	             └ descriptors registered, journalled
type proc struct {
	s *Server
	d wire.Desc

	launching bool
	reaped    bool
	finished  bool
	adopting  bool // adopted, not yet read on: attachments may follow
	exit      wire.Exit

	pidfd   int
	pidfdT  token
	out     [2]stream // a terminal has only the first
	stdin   stdin
	log     *logFile // nil: nothing is logged
	atts    []*attachment
	release func() error
	grace   *timer
	probes  int // attempts to learn an adopted process's exit
}

func (s *Server) newProc(d wire.Desc) *proc {
	p := &proc{s: s, d: d, pidfd: -1, pidfdT: noToken}
	for i := range p.out {
		p.out[i] = stream{p: p, n: i, fd: -1, tok: noToken, eof: true}
	}
	p.stdin = stdin{p: p, fd: -1, tok: noToken}
	return p
}

func (p *proc) key() key { return key{p.d.ID, p.d.Proc} }

// setPipes gives the process's output to the loop. A terminal's master is out's first and stdin.
func (p *proc) setPipes(in, out, err, master int) {
	if master >= 0 {
		out = master
		p.stdin.tty = true
		in = master
	}
	p.stdin.fd = in
	for i, fd := range []int{out, err} {
		if fd >= 0 {
			_ = unix.SetNonblock(fd, true)
			p.out[i].fd, p.out[i].eof = fd, false
		}
	}
	if in >= 0 && master < 0 {
		_ = unix.SetNonblock(in, true)
	}
}

// watch registers the process's descriptors.
func (p *proc) watch() {
	if p.pidfd >= 0 {
		if err := p.s.poll.set(&p.pidfdT, p.pidfd, true, unix.EPOLLIN, p); err != nil {
			p.s.say.warn("cannot watch a process", "id", p.d.ID, "proc", p.d.Proc, "err", err.Error())
		}
	}
	for i := range p.out {
		p.out[i].watch()
	}
}

// ready is the pidfd: the process has ended.
func (p *proc) ready(uint32) { p.ended() }

// ended learns how the process ended. Our own children are reaped here, a former keeper's by init.
func (p *proc) ended() {
	if p.reaped || p.launching {
		return
	}
	x := wire.Exit{ID: p.d.ID, Proc: p.d.Proc, PID: p.d.PID, At: time.Now()}
	status, known, wait := p.status()
	switch {
	case wait:
		return
	case known:
		setStatus(&x, unix.WaitStatus(status))
	default:
		x.Unknown, x.Code = true, 255
	}
	_ = failpoint.Hit("keeper/ended")
	p.setExit(x)
}

// status gives the process's wait status (wait(2)). wait: it is not known yet, and will be asked for
// again.
//
// A child is left a zombie: it is reaped when its end stands in the journal, so that a keeper killed
// in between leaves init a zombie whose status a successor can read, or init can keep for it.
func (p *proc) status() (status uint32, known, wait bool) {
	if p.d.Adopted {
		return p.foreignStatus()
	}
	var info unix.Siginfo
	err := retry(func() error {
		return unix.Waitid(unix.P_PID, p.d.PID, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, nil)
	})
	if err != nil { // somebody else has reaped it: a launcher whose gate failed
		return p.foreignStatus()
	}
	if info.Signo == 0 { // ended, but a debugger has it
		p.askAgain()
		return 0, false, true
	}
	return waitStatus(&info), true, false
}

// foreignStatus learns how a process ended that is not our child. wait: it will be asked again.
//
// As long as init has not reaped it, it is in its stat file (proc_pid_stat(5), field 52). Once init
// has, its pidfd tells (PIDFD_GET_INFO, Linux 6.15). Before that kernel it is a race with init.
func (p *proc) foreignStatus() (status uint32, known, wait bool) {
	if status, ok := p.zombieStatus(); ok {
		return status, true, false
	}
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	err := unix.IoctlPidfdInfo(p.pidfd, &info)
	if err == nil && info.Mask&unix.PIDFD_INFO_EXIT != 0 {
		return uint32(info.Exit_code), true, false
	}
	if err == nil && p.probes < 100 { // between the two
		p.probes++
		p.askAgain()
		return 0, false, true
	}
	return 0, false, false
}

// askAgain has ended called in a moment; the pidfd would say at once, and for ever, that it has.
func (p *proc) askAgain() {
	p.s.poll.remove(&p.pidfdT)
	p.s.times.after(20*time.Millisecond, p.ended)
}

// zombieStatus reads the wait status of a process that has ended and has not been reaped.
func (p *proc) zombieStatus() (status uint32, ok bool) {
	f := statFields(p.d.PID)
	if len(f) < 50 || f[0] != "Z" {
		return 0, false
	}
	n, err := strconv.ParseUint(f[49], 10, 32)
	// The pid is still this process's if the pidfd can still find it.
	if err != nil || unix.PidfdSendSignal(p.pidfd, 0, nil, 0) != nil {
		return 0, false
	}
	return uint32(n), true
}

func setStatus(x *wire.Exit, ws unix.WaitStatus) {
	if ws.Signaled() {
		x.Signal = int(ws.Signal())
		x.Code = 128 + x.Signal
		x.Core = ws.CoreDump()
		return
	}
	x.Code = ws.ExitStatus()
}

// setExit records an end and begins to wind the process up.
func (p *proc) setExit(x wire.Exit) {
	p.reaped, p.exit = true, x
	delete(p.s.byPID, p.d.PID)
	if err := p.s.jour.Exited(&x); err != nil {
		p.s.say.warn("an exit is only in memory", "id", x.ID, "proc", x.Proc, "err", err.Error())
	}
	_ = failpoint.Hit("keeper/journalled-exit")
	if !p.d.Adopted {
		_ = retry(func() error {
			_, err := unix.Wait4(p.d.PID, nil, unix.WNOHANG|unix.WALL, nil)
			return err
		})
	}
	p.s.poll.remove(&p.pidfdT)
	closeFD(&p.pidfd)
	p.stdin.close()
	p.out[0].present()
	if p.release != nil {
		go p.release() // nobody waits any more: this only lets go of the gate
		p.release = nil
	}
	p.grace = p.s.times.after(drainGrace, p.graceOver)
	p.maybeFinish()
}

// graceOver ends the wait for output that others hold open: what is there is logged, the rest is
// nobody's.
func (p *proc) graceOver() {
	p.grace = nil
	if p.finished {
		return
	}
	for i := range p.out {
		st := &p.out[i]
		p.log.giveUp(st)
		for n := 0; n < 64 && !st.eof; n++ {
			p.dropLagging()
			if st.hold > 0 || !p.s.take(st) {
				break
			}
		}
		p.s.endOfStream(st)
	}
	p.maybeFinish()
}

// dropLagging hangs up on clients that are behind: they must not cost the log its last lines.
func (p *proc) dropLagging() {
	for _, a := range slices.Clone(p.atts) {
		if len(a.pend) > 0 {
			a.drop()
		}
	}
}

// maybeFinish ends the process's affairs once it is reaped and its output is read to the end.
func (p *proc) maybeFinish() {
	if p.finished || !p.reaped || !p.out[0].eof || !p.out[1].eof || p.log.stalled() {
		return
	}
	p.finished = true
	p.s.times.stop(p.grace)
	p.s.drained(p)
	for _, a := range slices.Clone(p.atts) {
		a.finish()
	}
	p.atts = nil
	if p.log != nil {
		p.log.close()
	}
	p.freeSlot()
	_ = failpoint.Hit("keeper/finished")
	p.s.pushExit(p)
}

// drained notes that nothing is to be saved of a process any more: a successor tells its end, and asks nobody for its descriptors.
func (s *Server) drained(p *proc) {
	if err := s.jour.Drained(p.d.ID, p.d.Proc); err != nil {
		s.say.warn("an end of output is only in memory", "id", p.d.ID, "proc", p.d.Proc, "err", err.Error())
	}
}

func (p *proc) freeSlot() {
	if p.d.Slot != noSlot {
		p.s.slate.Free(p.d.Slot)
		p.d.Slot = noSlot
	}
}

// noSlot is a process without a part of the slate.
const noSlot = ^uint32(0)

// forget removes an ended process for good.
func (s *Server) forget(p *proc) {
	delete(s.procs, p.key())
	if err := s.jour.Acked(p.d.ID, p.d.Proc); err != nil {
		s.say.warn("an acknowledgement is only in memory", "id", p.d.ID, "err", err.Error())
	}
	if s.jour.Bloated() {
		s.compact()
	}
}

func (s *Server) compact() {
	if err := s.jour.Rewrite(s.entries()); err != nil {
		s.say.warn("cannot shorten the journal", "err", err.Error())
	}
}

func (p *proc) state() wire.ProcState {
	st := wire.ProcState{
		ID: p.d.ID, Proc: p.d.Proc, PID: p.d.PID, StartTime: p.d.StartTime,
		Running: !p.reaped, Gated: p.d.Gated, Terminal: p.d.Terminal,
		StdinOpen: p.stdin.fd >= 0, Adopted: p.d.Adopted,
		LogPath: p.d.Log.Path, Attached: len(p.atts),
	}
	if p.reaped {
		x := p.exit
		st.Exit = &x
	}
	if p.log != nil {
		st.LogFaults, st.LogLost = p.log.faults, p.log.lost
	}
	return st
}

// openLog opens the process's log and ties it to its slot.
func (p *proc) openLog(fd int) {
	keys := make([]string, len(p.d.Log.Attrs))
	values := make([]string, len(p.d.Log.Attrs))
	for i, a := range p.d.Log.Attrs {
		keys[i], values[i] = a.Key, a.Value
	}
	p.log = &logFile{p: p, fd: fd, attrs: jsonfile.Attrs(keys, values)}
	if p.d.Log.Format == formatLocal {
		p.log.attrs = localfile.Attrs(keys, values)
	}
}

func closeFD(fd *int) {
	if *fd >= 0 {
		_ = unix.Close(*fd)
		*fd = -1
	}
}
