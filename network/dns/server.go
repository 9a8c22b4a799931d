package dns

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"berth/base/fault"
	"berth/kernel/socket"
)

// Names knows what containers are called. Its methods are called for every question and must not wait for anything.
type Names interface {
	// Lookup gives the addresses by which a sandbox reaches a name, which is lower case and without the last dot. known
	// without addresses of a kind says that there are none: the question is not forwarded.
	Lookup(sandboxID, name string) (v4, v6 []netip.Addr, known bool)
	// Reverse gives the name that an address has for a sandbox.
	Reverse(sandboxID string, a netip.Addr) (name string, ok bool)
}

// Parker keeps sockets over the engine's death: the keeper.
type Parker interface {
	Park(ctx context.Context, name string, f *os.File) error
	Take(ctx context.Context, name string) (*os.File, error)
	Unpark(ctx context.Context, name string) error
	Parked(ctx context.Context) ([]string, error)
}

// Config is what a Server needs.
type Config struct {
	Names      Names
	Parker     Parker        // nil: sockets end with this process
	Log        *slog.Logger  // nil: nothing is logged
	Timeout    time.Duration // how long one upstream server may take; 0: 4 s, Docker's
	CacheBytes int           // for answers of upstream servers; 0: 1 MiB, negative: none are remembered
}

// Sandbox is a container's namespace and from where it gets what is not local.
type Sandbox struct {
	ID       string
	Key      string           // path of its network namespace, lo up
	Upstream []netip.AddrPort // the first three are asked, in this order; port 0: 53
	FromHost bool             // Upstream are the host's own servers: they are asked from the host's namespace, loopback ones too
	Internal bool             // no way out: servers in the host's namespace are not asked
	Options  []string         // of its resolv.conf before Berth's ndots:0: with an ndots in it, names without a dot are not forwarded
	Fresh    bool             // made by this process and new here: nothing is parked for it. Spares looking; false is always right
}

const (
	serverAddr = "127.0.0.11"
	maxServers = 3
	dnsPort    = 53

	maxUnderway = 1024 // questions of one sandbox at upstream servers
	maxPending  = 2048 // those and the ones that wait for their turn
	maxTotal    = 8192 // questions of all sandboxes
	maxConns    = 64   // connections from one sandbox
)

// Server answers the questions of all sandboxes of an engine. It is safe for concurrent use, but one sandbox's Serve and Drop must not overlap.
type Server struct {
	cfg    Config
	set    *socket.Set
	door   chan struct{} // few threads are in foreign namespaces at a time
	total  atomic.Int32  // questions under way at upstream servers
	marks  atomic.Uint64 // the last token and generation given out
	cache  *cache        // nil: nothing is remembered
	warned atomic.Int64  // when a limit was last logged, Unix seconds

	errands chan errand // to the keeper, in order
	ctx     context.Context
	cancel  context.CancelFunc
	work    sync.WaitGroup // the poller, the errands, questions and connections

	gate sync.RWMutex // read-locked while errands is sent to; its lock is for closing it
	shut bool         // errands is closed

	mu      sync.RWMutex
	closed  bool
	byID    map[string]*sandbox
	byToken map[uint64]*sandbox
}

// A sandbox is what the server keeps of one.
type sandbox struct {
	id, key  string
	token    uint64
	settings atomic.Pointer[settings]
	turns    chan struct{} // one element per question under way; its elements have no size
	pending  atomic.Int32
	conns    atomic.Int32

	mu       sync.RWMutex // guards the descriptors against being closed in use; held over calls that never wait
	udp, tcp int          // -1: closed
}

// settings are replaced as a whole.
type settings struct {
	generation uint64 // of the cache: answers from before belong to nobody
	upstream   []netip.AddrPort
	fromHost   bool
	internal   bool
	ndots      bool
}

// New starts a server without sandboxes.
func New(cfg Config) (*Server, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 4 * time.Second
	}
	if cfg.CacheBytes == 0 {
		cfg.CacheBytes = 1 << 20
	}
	set, err := socket.NewSet()
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "name server")
	}
	s := &Server{cfg: cfg, set: set, door: make(chan struct{}, 4), errands: make(chan errand, 256),
		byID: map[string]*sandbox{}, byToken: map[uint64]*sandbox{}}
	if cfg.CacheBytes > 0 {
		s.cache = newCache(cfg.CacheBytes)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.work.Go(s.poll)
	s.work.Go(s.runErrands)
	return s, nil
}

// Serve answers a sandbox's questions from now on: it makes its sockets and rules, or takes those over that an earlier
// engine parked. For a sandbox that is served already only the servers and options change.
func (s *Server) Serve(ctx context.Context, want Sandbox) error {
	set := &settings{generation: s.marks.Add(1), upstream: usable(want), fromHost: want.FromHost, internal: want.Internal, ndots: hasNdots(want.Options)}
	if sb := s.find(want.ID); sb != nil {
		sb.change(set)
		return nil
	}
	sb := &sandbox{id: want.ID, key: want.Key, token: s.marks.Add(1), turns: make(chan struct{}, maxUnderway), udp: -1, tcp: -1}
	sb.settings.Store(set)
	made, err := s.open(ctx, sb, want.Fresh)
	if err != nil {
		return fault.In(err, "name server of sandbox %.12s", want.ID)
	}
	if err := s.enter(sb); err != nil {
		s.forget(sb) // one of the two may be watched already
		return err
	}
	if made {
		s.park(sb)
	}
	return nil
}

// enter lets the poller see the sandbox.
func (s *Server) enter(sb *sandbox) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fault.New(fault.Unavailable, "the name server is closed")
	}
	if s.byID[sb.id] != nil {
		return fault.New(fault.Conflict, "sandbox %.12s is served already", sb.id)
	}
	if err := errors.Join(s.set.Add(sb.udp, sb.token<<1), s.set.Add(sb.tcp, sb.token<<1|1)); err != nil {
		return fault.Wrap(fault.Internal, err, "name server of sandbox %.12s", sb.id)
	}
	s.byID[sb.id], s.byToken[sb.token] = sb, sb
	return nil
}

// Drop ends the service of a sandbox and forgets what is parked for it. Its rules go with its namespace. One that is not served is no error.
func (s *Server) Drop(_ context.Context, sandboxID string) error {
	s.mu.Lock()
	sb := s.byID[sandboxID]
	if sb != nil {
		delete(s.byID, sb.id)
		delete(s.byToken, sb.token)
	}
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return fault.New(fault.Unavailable, "the name server is closed")
	}
	if sb != nil {
		s.forget(sb)
	}
	s.unpark(sandboxID)
	return nil
}

// Close ends the service and leaves sockets parked and rules loaded, for the next engine.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	all := s.byToken
	s.byToken, s.byID = nil, nil
	s.mu.Unlock()

	s.gate.Lock()
	s.shut = true
	close(s.errands) // what waits to be parked still is
	s.gate.Unlock()
	s.cancel()
	s.set.Close()
	s.work.Wait()
	for _, sb := range all {
		sb.close()
	}
	return nil
}

func (s *Server) find(id string) *sandbox {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byID[id]
}

func (s *Server) at(token uint64) *sandbox {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byToken[token]
}

// change replaces the settings. What was remembered stays valid while the same servers are asked.
func (sb *sandbox) change(to *settings) {
	old := sb.settings.Load()
	if slices.Equal(old.upstream, to.upstream) && old.fromHost == to.fromHost && old.internal == to.internal {
		to.generation = old.generation
	}
	sb.settings.Store(to)
}

// forget closes the descriptors of a sandbox that is watched. Closing alone would not take them out of the set, because the
// keeper has the same sockets open: they would be reported for ever and could not be removed any more.
func (s *Server) forget(sb *sandbox) {
	sb.mu.RLock()
	for _, fd := range []int{sb.udp, sb.tcp} {
		if fd >= 0 {
			s.set.Remove(fd)
		}
	}
	sb.mu.RUnlock()
	sb.close()
}

// close closes the descriptors, once.
func (sb *sandbox) close() {
	sb.mu.Lock()
	defer sb.mu.Unlock()
	for _, fd := range []*int{&sb.udp, &sb.tcp} {
		if *fd >= 0 {
			socket.Close(*fd)
			*fd = -1
		}
	}
}

// usable are the servers that may be asked: not ourselves, and none in the host's namespace for who has no way out.
func usable(want Sandbox) []netip.AddrPort {
	if want.Internal && want.FromHost {
		return nil
	}
	var list []netip.AddrPort
	for _, up := range want.Upstream {
		if up.Port() == 0 {
			up = netip.AddrPortFrom(up.Addr(), dnsPort)
		}
		if !want.FromHost && up.Addr().Unmap() == self() {
			continue
		}
		if zone := up.Addr().Zone(); zone != "" && want.FromHost {
			if link, err := net.InterfaceByName(zone); err == nil { // sockets want its number
				up = netip.AddrPortFrom(up.Addr().WithZone(strconv.Itoa(link.Index)), up.Port())
			}
		}
		if len(list) < maxServers {
			list = append(list, up)
		}
	}
	return list
}

func self() netip.Addr { return netip.MustParseAddr(serverAddr) }

func hasNdots(options []string) bool {
	return slices.ContainsFunc(options, func(o string) bool { return o == "ndots" || strings.HasPrefix(o, "ndots:") })
}
