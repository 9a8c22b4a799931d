package dns

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"berth/base/fault"
	"berth/kernel/netns"
	"berth/kernel/socket"
)

func TestLocalNames(t *testing.T) {
	sp := newSpace(t)
	sp.serve(newServer(t, nil), Sandbox{Fresh: true})
	for _, network := range []string{"udp", "tcp"} {
		for _, c := range []struct {
			name string
			kind uint16
			want string
		}{
			{"web.", dns.TypeA, "10.1.0.2"},
			{"WeB.", dns.TypeA, "10.1.0.2"},
			{"web.", dns.TypeAAAA, ""},
			{"both.", dns.TypeAAAA, "fd00::3"},
			{"six.", dns.TypeA, ""},
			{"empty.", dns.TypeA, ""},
			{"web.", dns.TypeMX, ""},
			{"2.0.1.10.in-addr.arpa.", dns.TypePTR, "web.net1."},
			{"6.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.", dns.TypePTR, "six.net1."},
			{"9.9.9.9.in-addr.arpa.", dns.TypePTR, "SERVFAIL"},
			{"nobody.", dns.TypeA, "SERVFAIL"},
			{"web.", dns.TypeTXT, "SERVFAIL"}, // forwarded, as in Docker
		} {
			r := sp.ask(network, c.name, c.kind)
			if got := text(r); got != c.want {
				t.Errorf("%s %s %s: %q, want %q", network, c.name, dns.TypeToString[c.kind], got, c.want)
			}
			if !r.RecursionAvailable && r.Rcode == dns.RcodeSuccess {
				t.Errorf("%s: no recursion available", c.name)
			}
			if len(r.Answer) > 0 && (r.Answer[0].Header().Ttl != 600 || r.Answer[0].Header().Name != c.name) {
				t.Errorf("%s: %v", c.name, r.Answer[0])
			}
		}
	}
}

func TestRoundRobin(t *testing.T) {
	sp := newSpace(t)
	sp.serve(newServer(t, nil), Sandbox{})
	first := map[string]int{}
	for range 100 {
		got := strings.Fields(text(sp.ask("udp", "all.", dns.TypeA)))
		if len(got) != 3 {
			t.Fatal(got)
		}
		first[got[0]]++
	}
	for a, n := range first {
		if n < 10 || len(first) != 3 {
			t.Errorf("%s came first %d times of 100", a, n)
		}
	}
}

func TestTruncationAndEDNS(t *testing.T) {
	sp := newSpace(t)
	sp.serve(newServer(t, nil), Sandbox{})
	r := sp.ask("udp", "crowd.", dns.TypeA)
	if r.Compress = true; !r.Truncated || len(r.Answer) == 0 || r.Len() > 512 {
		t.Errorf("512 bytes: truncated %v, %d answers, %d bytes", r.Truncated, len(r.Answer), r.Len())
	}
	if r := sp.ask("tcp", "crowd.", dns.TypeA); r.Truncated || len(r.Answer) != 100 {
		t.Errorf("by TCP: truncated %v, %d answers", r.Truncated, len(r.Answer))
	}
	r = sp.ask("udp", "crowd.", dns.TypeA, func(m *dns.Msg) { m.SetEdns0(4096, true) })
	if r.Truncated || len(r.Answer) != 100 || r.IsEdns0() == nil || !r.IsEdns0().Do() {
		t.Errorf("EDNS: truncated %v, %d answers, %v", r.Truncated, len(r.Answer), r.IsEdns0())
	}
	if r := sp.ask("udp", "web.", dns.TypeA); r.IsEdns0() != nil {
		t.Error("EDNS where none was asked for")
	}
	if r := sp.ask("udp", "web.", dns.TypeA, func(m *dns.Msg) { m.SetEdns0(4096, false); m.IsEdns0().SetVersion(1) }); text(r) != "BADSIG" { // BADVERS by another name
		t.Errorf("EDNS version 1: %s", text(r))
	}
	// Go's resolver asks again by TCP by itself.
	got, err := sp.resolver("").LookupHost(context.Background(), "crowd.")
	if err != nil || len(got) != 100 {
		t.Errorf("%d addresses, %v", len(got), err)
	}
}

func TestForward(t *testing.T) {
	sp := newSpace(t)
	own := upstream(t, sp, "127.0.0.1:0", says("192.0.2.1", 60, dns.RcodeSuccess))
	host := upstream(t, nil, "127.0.0.1:0", says("192.0.2.2", 60, dns.RcodeSuccess))
	refuses := upstream(t, sp, "127.0.0.1:0", says("", 0, dns.RcodeRefused))
	fails := upstream(t, sp, "127.0.0.1:0", says("", 0, dns.RcodeServerFailure))
	denies := upstream(t, sp, "127.0.0.1:0", says("", 0, dns.RcodeNameError))
	nobody := netip.MustParseAddrPort("127.0.0.1:9")
	silent := upstream(t, sp, "127.0.0.1:0", func(dns.ResponseWriter, *dns.Msg) {})
	server := newServer(t, nil)
	for _, network := range []string{"udp", "tcp"} {
		for _, c := range []struct {
			what string
			sb   Sandbox
			name string
			want string
		}{
			{"from the container", Sandbox{Upstream: []netip.AddrPort{own}}, "a.example.", "192.0.2.1"},
			{"from the host", Sandbox{Upstream: []netip.AddrPort{host}, FromHost: true}, "a.example.", "192.0.2.2"},
			{"the host's from an internal network", Sandbox{Upstream: []netip.AddrPort{host}, FromHost: true, Internal: true}, "a.example.", "SERVFAIL"},
			{"the container's from an internal network", Sandbox{Upstream: []netip.AddrPort{own}, Internal: true}, "a.example.", "192.0.2.1"},
			{"the host's loopback from the container", Sandbox{Upstream: []netip.AddrPort{host}}, "a.example.", "SERVFAIL"},
			{"the next after a refusal", Sandbox{Upstream: []netip.AddrPort{refuses, fails, own}}, "a.example.", "192.0.2.1"},
			{"the next after nobody", Sandbox{Upstream: []netip.AddrPort{nobody, own}}, "a.example.", "192.0.2.1"},
			{"the next after silence", Sandbox{Upstream: []netip.AddrPort{silent, own}}, "a.example.", "192.0.2.1"},
			{"no fourth", Sandbox{Upstream: []netip.AddrPort{fails, refuses, nobody, own}}, "a.example.", "SERVFAIL"},
			{"a denial is an answer", Sandbox{Upstream: []netip.AddrPort{denies, own}}, "a.example.", "NXDOMAIN"},
			{"unreachable", Sandbox{Upstream: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.9:53"), netip.MustParseAddrPort("[2001:db8::1]:53")}}, "a.example.", "SERVFAIL"},
			{"itself", Sandbox{Upstream: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.11:53")}}, "a.example.", "SERVFAIL"},
			{"no server", Sandbox{}, "a.example.", "SERVFAIL"},
			{"without a dot", Sandbox{Upstream: []netip.AddrPort{own}}, "intranet.", "192.0.2.1"},
			{"without a dot, with ndots", Sandbox{Upstream: []netip.AddrPort{own}, Options: []string{"ndots:2"}}, "intranet.", ""},
			{"with a dot, with ndots", Sandbox{Upstream: []netip.AddrPort{own}, Options: []string{"ndots:2"}}, "in.tranet.", "192.0.2.1"},
		} {
			sp.serve(server, c.sb)
			if got := text(sp.ask(network, c.name, dns.TypeA)); got != c.want {
				t.Errorf("%s, %s: %q, want %q", c.what, network, got, c.want)
			}
		}
	}
}

// Ids and ports of forwarded questions are of chance, and what comes from elsewhere or with another question is no answer.
func TestSpoofing(t *testing.T) {
	sp := newSpace(t)
	var mu sync.Mutex
	ids, ports := map[uint16]bool{}, map[string]bool{}
	up := upstream(t, sp, "127.0.0.1:0", func(w dns.ResponseWriter, q *dns.Msg) {
		mu.Lock()
		ids[q.Id], ports[w.RemoteAddr().String()] = true, true
		mu.Unlock()
		for _, wrong := range []func(*dns.Msg){
			func(m *dns.Msg) { m.Id++ },
			func(m *dns.Msg) { m.Question[0].Name = "other.example." },
			func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA },
			func(m *dns.Msg) { m.Response = false },
		} {
			bad := q.Copy()
			bad.Response = true
			wrong(bad)
			bad.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: 1}, A: net.IPv4(6, 6, 6, 6)}}
			w.WriteMsg(bad)
		}
		w.Write(nil)
		w.Write([]byte("x"))
		says("192.0.2.1", 0, dns.RcodeSuccess)(w, q)
	})
	sp.serve(newServer(t, nil), Sandbox{Upstream: []netip.AddrPort{up}})
	for range 20 {
		if got := text(sp.ask("udp", "a.example.", dns.TypeA, func(m *dns.Msg) { m.Id = 7 })); got != "192.0.2.1" {
			t.Fatalf("%q", got)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(ids) < 18 || len(ports) < 18 {
		t.Errorf("20 questions had %d ids and %d ports", len(ids), len(ports))
	}
}

func TestMalformed(t *testing.T) {
	sp := newSpace(t)
	sp.serve(newServer(t, nil), Sandbox{})
	good := func(change func(*dns.Msg)) []byte {
		var m dns.Msg
		m.SetQuestion("web.", dns.TypeA)
		m.Id = 0x1234
		change(&m)
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, c := range []struct {
		what string
		b    []byte
		want int // -1: no answer
	}{
		{"short", []byte("\x12\x34"), -1},
		{"an answer", good(func(m *dns.Msg) { m.Response = true }), -1},
		{"an update", good(func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }), dns.RcodeNotImplemented},
		{"no question", good(func(m *dns.Msg) { m.Question = nil }), dns.RcodeFormatError},
		{"two questions", good(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }), dns.RcodeFormatError},
		{"cut", good(func(*dns.Msg) {})[:18], dns.RcodeFormatError},
		{"garbage", append([]byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"), "\xc0\x0c\x00\x01\x00\x01"...), dns.RcodeFormatError},
		{"too long", append(good(func(*dns.Msg) {}), make([]byte, 5000)...), -1},
	} {
		conn := sp.dial("udp", "127.0.0.11:53")
		conn.Write(c.b)
		conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		buf := make([]byte, 512)
		n, err := conn.Read(buf)
		switch {
		case c.want < 0 && err == nil:
			t.Errorf("%s: answered %x", c.what, buf[:n])
		case c.want >= 0 && err != nil:
			t.Errorf("%s: %v", c.what, err)
		case c.want >= 0:
			if !bytes.Equal(buf[:2], c.b[:2]) || buf[2]&0x80 == 0 || int(buf[3]&0xf) != c.want {
				t.Errorf("%s: %x", c.what, buf[:n])
			}
		}
	}
	if got := text(sp.ask("udp", "web.", dns.TypeA)); got != "10.1.0.2" {
		t.Errorf("afterwards: %q", got)
	}
}

func TestCache(t *testing.T) {
	sp := newSpace(t)
	var asked atomic.Int32
	ttl := atomic.Uint32{}
	ttl.Store(60)
	up := upstream(t, sp, "127.0.0.1:0", func(w dns.ResponseWriter, q *dns.Msg) {
		asked.Add(1)
		code := dns.RcodeSuccess
		if strings.HasPrefix(q.Question[0].Name, "no") {
			code = dns.RcodeNameError
		}
		says("192.0.2.1", ttl.Load(), code)(w, q)
	})
	server := newServer(t, nil)
	sp.serve(server, Sandbox{Upstream: []netip.AddrPort{up}})
	expect := func(what, network, name string, more int32, change ...func(*dns.Msg)) {
		t.Helper()
		before := asked.Load()
		r := sp.ask(network, name, dns.TypeA, change...)
		if n := asked.Load() - before; n != more {
			t.Errorf("%s: asked %d times, want %d (%s)", what, n, more, text(r))
		}
	}
	expect("first", "udp", "a.example.", 1)
	expect("again", "udp", "A.example.", 0)
	expect("with EDNS", "udp", "a.example.", 1, func(m *dns.Msg) { m.SetEdns0(1232, false) })
	expect("with an option", "udp", "a.example.", 1, func(m *dns.Msg) {
		m.SetEdns0(1232, false)
		m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0011223344556677"})
	})
	expect("by TCP", "tcp", "a.example.", 1)
	expect("denied without SOA", "udp", "no.example.", 1)
	expect("denied again", "udp", "no.example.", 1)
	sp.serve(server, Sandbox{Upstream: []netip.AddrPort{up}, Options: []string{"ndots:1"}})
	expect("after another option", "udp", "a.example.", 0)
	sp.serve(server, Sandbox{Upstream: []netip.AddrPort{up, up}})
	expect("after other servers", "udp", "a.example.", 1)
	ttl.Store(0)
	expect("no time", "udp", "b.example.", 1)
	expect("no time again", "udp", "b.example.", 1)
}

func TestCacheAgesAndIsBounded(t *testing.T) {
	c := newCache(10 << 10)
	pack := func(ttl uint32) []byte {
		var m dns.Msg
		m.SetQuestion("a.example.", dns.TypeA)
		m.Response = true
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "a.example.", Rrtype: dns.TypeA, Class: 1, Ttl: ttl}, A: net.IPv4(1, 2, 3, 4)}}
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	now := time.Unix(1000, 0)
	k := cacheKey{1, "x"}
	c.put(k, pack(30), now)
	var m dns.Msg
	if err := m.Unpack(c.get(k, now.Add(10*time.Second))); err != nil || m.Answer[0].Header().Ttl != 20 {
		t.Errorf("%v %v", m.Answer, err)
	}
	if c.get(k, now.Add(30*time.Second)) != nil {
		t.Error("it outlived its time")
	}
	for i := range 1000 {
		c.put(cacheKey{uint64(i), "x"}, pack(30), now)
	}
	if c.left < 0 || len(c.byKey) != c.order.Len() || len(c.byKey) > 40 || len(c.byKey) < 20 {
		t.Errorf("%d entries, %d bytes left", len(c.byKey), c.left)
	}
	c.put(k, make([]byte, 5), now)
	c.put(k, nil, now)
	if c.get(k, now) != nil {
		t.Error("garbage is remembered")
	}
}

// An engine that is killed leaves the sockets with the keeper; what is asked meanwhile is answered by the next one.
func TestRestart(t *testing.T) {
	sp := newSpace(t)
	k := newKeeper(t)
	first := newServer(t, k)
	sp.serve(first, Sandbox{Fresh: true})
	if got := text(sp.ask("udp", "web.", dns.TypeA)); got != "10.1.0.2" {
		t.Fatal(got)
	}
	first.Close()
	if list, _ := k.Parked(context.Background()); len(list) != 2 {
		t.Fatalf("parked: %v", list)
	}
	type result struct {
		network string
		got     []string
		err     error
	}
	results := make(chan result)
	const each = 20
	for range each {
		for _, network := range []string{"udp", "tcp"} {
			go func() {
				got, err := sp.resolver(network).LookupHost(context.Background(), "both.")
				results <- result{network, got, err}
			}()
		}
	}
	time.Sleep(300 * time.Millisecond)
	select {
	case r := <-results:
		t.Fatalf("answered by nobody: %+v", r)
	default:
	}
	next := newServer(t, k)
	start := time.Now()
	sp.serve(next, Sandbox{})
	for range 2 * each {
		r := <-results
		if r.err != nil || len(r.got) != 2 {
			t.Errorf("%+v", r)
		}
	}
	t.Logf("%d questions answered %v after the restart", 2*each, time.Since(start))
	if err := next.Recovered(context.Background()); err != nil {
		t.Error(err)
	}
	if got := text(sp.ask("tcp", "web.", dns.TypeA)); got != "10.1.0.2" {
		t.Error(got)
	}
	if err := next.Drop(context.Background(), strings.Repeat("a", 64)); err != nil {
		t.Error(err)
	}
	next.Close()
	if list, _ := k.Parked(context.Background()); len(list) != 0 {
		t.Errorf("still parked: %v", list)
	}
}

// Where the keeper lost the sockets, or holds some that are not ours, new ones are made and the rules lead to them.
func TestRestartWithoutSockets(t *testing.T) {
	sp, other := newSpace(t), newSpace(t)
	for _, lose := range []func(k *keeper){
		func(k *keeper) { k.Unpark(context.Background(), parkName(strings.Repeat("a", 64), socket.TCP)) },
		func(k *keeper) {
			netns.Do(other.ns, func() error {
				fd, err := socket.Listen(socket.UDP, netip.MustParseAddrPort("127.0.0.11:0"))
				if err != nil {
					return err
				}
				f, _ := socket.Share(fd, "")
				socket.Close(fd)
				return k.Park(context.Background(), parkName(strings.Repeat("a", 64), socket.UDP), f)
			})
		},
	} {
		k := newKeeper(t)
		first := newServer(t, k)
		sp.serve(first, Sandbox{})
		first.Close()
		lose(k)
		next := newServer(t, k)
		sp.serve(next, Sandbox{})
		for _, network := range []string{"udp", "tcp"} {
			if got := text(sp.ask(network, "web.", dns.TypeA)); got != "10.1.0.2" {
				t.Error(got)
			}
		}
		next.Close()
	}
}

func TestRecoveredForgetsOthers(t *testing.T) {
	sp := newSpace(t)
	k := newKeeper(t)
	first := newServer(t, k)
	sp.serve(first, Sandbox{})
	first.Close()
	next := newServer(t, k)
	if err := next.Recovered(context.Background()); err != nil {
		t.Fatal(err)
	}
	next.Close()
	if list, _ := k.Parked(context.Background()); len(list) != 0 {
		t.Errorf("still parked: %v", list)
	}
}

// A dropped sandbox whose sockets the keeper still has open does not keep the poller busy, and nothing leaks.
func TestDrop(t *testing.T) {
	sp := newSpace(t)
	server := newServer(t, newKeeper(t))
	before := runtime.NumGoroutine()
	for range 50 {
		sp.serve(server, Sandbox{Fresh: false})
		if err := server.Drop(context.Background(), strings.Repeat("a", 64)); err != nil {
			t.Fatal(err)
		}
	}
	if n := runtime.NumGoroutine(); n > before+5 {
		t.Errorf("%d goroutines, %d before", n, before)
	}
	if err := server.Drop(context.Background(), "unknown"); err != nil {
		t.Error(err)
	}
	if err := server.Serve(context.Background(), Sandbox{ID: "x", Key: "/nowhere"}); !fault.Is(err, fault.NotFound) {
		t.Errorf("no namespace: %v", err)
	}
}

// Port 53 belongs to the container.
func TestOwnNameServer(t *testing.T) {
	sp := newSpace(t)
	sp.serve(newServer(t, nil), Sandbox{})
	for _, addr := range []string{"0.0.0.0:53", "127.0.0.1:53"} {
		err := netns.Do(sp.ns, func() error {
			pc, err := net.ListenPacket("udp", addr)
			if err != nil {
				return err
			}
			pc.Close()
			l, err := net.Listen("tcp", addr)
			if err != nil {
				return err
			}
			return l.Close()
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func TestManyAtOnce(t *testing.T) {
	const questions = 1500
	sp := newSpace(t)
	release := make(chan struct{}, questions)
	defer close(release)
	var most, now atomic.Int32
	up := upstream(t, sp, "127.0.0.1:0", func(w dns.ResponseWriter, q *dns.Msg) {
		n := now.Add(1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		<-release
		now.Add(-1)
		says("192.0.2.1", 0, dns.RcodeSuccess)(w, q)
	})
	server, err := New(Config{Names: people, Timeout: time.Hour}) // none is given up or asked again while the test goes on
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	sp.serve(server, Sandbox{Upstream: []netip.AddrPort{up}})
	// The local names are answered while all others are wedged. Before the answer the server has read whatever was asked before.
	local := func() {
		t.Helper()
		if got := text(sp.ask("udp", "web.", dns.TypeA)); got != "10.1.0.2" {
			t.Error(got)
		}
	}
	conn := sp.dial("udp", "127.0.0.11:53")
	conn.(*net.UDPConn).SetReadBuffer(4 << 20)
	for i := range questions {
		var q dns.Msg
		q.SetQuestion(fmt.Sprintf("q%d.example.", i), dns.TypeA)
		q.Id = uint16(i)
		b, _ := q.Pack()
		conn.Write(b)
		if i%50 == 49 { // or a socket's buffer is full before somebody looks
			local()
			for end := time.Now().Add(time.Second); int(now.Load()) < min(i+1, maxUnderway) && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
		}
	}
	start := time.Now()
	local()
	t.Logf("a local name took %v", time.Since(start))
	time.Sleep(200 * time.Millisecond)
	got := map[uint16]bool{}
	buf := make([]byte, 1500)
	for released := 0; len(got) < questions; {
		for ; released < questions && released-len(got) < 100; released++ { // our own buffer is not without end
			release <- struct{}{}
		}
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := conn.Read(buf)
		if err != nil {
			break
		}
		var m dns.Msg
		if m.Unpack(buf[:n]) == nil && m.Rcode == dns.RcodeSuccess {
			got[m.Id] = true
		}
	}
	if len(got) < questions*9/10 {
		t.Errorf("%d of %d answered", len(got), questions)
	}
	if most.Load() > maxUnderway {
		t.Errorf("%d under way at once", most.Load())
	}
	t.Logf("%d of %d answered, at most %d under way", len(got), questions, most.Load())
}

// Real clients: their own resolvers, in the namespace.
func TestClients(t *testing.T) {
	sp := newSpace(t)
	up := upstream(t, sp, "127.0.0.1:0", says("192.0.2.1", 60, dns.RcodeSuccess))
	sp.serve(newServer(t, nil), Sandbox{Upstream: []netip.AddrPort{up}})
	t.Run("go", func(t *testing.T) {
		ctx := context.Background()
		r := sp.resolver("")
		if got, err := r.LookupHost(ctx, "both."); err != nil || !slices.Contains(got, "10.1.0.3") || !slices.Contains(got, "fd00::3") {
			t.Errorf("%v %v", got, err)
		}
		if got, err := r.LookupHost(ctx, "a.example."); err != nil || len(got) != 1 {
			t.Errorf("%v %v", got, err)
		}
		if got, err := r.LookupAddr(ctx, "10.1.0.2"); err != nil || got[0] != "web.net1." {
			t.Errorf("%v %v", got, err)
		}
	})
	for _, c := range []struct {
		name string
		args []string
		want []string
	}{
		{"busybox", []string{"nslookup", "both", "127.0.0.11"}, []string{"10.1.0.3", "fd00::3"}},
		{"busybox", []string{"nslookup", "10.1.0.2", "127.0.0.11"}, []string{"web.net1"}},
		{"dig", []string{"@127.0.0.11", "+tries=1", "crowd"}, []string{"10.2.0.99", "status: NOERROR"}},
		{"dig", []string{"@127.0.0.11", "+tries=1", "+tcp", "-x", "fd00::6"}, []string{"six.net1."}},
		{"dig", []string{"@127.0.0.11", "+tries=1", "a.example"}, []string{"192.0.2.1"}},
	} {
		t.Run(c.name+" "+strings.Join(c.args, " "), func(t *testing.T) {
			path, err := exec.LookPath(c.name)
			if err != nil {
				t.Skipf("needs %s: %v", c.name, err)
			}
			var out bytes.Buffer
			cmd := exec.Command(path, c.args...)
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := netns.Do(sp.ns, cmd.Start); err != nil {
				t.Fatal(err)
			}
			cmd.Wait()
			for _, w := range c.want {
				if !strings.Contains(out.String(), w) {
					t.Errorf("no %q in:\n%s", w, out.String())
				}
			}
		})
	}
}

func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("needs time: a thousand namespaces")
	}
	spaces := make([]*space, 1000)
	for i := range spaces {
		spaces[i] = newSpace(t)
	}
	server := newServer(t, nil)
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	before, goroutines := heap(), runtime.NumGoroutine()
	start := time.Now()
	for i, sp := range spaces {
		sp.serve(server, Sandbox{ID: fmt.Sprintf("%064d", i), Fresh: true, Upstream: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:53")}})
	}
	took := time.Since(start)
	after := heap()
	each := (int64(after) - int64(before)) / int64(len(spaces))
	t.Logf("1000 sandboxes: %d bytes each, %d goroutines more, %v each to start", each, runtime.NumGoroutine()-goroutines, took/1000)
	if each > 10<<10 || runtime.NumGoroutine() > goroutines+10 {
		t.Error("more than 10 KB or goroutines per sandbox")
	}
	if got := text(spaces[777].ask("udp", "web.", dns.TypeA)); got != "10.1.0.2" {
		t.Error(got)
	}
}

func FuzzLocal(f *testing.F) {
	var m dns.Msg
	m.SetQuestion("web.", dns.TypeA)
	m.SetEdns0(1232, true)
	b, _ := m.Pack()
	f.Add(b)
	f.Add([]byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"))
	s := &Server{cfg: Config{Names: people}, cache: newCache(1 << 16)}
	set := &settings{upstream: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:53")}}
	sb := &sandbox{id: "x"}
	sb.settings.Store(set)
	f.Fuzz(func(t *testing.T, b []byte) {
		reply, q := s.local(sb, b, socket.UDP)
		if reply != nil && (len(reply) < 12 || reply[2]&0x80 == 0 || !bytes.Equal(reply[:2], b[:2])) {
			t.Errorf("%x answered by %x", b, reply)
		}
		if q != nil {
			s.cacheKey(set, q)
			q.failed()
		}
	})
}

func FuzzAnswer(f *testing.F) {
	var m dns.Msg
	m.SetQuestion("web.", dns.TypeA)
	asked, _ := m.Pack()
	m.Response = true
	good, _ := m.Pack()
	f.Add(good, asked)
	f.Fuzz(func(t *testing.T, b, asked []byte) {
		if len(asked) < 12 {
			return
		}
		if end, ok := answers(b, asked); ok {
			cutShort(b[:end])
			c := newCache(1 << 16)
			c.put(cacheKey{}, b, time.Unix(0, 0))
			c.get(cacheKey{}, time.Unix(1, 0))
		}
	})
}
