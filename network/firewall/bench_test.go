package firewall

import (
	"io"
	"net"
	"os/exec"
	"testing"
	"time"
)

// byHand is the same published port as one would write it down: what our rules are measured against.
const byHand = `add table inet by-hand
add chain inet by-hand pre { type nat hook prerouting priority dstnat; }
add chain inet by-hand out { type nat hook output priority -100; }
add chain inet by-hand post { type nat hook postrouting priority srcnat; }
add rule inet by-hand pre fib daddr type local tcp dport 8080 dnat ip to 172.30.1.2:80
add rule inet by-hand pre fib daddr type local tcp dport 8090 dnat ip to 172.30.1.2:90
add rule inet by-hand out fib daddr type local tcp dport 8080 dnat ip to 172.30.1.2:80
add rule inet by-hand post ip saddr 172.30.1.0/24 oifname != "br-a" masquerade
`

func BenchmarkPublished(b *testing.B) {
	for _, ours := range []bool{false, true} {
		name := map[bool]string{false: "by-hand", true: "ours"}[ours]
		l := newLab(b, Policy{})
		if ours {
			l.change([]Port{port("8080", "172.30.1.2:80"), port("8090", "172.30.1.2:90")}, nil)
		} else {
			l.fw.Remove(b.Context())
			l.nft(byHand)
			b.Cleanup(func() { exec.Command("nft", "delete", "table", "inet", "by-hand").Run() })
		}
		l.serve("a1", 80)
		l.sink("a1", 90)
		b.Run("connect/"+name, func(b *testing.B) {
			for b.Loop() {
				c, err := l.dial("client", "tcp", "198.51.100.2:8080", time.Second)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := ask(c, time.Second); err != nil {
					b.Fatal(err)
				}
				c.(*net.TCPConn).SetLinger(0)
				c.Close()
			}
		})
		b.Run("request/"+name, func(b *testing.B) {
			c, err := l.dial("client", "tcp", "198.51.100.2:8080", time.Second)
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			for b.Loop() {
				if _, err := ask(c, time.Second); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("stream/"+name, func(b *testing.B) {
			c, err := l.dial("client", "tcp", "198.51.100.2:8090", time.Second)
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			block := make([]byte, 256<<10)
			b.SetBytes(int64(len(block)))
			for b.Loop() {
				if _, err := c.Write(block); err != nil {
					b.Fatal(err)
				}
			}
		})
		if !ours {
			exec.Command("nft", "delete", "table", "inet", "by-hand").Run()
		}
		l.down()
	}
}

// sink swallows what comes to a TCP port of a place.
func (l *lab) sink(place string, port int) {
	l.t.Helper()
	var listener net.Listener
	err := l.in(place, func() (err error) {
		listener, err = net.ListenTCP("tcp", &net.TCPAddr{Port: port})
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go io.Copy(io.Discard, c)
		}
	}()
}
