package firewall

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"berth/kernel/conntrack"
)

func TestPublished(t *testing.T) { eachBridge(t, published) }

func published(t *testing.T) {
	l := newLab(t, Policy{})
	for _, c := range []string{"a1", "a2", "b1", "client"} {
		l.serve(c, 80)
		l.serveUDP(c, 53)
	}
	udp := port("53", "172.30.1.2:53")
	udp.Proto = "udp"
	l.change([]Port{port("8080", "172.30.1.2:80"), port("8080", "[fd30:1::2]:80"), port("127.0.0.1:8081", "172.30.1.3:80"), port("198.51.100.2:8082", "172.30.2.2:80"),
		port("[::1]:8083", "[fd30:1::3]:80"), udp}, nil)

	// from outside, with the client's address
	l.want("client", "198.51.100.2:8080", "a1 198.51.100.1")
	l.want("client", "[2001:db8::2]:8080", "a1 2001:db8::1")
	l.want("client", "198.51.100.2:8082", "b1 198.51.100.1")
	l.wantBy("udp", "client", "198.51.100.2:53", "a1 198.51.100.1")
	l.want("client", "198.51.100.2:8081", "")
	l.want("client", "[2001:db8::2]:8083", "")

	// from the host itself
	l.want("host", "127.0.0.1:8080", "a1 172.30.1.1")
	l.want("host", "127.0.0.1:8081", "a2 172.30.1.1")
	l.want("host", "127.9.9.9:8080", "a1 172.30.1.1")
	l.want("host", "198.51.100.2:8080", "a1 198.51.100.2")
	l.want("host", "198.51.100.2:8082", "b1 198.51.100.2")
	l.want("host", "127.0.0.1:8082", "")
	l.want("host", "[2001:db8::2]:8080", "a1 2001:db8::2")
	l.serve("host", 8083)
	l.want("host", "[::1]:8083", "host ::1") // IPv6 has no route_localnet: a socket of the host serves it
	l.wantBy("udp", "host", "127.0.0.1:53", "a1 172.30.1.1")

	// from containers: of the same network, itself, another
	l.want("a2", "198.51.100.2:8080", "a1 172.30.1.1")
	l.want("a1", "198.51.100.2:8080", "a1 172.30.1.1")
	l.want("a1", "172.30.1.1:8080", "a1 172.30.1.1")
	l.want("a1", "[2001:db8::2]:8080", "a1 fd30:1::1")
	l.want("b1", "198.51.100.2:8080", "a1 172.30.1.1")

	// nothing else: not by the container's own address, not between networks
	l.want("client", "172.30.1.2:80", "")
	l.want("client", "[fd30:1::2]:80", "")
	l.want("b1", "172.30.1.2:80", "")
	l.want("b1", "[fd30:1::2]:80", "")
	l.want("host", "172.30.1.3:80", "a2 172.30.1.1")
	l.want("a2", "172.30.1.2:80", "a1 172.30.1.3")

	// out of it
	l.want("a1", "198.51.100.1:80", "client 198.51.100.2")
	l.want("a1", "[2001:db8::1]:80", "client 2001:db8::2")
	l.wantBy("udp", "a1", "198.51.100.1:53", "client 198.51.100.2")
}

// Packets that a neighbour or a container makes for loopback addresses of the host, with a kernel that lets them.
func TestForged(t *testing.T) {
	l := newLab(t, Policy{})
	l.serve("a1", 80)
	l.serve("host", 9000)
	l.change([]Port{port("127.0.0.1:8081", "172.30.1.2:80")}, nil)
	for from, way := range map[string]string{"client": "via 198.51.100.2 dev c0", "a2": "via 172.30.1.1 dev eth0"} {
		l.ipIn(from, "addr del 127.0.0.1/8 dev lo", "route add 127.0.0.1/32 "+way)
		err := l.in(from, func() error { return os.WriteFile("/proc/sys/net/ipv4/conf/all/route_localnet", []byte("1"), 0) })
		if err != nil {
			t.Fatal(err)
		}
		l.want(from, "127.0.0.1:9000", "")
		l.want(from, "127.0.0.1:8081", "")
	}
	l.want("host", "127.0.0.1:8081", "a1 172.30.1.1")
}

func TestModes(t *testing.T) { eachBridge(t, modes) }

func modes(t *testing.T) {
	l := newLab(t, Policy{})
	for _, c := range []string{"a1", "a2", "b1", "client"} {
		l.serve(c, 80)
		l.serve(c, 81)
	}
	set := func(change func(*Network)) {
		n := netA
		change(&n)
		l.state.Networks = []Network{n, netB}
		l.state.Ports = []Port{port("8080", "172.30.1.2:80"), port("8080", "[fd30:1::2]:80")}
		l.replace()
	}
	set(func(n *Network) { n.GatewayMode4, n.GatewayMode6 = ModeRouted, ModeRouted })
	l.want("client", "172.30.1.2:80", "a1 198.51.100.1")
	l.want("client", "[fd30:1::2]:80", "a1 2001:db8::1")
	l.want("client", "172.30.1.2:81", "")
	l.want("client", "198.51.100.2:8080", "")
	l.want("a1", "198.51.100.1:80", "client 172.30.1.2")

	set(func(n *Network) { n.GatewayMode4 = ModeUnprotected })
	l.want("client", "172.30.1.2:81", "a1 198.51.100.1")
	l.want("client", "[fd30:1::2]:81", "")
	l.want("client", "198.51.100.2:8080", "a1 198.51.100.1")

	set(func(n *Network) { n.Trusted = []string{"wan"} })
	l.want("client", "172.30.1.2:81", "a1 198.51.100.1")
	l.want("b1", "172.30.1.2:81", "")

	set(func(n *Network) { n.Internal = true })
	l.want("client", "198.51.100.2:8080", "")
	l.want("client", "172.30.1.2:80", "")
	l.want("a1", "198.51.100.1:80", "")
	l.want("a1", "172.30.2.2:80", "")
	l.want("a2", "172.30.1.2:80", "a1 172.30.1.3")

	set(func(n *Network) { n.Masquerade = false })
	l.ipIn("client", "route replace 172.30.0.0/16 via 198.51.100.2")
	l.want("a1", "198.51.100.1:80", "client 172.30.1.2")

	set(func(n *Network) { n.HostIP = l.extra("198.51.100.77") })
	l.want("a1", "198.51.100.1:80", "client 198.51.100.77")
	l.want("a1", "[2001:db8::1]:80", "client 2001:db8::2")

	set(func(n *Network) { n.ICC = false })
	if b, _ := os.ReadFile("/proc/sys/net/bridge/bridge-nf-call-iptables"); string(b) != "1\n" {
		l.ip("link set h-a1 type bridge_slave isolated on", "link set h-a2 type bridge_slave isolated on") // as the driver does
	}
	l.want("a2", "172.30.1.2:80", "")
	l.want("a2", "[fd30:1::2]:80", "")
	l.want("a2", "198.51.100.2:8080", "a1 172.30.1.1")
	l.want("client", "198.51.100.2:8080", "a1 198.51.100.1")
	set(func(n *Network) {})
	l.ip("link set h-a1 type bridge_slave isolated off")
	l.want("a2", "172.30.1.2:80", "a1 172.30.1.3")
}

// Connections stay where they are while everything is replaced and the port moves to another container; new ones go there.
func TestEstablishedStay(t *testing.T) {
	l := newLab(t, Policy{})
	l.serve("a1", 80)
	l.serve("a2", 80)
	first, second := port("8080", "172.30.1.2:80"), port("8080", "172.30.1.3:80")
	l.change([]Port{first}, nil)
	outside, err := l.dial("client", "tcp", "198.51.100.2:8080", 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	local, err := l.dial("host", "tcp", "127.0.0.1:8080", 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	still := func(when string) {
		t.Helper()
		for _, c := range []net.Conn{outside, local} {
			if got, err := ask(c, 20*time.Second); err != nil || got[:2] != "a1" {
				t.Errorf("after %s: %q, %v", when, got, err)
			}
		}
	}
	still("the beginning")
	l.state.Ports = []Port{first}
	l.replace()
	still("all rules were replaced")
	if err := l.fw.Change(context.Background(), []Port{second}, nil); err == nil {
		t.Error("a port was published twice")
	}
	l.change([]Port{second}, []Port{first})
	still("the port had moved")
	l.want("client", "198.51.100.2:8080", "a2 198.51.100.1")
	l.change(nil, []Port{second})
	still("the port was gone")
	l.want("client", "198.51.100.2:8080", "")
	l.change(nil, []Port{second}) // again
}

// A client that sends from one port without a pause is led to the container from the moment that it publishes.
func TestUDPThatBeganBefore(t *testing.T) {
	l := newLab(t, Policy{})
	l.serveUDP("a1", 53)
	l.serveUDP("a2", 53)
	c, err := l.dial("client", "udp", "198.51.100.2:5353", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	asked := func(want string) {
		t.Helper()
		got := ""
		tries := 20
		if want == "" {
			tries = 3
		}
		for range tries { // an answer "connection refused" of before may stand first; a busy machine takes its time
			if got, err = ask(c, 500*time.Millisecond); err == nil {
				break
			}
		}
		if got != want {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	first, second := port("5353", "172.30.1.2:53"), port("5353", "172.30.1.3:53")
	first.Proto, second.Proto = "udp", "udp"
	// one of a container with another host's port of the same number goes on
	l.serveUDP("client", 5353)
	out, err := l.dial("a2", "udp", "198.51.100.1:5353", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if got, err := ask(out, 10*time.Second); got != "client 198.51.100.2" {
		t.Fatalf("%q, %v", got, err)
	}
	asked("")
	l.change([]Port{first}, nil)
	if n, err := conntrack.Delete(nil, conntrack.Flow{Proto: protocol("udp"), V4: true, To: []netip.Addr{netip.MustParseAddr("198.51.100.1")}, ToPort: 5353}); n != 1 || err != nil {
		t.Errorf("of the container's exchange there are %d, %v", n, err)
	}
	asked("a1 198.51.100.1")
	l.change(nil, []Port{first})
	asked("")
	l.change([]Port{second}, nil)
	asked("a2 198.51.100.1")
	l.change([]Port{first}, []Port{second}) // a move: what is under way stays
	asked("a2 198.51.100.1")
	if err := l.fw.Forget(second.Target); err != nil {
		t.Error(err)
	}
	asked("a1 198.51.100.1")
}

// With ObeyInput a published port is as open as a port of the host would be: whatever manages the input chain.
func TestObeyInput(t *testing.T) {
	l := newLab(t, Policy{ObeyInput: true})
	l.serve("a1", 80)
	l.serve("host", 9000)
	l.serveUDP("a1", 53)
	udp := port("5353", "172.30.1.2:53")
	udp.Proto = "udp"
	l.change([]Port{port("8080", "172.30.1.2:80"), port("8080", "[fd30:1::2]:80"), port("198.51.100.2:8081", "172.30.1.2:80"), udp}, nil)
	t.Cleanup(func() { exec.Command("nft", "delete", "table", "inet", "guard").Run() })
	l.nft(`add table inet guard
add chain inet guard input { type filter hook input priority 0; policy drop; }
add rule inet guard input iifname "lo" accept
add rule inet guard input ct state established,related accept
add rule inet guard input meta l4proto ipv6-icmp accept
`)
	l.want("client", "198.51.100.2:8080", "")
	l.want("client", "[2001:db8::2]:8080", "")
	l.want("client", "198.51.100.2:8081", "")
	l.wantBy("udp", "client", "198.51.100.2:5353", "")
	l.want("host", "127.0.0.1:8080", "a1 172.30.1.1") // the host itself, and containers, are not guarded against
	l.want("a1", "198.51.100.2:8080", "a1 172.30.1.1")
	l.nft("add rule inet guard input ip saddr 198.51.100.0/24 tcp dport { 8080, 8081 } accept\n")
	l.want("client", "198.51.100.2:8080", "a1 198.51.100.1")
	l.want("client", "198.51.100.2:8081", "a1 198.51.100.1")
	l.want("client", "[2001:db8::2]:8080", "")
	eventually(t, "a connection that need not wait", func() bool { // the look at the changed rules may still be under way, which ends admissions
		start := time.Now()
		l.want("client", "198.51.100.2:8080", "a1 198.51.100.1")
		return time.Since(start) < 900*time.Millisecond
	})
	l.nft("add rule inet guard input meta l4proto { tcp, udp } th dport { 8080, 5353 } accept\n")
	l.want("client", "[2001:db8::2]:8080", "a1 2001:db8::1")
	c, err := l.dial("client", "udp", "198.51.100.2:5353", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got := ""
	for range 10 { // the first datagram asks for admission
		if got, err = ask(c, 300*time.Millisecond); err == nil {
			break
		}
	}
	if got != "a1 198.51.100.1" {
		t.Errorf("by udp: %q, %v", got, err)
	}
	l.want("client", "198.51.100.2:9000", "")

	// what was let in is not any more as soon as the policy says so
	l.nft("flush chain inet guard input\n")
	eventually(t, "the end of the admission", func() bool { return !strings.Contains(listed(t, "berth-test"), "198.51.100.1 . tcp") })
	l.want("client", "198.51.100.2:8080", "")
}

// A host that forwards only since the engine has switched it on is no router between the interfaces that it had; others may come and use it.
func TestOnlyOurs(t *testing.T) {
	lan := func(l *lab, name string, third int) {
		host, side := fmt.Sprintf("203.0.%d.2", third), fmt.Sprintf("203.0.%d.1", third)
		l.place(name)
		l.ip("link add l-"+name+" type veth peer name eth0 netns "+l.path(name), "addr add "+host+"/24 dev l-"+name, "link set l-"+name+" up")
		l.ipIn(name, "link set lo up", "addr add "+side+"/24 dev eth0", "link set eth0 up", "route add default via "+host)
		l.serve(name, 80)
		t.Cleanup(func() { exec.Command("ip", "link", "del", "l-"+name).Run() })
	}
	l := newLab(t, Policy{})
	lan(l, "lan", 113)
	l.ipIn("client", "route add 203.0.0.0/16 via 198.51.100.2")
	l.serve("client", 80)
	l.serve("a1", 80)
	l.want("client", "203.0.113.1:80", "lan 198.51.100.1")
	l.fw.Remove(t.Context())
	l.fw.Close()
	var err error
	if l.fw, err = Open(t.Context(), Config{Table: "berth-test", Policy: Policy{OnlyOurs: true}}); err != nil {
		t.Fatal(err)
	}
	l.state.Ports = []Port{port("8080", "172.30.1.2:80")}
	l.replace()
	l.want("client", "203.0.113.1:80", "")
	l.want("client", "198.51.100.2:8080", "a1 198.51.100.1")
	l.want("lan", "203.0.113.2:8080", "a1 203.0.113.1")
	l.want("a1", "203.0.113.1:80", "lan 203.0.113.2")
	l.want("a1", "198.51.100.1:80", "client 198.51.100.2")
	lan(l, "later", 114)
	l.want("client", "203.0.114.1:80", "later 198.51.100.1")
	l.want("later", "198.51.100.1:80", "client 203.0.114.1")
}
