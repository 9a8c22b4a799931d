package sink

import (
	"context"
	"io"
	"net"
	"testing"
	"time"
)

// TestQuiet: the end of a stream on which nobody answers is noticed before the next write, which goes to the next listener.
func TestQuiet(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := Conn{Network: "tcp", Address: l.Addr().String(), Quiet: true}
	defer c.Close()
	for _, word := range []string{"one", "two"} {
		if err := c.Write(context.Background(), []byte(word)); err != nil {
			t.Fatal(err)
		}
		peer, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 3)
		if _, err := io.ReadFull(peer, b); err != nil || string(b) != word {
			t.Errorf("%q, %v", b, err)
		}
		peer.Close()
		<-c.gone
	}
}

// TestHung: a collector that does not read keeps nobody longer than the context.
func TestHung(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := Conn{Network: "tcp", Address: l.Addr().String(), Quiet: true}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	start := time.Now()
	err = c.Write(ctx, make([]byte, 64<<20))
	if err == nil || time.Since(start) > 30*time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
}

// TestDeadUDP: a UDP collector that is not there holds nobody up.
func TestDeadUDP(t *testing.T) {
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := Conn{Network: "udp", Address: l.LocalAddr().String()}
	defer c.Close()
	l.Close()
	for range 50 {
		if err := c.Write(context.Background(), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTag(t *testing.T) {
	i := &Info{ContainerID: "0123456789abcdef", ContainerName: "/web", ContainerEnv: make([]string, 200)}
	for _, c := range []struct{ tag, want string }{
		{"", "0123456789ab"}, {"{{.Name}}/{{.ID}}", "web/0123456789ab"}, {`{{pad .Name 1 2}}`, " web  "}, {`{{upper (truncate .Name 2)}}`, "WE"},
		{"{{.Nothing}}", "error"}, {"{{pad .Name 1000000000000 -5}}", "error"}, {"{{range .ContainerEnv}}{{range $.ContainerEnv}}x{{end}}{{end}}", "error"},
	} {
		i.Config = map[string]string{"tag": c.tag}
		got, err := i.Tag(DefaultTag)
		if err != nil {
			got = "error"
		}
		if got != c.want {
			t.Errorf("%s: %q %v, want %q", c.tag, got, err, c.want)
		}
	}
}
