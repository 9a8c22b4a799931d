package server

import (
	"os"
	"slices"
	"strconv"
	"time"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/runtime/keeper/journal"
	"berth/runtime/keeper/slate"
	"berth/runtime/keeper/wire"

	"golang.org/x/sys/unix"
)

// A keeper that follows a killed one finds in the journal what that one held. Exits after which all
// output was read are told again. Other processes, those too whose exit is known while their last words
// are still in their pipes, are lost until a client that held their insurance brings it back:
//
//	client                               new keeper
//	──────                               ──────────
//	Hello ───────────────────────────▶
//	      ◀──────────────────────────── Hello{Missing: n}
//	Adopt{Desc} + slate, pidfd, pipes ▶  takes the slot's state and, if it was this process's, the
//	                                     op over into its own slate; journals the process
//	      ◀──────────────────────────── Held{Desc}: insurance against its own death
//	AdoptAttach{…} + socket ──────────▶
//	AdoptEnd ─────────────────────────▶  repeats the op, reads on; what is still lost is looked for by
//	                                     pid, or reported as ended in an unknown way
//
// Each process has exactly one valid insurance at any time: the client replaces the old one when
// Held arrives, and until the keeper has sent that it has read nothing.

// recallExits turns the journal's entries into processes where their fate is known.
func (s *Server) recallExits() {
	lost := s.lost[:0]
	for _, e := range s.lost {
		if e.Boot && !(e.Exit != nil && e.Drained) {
			lost = append(lost, e)
			continue
		}
		s.recall(e) // without an exit it ran when the machine went down
	}
	s.lost = lost
}

// recall makes an entry a process that is over.
func (s *Server) recall(e journal.Entry) *proc {
	p := s.newProc(e.Desc)
	p.d.Slot = noSlot
	p.reaped, p.finished = true, true
	s.procs[p.key()] = p
	if e.Exit != nil {
		p.exit = *e.Exit
	} else {
		s.unknownExit(p)
	}
	if !e.Drained {
		s.drained(p)
	}
	return p
}

func (s *Server) unknownExit(p *proc) {
	p.exit = wire.Exit{ID: p.d.ID, Proc: p.d.Proc, PID: p.d.PID, Code: 255, Unknown: true, At: time.Now()}
	if err := s.jour.Exited(&p.exit); err != nil {
		s.say.warn("an exit is only in memory", "id", p.d.ID, "proc", p.d.Proc, "err", err.Error())
	}
}

func (s *Server) adoptRequest(c *peer, h wire.Head, body []byte, fds *[]int) error {
	var err error
	switch h.Kind {
	case wire.AdoptKind:
		var m wire.Held
		if err = wire.Unmarshal(body, &m); err == nil {
			err = s.adopt(&m, fds)
		}
	case wire.AdoptAttachKind:
		var m wire.Attachment
		if err = wire.Unmarshal(body, &m); err == nil {
			err = s.adoptAttachment(c, &m, fds)
		}
	case wire.AdoptEndKind:
		s.adoptEnd()
	}
	if err != nil {
		return err
	}
	c.reply(h.Kind, h.Seq, nil, nil)
	return later
}

// adopt takes a process over.
func (s *Server) adopt(m *wire.Held, fds *[]int) error {
	k := key{m.Desc.ID, m.Desc.Proc}
	i := slices.IndexFunc(s.lost, func(e journal.Entry) bool {
		return e.Desc.ID == k.id && e.Desc.Proc == k.proc && e.Desc.PID == m.Desc.PID
	})
	if i < 0 {
		return fault.New(fault.NotFound, "adopt: %s is not missing", name(k))
	}
	if len(m.Roles) != len(*fds) {
		return fault.New(fault.Invalid, "adopt: %d descriptors for %d roles", len(*fds), len(m.Roles))
	}
	got := map[byte]int{}
	for j, r := range m.Roles {
		got[r] = (*fds)[j]
	}
	exit := s.lost[i].Exit
	if _, ok := got[wire.RolePidfd]; !ok && exit == nil {
		return fault.New(fault.Invalid, "adopt: %s without its pidfd", name(k))
	}
	d := s.lost[i].Desc
	oldSlot := m.Desc.Slot
	slot, err := s.slate.Alloc()
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "adopt %s", name(k))
	}
	d.Slot, d.Adopted, d.Gated = slot, true, false

	take := func(role byte) int {
		fd, ok := got[role]
		if !ok {
			return -1
		}
		*fds = slices.DeleteFunc(*fds, func(x int) bool { return x == fd })
		return fd
	}
	_ = failpoint.Hit("keeper/adopting")
	p := s.newProc(d)
	p.pidfd = take(wire.RolePidfd)
	p.setPipes(take(wire.RoleStdin), take(wire.RoleStdout), take(wire.RoleStderr), take(wire.RoleMaster))
	p.adopting = true
	s.lost = slices.Delete(s.lost, i, i+1)
	s.procs[k] = p
	if exit != nil { // only its last words are missing
		p.reaped, p.exit = true, *exit
		closeFD(&p.pidfd)
		p.stdin.close()
	} else {
		s.byPID[d.PID] = p
	}

	old := s.openOld(take(wire.RoleSlate))
	if old != nil && old.Has(oldSlot) {
		s.inherit(p, old, oldSlot)
	}
	s.findLog(p)
	if err := s.jour.Launched(&p.d); err != nil {
		s.say.warn("an adoption is only in memory", "id", d.ID, "err", err.Error())
	}
	for _, c := range s.helloed() {
		c.insure(p)
	}
	return nil
}

// openOld maps a dead keeper's slate, once. It takes over fd.
func (s *Server) openOld(fd int) *slate.Slate {
	if fd < 0 {
		return nil
	}
	ino := inode(fd)
	if sl := s.old[ino]; sl != nil {
		_ = unix.Close(fd)
		return sl
	}
	sl, err := slate.Open(fd)
	if err != nil {
		s.say.warn("cannot read the former keeper's slate", "err", err.Error())
		return nil
	}
	if s.old == nil {
		s.old = map[uint64]*slate.Slate{}
	}
	s.old[ino] = sl
	return sl
}

// inherit copies a slot of a dead keeper and the op if it was about that slot.
func (s *Server) inherit(p *proc, old *slate.Slate, oldSlot uint32) {
	from, to := old.Slot(oldSlot), s.slate.Slot(p.d.Slot)
	*to = *from
	to.Used = 1
	for i := range to.Line {
		l := &to.Line[i]
		l.Len, l.StashLen = min(l.Len, slate.LineLen), min(l.StashLen, slate.BufferLen)
		copy(s.slate.LineBuf(p.d.Slot, i), old.LineBuf(oldSlot, i)[:l.Len])
		copy(s.slate.StashBuf(p.d.Slot, i), old.StashBuf(oldSlot, i)[:l.StashLen])
	}
	op := old.Op()
	if op.Phase() == slate.Idle || op.Slot != oldSlot {
		return
	}
	stream := &p.out[op.Stream&1]
	if op.Phase() == slate.Taking {
		got := min(old.Painted(), int(op.Want))
		if op.Exact != 0 && (got > 0 || stream.fd >= 0 && readable(stream.fd) < int(op.Want)) {
			got = int(op.Want)
		}
		if got == 0 {
			return // it was never read: it is still in the pipe
		}
		op.Got = uint32(got)
		op.Enter(slate.Taken)
	}
	if !op.Sane() {
		s.say.warn("the former keeper's last piece is damaged", "id", p.d.ID)
		return
	}
	s.settle()
	copy(s.slate.Buffer(), old.Buffer()[:op.Got])
	mine := s.slate.Op()
	phase := op.Phase()
	c := *op.Commit()
	*mine = *op
	mine.Enter(slate.Idle)
	mine.Slot = p.d.Slot
	mine.SetCommit(c)
	if phase == slate.Taken {
		to.Line[op.Stream&1].StashLen = 0 // whatever is refused again is stashed again
	}
	mine.Enter(phase)
	s.unsettle = p
	op.Enter(slate.Idle) // ours now
}

// settle repeats the op of a dead keeper, if that is still to be done.
func (s *Server) settle() {
	p := s.unsettle
	if p == nil {
		return
	}
	s.unsettle = nil
	op := s.slate.Op()
	if p.log != nil {
		c := *op.Commit()
		if now := p.log.begin(&slate.Line{}); now.Inode != c.Inode {
			c.Inode, c.Off = now.Inode, now.Off // it was rotating
			op.SetCommit(c)
		}
	}
	s.finishOp(p)
	if p.log != nil {
		// What the dead keeper's last write put beyond the repeated records.
		off := s.slate.Slot(p.d.Slot).Off
		if now := p.log.begin(&slate.Line{}); now.Off > off {
			_ = unix.Ftruncate(p.log.fd, off)
		}
	}
}

// findLog opens an adopted process's log: the file the dead keeper wrote. If it was in the middle of
// a rotation that file is path.1 by now, and the rotation is finished.
func (s *Server) findLog(p *proc) {
	if p.d.Log.Path == "" {
		return
	}
	fd, err := openLogFile(p.d.Log.Path)
	if err != nil {
		s.say.warn("cannot open an adopted process's log", "id", p.d.ID, "err", err.Error())
		// What it says is discarded, and counted nowhere: there is no log to hold it.
		return
	}
	p.openLog(fd)
	for i := range p.out {
		if s.slate.Slot(p.d.Slot).Line[i].StashLen > 0 {
			p.log.wait(i)
		}
	}
}

func (s *Server) adoptAttachment(c *peer, m *wire.Attachment, fds *[]int) error {
	p := s.procs[key{m.Request.ID, m.Request.Proc}]
	if p == nil || p.finished || !p.adopting || len(*fds) != 1 {
		return fault.New(fault.NotFound, "adopt: no such process")
	}
	slot := s.slate.Slot(p.d.Slot)
	torn := slot.TornN > uint32(len(slot.Torn)) || slices.Contains(slot.Torn[:min(slot.TornN, uint32(len(slot.Torn)))], m.Number)
	if torn {
		// Part of a piece died with the keeper. A client that goes on would read nonsense.
		_ = unix.Shutdown((*fds)[0], unix.SHUT_RDWR)
		return fault.New(fault.Gone, "adopt: attachment %d had output in the dead keeper's memory", m.Number)
	}
	a := &attachment{p: p, s: s, fd: (*fds)[0], tok: noToken, number: m.Number, req: m.Request, from: c, eof: m.EOF, over: m.EOF, matched: m.Matched}
	if a.matched >= len(a.req.DetachKeys) {
		a.matched = 0
	}
	*fds = nil
	s.attNumber = max(s.attNumber, a.number)
	p.atts = append(p.atts, a)
	slices.SortFunc(p.atts, func(a, b *attachment) int { return int(a.number) - int(b.number) })
	c.insureAttachment(a)
	return nil
}

// adoptEnd goes on with what was adopted and settles what was not.
func (s *Server) adoptEnd() {
	_ = failpoint.Hit("keeper/adopted")
	s.settle()
	for _, p := range s.sorted() {
		if !p.adopting {
			continue
		}
		p.adopting = false
		if p.d.Slot != noSlot {
			s.slate.Slot(p.d.Slot).TornN = 0
		}
		p.watch()
		for _, a := range slices.Clone(p.atts) {
			a.watch()
		}
		if p.reaped {
			p.grace = s.times.after(drainGrace, p.graceOver)
			s.times.after(time.Nanosecond, p.maybeFinish)
		}
		s.say.info("adopted", "id", p.d.ID, "proc", p.d.Proc, "pid", itoa(p.d.PID), "attachments", itoa(len(p.atts)))
	}
	for _, sl := range s.old {
		sl.Close()
	}
	s.old = nil
	lost := s.lost
	s.lost = nil
	for _, e := range lost {
		if e.Exit != nil {
			s.say.warn("the last output of a process is lost: nobody held its pipes", "id", e.Desc.ID, "proc", e.Desc.Proc)
			s.pushExit(s.recall(e))
			continue
		}
		s.recover(e)
	}
}

// recover finds a process for which nobody held insurance. Its pipes can be opened anew through
// /proc as long as it lives; a terminal cannot.
func (s *Server) recover(e journal.Entry) {
	d := e.Desc
	d.Adopted, d.Gated, d.Slot = true, false, noSlot
	fd, err := unix.PidfdOpen(d.PID, 0)
	if err == nil && !sameProcess(&d, fd) {
		_ = unix.Close(fd)
		err = unix.ESRCH
	}
	if err != nil {
		s.say.warn("a process ended while no keeper ran", "id", d.ID, "proc", d.Proc)
		s.pushExit(s.recall(journal.Entry{Desc: d}))
		return
	}
	p := s.newProc(d)
	s.procs[p.key()] = p
	if p.d.Slot, err = s.slate.Alloc(); err != nil {
		p.d.Slot = noSlot
	}
	p.pidfd = fd
	s.byPID[d.PID] = p
	if !d.Terminal && p.d.Slot != noSlot {
		p.setPipes(openPipe(&d, 0), openPipe(&d, 1), openPipe(&d, 2), -1)
		s.findLog(p)
	}
	if err := s.jour.Launched(&p.d); err != nil {
		s.say.warn("an adoption is only in memory", "id", d.ID, "err", err.Error())
	}
	for _, c := range s.helloed() {
		c.insure(p)
	}
	p.watch()
	s.say.warn("found a process again by its pid", "id", d.ID, "proc", d.Proc, "pid", itoa(d.PID), "output", strconv.FormatBool(!p.out[0].eof))
}

// sameProcess reports that the pidfd is the described process and not a later one with its pid.
func sameProcess(d *wire.Desc, pidfd int) bool {
	if d.PidfdInode != 0 {
		return inode(pidfd) == d.PidfdInode
	}
	return d.StartTicks != 0 && startTicks(d.PID) == d.StartTicks
}

// openPipe opens the other end of a process's standard stream n, if the process still has the pipe
// that we made: as that stream, or wherever else it has put it, as shells do.
func openPipe(d *wire.Desc, n int) int {
	want := d.PipeInodes[n]
	if want == 0 {
		return -1
	}
	mode := unix.O_RDONLY
	if n == 0 {
		mode = unix.O_WRONLY
	}
	dir := "/proc/" + strconv.Itoa(d.PID) + "/fd/"
	all, _ := os.ReadDir(dir)
	for _, f := range all {
		if link, err := os.Readlink(dir + f.Name()); err != nil || link != "pipe:["+strconv.FormatUint(want, 10)+"]" {
			continue
		}
		fd, err := unix.Open(dir+f.Name(), mode|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		if inode(fd) == want {
			return high(fd)
		}
		_ = unix.Close(fd)
	}
	return -1
}
