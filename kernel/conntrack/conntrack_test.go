package conntrack

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"berth/kernel/netns"
	"berth/kernel/nft"
)

func TestDelete(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs ip: package iproute2")
	}
	path := filepath.Join(t.TempDir(), "ns")
	if err := netns.Create(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netns.Remove(path) })
	ns, err := netns.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	server := netip.MustParseAddr("127.0.0.9")
	table := nft.Table{Family: nft.IPv4, Name: "t", Chains: []nft.Chain{
		{Name: "output", Hook: nft.Hook{Type: nft.NAT, Point: nft.Output, Priority: -100}, Rules: []nft.Rule{
			nft.NewRule(nft.Is(nft.UDPDport, nft.Port(1000)), nft.DNAT(netip.AddrPortFrom(server, 53)))}},
	}}
	if err := nft.Load(ns, nft.NewBatch().Add(table)); err != nil {
		t.Fatal(err)
	}
	// Two exchanges, of which the first is translated, and one of TCP's neighbour.
	err = netns.Do(ns, func() error {
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for _, to := range []string{"127.0.0.1:1000", "127.0.0.1:1001"} {
			c, err := net.Dial("udp", to)
			if err != nil {
				return err
			}
			defer c.Close()
			c.Write([]byte("x"))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	udp := Flow{Proto: unix.IPPROTO_UDP, V4: true}
	for _, c := range []struct {
		name string
		set  func(*Flow)
		want int
	}{
		{"another family", func(f *Flow) { f.V4 = false }, 0},
		{"another protocol", func(f *Flow) { f.Proto = unix.IPPROTO_SCTP }, 0},
		{"another address", func(f *Flow) { f.To = []netip.Addr{netip.MustParseAddr("127.0.0.2")} }, 0},
		{"translated, asked for untranslated", func(f *Flow) { f.ToPort, f.Untranslated = 1000, true }, 0},
		{"answered by another", func(f *Flow) { f.ToPort, f.AnsweredBy = 1001, server }, 0},
		{"answered by the server", func(f *Flow) { f.AnsweredBy = server }, 1},
		{"again", func(f *Flow) { f.AnsweredBy = server }, 0},
		{"untranslated", func(f *Flow) {
			f.To, f.ToPort, f.Untranslated = []netip.Addr{server, netip.MustParseAddr("127.0.0.1")}, 1001, true
		}, 1},
		{"all", func(f *Flow) {}, 0},
	} {
		f := udp
		c.set(&f)
		got, err := Delete(ns, f)
		if err != nil || got != c.want {
			t.Errorf("%s: %d ended, %v; want %d", c.name, got, err, c.want)
		}
	}
}

// Whatever bytes come as an answer, reading them ends.
func FuzzAnswer(f *testing.F) {
	ip := attribute(attribute(nil, 1, []byte{127, 0, 0, 1}), 2, []byte{127, 0, 0, 2})
	l4 := attribute(attribute(nil, ctaProtoNum, []byte{17}), ctaProtoDst, []byte{0, 53})
	orig := attribute(attribute(nil, ctaTupleIP|unix.NLA_F_NESTED, ip), ctaTupleL4|unix.NLA_F_NESTED, l4)
	e := parse(attribute(nil, ctaOrig, orig))
	if e.to != netip.MustParseAddr("127.0.0.2") || e.proto != 17 || e.toPort != 53 {
		f.Fatalf("%+v", e)
	}
	f.Add(attribute(nil, ctaOrig, orig))
	f.Fuzz(func(t *testing.T, b []byte) {
		parse(b)
		answer(b, 0, func(b []byte) { parse(b) })
	})
}
