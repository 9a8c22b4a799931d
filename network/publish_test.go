package network

import (
	"net/netip"
	"strings"
	"testing"

	"berth/base/fault"
)

func TestPublish(t *testing.T) {
	h := newRoom(t, nil)
	a, b := want("a", "bridge"), want("b", "bridge")
	a.Ports = []PortSpec{{Port: 80, Proto: "tcp", HostFirst: 9000, HostLast: 9010}}
	a.Publish = []PortSpec{{Port: 81, Proto: "tcp"}}
	sa, sb := h.join(a), h.join(b)
	h.serve(sa, ":80", "a")
	h.serve(sb, ":80", "b")
	if sa.Ports[0].HostPort != 9000 || sa.Ports[len(sa.Ports)-1].HostPort < 1024 {
		t.Error(show(sa.Ports))
	}
	if got, err := ask("127.0.0.1:9000"); !strings.HasPrefix(got, "a ") {
		t.Errorf("a range: %q %v", got, err)
	}
	ports, err := h.Publish(ctx, b, []PortSpec{{Port: 80, Proto: "tcp", HostFirst: 9000, HostLast: 9010}}, nil)
	if err != nil || ports[0].HostPort != 9001 {
		t.Fatal(show(ports), err)
	}
	if got, err := ask("127.0.0.1:9001"); !strings.HasPrefix(got, "b ") {
		t.Errorf("live: %q %v", got, err)
	}
	_, err = h.Publish(ctx, b, []PortSpec{{Port: 80, Proto: "tcp", HostFirst: 9000}}, nil)
	fails(t, err, fault.Conflict, "port is already allocated (by container a)")
	_, err = h.Publish(ctx, b, nil, []PortSpec{{Port: 99, Proto: "tcp"}})
	fails(t, err, fault.NotFound, "99/tcp")
	// Another port in the place of one, in one go.
	ports, err = h.Publish(ctx, b, []PortSpec{{Port: 80, Proto: "tcp", HostFirst: 9005, HostIP: netip.MustParseAddr("127.0.0.1")}}, []PortSpec{{Port: 80, Proto: "tcp", HostFirst: 9001}})
	if err != nil || len(ports) != 1 || ports[0].HostPort != 9005 {
		t.Fatal(show(ports), err)
	}
	if got, err := ask("127.0.0.1:9001"); err == nil {
		t.Errorf("withdrawn: %q", got)
	}
	if got, err := ask("127.0.0.1:9005"); !strings.HasPrefix(got, "b ") {
		t.Errorf("live: %q %v", got, err)
	}
	if got, err := ask("172.17.0.1:9005"); err == nil {
		t.Errorf("published on loopback alone: %q", got)
	}
	h.reopen(a.ContainerID, b.ContainerID)
	if got, err := ask("127.0.0.1:9005"); !strings.HasPrefix(got, "b ") {
		t.Errorf("after a restart: %q %v", got, err)
	}
	got, err := h.HandOver(ctx, a.ContainerID, b, []PortSpec{{Port: 80, Proto: "tcp"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) < 2 {
		t.Error(show(got))
	}
	if got, err := ask("127.0.0.1:9000"); !strings.HasPrefix(got, "b ") {
		t.Errorf("handed over: %q %v", got, err)
	}
	if err := h.Leave(ctx, a.ContainerID); err != nil {
		t.Fatal(err)
	}
	if got, err := ask("127.0.0.1:9000"); !strings.HasPrefix(got, "b ") {
		t.Errorf("after the giver has gone: %q %v", got, err)
	}
	if err := h.Leave(ctx, b.ContainerID); err != nil {
		t.Fatal(err)
	}
	if h.ports.Count() != 0 {
		t.Error("ports are held")
	}
	_, err = h.HandOver(ctx, a.ContainerID, b, nil)
	fails(t, err, fault.NotFound, "")
}

// A port that one container names is not the one that is chosen for another of its ports.
func TestPublishNamedFirst(t *testing.T) {
	h := newRoom(t, nil)
	a := want("a", "bridge")
	a.Ports = []PortSpec{{Port: 80, Proto: "tcp", HostFirst: 9000, HostLast: 9001}, {Port: 81, Proto: "tcp", HostFirst: 9000}}
	for _, p := range h.join(a).Ports {
		if at := map[uint16]uint16{80: 9001, 81: 9000}[p.Port]; p.HostPort != at {
			t.Errorf("port %d is published at %d, not %d", p.Port, p.HostPort, at)
		}
	}
}

func TestBindings(t *testing.T) {
	h := newRoom(t, func(c *Config) { c.BindIP = netip.MustParseAddr("127.0.0.1") })
	h.create(CreateRequest{Name: "own", Options: map[string]string{"com.docker.network.bridge.host_binding_ipv4": "127.0.0.5"}})
	a, b := want("a", "bridge"), want("b", "own")
	a.Ports = []PortSpec{{Port: 80, Proto: "tcp", HostFirst: 8080}}
	b.Ports = a.Ports
	if s := h.join(a); len(s.Ports) != 1 || s.Ports[0].HostIP.String() != "127.0.0.1" {
		t.Error(show(s.Ports))
	}
	if s := h.join(b); len(s.Ports) != 1 || s.Ports[0].HostIP.String() != "127.0.0.5" {
		t.Error(show(s.Ports))
	}
	c := want("c", "own")
	c.Ports = []PortSpec{{Port: 80, Proto: "tcp", HostIP: netip.MustParseAddr("192.0.2.9"), HostFirst: 8080}}
	_, err := h.Join(ctx, c)
	fails(t, err, fault.Invalid, "Bind for 192.0.2.9:8080 failed")
	for _, bad := range []PortSpec{{Port: 0, Proto: "tcp"}, {Port: 1, Proto: "icmp"}, {Port: 1, Proto: "tcp", HostFirst: 9, HostLast: 8}} {
		w := want("d", "own")
		w.Ports = []PortSpec{bad}
		if _, err := h.Check(w); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}
