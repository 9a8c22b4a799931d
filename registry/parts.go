package registry

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"berth/auth"
	"berth/base/fault"
	"berth/registry/access"
	"berth/registry/catalog"
	"berth/registry/door"
	"berth/registry/gc"
	"berth/registry/metrics"
	"berth/registry/page"
	"berth/registry/retention"
	"berth/registry/webhook"
)

// Around are the settings of the parts around the content: search, webhooks, metrics.
type Around struct {
	URL string `json:"url,omitempty"` // where clients reach the registry, for links: https://HOST[:PORT]; "": the guard's URL, or the one that they asked

	Title   string `json:"title,omitempty"`   // of the web pages; "": Registry
	NoPages bool   `json:"noPages,omitempty"` // no web pages

	MetricsAddr      string   `json:"metricsAddr,omitempty"`      // HOST:PORT that serves /metrics to everybody who can reach it; "": none
	MetricsAnonymous bool     `json:"metricsAnonymous,omitempty"` // /metrics beside the content is for everybody
	MetricsReaders   []string `json:"metricsReaders,omitempty"`   // names of users who may read it, besides administrators

	Webhooks       []webhook.Endpoint `json:"webhooks,omitempty"`       // set at each start; others are set by the administrator's routes
	WebhookRefuses []netip.Prefix     `json:"webhookRefuses,omitempty"` // networks to which no webhook is sent

	// Policies are files as image/policy reads them. A repository is certified under the first of which a rule with signers holds for
	// it, when its newest image is signed so. In patterns the registry is called by the host of its URL, without one localhost.
	Policies []string `json:"policies,omitempty"`
	// Certify takes the place of Policies; nil: they decide.
	Certify func(ctx context.Context, repository string) (policy string, ok bool, err error) `json:"-"`
}

// parts are what stands around the content.
type parts struct {
	catalog   *catalog.Catalog
	webhooks  *webhook.Webhooks
	retention *retention.Engine
	metrics   *metrics.Metrics
	handler   http.Handler // everything, counted
}

// openParts opens them and adds their routes. The store and the guard are open.
func (r *Registry) openParts() error {
	root, d := func(name string) string { return filepath.Join(r.cfg.Root, name) }, r.guard.Door()
	d.Who = r.who
	for _, dir := range []string{"catalog", "retention"} {
		if err := os.MkdirAll(root(dir), 0o700); err != nil {
			return fault.In(err, "open the registry")
		}
	}
	if err := r.openCatalog(root("catalog"), d); err != nil {
		return err
	}
	if err := r.openWebhooks(root("webhooks.db"), d); err != nil {
		return err
	}
	r.mux.Handle("GET /metrics", r.parts.metrics.Handler(d))
	if err := r.openPages(); err != nil {
		return err
	}
	r.mux.HandleFunc("/berth/", func(w http.ResponseWriter, req *http.Request) {
		d.Fail(w, req, fault.New(fault.NotFound, "there is no route %s %s", req.Method, req.URL.Path))
	})
	r.parts.handler = r.parts.metrics.Around(http.HandlerFunc(r.serve))
	return r.openRetention(root("retention"), d)
}

// openMetrics makes the counters, before anything that counts.
func (r *Registry) openMetrics() {
	r.parts.metrics = metrics.New(metrics.Config{Anonymous: r.cfg.Around.MetricsAnonymous, Readers: r.cfg.Around.MetricsReaders,
		Storage: r.weigh, Webhooks: r.queues})
}

// collected counts a garbage collection.
func (r *Registry) collected(took time.Duration, res *gc.Result, err error) {
	if res == nil {
		res = &gc.Result{}
	}
	r.parts.metrics.Collected(took, int64(res.Blobs), res.Bytes, err)
	if c := r.parts.catalog; c != nil && res.Manifests+res.Repositories > 0 {
		c.Collected()
	}
}

// openCatalog opens what is known of repositories, and search.
func (r *Registry) openCatalog(dir string, d *door.Door) error {
	certify, err := r.openCertifier()
	if err != nil {
		return err
	}
	c, err := catalog.Open(catalog.Config{Root: dir, Source: catalog.FromStorage(r.store), Access: r.guard, Certify: certify, Log: r.cfg.Log})
	if err != nil {
		return err
	}
	r.onClose(c.Close)
	r.Listen(c.Notice)
	r.parts.catalog = c
	r.mux.Handle("/v1/", c.SearchHandler(d))
	r.mount("/berth/registry/v1/catalog", c.AdminHandler(d))
	return nil
}

// openPages makes what a browser sees.
func (r *Registry) openPages() error {
	if r.cfg.Around.NoPages {
		return nil
	}
	p, err := page.New(page.Config{Catalog: r.parts.catalog, Storage: r.store, Access: r.guard, SignIn: r.guard.SignIn,
		Guarded: r.guard.Guarded, URL: r.url(), Title: r.cfg.Around.Title, Log: r.cfg.Log})
	if err != nil {
		return err
	}
	r.mux.Handle("/", p)
	return nil
}

// openWebhooks opens the queues of those who want to be told.
func (r *Registry) openWebhooks(file string, d *door.Door) error {
	w, err := webhook.Open(webhook.Config{File: file, Source: webhook.Source{Addr: r.cfg.Addr}, BaseURL: r.url(),
		Refuse: r.cfg.Around.WebhookRefuses, UserAgent: "berth-registry", Log: r.cfg.Log})
	if err != nil {
		return err
	}
	r.onClose(w.Close)
	for _, e := range r.cfg.Around.Webhooks {
		if err := w.Set(e); err != nil {
			return err
		}
	}
	r.Listen(w.Notify)
	r.parts.webhooks = w
	r.mount("/berth/registry/v1/webhooks", w.AdminHandler(d))
	return nil
}

// openRetention opens the rules for old tags.
func (r *Registry) openRetention(dir string, d *door.Door) error {
	e, err := retention.Open(retention.Config{Root: dir, Storage: r.store, Events: r.event, Applied: r.parts.metrics.Retired, Log: r.cfg.Log})
	if err != nil {
		return err
	}
	r.onClose(e.Close)
	r.parts.retention = e
	r.mount("/berth/registry/v1/retention", e.AdminHandler(d))
	return nil
}

// mount adds a part's routes: the path itself and what is below it.
func (r *Registry) mount(path string, h http.Handler) {
	r.mux.Handle(path, h)
	r.mux.Handle(path+"/", h)
}

// url is where clients reach the registry, "" when nobody has said so.
func (r *Registry) url() string {
	return strings.TrimSuffix(cmp.Or(r.cfg.Around.URL, r.cfg.Auth.URL), "/")
}

// Catalog is what is known of the registry's repositories, for tests and for parts that are wired elsewhere.
func (r *Registry) Catalog() *catalog.Catalog { return r.parts.catalog }

// Metrics are the registry's counters, for parts that are wired elsewhere.
func (r *Registry) Metrics() *metrics.Metrics { return r.parts.metrics }

// who finds out who makes a request, and counts refusals.
func (r *Registry) who(req *http.Request) (access.Subject, error) {
	s, err := r.guard.Who(req)
	var slow *auth.Slow
	switch {
	case err == nil:
	case errors.As(err, &slow):
		r.parts.metrics.AuthFailure("guessing")
	case fault.Is(err, fault.Unavailable):
		r.parts.metrics.AuthFailure("unavailable")
	case req.Header.Get("Authorization") == "": // how clients learn where to sign in
	default:
		r.parts.metrics.AuthFailure("credentials")
	}
	return s, err
}

// serveMetrics serves /metrics at an address of its own until ctx ends, where one is set.
func (r *Registry) serveMetrics(ctx context.Context) (wait func(), err error) {
	if r.cfg.Around.MetricsAddr == "" {
		return func() {}, nil
	}
	l, err := net.Listen("tcp", r.cfg.Around.MetricsAddr)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "serve the metrics")
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", r.parts.metrics.Everybody())
	s := &http.Server{Handler: mux, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout}
	var served sync.WaitGroup
	served.Go(func() {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			r.cfg.Log.Error("the metrics are served no more", "error", err)
		}
	})
	stop := context.AfterFunc(ctx, func() { s.Close() })
	return func() { stop(); s.Close(); served.Wait() }, nil
}

// weigh adds up the repositories for the metrics. What several repositories hold counts in each.
func (r *Registry) weigh() metrics.Storage {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	names, err := r.store.Repositories(ctx, "")
	if err != nil {
		return metrics.Storage{}
	}
	s := metrics.Storage{Repositories: int64(len(names))}
	for _, n := range names {
		size, err := r.store.Size(ctx, n)
		if err != nil {
			r.cfg.Log.Warn("a repository cannot be weighed", "repository", n, "error", err)
			continue
		}
		s.Bytes += size
	}
	return s
}

// queues tells the metrics how webhooks do.
func (r *Registry) queues() []metrics.Queue {
	list, err := r.parts.webhooks.List()
	if err != nil {
		return nil
	}
	var out []metrics.Queue
	for _, l := range list {
		out = append(out, metrics.Queue{Endpoint: l.Name, Pending: l.Status.Pending, Failures: l.Status.Failures,
			Delivered: l.Status.Delivered, Dropped: l.Status.Dropped})
	}
	return out
}
