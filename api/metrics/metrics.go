package metrics

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"berth/api/server"
	"berth/engine"
	"berth/engine/container"
)

// Engine is what is asked when somebody looks.
type Engine interface {
	Info(ctx context.Context) engine.Facts
	List(ctx context.Context, o engine.ListOptions) ([]container.Info, error)
	Stats(ctx context.Context, ref string) (engine.Stats, error)
}

// Counter is the bus of events.
type Counter interface {
	Count() (published uint64, listeners int)
}

// Config says what is counted.
type Config struct {
	Engine Engine
	Events Counter
	Labels map[string]string // of engine_daemon_engine_info
	CPUs   int
	Memory int64 // bytes of the host
}

// Metrics are the engine's counters. Its methods may be called from many goroutines.
type Metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	actions  map[string]*prometheus.HistogramVec // by noun
}

// New makes the counters, all at zero, in a registry of their own.
func New(cfg Config) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "berth_requests_total", Help: "Requests of the API that were answered."}, []string{"route", "method", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "berth_request_seconds", Help: "Time to answer a request that is no stream.", Buckets: []float64{.001, .005, .025, .1, .5, 2, 10, 60},
		}, []string{"route"}),
		actions: map[string]*prometheus.HistogramVec{},
	}
	for noun, kinds := range actionNames {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "engine_daemon_" + noun + "_actions_seconds", Help: "The number of seconds it takes to process each " + noun + " action",
		}, []string{"action"})
		for _, action := range kinds { // shown from the beginning, as Docker does
			h.WithLabelValues(action)
		}
		m.actions[noun] = h
		m.registry.MustRegister(h)
	}
	about := prometheus.NewGauge(prometheus.GaugeOpts{Name: "engine_daemon_engine_info", Help: "The information related to the engine and the OS it is running on", ConstLabels: cfg.Labels})
	about.Set(1)
	cpus := prometheus.NewGauge(prometheus.GaugeOpts{Name: "engine_daemon_engine_cpus_cpus", Help: "The number of cpus that the host system of the engine has"})
	cpus.Set(float64(cfg.CPUs))
	memory := prometheus.NewGauge(prometheus.GaugeOpts{Name: "engine_daemon_engine_memory_bytes", Help: "The number of bytes of memory that the host system of the engine has"})
	memory.Set(float64(cfg.Memory))
	m.registry.MustRegister(m.requests, m.seconds, about, cpus, memory, &asked{engine: cfg.Engine, bus: cfg.Events},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// actionNames are the actions of Docker's histograms, by noun.
var actionNames = map[string][]string{
	"container": {"changes", "commit", "create", "delete", "start"},
	"image":     {"delete", "list", "load", "pull", "push", "save", "search"},
	"network":   {"connect", "create", "disconnect", "list", "remove"},
}

// actionOf says which histogram a route belongs to.
var actionOf = map[string][2]string{
	"GET /containers/{name}/changes":   {"container", "changes"},
	"POST /commit":                     {"container", "commit"},
	"POST /containers/create":          {"container", "create"},
	"DELETE /containers/{name}":        {"container", "delete"},
	"POST /containers/{name}/start":    {"container", "start"},
	"DELETE /images/{name}":            {"image", "delete"},
	"GET /images/json":                 {"image", "list"},
	"POST /images/load":                {"image", "load"},
	"POST /images/create":              {"image", "pull"},
	"POST /images/{name}/push":         {"image", "push"},
	"GET /images/get":                  {"image", "save"},
	"GET /images/{name}/get":           {"image", "save"},
	"GET /images/search":               {"image", "search"},
	"POST /networks/{name}/connect":    {"network", "connect"},
	"POST /networks/create":            {"network", "create"},
	"POST /networks/{name}/disconnect": {"network", "disconnect"},
	"GET /networks":                    {"network", "list"},
	"DELETE /networks/{name}":          {"network", "remove"},
}

// Answered counts one request of the API.
func (m *Metrics) Answered(a server.Answered) {
	m.requests.WithLabelValues(a.Route, a.Method, strconv.Itoa(a.Code)).Inc()
	if a.Stream {
		return
	}
	m.seconds.WithLabelValues(a.Route).Observe(a.Took.Seconds())
	if is, ok := actionOf[a.Method+" "+a.Route]; ok && a.Code < http.StatusBadRequest {
		m.actions[is[0]].WithLabelValues(is[1]).Observe(a.Took.Seconds())
	}
}

// Handler shows the counters in Prometheus' text format.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: scrapeTimeout})
}

// scrapeTimeout bounds one look.
const scrapeTimeout = 30 * time.Second
