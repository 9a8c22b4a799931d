package main

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"berth/api/server"
	"berth/base/trace"
)

// TestTracesReachACollector configures traces as an operator does, by the environment, and looks at what a collector is sent.
func TestTracesReachACollector(t *testing.T) {
	got := make(chan []byte, 10)
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- append([]byte(r.URL.Path+" "), body...)
	}))
	defer collector.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "site=here")
	o, err := openObservers(config{}, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s := server.New(server.Config{Traces: o.traces})
	s.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/v1.44/_ping", nil))
	ctx, end, _ := trace.Root(t.Context(), o.traces, "POST /containers/{name}/start")
	_, endStep := trace.Start(ctx, "start/network")
	endStep(nil)
	end(nil)
	o.close() // sends what is left
	var all []byte
	for len(got) > 0 {
		all = append(all, <-got...)
	}
	for _, want := range []string{"/v1/traces ", "GET /_ping", "start/network", "berthd", "site"} {
		if !bytes.Contains(all, []byte(want)) {
			t.Errorf("%q was not sent: %q", want, all)
		}
	}
}

func TestTracesWithoutACollector(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")
	o, err := openObservers(config{}, nil, slog.New(slog.DiscardHandler))
	if err != nil || o.traces != nil {
		t.Errorf("%v, %v", o, err)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
	if _, err := openObservers(config{}, nil, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a protocol that we do not speak was taken")
	}
}
