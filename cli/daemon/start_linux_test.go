package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The test binary plays berthd when this is set: "serve SOCKET", or "die".
const playDaemon = "BERTH_TEST_PLAY_DAEMON"

func TestMain(m *testing.M) {
	play, socket, _ := strings.Cut(os.Getenv(playDaemon), " ")
	switch play {
	case "":
		os.Exit(m.Run())
	case "die":
		fmt.Fprintln(os.Stderr, "the data root is on fire")
		os.Exit(3)
	case "serve":
		time.Sleep(50 * time.Millisecond) // an engine recovers before it serves
		l, err := net.Listen("unix", socket)
		if err != nil {
			os.Exit(4)
		}
		// The test tells it to end; should the test die, it ends by itself.
		time.AfterFunc(30*time.Second, func() { os.Exit(5) })
		_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/end" {
				os.Exit(0)
			}
			fmt.Fprintln(w, os.Getpid())
		}))
	}
}

func testStarter(t *testing.T, play string) (*Starter, *bytes.Buffer) {
	t.Helper()
	if info, err := os.Stat("/run/systemd/system"); err == nil && info.IsDir() {
		t.Skip("needs a machine without systemd as process 1: there the engine goes into a transient unit")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "run", "b.sock")
	if play == "serve" {
		play += " " + socket
	}
	t.Setenv(playDaemon, play)
	var said bytes.Buffer
	return &Starter{say: &said, socket: socket, find: func() (string, error) { return self, nil }}, &said
}

func TestStartWaitsUntilItServes(t *testing.T) {
	s, said := testStarter(t, "serve")
	defer end(s.socket)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	if !serves(s.socket) {
		t.Error("Start returned before the engine served")
	}
	if !strings.Contains(said.String(), "no engine was listening on "+s.socket) {
		t.Errorf("said %q", said)
	}
}

func TestTwoStartOneEngine(t *testing.T) {
	s, said := testStarter(t, "serve")
	defer end(s.socket)
	other := &Starter{say: said, socket: s.socket, find: s.find}
	var wg sync.WaitGroup
	for _, x := range []*Starter{s, other} {
		wg.Go(func() {
			if err := x.Start(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := strings.Count(said.String(), "started"); n != 1 {
		t.Errorf("%d engines were started:\n%s", n, said)
	}
}

func TestAnEngineThatDiesIsReportedWithItsLastWords(t *testing.T) {
	s, _ := testStarter(t, "die")
	err := s.Start()
	if err == nil || !strings.Contains(err.Error(), "on fire") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("got %v", err)
	}
	if again := s.Start(); !errors.Is(again, err) {
		t.Errorf("a second call tried again: %v", again)
	}
}

func TestWanted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: only root may start the engine")
	}
	s := NewStarter(nil)
	_, missing := net.Dial("unix", filepath.Join(t.TempDir(), "none"))
	for err, want := range map[error]bool{
		missing:                     true,
		error(syscall.ECONNREFUSED): true,
		error(syscall.EACCES):       false,
		error(syscall.EAGAIN):       false,
	} {
		if got := s.Wanted(err); got != want {
			t.Errorf("%v: %v", err, got)
		}
	}
}

// end asks the played engine to end.
func end(socket string) {
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}
	if resp, err := c.Get("http://x/end"); err == nil {
		resp.Body.Close()
	}
}

// TestSocketFor: a user's own engine is his unless there is none and the machine's lets him in.
func TestSocketFor(t *testing.T) {
	const own = "/run/user/7/berth/berth.sock"
	for _, c := range []struct {
		root, there, letIn bool
		want               string
	}{
		{true, true, true, machineSocket}, {true, false, false, machineSocket},
		{false, false, false, own}, {false, false, true, machineSocket}, {false, true, true, own}, {false, true, false, own},
	} {
		if got := socketFor(c.root, own, c.there, c.letIn); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}
