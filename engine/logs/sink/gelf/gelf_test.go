package gelf

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"berth/engine/logs/sink"
)

func records() []sink.Record {
	at := time.Unix(1700000000, 123456789)
	noise := make([]byte, 16<<10)
	for i := range noise { // hardly to be compressed
		noise[i] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"[(i*i*7+i*13+i>>3^i>>5*31)%64]
	}
	return []sink.Record{{Time: at, Line: []byte("one \"quoted\"")}, {Time: at}, {Time: at, Line: []byte("err"), Stderr: true}, {Time: at, Line: noise}}
}

type message struct {
	Version, Host string
	Short         string `json:"short_message"`
	Timestamp     float64
	Level         int
	Name          string `json:"_container_name"`
	Tag           string `json:"_tag"`
	Label         string `json:"_l"`
}

func newGelf(t *testing.T, o map[string]string) *Gelf {
	t.Helper()
	o["labels"] = "l"
	if err := Check(map[string]string{"gelf-address": o["gelf-address"]}); err != nil {
		t.Fatal(err)
	}
	g, err := New(&sink.Info{ContainerID: "0123456789abcdef", ContainerName: "/web", ContainerLabels: map[string]string{"l": "v"}, Config: o})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

func check(t *testing.T, what string, all [][]byte) {
	t.Helper()
	if len(all) != 3 {
		t.Fatalf("%s: %d messages", what, len(all))
	}
	want := records()
	want = append(want[:1], want[2:]...)
	for i, b := range all {
		var m message
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatalf("%s: %v in %.100q", what, err, b)
		}
		level := 6
		if want[i].Stderr {
			level = 3
		}
		if m.Short != string(want[i].Line) || m.Version != "1.1" || m.Timestamp != 1700000000.123 || m.Level != level || m.Name != "web" || m.Tag != "0123456789ab" || m.Label != "v" || m.Host == "" {
			t.Errorf("%s: %.300s", what, b)
		}
	}
}

func TestUDP(t *testing.T) {
	for _, kind := range []string{"", "gzip", "zlib", "none"} {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		o := map[string]string{"gelf-address": "udp://" + c.LocalAddr().String()}
		if kind != "" {
			o["gelf-compression-type"] = kind
		}
		n := 0
		if err := newGelf(t, o).Send(context.Background(), records(), func(i int) { n = i }); err != nil || n != 4 {
			t.Fatal(err, n)
		}
		var all [][]byte
		parts := map[uint64][][]byte{}
		chunked := 0
		for len(all) < 3 {
			b := make([]byte, 9000)
			c.SetReadDeadline(time.Now().Add(time.Minute))
			n, _, err := c.ReadFrom(b)
			if err != nil {
				t.Fatal(err)
			}
			if b = b[:n]; len(b) > chunkLen {
				t.Errorf("a datagram of %d bytes", len(b))
			}
			if b[0] == 0x1e && b[1] == 0x0f {
				id := binary.BigEndian.Uint64(b[2:])
				if int(b[10]) != len(parts[id]) {
					t.Errorf("chunk %d comes as number %d", b[10], len(parts[id]))
				}
				parts[id] = append(parts[id], b[12:])
				if len(parts[id]) < int(b[11]) {
					continue
				}
				b = bytes.Join(parts[id], nil)
				chunked++
			}
			var r io.Reader = bytes.NewReader(b)
			switch {
			case kind == "zlib":
				r, err = zlib.NewReader(r)
			case kind != "none":
				r, err = gzip.NewReader(r)
			}
			if err != nil {
				t.Fatal(err)
			}
			if b, err = io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
			all = append(all, b)
		}
		check(t, "udp "+kind, all)
		if kind == "none" && chunked != 1 {
			t.Errorf("%d chunked messages", chunked)
		}
		c.Close()
	}
}

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan string, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		b, _ := io.ReadAll(conn)
		got <- string(b)
	}()
	g := newGelf(t, map[string]string{"gelf-address": "tcp://" + l.Addr().String()})
	if err := g.Probe(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := g.Send(context.Background(), records(), func(int) {}); err != nil {
		t.Fatal(err)
	}
	g.Close()
	var all [][]byte
	for _, s := range strings.SplitAfter(<-got, "\x00") {
		if s != "" {
			all = append(all, []byte(strings.TrimSuffix(s, "\x00")))
		}
	}
	check(t, "tcp", all)
}

func TestNobody(t *testing.T) {
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	address := l.Addr().String()
	l.Close()
	g := newGelf(t, map[string]string{"gelf-address": "tcp://" + address})
	if err := g.Probe(context.Background()); err == nil || err.Error() != "gelf: cannot connect to GELF endpoint: "+address+" dial tcp "+address+": connect: connection refused" {
		t.Error(err)
	}
}
