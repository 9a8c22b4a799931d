package dns

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"berth/base/fault"
	"berth/kernel/netns"
	"berth/kernel/netns/alone"
	"berth/kernel/socket"
)

func TestMain(m *testing.M) { os.Exit(alone.Main(m)) }

// names is a Names of a table: name → addresses, for every sandbox.
type names map[string][]netip.Addr

func (n names) Lookup(_, name string) (v4, v6 []netip.Addr, known bool) {
	list, known := n[name]
	for _, a := range list {
		if a.Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	return v4, v6, known
}

func (n names) Reverse(_ string, a netip.Addr) (string, bool) {
	for name, list := range n {
		for _, b := range list {
			if a == b && !strings.HasPrefix(name, "all") {
				return name + ".net1", true
			}
		}
	}
	return "", false
}

func addrs(list ...string) (a []netip.Addr) {
	for _, s := range list {
		a = append(a, netip.MustParseAddr(s))
	}
	return a
}

var people = names{
	"web":   addrs("10.1.0.2"),
	"both":  addrs("10.1.0.3", "fd00::3"),
	"six":   addrs("fd00::6"),
	"all":   addrs("10.1.0.2", "10.1.0.3", "10.1.0.4"),
	"empty": nil,
	"crowd": func() (a []netip.Addr) {
		for i := range 100 {
			a = append(a, netip.AddrFrom4([4]byte{10, 2, 0, byte(i)}))
		}
		return a
	}(),
}

// keeper is a Parker in memory.
type keeper struct {
	mu    sync.Mutex
	files map[string]*os.File
}

func newKeeper(t *testing.T) *keeper {
	k := &keeper{files: map[string]*os.File{}}
	t.Cleanup(func() {
		for _, f := range k.files {
			f.Close()
		}
	})
	return k
}

func second(f *os.File) (*os.File, error) {
	var d *os.File
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	raw.Control(func(fd uintptr) { d, err = socket.Share(int(fd), f.Name()) })
	return d, err
}

func (k *keeper) Park(_ context.Context, name string, f *os.File) error {
	d, err := second(f)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if old := k.files[name]; old != nil {
		old.Close()
	}
	k.files[name] = d
	return nil
}

func (k *keeper) Take(_ context.Context, name string) (*os.File, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if f := k.files[name]; f != nil {
		return second(f)
	}
	return nil, fault.New(fault.NotFound, "nothing is parked as %q", name)
}

func (k *keeper) Unpark(_ context.Context, name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if f := k.files[name]; f != nil {
		f.Close()
		delete(k.files, name)
	}
	return nil
}

func (k *keeper) Parked(context.Context) (list []string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name := range k.files {
		list = append(list, name)
	}
	return list, nil
}

// space is a container's namespace.
type space struct {
	t    testing.TB
	path string
	ns   *os.File
}

func newSpace(t testing.TB) *space {
	t.Helper()
	alone.Need(t)
	path := filepath.Join(t.TempDir(), "ns")
	if err := netns.CreateWith(path, alone.LoopbackUp); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netns.Remove(path) })
	ns, err := netns.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return &space{t, path, ns}
}

// dial connects from inside the namespace.
func (s *space) dial(network, to string) net.Conn {
	s.t.Helper()
	var c net.Conn
	err := netns.Do(s.ns, func() (err error) {
		c, err = net.Dial(network, to)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// resolver is Go's own, as a process in the namespace has it.
func (s *space) resolver(network string) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(_ context.Context, asked, _ string) (net.Conn, error) {
		if network != "" {
			asked = network
		}
		var c net.Conn
		err := netns.Do(s.ns, func() (err error) {
			c, err = net.Dial(asked, "127.0.0.11:53")
			return err
		})
		return c, err
	}}
}

// ask sends one question as miekg's client and gives the answer.
func (s *space) ask(network, name string, kind uint16, change ...func(*dns.Msg)) *dns.Msg {
	s.t.Helper()
	var q dns.Msg
	q.SetQuestion(name, kind)
	for _, f := range change {
		f(&q)
	}
	c := &dns.Conn{Conn: s.dial(network, "127.0.0.11:53"), UDPSize: 65535}
	c.SetDeadline(time.Now().Add(time.Minute))
	if err := c.WriteMsg(&q); err != nil {
		s.t.Fatal(err)
	}
	r, err := c.ReadMsg()
	if err != nil {
		s.t.Fatalf("%s %s: %v", name, dns.TypeToString[kind], err)
	}
	return r
}

// upstream runs a name server in a namespace (nil: our own, the host's).
func upstream(t testing.TB, at *space, addr string, h dns.HandlerFunc) netip.AddrPort {
	t.Helper()
	var pc net.PacketConn
	var l net.Listener
	listen := func() (err error) {
		if pc, err = net.ListenPacket("udp", addr); err != nil {
			return err
		}
		l, err = net.Listen("tcp", pc.LocalAddr().String())
		return err
	}
	err := listen()
	if at != nil {
		pc.Close()
		l.Close()
		err = netns.Do(at.ns, listen)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: h}, {Listener: l, Handler: h}} {
		up := make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		go s.ActivateAndServe()
		<-up
		t.Cleanup(func() { s.Shutdown() })
	}
	return netip.MustParseAddrPort(pc.LocalAddr().String())
}

// says answers every question of type A with the address, under the code.
func says(addr string, ttl uint32, code int) dns.HandlerFunc {
	return func(w dns.ResponseWriter, q *dns.Msg) {
		var m dns.Msg
		m.SetRcode(q, code)
		if code == dns.RcodeSuccess && q.Question[0].Qtype == dns.TypeA {
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ttl}, A: net.ParseIP(addr)}}
		}
		w.WriteMsg(&m)
	}
}

func newServer(t testing.TB, p Parker) *Server {
	t.Helper()
	s, err := New(Config{Names: people, Parker: p, Timeout: 5 * time.Second,
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func (s *space) serve(server *Server, sb Sandbox) {
	s.t.Helper()
	sb.Key = s.path
	if sb.ID == "" {
		sb.ID = strings.Repeat("a", 64)
	}
	if err := server.Serve(context.Background(), sb); err != nil {
		s.t.Fatal(err)
	}
}

// text is the answer's addresses, sorted by appearance, or its code.
func text(m *dns.Msg) string {
	if m.Rcode != dns.RcodeSuccess {
		return dns.RcodeToString[m.Rcode]
	}
	var list []string
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			list = append(list, rr.A.String())
		case *dns.AAAA:
			list = append(list, rr.AAAA.String())
		case *dns.PTR:
			list = append(list, rr.Ptr)
		}
	}
	return strings.Join(list, " ")
}
