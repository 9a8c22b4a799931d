package dns

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"berth/kernel/link"
	"berth/kernel/netns"
	"berth/kernel/nft"
)

// BenchmarkTraffic measures what the server's rules cost a container's other traffic: datagrams to and fro between two namespaces,
// without rules, with ours, and with a NAT chain instead, which is what tracks connections. The three take turns of some
// milliseconds, and the quickest tenth of the turns counts, so that a busy machine slows all of them alike.
func BenchmarkTraffic(b *testing.B) {
	kinds := []string{"none", "ours", "nat"}
	conns := map[string]net.Conn{}
	for i, kind := range kinds {
		conns[kind] = pair(b, byte(i), kind)
	}
	turns := map[string][]float64{}
	buf := make([]byte, 64)
	const each = 200
	for b.Loop() {
		for _, kind := range kinds {
			c := conns[kind]
			start := time.Now()
			for range each {
				c.Write(buf[:1])
				if _, err := c.Read(buf); err != nil {
					b.Fatal(err)
				}
			}
			turns[kind] = append(turns[kind], float64(time.Since(start))/each)
		}
	}
	for _, kind := range kinds {
		slices.Sort(turns[kind])
		b.ReportMetric(turns[kind][len(turns[kind])/10], kind+"-ns")
	}
}

// pair joins two namespaces by a veth and gives a connection from one to an echo in the other.
func pair(b *testing.B, i byte, kind string) net.Conn {
	one, two := newSpace(b), newSpace(b)
	in, err := link.DialIn(one.ns)
	if err != nil {
		b.Fatal(err)
	}
	defer in.Close()
	if err := in.Do(link.Add(link.Link{Name: "a", Kind: "veth", Peer: &link.Link{Name: "b", NS: two.ns}})); err != nil {
		b.Fatal(err)
	}
	server := newServer(b, nil)
	for j, sp := range []*space{one, two} {
		c, err := link.DialIn(sp.ns)
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		l, err := c.ByName([]string{"a", "b"}[j])
		if err != nil {
			b.Fatal(err)
		}
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, i, byte(j + 1)}), 24)
		if err := c.Do(link.Set(l.Index, link.Change{Up: true}), link.AddAddress(l.Index, p)); err != nil {
			b.Fatal(err)
		}
		switch kind {
		case "ours":
			sp.serve(server, Sandbox{ID: sp.path, Fresh: true})
		case "nat":
			to := nft.NewRule(nft.Is(nft.IPDaddr, nft.Addr(self())), nft.Is(nft.UDPDport, nft.Port(53)), nft.DNAT(netip.AddrPortFrom(self(), 4053)))
			t := nft.Table{Family: nft.IPv4, Name: "nat", Chains: []nft.Chain{{Name: "output", Hook: nft.Hook{Type: nft.NAT, Point: nft.Output, Priority: -100}, Rules: []nft.Rule{to}}}}
			if err := nft.Load(sp.ns, nft.NewBatch().Add(t)); err != nil {
				b.Fatal(err)
			}
		}
	}
	address := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 77, i, 2}), 7).String()
	var pc net.PacketConn
	if err := netns.Do(two.ns, func() (err error) {
		pc, err = net.ListenPacket("udp", address)
		return err
	}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { pc.Close() })
	go func() {
		buf := make([]byte, 64)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			pc.WriteTo(buf[:n], from)
		}
	}()
	return one.dial("udp", address)
}
