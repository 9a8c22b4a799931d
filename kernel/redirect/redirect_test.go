package redirect

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/kernel/netns"
	"berth/kernel/netns/alone"
)

func TestMain(m *testing.M) { os.Exit(alone.Main(m)) }

// What is loaded is what is printed, whether it replaces something or not.
func TestLoad(t *testing.T) {
	alone.Need(t)
	nft, err := exec.LookPath("nft")
	if err != nil {
		t.Skipf("needs nft: %v", err)
	}
	r := Redirect{Table: "x", Addr: netip.MustParseAddr("127.0.0.11"), Port: 53, UDP: 40000, TCP: 40001}
	for _, ingress := range []bool{true, false} {
		ns := namespace(t)
		for range 2 {
			r.UDP++
			start := time.Now()
			if err := netns.Do(ns, func() error { return load(r.tables(ingress)) }); err != nil {
				t.Fatal(err)
			}
			t.Logf("loaded in %v", time.Since(start))
			var out []byte
			err := netns.Do(ns, func() (err error) {
				out, err = exec.Command(nft, "list", "ruleset").Output()
				return err
			})
			if want := text(r.tables(ingress)); err != nil || strings.TrimSpace(string(out)) != strings.TrimSpace(want) {
				t.Errorf("%v\n%s\nwant\n%s", err, out, want)
			}
		}
	}
	if err := netns.Do(namespace(t), r.Load); err != nil {
		t.Error(err)
	}
}

func namespace(t *testing.T) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ns")
	if err := netns.CreateWith(path, alone.LoopbackUp); err != nil {
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

// tracking is what a container may have of its own.
const tracking = `
table ip nat {
	chain o {
		type nat hook output priority -100
	}
}
table ip f {
	chain o {
		type filter hook output priority 0
		ct state invalid counter drop
	}
	chain i {
		type filter hook input priority 0
		ct state invalid counter drop
	}
}
`

// Both ways carry UDP and TCP, small and large, also where the container itself tracks connections and drops what it thinks invalid.
func TestTraffic(t *testing.T) {
	alone.Need(t)
	for _, c := range []struct {
		ingress bool
		rules   string
	}{
		{true, ""},
		{false, ""},
		{true, tracking},
		{false, tracking},
	} {
		t.Run(fmt.Sprint("ingress ", c.ingress, " tracking ", c.rules != ""), func(t *testing.T) {
			ns := namespace(t)
			err := netns.Do(ns, func() error {
				if c.rules != "" {
					nft := exec.Command("nft", "-f", "-")
					nft.Stdin = strings.NewReader(c.rules)
					if out, err := nft.CombinedOutput(); err != nil {
						return fmt.Errorf("nft: %w: %s", err, out)
					}
				}
				u, err := net.ListenPacket("udp", "127.0.0.11:0")
				if err != nil {
					return err
				}
				t.Cleanup(func() { u.Close() })
				l, err := net.Listen("tcp", "127.0.0.11:0")
				if err != nil {
					return err
				}
				t.Cleanup(func() { l.Close() })
				go echoDatagrams(u)
				go echoStreams(l)
				r := Redirect{Table: "x", Addr: netip.MustParseAddr("127.0.0.11"), Port: 53,
					UDP: uint16(u.LocalAddr().(*net.UDPAddr).Port), TCP: uint16(l.Addr().(*net.TCPAddr).Port)}
				if err := load(r.tables(c.ingress)); err != nil {
					return err
				}
				for _, network := range []string{"udp", "tcp"} {
					for _, size := range []int{1, 9000} {
						if err := echo(network, size); err != nil {
							t.Errorf("%s, %d bytes: %v", network, size, err)
						}
					}
				}
				return nil
			})
			if errors.Is(err, exec.ErrNotFound) {
				t.Skipf("needs nft: %v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

func echo(network string, size int) error {
	c, err := net.DialTimeout(network, "127.0.0.11:53", 2*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := c.Write(bytes.Repeat([]byte("x"), size)); err != nil {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, size))
	return err
}

func echoDatagrams(u net.PacketConn) {
	buf := make([]byte, 65536)
	for {
		n, from, err := u.ReadFrom(buf)
		if err != nil {
			return
		}
		u.WriteTo(buf[:n], from)
	}
}

func echoStreams(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			io.Copy(c, c)
			c.Close()
		}()
	}
}

func FuzzAnswered(f *testing.F) {
	f.Add([]byte("\x24\x00\x00\x00\x02\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) { answered(b, 7) })
}

// text gives the rules as `nft list ruleset` shows them.
func text(tables []table) string {
	var b strings.Builder
	for _, t := range tables {
		notrack := ""
		switch t.hook {
		case receiving:
			fmt.Fprintf(&b, "table netdev %s {\n\tchain input {\n\t\ttype filter hook ingress device \"lo\" priority filter; policy accept;\n", t.name)
		case untracked:
			notrack = "notrack "
			fallthrough
		default:
			fmt.Fprintf(&b, "table ip %s {\n\tchain output {\n\t\ttype filter hook output priority raw; policy accept;\n\t\toif != \"lo\" accept\n", t.name)
		}
		for _, s := range t.steps {
			proto, addr, port := "udp", "daddr", "dport"
			if s.tcp {
				proto = "tcp"
			}
			if s.source {
				addr, port = "saddr", "sport"
			}
			fmt.Fprintf(&b, "\t\tip %s %s %s %s %d %s%s %s set %d\n", addr, t.addr, proto, port, s.from, notrack, proto, port, s.to)
		}
		b.WriteString("\t}\n}\n")
	}
	return b.String()
}
