package socket

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

func listener(t *testing.T, k Kind) (int, netip.AddrPort) {
	t.Helper()
	fd, err := Listen(k, loopback)
	if err != nil {
		t.Fatal(err)
	}
	at, err := Bound(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fd, at
}

func TestDatagrams(t *testing.T) {
	fd, at := listener(t, UDP)
	defer Close(fd)
	buf := make([]byte, 4)
	if _, _, _, err := Receive(fd, buf); !None(err) {
		t.Errorf("nothing was sent: %v", err)
	}
	c, err := New(UDP, at.Addr())
	if err != nil {
		t.Fatal(err)
	}
	f, err := Connect(c, at, time.Now().Add(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, sent := range []string{"four", "longer"} {
		f.Write([]byte(sent))
		n, from, cut, err := Receive(fd, buf)
		if err != nil || string(buf[:n]) != sent[:4] || cut != (len(sent) > 4) {
			t.Errorf("%q %v, %v", buf[:n], cut, err)
		}
		if err := Send(fd, []byte("back"), from); err != nil {
			t.Error(err)
		}
		if n, err := f.Read(buf); err != nil || string(buf[:n]) != "back" {
			t.Errorf("%q %v", buf[:n], err)
		}
	}
}

func TestConnectTCP(t *testing.T) {
	fd, at := listener(t, TCP)
	c, err := New(TCP, at.Addr())
	if err != nil {
		t.Fatal(err)
	}
	f, err := Connect(c, at, time.Now().Add(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	a, err := Accept(fd)
	if err != nil {
		t.Fatal(err)
	}
	f.Write([]byte("x"))
	f.Close()
	if b, err := io.ReadAll(a); err != nil || string(b) != "x" {
		t.Errorf("%q %v", b, err)
	}
	a.Close()
	Close(fd)
	c, err = New(TCP, at.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Connect(c, at, time.Now().Add(time.Second)); err == nil {
		t.Error("connected to nobody")
	}
}

// A connection that nobody answers is given up at its deadline.
func TestConnectDeadline(t *testing.T) {
	fd, at := listener(t, TCP)
	defer Close(fd)
	var full []net.Conn
	defer func() {
		for _, c := range full {
			c.Close()
		}
	}()
	for range 200 { // until the queue of those not accepted is full and the kernel drops what comes
		c, err := net.DialTimeout("tcp", at.String(), 50*time.Millisecond)
		if err != nil {
			break
		}
		full = append(full, c)
	}
	c, err := New(TCP, at.Addr())
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if _, err := Connect(c, at, start.Add(50*time.Millisecond)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) > time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
}

func TestSet(t *testing.T) {
	s, err := NewSet()
	if err != nil {
		t.Fatal(err)
	}
	one, at1 := listener(t, UDP)
	two, at2 := listener(t, UDP)
	defer Close(one)
	defer Close(two)
	const big = uint64(1)<<40 | 7
	if err := errors.Join(s.Add(one, 1), s.Add(two, big)); err != nil {
		t.Fatal(err)
	}
	told := make(chan uint64)
	ended := make(chan error, 1)
	go func() {
		buf := make([]byte, 16)
		for {
			tokens, err := s.Wait(nil)
			if err != nil {
				ended <- err
				return
			}
			for _, token := range tokens {
				Receive(map[uint64]int{1: one, big: two}[token], buf)
				told <- token
			}
		}
	}()
	for range 100 {
		for _, x := range []struct {
			at    netip.AddrPort
			token uint64
		}{{at1, 1}, {at2, big}} {
			c, err := net.Dial("udp", x.at.String())
			if err != nil {
				t.Fatal(err)
			}
			c.Write([]byte("x"))
			c.Close()
			select {
			case got := <-told:
				if got != x.token {
					t.Fatalf("token %d, want %d", got, x.token)
				}
			case <-time.After(5 * time.Second):
				t.Fatal("not told")
			}
		}
	}
	if err := s.Remove(one); err != nil {
		t.Error(err)
	}
	c, err := net.Dial("udp", at1.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte("x"))
	select {
	case got := <-told:
		t.Errorf("told %d of what was removed", got)
	case <-time.After(20 * time.Millisecond):
	}
	s.Close()
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("ended by %v", err)
	}
}

// A descriptor that went through another process's hands still serves.
func TestShareAndOwn(t *testing.T) {
	fd, at := listener(t, UDP)
	f, err := Share(fd, "shared")
	if err != nil {
		t.Fatal(err)
	}
	Close(fd)
	own, err := Own(f)
	if err != nil {
		t.Fatal(err)
	}
	defer Close(own)
	if got, err := Bound(own); err != nil || got != at {
		t.Errorf("%v %v", got, err)
	}
	if _, _, _, err := Receive(own, make([]byte, 1)); !None(err) {
		t.Errorf("it waits: %v", err)
	}
}
