package zoo

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"berth/test/live"
)

// Attaching by websocket, with the package that moby's own tests use.
func TestWebsocket(t *testing.T) {
	e := start(t)
	for name, config := range map[string]map[string]any{
		"ws-cat": {"Image": "box", "Cmd": []string{"cat"}, "OpenStdin": true, "StdinOnce": true},
		"ws-tty": {"Image": "box", "Cmd": []string{"sh", "-c", "read a; echo got $a; sleep 1000"}, "OpenStdin": true, "Tty": true},
		"ws-log": {"Image": "box", "Cmd": []string{"sh", "-c", "echo out; echo err >&2"}},
	} {
		if err := e.Call(http.MethodPost, "/containers/create?name="+name, config, nil); err != nil {
			t.Fatal(err)
		}
	}
	begin := func(name string) {
		t.Helper()
		if err := e.Call(http.MethodPost, "/containers/"+name+"/start", nil, nil); err != nil {
			t.Fatal(err)
		}
	}

	// Attached before the start: nothing is lost; the end of what is typed is the end of cat.
	conn := dial(t, e, "/containers/ws-cat/attach/ws?stream=1&stdin=1&stdout=1")
	begin("ws-cat")
	if _, err := conn.Write([]byte("back and forth\n")); err != nil {
		t.Fatal(err)
	}
	expect(t, conn, "back and forth\n")
	conn.Close()
	var ended struct{ StatusCode int }
	if err := e.Call(http.MethodPost, "/containers/ws-cat/wait", nil, &ended); err != nil || ended.StatusCode != 0 {
		t.Errorf("cat did not end with its input: %+v %v", ended, err)
	}

	// A terminal, and detaching from it by its keys.
	begin("ws-tty")
	conn = dial(t, e, "/containers/ws-tty/attach/ws?stream=1&stdin=1&stdout=1&detachKeys=ctrl-x")
	if _, err := conn.Write([]byte("word\n")); err != nil {
		t.Fatal(err)
	}
	expect(t, conn, "got word\r\n")
	if _, err := conn.Write([]byte{24}); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(conn); err != nil {
		t.Errorf("after the detach keys: %q %v", rest, err)
	}
	var info struct{ State struct{ Running bool } }
	if err := e.Call(http.MethodGet, "/containers/ws-tty/json", nil, &info); err != nil || !info.State.Running {
		t.Errorf("detaching ended the container: %+v %v", info, err)
	}

	// What was written before, without frames.
	begin("ws-log")
	if err := e.Call(http.MethodPost, "/containers/ws-log/wait", nil, nil); err != nil {
		t.Fatal(err)
	}
	conn = dial(t, e, "/containers/ws-log/attach/ws?logs=1&stdout=1&stderr=1")
	if got, err := io.ReadAll(conn); err != nil || !strings.Contains(string(got), "out\n") || !strings.Contains(string(got), "err\n") || len(got) != 8 {
		t.Errorf("logs: %q %v", got, err)
	}
}

func dial(t *testing.T, e *live.Engine, path string) *websocket.Conn {
	t.Helper()
	raw, err := net.Dial("unix", e.Socket)
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
	if err := conn.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// expect reads until text has come.
func expect(t *testing.T, conn *websocket.Conn, text string) {
	t.Helper()
	var got []byte
	for buf := make([]byte, 256); !strings.Contains(string(got), text); {
		n, err := conn.Read(buf)
		if got = append(got, buf[:n]...); err != nil {
			t.Fatalf("%q before %v", got, err)
		}
	}
}
