package network

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"berth/base/atomicfile"
	"berth/base/fault"
	"berth/kernel/link"
	"berth/network/ipam"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

// TestRefusals compares with what Docker says; the engine's API puts "Error response from daemon: " before.
func TestRefusals(t *testing.T) {
	h := newRoom(t, nil)
	h.create(CreateRequest{Name: "own", IPAM: subnet("10.1.1.0/24"), Options: map[string]string{"com.docker.network.bridge.name": "own0"}})
	no := false
	for _, c := range []struct {
		r    CreateRequest
		kind fault.Kind
		text string
	}{
		{CreateRequest{Name: "own"}, fault.Conflict, "network with name own already exists"},
		{CreateRequest{Name: "host"}, fault.Forbidden, "operation is not permitted on predefined host network"},
		{CreateRequest{Name: " "}, fault.Invalid, "name is empty"},
		{CreateRequest{Name: "x", Driver: "foo"}, fault.NotFound, `plugin "foo" not found`},
		{CreateRequest{Name: "x", Driver: "host"}, fault.Forbidden, `only one instance of "host" network is allowed`},
		{CreateRequest{Name: "x", Driver: "null"}, fault.Forbidden, `only one instance of "null" network is allowed`},
		{CreateRequest{Name: "x", IPAM: subnet("10.1.0.0/16")}, fault.Forbidden, "Pool overlaps with other one on this address space"},
		{CreateRequest{Name: "x", IPAM: subnet("172.17.4.0/24")}, fault.Forbidden, "Pool overlaps with other one on this address space"},
		{CreateRequest{Name: "x", IPAM: subnet("10.7.0.1/24")}, fault.Invalid, "invalid network config:\ninvalid subnet 10.7.0.1/24: it should be 10.7.0.0/24"},
		{CreateRequest{Name: "x", IPAM: IPAM{Pools: []Pool{{Subnet: prefix("10.7.0.0/24"), Gateway: addr("10.8.0.1")}}}}, fault.Invalid, "invalid gateway 10.8.0.1: parent subnet 10.7.0.0/24 doesn't contain this address"},
		{CreateRequest{Name: "x", IPAM: IPAM{Pools: []Pool{{Subnet: prefix("10.7.0.0/24"), Range: prefix("10.7.0.0/16")}}}}, fault.Invalid, "invalid ip-range 10.7.0.0/16: CIDR block is bigger than its parent subnet 10.7.0.0/24"},
		{CreateRequest{Name: "x", IPAM: IPAM{Pools: []Pool{{Subnet: prefix("10.7.0.0/24"), Range: prefix("10.8.0.0/28")}}}}, fault.Invalid, "parent subnet 10.7.0.0/24 doesn't contain ip-range"},
		{CreateRequest{Name: "x", IPAM: IPAM{Pools: []Pool{{Subnet: prefix("10.7.0.0/24"), Aux: map[string]netip.Addr{"r": addr("fd00::1")}}}}}, fault.Invalid, "invalid auxiliary address r: parent subnet is an IPv4 block"},
		{CreateRequest{Name: "x", IPAM: IPAM{Pools: []Pool{{Subnet: prefix("10.7.0.0/24")}, {Subnet: prefix("10.8.0.0/24")}}}}, fault.Forbidden, "bridge driver doesn't support multiple subnets"},
		{CreateRequest{Name: "x", IPAM: IPAM{Driver: "foo"}}, fault.NotFound, `plugin "foo" not found`},
		{CreateRequest{Name: "x", IPv4: &no}, fault.Invalid, "IPv4 or IPv6 must be enabled"},
		{CreateRequest{Name: "x", Scope: "swarm"}, fault.NotImplemented, "swarm"},
		{CreateRequest{Name: "x", ConfigFrom: "nosuch"}, fault.NotFound, `configuration network "nosuch" does not exist`},
		{CreateRequest{Name: "x", ConfigFrom: "own"}, fault.Forbidden, `"own" is not a configuration network`},
		{CreateRequest{Name: "x", Options: map[string]string{"com.docker.network.driver.mtu": "abc"}}, fault.Invalid, `failed to parse com.docker.network.driver.mtu value: abc (strconv.Atoi: parsing "abc": invalid syntax)`},
		{CreateRequest{Name: "x", Options: map[string]string{"com.docker.network.driver.mtu": "9"}}, fault.Invalid, "an MTU is 68 to 65535"},
		{CreateRequest{Name: "x", Options: map[string]string{"com.docker.network.bridge.name": "docker0"}}, fault.Forbidden, "networks have same bridge name"},
		{CreateRequest{Name: "x", Options: map[string]string{"com.docker.network.bridge.name": "averyveryverylongname"}}, fault.Invalid, "1 to 15 characters"},
		{CreateRequest{Name: "x", Options: map[string]string{"com.docker.network.bridge.name": "lo"}}, fault.Conflict, "existing interface lo is not a bridge"},
		{CreateRequest{Name: "x", Options: map[string]string{"com.docker.network.bridge.gateway_mode_ipv4": "open"}}, fault.Invalid, "unknown gateway mode open"},
		{CreateRequest{Name: "x", Options: map[string]string{"berth.rate": "much"}}, fault.Invalid, "invalid network rate"},
		{CreateRequest{Name: "x", Driver: "macvlan", Options: map[string]string{"parent": "nope"}}, fault.Invalid, "invalid subinterface vlan name nope, example formatting is eth0.10"},
		{CreateRequest{Name: "x", Driver: "macvlan", Options: map[string]string{"parent": "nope.10"}}, fault.NotFound, "failed to find master interface nope"},
		{CreateRequest{Name: "x", Driver: "macvlan", Options: map[string]string{"parent": "lo", "macvlan_mode": "xx"}}, fault.Invalid, "requested macvlan mode 'xx' is not valid, 'bridge' mode is the macvlan driver default"},
	} {
		files, links, rules := len(h.List()), h.links(), h.Rules()
		_, _, err := h.Create(ctx, c.r)
		fails(t, err, c.kind, c.text)
		if len(h.List()) != files || !slices.Equal(h.links(), links) || h.Rules() != rules {
			t.Errorf("%q: something is left", c.text)
		}
	}
	for ref, want := range map[string]string{"bridge": "bridge is a pre-defined network and cannot be removed", "nosuch": "network nosuch not found"} {
		if err := h.Remove(ctx, ref); err == nil || err.Error() != want {
			t.Errorf("remove %s: %v", ref, err)
		}
	}
	if left, _ := filepath.Glob(h.cfg.Root + "/*.json"); len(left) != 4 {
		t.Errorf("files: %v", left)
	}
}

func TestGet(t *testing.T) {
	h := newRoom(t, nil)
	n := h.create(CreateRequest{Name: "own"})
	for _, ref := range []string{"own", n.ID, n.ID[:12], n.ID[:20]} {
		if got, err := h.Get(ref); err != nil || got.ID != n.ID {
			t.Errorf("%s: %v", ref, err)
		}
	}
	// A name that reads as the beginning of an id comes first.
	other := h.create(CreateRequest{Name: n.ID[:6]})
	if got, err := h.Get(n.ID[:6]); err != nil || got.ID != other.ID {
		t.Error(got.Name, err)
	}
	h.reopen()
	if got, err := h.Get("own"); err != nil || show(got) != show(n) {
		t.Errorf("after a restart: %s, was %s (%v)", show(got), show(n), err)
	}
	if n.IPAM.Pools[0].Subnet.Bits() != 24 || n.IPAM.Pools[0].Gateway != n.IPAM.Pools[0].Subnet.Addr().Next() {
		t.Error(show(n.IPAM))
	}
}

// TestCreateIsDurable counts what a network costs: one file and its directory.
func TestCreateIsDurable(t *testing.T) {
	h := newRoom(t, nil)
	before := atomicfile.Syncs()
	h.create(CreateRequest{Name: "own"})
	if n := atomicfile.Syncs() - before; n != 2 {
		t.Errorf("%d syncs", n)
	}
}

func TestConfigOnly(t *testing.T) {
	h := newRoom(t, nil)
	h.create(CreateRequest{Name: "config", ConfigOnly: true, IPAM: subnet("10.1.1.0/24"), Options: map[string]string{"com.docker.network.driver.mtu": "1300"}, Labels: map[string]string{"a": "b"}})
	n := h.create(CreateRequest{Name: "own", ConfigFrom: "config"})
	if n.ConfigFrom != "config" || n.Labels["a"] != "b" || n.Options["com.docker.network.driver.mtu"] != "1300" || n.IPAM.Pools[0].Gateway != addr("10.1.1.1") {
		t.Error(show(n))
	}
	if err := h.Remove(ctx, "config"); !fault.Is(err, fault.Forbidden) || err.Error() != `configuration network "config" is in use` {
		t.Error(err)
	}
	if _, err := h.Join(ctx, want("a", "config")); !fault.Is(err, fault.Forbidden) {
		t.Error(err)
	}
	h.reopen()
	s := h.join(want("a", "own"))
	if s.Endpoints[0].IPv4 != prefix("10.1.1.2/24") {
		t.Error(show(s))
	}
}

// TestSubnetsAvoidTheHosts gives the host routes where ours would be.
func TestSubnetsAvoidTheHosts(t *testing.T) {
	alone := func(c *Config) {}
	h := newRoom(t, alone)
	first := h.create(CreateRequest{Name: "first"}).IPAM.Pools[0].Subnet
	conn, err := link.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Do(link.Add(link.Link{Name: "up0", Kind: "bridge", Up: true})); err != nil {
		t.Fatal(err)
	}
	defer conn.Do(link.DeleteNamed("up0"))
	l, err := conn.ByName("up0")
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Do(link.AddAddress(l.Index, prefix("172.18.7.1/16"))); err != nil {
		t.Fatal(err)
	}
	second := h.create(CreateRequest{Name: "second"}).IPAM.Pools[0].Subnet
	if first != prefix("172.18.0.0/24") || second != prefix("172.19.0.0/24") {
		t.Errorf("%s, then %s", first, second)
	}
}

func TestDefaultBridgeIsSomebodyElses(t *testing.T) {
	h := newRoom(t, nil)
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	conn, err := link.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	defer conn.Do(link.DeleteNamed("docker0"))
	conn.Do(link.DeleteNamed("docker0"))
	if err := conn.Do(link.Add(link.Link{Name: "docker0", Kind: "bridge", Up: true})); err != nil {
		t.Fatal(err)
	}
	l, _ := conn.ByName("docker0")
	if err := conn.Do(link.AddAddress(l.Index, prefix("172.17.0.1/16"))); err != nil {
		t.Fatal(err)
	}
	h.open()
	n, err := h.Get("bridge")
	if err != nil || n.Options["com.docker.network.bridge.name"] != "berth0" || n.IPAM.Pools[0].Subnet != prefix("172.18.0.0/16") {
		t.Error(show(n), err)
	}
	h.reopen()
	if again, _ := h.Get("bridge"); show(again) != show(n) {
		t.Error(show(again))
	}
}

func TestDaemonSettings(t *testing.T) {
	no := false
	h := newRoom(t, func(c *Config) {
		c.BIP, c.FixedCIDR, c.MTU, c.ICC = prefix("10.5.0.9/16"), prefix("10.5.3.0/24"), 1200, &no
		c.DefaultPools = []ipam.PoolSpec{{Base: prefix("10.6.0.0/16"), Size: 26}}
		c.DefaultNetworkOpts = map[string]map[string]string{"bridge": {"com.docker.network.driver.mtu": "1250", "com.docker.network.enable_ipv6": "false"}}
		c.EngineID = "abcdef"
	})
	n, _ := h.Get("bridge")
	if p := n.IPAM.Pools[0]; p.Subnet != prefix("10.5.0.0/16") || p.Gateway != addr("10.5.0.9") || p.Range != prefix("10.5.3.0/24") {
		t.Error(show(n))
	}
	if n.Options["com.docker.network.bridge.enable_icc"] != "false" || n.Options["com.docker.network.driver.mtu"] != "1200" {
		t.Error(n.Options)
	}
	own := h.create(CreateRequest{Name: "own"})
	if own.IPAM.Pools[0].Subnet != prefix("10.6.0.0/26") || own.Options["com.docker.network.driver.mtu"] != "1250" {
		t.Error(show(own))
	}
	if own.Options["com.docker.network.enable_ipv6"] != "false" {
		t.Error(show(own))
	}
	yes := true
	if both := h.create(CreateRequest{Name: "both", IPv6: &yes, Options: map[string]string{"com.docker.network.driver.mtu": "1300"}}); !both.IPv6 || both.Options["com.docker.network.enable_ipv6"] != "" {
		t.Errorf("a default that does not count is shown: %s", show(both))
	}
	if s := h.join(want("a", "bridge")); s.Endpoints[0].IPv4 != prefix("10.5.3.0/16") && s.Endpoints[0].IPv4 != prefix("10.5.3.1/16") {
		t.Error(show(s))
	}
	if !strings.Contains(h.Rules(), "berth-abcdef") {
		t.Error("the table has another's name")
	}
}

// TestUnreadableFilesAreLeft damages a network's file: the engine starts without it and leaves it alone.
func TestUnreadableFilesAreLeft(t *testing.T) {
	h := newRoom(t, nil)
	n := h.create(CreateRequest{Name: "own"})
	path := h.networkPath(n.ID)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(path, good[:len(good)/2], 0o600)
	h.reopen()
	if _, err := h.Get("own"); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	os.WriteFile(path, good, 0o600)
	h.reopen()
	if _, err := h.Get("own"); err != nil {
		t.Error(err)
	}
}
