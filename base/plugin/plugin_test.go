package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"berth/base/fault"
)

// serve runs a plugin at the socket until the test ends.
func serve(t *testing.T, socket string, methods map[string]http.HandlerFunc) *httptest.Server {
	t.Helper()
	os.MkdirAll(filepath.Dir(socket), 0o755)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	for name, h := range methods {
		mux.HandleFunc("POST /"+name, h)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: mux}}
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func answer(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) }
}

func registry(t *testing.T) (*Registry, Config) {
	t.Helper()
	return registryOf(t, time.Minute, time.Minute) // no plugin that answers is given up, on any machine
}

func registryOf(t *testing.T, wait, timeout time.Duration) (*Registry, Config) {
	t.Helper()
	dir := t.TempDir()
	cfg := Config{Sockets: filepath.Join(dir, "run"), Specs: []string{filepath.Join(dir, "etc"), filepath.Join(dir, "lib")},
		Wait: wait, Timeout: timeout}
	for _, d := range append(cfg.Specs, cfg.Sockets) {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r := New(cfg)
	t.Cleanup(r.Close)
	return r, cfg
}

func TestCall(t *testing.T) {
	r, cfg := registry(t)
	var activations atomic.Int32
	serve(t, filepath.Join(cfg.Sockets, "nas.sock"), map[string]http.HandlerFunc{
		"Plugin.Activate": func(w http.ResponseWriter, req *http.Request) {
			activations.Add(1)
			if got := req.Header.Get("Accept"); got != mimeType {
				t.Errorf("Accept %q", got)
			}
			io.WriteString(w, `{"Implements":["VolumeDriver","NetworkDriver"]}`)
		},
		"VolumeDriver.Path": func(w http.ResponseWriter, req *http.Request) {
			var in struct{ Name string }
			if err := json.NewDecoder(req.Body).Decode(&in); err != nil {
				t.Error(err)
			}
			fmt.Fprintf(w, `{"Mountpoint":"/mnt/%s","Err":""}`, in.Name)
		},
		"VolumeDriver.Refuse": answer(`{"Err":"no space on the shelf"}`),
		"VolumeDriver.Break":  func(w http.ResponseWriter, _ *http.Request) { http.Error(w, `{"Err":"it broke"}`, 500) },
		"VolumeDriver.Plain":  func(w http.ResponseWriter, _ *http.Request) { http.Error(w, `plain words`, 500) },
		"VolumeDriver.Noise":  answer(`<html>`),
		"VolumeDriver.Long": func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte(strings.Repeat(" ", maxAnswer+1)))
		},
		"VolumeDriver.Hang": hang,
		"VolumeDriver.Die":  func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	})
	ctx := context.Background()
	var got struct{ Mountpoint string }
	for range 2 {
		p, err := r.Get(ctx, "nas", "VolumeDriver")
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Call(ctx, "VolumeDriver.Path", map[string]string{"Name": "x"}, &got); err != nil || got.Mountpoint != "/mnt/x" {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	if n := activations.Load(); n != 1 {
		t.Errorf("activated %d times", n)
	}
	p, err := r.Get(ctx, "nas", "NetworkDriver")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		method, text string
		kind         fault.Kind
	}{
		{"Refuse", "no space on the shelf", fault.Internal},
		{"Break", "VolumeDriver.Break: it broke", fault.Internal},
		{"Plain", "VolumeDriver.Plain: plain words", fault.Internal},
		{"Noise", "not understood", fault.Internal},
		{"Long", "longer than", fault.Internal},
		{"Die", "VolumeDriver.Die", fault.Unavailable},
		{"Lacking", "404", fault.Internal},
	} {
		err := p.Call(ctx, "VolumeDriver."+c.method, struct{}{}, &got)
		if err == nil || !strings.Contains(err.Error(), c.text) || fault.KindOf(err) != c.kind {
			t.Errorf("%s: %v (kind %v), want %q", c.method, err, fault.KindOf(err), c.text)
		}
		if Lacks(err) != (c.method == "Lacking") {
			t.Errorf("%s: lacks %v", c.method, Lacks(err))
		}
	}
	hasty := *p
	hasty.timeout = 300 * time.Millisecond
	if err := hasty.Call(ctx, "VolumeDriver.Hang", struct{}{}, &got); !fault.Is(err, fault.Deadline) || !strings.Contains(err.Error(), "no answer within") {
		t.Errorf("one that hangs: %v", err)
	}
	if _, err := r.Get(ctx, "nas", "IpamDriver"); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "does not implement the requested driver") {
		t.Errorf("a subsystem it does not serve: %v", err)
	}
	if all := r.All(ctx, "VolumeDriver"); len(all) != 1 || all[0].Name() != "nas" {
		t.Errorf("all: %v", all)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := p.Call(cancelled, "VolumeDriver.Hang", nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestDiscovery(t *testing.T) {
	r, cfg := registry(t)
	tcp := httptest.NewServer(answer(`{"Implements":["NetworkDriver"]}`))
	defer tcp.Close()
	secure := httptest.NewTLSServer(answer(`{"Implements":["NetworkDriver"]}`))
	defer secure.Close()
	serve(t, filepath.Join(cfg.Sockets, "deep", "deep.sock"), map[string]http.HandlerFunc{"Plugin.Activate": answer(`{"Implements":["NetworkDriver"]}`)})
	for path, text := range map[string]string{
		filepath.Join(cfg.Specs[0], "line.spec"):      tcp.URL + "\n",
		filepath.Join(cfg.Specs[1], "tls.json"):       `{"Name":"tls","Addr":"` + secure.URL + `"}`,
		filepath.Join(cfg.Specs[1], "empty.spec"):     "",
		filepath.Join(cfg.Specs[1], "odd.spec"):       "ftp://x",
		filepath.Join(cfg.Specs[1], "broken.json"):    "{",
		filepath.Join(cfg.Specs[0], "README"):         "no plugin",
		filepath.Join(cfg.Sockets, "file.sock"):       "no socket",
		filepath.Join(cfg.Specs[0], "..", "out.spec"): tcp.URL,
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ctx := context.Background()
	for name, want := range map[string]fault.Kind{
		"empty": fault.Invalid, "odd": fault.Invalid, "broken": fault.Invalid, "file": fault.NotFound, "nobody": fault.NotFound,
		"../out": fault.NotFound, "": fault.NotFound, "/etc/passwd": fault.NotFound,
	} {
		if _, err := r.Get(ctx, name, "NetworkDriver"); !fault.Is(err, want) {
			t.Errorf("%q: %v, want %v", name, err, want)
		}
	}
	for _, name := range []string{"deep", "line", "tls"} {
		if _, err := r.Get(ctx, name, "NetworkDriver"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	want := []string{"broken", "deep", "empty", "line", "odd", "tls"}
	if got := r.Names(); !slices.Equal(got, want) {
		t.Errorf("names %v, want %v", got, want)
	}
	if got := r.All(ctx, "NetworkDriver"); len(got) != 3 {
		t.Errorf("all: %d", len(got))
	}
}

// A plugin may be restarted: it is found again at its new socket, and one that is only away for a moment is waited for.
func TestRestart(t *testing.T) {
	r, cfg := registry(t)
	socket := filepath.Join(cfg.Sockets, "x.sock")
	serves := func(what string) map[string]http.HandlerFunc {
		return map[string]http.HandlerFunc{"Plugin.Activate": answer(`{"Implements":["` + what + `"]}`), "Call": answer(`{}`)}
	}
	first := serve(t, socket, serves("VolumeDriver"))
	ctx := context.Background()
	p, err := r.Get(ctx, "x", "VolumeDriver")
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	back := make(chan error, 1)
	go func() { back <- p.Call(ctx, "Call", nil, nil) }()
	time.Sleep(50 * time.Millisecond)
	second := serve(t, socket, serves("IpamDriver"))
	if err := <-back; err != nil {
		t.Errorf("a call while it was away: %v", err)
	}
	if _, err := r.Get(ctx, "x", "IpamDriver"); err != nil {
		t.Errorf("after its restart: %v", err)
	}
	second.Close()
	p.wait = 300 * time.Millisecond
	start := time.Now()
	if err := p.Call(ctx, "Call", nil, nil); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "cannot be reached") {
		t.Errorf("a dead plugin: %v", err)
	}
	if d := time.Since(start); d > 30*time.Second {
		t.Errorf("waited %v for a dead plugin", d)
	}
}

// A plugin that hangs in its activation keeps nobody longer than he wants to wait, and Close ends it.
func TestHangingActivation(t *testing.T) {
	r, cfg := registryOf(t, 300*time.Millisecond, 1500*time.Millisecond)
	serve(t, filepath.Join(cfg.Sockets, "slow.sock"), map[string]http.HandlerFunc{
		"Plugin.Activate": hang})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	if _, err := r.Get(ctx, "slow", "VolumeDriver"); !fault.Is(err, fault.Deadline) {
		t.Errorf("%v", err)
	}
	if _, err := r.Get(context.Background(), "slow", "VolumeDriver"); !fault.Is(err, fault.Deadline) {
		t.Errorf("without a limit of the caller's: %v", err)
	}
	go r.Get(context.Background(), "slow", "VolumeDriver")
	r.Close()
	if _, err := r.Get(context.Background(), "slow", "VolumeDriver"); err == nil {
		t.Error("a closed registry gave a plugin")
	}
}

func FuzzSpec(f *testing.F) {
	f.Add([]byte(`{"Addr":"unix:///x","TLSConfig":{"CAFile":"/ca"}}`), true)
	f.Add([]byte("tcp://localhost:8080"), false)
	f.Fuzz(func(t *testing.T, text []byte, isJSON bool) {
		s, err := parseSpec(text, isJSON)
		if err != nil {
			return
		}
		if network, address, scheme, err := dialing(s.Addr); err == nil && (network == "" || address == "" || scheme == "") {
			t.Errorf("%q: %q %q %q", s.Addr, network, address, scheme)
		}
	})
}

// hang answers nothing until the caller goes away, which a server notices only once the request's body was read.
func hang(_ http.ResponseWriter, req *http.Request) {
	io.Copy(io.Discard, req.Body)
	select {
	case <-req.Context().Done():
	case <-time.After(20 * time.Second):
	}
}
