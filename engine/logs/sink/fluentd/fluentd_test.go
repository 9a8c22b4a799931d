package fluentd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"berth/engine/logs/sink"
	"berth/runtime/keeper/localfile"
)

// decode reads one msgpack value: what the specification has, not only what we write.
func decode(r *bufio.Reader) (any, error) {
	c, err := r.ReadByte()
	if err != nil {
		return nil, err
	}
	num := func(n int) uint64 {
		var b [8]byte
		if _, e := io.ReadFull(r, b[8-n:]); e != nil {
			err = e
		}
		return binary.BigEndian.Uint64(b[:])
	}
	str := func(n int) (any, error) {
		b := make([]byte, n)
		if _, e := io.ReadFull(r, b); e != nil {
			return nil, e
		}
		return string(b), err
	}
	array := func(n int) (any, error) {
		a := []any{}
		for range n {
			v, err := decode(r)
			if err != nil {
				return nil, err
			}
			a = append(a, v)
		}
		return a, err
	}
	object := func(n int) (any, error) {
		m := map[string]any{}
		for range n {
			k, err := decode(r)
			if err != nil {
				return nil, err
			}
			v, err := decode(r)
			if err != nil {
				return nil, err
			}
			m[k.(string)] = v
		}
		return m, err
	}
	switch {
	case c < 0x80:
		return uint64(c), nil
	case c&0xf0 == 0x80:
		return object(int(c & 15))
	case c&0xf0 == 0x90:
		return array(int(c & 15))
	case c&0xe0 == 0xa0:
		return str(int(c & 31))
	}
	switch c {
	case 0xce:
		return num(4), err
	case 0xcf:
		return num(8), err
	case 0xd7:
		if t := num(1); t != 0 {
			return nil, fmt.Errorf("extension %d", t)
		}
		sec, nsec := num(4), num(4)
		return time.Unix(int64(sec), int64(nsec)), err
	case 0xd9:
		return str(int(num(1)))
	case 0xda:
		return str(int(num(2)))
	case 0xdb:
		return str(int(num(4)))
	case 0xdc:
		return array(int(num(2)))
	case 0xde:
		return object(int(num(2)))
	}
	return nil, fmt.Errorf("msgpack byte %x", c)
}

// server takes messages and acknowledges chunks, after it has let go of the first breaks ones.
type server struct {
	l      net.Listener
	got    chan []any // time, record
	breaks int
}

func serve(t *testing.T, breaks int) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s := &server{l: l, got: make(chan []any, 1000), breaks: breaks}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.talk(conn)
		}
	}()
	return s
}

func (s *server) talk(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	for {
		v, err := decode(r)
		if err != nil {
			return
		}
		m := v.([]any)
		if entries, ok := m[1].([]any); ok {
			if s.breaks > 0 {
				s.breaks--
				return
			}
			for _, e := range entries {
				s.got <- append(e.([]any), m[0])
			}
			id := m[2].(map[string]any)["chunk"].(string)
			b := appendStr(appendStr([]byte{0x81}, "ack"), id)
			conn.Write(b[:3]) // in two pieces
			conn.Write(b[3:])
			continue
		}
		s.got <- []any{m[1], m[2], m[0]}
	}
}

func newFluentd(t *testing.T, s *server, more map[string]string) *Fluentd {
	t.Helper()
	o := map[string]string{"fluentd-address": s.l.Addr().String(), "tag": "t.{{.Name}}", "env": "E"}
	for k, v := range more {
		o[k] = v
	}
	if err := Check(o); err != nil {
		t.Fatal(err)
	}
	f, err := New(&sink.Info{ContainerID: "0123456789abcdef", ContainerName: "/web", ContainerEnv: []string{"E=e"}, Config: o})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func TestMessages(t *testing.T) {
	at := time.Unix(1700000000, 123456789)
	long := strings.Repeat("long", 5000)
	records := []sink.Record{
		{Time: at, Line: []byte("one")}, {Time: at, Line: []byte("two"), Stderr: true}, {Time: at},
		{Time: at, Line: []byte(long), Part: localfile.Partial{ID: "p", Ordinal: 2, Last: true}},
	}
	for _, o := range []map[string]string{{}, {"fluentd-sub-second-precision": "true"}, {"fluentd-request-ack": "true"}} {
		s := serve(t, 0)
		f := newFluentd(t, s, o)
		if err := f.Probe(context.Background()); err != nil {
			t.Fatal(err)
		}
		n := 0
		if err := f.Send(context.Background(), records, func(i int) { n = i }); err != nil || n != 4 {
			t.Fatal(o, err, n)
		}
		for i, want := range records {
			var got []any
			select {
			case got = <-s.got:
			case <-time.After(5 * time.Second):
				t.Fatal("not in time")
			}
			switch when := got[0].(type) {
			case time.Time:
				if o["fluentd-sub-second-precision"] == "" || !when.Equal(at) {
					t.Errorf("%v: %v", o, when)
				}
			default:
				if when != uint64(1700000000) {
					t.Errorf("%v: %v", o, when)
				}
			}
			m := got[1].(map[string]any)
			source := "stdout"
			if want.Stderr {
				source = "stderr"
			}
			if m["log"] != string(want.Line) || m["source"] != source || m["container_id"] != "0123456789abcdef" || m["container_name"] != "/web" || m["E"] != "e" || got[2] != "t.web" {
				t.Errorf("%v: %.200v", o, got)
			}
			if i == 3 && (m["partial_message"] != "true" || m["partial_id"] != "p" || m["partial_ordinal"] != "2" || m["partial_last"] != "true") {
				t.Errorf("%v: %.200v", o, m)
			}
			if i != 3 && len(m) != 5 {
				t.Errorf("%v: %v", o, m)
			}
		}
	}
}

// TestAck: a chunk that was not acknowledged is not taken.
func TestAck(t *testing.T) {
	s := serve(t, 1)
	f := newFluentd(t, s, map[string]string{"fluentd-request-ack": "true"})
	records := []sink.Record{{Time: time.Now(), Line: []byte("x")}}
	if err := f.Send(context.Background(), records, func(int) { t.Error("taken") }); err == nil || !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
		t.Error(err)
	}
	n := 0
	if err := f.Send(context.Background(), records, func(i int) { n = i }); err != nil || n != 1 {
		t.Error(err, n)
	}
	if len(s.got) != 1 {
		t.Errorf("%d came", len(s.got))
	}
}

func TestAsync(t *testing.T) {
	s := serve(t, 0)
	s.l.Close()
	for value, fine := range map[string]bool{"true": true, "false": false} {
		f := newFluentd(t, s, map[string]string{"fluentd-async": value})
		if err := f.Probe(context.Background()); (err == nil) != fine {
			t.Errorf("%s: %v", value, err)
		}
	}
}

func FuzzAck(f *testing.F) {
	f.Add(appendStr(appendStr([]byte{0x81}, "ack"), "id"))
	f.Fuzz(func(t *testing.T, b []byte) {
		readAck(bufio.NewReader(bytes.NewReader(b)))
	})
}
