package registry

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"berth/registry/access"
	"berth/registry/distribution"
	"berth/registry/replicate"
	"berth/registry/storage"
	"berth/registry/upstream"
)

// Copies are the settings of what goes between this registry and others.
type Copies struct {
	Mirrors     []upstream.Source `json:"mirrors,omitempty"`     // registries whose repositories are fetched when they are asked for; others are set by the administrator's routes
	Replication []replicate.Rule  `json:"replication,omitempty"` // what is sent to other registries; others are set by the administrator's routes
	// HostsDirs are directories with HOST/hosts.toml and certificates of those registries, in containerd's and Docker's formats. The
	// user's Docker keeps its in /etc/docker/certs.d.
	HostsDirs []string `json:"hostsDirs,omitempty"`
}

// mirrorsDir is the pull-through cache's own.
func (r *Registry) mirrorsDir() string { return filepath.Join(r.cfg.Root, "mirrors") }

// sparse reports whether indexes are stored of which some manifests are not here: where the settings say so, and in a registry with
// mirrors, whose clients want an image of their own platform only.
func (r *Registry) sparse() (bool, error) {
	if r.cfg.SparseIndexes || len(r.cfg.Copies.Mirrors) > 0 {
		return true, nil
	}
	_, err := os.Stat(filepath.Join(r.mirrorsDir(), "sources.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// openMirrors opens the pull-through cache, with its routes. A registry that may change nothing fetches nothing.
func (r *Registry) openMirrors() (distribution.Upstream, error) {
	if r.cfg.ReadOnly {
		return nil, nil
	}
	c, err := upstream.Open(upstream.Config{Dir: r.mirrorsDir(), Store: r.store, Sources: r.cfg.Copies.Mirrors, HostsDirs: r.cfg.Copies.HostsDirs,
		UserAgent: "berth-registry", Count: r.countMirror, Quota: r.quota.Check, Stored: r.showCopy, Log: r.cfg.Log})
	if err != nil {
		return nil, err
	}
	r.onClose(c.Close)
	r.Listen(c.Notify)
	r.mirrors = c
	d := r.guard.Door()
	d.Who = r.who
	r.mount("/berth/registry/v1/mirrors", c.AdminHandler(d))
	return c, nil
}

// mirrored gives a request its name here where a client names the registry that it means (?ns=quay.io, as containerd does with mirrors), and
// has a list of referrers fetched before it is read.
func (r *Registry) mirrored(req *http.Request) *http.Request {
	if r.mirrors == nil || req.Method != http.MethodGet && req.Method != http.MethodHead {
		return req
	}
	rest := strings.TrimPrefix(req.URL.Path, "/v2/")
	at := max(strings.LastIndex(rest, "/manifests/"), strings.LastIndex(rest, "/blobs/"), strings.LastIndex(rest, "/tags/"), strings.LastIndex(rest, "/referrers/"))
	if at < 0 || req.URL.RawPath != "" {
		return req
	}
	repository, what := rest[:at], rest[at:]
	if ns := req.URL.Query().Get("ns"); ns != "" {
		if local, ok := r.mirrors.Local(ns, repository); ok {
			u := *req.URL
			u.Path = "/v2/" + local + what
			req = req.WithContext(req.Context()) // a shallow copy: a handler does not change what it was given
			req.URL, repository = &u, local
		}
	}
	if subject, ok := strings.CutPrefix(what, "/referrers/"); ok {
		r.fetchReferrers(req, repository, subject)
	}
	return req
}

// fetchReferrers has the mirrors look for what refers to a manifest, for those who may see it.
func (r *Registry) fetchReferrers(req *http.Request, repository, subject string) {
	d, err := storage.ParseDigest(subject)
	if err != nil || storage.CheckName(repository) != nil || !r.mirrors.Covers(repository) {
		return
	}
	who, err := r.who(req)
	if err != nil {
		return
	}
	if ok, err := r.guard.Allowed(req.Context(), who, repository, access.Pull); err != nil || !ok {
		return
	}
	if err := r.mirrors.Referrers(req.Context(), repository, d); err != nil {
		r.cfg.Log.Warn("what refers to a copy could not be fetched", "repository", repository, "digest", subject, "error", err)
	}
}

// countMirror tells the metrics what the cache did.
func (r *Registry) countMirror(source, kind, result string, fetched int64) {
	if r.parts.metrics != nil {
		r.parts.metrics.Upstream(source, kind, result, fetched)
	}
}

// showCopy has the catalog look at a repository that was fetched.
func (r *Registry) showCopy(repository string) {
	if r.parts.catalog != nil {
		r.parts.catalog.Refresh(repository)
	}
}

// openReplication opens the rules of what is sent to other registries, with their routes.
func (r *Registry) openReplication() error {
	p, err := replicate.Open(replicate.Config{Dir: filepath.Join(r.cfg.Root, "replication"), Store: r.store, Rules: r.cfg.Copies.Replication,
		HostsDirs: r.cfg.Copies.HostsDirs, UserAgent: "berth-registry", Log: r.cfg.Log})
	if err != nil {
		return err
	}
	r.onClose(p.Close)
	r.Listen(p.Notify)
	d := r.guard.Door()
	d.Who = r.who
	r.mount("/berth/registry/v1/replication", p.AdminHandler(d))
	return nil
}
