package firewall

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/base/fault"
)

func open(t *testing.T, policy Policy) *Firewall {
	t.Helper()
	needRoot(t)
	f, err := Open(context.Background(), Config{Policy: policy})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.Remove(context.Background())
		f.Close()
	})
	return f
}

// What Change makes of the table is what Compile makes of the same state.
func TestChangesAmountToTheState(t *testing.T) {
	for _, policy := range []Policy{{}, {ObeyInput: true, AllowDirect: true}} {
		f := open(t, policy)
		ctx := context.Background()
		if err := f.Replace(ctx, State{Networks: []Network{netA, netB}, Ports: []Port{port("1", "172.30.1.2:80")}}); err != nil {
			t.Fatal(err)
		}
		steps := []struct{ add, remove []Port }{
			{add: []Port{port("2", "172.30.1.2:80"), port("198.51.100.2:3", "172.30.1.2:80"), port("4", "[fd30:1::2]:80")}},
			{remove: []Port{port("1", "172.30.1.2:80")}},
			{add: []Port{port("2", "172.30.1.3:80")}, remove: []Port{port("2", "172.30.1.2:80")}},
			{add: []Port{port("2", "172.30.1.3:80")}, remove: []Port{port("2", "172.30.1.3:80"), port("9", "172.30.1.3:80")}},
			{add: []Port{port("7", "172.30.1.3:80"), port("7", "172.30.1.3:80"), port("0.0.0.0:7", "172.30.1.3:80")}},
			{remove: []Port{port("7", "172.30.1.3:80"), port("7", "172.30.1.3:80")}},
			{add: []Port{port("2", "172.30.1.3:80"), port("::", "172.30.1.3:80")}},
		}
		for i, s := range steps {
			if err := f.Change(ctx, s.add, s.remove); err != nil {
				t.Fatal(i, err)
			}
			same(t, fmt.Sprintf("step %d", i), f)
		}
		err := f.Change(ctx, []Port{port("5", "172.30.1.3:80"), port("2", "172.30.2.2:80")}, nil)
		if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "port 2/tcp") {
			t.Errorf("a port twice: %v", err)
		}
		if strings.Contains(f.Rules(), "tcp . 5 ") {
			t.Error("half of a refused change was made")
		}
		if err := f.RemoveNetwork(ctx, netA.ID); err != nil {
			t.Fatal(err)
		}
		same(t, "after the network's end", f)
		if strings.Contains(f.Rules(), "172.30.1.") {
			t.Error("a network's ports outlive it")
		}
		f.Remove(ctx)
	}
}

// Somebody flushes the whole ruleset: it is back soon, and also when the next change comes first.
func TestTakenAway(t *testing.T) {
	f := open(t, Policy{})
	ctx := context.Background()
	if err := f.Replace(ctx, State{Networks: []Network{netA}, Ports: []Port{port("1", "172.30.1.2:80")}}); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) {
		if out, err := exec.Command("nft", args...).CombinedOutput(); err != nil {
			t.Fatalf("nft %v: %v: %s", args, err, out)
		}
	}
	run("flush", "ruleset")
	if err := f.Change(ctx, []Port{port("2", "172.30.1.2:80")}, nil); err != nil {
		t.Fatal(err)
	}
	if got := listed(t, "berth"); !strings.Contains(got, "tcp . 1 ") || !strings.Contains(got, "tcp . 2 ") {
		t.Errorf("after the change: %s", got)
	}
	run("flush", "ruleset")
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if out, err := exec.Command("nft", "list", "table", "inet", "berth").CombinedOutput(); err == nil && strings.Contains(string(out), "tcp . 2 ") {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the rules did not come back")
		}
	}
}

func TestInvalidNetworks(t *testing.T) {
	f := open(t, Policy{})
	ctx := context.Background()
	with := func(change func(*Network)) State {
		n := netB
		change(&n)
		return State{Networks: []Network{netA, n}}
	}
	for name, s := range map[string]State{
		"overlap":  with(func(n *Network) { n.Subnets = prefixes("172.30.0.0/16") }),
		"bridge":   with(func(n *Network) { n.Bridge = netA.Bridge }),
		"nameless": with(func(n *Network) { n.Bridge = "" }),
		"wildcard": with(func(n *Network) { n.Bridge = "br+" }),
		"newline":  with(func(n *Network) { n.Bridge = "br\n-F" }),
		"trusted":  with(func(n *Network) { n.Trusted = []string{"-x"} }),
	} {
		if err := f.Replace(ctx, s); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	late, cancel := context.WithCancel(ctx)
	cancel()
	f.turn <- struct{}{}
	if err := f.Change(late, nil, nil); !fault.Is(err, fault.Cancelled) {
		t.Errorf("%v", err)
	}
	<-f.turn
}

// A thousand containers with a port each: what one more costs.
func TestCost(t *testing.T) {
	f := open(t, Policy{})
	ctx := context.Background()
	big := netA
	big.Subnets = prefixes("172.30.0.0/16")
	s := State{Networks: []Network{big}}
	nth := func(i int) Port {
		return Port{NetworkID: big.ID, ContainerID: fmt.Sprintf("%064x", i), Proto: "tcp", HostPort: uint16(10000 + i), Target: netip.AddrFrom4([4]byte{172, 30, byte(i >> 8), byte(i)}), TargetPort: 80}
	}
	for i := range 1000 {
		s.Ports = append(s.Ports, nth(i))
	}
	start := time.Now()
	if err := f.Replace(ctx, s); err != nil {
		t.Fatal(err)
	}
	all := time.Since(start)
	start = time.Now()
	const times = 100
	for i := range times {
		if err := f.Change(ctx, []Port{nth(2000 + i)}, nil); err != nil {
			t.Fatal(err)
		}
		if err := f.Change(ctx, nil, []Port{nth(2000 + i)}); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("1,000 ports loaded in %v; one more, or one less: %v", all, time.Since(start)/(2*times))
}

// same compares what the kernel has with what the Firewall says.
func same(t *testing.T, when string, f *Firewall) {
	t.Helper()
	got, want := listed(t, f.config.Table), bare(f.Rules())
	if got == want {
		return
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	cut := func(s string) string { return s[max(0, at-60):min(len(s), at+120)] }
	t.Fatalf("%s: the kernel has … %s …\nwanted … %s …", when, cut(got), cut(want))
}

func listed(t *testing.T, table string) string {
	t.Helper()
	out, err := exec.Command("nft", "list", "table", "inet", table).CombinedOutput()
	if err != nil {
		t.Fatalf("nft list: %v: %s", err, out)
	}
	return bare(string(out))
}

var (
	spaces   = regexp.MustCompile(`\s+`)
	elements = regexp.MustCompile(`elements = \{[^}]*\}`)
)

// bare gives rules without what is of no consequence: white space, the order of elements.
func bare(s string) string {
	s = elements.ReplaceAllStringFunc(s, func(e string) string {
		e = strings.TrimSuffix(strings.TrimPrefix(e, "elements = {"), "}")
		list := strings.Split(e, ",")
		for i := range list {
			list[i] = strings.TrimSpace(spaces.ReplaceAllString(list[i], " "))
		}
		slices.Sort(list)
		return "elements = { " + strings.Join(list, ", ") + " }"
	})
	return strings.ReplaceAll(strings.TrimSpace(spaces.ReplaceAllString(s, " ")), "dynamic,timeout", "timeout")
}

// Any sequence of changes leaves the kernel with what the state says.
func TestRandomChanges(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	routed := netB
	routed.GatewayMode4, routed.GatewayMode6 = ModeRouted, ModeRouted
	f := open(t, Policy{ObeyInput: random.IntN(2) == 0, AllowDirect: random.IntN(2) == 0})
	ctx := context.Background()
	if err := f.Replace(ctx, State{Networks: []Network{netA, routed}}); err != nil {
		t.Fatal(err)
	}
	hosts := []string{"", "127.0.0.1:", "198.51.100.2:", "[::1]:", "[::]:", "0.0.0.0:"}
	targets := []string{"172.30.1.2:80", "172.30.1.3:80", "172.30.2.2:80", "[fd30:1::2]:80", "[fd30:2::2]:81"}
	some := func() (list []Port) {
		for range random.IntN(4) {
			p := port(fmt.Sprintf("%s%d", hosts[random.IntN(len(hosts))], 1+random.IntN(6)), targets[random.IntN(len(targets))])
			p.Proto = []string{"tcp", "udp", "sctp"}[random.IntN(3)]
			list = append(list, p)
		}
		return list
	}
	refused := 0
	for i := range 300 {
		before := f.Rules()
		switch err := f.Change(ctx, some(), some()); {
		case fault.Is(err, fault.Conflict):
			refused++
			if f.Rules() != before {
				t.Fatal("a refused change has changed something")
			}
		case err != nil:
			t.Fatal(i, err)
		}
		if i%20 != 0 {
			continue
		}
		same(t, fmt.Sprintf("change %d", i), f)
	}
	if refused == 0 || refused > 250 {
		t.Errorf("%d of 300 were refused", refused)
	}
}
