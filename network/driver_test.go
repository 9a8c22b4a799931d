package network

import (
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"berth/base/fault"
	"berth/kernel/link"
	"berth/kernel/netns"
	"berth/kernel/netns/alone"
)

// otherHost is a second host: a namespace behind a link of ours, up0, with an address of each family on its end.
func (h *harness) otherHost(four, six string) Sandbox {
	h.t.Helper()
	path := filepath.Join(h.t.TempDir(), "ns")
	if err := netns.CreateWith(path, alone.LoopbackUp); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { netns.Remove(path) })
	ns, err := netns.Open(path)
	if err != nil {
		h.t.Fatal(err)
	}
	defer ns.Close()
	c, err := link.Dial()
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Do(link.DeleteNamed("up0").IfThere()); c.Close() })
	if err := c.Do(link.Add(link.Link{Name: "up0", Kind: "veth", MTU: 1400, Up: true, Peer: &link.Link{Name: "eth0", MTU: 1400, NS: ns}})); err != nil {
		h.t.Fatal(err)
	}
	s := Sandbox{Key: path}
	err = h.in(s, func() error {
		in, err := link.Dial()
		if err != nil {
			return err
		}
		defer in.Close()
		l, err := in.ByName("eth0")
		if err != nil {
			return err
		}
		ops := []link.Op{link.AddAddress(l.Index, prefix(four)), link.Set(l.Index, link.Change{Up: true})}
		if six != "" {
			ops = append(ops, link.AddAddress(l.Index, prefix(six)))
		}
		return in.Do(ops...)
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

// hostAddress gives the host an address on up0.
func (h *harness) hostAddress(prefixes ...string) {
	h.t.Helper()
	c, err := link.Dial()
	if err != nil {
		h.t.Fatal(err)
	}
	defer c.Close()
	l, err := c.ByName("up0")
	if err != nil {
		h.t.Fatal(err)
	}
	for _, p := range prefixes {
		if err := c.Do(link.AddAddress(l.Index, prefix(p))); err != nil {
			h.t.Fatal(err)
		}
	}
}

// TestOnParents runs macvlan and ipvlan in their modes, against a second host.
func TestOnParents(t *testing.T) {
	for _, c := range []struct {
		driver, option, mode string
		each                 bool // containers reach each other
		one                  bool // there is room for one container
	}{
		{"macvlan", "macvlan_mode", "bridge", true, false}, {"macvlan", "macvlan_mode", "private", false, false},
		{"macvlan", "macvlan_mode", "vepa", false, false}, {"macvlan", "macvlan_mode", "passthru", false, true},
		{"ipvlan", "ipvlan_mode", "l2", true, false}, {"ipvlan", "ipvlan_mode", "l3", true, false},
	} {
		t.Run(c.driver+" "+c.mode, func(t *testing.T) {
			h := newRoom(t, nil)
			far := h.otherHost("10.3.0.200/24", "fd03::200/64")
			yes := true
			r := CreateRequest{Name: "lan", Driver: c.driver, IPv6: &yes, Options: map[string]string{"parent": "up0", c.option: c.mode},
				IPAM: IPAM{Pools: []Pool{{Subnet: prefix("10.3.0.0/24"), Gateway: addr("10.3.0.200")}, {Subnet: prefix("fd03::/64"), Gateway: addr("fd03::200")}}}}
			h.create(r)
			r.Name = "lan2"
			r.IPAM = IPAM{}
			_, _, err := h.Create(ctx, r)
			fails(t, err, fault.Conflict, "network lan is already using parent interface up0")
			a, b := want("a", "lan"), want("b", "lan")
			a.Ports = []PortSpec{{Port: 80, Proto: "tcp", HostFirst: 8080}}
			sa, err := h.Join(ctx, a)
			if fault.Is(err, fault.NotImplemented) {
				t.Skipf("needs a kernel with %s links: %v", c.driver, err)
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(sa.Ports) != 0 || !sa.Resolver {
				t.Error(show(sa))
			}
			h.serve(sa, ":80", "a")
			h.serve(far, ":80", "far")
			if got, err := h.askFrom(sa, "10.3.0.200:80"); !strings.HasPrefix(got, "far 10.3.0.1") {
				t.Errorf("to the other host: %q %v", got, err)
			}
			if got, err := h.askFrom(sa, "[fd03::200]:80"); !strings.HasPrefix(got, "far fd03::1") {
				t.Errorf("to the other host by IPv6: %q %v", got, err)
			}
			if got, err := h.askFrom(far, sa.Endpoints[0].IPv4.Addr().String()+":80"); !strings.HasPrefix(got, "a 10.3.0.200") {
				t.Errorf("from the other host: %q %v", got, err)
			}
			if c.one {
				_, err := h.Join(ctx, b)
				if err == nil {
					t.Error("two containers have one parent to themselves")
				}
				return
			}
			sb := h.join(b)
			got, err := h.askFrom(sb, sa.Endpoints[0].IPv4.Addr().String()+":80")
			if reached := strings.HasPrefix(got, "a "); reached != c.each {
				t.Errorf("container to container: %q %v", got, err)
			}
			h.reopen(a.ContainerID, b.ContainerID)
			if err := h.Leave(ctx, a.ContainerID); err != nil {
				t.Error(err)
			}
			// The address is the next one's at once, though the namespace still stands: a socket of ours is in it.
			sc := h.join(want("c", "lan"))
			if sc.Endpoints[0].IPv4 != sa.Endpoints[0].IPv4 {
				t.Error(show(sc))
			}
			h.serve(sc, ":80", "c")
			if got, err := h.askFrom(far, sc.Endpoints[0].IPv4.Addr().String()+":80"); !strings.HasPrefix(got, "c ") {
				t.Errorf("after another had the address: %q %v", got, err)
			}
		})
	}
}

// TestVLAN makes a network on a VLAN of a parent, which comes and goes with it.
func TestVLAN(t *testing.T) {
	h := newRoom(t, nil)
	h.otherHost("10.3.0.200/24", "")
	before := h.links()
	_, _, err := h.Create(ctx, CreateRequest{Name: "v", Driver: "macvlan", Options: map[string]string{"parent": "up0.30"}})
	if fault.Is(err, fault.NotImplemented) {
		t.Skipf("needs a kernel with VLANs: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(h.links(), "up0.30") {
		t.Error("no VLAN link")
	}
	h.reopen()
	h.join(want("a", "v"))
	h.Recovered(func(string) bool { return false })
	if err := h.Remove(ctx, "v"); err != nil {
		t.Error(err)
	}
	soon(t, "links are as before", func() bool { return slices.Equal(h.links(), before) })
}

// TestOwnParent makes a network on a parent of our own.
func TestOwnParent(t *testing.T) {
	h := newRoom(t, nil)
	before := h.links()
	h.create(CreateRequest{Name: "own", Driver: "macvlan", IPAM: subnet("10.4.0.0/24")})
	a, b := want("a", "own"), want("b", "own")
	sa, sb := h.join(a), h.join(b)
	h.serve(sa, ":80", "a")
	if got, err := h.askFrom(sb, "10.4.0.2:80"); !strings.HasPrefix(got, "a ") {
		t.Errorf("on a parent of our own: %q %v", got, err)
	}
	h.reopen(a.ContainerID, b.ContainerID)
	h.Leave(ctx, a.ContainerID)
	h.Leave(ctx, b.ContainerID)
	if err := h.Remove(ctx, "own"); err != nil {
		t.Error(err)
	}
	if got := h.links(); !slices.Equal(got, before) {
		t.Errorf("links: %v, before %v", got, before)
	}
}

// TestFromOutside publishes ports to a second host, over both families, and looks whose address arrives.
func TestFromOutside(t *testing.T) {
	h := newRoom(t, func(c *Config) { c.IPv6 = true })
	far := h.otherHost("10.3.0.200/24", "fd03::200/64")
	h.hostAddress("10.3.0.1/24", "fd03::1/64")
	yes := true
	h.create(CreateRequest{Name: "dual", IPv6: &yes})
	w := want("a", "dual")
	w.Ports = []PortSpec{{Port: 80, Proto: "tcp", HostFirst: 8080}}
	s := h.join(w)
	e := s.Endpoints[0]
	if !e.IPv6.IsValid() || e.IPv6.Bits() != 64 || !netip.MustParsePrefix("fd00::/8").Contains(e.IPv6.Addr()) {
		t.Fatal(show(e))
	}
	if len(s.Ports) != 2 || s.Ports[0].HostPort != s.Ports[1].HostPort {
		t.Error(show(s.Ports))
	}
	h.serve(s, ":80", "a")
	h.serve(far, ":80", "far")
	for at, want := range map[string]string{"10.3.0.1:8080": "a 10.3.0.200", "[fd03::1]:8080": "a fd03::200"} {
		if got, err := h.askFrom(far, at); got != want {
			t.Errorf("%s: %q %v, want %q\n%s", at, got, err, want, h.Rules())
		}
	}
	for at, want := range map[string]string{"10.3.0.200:80": "far 10.3.0.1", "[fd03::200]:80": "far fd03::1"} {
		if got, err := h.askFrom(s, at); got != want {
			t.Errorf("out to %s: %q %v, want %q", at, got, err, want)
		}
	}
	d := want("b", "bridge")
	if s := h.join(d); !s.Endpoints[0].IPv6.IsValid() {
		t.Error(show(s))
	}
}

func TestIPv6Only(t *testing.T) {
	h := newRoom(t, nil)
	yes, no := true, false
	n := h.create(CreateRequest{Name: "six", IPv4: &no, IPv6: &yes})
	if len(n.IPAM.Pools) != 1 || !n.IPAM.Pools[0].Subnet.Addr().Is6() {
		t.Error(show(n))
	}
	a, b := want("a", "six"), want("b", "six")
	a.Ports = []PortSpec{{Port: 80, Proto: "tcp", HostFirst: 8080}}
	sa, sb := h.join(a), h.join(b)
	h.serve(sa, ":80", "a")
	if got, err := h.askFrom(sb, netip.AddrPortFrom(sa.Endpoints[0].IPv6.Addr(), 80).String()); !strings.HasPrefix(got, "a ") {
		t.Errorf("%q %v", got, err)
	}
	again := h.create(CreateRequest{Name: "six2", IPv6: &yes})
	if a, b := n.IPAM.Pools[0].Subnet, again.IPAM.Pools[1].Subnet; a.Addr().As16()[0] != 0xfd || a == b || [6]byte(a.Addr().AsSlice()[:6]) != [6]byte(b.Addr().AsSlice()[:6]) {
		t.Errorf("%s and %s are not of one prefix of ours", a, b)
	}
}
