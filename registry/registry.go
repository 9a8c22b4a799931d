package registry

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"berth/base/fault"
	"berth/registry/distribution"
	"berth/registry/guard"
	"berth/registry/notice"
	"berth/registry/quota"
	"berth/registry/storage"
	"berth/registry/storage/dir"
	"berth/registry/storage/s3"
	"berth/registry/upstream"
)

// Registry is a registry that is open.
type Registry struct {
	cfg     Config
	store   *storage.Store
	guard   *guard.Guard
	quota   *quota.Quota
	api     *distribution.Handler // for when users are told from strangers
	anybody *distribution.Handler // for when they are not: nobody is asked to sign in
	mux     *http.ServeMux        // everything but /v2
	parts   parts
	mirrors *upstream.Cache // nil in a registry that may change nothing
	listen  []func(notice.Event)
	closers []func() error // last first
}

// Open opens the registry that cfg describes, or makes it. It serves nothing yet.
func Open(cfg Config) (*Registry, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Root == "" {
		return nil, fault.New(fault.Invalid, "a registry needs a root directory")
	}
	r := &Registry{cfg: cfg, mux: http.NewServeMux()}
	if err := r.checkTLS(); err != nil {
		return nil, err
	}
	if err := r.open(context.Background()); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// open makes the parts, those below first.
func (r *Registry) open(ctx context.Context) error {
	driver, chunkMin, err := r.driver(ctx)
	if err != nil {
		return err
	}
	sparse, err := r.sparse()
	if err != nil {
		return err
	}
	r.store, err = storage.Open(ctx, driver, storage.Config{Grace: r.cfg.Grace, SparseIndexes: sparse, Log: r.cfg.Log})
	if err != nil {
		return err
	}
	r.onClose(r.store.Close)
	r.openMetrics()
	if err := r.openGuard(); err != nil {
		return err
	}
	if err := r.openUpkeep(); err != nil {
		return err
	}
	api := distribution.Config{
		Storage:  r.store,
		Quota:    r.quota.Check,
		ReadOnly: r.cfg.ReadOnly,
		Events:   r.event,
		Who:      r.who,
		Access:   r.guard,
		Claim:    r.guard.Claim,
		ChunkMin: chunkMin,
		Log:      r.cfg.Log,
	}
	if api.Upstream, err = r.openMirrors(); err != nil {
		return err
	}
	r.anybody = distribution.New(api)
	api.Challenge = r.guard.Challenge
	r.api = distribution.New(api)
	r.mux.HandleFunc("GET /healthz", r.health)
	if err := r.openParts(); err != nil {
		return err
	}
	if err := r.openReplication(); err != nil {
		return err
	}
	r.startCollecting()
	return nil
}

// openGuard opens the users and rights, with their routes.
func (r *Registry) openGuard() error {
	cfg := r.cfg.Auth
	cfg.Dir, cfg.Log = filepath.Join(r.cfg.Root, "auth"), r.cfg.Log
	if r.cfg.Htpasswd != "" {
		cfg.Htpasswd = r.cfg.Htpasswd
	}
	var err error
	if r.guard, err = guard.Open(cfg); err != nil {
		return err
	}
	r.onClose(r.guard.Close)
	r.mux.Handle("/token", r.guard.Token())
	r.mux.Handle("GET /token/keys", r.guard.Keys())
	for _, pattern := range guard.Patterns() {
		r.mux.Handle(pattern, r.guard.Admin())
	}
	return nil
}

// Guard is the registry's users and rights, for parts that are wired elsewhere.
func (r *Registry) Guard() *guard.Guard { return r.guard }

// driver opens the place where the content lies.
func (r *Registry) driver(ctx context.Context) (storage.Driver, int64, error) {
	where := r.cfg.Storage
	if where == "" {
		where = "dir:" + filepath.Join(r.cfg.Root, "content")
	}
	if path, ok := strings.CutPrefix(where, "dir:"); ok {
		d, err := dir.Open(path)
		return d, 0, err
	}
	if strings.HasPrefix(where, "s3:") {
		cfg, err := s3.ParseURL(where, os.Getenv)
		if err != nil {
			return nil, 0, err
		}
		d, err := s3.Open(ctx, cfg)
		if err != nil {
			return nil, 0, err
		}
		return d, s3.ChunkMin, nil
	}
	return nil, 0, fault.New(fault.Invalid, "storage %q is neither dir:PATH nor s3://BUCKET", where)
}

// Store is the registry's content, for tests and for parts that are wired elsewhere.
func (r *Registry) Store() *storage.Store { return r.store }

// Listen has f told of every event from now on. It is called before serving begins; f must not block.
func (r *Registry) Listen(f func(notice.Event)) { r.listen = append(r.listen, f) }

// Handle adds a route beside /v2; patterns are http.ServeMux's. It is called before serving begins.
func (r *Registry) Handle(pattern string, h http.Handler) { r.mux.Handle(pattern, h) }

func (r *Registry) event(e notice.Event) {
	for _, f := range r.listen {
		f(e)
	}
}

// ServeHTTP answers one request.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.parts.handler.ServeHTTP(w, req)
}

func (r *Registry) serve(w http.ResponseWriter, req *http.Request) {
	// Not by the mux: it would clean paths, and a name with "//" or ".." is to be refused, not to be another name.
	if req.URL.Path == "/v2" || strings.HasPrefix(req.URL.Path, "/v2/") {
		req = r.mirrored(req)
		if r.guard.Guarded() {
			r.api.ServeHTTP(w, req)
		} else {
			r.anybody.ServeHTTP(w, req)
		}
		return
	}
	r.mux.ServeHTTP(w, req)
}

func (r *Registry) health(w http.ResponseWriter, req *http.Request) {
	ctx, cancel := context.WithTimeout(req.Context(), 5*time.Second)
	defer cancel()
	if err := r.store.Ping(ctx); err != nil {
		r.cfg.Log.Error("the storage does not answer", "error", err)
		http.Error(w, "the storage does not answer", http.StatusServiceUnavailable)
		return
	}
	w.Write([]byte("ok\n"))
}

func (r *Registry) onClose(f func() error) { r.closers = append(r.closers, f) }

// Close ends the parts, those above first. Requests have ended before; Serve sees to that.
func (r *Registry) Close() error {
	var first error
	for i := len(r.closers) - 1; i >= 0; i-- {
		if err := r.closers[i](); err != nil && first == nil {
			first = err
		}
	}
	r.closers = nil
	return first
}
