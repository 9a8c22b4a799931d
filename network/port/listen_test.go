package port

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestListens: a reservation that listens is found by who looks for listening sockets; a connection to it is made by the kernel.
func TestListens(t *testing.T) {
	for _, listens := range []bool{false, true} {
		table := New(nil, slog.New(slog.DiscardHandler))
		table.Listens = listens
		ip := netip.MustParseAddr("127.0.0.1")
		ports, err := table.Reserve(context.Background(), Holder{ID: "x"}, []Want{{Proto: "tcp", IPs: []netip.Addr{ip}}})
		if err != nil {
			t.Fatal(err)
		}
		defer table.Release(context.Background(), Key{"tcp", ip, ports[0]})
		c, err := net.DialTimeout("tcp", netip.AddrPortFrom(ip, ports[0]).String(), time.Second)
		if err == nil {
			c.Close()
		}
		if (err == nil) != listens {
			t.Errorf("listens %v: %v", listens, err)
		}
	}
}

func TestLowest(t *testing.T) {
	table := New(nil, slog.New(slog.DiscardHandler))
	table.Lowest = 65535
	_, err := table.Reserve(context.Background(), Holder{ID: "x"}, []Want{{Proto: "udp", IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, First: 80, Last: 80}})
	if err == nil || !strings.Contains(err.Error(), "ip_unprivileged_port_start=80") {
		t.Errorf("port 80: %v", err)
	}
}

// TestElsewhere: a port that a program has where clients come from is refused, unless it was ours a moment ago.
func TestElsewhere(t *testing.T) {
	table := New(nil, slog.New(slog.DiscardHandler))
	taken := false
	table.Elsewhere = func(uint16) bool { return taken }
	table.born = time.Time{}
	ctx, ip := context.Background(), netip.MustParseAddr("127.0.0.1")
	ports, err := table.Reserve(ctx, Holder{ID: "x"}, []Want{{Proto: "tcp", IPs: []netip.Addr{ip}}})
	if err != nil {
		t.Fatal(err)
	}
	taken = true
	again := []Want{{Proto: "tcp", IPs: []netip.Addr{netip.MustParseAddr("127.0.0.2")}, First: ports[0], Last: ports[0]}}
	if _, err := table.Reserve(ctx, Holder{ID: "y"}, again); err != nil {
		t.Errorf("beside one of ours: %v", err)
	}
	table.Release(ctx, Key{"tcp", ip, ports[0]}, Key{"tcp", again[0].IPs[0], ports[0]})
	if _, err := table.Reserve(ctx, Holder{ID: "y"}, again); err != nil {
		t.Errorf("just released: %v", err)
	}
	table.Release(ctx, Key{"tcp", again[0].IPs[0], ports[0]})
	table.left[ports[0]] = time.Now().Add(-2 * lingers)
	if _, err := table.Reserve(ctx, Holder{ID: "z"}, again); err == nil || !strings.Contains(err.Error(), "already allocated") {
		t.Errorf("a program of the host has it: %v", err)
	}
}
