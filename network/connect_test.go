package network

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"berth/base/fault"
	"berth/kernel/link"
)

func subnet(s string) IPAM { return IPAM{Pools: []Pool{{Subnet: netip.MustParsePrefix(s)}}} }

// defaults gives the default routes of a sandbox: "10.1.0.1 eth0".
func (h *harness) defaults(s Sandbox) (list []string) {
	h.t.Helper()
	err := h.in(s, func() error {
		c, err := link.Dial()
		if err != nil {
			return err
		}
		defer c.Close()
		routes, err := c.Routes()
		if err != nil {
			return err
		}
		for _, r := range routes {
			if r.To.Bits() == 0 && r.Index > 1 {
				l, err := c.ByIndex(r.Index)
				if err != nil {
					return err
				}
				list = append(list, strings.TrimSpace(strings.Replace(r.Via.String(), "invalid IP", "", 1)+" "+l.Name))
			}
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return list
}

func TestConnect(t *testing.T) {
	h := newRoom(t, nil)
	for name, cidr := range map[string]string{"mid": "10.1.1.0/24", "zed": "10.1.2.0/24", "alf": "10.1.3.0/24"} {
		h.create(CreateRequest{Name: name, IPAM: subnet(cidr)})
	}
	h.create(CreateRequest{Name: "inner", Internal: true, IPAM: subnet("10.1.4.0/24")})
	a, b := want("a", "mid"), want("b", "alf")
	a.Ports = []PortSpec{{Port: 80, Proto: "tcp", HostFirst: 8082}}
	sa, sb := h.join(a), h.join(b)
	h.serve(sa, ":80", "a")
	if got := h.defaults(sa); !slices.Equal(got, []string{"10.1.1.1 eth0"}) {
		t.Errorf("default routes: %v", got)
	}
	e, err := h.Connect(ctx, a, EndpointSpec{Network: "zed"})
	if err != nil {
		t.Fatal(err)
	}
	if e.Interface != "eth1" || e.IPv4.String() != "10.1.2.2/24" {
		t.Error(show(e))
	}
	if got := h.defaults(sa); !slices.Equal(got, []string{"10.1.1.1 eth0"}) {
		t.Errorf("default routes: %v", got)
	}
	// A network whose name is lower takes over, as in Docker, ports included; then one of higher priority.
	if _, err := h.Connect(ctx, a, EndpointSpec{Network: "alf", Options: map[string]string{"com.docker.network.endpoint.ifname": "wan7"}}); err != nil {
		t.Fatal(err)
	}
	check := func(route, target string) {
		t.Helper()
		if got := h.defaults(sa); !slices.Equal(got, []string{route}) {
			t.Errorf("default routes: %v, want %s", got, route)
		}
		now, _ := h.Sandbox(a.ContainerID)
		for _, p := range now.Ports {
			if p.Target.String() != target || p.HostPort != 8082 {
				t.Errorf("port: %s", show(p))
			}
		}
		if got, err := ask("127.0.0.1:8082"); !strings.HasPrefix(got, "a ") {
			t.Errorf("published: %q %v", got, err)
		}
	}
	check("10.1.3.1 wan7", "10.1.3.3")
	if _, err := h.Connect(ctx, a, EndpointSpec{Network: "inner"}); err != nil {
		t.Fatal(err)
	}
	check("10.1.3.1 wan7", "10.1.3.3")
	if got, err := h.askFrom(sb, "10.1.3.3:80"); !strings.HasPrefix(got, "a ") {
		t.Errorf("over the new network: %q %v", got, err)
	}
	if _, err := h.Connect(ctx, a, EndpointSpec{Network: "alf"}); !fault.Is(err, fault.Forbidden) {
		t.Error(err)
	}
	if err := h.Disconnect(ctx, a.ContainerID, "alf", false); err != nil {
		t.Fatal(err)
	}
	check("10.1.1.1 eth0", "10.1.1.2")
	if err := h.Disconnect(ctx, a.ContainerID, "alf", false); err == nil || !strings.Contains(err.Error(), "is not connected to network alf") {
		t.Error(err)
	}
	h.reopen(a.ContainerID)
	check("10.1.1.1 eth0", "10.1.1.2")
	if err := h.Disconnect(ctx, a.ContainerID, "mid", false); err != nil {
		t.Fatal(err)
	}
	check("10.1.2.1 eth1", "10.1.2.2")
	if got := len(h.Endpoints(h.named("mid").ID)); got != 0 {
		t.Errorf("%d endpoints are left", got)
	}
	if err := h.Remove(ctx, "mid"); err != nil {
		t.Error(err)
	}
	if err := h.Disconnect(ctx, a.ContainerID, "zed", false); err != nil {
		t.Fatal(err)
	}
	if got := h.defaults(sa); len(got) != 0 {
		t.Errorf("default routes: %v", got)
	}
	if n := h.ports.Count(); n != 0 {
		t.Errorf("%d ports are held of a container that nothing leads to", n)
	}
	if _, err := h.Connect(ctx, a, EndpointSpec{Network: "zed"}); err != nil {
		t.Fatal(err)
	}
	check("10.1.2.1 eth0", "10.1.2.2")
	// A connection that fails leaves all as it was.
	if _, err := h.Connect(ctx, a, EndpointSpec{Network: "alf", GwPriority: 1, Options: map[string]string{"com.docker.network.endpoint.sysctls": "net.ipv4.conf.IFNAME.nosuch=1"}}); err == nil {
		t.Error("a setting that does not exist is made")
	}
	check("10.1.2.1 eth0", "10.1.2.2")
	if n := len(h.Endpoints(h.named("alf").ID)); n != 0 {
		t.Errorf("%d endpoints are left of a connection that failed", n)
	}
}

func TestGatewayPriority(t *testing.T) {
	h := newRoom(t, nil)
	h.create(CreateRequest{Name: "x1", IPAM: subnet("10.1.1.0/24")})
	h.create(CreateRequest{Name: "x2", IPAM: subnet("10.1.2.0/24")})
	w := want("a", "x1")
	w.Endpoints = append(w.Endpoints, EndpointSpec{Network: "x2", GwPriority: 1, IPv4: netip.MustParseAddr("10.1.2.77"), MAC: "02:00:00:00:00:77"})
	s := h.join(w)
	if got := h.defaults(s); !slices.Equal(got, []string{"10.1.2.1 eth1"}) {
		t.Errorf("default routes: %v", got)
	}
	if e := s.Endpoints[0]; e.NetworkName != "x2" || e.IPv4.String() != "10.1.2.77/24" || e.MAC != "02:00:00:00:00:77" {
		t.Error(show(e))
	}
	w2 := want("b")
	w2.Endpoints = []EndpointSpec{{Network: "x2", IPv4: netip.MustParseAddr("10.1.2.77")}}
	_, err := h.Join(ctx, w2)
	fails(t, err, fault.Conflict, "Address already in use")
}

func TestNames(t *testing.T) {
	h := newRoom(t, nil)
	h.create(CreateRequest{Name: "own", IPAM: subnet("10.1.1.0/24")})
	h.create(CreateRequest{Name: "other", IPAM: subnet("10.1.2.0/24")})
	a, b, c, d := want("web", "own"), want("db", "own"), want("far", "other"), want("plain", "bridge")
	a.Endpoints[0].Aliases = []string{"www", "Shared"}
	b.Endpoints[0].Aliases = []string{"shared"}
	b.Endpoints[0].Links = []string{"web:front"}
	sa, sb, sc, sd := h.join(a), h.join(b), h.join(c), h.join(d)
	if !sa.Resolver || sd.Resolver {
		t.Error("who has the resolver")
	}
	for _, x := range []struct {
		from  Sandbox
		name  string
		want  string
		known bool
	}{
		{sb, "web", "[10.1.1.2]", true}, {sb, "www", "[10.1.1.2]", true}, {sb, "front", "[10.1.1.2]", true}, {sa, "front", "[]", false},
		{sb, a.ContainerID[:12], "[10.1.1.2]", true}, {sb, "web.own", "[10.1.1.2]", true}, {sa, "shared", "[10.1.1.2 10.1.1.3]", true},
		{sa, "web", "[10.1.1.2]", true}, {sc, "web", "[]", false}, {sa, "far", "[]", false}, {sa, "web.other", "[]", false}, {sd, "plain", "[]", false},
	} {
		got, _, known := h.Lookup(x.from.ID, x.name)
		if known != x.known || x.known && show(got) != show(mustAddrs(x.want)) {
			t.Errorf("%s: %v %v, want %s", x.name, got, known, x.want)
		}
	}
	if name, ok := h.Reverse(sa.ID, netip.MustParseAddr("10.1.1.3")); !ok || name != "db.own" {
		t.Error(name, ok)
	}
	h.Rename(a.ContainerID, "site")
	if _, _, known := h.Lookup(sb.ID, "web"); known {
		t.Error("the old name is still known")
	}
	if got, _, known := h.Lookup(sb.ID, "site"); !known || len(got) != 1 {
		t.Error("the new name is not known")
	}
	h.reopen(a.ContainerID, b.ContainerID)
	if got, _, known := h.Lookup(sb.ID, "site"); !known || len(got) != 1 {
		t.Error("the new name is not known after a restart")
	}
}

func mustAddrs(s string) (list []netip.Addr) {
	for _, f := range strings.Fields(strings.Trim(s, "[]")) {
		list = append(list, netip.MustParseAddr(f))
	}
	return list
}

func TestInternalAndICC(t *testing.T) {
	h := newRoom(t, nil)
	h.create(CreateRequest{Name: "inner", Internal: true, IPAM: subnet("10.1.1.0/24")})
	h.create(CreateRequest{Name: "apart", IPAM: subnet("10.1.2.0/24"), Options: map[string]string{"com.docker.network.bridge.enable_icc": "false"}})
	a, b, c, d := want("a", "inner"), want("b", "inner"), want("c", "apart"), want("d", "apart")
	a.Ports = []PortSpec{{Port: 80, Proto: "tcp"}}
	sa, sb, sc, sd := h.join(a), h.join(b), h.join(c), h.join(d)
	if got := h.defaults(sa); len(got) != 0 || len(sa.Ports) != 0 {
		t.Errorf("internal: %v %v", got, sa.Ports)
	}
	h.serve(sa, ":80", "a")
	h.serve(sc, ":80", "c")
	if got, err := h.askFrom(sb, "10.1.1.2:80"); !strings.HasPrefix(got, "a ") {
		t.Errorf("inside: %q %v", got, err)
	}
	if got, err := h.askFrom(sd, "10.1.2.2:80"); err == nil {
		t.Errorf("without ICC: %q", got)
	}
	if got, err := ask("10.1.2.2:80"); !strings.HasPrefix(got, "c ") {
		t.Errorf("the host: %q %v", got, err)
	}
	if got, err := h.askFrom(sb, "10.1.2.2:80"); err == nil {
		t.Errorf("from an internal network: %q", got)
	}
}

func TestEndpointOptions(t *testing.T) {
	h := newRoom(t, nil)
	h.create(CreateRequest{Name: "own", Options: map[string]string{"com.docker.network.container_iface_prefix": "lan", "com.docker.network.driver.mtu": "1280"}})
	w := want("a", "own", "bridge")
	w.Endpoints[0].Options = map[string]string{"com.docker.network.endpoint.sysctls": "net.ipv4.conf.ifname.log_martians=1,net.ipv4.neigh.IFNAME.base_reachable_time_ms=20000"}
	s := h.join(w)
	var martians, six, mtu string
	err := h.in(s, func() (err error) {
		if martians, err = link.Sysctl("net/ipv4/conf/lan0/log_martians"); err != nil {
			return err
		}
		if six, err = link.Sysctl("net/ipv6/conf/eth0/disable_ipv6"); err != nil {
			return err
		}
		c, err := link.Dial()
		if err != nil {
			return err
		}
		defer c.Close()
		l, err := c.ByName("lan0")
		mtu = map[bool]string{true: "1280"}[l.MTU == 1280]
		return err
	})
	if err != nil || martians != "1" || six != "1" || mtu != "1280" {
		t.Error(err, martians, six, mtu)
	}
	for _, bad := range []map[string]string{
		{"com.docker.network.endpoint.sysctls": "net.ipv4.ip_forward=1"}, {"com.docker.network.endpoint.sysctls": "net.ipv4.conf.eth0.log_martians=1"},
		{"com.docker.network.endpoint.sysctls": "net.ipv4.conf.IFNAME/../all.log_martians=1"},
		{"com.docker.network.endpoint.ifname": "much-too-long-a-name"}, {"com.docker.network.endpoint.ifname": "lo"}, {"com.docker.network.endpoint.ifname": "a/b"},
		{"berth.rate": "fast"}, {"berth.weight": "0"},
	} {
		w := want("b", "own")
		w.Endpoints[0].Options = bad
		if _, err := h.Check(w); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}
