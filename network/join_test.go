package network

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"berth/base/fault"
	"berth/kernel/link"
)

func TestDefaultBridge(t *testing.T) {
	h := newRoom(t, nil)
	n, err := h.Get("bridge")
	if err != nil {
		t.Fatal(err)
	}
	if len(n.IPAM.Pools) != 1 || n.IPAM.Pools[0].Subnet.String() != "172.17.0.0/16" || n.IPAM.Pools[0].Gateway.String() != "172.17.0.1" {
		t.Errorf("pools: %+v", n.IPAM.Pools)
	}
	if n.Options["com.docker.network.bridge.name"] != "docker0" {
		t.Errorf("options: %v", n.Options)
	}
	var names []string
	for _, x := range h.List() {
		names = append(names, x.Name)
	}
	if slices.Sort(names); !slices.Equal(names, []string{"bridge", "host", "none"}) {
		t.Errorf("networks: %v", names)
	}
	a, b := want("a", "bridge"), want("b", "bridge")
	a.Ports = []PortSpec{{Port: 80, Proto: "tcp", HostFirst: 8080}}
	sa, sb := h.join(a), h.join(b)
	e := sa.Endpoints[0]
	if e.IPv4.String() != "172.17.0.2/16" || e.MAC != "02:42:ac:11:00:02" || e.Gateway4.String() != "172.17.0.1" || e.Interface != "eth0" {
		t.Errorf("endpoint: %s", show(e))
	}
	h.serve(sa, ":80", "from a")
	if got, err := h.askFrom(sb, "172.17.0.2:80"); got != "from a 172.17.0.3" {
		t.Errorf("container to container: %q %v", got, err)
	}
	if got, err := ask("172.17.0.2:80"); got != "from a 172.17.0.1" {
		t.Errorf("host to container: %q %v", got, err)
	}
	for _, at := range []string{"127.0.0.1:8080", "172.17.0.1:8080", "[::1]:8080"} {
		if got, err := ask(at); !strings.HasPrefix(got, "from a") {
			t.Errorf("published at %s: %q %v", at, got, err)
		}
		if at[:3] != "172" {
			continue
		}
		if got, err := h.askFrom(sb, at); !strings.HasPrefix(got, "from a") {
			t.Errorf("published, from another container: %q %v", got, err)
		}
		if got, err := h.askFrom(sa, at); !strings.HasPrefix(got, "from a") {
			t.Errorf("published, from itself: %q %v", got, err)
		}
	}
	c := want("c", "bridge")
	c.Ports = []PortSpec{{Port: 80, Proto: "tcp", HostFirst: 8080}}
	_, err = h.Join(ctx, c)
	fails(t, err, fault.Conflict, "failed: port is already allocated (by container a)")
	if !strings.HasPrefix(err.Error(), "driver failed programming external connectivity on endpoint c (") {
		t.Error(err)
	}
	if err := h.Leave(ctx, a.ContainerID); err != nil {
		t.Error(err)
	}
	sc := h.join(c)
	if got := sc.Endpoints[0].IPv4.String(); got != "172.17.0.2/16" {
		t.Errorf("the address is not given again: %s", got)
	}
	h.serve(sc, ":80", "from c")
	if got, err := ask("127.0.0.1:8080"); !strings.HasPrefix(got, "from c") {
		t.Errorf("published by the next: %q %v", got, err)
	}
	if got, err := h.askFrom(sb, "172.17.0.2:80"); got != "from c 172.17.0.3" {
		t.Errorf("container to the next: %q %v", got, err)
	}
	want := "connect bridge " + c.ContainerID
	if !slices.Contains(h.events, want) {
		t.Errorf("events %v lack %q", h.events, want)
	}
}

// TestManyRestarts restarts the engine again and again; the default network stays what it was, with who runs on it.
func TestManyRestarts(t *testing.T) {
	h := newRoom(t, func(c *Config) { c.IPv6 = true })
	w := want("a", "bridge")
	before, _ := h.Get("bridge")
	s := h.join(w)
	for range 4 {
		h.reopen(w.ContainerID)
		if now, err := h.Get("bridge"); err != nil || show(now) != show(before) {
			t.Fatalf("the default network is\n%s\nwas\n%s\n%v", show(now), show(before), err)
		}
		if now, _ := h.Sandbox(w.ContainerID); show(now) != show(s) {
			t.Fatalf("the sandbox is\n%s\nwas\n%s", show(now), show(s))
		}
		if x := h.named("bridge"); !x.view.DefaultAlloc || len(x.endpoints) != 1 {
			t.Error(x.view)
		}
		next := h.join(want("b", "bridge"))
		if next.Endpoints[0].IPv4 == s.Endpoints[0].IPv4 {
			t.Error("one address for two")
		}
		h.Leave(ctx, next.ContainerID)
	}
}

// TestNothingIsLeft joins and leaves again and again; afterwards the host is as before.
func TestNothingIsLeft(t *testing.T) {
	h := newRoom(t, nil)
	h.create(CreateRequest{Name: "own"})
	rounds := 20
	if os.Getenv("BERTH_SOAK") != "" {
		rounds = 1000
	}
	rules, links := h.Rules(), h.links()
	for i := range rounds {
		w := want("c", "bridge", "own")
		w.Ports = []PortSpec{{Port: 80, Proto: "tcp", HostFirst: 8080}, {Port: 53, Proto: "udp"}}
		h.join(w)
		if i%5 == 0 {
			w2 := w
			w2.ContainerID, w2.Name = w.ContainerID[:60]+"ffff", "d"
			if _, err := h.Join(ctx, w2); !fault.Is(err, fault.Conflict) {
				t.Fatal(err)
			}
		}
		if err := h.Leave(ctx, w.ContainerID); err != nil {
			t.Fatal(err)
		}
		if err := h.Leave(ctx, w.ContainerID); err != nil {
			t.Fatal(err)
		}
	}
	soon(t, "links are as before", func() bool { return slices.Equal(h.links(), links) })
	if got := h.Rules(); got != rules {
		t.Errorf("rules are left:\n%s\nbefore:\n%s", got, rules)
	}
	soon(t, "nothing is parked", func() bool { names, _ := h.keeper.Parked(ctx); return len(names) == 0 })
	if h.ports.Count() != 0 {
		t.Error("ports are held")
	}
	for _, x := range h.nets {
		for _, p := range x.pools {
			if a, err := p.Next(); err != nil || a != x.view.Pools[0].Gateway.Next() {
				t.Errorf("%s: next address is %v %v", x.Name, a, err)
			} else {
				p.Give(a)
			}
		}
	}
	files, _ := os.ReadDir(h.sandboxDir())
	if len(files) != 0 {
		t.Errorf("files: %v", files)
	}
	h.Close()
	ns, _ := os.ReadDir(h.nsDir())
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	if len(ns) != 0 || strings.Contains(string(mounts), h.nsDir()) {
		t.Errorf("namespaces: %v", ns)
	}
	h.open()
}

func TestRestart(t *testing.T) {
	h := newRoom(t, nil)
	h.create(CreateRequest{Name: "own", IPAM: IPAM{Pools: []Pool{{Subnet: netip.MustParsePrefix("10.9.0.0/24")}}}})
	a, b := want("a", "own"), want("b", "own")
	a.Ports = []PortSpec{{Port: 80, Proto: "tcp", HostFirst: 8081}}
	sa := h.join(a)
	h.join(b)
	h.serve(sa, ":80", "from a")
	h.reopen(a.ContainerID)
	got, ok := h.Sandbox(a.ContainerID)
	if !ok || show(got) != show(sa) {
		t.Errorf("the sandbox is another:\n%s\nwas\n%s", show(got), show(sa))
	}
	if _, ok := h.Sandbox(b.ContainerID); ok {
		t.Error("a container that does not run has a sandbox")
	}
	if got, err := ask("127.0.0.1:8081"); !strings.HasPrefix(got, "from a") {
		t.Errorf("published: %q %v", got, err)
	}
	c := want("c", "own")
	if got := h.join(c).Endpoints[0].IPv4.String(); got != "10.9.0.3/24" {
		t.Errorf("address after a restart: %s", got)
	}
	// A bridge that somebody deletes is made again, with the containers that run on it.
	conn, err := link.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Do(link.DeleteNamed(h.boxes[a.ContainerID].net(h).view.Bridge)); err != nil {
		t.Fatal(err)
	}
	h.reopen(a.ContainerID, c.ContainerID)
	sc, _ := h.Sandbox(c.ContainerID)
	if got, err := h.askFrom(sc, "10.9.0.2:80"); !strings.HasPrefix(got, "from a") {
		t.Errorf("after the bridge was lost: %q %v", got, err)
	}
	if err := h.Remove(ctx, "own"); !fault.Is(err, fault.Forbidden) || !strings.Contains(err.Error(), `error while removing network: network own has active endpoints (name:"a" id:"`) {
		t.Error(err)
	}
}

func (b *box) net(h *harness) *entry { return h.nets[b.Endpoints[0].NetworkID] }

// An endpoint that is fixed to a network's id does not lead into another of the name.
func TestEndpointOfOneNetwork(t *testing.T) {
	h := newRoom(t, nil)
	first, _, err := h.Create(t.Context(), CreateRequest{Name: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	w := want("a", "shop")
	w.Endpoints[0].ID = first.ID
	if _, err := h.Check(w); err != nil {
		t.Fatal(err)
	}
	if err := h.Remove(t.Context(), "shop"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.Create(t.Context(), CreateRequest{Name: "shop"}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Join(t.Context(), w); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "another network has that name") {
		t.Errorf("it joins another's network: %v", err)
	}
	w.Endpoints[0].ID = ""
	h.join(w)
}
