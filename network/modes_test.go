package network

import (
	"net/netip"
	"strings"
	"testing"

	"berth/kernel/link"
)

// via gives a second host a route through us.
func (h *harness) via(far Sandbox, to, gateway string) {
	h.t.Helper()
	err := h.in(far, func() error {
		c, err := link.Dial()
		if err != nil {
			return err
		}
		defer c.Close()
		l, err := c.ByName("eth0")
		if err != nil {
			return err
		}
		return c.Do(link.AddRoute(link.Route{To: prefix(to), Via: addr(gateway), Index: l.Index}))
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

// TestRouted publishes ports of a network whose containers are reached by their own addresses.
func TestRouted(t *testing.T) {
	h := newRoom(t, nil)
	far := h.otherHost("10.3.0.200/24", "")
	h.hostAddress("10.3.0.1/24")
	h.via(far, "10.1.0.0/16", "10.3.0.1")
	h.create(CreateRequest{Name: "routed", IPAM: subnet("10.1.1.0/24"), Options: map[string]string{"com.docker.network.bridge.gateway_mode_ipv4": "routed"}})
	h.create(CreateRequest{Name: "hidden", IPAM: subnet("10.1.2.0/24")})
	a, b := want("a", "routed"), want("b", "hidden")
	a.Ports = []PortSpec{{Port: 80, Proto: "tcp", HostFirst: 8080}}
	b.Ports = []PortSpec{{Port: 80, Proto: "tcp", HostFirst: 8081}}
	sa, sb := h.join(a), h.join(b)
	for _, s := range []Sandbox{sa, sb} {
		h.serve(s, ":80", "in")
		h.serve(s, ":81", "not published")
	}
	h.serve(far, ":80", "far")
	if got, err := h.askFrom(far, "10.1.1.2:80"); got != "in 10.3.0.200" {
		t.Errorf("published, routed: %q %v", got, err)
	}
	if got, err := h.askFrom(sa, "10.3.0.200:80"); got != "far 10.1.1.2" {
		t.Errorf("out, routed: %q %v", got, err)
	}
	for _, at := range []string{"10.1.1.2:81", "10.1.2.2:80", "10.1.2.2:81"} {
		if got, err := h.askFrom(far, at); err == nil {
			t.Errorf("%s: %q", at, got)
		}
	}
	if got, err := h.askFrom(far, "10.3.0.1:8081"); got != "in 10.3.0.200" {
		t.Errorf("published by the host: %q %v", got, err)
	}
	if got, err := ask("10.1.1.2:81"); !strings.HasPrefix(got, "not published") {
		t.Errorf("from the host itself: %q %v", got, err)
	}
}

// TestIsolated makes an internal network of which the host has no address.
func TestIsolated(t *testing.T) {
	h := newRoom(t, nil)
	h.create(CreateRequest{Name: "iso", Internal: true, IPAM: subnet("10.1.1.0/24"), Options: map[string]string{"com.docker.network.bridge.gateway_mode_ipv4": "isolated"}})
	sa, sb := h.join(want("a", "iso")), h.join(want("b", "iso"))
	h.serve(sa, ":80", "a")
	if got, err := h.askFrom(sb, sa.Endpoints[0].IPv4.Addr().String()+":80"); !strings.HasPrefix(got, "a ") {
		t.Errorf("inside: %q %v", got, err)
	}
	if got, err := ask(sa.Endpoints[0].IPv4.Addr().String() + ":80"); err == nil {
		t.Errorf("from the host: %q", got)
	}
}

// TestAllAddressesAreContainers makes internal networks where the host has no address: none is set aside for a gateway.
func TestAllAddressesAreContainers(t *testing.T) {
	h := newRoom(t, nil)
	for _, options := range []map[string]string{{"com.docker.network.bridge.gateway_mode_ipv4": "isolated"}, {"com.docker.network.bridge.inhibit_ipv4": "true"}} {
		n := h.create(CreateRequest{Name: "two", Internal: true, IPAM: subnet("10.1.1.0/31"), Options: options})
		if n.IPAM.Pools[0].Gateway.IsValid() {
			t.Error(show(n))
		}
		first, second := want("a", "two"), want("b", "two")
		sa, sb := h.join(first), h.join(second)
		if a, b := sa.Endpoints[0].IPv4, sb.Endpoints[0].IPv4; a != prefix("10.1.1.0/31") || b != prefix("10.1.1.1/31") {
			t.Error(a, b)
		}
		h.serve(sa, ":80", "a")
		if got, err := h.askFrom(sb, "10.1.1.0:80"); !strings.HasPrefix(got, "a ") {
			t.Errorf("%v: %q %v", options, got, err)
		}
		for _, w := range []Want{first, second} {
			if err := h.Leave(ctx, w.ContainerID); err != nil {
				t.Error(err)
			}
		}
		if err := h.Remove(ctx, "two"); err != nil {
			t.Error(err)
		}
	}
}

// TestAddressesOfTheHost publishes on single addresses of the host, of either family, for a container without IPv6.
func TestAddressesOfTheHost(t *testing.T) {
	h := newRoom(t, nil)
	far := h.otherHost("10.3.0.200/24", "fd03::200/64")
	h.hostAddress("10.3.0.1/24", "fd03::1/64")
	a := want("a", "bridge")
	for i, ip := range []string{"::1", "fd03::1", "10.3.0.1", "127.0.0.1"} {
		a.Ports = append(a.Ports, PortSpec{Port: 80, Proto: "tcp", HostIP: netip.MustParseAddr(ip), HostFirst: uint16(8080 + i)})
	}
	s := h.join(a)
	h.serve(s, ":80", "a")
	for _, c := range []struct {
		far  bool
		at   string
		want bool
	}{
		{false, "[::1]:8080", true}, {false, "[fd03::1]:8081", true}, {true, "[fd03::1]:8081", true}, {true, "10.3.0.1:8082", true}, {false, "10.3.0.1:8082", true},
		{false, "127.0.0.1:8083", true}, {true, "10.3.0.1:8083", false}, {true, "[fd03::1]:8080", false}, {false, "127.0.0.1:8082", false},
	} {
		var got string
		var err error
		if c.far {
			got, err = h.askFrom(far, c.at)
		} else {
			got, err = ask(c.at)
		}
		if reached := strings.HasPrefix(got, "a "); reached != c.want {
			t.Errorf("%s, from outside %v: %q %v", c.at, c.far, got, err)
		}
	}
}
