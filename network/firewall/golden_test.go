package firewall

import (
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// goldens are states whose rules are kept word for word.
var goldens = []struct {
	name  string
	state State
}{
	{"empty", State{}},
	{"two-networks", State{Networks: []Network{netB, netA}, Ports: []Port{
		port("8080", "172.30.1.2:80"), port("8080", "[fd30:1::2]:80"), port("127.0.0.1:5432", "172.30.2.2:5432"),
		{NetworkID: netA.ID, ContainerID: "c2", Proto: "udp", HostPort: 53, Target: netip.MustParseAddr("172.30.1.3"), TargetPort: 5353},
		{NetworkID: netA.ID, ContainerID: "c2", Proto: "sctp", HostIP: netip.MustParseAddr("198.51.100.2"), HostPort: 36412, Target: netip.MustParseAddr("172.30.1.3"), TargetPort: 36412},
	}}},
	{"modes", State{Table: "berth-0a1b2c", Networks: []Network{
		{ID: "1", Name: "routed", Bridge: "br-1", Subnets: prefixes("10.1.0.0/24", "2001:db8:1::/64"), ICC: true, Masquerade: true, GatewayMode4: ModeRouted, GatewayMode6: ModeRouted},
		{ID: "2", Name: "open", Bridge: "br-2", Subnets: prefixes("10.2.0.0/24", "fd02::/64"), ICC: true, Masquerade: true, GatewayMode4: ModeUnprotected, Trusted: []string{"eth1"}},
		{ID: "3", Name: "inner", Bridge: "br-3", Subnets: prefixes("10.3.0.0/24"), ICC: true, Internal: true},
		{ID: "4", Name: "apart", Bridge: "br-4", Subnets: prefixes("10.4.0.0/24", "fd04::/64"), Masquerade: true, HostIP: netip.MustParseAddr("192.0.2.4"), HostIP6: netip.MustParseAddr("2001:db8::4")},
		{ID: "5", Name: "plain", Bridge: "br-5", Subnets: prefixes("10.5.0.0/24"), ICC: true},
	}, Ports: []Port{
		{NetworkID: "1", ContainerID: "r", Proto: "tcp", Target: netip.MustParseAddr("10.1.0.2"), TargetPort: 80},
		{NetworkID: "1", ContainerID: "r", Proto: "tcp", HostPort: 81, Target: netip.MustParseAddr("2001:db8:1::2"), TargetPort: 80},
		{NetworkID: "3", ContainerID: "i", Proto: "tcp", HostPort: 82, Target: netip.MustParseAddr("10.3.0.2"), TargetPort: 80},
		{NetworkID: "5", ContainerID: "p", Proto: "tcp", HostIP: netip.MustParseAddr("::ffff:192.0.2.4"), HostPort: 83, Target: netip.MustParseAddr("10.5.0.2"), TargetPort: 80},
	}}},
	{"obey", State{Networks: []Network{netA}, Policy: Policy{ObeyInput: true, OnlyOurs: true}, Links: []string{"eth1", "br-a", "eth0"}, Ports: []Port{
		port("8080", "172.30.1.2:80"), port("8080", "[fd30:1::2]:80"), port("127.0.0.1:5432", "172.30.1.2:5432"), port("198.51.100.2:90", "172.30.1.2:90")}}},
	{"direct", State{Networks: []Network{netA}, Policy: Policy{AllowDirect: true}, Ports: []Port{port("8080", "172.30.1.2:80"), port("8081", "172.30.1.2:80")}}},
	{"managers", State{Networks: []Network{netA}, Managers: []Manager{
		{Kind: KindFirewalld, Table: "inet firewalld", Chain: "filter_FORWARD", ForwardDrops: true, InputDrops: true},
		{Kind: KindIptables, V4: true, Table: "filter", Chain: "FORWARD", Point: "ufw-user-forward", UFW: true, ForwardDrops: true, InputDrops: true},
		{Kind: KindLegacy, Table: "filter", Chain: "FORWARD", Point: "DOCKER-USER", ForwardDrops: true},
		{Kind: KindNft, Table: "inet mine", Chain: "fwd", ForwardDrops: true},
	}}},
	{"managers-by-hand", State{Networks: []Network{netA}, Policy: Policy{NoForeign: true}, Managers: []Manager{
		{Kind: KindIptables, V4: true, Table: "filter", Chain: "FORWARD", Point: "FORWARD", ForwardDrops: true},
	}}},
}

func TestGolden(t *testing.T) {
	for _, g := range goldens {
		t.Run(g.name, func(t *testing.T) {
			got := Compile(g.state).String()
			golden(t, filepath.Join("testdata", g.name+".nft"), got)
			again := g.state
			again.Ports, again.Networks = slices.Clone(again.Ports), slices.Clone(again.Networks)
			rand.Shuffle(len(again.Ports), func(i, j int) { again.Ports[i], again.Ports[j] = again.Ports[j], again.Ports[i] })
			slices.Reverse(again.Networks)
			if Compile(again).String() != got {
				t.Error("another order of the same state makes other rules")
			}
			c := exec.Command("nft", "-c", "-f", "-")
			c.Stdin = strings.NewReader(got)
			if os.Getenv(insideVariable) == "" {
				t.Skip("needs root: nft -c")
			}
			if c.Err != nil {
				t.Skip("needs nftables: nft -c")
			}
			if out, err := c.CombinedOutput(); err != nil {
				t.Errorf("nft: %v\n%s", err, out)
			}
		})
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		os.MkdirAll(filepath.Dir(file), 0o755)
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", file, got, want)
	}
}

func TestRelayed(t *testing.T) {
	for _, c := range []struct {
		port        Port
		needed, all bool
	}{
		{port("8080", "172.30.1.2:80"), false, false},
		{port("0.0.0.0:8080", "172.30.1.2:80"), false, false},
		{port("127.0.0.1:8080", "172.30.1.2:80"), false, false},
		{port("8080", "[fd30:1::2]:80"), true, false},
		{port("[::]:8080", "[fd30:1::2]:80"), true, false},
		{port("[::1]:8080", "[fd30:1::2]:80"), true, false},
		{port("[2001:db8::2]:8080", "[fd30:1::2]:80"), false, false},
		{port("[::]:8080", "172.30.1.2:80"), true, true},
		{port("[::1]:8080", "172.30.1.2:80"), true, true},
		{port("198.51.100.2:8080", "[fd30:1::2]:80"), true, true},
		{port("0", "[fd30:1::2]:80"), false, false},
	} {
		if needed, all := c.port.Relayed(); needed != c.needed || all != c.all {
			t.Errorf("%+v: %v, %v", c.port, needed, all)
		}
	}
}
