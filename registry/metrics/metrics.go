package metrics

import (
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"berth/registry/door"
)

// Config says what is shown and to whom.
type Config struct {
	Anonymous bool     // everybody may look
	Readers   []string // names of users who may look, besides administrators

	Storage  func() Storage // nil: not shown; called when somebody looks
	Webhooks func() []Queue // nil: not shown; called when somebody looks
}

// Storage is how much the registry keeps.
type Storage struct {
	Bytes        int64 // of all repositories; what several hold counts in each
	Repositories int64
}

// Queue is how a webhook does.
type Queue struct {
	Endpoint           string
	Pending, Failures  int
	Delivered, Dropped uint64
}

// Metrics are the registry's counters. All methods may be called at once, also on a nil *Metrics, which counts nothing.
type Metrics struct {
	cfg      Config
	registry *prometheus.Registry

	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	flying   prometheus.Gauge
	uploads  prometheus.Gauge
	received *prometheus.CounterVec
	sent     *prometheus.CounterVec
	failures *prometheus.CounterVec
	upstream *prometheus.CounterVec
	fetched  *prometheus.CounterVec
	gcRuns   *prometheus.CounterVec
	gcTime   prometheus.Gauge
	gcBlobs  prometheus.Counter
	gcBytes  prometheus.Counter
	gcLast   prometheus.Gauge
	retired  *prometheus.CounterVec
}

const prefix = "berth_registry_"

// New makes the counters, all at zero, in a registry of their own.
func New(cfg Config) *Metrics {
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Name: prefix + name, Help: help}
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + name, Help: help})
	}
	m := &Metrics{
		cfg:      cfg,
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(counter("requests_total", "Requests answered."), []string{"route", "method", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: prefix + "request_seconds", Help: "Time to answer a request.",
			Buckets: []float64{.001, .005, .025, .1, .5, 2, 10, 60}}, []string{"route"}),
		flying:   gauge("requests_in_flight", "Requests being answered."),
		uploads:  gauge("uploads_in_flight", "Requests that carry blobs to the registry and are running."),
		received: prometheus.NewCounterVec(counter("received_bytes_total", "Bytes of request bodies."), []string{"route"}),
		sent:     prometheus.NewCounterVec(counter("sent_bytes_total", "Bytes of answers."), []string{"route"}),
		failures: prometheus.NewCounterVec(counter("auth_failures_total", "Requests refused for who made them."), []string{"reason"}),
		upstream: prometheus.NewCounterVec(counter("upstream_requests_total", "Content asked of the pull-through cache."), []string{"upstream", "kind", "result"}),
		fetched:  prometheus.NewCounterVec(counter("upstream_bytes_total", "Bytes fetched from upstreams."), []string{"upstream"}),
		gcRuns:   prometheus.NewCounterVec(counter("gc_runs_total", "Garbage collections."), []string{"result"}),
		gcTime:   gauge("gc_seconds", "How long the last garbage collection took."),
		gcBlobs:  prometheus.NewCounter(counter("gc_blobs_total", "Blobs that garbage collections have removed.")),
		gcBytes:  prometheus.NewCounter(counter("gc_bytes_total", "Bytes that garbage collections have removed.")),
		gcLast:   gauge("gc_last_success_timestamp_seconds", "When the last garbage collection succeeded."),
		retired:  prometheus.NewCounterVec(counter("retention_removed_total", "What retention rules have removed."), []string{"what"}),
	}
	m.registry.MustRegister(m.requests, m.seconds, m.flying, m.uploads, m.received, m.sent, m.failures, m.upstream, m.fetched,
		m.gcRuns, m.gcTime, m.gcBlobs, m.gcBytes, m.gcLast, m.retired,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if cfg.Storage != nil {
		m.registry.MustRegister(&asked{storage: cfg.Storage})
	}
	if cfg.Webhooks != nil {
		m.registry.MustRegister(&asked{webhooks: cfg.Webhooks})
	}
	return m
}

// AuthFailure counts a request that was refused for who made it: credentials (wrong ones), guessing (too many wrong ones), unavailable (a directory).
func (m *Metrics) AuthFailure(reason string) {
	if m != nil {
		m.failures.WithLabelValues(reason).Inc()
	}
}

// Upstream counts content that the pull-through cache was asked for. kind is manifest or blob, result is hit, miss,
// stale or error; upstream is the configured name, not a client's word.
func (m *Metrics) Upstream(upstream, kind, result string, fetched int64) {
	if m == nil {
		return
	}
	m.upstream.WithLabelValues(upstream, kind, result).Inc()
	if fetched > 0 {
		m.fetched.WithLabelValues(upstream).Add(float64(fetched))
	}
}

// Collected counts a garbage collection.
func (m *Metrics) Collected(took time.Duration, blobs, bytes int64, err error) {
	if m == nil {
		return
	}
	m.gcTime.Set(took.Seconds())
	m.gcBlobs.Add(float64(blobs))
	m.gcBytes.Add(float64(bytes))
	if err != nil {
		m.gcRuns.WithLabelValues("error").Inc()
		return
	}
	m.gcRuns.WithLabelValues("ok").Inc()
	m.gcLast.SetToCurrentTime()
}

// Retired counts what a retention run has removed.
func (m *Metrics) Retired(tags, manifests int) {
	if m == nil {
		return
	}
	m.retired.WithLabelValues("tag").Add(float64(tags))
	m.retired.WithLabelValues("manifest").Add(float64(manifests))
}

// Everybody shows the counters to whoever can reach it: for an address of its own.
func (m *Metrics) Everybody() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: time.Minute})
}

// Handler shows the counters to who may look.
func (m *Metrics) Handler(d *door.Door) http.Handler {
	show := m.Everybody()
	if m.cfg.Anonymous {
		return show
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, ok := d.Subject(w, r)
		if !ok {
			return
		}
		if s.Anonymous() || !slices.Contains(m.cfg.Readers, s.Name) {
			if _, ok := d.Admin(w, r); !ok {
				return
			}
		}
		show.ServeHTTP(w, r)
	})
}

// Around counts the requests that next answers. It passes the writer's other abilities through (http.ResponseController,
// io.ReaderFrom: a blob is still sent with sendfile).
func (m *Metrics) Around(next http.Handler) http.Handler {
	if m == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		route, began := Route(r.URL.Path), time.Now()
		m.flying.Inc()
		defer m.flying.Dec()
		if route == "upload" {
			m.uploads.Inc()
			defer m.uploads.Dec()
		}
		body := &countedBody{ReadCloser: r.Body}
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = body
		}
		cw := &countedWriter{ResponseWriter: w}
		defer func() {
			m.requests.WithLabelValues(route, method(r.Method), strconv.Itoa(cw.code())).Inc()
			m.seconds.WithLabelValues(route).Observe(time.Since(began).Seconds())
			m.received.WithLabelValues(route).Add(float64(body.n))
			m.sent.WithLabelValues(route).Add(float64(cw.n))
		}()
		next.ServeHTTP(cw, r)
	})
}

// Route gives what a path is for, out of the list in doc.go.
func Route(path string) string {
	switch {
	case path == "/token" || strings.HasPrefix(path, "/token/"):
		return "token"
	case strings.HasPrefix(path, "/v1/"):
		return "search"
	case strings.HasPrefix(path, "/berth/"):
		return "admin"
	case path == "/metrics":
		return "metrics"
	case path == "/v2/" || path == "/v2":
		return "ping"
	case path == "/v2/_catalog":
		return "catalog"
	case !strings.HasPrefix(path, "/v2/"):
		return "page"
	case strings.HasSuffix(path, "/tags/list"):
		return "tags"
	case strings.Contains(path, "/blobs/uploads/"):
		return "upload"
	}
	for _, kind := range []struct{ part, route string }{{"/manifests/", "manifest"}, {"/blobs/", "blob"}, {"/referrers/", "referrers"}} {
		if strings.Contains(path, kind.part) {
			return kind.route
		}
	}
	return "other"
}

// method bounds the label: a client may invent methods.
func method(m string) string {
	switch m {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE":
		return m
	}
	return "other"
}

// countedBody counts what is read of a body.
type countedBody struct {
	io.ReadCloser
	n int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	return n, err
}

// countedWriter counts what is written and remembers the status.
type countedWriter struct {
	http.ResponseWriter
	status int
	n      int64
}

// WriteHeader remembers the status; 1xx are not the answer.
func (w *countedWriter) WriteHeader(code int) {
	if w.status == 0 && code >= 200 {
		w.status = code
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *countedWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.n += int64(n)
	return n, err
}

// ReadFrom keeps the way open by which net/http sends a file without copying it through this process.
func (w *countedWriter) ReadFrom(r io.Reader) (int64, error) {
	n, err := io.Copy(w.ResponseWriter, r)
	w.n += n
	return n, err
}

// Unwrap is for http.ResponseController.
func (w *countedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush sends what is buffered.
func (w *countedWriter) Flush() { http.NewResponseController(w.ResponseWriter).Flush() }

func (w *countedWriter) code() int {
	if w.status == 0 {
		return http.StatusOK
	}
	return w.status
}
