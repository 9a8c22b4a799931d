package loopback6

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"berth/kernel/sock"
)

// container is an echo server on 127.0.0.1, and the port of a door on all addresses of IPv6.
func door(t *testing.T, proto string, any bool) (Door, string) {
	t.Helper()
	d := Door{Proto: proto, AnyClient: any}
	if proto == "tcp" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		d.Target = l.Addr().(*net.TCPAddr).AddrPort()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					io.Copy(c, c)
				}()
			}
		}()
	} else {
		p, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		d.Target = p.LocalAddr().(*net.UDPAddr).AddrPort()
		go func() {
			b := make([]byte, 70000)
			for {
				n, from, err := p.ReadFrom(b)
				if err != nil {
					return
				}
				p.WriteTo(b[:n], from)
			}
		}()
	}
	// any free port, held as the engine holds it
	free, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skipf("needs IPv6: %v", err)
	}
	port := uint16(free.Addr().(*net.TCPAddr).Port)
	free.Close()
	d.Socket, err = sock.Hold(proto, netip.AddrPortFrom(netip.IPv6Unspecified(), port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Socket.Close() })
	return d, netip.AddrPortFrom(netip.IPv6Loopback(), port).String()
}

func TestTCP(t *testing.T) {
	r := New(nil)
	d, address := door(t, "tcp", false)
	if _, err := net.Dial("tcp", address); err == nil {
		t.Error("a port that is only held takes connections")
	}
	if err := r.Open("x", d); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	sent := make([]byte, 3<<20)
	rand.Read(sent)
	go func() {
		c.Write(sent)
		c.(*net.TCPConn).CloseWrite() // the end comes through, and what is still on its way back
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes of %d back, %v", len(got), len(sent), err)
	}
	c.Close()

	// another engine takes the socket over; connections wait for it
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	waiting, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	waiting.Write([]byte("hello"))
	next := New(nil)
	defer next.Close()
	if err := next.Open("x", d); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	waiting.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.ReadFull(waiting, b); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}

	// shutting ends connections; a container that refuses resets
	next.Shut("x")
	if _, err := waiting.Read(b); err == nil {
		t.Error("a connection outlives its door")
	}
	d.Target = netip.MustParseAddrPort("127.0.0.1:1")
	if err := next.Open("x", d); err != nil {
		t.Fatal(err)
	}
	refused, err := net.Dial("tcp", address)
	if err == nil {
		refused.SetDeadline(time.Now().Add(time.Minute))
		_, err = refused.Read(b)
		refused.Close()
	}
	if err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a container that refuses: %v", err)
	}
}

func TestUDP(t *testing.T) {
	for _, any := range []bool{false, true} {
		r := New(nil)
		d, address := door(t, "udp", any)
		if err := r.Open("x", d); err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{0, 1, 1400, 60000} {
			c, err := net.Dial("udp", address)
			if err != nil {
				t.Fatal(err)
			}
			c.SetDeadline(time.Now().Add(time.Minute))
			sent := make([]byte, size)
			rand.Read(sent)
			c.Write(sent)
			got := make([]byte, 70000)
			n, err := c.Read(got)
			if err != nil || !bytes.Equal(got[:n], sent) {
				t.Errorf("%d bytes of %d back, %v", n, size, err)
			}
			c.Close()
		}
		r.Close()
	}
}

// Clients that do not come over loopback are served only where the door is for all.
func TestWhoIsServed(t *testing.T) {
	for _, c := range []struct {
		any  bool
		from string
		want bool
	}{{false, "::1", true}, {false, "127.0.0.1", true}, {false, "2001:db8::1", false}, {true, "2001:db8::1", true}} {
		s := served{Door: Door{AnyClient: c.any}}
		if got := s.welcome(&net.TCPAddr{IP: net.ParseIP(c.from)}); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	d, _ := door(t, "tcp", false)
	d.Proto = "sctp"
	if err := New(nil).Open("x", d); err == nil {
		t.Error("a door of SCTP")
	}
}
