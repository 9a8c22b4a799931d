package firewall

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/kernel/netns"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// The tests run in a network namespace and a mount namespace of their own; the first plays the host: no rule is ever loaded anywhere else.
const insideVariable = "BERTH_FIREWALL_TEST_INSIDE"

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv(insideVariable) != "" {
		// mounts of the tests are seen by nobody else
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			fmt.Fprintln(os.Stderr, "own mount namespace:", err)
			os.Exit(1)
		}
	}
	if os.Getenv(insideVariable) != "" || os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Env = append(os.Environ(), insideVariable+"=1")
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := c.Run()
	if exit, ok := err.(*exec.ExitError); ok {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "own network namespace:", err)
		os.Exit(1)
	}
}

// A lab is a host with two bridge networks, containers on them, and a client outside.
//
//	client ──── wan ─ host ─ br-a ── a1, a2
//	198.51.100.1    .2    └─ br-b ── b1
//	2001:db8::1    ::2
type lab struct {
	t      testing.TB
	dir    string
	places map[string]*os.File
	fw     *Firewall
	state  State
}

var (
	netA = Network{ID: "aaaaaaaaaaaa0000", Name: "a", Bridge: "br-a", Subnets: prefixes("172.30.1.0/24", "fd30:1::/64"), ICC: true, Masquerade: true}
	netB = Network{ID: "bbbbbbbbbbbb0000", Name: "b", Bridge: "br-b", Subnets: prefixes("172.30.2.0/24", "fd30:2::/64"), ICC: true, Masquerade: true}
)

func prefixes(s ...string) (list []netip.Prefix) {
	for _, p := range s {
		list = append(list, netip.MustParsePrefix(p))
	}
	return list
}

// port publishes a port of the host for the container with that address: port("8080", "172.30.1.2:80").
func port(host, target string) Port {
	to := netip.MustParseAddrPort(target)
	p := Port{NetworkID: netA.ID, ContainerID: "c-" + to.Addr().String(), Proto: "tcp", Target: to.Addr(), TargetPort: to.Port()}
	if strings.HasPrefix(target, "172.30.2.") || strings.HasPrefix(target, "[fd30:2:") {
		p.NetworkID = netB.ID
	}
	if at, err := netip.ParseAddrPort(host); err == nil {
		p.HostIP, p.HostPort = at.Addr(), at.Port()
		return p
	}
	fmt.Sscan(host, &p.HostPort)
	return p
}

func newLab(t testing.TB, policy Policy) *lab {
	t.Helper()
	needRoot(t)
	l := &lab{t: t, dir: t.TempDir(), places: map[string]*os.File{}, state: State{Networks: []Network{netA, netB}}}
	l.ip("link set lo up")
	l.ip("link add wan type veth peer name c0")
	t.Cleanup(l.down)
	l.place("client")
	l.ip("link set c0 netns " + l.path("client"))
	l.ip("addr add 198.51.100.2/24 dev wan", "addr add 2001:db8::2/64 dev wan nodad", "link set wan up")
	l.ipIn("client", "link set lo up", "addr add 198.51.100.1/24 dev c0", "addr add 2001:db8::1/64 dev c0 nodad", "link set c0 up",
		"route add 172.30.0.0/16 via 198.51.100.2", "route add fd30::/16 via 2001:db8::2")
	for _, key := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		if err := os.WriteFile("/proc/sys/net/"+key, []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
	}
	for i, br := range []string{"br-a", "br-b"} {
		l.ip(fmt.Sprintf("link add %s type bridge", br), fmt.Sprintf("addr add 172.30.%d.1/24 dev %s", i+1, br), fmt.Sprintf("addr add fd30:%d::1/64 dev %s nodad", i+1, br), "link set "+br+" up")
	}
	l.container("a1", 1, 2)
	l.container("a2", 1, 3)
	l.container("b1", 2, 2)
	fw, err := Open(context.Background(), Config{Table: "berth-test", Policy: policy, Log: slog.New(slog.NewTextHandler(testWriter{t}, nil))})
	if err != nil {
		t.Fatal(err)
	}
	l.fw = fw
	t.Cleanup(func() {
		if err := l.fw.Remove(context.Background()); err != nil {
			t.Error(err)
		}
		l.fw.Close()
	})
	l.replace()
	return l
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	for _, p := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("needs %s: packages iproute2, nftables", p)
		}
	}
}

// down takes the lab's links away.
func (l *lab) down() {
	for _, link := range []string{"wan", "br-a", "br-b", "h-a1", "h-a2", "h-b1"} {
		exec.Command("ip", "link", "del", link).Run()
	}
}

func (l *lab) path(name string) string { return filepath.Join(l.dir, name) }

func (l *lab) place(name string) {
	l.t.Helper()
	if err := netns.Create(l.path(name)); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { netns.Remove(l.path(name)) })
	f, err := netns.Open(l.path(name))
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { f.Close() })
	l.places[name] = f
}

func (l *lab) container(name string, network, host int) {
	l.t.Helper()
	l.place(name)
	br := map[int]string{1: "br-a", 2: "br-b"}[network]
	l.ip("link add h-"+name+" type veth peer name eth0 netns "+l.path(name), "link set h-"+name+" master "+br+" up", "link set h-"+name+" type bridge_slave hairpin on")
	l.ipIn(name, "link set lo up", fmt.Sprintf("addr add 172.30.%d.%d/24 dev eth0", network, host), fmt.Sprintf("addr add fd30:%d::%d/64 dev eth0 nodad", network, host),
		"link set eth0 up", fmt.Sprintf("route add default via 172.30.%d.1", network), fmt.Sprintf("-6 route add default via fd30:%d::1", network))
}

func (l *lab) ip(lines ...string) {
	l.t.Helper()
	for _, line := range lines {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			l.t.Fatalf("ip %s: %v: %s", line, err, out)
		}
	}
}

func (l *lab) ipIn(place string, lines ...string) {
	l.t.Helper()
	l.in(place, func() error { l.ip(lines...); return nil })
}

// in calls f in a place; "host" is where we are.
func (l *lab) in(place string, f func() error) error {
	if place == "host" {
		return f()
	}
	return netns.Do(l.places[place], f)
}

// replace loads the lab's state.
func (l *lab) replace() {
	l.t.Helper()
	if err := l.fw.Replace(context.Background(), l.state); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) change(add, remove []Port) {
	l.t.Helper()
	if err := l.fw.Change(context.Background(), add, remove); err != nil {
		l.t.Fatal(err)
	}
}

// serve answers every line on a TCP port of a place with the place's name and the client's address.
func (l *lab) serve(place string, port int) {
	l.t.Helper()
	var listener net.Listener
	err := l.in(place, func() (err error) {
		listener, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
				for s := bufio.NewScanner(c); s.Scan(); {
					fmt.Fprintf(c, "%s %s\n", place, from)
				}
			}()
		}
	}()
}

// serveUDP answers every datagram likewise.
func (l *lab) serveUDP(place string, port int) {
	l.t.Helper()
	var pc net.PacketConn
	err := l.in(place, func() (err error) {
		pc, err = net.ListenPacket("udp", fmt.Sprintf(":%d", port))
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { pc.Close() })
	go func() {
		b := make([]byte, 100)
		for {
			_, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			fmt.Fprintf(writerTo{pc, from}, "%s %s\n", place, from.(*net.UDPAddr).AddrPort().Addr().Unmap())
		}
	}()
}

type writerTo struct {
	pc net.PacketConn
	to net.Addr
}

func (w writerTo) Write(b []byte) (int, error) { return w.pc.WriteTo(b, w.to) }

func (l *lab) dial(place, network, address string, wait time.Duration) (net.Conn, error) {
	var c net.Conn
	err := l.in(place, func() (err error) {
		c, err = net.DialTimeout(network, address, wait)
		return err
	})
	return c, err
}

// ask sends a line and gives the answer.
func ask(c net.Conn, wait time.Duration) (string, error) {
	c.SetDeadline(time.Now().Add(wait))
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		return "", err
	}
	b := make([]byte, 100)
	n, err := c.Read(b)
	return strings.TrimSpace(string(b[:n])), err
}

// want connects and compares the answer; "" is no answer at all.
func (l *lab) want(from, address, answer string) {
	l.t.Helper()
	l.wantBy("tcp", from, address, answer)
}

func (l *lab) wantBy(network, from, address, answer string) {
	l.t.Helper()
	wait := 10 * time.Second // a machine may be slow, and an admission may have to be asked for twice
	if answer == "" {
		wait = 200 * time.Millisecond
	}
	got := ""
	c, err := l.dial(from, network, address, wait)
	if err == nil {
		got, err = ask(c, wait)
		c.Close()
	}
	if got != answer {
		l.t.Errorf("%s to %s by %s: %q, %v; want %q", from, address, network, got, err, answer)
	}
}

func (l *lab) nft(script string) {
	l.t.Helper()
	c := exec.Command("nft", "-f", "-")
	c.Stdin = strings.NewReader(script)
	if out, err := c.CombinedOutput(); err != nil {
		l.t.Fatalf("nft: %v\n%s\n%s", err, out, script)
	}
}

// extra gives the host one more address outside.
func (l *lab) extra(addr string) netip.Addr {
	l.t.Helper()
	l.ip("addr replace " + addr + "/24 dev wan")
	return netip.MustParseAddr(addr)
}

// eachBridge runs a test with frames between ports of a bridge passing the IP layer's chains (br_netfilter) and without.
func eachBridge(t *testing.T, test func(t *testing.T)) {
	for _, on := range []string{"0", "1"} {
		t.Run("bridge-nf="+on, func(t *testing.T) {
			needRoot(t)
			for _, key := range []string{"iptables", "ip6tables"} {
				err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+key, []byte(on), 0)
				if err != nil && on == "1" {
					t.Skipf("needs br_netfilter: %v", err)
				}
			}
			test(t)
		})
	}
}
