package macvlan

import (
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"testing"

	"berth/kernel/link"
	"berth/kernel/netns/alone"
	"berth/network/driver"
	"berth/network/driver/suite"
)

func TestMain(m *testing.M) { os.Exit(alone.Main(m)) }

func TestSuite(t *testing.T) {
	suite.Run(t, func(t *testing.T) suite.Setup {
		c, err := link.Dial()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Do(link.DeleteNamed("up0").IfThere()); c.Close() })
		if err := c.Do(link.Add(link.Link{Name: "up0", Kind: "veth", Up: true, Peer: &link.Link{Name: "up1"}})); err != nil {
			t.Fatal(err)
		}
		d, err := New(slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return suite.Setup{Driver: d, Network: driver.Network{
			ID: strings.Repeat("a1", 32), Name: "lan", IPv4: true, Options: map[string]string{driver.OptParent: "up0"},
			Pools: []driver.Pool{{Subnet: netip.MustParsePrefix("10.1.0.0/24"), Gateway: netip.MustParseAddr("10.1.0.1")}},
		}}
	})
}
