package firewall

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/kernel/nft"
)

// command runs a program of another firewall on the lab's host.
func command(t *testing.T, argv ...string) string {
	t.Helper()
	var out, errs strings.Builder // apart: iptables-nft warns of tables of iptables-legacy, which an earlier test has had made
	c := exec.Command(argv[0], argv[1:]...)
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		t.Fatalf("%v: %v: %s%s", argv, err, out.String(), errs.String())
	}
	return out.String()
}

func needProgram(t *testing.T, names ...string) {
	t.Helper()
	for _, n := range names {
		if _, err := exec.LookPath(n); err != nil {
			t.Skipf("needs %s", n)
		}
	}
}

// eventually tries until f is content, for as long as a busy machine may need.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); !f(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s does not come", what)
		}
	}
}

func TestIptables(t *testing.T) {
	for _, kind := range []string{"nft", "legacy"} {
		t.Run(kind, func(t *testing.T) {
			program := "iptables-" + kind
			needProgram(t, program, "ip6"+strings.TrimPrefix(program, "ip"))
			clean := func() {
				exec.Command(program, "-P", "FORWARD", "ACCEPT").Run()
				exec.Command(program, "-F").Run()
				exec.Command(program, "-X").Run()
			}
			t.Cleanup(clean)
			l := newLab(t, Policy{})
			l.serve("client", 80)
			l.serve("a1", 80)
			l.want("a1", "198.51.100.1:80", "client 198.51.100.2")
			command(t, program, "-P", "FORWARD", "DROP")
			l.state.Ports = []Port{port("8080", "172.30.1.2:80")}
			l.replace()
			l.want("a1", "198.51.100.1:80", "client 198.51.100.2")
			l.want("client", "198.51.100.2:8080", "a1 198.51.100.1")
			l.want("client", "172.30.1.2:80", "")
			if rules := l.fw.Rules(); !strings.Contains(rules, "-A FORWARD -m comment --comment berth -j BERTH-TEST") {
				t.Errorf("not told:\n%s", rules)
			}

			// a last rule does what a policy does: some images of machines come with one
			command(t, program, "-P", "FORWARD", "ACCEPT")
			command(t, program, "-F", "FORWARD")
			command(t, program, "-A", "FORWARD", "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT")
			command(t, program, "-A", "FORWARD", "-j", "REJECT", "--reject-with", "icmp-host-prohibited")
			l.replace()
			l.want("a1", "198.51.100.1:80", "client 198.51.100.2")
			l.want("client", "198.51.100.2:8080", "a1 198.51.100.1")
			command(t, program, "-F", "FORWARD")
			command(t, program, "-P", "FORWARD", "DROP")

			// with a dockerd beside us, the jump is where its users' rules are; what they drop is dropped
			command(t, program, "-N", "DOCKER-USER")
			command(t, program, "-I", "FORWARD", "-j", "DOCKER-USER")
			command(t, program, "-A", "DOCKER-USER", "-i", "wan", "-p", "tcp", "--dport", "80", "-m", "conntrack", "--ctorigdstport", "8081", "-j", "DROP")
			command(t, program, "-A", "DOCKER-USER", "-j", "RETURN")
			l.state.Ports = append(l.state.Ports, port("8081", "172.30.1.2:80"))
			l.replace()
			rules := strings.Split(strings.TrimSpace(command(t, program, "-S", "DOCKER-USER")), "\n")
			if len(rules) != 4 || !strings.HasSuffix(rules[2], "-j BERTH-TEST") {
				t.Errorf("%s", rules)
			}
			if forward := command(t, program, "-S", "FORWARD"); strings.Contains(forward, "BERTH") {
				t.Errorf("the jump is still in %s", forward)
			}
			l.want("client", "198.51.100.2:8080", "a1 198.51.100.1")
			l.want("client", "198.51.100.2:8081", "")
			l.replace()
			if again := strings.Split(strings.TrimSpace(command(t, program, "-S", "DOCKER-USER")), "\n"); !slices.Equal(rules, again) {
				t.Errorf("asked twice: %s", again)
			}

			// what is as it should be is left alone, or we would answer our own changes for ever
			if kind == "nft" {
				w, err := l.fw.conn.Watch()
				if err != nil {
					t.Fatal(err)
				}
				time.AfterFunc(400*time.Millisecond, func() { w.Close() })
				if _, err := l.fw.check(context.Background()); err != nil {
					t.Error(err)
				}
				if err := w.Next(); !errors.Is(err, os.ErrClosed) {
					t.Errorf("a look has changed something: %v", err)
				}
			}

			// a network less, and all
			l.state.Networks, l.state.Ports = []Network{netA}, nil
			l.replace()
			if ours := command(t, program, "-S", "BERTH-TEST"); strings.Contains(ours, "br-b") || !strings.Contains(ours, "-i br-a -j ACCEPT") {
				t.Errorf("our chain: %s", ours)
			}
			if kind == "nft" {
				command(t, program, "-F", "DOCKER-USER")
				eventually(t, "the jump", func() bool { return strings.Contains(command(t, program, "-S", "DOCKER-USER"), "BERTH-TEST") })
			}
			if err := l.fw.Remove(context.Background()); err != nil {
				t.Error(err)
			}
			if left := command(t, program, "-S"); strings.Contains(left, "BERTH") || !strings.Contains(left, "DOCKER-USER") {
				t.Errorf("left: %s", left)
			}
		})
	}
}

// ownFiles puts copies of directories in the place of the real ones, for the rest of the tests' life.
func ownFiles(t *testing.T, dirs ...string) {
	t.Helper()
	for _, d := range dirs {
		copied := t.TempDir()
		if _, err := os.Stat(d); err != nil {
			t.Skipf("needs %s", d)
		}
		command(t, "cp", "-a", d+"/.", copied)
		if err := syscall.Mount(copied, d, "", syscall.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Unmount(d, syscall.MNT_DETACH) })
	}
}

func TestUFW(t *testing.T) {
	needProgram(t, "ufw", "iptables-nft")
	ownFiles(t, "/etc/ufw", "/etc/default")
	for _, obey := range []bool{false, true} {
		t.Run(fmt.Sprintf("obey=%v", obey), func(t *testing.T) {
			l := newLab(t, Policy{ObeyInput: obey})
			l.serve("client", 80)
			l.serve("a1", 80)
			command(t, "ufw", "--force", "enable")
			t.Cleanup(func() { exec.Command("ufw", "--force", "reset").Run() })
			l.state.Ports = []Port{port("8080", "172.30.1.2:80"), port("8080", "[fd30:1::2]:80")}
			l.replace()
			l.want("a1", "198.51.100.1:80", "client 198.51.100.2")
			l.want("a1", "[2001:db8::1]:80", "client 2001:db8::2")
			open4, open6, note := "a1 198.51.100.1", "a1 2001:db8::1", "bypasses ufw"
			if obey {
				open4, open6, note = "", "", "only what ufw lets into the host"
			}
			l.want("client", "198.51.100.2:8080", open4)
			l.want("client", "[2001:db8::2]:8080", open6)
			if !slices.ContainsFunc(l.fw.Audit(), func(e Exposure) bool { return e.Host == "0.0.0.0:8080" && slices.Contains(e.Notes, note) }) {
				t.Errorf("audit: %+v", l.fw.Audit())
			}
			command(t, "ufw", "allow", "8080/tcp")
			l.want("client", "198.51.100.2:8080", "a1 198.51.100.1")
			l.want("client", "[2001:db8::2]:8080", "a1 2001:db8::1")
			if obey {
				return
			}
			command(t, "ufw", "reload")
			eventually(t, "the jump", func() bool {
				return strings.Contains(command(t, "iptables-nft", "-S", "ufw-user-forward"), "BERTH-TEST")
			})
			l.want("a1", "198.51.100.1:80", "client 198.51.100.2")
			if err := l.fw.Remove(context.Background()); err != nil {
				t.Error(err)
			}
			if left := command(t, "iptables-nft", "-S") + command(t, "ip6tables-nft", "-S"); strings.Contains(left, "BERTH") {
				t.Errorf("left: %s", left)
			}
		})
	}
}

func TestFirewalld(t *testing.T) {
	needProgram(t, "firewalld", "firewall-cmd", "dbus-daemon")
	ownFiles(t, "/etc/firewalld")
	for _, obey := range []bool{false, true} {
		t.Run(fmt.Sprintf("obey=%v", obey), func(t *testing.T) {
			bus(t)
			l := newLab(t, Policy{ObeyInput: obey})
			l.serve("client", 80)
			l.serve("a1", 80)
			firewalld(t)
			l.state.Ports = []Port{port("8080", "172.30.1.2:80"), port("8080", "[fd30:1::2]:80")}
			l.replace()
			if rules := l.fw.Rules(); !strings.Contains(rules, "firewall-cmd --zone=trusted --add-interface=br-a") {
				t.Errorf("not told:\n%s", rules)
			}
			l.want("a1", "198.51.100.1:80", "client 198.51.100.2")
			l.want("a1", "[2001:db8::1]:80", "client 2001:db8::2")
			open4, open6 := "a1 198.51.100.1", "a1 2001:db8::1"
			if obey {
				open4, open6 = "", ""
			}
			l.want("client", "198.51.100.2:8080", open4)
			l.want("client", "[2001:db8::2]:8080", open6)
			command(t, "firewall-cmd", "--add-port=8080/tcp")
			l.want("client", "198.51.100.2:8080", "a1 198.51.100.1")
			l.want("client", "[2001:db8::2]:8080", "a1 2001:db8::1")
			if obey {
				return
			}
			command(t, "firewall-cmd", "--reload")
			eventually(t, "the zone", func() bool {
				out, _ := exec.Command("firewall-cmd", "--get-zone-of-interface=br-a").Output()
				return strings.TrimSpace(string(out)) == trustedZone
			})
			if err := l.fw.Remove(context.Background()); err != nil {
				t.Error(err)
			}
			if out, _ := exec.Command("firewall-cmd", "--get-zone-of-interface=br-a").Output(); strings.TrimSpace(string(out)) == trustedZone {
				t.Error("the bridge is still in the zone")
			}
		})
	}
}

// A firewalld that does not answer yet, as while it starts, is asked again though nothing in its table changes any more.
func TestFirewalldAnswersLate(t *testing.T) {
	dir := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\n[ -e %[1]s/ready ] || { echo busy >&2; exit 252; }\necho \"$*\" >>%[1]s/said\n", dir)
	if err := os.WriteFile(filepath.Join(dir, "firewall-cmd"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	l := newLab(t, Policy{})
	t.Cleanup(func() { exec.Command("nft", "delete", "table", "inet", "firewalld").Run() })
	l.nft("add table inet firewalld\nadd chain inet firewalld filter_FORWARD { type filter hook forward priority 10; }\n")
	l.replace()
	said := func() string {
		data, _ := os.ReadFile(filepath.Join(dir, "said")) // not there before it is ready
		return string(data)
	}
	time.Sleep(2 * settled) // our own changes have been looked at
	if said() != "" {
		t.Fatalf("it was ready at once: %s", said())
	}
	if err := os.WriteFile(filepath.Join(dir, "ready"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second question", func() bool { return strings.Contains(said(), "--zone=trusted --add-interface=br-a") })
}

// bus starts a system bus of the test's own.
func bus(t *testing.T) {
	t.Helper()
	dir, err := os.MkdirTemp("", "bus") // t.TempDir has a "=" in its name, which an address of a bus cannot
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	config := filepath.Join(dir, "bus.conf")
	text := `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path=` + dir + `/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("dbus-daemon", "--config-file="+config, "--nofork", "--nopidfile", "--print-address")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", strings.TrimSpace(address))
}

func firewalld(t *testing.T) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	c := exec.Command("firewalld", "--nofork", "--nopid", "--log-file", log)
	var words strings.Builder
	c.Stdout, c.Stderr = &words, &words
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Signal(syscall.SIGTERM)
		c.Wait()
		exec.Command("nft", "delete", "table", "inet", "firewalld").Run()
	})
	eventually(t, "firewalld", func() bool { return exec.Command("firewall-cmd", "--state").Run() == nil })
}

// Somebody's own table that drops is told, and never touched.
func TestPlainNftables(t *testing.T) {
	l := newLab(t, Policy{})
	l.serve("client", 80)
	t.Cleanup(func() { exec.Command("nft", "delete", "table", "inet", "mine").Run() })
	l.nft("add table inet mine\nadd chain inet mine forward { type filter hook forward priority 0; policy drop; }\nadd rule inet mine forward ct state established,related accept\n")
	before := command(t, "nft", "list", "table", "inet", "mine")
	l.replace()
	l.want("a1", "198.51.100.1:80", "")
	if after := command(t, "nft", "list", "table", "inet", "mine"); after != before {
		t.Errorf("it became %s", after)
	}
	// what is told helps
	did := false
	for line := range strings.Lines(l.fw.Rules()) {
		if rest, ok := strings.CutPrefix(line, "#   nft insert "); ok {
			l.nft("insert " + rest)
			did = true
		}
	}
	if !did {
		t.Errorf("nothing is told:\n%s", l.fw.Rules())
	}
	l.want("a1", "198.51.100.1:80", "client 198.51.100.2")
}

func TestManagersOf(t *testing.T) {
	base := func(f nft.Family, table, chain string, p nft.Point, drop bool) nft.ChainInfo {
		return nft.ChainInfo{Family: f, Table: table, Name: chain, Hook: nft.Hook{Type: nft.Filter, Point: p, Drop: drop}}
	}
	for _, c := range []struct {
		name   string
		chains []nft.ChainInfo
		want   []Manager
	}{
		{"none", nil, nil},
		{"nothing drops", []nft.ChainInfo{base(nft.IPv4, "filter", "FORWARD", nft.Forward, false)}, nil},
		{"ours", []nft.ChainInfo{base(nft.Inet, "berth", "forward", nft.Forward, true), base(nft.Inet, "berth-0a1b2c", "forward", nft.Forward, true)}, nil},
		{"a bridge's", []nft.ChainInfo{base(nft.Bridge, "filter", "FORWARD", nft.Forward, true)}, nil},
		{"iptables", []nft.ChainInfo{base(nft.IPv4, "filter", "FORWARD", nft.Forward, true)},
			[]Manager{{Kind: KindIptables, V4: true, Table: "filter", Chain: "FORWARD", Point: "FORWARD", ForwardDrops: true}}},
		{"dockerd", []nft.ChainInfo{base(nft.IPv6, "filter", "FORWARD", nft.Forward, true), {Family: nft.IPv6, Table: "filter", Name: "DOCKER-USER"}},
			[]Manager{{Kind: KindIptables, Table: "filter", Chain: "FORWARD", Point: "DOCKER-USER", ForwardDrops: true}}},
		{"ufw", []nft.ChainInfo{base(nft.IPv4, "filter", "INPUT", nft.Input, true), base(nft.IPv4, "filter", "FORWARD", nft.Forward, true), {Family: nft.IPv4, Table: "filter", Name: "ufw-user-forward"}},
			[]Manager{{Kind: KindIptables, V4: true, Table: "filter", Chain: "FORWARD", Point: "ufw-user-forward", UFW: true, ForwardDrops: true, InputDrops: true}}},
		{"firewalld", []nft.ChainInfo{base(nft.Inet, "firewalld", "filter_FORWARD", nft.Forward, false), base(nft.Inet, "firewalld", "filter_INPUT", nft.Input, false)},
			[]Manager{{Kind: KindFirewalld, Table: "inet firewalld", Chain: "filter_FORWARD", ForwardDrops: true, InputDrops: true}}},
		{"somebody's, named like iptables'", []nft.ChainInfo{base(nft.IPv4, "filter", "forward", nft.Forward, true)},
			[]Manager{{Kind: KindNft, Table: "ip filter", Chain: "forward", ForwardDrops: true}}},
	} {
		if got := managersOf(c.chains, "berth"); !slices.Equal(got, c.want) {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// Whatever iptables-legacy prints is read without harm.
func FuzzLegacy(f *testing.F) {
	for rule, want := range map[string]bool{"-P FORWARD DROP": true, "-P FORWARD ACCEPT": false, "-P INPUT DROP": false, "-A FORWARD -j REJECT --reject-with icmp-host-prohibited": true,
		"-A FORWARD -i eth0 -j DROP": false, "-A FORWARD -j DROP": true, "-A FORWARD -j ACCEPT": false, "-A DOCKER-USER -j DROP": false} {
		if m, _ := legacyManager(rule, true); m.ForwardDrops != want {
			f.Errorf("%s: %+v", rule, m)
		}
	}
	f.Add("-P INPUT DROP\n-P FORWARD DROP\n-N DOCKER-USER\n-A FORWARD -j DOCKER-USER\n")
	f.Fuzz(func(t *testing.T, s string) {
		m, ok := legacyManager(s, true)
		if ok != (m.ForwardDrops || m.InputDrops) || m.Point == "" {
			t.Errorf("%q: %+v", s, m)
		}
	})
}

// The recipe of docs/ports.md: somebody's own table narrows a published port, since a drop is final wherever it happens.
func TestOwnRuleNarrows(t *testing.T) {
	l := newLab(t, Policy{})
	l.serve("a1", 80)
	l.change([]Port{port("8080", "172.30.1.2:80"), port("8081", "172.30.1.2:80")}, nil)
	t.Cleanup(func() { exec.Command("nft", "delete", "table", "inet", "mine").Run() })
	l.nft(`table inet mine {
	chain containers {
		type filter hook forward priority filter; policy accept;
		iifname "wan" meta l4proto tcp ct original proto-dst 8080 ip saddr != 203.0.113.0/24 drop
	}
}
`)
	l.want("client", "198.51.100.2:8080", "")
	l.want("client", "198.51.100.2:8081", "a1 198.51.100.1")
	l.want("host", "127.0.0.1:8080", "a1 172.30.1.1")
}

// Whatever firewall-cmd prints is read without harm.
func FuzzZones(f *testing.F) {
	zones := zonesOf("public (default)\n  interfaces: eth0 eth1\n  sources: 10.0.0.0/8\ntrusted\n  interfaces: br-a\n")
	if len(zones) != 3 || zones["eth1"] != "public" || zones["br-a"] != "trusted" {
		f.Fatalf("%v", zones)
	}
	f.Add("public\n  interfaces: eth0\n")
	f.Fuzz(func(t *testing.T, s string) { zonesOf(s) })
}
