package bridge

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/base/fault"
	"berth/kernel/link"
	"berth/kernel/netns"
	"berth/kernel/netns/alone"
	"berth/network/driver"
	"berth/network/driver/suite"
)

func TestMain(m *testing.M) { os.Exit(alone.Main(m)) }

func setup(t *testing.T) suite.Setup {
	d, err := New(Config{Forward: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return suite.Setup{Driver: d, Network: driver.Network{
		ID: strings.Repeat("a1", 32), Name: "lan", Bridge: "br7", IPv4: true, IPv6: true,
		Pools: []driver.Pool{{Subnet: netip.MustParsePrefix("10.1.0.0/24"), Gateway: netip.MustParseAddr("10.1.0.1")},
			{Subnet: netip.MustParsePrefix("fd01::/64"), Gateway: netip.MustParseAddr("fd01::1")}},
	}}
}

func TestSuite(t *testing.T) { suite.Run(t, setup) }

// TestForeignBridge uses a bridge of the user's and leaves it.
func TestForeignBridge(t *testing.T) {
	alone.Need(t)
	c, err := link.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Do(link.Add(link.Link{Name: "br7", Kind: "bridge"})); err != nil {
		t.Fatal(err)
	}
	defer c.Do(link.DeleteNamed("br7").IfThere())
	s := setup(t)
	if err := s.Driver.Create(t.Context(), s.Network); err != nil {
		t.Fatal(err)
	}
	if err := s.Driver.Delete(t.Context(), s.Network); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ByName("br7"); err != nil {
		t.Errorf("the user's bridge is gone: %v", err)
	}
}

func TestCheck(t *testing.T) {
	s := setup(t)
	for k, v := range map[string]string{
		OptICC: "perhaps", driver.OptMTU: "1", OptMode4: "open", OptMode6: "isolated", OptBinding: "here", OptHost4: "fd00::1", OptHost6: "10.0.0.1", driver.OptRate: "much",
	} {
		n := s.Network
		n.Options = map[string]string{k: v}
		if err := s.Driver.Check(n, nil); err == nil {
			t.Errorf("%s=%s is taken", k, v)
		}
	}
	for _, name := range []string{"", "a/b", "a b", "0123456789abcdef", ".."} {
		if CheckName(name) == nil {
			t.Errorf("%q is taken for a link's name", name)
		}
	}
	if err := s.Driver.Check(s.Network, nil); err != nil {
		t.Error(err)
	}
}

// A link of the name that an endpoint would get, but somebody else's, stays.
func TestSomebodyElsesLink(t *testing.T) {
	alone.Need(t)
	c, err := link.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := setup(t)
	if err := s.Driver.Create(t.Context(), s.Network); err != nil {
		t.Fatal(err)
	}
	defer s.Driver.Delete(t.Context(), s.Network)
	path := filepath.Join(t.TempDir(), "ns")
	if err := netns.Create(path); err != nil {
		t.Fatal(err)
	}
	defer netns.Remove(path)
	ns, err := netns.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	id := strings.Repeat("b2", 32)
	if err := c.Do(link.Add(link.Link{Name: driver.HostLink(id), Kind: "veth", Peer: &link.Link{Name: "other"}})); err != nil {
		t.Fatal(err)
	}
	defer c.Do(link.DeleteNamed(driver.HostLink(id)).IfThere())
	if _, err := s.Driver.Join(t.Context(), s.Network, driver.Request{EndpointID: id, NS: ns, Interface: "eth0"}); !fault.Is(err, fault.Conflict) {
		t.Errorf("join: %v", err)
	}
	if _, err := c.ByName(driver.HostLink(id)); err != nil {
		t.Errorf("the link of somebody else: %v", err)
	}
}
