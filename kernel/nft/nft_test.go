package nft

import (
	"flag"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/base/fault"
	"berth/kernel/netns"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// full is a table with everything that the package can say.
func full(f Family) Table {
	addr := netip.MustParseAddr
	ports4 := Set{Name: "ports4", Key: []Type{InetProto, InetService}, Data: []Type{IPv4Addr, InetService}, Elements: []Element{
		{Key: []Value{Proto(6), Port(80)}, Data: []Value{Addr(addr("172.17.0.2")), Port(8080)}, Comment: "web"},
		{Key: []Value{Proto(132), Port(81)}, Data: []Value{Addr(addr("172.17.0.3")), Port(8081)}},
	}}
	t := Table{Family: f, Name: "berth-test",
		Sets: []Set{
			{Name: "bridges", Key: []Type{IfName}, Elements: []Element{{Key: []Value{Name("docker0")}}, {Key: []Value{Name("br-0123456789ab")}}}},
			ports4,
			{Name: "ports6", Key: []Type{InetProto, InetService}, Data: []Type{IPv6Addr, InetService}, Elements: []Element{
				{Key: []Value{Proto(17), Port(53)}, Data: []Value{Addr(addr("fd00::2")), Port(5353)}}}},
			{Name: "from", Key: []Type{IfName}, Data: []Type{Verdict}, Elements: []Element{
				{Key: []Value{Name("docker0")}, Verdict: Jump("from-1")}, {Key: []Value{Name("x")}, Verdict: Drop(), Comment: "no way"}}},
			{Name: "subnets", Key: []Type{IPv4Addr}, Data: []Type{Verdict}, Interval: true, Elements: []Element{
				{Key: []Value{Prefix(netip.MustParsePrefix("172.17.0.0/16"))}, Verdict: Goto("from-1")},
				{Key: []Value{Prefix(netip.MustParsePrefix("192.168.1.0/24"))}, Verdict: Accept()}}},
			{Name: "nets6", Key: []Type{IPv6Addr}, Interval: true, Elements: []Element{{Key: []Value{Prefix(netip.MustParsePrefix("ff00::/8"))}}}},
			{Name: "trusted", Key: []Type{IPv4Addr, InetProto, InetService}, Interval: true, Elements: []Element{
				{Key: []Value{Prefix(netip.MustParsePrefix("10.0.0.0/8")), Proto(6), Port(8000)}}}},
			{Name: "seen", Key: []Type{IPv4Addr, InetProto, InetService}, Dynamic: true, Timeout: 90 * time.Second, Size: 65535},
		},
		Chains: []Chain{
			{Name: "prerouting", Hook: Hook{Type: NAT, Point: Prerouting, Priority: -100}, Rules: []Rule{
				NewRule(Is(IPDaddr, Prefix(netip.MustParsePrefix("127.0.0.0/8"))), Return()),
				NewRule(Is(FibDaddrType, Local), DNATBy("ports4", true, L4Proto, THDport)).Commented("published ports"),
				NewRule(DNATBy("ports6", false, L4Proto, THDport)),
				NewRule(Is(IPDaddr, Addr(addr("127.0.0.11"))), Is(UDPDport, Port(53)), DNAT(netip.MustParseAddrPort("127.0.0.11:4000"))),
				NewRule(Is(TCPDport, Port(53)), Is(IP6Daddr, Addr(addr("fd00::1"))), DNAT(netip.MustParseAddrPort("[fd00::2]:4000"))),
			}},
			{Name: "early", Hook: Hook{Type: Filter, Point: Prerouting, Priority: -300}, Rules: []Rule{
				NewRule(In("bridges", IIfName), IsNot(IPSaddr, Prefix(netip.MustParsePrefix("172.16.0.0/12"))), Drop()),
				NewRule(In("nets6", IP6Daddr), Accept()),
				NewRule(In("trusted", IPSaddr, L4Proto, THDport), Accept()),
				NewRule(AddTo("seen", IPSaddr, L4Proto, THDport)),
			}},
			{Name: "forward", Hook: Hook{Type: Filter, Point: Forward, Priority: -1, Drop: true}, Rules: []Rule{
				NewRule(Has(CTState, Established, Related), Accept()),
				NewRule(Via("from", IIfName)),
				NewRule(Has(CTStatus, DNATed), Accept()),
				NewRule(In("bridges", OIfName), Is(NFProto, ProtoIPv6), Is(L4Proto, Proto(17)), Drop()),
			}},
			{Name: "postrouting", Hook: Hook{Type: NAT, Point: Postrouting, Priority: 100}, Rules: []Rule{
				NewRule(Via("subnets", IPSaddr)),
				NewRule(IsNot(OIfName, Name("docker0")), Is(NFProto, ProtoIPv4), Masquerade()),
				NewRule(IsNot(OIfName, Name("docker0")), SNAT(addr("192.0.2.1"))),
			}},
			{Name: "from-1", Rules: []Rule{NewRule(IsNot(OIfName, Name("docker0")), Return()), NewRule(Jump("from-2"))}},
			{Name: "from-2"},
		},
	}
	return t
}

func TestText(t *testing.T) {
	got := full(Inet).String()
	file := filepath.Join("testdata", "full.nft")
	if *update {
		os.MkdirAll("testdata", 0o755)
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// What nft makes of our text and what it reads back of our messages are the same table, and it prints as we print it.
func TestLoadIsWhatNftLoads(t *testing.T) {
	ns := newNamespace(t)
	table := full(Inet)
	run(t, ns, table.String(), "nft", "-f", "-")
	theirs := run(t, ns, "", "nft", "-y", "-n", "list", "table", "inet", table.Name)
	if err := Load(ns, NewBatch().Replace(table)); err != nil {
		t.Fatal(err)
	}
	ours := run(t, ns, "", "nft", "-y", "-n", "list", "table", "inet", table.Name)
	if sorted(ours) != sorted(theirs) {
		t.Errorf("loaded by us\n%s\nby nft\n%s", ours, theirs)
	}
	listed := run(t, ns, "", "nft", "list", "table", "inet", table.Name)
	if sorted(listed) != sorted(table.String()) {
		t.Errorf("listed\n%s\nprinted\n%s", listed, table.String())
	}
}

func TestChanges(t *testing.T) {
	ns := newNamespace(t)
	table := full(Inet)
	if err := Load(ns, NewBatch().Add(table)); err != nil {
		t.Fatal(err)
	}
	ports := table.Sets[1]
	moved := ports.Elements[0]
	moved.Data = []Value{Addr(netip.MustParseAddr("172.17.0.9")), Port(99)}
	extra := Chain{Name: "extra", Rules: []Rule{NewRule(Is(TCPDport, Port(1)), Drop())}}
	b := NewBatch().
		DeleteElements(Inet, table.Name, ports, ports.Elements[0]).AddElements(Inet, table.Name, ports, moved). // in one instant
		AddChain(Inet, table.Name, extra).
		FlushChain(Inet, table.Name, "postrouting").
		AddRules(Inet, table.Name, "postrouting", NewRule(Jump("extra"))).
		DeleteElements(Inet, table.Name, table.Sets[3], table.Sets[3].Elements...).
		DeleteElements(Inet, table.Name, table.Sets[4], table.Sets[4].Elements...).
		FlushChain(Inet, table.Name, "from-1").
		FlushSet(Inet, table.Name, "bridges").
		DeleteChain(Inet, table.Name, "from-2")
	script := b.String()
	if err := Load(ns, b); err != nil {
		t.Fatal(err)
	}
	ours := run(t, ns, "", "nft", "list", "table", "inet", table.Name)
	for _, want := range []string{"172.17.0.9 . 99", "jump extra", "tcp dport 1 drop"} {
		if !strings.Contains(ours, want) {
			t.Errorf("no %q in\n%s", want, ours)
		}
	}
	for _, not := range []string{"172.17.0.2", "172.17.0.0/16", "masquerade", "chain from-2", "br-0123456789ab"} {
		if strings.Contains(ours, not) {
			t.Errorf("still %q in\n%s", not, ours)
		}
	}
	// the same as text, to nft itself
	other := newNamespace(t)
	run(t, other, table.String(), "nft", "-f", "-")
	run(t, other, script, "nft", "-f", "-")
	if theirs := run(t, other, "", "nft", "list", "table", "inet", table.Name); sorted(theirs) != sorted(ours) {
		t.Errorf("by text\n%s\nby messages\n%s", theirs, ours)
	}
}

func TestRefusalChangesNothing(t *testing.T) {
	ns := newNamespace(t)
	table := full(Inet)
	if err := Load(ns, NewBatch().Add(table)); err != nil {
		t.Fatal(err)
	}
	before := run(t, ns, "", "nft", "list", "ruleset")
	missing := Element{Key: []Value{Proto(6), Port(9)}}
	err := Load(ns, NewBatch().FlushChain(Inet, table.Name, "forward").DeleteElements(Inet, table.Name, table.Sets[1], missing).FlushChain(Inet, table.Name, "early"))
	if !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "ports4: tcp . 9") {
		t.Errorf("error %v", err)
	}
	if after := run(t, ns, "", "nft", "list", "ruleset"); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	if err := Load(ns, NewBatch().AddRules(Inet, "nowhere", "x", NewRule(Drop()))); !fault.Is(err, fault.NotFound) {
		t.Errorf("error %v", err)
	}
	if err := Load(ns, NewBatch().Delete(Inet, table.Name).Delete(IPv4, "never-was")); err != nil {
		t.Error(err)
	}
	if after := run(t, ns, "", "nft", "list", "ruleset"); strings.TrimSpace(after) != "" {
		t.Errorf("left: %s", after)
	}
}

func TestManyElements(t *testing.T) {
	ns := newNamespace(t)
	set := Set{Name: "ports4", Key: []Type{InetProto, InetService}, Data: []Type{IPv4Addr, InetService}}
	for i := range 20000 {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		set.Elements = append(set.Elements, Element{Key: []Value{Proto(6), Port(uint16(i + 1))}, Data: []Value{Addr(a), Port(80)}})
	}
	table := Table{Family: Inet, Name: "big", Sets: []Set{set}}
	start := time.Now()
	if err := Load(ns, NewBatch().Replace(table)); err != nil {
		t.Fatal(err)
	}
	whole := time.Since(start)
	c, err := Dial(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	start = time.Now()
	const changes = 50
	for i := range changes {
		if err := c.Load(NewBatch().DeleteElements(Inet, "big", set, set.Elements[i]).AddElements(Inet, "big", set, set.Elements[i])); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("20,000 elements in %v; one of them replaced in %v", whole, time.Since(start)/changes)
}

func newNamespace(t *testing.T) *os.File {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs nft: package nftables")
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
	t.Cleanup(func() { ns.Close() })
	return ns
}

func run(t *testing.T, ns *os.File, input string, argv ...string) string {
	t.Helper()
	var out []byte
	err := netns.Do(ns, func() (err error) {
		c := exec.Command(argv[0], argv[1:]...)
		c.Stdin = strings.NewReader(input)
		out, err = c.CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v\n%s\n%s", argv, err, out, input)
	}
	return string(out)
}

var spaces = regexp.MustCompile(`\s+`)

// sorted gives the ruleset with the elements of sets in one order and all white space alike.
func sorted(s string) string {
	s = regexp.MustCompile(`elements = \{[^}]*\}`).ReplaceAllStringFunc(s, func(e string) string {
		e = strings.TrimSuffix(strings.TrimPrefix(e, "elements = {"), "}")
		list := strings.Split(e, ",")
		for i := range list {
			list[i] = strings.TrimSpace(spaces.ReplaceAllString(list[i], " "))
		}
		slices.Sort(list)
		return "elements = { " + strings.Join(list, ", ") + " }"
	})
	s = regexp.MustCompile(`packets \d+ bytes \d+ `).ReplaceAllString(s, "")
	return strings.TrimSpace(spaces.ReplaceAllString(s, " "))
}
