package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

func plainDial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", to.String())
}

// ask puts a question to a listener and gives code and output.
func ask(t *testing.T, format string, at net.Addr, patience time.Duration) (int, string) {
	t.Helper()
	p, ok, err := Parse([]string{"CMD", fmt.Sprintf(format, at.(*net.TCPAddr).Port)}, nil)
	if !ok || err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	r := Ask(t.Context(), p, plainDial, patience)
	if took := time.Since(begin); took > patience+20*time.Second {
		t.Errorf("took %v", took)
	}
	return r.ExitCode, r.Output
}

func listen(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Skipf("needs %s %s: %v", network, address, err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestAskHTTP(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "fine at %s by %s", r.Host, r.UserAgent())
	})
	mux.HandleFunc("/empty", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) })
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
	})
	mux.HandleFunc("/sick", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "no database", http.StatusServiceUnavailable)
	})
	mux.HandleFunc("/big", func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 1<<20)) })
	mux.HandleFunc("/ever", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "one")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	mux.HandleFunc("/early", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(103)
		w.WriteHeader(200)
	})
	web, secure := httptest.NewServer(mux), httptest.NewTLSServer(mux)
	defer web.Close()
	defer secure.Close()
	for _, c := range []struct {
		path string
		code int
		out  string
	}{
		{"/ok?x", 0, "HTTP/1.1 200 OK\nfine at localhost:"}, {"/empty", 0, "HTTP/1.1 204 No Content"}, {"/away", 0, "HTTP/1.1 302 Found"},
		{"/sick", 1, "HTTP/1.1 503 Service Unavailable\nno database"}, {"/big", 0, "HTTP/1.1 200 OK\n\x00"}, {"/ever", 0, "HTTP/1.1 200 OK\none"},
		{"/nowhere", 1, "HTTP/1.1 404 Not Found"}, {"/early", 0, "HTTP/1.1 200 OK"},
	} {
		for format, s := range map[string]*httptest.Server{"http": web, "https": secure} {
			code, out := ask(t, format+":%d"+c.path, s.Listener.Addr(), 30*time.Second)
			if code != c.code || !strings.HasPrefix(out, c.out) || len(out) > MaxOutput+3 {
				t.Errorf("%s %s: %d %.80q (%d bytes)", format, c.path, code, out, len(out))
			}
		}
	}
	if code, out := ask(t, "https:%d/", web.Listener.Addr(), 30*time.Second); code != 1 || out == "" {
		t.Errorf("TLS with one who has none: %d %q", code, out)
	}
}

// TestAskNeverHangs asks servers that do not keep to the rules.
func TestAskNeverHangs(t *testing.T) {
	for name, serve := range map[string]func(net.Conn){
		"silent": func(c net.Conn) { time.Sleep(3 * time.Second) },
		"drips": func(c net.Conn) {
			for range 100 {
				if _, err := c.Write([]byte("H")); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		},
		"endless head": func(c net.Conn) {
			c.Write([]byte("HTTP/1.1 200 OK\r\n"))
			for {
				if _, err := c.Write([]byte("X: " + strings.Repeat("y", 1000) + "\r\n")); err != nil {
					return
				}
			}
		},
		"hangs up": func(c net.Conn) {},
		"early for ever": func(c net.Conn) {
			for {
				if _, err := c.Write([]byte("HTTP/1.1 100 Continue\r\n\r\n")); err != nil {
					return
				}
			}
		},
		"nonsense": func(c net.Conn) { c.Write([]byte("SSH-2.0-OpenSSH_9.2\r\n")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := listen(t, "tcp", "127.0.0.1:0")
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go func() { defer c.Close(); serve(c) }()
				}
			}()
			for _, format := range []string{"http:%d/", "https:%d/", "grpc:%d"} {
				code, out := ask(t, format, l.Addr(), 300*time.Millisecond)
				if code == 0 || out == "" {
					t.Errorf("%s: %d %q", format, code, out)
				}
				if (name == "silent" || name == "drips" && format == "http:%d/") && (code != -1 || out != "Health check exceeded timeout (300ms)") {
					t.Errorf("%s: %d %q", format, code, out)
				}
			}
			if code, _ := ask(t, "tcp:%d", l.Addr(), 30*time.Second); code != 0 {
				t.Error("tcp only wants a connection")
			}
		})
	}
}

func TestAskTCP(t *testing.T) {
	four, six := listen(t, "tcp4", "127.0.0.1:0"), listen(t, "tcp6", "[::1]:0")
	for _, l := range []net.Listener{four, six} {
		if code, out := ask(t, "tcp:%d", l.Addr(), 30*time.Second); code != 0 || out != "" {
			t.Errorf("%s: %d %q", l.Addr(), code, out)
		}
	}
	at := four.Addr()
	four.Close()
	if code, out := ask(t, "tcp:%d", at, 30*time.Second); code != 1 || !strings.Contains(out, "connection refused") || !strings.Contains(out, at.String()) {
		t.Errorf("nobody listens: %d %q", code, out)
	}
	never := func(ctx context.Context, to netip.AddrPort) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
	p, _, _ := Parse([]string{"CMD", "tcp:1"}, nil)
	if r := Ask(t.Context(), p, never, 50*time.Millisecond); r.ExitCode != -1 || r.Output != "Health check exceeded timeout (50ms)" {
		t.Errorf("a network that drops: %+v", r)
	}
	broken := func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
		return nil, errors.New("no such namespace")
	}
	if r := Ask(t.Context(), p, broken, time.Second); r.ExitCode != 1 || !strings.Contains(r.Output, "no such namespace") {
		t.Errorf("%+v", r)
	}
}

// TestAskGRPC asks Google's own server.
func TestAskGRPC(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	s, state := grpc.NewServer(), grpchealth.NewServer()
	healthpb.RegisterHealthServer(s, state)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	state.SetServingStatus("sick", healthpb.HealthCheckResponse_NOT_SERVING)
	state.SetServingStatus("my.Service", healthpb.HealthCheckResponse_SERVING)
	for _, c := range []struct {
		format string
		code   int
		out    string
	}{
		{"grpc:%d", 0, "SERVING"}, {"grpc:%d/my.Service", 0, "SERVING"}, {"grpc:%d/sick", 1, "NOT_SERVING"}, {"grpc:%d/unknown", 1, "gRPC status 5 unknown service"},
	} {
		if code, out := ask(t, c.format, l.Addr(), 30*time.Second); code != c.code || out != c.out {
			t.Errorf("%s: %d %q", c.format, code, out)
		}
	}
	bare := listen(t, "tcp", "127.0.0.1:0")
	none := grpc.NewServer()
	go none.Serve(bare)
	t.Cleanup(none.Stop)
	if code, out := ask(t, "grpc:%d", bare.Addr(), 30*time.Second); code != 1 || !strings.HasPrefix(out, "gRPC status 12 ") {
		t.Errorf("a server without the service: %d %q", code, out)
	}
	web := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(web.Close)
	if code, out := ask(t, "grpc:%d", web.Listener.Addr(), 30*time.Second); code != 1 || !strings.HasPrefix(out, "no answer over gRPC: ") {
		t.Errorf("a server of HTTP/1: %d %q", code, out)
	}
}
