package server

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"
)

// attachSocket asks on a unix socket: of what comes by TCP, requests with an Origin are refused, and this client always has one.
func attachSocket(t *testing.T, s *Server, path string) *websocket.Conn {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewUnstartedServer(s)
	web.Listener.Close()
	web.Listener = l
	web.Config.BaseContext = s.http.BaseContext
	web.Start()
	t.Cleanup(func() {
		web.CloseClientConnections()
		web.Close()
	})
	raw, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	config, err := websocket.NewConfig("ws://localhost"+path, "http://localhost")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := websocket.NewClient(config, raw)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// What comes out of the container has no frames of Docker's, whoever wrote it, and comes in messages of the kind that the version had.
func TestAttachSocketOutput(t *testing.T) {
	for _, tt := range []struct {
		name, path string
		tty        bool
		written    string
		kind       byte
	}{
		{"framed", "/v1.45/containers/web/attach/ws?stdout=1&stderr=1&stream=1", false, "\x01\x00\x00\x00\x00\x00\x00\x03out\x02\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x03err", websocket.BinaryFrame},
		{"terminal", "/v1.45/containers/web/attach/ws?stdout=1&stream=1", true, "outerr", websocket.BinaryFrame},
		{"before 1.28", "/v1.27/containers/web/attach/ws?stream=1", true, "outerr", websocket.TextFrame},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake()
			d := newDuplex()
			f.process, f.tty, f.info.Spec.Process.TTY = d, tt.tty, tt.tty
			srv, _, _ := serve(t, f)
			conn := attachSocket(t, srv, tt.path)
			go func() {
				_, _ = d.out.Write([]byte(tt.written))
				d.out.Close()
			}()
			var got []byte
			for {
				var part []byte
				kind := byte(0)
				codec := websocket.Codec{Unmarshal: func(data []byte, payloadType byte, v any) error {
					part, kind = data, payloadType
					return nil
				}}
				if err := codec.Receive(conn, &part); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatal(err)
				}
				if kind != tt.kind {
					t.Errorf("a message of kind %d, want %d", kind, tt.kind)
				}
				got = append(got, part...)
			}
			if string(got) != "outerr" {
				t.Errorf("%q", got)
			}
		})
	}
}

// What the client sends is the process's input, and the client's leaving ends the attachment.
func TestAttachSocketInput(t *testing.T) {
	for _, stdinOnce := range []bool{false, true} {
		f := newFake()
		d := newDuplex()
		f.process, f.info.Spec.StdinOnce = d, stdinOnce
		srv, _, _ := serve(t, f)
		conn := attachSocket(t, srv, "/v1.45/containers/web/attach/ws?stdin=1&stdout=1&stream=1")
		if err := websocket.Message.Send(conn, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(d.in, got); err != nil || string(got) != "hello" {
			t.Fatalf("%q %v", got, err)
		}
		conn.Close()
		select {
		case <-d.closed:
		case <-time.After(time.Minute):
			t.Fatal("the attachment was not closed")
		}
	}
}

func TestAttachSocketRefusals(t *testing.T) {
	f := newFake()
	_, web, _ := serve(t, f)
	for _, tt := range []struct {
		name, path string
		head       map[string]string
		code       int
		has        string
	}{
		{"no such container", "/containers/nope/attach/ws", nil, 404, "No such container"},
		{"no websocket", "/containers/web/attach/ws", map[string]string{"Upgrade": "tcp"}, 400, "not websocket protocol"},
		{"an old one", "/containers/web/attach/ws", map[string]string{"Sec-Websocket-Version": "8"}, 400, "WebSocket Version"},
		{"no key", "/containers/web/attach/ws", map[string]string{"Sec-Websocket-Key": ""}, 400, "challenge"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := http.NewRequest("GET", web.URL+tt.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			for k, v := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-Websocket-Version": "13", "Sec-Websocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="} {
				r.Header.Set(k, v)
			}
			for k, v := range tt.head {
				r.Header.Set(k, v)
			}
			resp, err := web.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != tt.code || !strings.Contains(string(text), tt.has) {
				t.Errorf("%d %s %v", resp.StatusCode, text, err)
			}
		})
	}
}

// Docker answers a refused attachment with the bare sentence.
func TestAttachErrorsAreText(t *testing.T) {
	_, web, _ := serve(t, newFake())
	code, text, head := ask(t, web, "POST", "/containers/nope/attach", "")
	if code != 404 || text != "No such container: nope\r\n" || head.Get("Content-Type") != rawStream {
		t.Errorf("%d %q %v", code, text, head)
	}
}
