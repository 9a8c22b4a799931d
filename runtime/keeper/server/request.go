package server

import (
	"os"
	"runtime"
	"slices"

	"berth/base/fault"
	"berth/runtime/keeper/wire"

	"golang.org/x/sys/unix"
)

// request handles one request of a client. fds are the descriptors that came with it; what is kept
// of them is taken out of the slice, the rest is closed by the caller.
func (s *Server) request(c *peer, h wire.Head, body []byte, fds *[]int) {
	if !c.hello && h.Kind != wire.HelloKind {
		c.fail(h.Kind, h.Seq, fault.New(fault.Invalid, "keeper: a hello comes first"))
		return
	}
	var err error
	switch h.Kind {
	case wire.HelloKind:
		err = s.hello(c, h, body)
	case wire.LaunchKind:
		err = s.launchRequest(c, h, body, fds)
	case wire.AttachKind:
		err = s.attachRequest(c, h, body, fds)
	case wire.AdoptKind, wire.AdoptAttachKind, wire.AdoptEndKind:
		err = s.adoptRequest(c, h, body, fds)
	case wire.ShippedKind, wire.PackedKind:
		err = s.logFileRequest(c, h, body)
	default:
		var r wire.Request
		if err = wire.Unmarshal(body, &r); err == nil {
			err = s.simple(c, h, &r, fds)
		} else {
			err = fault.Wrap(fault.Invalid, err, "keeper")
		}
	}
	if err != nil {
		c.fail(h.Kind, h.Seq, err)
	}
}

// later is the nil error of a request whose reply comes later or was sent already.
var later error

func (s *Server) hello(c *peer, h wire.Head, body []byte) error {
	var m wire.Hello
	if err := wire.Unmarshal(body, &m); err != nil {
		return fault.Wrap(fault.Invalid, err, "keeper: hello")
	}
	v := min(m.MaxVersion, wire.MaxVersion)
	if v < m.MinVersion || v < wire.MinVersion {
		return fault.New(fault.Conflict, "keeper speaks protocol %d to %d, the client %d to %d: upgrade the older of the two",
			wire.MinVersion, wire.MaxVersion, m.MinVersion, m.MaxVersion)
	}
	c.hello, c.name, c.insured = true, m.Name, m.Insure
	var fds []int
	if c.insured {
		fds = []int{s.slate.FD()}
	}
	c.reply(h.Kind, h.Seq, &wire.Hello{
		Version: v, Keeper: s.cfg.Version, PID: os.Getpid(), Birth: s.birth, Missing: len(s.lost),
	}, fds)
	s.insureAll(c)
	for _, p := range s.sorted() {
		if p.finished {
			c.push(wire.ExitKind, &p.exit, nil)
		}
	}
	return later
}

func (s *Server) launchRequest(c *peer, h wire.Head, body []byte, fds *[]int) error {
	l := &launch{from: c, seq: h.Seq}
	if err := wire.Unmarshal(body, &l.req); err != nil {
		return fault.Wrap(fault.Invalid, err, "keeper: launch")
	}
	l.program = slices.Clone(l.req.Program)
	l.req.Program = nil
	if h.Flag&wire.ProgramFD != 0 {
		if len(*fds) == 0 {
			return fault.New(fault.Invalid, "keeper: launch without the announced program")
		}
		b, err := readMemfd((*fds)[0])
		if err != nil {
			return err
		}
		l.program = b
		_ = unix.Close((*fds)[0])
		*fds = (*fds)[1:]
	}
	l.socks = *fds
	if err := s.begin(l); err != nil {
		return err
	}
	*fds = nil
	return later
}

func readMemfd(fd int) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Size > wire.MaxProgram {
		return nil, fault.New(fault.Invalid, "keeper: launch program of %d bytes; %d are possible", st.Size, wire.MaxProgram)
	}
	b := make([]byte, st.Size)
	for at := 0; at < len(b); {
		n, err := unix.Pread(fd, b[at:], int64(at))
		if err != nil || n == 0 {
			return nil, fault.New(fault.Invalid, "keeper: cannot read the launch program")
		}
		at += n
	}
	return b, nil
}

func (s *Server) attachRequest(c *peer, h wire.Head, body []byte, fds *[]int) error {
	var r wire.AttachRequest
	if err := wire.Unmarshal(body, &r); err != nil {
		return fault.Wrap(fault.Invalid, err, "keeper: attach")
	}
	p, err := s.find(r.ID, r.Proc)
	if err != nil {
		return err
	}
	if p.finished {
		return fault.New(fault.Conflict, "attach: %s is not running", name(p.key()))
	}
	sock := -1
	if r.OwnSock {
		if len(*fds) == 0 {
			return fault.New(fault.Invalid, "keeper: attach without the announced socket")
		}
		sock, *fds = (*fds)[0], (*fds)[1:]
	}
	a, theirs, err := s.attach(c, p, r, sock)
	if err != nil {
		return err
	}
	if theirs >= 0 {
		c.reply(h.Kind, h.Seq, nil, []int{theirs})
		_ = unix.Close(theirs)
	} else {
		c.reply(h.Kind, h.Seq, nil, nil)
	}
	c.insureAttachment(a)
	return later
}

// find gives a process that runs, or whose output is still being read.
func (s *Server) find(id, proc string) (*proc, error) {
	p := s.procs[key{id, proc}]
	if p == nil || p.launching {
		return nil, fault.New(fault.NotFound, "no such process: %s", name(key{id, proc}))
	}
	return p, nil
}

// simple handles the requests that are a few words, and answers them.
func (s *Server) simple(c *peer, h wire.Head, r *wire.Request, fds *[]int) error {
	var m wire.Message
	switch h.Kind {
	case wire.ListKind:
		return s.list(c, h)
	case wire.InfoKind:
		m = s.info()
	case wire.AckKind:
		if p := s.procs[key{r.ID, r.Proc}]; p != nil && p.finished {
			s.forget(p)
		}
	case wire.ForgetKind:
		if err := s.forgetAll(r.ID); err != nil {
			return err
		}
	case wire.ParkKind:
		if r.Name == "" || len(*fds) != 1 {
			return fault.New(fault.Invalid, "park: a name and one descriptor are needed")
		}
		s.park(r.Name, (*fds)[0])
		*fds = nil
	case wire.UnparkKind:
		s.park(r.Name, -1)
	case wire.TakeKind:
		fd, ok := s.parked[r.Name]
		if !ok {
			return fault.New(fault.NotFound, "nothing is parked as %q", r.Name)
		}
		c.reply(h.Kind, h.Seq, nil, []int{fd})
		return later
	case wire.ParkedKind:
		names := &wire.Names{}
		for n := range s.parked {
			names.Names = append(names.Names, n)
		}
		slices.Sort(names.Names)
		m = names
	case wire.UpgradeKind:
		return s.wantUpgrade(c, h.Seq, r.Path)
	case wire.ShutdownKind:
		if n := s.busy(); n > 0 {
			return fault.New(fault.Conflict, "keeper: %d processes run", n)
		}
		s.done = true
	default:
		if p := s.procs[key{r.ID, r.Proc}]; h.Kind == wire.ClearLogKind && r.Path != "" && (p == nil || p.finished) {
			if err := clearFiles(r.Path); err != nil {
				return fault.Wrap(fault.Internal, err, "clear the log of %s", r.ID)
			}
			break
		}
		p, err := s.find(r.ID, r.Proc)
		if err != nil {
			return err
		}
		if h.Kind == wire.ReleaseKind {
			return s.releaseGate(c, h.Seq, p)
		}
		if err := p.simple(h.Kind, r); err != nil {
			return err
		}
	}
	c.reply(h.Kind, h.Seq, m, nil)
	return nil
}

// simple handles the requests to one process.
func (p *proc) simple(kind wire.Kind, r *wire.Request) error {
	switch kind {
	case wire.SignalKind:
		return p.signal(unix.Signal(r.Signal))
	case wire.ResizeKind:
		if !p.d.Terminal {
			return fault.New(fault.Invalid, "resize: %s has no terminal", name(p.key()))
		}
		if p.out[0].fd < 0 {
			return fault.New(fault.Conflict, "resize: the terminal of %s is gone", name(p.key()))
		}
		err := unix.IoctlSetWinsize(p.out[0].fd, unix.TIOCSWINSZ, &unix.Winsize{Row: r.Rows, Col: r.Cols})
		return fault.Wrap(fault.Internal, err, "resize the terminal of %s", name(p.key()))
	case wire.CloseStdinKind:
		p.stdin.close()
		return nil
	case wire.RotateLogKind:
		if p.log == nil || p.finished {
			return fault.New(fault.NotFound, "rotate: the keeper writes no log of %s", name(p.key()))
		}
		return fault.Wrap(fault.Internal, p.log.rotate(), "rotate the log of %s", name(p.key()))
	case wire.ClearLogKind:
		if p.log == nil || p.finished {
			return fault.New(fault.NotFound, "clear: the keeper writes no log of %s", name(p.key()))
		}
		return fault.Wrap(fault.Internal, p.log.clear(), "clear the log of %s", name(p.key()))
	}
	return fault.New(fault.NotImplemented, "keeper: unknown request %d: it is older than the client", kind)
}

func (p *proc) signal(sig unix.Signal) error {
	if p.reaped || p.pidfd < 0 {
		return fault.New(fault.NotFound, "signal: %s is not running", name(p.key()))
	}
	err := unix.PidfdSendSignal(p.pidfd, sig, nil, 0)
	switch err {
	case nil:
		return nil
	case unix.ESRCH:
		return fault.New(fault.NotFound, "signal: %s is not running", name(p.key()))
	case unix.EINVAL:
		return fault.New(fault.Invalid, "signal: there is no signal %d", sig)
	}
	return fault.Wrap(fault.Internal, err, "signal %s", name(p.key()))
}

// forgetAll drops what is held of a container.
func (s *Server) forgetAll(id string) error {
	var mine []*proc
	for k, p := range s.procs {
		if k.id != id {
			continue
		}
		if !p.finished {
			return fault.New(fault.Conflict, "forget: %s is running", name(k))
		}
		mine = append(mine, p)
	}
	for _, p := range mine {
		s.forget(p)
	}
	return nil
}

// park keeps a descriptor under a name in place of what was there; -1 keeps none.
func (s *Server) park(name string, fd int) {
	if old, ok := s.parked[name]; ok {
		_ = unix.Close(old)
		delete(s.parked, name)
	}
	if fd >= 0 {
		s.parked[name] = fd
	}
}

// list answers with as many packets as it takes.
func (s *Server) list(c *peer, h wire.Head) error {
	var part wire.States
	size := 0
	send := func(more wire.Flag) {
		c.send(wire.Packet(wire.Head{Kind: h.Kind, Flag: wire.Reply | more, Seq: h.Seq}, &part), nil)
		part.Procs, size = part.Procs[:0], 0
	}
	for _, p := range s.sorted() {
		if p.launching {
			continue
		}
		part.Procs = append(part.Procs, p.state())
		if size += 200 + len(p.d.ID) + len(p.d.Proc) + len(p.d.Log.Path); size > 32<<10 {
			send(wire.More)
		}
	}
	send(0)
	return later
}

// sorted gives all processes by the time of their start.
func (s *Server) sorted() []*proc {
	all := make([]*proc, 0, len(s.procs))
	for _, p := range s.procs {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *proc) int { return a.d.StartTime.Compare(b.d.StartTime) })
	return all
}

func (s *Server) info() *wire.Info {
	return &wire.Info{
		Version: s.cfg.Version, Protocol: wire.MaxVersion, PID: os.Getpid(), Started: s.started,
		Upgrades: s.upgrades, Procs: len(s.procs), Running: s.running(), Parked: len(s.parked),
		Clients: len(s.peers), RSS: residentBytes(), OOMScoreAdj: oomScoreAdj(), OOMError: s.cfg.OOMError,
		LogFaults: s.logFaults, LogLost: s.logLost, Orphans: s.orphans,
		Launching: s.inflight + len(s.waiting),
	}
}

func stack() string {
	b := make([]byte, 4096)
	return string(b[:runtime.Stack(b, false)])
}
