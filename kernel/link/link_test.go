package link_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/link"
	"berth/kernel/netns"
	"berth/kernel/netns/alone"
)

func TestMain(m *testing.M) { os.Exit(alone.Main(m)) }

func dial(t testing.TB) *link.Conn {
	t.Helper()
	alone.Need(t)
	c, err := link.Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func namespace(t testing.TB) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ns")
	if err := netns.Create(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netns.Remove(path) })
	ns, err := netns.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// do makes what the kernel has and skips the test where it has no such kind.
func do(t testing.TB, c *link.Conn, ops ...link.Op) {
	t.Helper()
	err := c.Do(ops...)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT) {
		t.Skipf("needs a kernel facility: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func find(t testing.TB, c *link.Conn, name string) link.Info {
	t.Helper()
	i, err := c.ByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// TestVethInOneMessage makes what a container's start makes: both ends, in two namespaces, with all they need.
func TestVethInOneMessage(t *testing.T) {
	c := dial(t)
	ns := namespace(t)
	do(t, c, link.Add(link.Link{Name: "br7", Kind: "bridge", Up: true, Bridge: &link.BridgeOptions{}}))
	br := find(t, c, "br7")
	defer c.Do(link.Delete(br.Index))
	mac := net.HardwareAddr{2, 0x42, 172, 17, 0, 2}
	do(t, c, link.Add(link.Link{
		Name: "veth7", Kind: "veth", MTU: 1400, Master: br.Index, Up: true,
		Peer: &link.Link{Name: "eth0", MTU: 1400, MAC: mac, NS: ns},
	}))
	host := find(t, c, "veth7")
	if host.Master != br.Index || host.MTU != 1400 || !host.Up || host.Kind != "veth" {
		t.Errorf("host end: %+v", host)
	}
	in, err := link.DialIn(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	do(t, in, link.Set(find(t, in, "eth0").Index, link.Change{Up: true}))
	eth := find(t, in, "eth0")
	if eth.MAC.String() != mac.String() || eth.MTU != 1400 || !eth.Up {
		t.Errorf("container's end: %+v", eth)
	}
	a4, a6 := netip.MustParsePrefix("172.17.0.2/16"), netip.MustParsePrefix("fd00:7::2/64")
	do(t, in,
		link.AddAddress(eth.Index, a4), link.AddAddress(eth.Index, a6),
		link.AddRoute(link.Route{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("172.17.0.1"), Index: eth.Index}),
		link.AddRoute(link.Route{To: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr("fd00:7::1"), Index: eth.Index}),
	)
	got, err := in.Addresses(eth.Index)
	if err != nil {
		t.Fatal(err)
	}
	have := map[netip.Prefix]bool{}
	for _, a := range got {
		have[a.Prefix] = true
	}
	if !have[a4] || !have[a6] {
		t.Errorf("addresses: %v", got)
	}
	routes, err := in.Routes()
	if err != nil {
		t.Fatal(err)
	}
	defaults := 0
	for _, r := range routes {
		if r.To.Bits() == 0 && r.Via.IsValid() && r.Index == eth.Index {
			defaults++
		}
	}
	if defaults != 2 {
		t.Errorf("routes: %+v", routes)
	}
	do(t, c, link.SetPort("veth7", link.Port{Isolated: true, Hairpin: true}), link.CutPort(host.Index))
	do(t, c, link.Delete(host.Index))
	if _, err := in.ByName("eth0"); !fault.Is(err, fault.NotFound) {
		t.Errorf("the peer outlives its end: %v", err)
	}
}

// TestBatch checks that the first refusal is told and that the others are done.
func TestBatch(t *testing.T) {
	c := dial(t)
	err := c.Do(
		link.Add(link.Link{Name: "b1", Kind: "bridge"}),
		link.Add(link.Link{Name: "b1", Kind: "bridge"}),
		link.Add(link.Link{Name: "b2", Kind: "bridge"}),
		link.Add(link.Link{Name: "b2", Kind: "bridge"}).OrExists(),
		link.DeleteNamed("b9").IfThere(),
		link.DeleteNamed("b9"),
	)
	var e *link.Error
	if !errors.As(err, &e) || e.Index != 1 || e.Errno != unix.EEXIST || !fault.Is(err, fault.Conflict) {
		t.Errorf("got %v", err)
	}
	for _, n := range []string{"b1", "b2"} {
		do(t, c, link.DeleteNamed(n))
	}
	var many []link.Op
	for range 70 { // more than a datagram
		many = append(many, link.Add(link.Link{Name: "many%d", Kind: "bridge"}))
	}
	do(t, c, many...)
	list, err := c.Links()
	if err != nil {
		t.Fatal(err)
	}
	var gone []link.Op
	for _, l := range list {
		if l.Kind == "bridge" {
			gone = append(gone, link.Delete(l.Index))
		}
	}
	if len(gone) != 70 {
		t.Errorf("%d bridges, want 70", len(gone))
	}
	do(t, c, gone...)
}

func TestKinds(t *testing.T) {
	for _, l := range []link.Link{
		{Name: "mv", Kind: "macvlan", Mode: "bridge"}, {Name: "mv", Kind: "macvlan", Mode: "private"},
		{Name: "mv", Kind: "macvlan", Mode: "vepa"}, {Name: "mv", Kind: "macvlan", Mode: "passthru"},
		{Name: "iv", Kind: "ipvlan", Mode: "l2"}, {Name: "iv", Kind: "ipvlan", Mode: "l3", Flag: "private"},
		{Name: "vl", Kind: "vlan", VLAN: 300},
	} {
		t.Run(l.Kind+l.Mode, func(t *testing.T) {
			c := dial(t)
			do(t, c, link.Add(link.Link{Name: "up0", Kind: "veth", Up: true, Peer: &link.Link{Name: "up1"}}))
			up := find(t, c, "up0")
			defer c.Do(link.Delete(up.Index))
			l.Parent = up.Index
			do(t, c, link.Add(l))
			got := find(t, c, l.Name)
			if got.Kind != l.Kind || got.Parent != up.Index || got.VLAN != l.VLAN || l.Kind == "macvlan" && got.Mode != l.Mode {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// TestShapes makes every discipline and filter once; what they do is measured by the bridge driver's tests.
func TestShapes(t *testing.T) {
	c := dial(t)
	do(t, c, link.Add(link.Link{Name: "s0", Kind: "veth", Up: true, Peer: &link.Link{Name: "s1"}}))
	s0, s1 := find(t, c, "s0").Index, find(t, c, "s1").Index
	defer c.Do(link.Delete(s0))
	t.Run("tbf", func(t *testing.T) {
		do(t, c, link.TBF(s0, 10_000_000, 32<<10, 64<<10), link.TBF(s0, 80_000_000_000, 1<<20, 1<<20))
	})
	t.Run("police", func(t *testing.T) {
		do(t, c, link.ClsAct(s0), link.PoliceIn(s0, 10_000_000, 64<<10))
	})
	t.Run("redirect", func(t *testing.T) {
		do(t, c, link.Add(link.Link{Name: "ifb7", Kind: "ifb", Up: true}))
		defer c.Do(link.DeleteNamed("ifb7"))
		do(t, c, link.ClsAct(s1), link.RedirectIn(s1, find(t, c, "ifb7").Index))
	})
	t.Run("htb", func(t *testing.T) {
		do(t, c, link.HTB(s1, 1), link.HTBClass(s1, 0, 1, 1e9, 1e9, 1500), link.HTBClass(s1, 0, 2, 1e6, 1e9, 3000))
		v4, v6 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
		do(t, c, link.Classify(s1, link.Match{Address: v4.AsSlice()}, 2), link.Classify(s1, link.Match{Address: v6.AsSlice(), Source: true}, 2))
		do(t, c, link.Unclassify(s1, 2, false), link.Unclassify(s1, 2, true), link.DeleteClass(s1, 2))
	})
}

// FuzzMessages feeds the readers of what the kernel sends.
func FuzzMessages(f *testing.F) {
	f.Add([]byte{20, 0, 0, 0, 3, 0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) { link.Parse(b) })
}

func BenchmarkVeth(b *testing.B) {
	c := dial(b)
	ns := namespace(b)
	for b.Loop() {
		if err := c.Do(link.Add(link.Link{Name: "vb", Kind: "veth", Up: true, Peer: &link.Link{Name: "eth0", NS: ns}})); err != nil {
			b.Fatal(err)
		}
		if err := c.Do(link.DeleteNamed("vb")); err != nil {
			b.Fatal(err)
		}
	}
}
