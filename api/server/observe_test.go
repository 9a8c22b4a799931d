package server

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

func TestWhoObservesHearsRoutesNotPaths(t *testing.T) {
	var mu sync.Mutex
	var heard []Answered
	s := New(Config{Observe: func(a Answered) { mu.Lock(); defer mu.Unlock(); a.Took = 0; heard = append(heard, a) }})
	for _, path := range []string{"/v1.44/_ping", "/containers/secret-name/checkpoints", "/nowhere", "/v9.99/_ping"} {
		s.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil))
	}
	want := []Answered{
		{Method: "GET", Route: "/_ping", Code: 200},
		{Method: "GET", Route: "/containers/{name}/checkpoints", Code: 501},
		{Method: "GET", Route: "/_ping", Code: 400},
	}
	if len(heard) != len(want) {
		t.Fatalf("%+v", heard)
	}
	for i := range want {
		if heard[i] != want[i] {
			t.Errorf("%+v, want %+v", heard[i], want[i])
		}
	}
}

func TestASpanLiesWithinTheClients(t *testing.T) {
	kept := tracetest.NewInMemoryExporter()
	s := New(Config{Traces: sdk.NewTracerProvider(sdk.WithSyncer(kept))})
	r := httptest.NewRequest(http.MethodGet, "/v1.44/_ping", nil)
	r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	s.ServeHTTP(httptest.NewRecorder(), r)
	spans := kept.GetSpans()
	if len(spans) != 1 || spans[0].Name != "GET /_ping" || spans[0].Parent.SpanID().String() != "b7ad6b7169203331" {
		t.Fatalf("%+v", spans)
	}
}

func TestProfilesOnlyWhileDebugging(t *testing.T) {
	s := New(Config{})
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	if code, text := get("/debug/vars"); code != 404 || !strings.Contains(text, "--debug") {
		t.Errorf("%d %s", code, text)
	}
	s.Describe(About{Debug: true})
	for path, want := range map[string]string{
		"/debug/vars": "memstats", "/v1.44/debug/vars": "memstats", "/v1.44/debug/pprof/": "goroutine", "/debug/pprof/goroutine?debug=1": "goroutine profile", "/debug/pprof/cmdline": "server.test",
	} {
		if code, text := get(path); code != 200 || !strings.Contains(text, want) {
			t.Errorf("%s: %d %.100s", path, code, text)
		}
	}
	if code, _ := get("/debug/pprof/nothing"); code != 404 {
		t.Error(code)
	}
}
