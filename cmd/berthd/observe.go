package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"golang.org/x/sys/unix"

	"berth/api/metrics"
	"berth/api/server"
	"berth/base/fault"
	"berth/kernel/probe"
)

// observers are who looks on: Prometheus, which asks, and a collector of traces, which is told.
type observers struct {
	answered func(server.Answered)
	traces   trace.TracerProvider // nil: nobody collects
	sdk      *sdk.TracerProvider
	metrics  *http.Server
	log      *slog.Logger
}

// openObservers begins to serve --metrics-addr and to send traces, where they are asked for. Traces are configured by OpenTelemetry's own
// environment variables, as with Docker's engine: OTEL_EXPORTER_OTLP_ENDPOINT (or …_TRACES_ENDPOINT) switches them on.
func openObservers(cfg config, r *rooms, log *slog.Logger) (*observers, error) {
	o := &observers{log: log}
	if cfg.Metrics != "" {
		if err := o.openMetrics(cfg, r); err != nil {
			return nil, err
		}
	}
	if os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != "" {
		if err := o.openTraces(); err != nil {
			o.close()
			return nil, err
		}
	}
	return o, nil
}

func (o *observers) openMetrics(cfg config, r *rooms) error {
	l, err := net.Listen("tcp", cfg.Metrics)
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "--metrics-addr")
	}
	var host unix.Sysinfo_t
	_ = unix.Sysinfo(&host)
	name, _ := os.Hostname()
	m := metrics.New(metrics.Config{
		Engine: r.engine, Events: r.events, CPUs: runtime.NumCPU(), Memory: int64(host.Totalram) * int64(host.Unit),
		Labels: map[string]string{
			"version": version, "commit": commit, "architecture": runtime.GOARCH, "graphdriver": "overlay2", "kernel": probe.Release(),
			"os": name, "os_type": "linux", "daemon_id": cfg.ID,
		},
	})
	o.answered = m.Answered
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", m.Handler())
	o.metrics = &http.Server{Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: time.Minute, IdleTimeout: 5 * time.Minute, ErrorLog: slog.NewLogLogger(o.log.Handler(), slog.LevelDebug)}
	go func() { // ends with close
		if err := o.metrics.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			o.log.Error("metrics are not served any more", "address", cfg.Metrics, "error", err)
		}
	}()
	return nil
}

// traceEnd bounds how long the engine's end waits for a collector that does not answer.
const traceEnd = 2 * time.Second

func (o *observers) openTraces() error {
	if p := os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL"); p != "" && p != "http/protobuf" {
		return fault.New(fault.Invalid, "OTEL_EXPORTER_OTLP_PROTOCOL=%s: traces are sent by http/protobuf only", p)
	}
	ctx := context.Background()
	to, err := otlptracehttp.New(ctx)
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "the collector of traces (OTEL_EXPORTER_OTLP_ENDPOINT)")
	}
	// Our own attributes come first: those that the environment gives win, OTEL_SERVICE_NAME for example.
	of, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", "berthd"), attribute.String("service.version", version)), resource.WithFromEnv())
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "OTEL_RESOURCE_ATTRIBUTES")
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { o.log.Warn("traces are lost", "error", err) })) // the library has no other place for them
	o.sdk = sdk.NewTracerProvider(sdk.WithBatcher(to), sdk.WithResource(of))
	o.traces = o.sdk
	return nil
}

// close sends what is left, for a moment, and stops.
func (o *observers) close() {
	if o.metrics != nil {
		o.metrics.Close()
	}
	if o.sdk != nil {
		ctx, cancel := context.WithTimeout(context.Background(), traceEnd)
		defer cancel()
		if err := o.sdk.Shutdown(ctx); err != nil {
			o.log.Warn("the last traces are lost", "error", err)
		}
	}
}
