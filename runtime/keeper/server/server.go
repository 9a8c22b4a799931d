package server

import (
	"fmt"
	"os"
	"sync"
	"time"

	"berth/runtime/keeper/journal"
	"berth/runtime/keeper/slate"
	"berth/runtime/keeper/wire"

	"golang.org/x/sys/unix"
)

// Config is what a keeper is started with.
type Config struct {
	ExecRoot string
	Starter  Starter
	Version  string   // of the binary, for hello and info
	Args     []string // the command line to repeat when it upgrades itself, argv[0] included
	DiaryFD  int      // where the keeper writes its own log
	Signals  func()   // arranges for Server.Signal to be called; called again when an upgrade fails

	OOMError string // why the wanted oom_score_adj could not be set, for Info
}

// Limits and patience.
const (
	// drainGrace is how long an ended process's output may be held open by others before the exit is
	// reported all the same, as long as dockerd waits.
	drainGrace = 2 * time.Second
	// logStall is how long a log that cannot be written blocks its process before output is dropped.
	logStall = 5 * time.Second
	logRetry = 250 * time.Millisecond
	// linger is how long an ended attachment waits for its client to hang up.
	linger = 5 * time.Second
	// tidyAfter is how long after the last launch the heap's free memory goes back to the kernel.
	tidyAfter = 3 * time.Second
	// engineDies is how long after its sockets the engine's connection may take to break when it dies.
	engineDies = 250 * time.Millisecond
	// adoptWait is how long a new keeper waits for somebody with insurance.
	adoptWait = 30 * time.Second
	// maxLaunches is how many launches are under way at once; more wait.
	maxLaunches = 16
	// maxQueued bounds what waits for a client that does not read; more, and it is hung up on.
	maxQueued = 4 << 20
)

// Server is the keeper. Everything in it belongs to the goroutine that calls Run, which must be
// locked to the process's main thread; others only post.
type Server struct {
	cfg   Config
	say   diary
	poll  *poller
	times timers
	lock  int // keeper.lock, held for life
	sock  *listener
	jour  *journal.Journal
	slate *slate.Slate

	procs  map[key]*proc
	byPID  map[int]*proc
	parked map[string]int
	peers  []*peer

	closing map[*attachment]bool // ended, shut, waiting for their clients to hang up

	lost     []journal.Entry         // of a dead keeper, not yet adopted
	old      map[uint64]*slate.Slate // slates of dead keepers by inode, while adopting
	unsettle *proc                   // adopted in the middle of an op, which is to be repeated first

	birth     uint64
	started   time.Time
	upgrades  int
	attNumber uint32 // the last attachment's
	orphans   uint64
	logFaults uint64
	logLost   uint64
	pidfs     bool // pidfds have inodes of their own (Linux 6.9)

	tidy     *timer // gives memory back when launches have become rare
	inflight int
	waiting  []*launch // launches that wait for their turn
	upgrade  *upgrade  // wanted, under way
	reapDue  bool      // an orphan waits: no new launch until it is reaped
	suspect  int       // an ended child that may be an orphan or a launch's own

	devNull int
	scratch []byte // requests, stdin, discarded output
	oob     []byte
	out     []byte // encoded log records
	line    []byte // one line put together

	mu     sync.Mutex
	posted []func() // guarded by mu
	wake   int      // eventfd
	wakeT  token
	done   bool
}

// key names a process.
type key struct{ id, proc string }

// Open makes a keeper in an exec root: takes the lock, reads the journal, listens.
func Open(cfg Config) (*Server, error) {
	if err := os.MkdirAll(cfg.ExecRoot, 0o711); err != nil {
		return nil, err
	}
	s, err := newServer(cfg)
	if err != nil {
		return nil, err
	}
	if s.lock, err = takeLock(cfg.ExecRoot); err != nil {
		return nil, err
	}
	s.birth = random()
	// Numbers of attachments that are adopted must not meet those of new ones.
	s.attNumber = uint32(random() >> 34)
	s.started = time.Now()
	if s.slate, err = slate.New(random()); err != nil {
		return nil, err
	}
	var cut int64
	if s.jour, s.lost, cut, err = journal.Open(cfg.ExecRoot+"/keeper.journal", bootID()); err != nil {
		return nil, err
	}
	if cut > 0 {
		s.say.warn("cut a damaged tail off the journal", "bytes", itoa(cut))
	}
	s.recallExits()
	if err := s.listen(-1); err != nil {
		return nil, err
	}
	if len(s.lost) > 0 {
		s.times.after(adoptWait, s.adoptEnd)
	}
	s.say.info("keeper serves", "pid", itoa(os.Getpid()), "version", cfg.Version, "held", itoa(len(s.procs)), "missing", itoa(len(s.lost)))
	return s, nil
}

func newServer(cfg Config) (*Server, error) {
	s := &Server{
		cfg: cfg, say: diary{cfg.DiaryFD}, lock: -1, wakeT: noToken,
		procs: map[key]*proc{}, byPID: map[int]*proc{}, parked: map[string]int{}, closing: map[*attachment]bool{},
		scratch: make([]byte, wire.MaxPacket), oob: make([]byte, unix.CmsgSpace(4*wire.MaxFDs)),
	}
	// Orphans of containers in the host's pid namespace come to us instead of to init.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become a subreaper: %w", err)
	}
	var err error
	if s.devNull, err = unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open /dev/null: %w", err)
	}
	if s.poll, err = newPoller(); err != nil {
		return nil, err
	}
	if s.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, err
	}
	if err := s.poll.set(&s.wakeT, s.wake, true, unix.EPOLLIN, waker{s}); err != nil {
		return nil, err
	}
	s.pidfs = hasPidfs()
	return s, nil
}

// Run serves until Shutdown. It must be called by main.main's goroutine, locked to the main thread
// since before main began: an upgrade executes from there.
func (s *Server) Run() error {
	s.reap()
	for !s.done {
		events, err := s.poll.wait(s.times.timeout())
		if err != nil {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		// Requests first: what they ask for must not wait for chatty processes.
		for i := range events {
			switch h := s.poll.owner(&events[i]).(type) {
			case *peer, *listener, waker:
				s.handle(&events[i], h)
				events[i].Fd = int32(noToken)
			}
		}
		for i := range events {
			if events[i].Fd < 0 {
				continue
			}
			if h := s.poll.owner(&events[i]); h != nil {
				s.handle(&events[i], h)
			}
		}
		for now := time.Now(); ; {
			fn := s.times.due(now)
			if fn == nil {
				break
			}
			s.guard("timer", fn)
		}
	}
	return s.close()
}

// handle gives an event to its handler. A handler that panics does not hear of its descriptor again:
// the event would come back for ever.
func (s *Server) handle(ev *unix.EpollEvent, h handler) {
	if !s.guard("event", func() { h.ready(ev.Events) }) {
		s.poll.mute(ev)
	}
}

// guard keeps a defect in the handling of one thing from ending the keeper of all things. It reports
// whether there was none.
func (s *Server) guard(what string, fn func()) (fine bool) {
	defer func() {
		if r := recover(); r != nil {
			s.say.warn("a defect was caught", "in", what, "panic", fmt.Sprint(r), "stack", stack())
		}
	}()
	fn()
	return true
}

// post has the loop call fn. Any goroutine may.
func (s *Server) post(fn func()) {
	s.mu.Lock()
	s.posted = append(s.posted, fn)
	s.mu.Unlock()
	one := [8]byte{1}
	_, _ = unix.Write(s.wake, one[:]) // full means that the loop will wake anyway
}

// Signal tells the loop of a signal that the process has got: SIGCHLD, or SIGTERM and its like,
// which a keeper refuses as long as it holds processes. Any goroutine may call it.
func (s *Server) Signal(sig unix.Signal) {
	s.post(func() {
		switch {
		case sig == unix.SIGCHLD:
			s.reap()
		case s.busy() > 0:
			s.say.warn("refuses to end while processes run; stop them, or use the protocol's shutdown", "signal", sig.String(), "running", itoa(s.running()))
		default:
			s.say.info("ends on a signal", "signal", sig.String())
			s.done = true
		}
	})
}

type waker struct{ s *Server }

func (w waker) ready(uint32) {
	var b [8]byte
	_, _ = unix.Read(w.s.wake, b[:])
	w.s.mu.Lock()
	fns := w.s.posted
	w.s.posted = nil
	w.s.mu.Unlock()
	for _, fn := range fns {
		w.s.guard("posted", fn)
	}
}

func (s *Server) running() (n int) {
	for _, p := range s.procs {
		if !p.reaped && !p.launching {
			n++
		}
	}
	return n
}

// busy counts what would be lost if the keeper ended: processes, launches, what is to be adopted.
func (s *Server) busy() int {
	return s.running() + s.inflight + len(s.waiting) + len(s.lost)
}

// close ends an idle keeper: its files stay, without a socket nobody finds it.
func (s *Server) close() error {
	_ = os.Remove(s.cfg.ExecRoot + "/keeper.sock")
	for _, p := range s.peers {
		p.flush()
	}
	s.say.info("keeper ends")
	return s.jour.Close()
}
