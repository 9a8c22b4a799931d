package registry

import (
	"context"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"berth/base/fault"
	"berth/registry/door"
	"berth/registry/gc"
	"berth/registry/quota"
	"berth/registry/storage"
)

// Collect says when garbage is collected by itself, and what counts as garbage. Spans of time are written as "36h" or "20m".
type Collect struct {
	Every    door.Duration `json:"every,omitempty"`    // 0: an hour; less: only when it is asked for
	Untagged door.Duration `json:"untagged,omitempty"` // see gc.Policy.Untagged
	Uploads  door.Duration `json:"uploads,omitempty"`  // see gc.Policy.Uploads
}

const routes = "/berth/registry/v1/"

// openUpkeep opens the quotas and adds the routes for what an operator does to the content:
//
//	POST /berth/registry/v1/gc       {"plan": bool, "grace", "untagged", "uploads": "36h"} → {"plan": TEXT, "removed": {…}}
//	POST /berth/registry/v1/check    {"content": bool, "repair": bool} → {"repositories", "tags", "manifests", "blobs", "bytes", "problems": [TEXT], "repaired"}
//	GET  /berth/registry/v1/quota    → quota.Limits
//	PUT  /berth/registry/v1/quota    quota.Limits → 204
//	GET  /berth/registry/v1/usage/{name...}    ?organisation=1 → {"used", "limit"}
//
// All of them are for administrators.
func (r *Registry) openUpkeep() error {
	d := r.guard.Door()
	d.Who = r.who
	var err error
	if r.quota, err = quota.Open(filepath.Join(r.cfg.Root, "quota.json"), r.store); err != nil {
		return err
	}
	u := &upkeep{door: d, collected: r.collected, store: r.store, quota: r.quota, policy: r.policy()}
	r.mux.HandleFunc("POST "+routes+"gc", u.collect)
	r.mux.HandleFunc("POST "+routes+"check", u.check)
	r.mux.HandleFunc("GET "+routes+"quota", u.limits)
	r.mux.HandleFunc("PUT "+routes+"quota", u.setLimits)
	r.mux.HandleFunc("GET "+routes+"usage/{name...}", u.usage)
	return nil
}

// startCollecting collects garbage now and then, from when all parts are open that are told of it.
func (r *Registry) startCollecting() {
	every := time.Duration(r.cfg.Collect.Every)
	if every == 0 {
		every = time.Hour
	}
	if every < 0 {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		gc.Loop(ctx, r.store, r.policy(), every, r.collected, r.cfg.Log)
	}()
	r.onClose(func() error { stop(); <-done; return nil })
}

// policy is what counts as garbage here.
func (r *Registry) policy() gc.Policy {
	return gc.Policy{Grace: -1, Untagged: time.Duration(r.cfg.Collect.Untagged), Uploads: time.Duration(r.cfg.Collect.Uploads)}
}

// upkeep answers the routes.
type upkeep struct {
	door   *door.Door
	store  *storage.Store
	quota  *quota.Quota
	policy gc.Policy

	collected func(took time.Duration, r *gc.Result, err error) // for the metrics
}

func (u *upkeep) collect(w http.ResponseWriter, req *http.Request) {
	var asked struct {
		Plan     bool           `json:"plan"`
		Grace    *door.Duration `json:"grace"`
		Untagged *door.Duration `json:"untagged"`
		Uploads  *door.Duration `json:"uploads"`
	}
	if _, ok := u.door.Admin(w, req); !ok || !u.door.Body(w, req, &asked) {
		return
	}
	policy := u.policy
	for to, from := range map[*time.Duration]*door.Duration{&policy.Grace: asked.Grace, &policy.Untagged: asked.Untagged, &policy.Uploads: asked.Uploads} {
		if from != nil {
			*to = time.Duration(*from)
		}
	}
	plan, err := gc.New(req.Context(), u.store, policy)
	if err != nil {
		u.door.Fail(w, req, err)
		return
	}
	defer plan.Close()
	var text strings.Builder
	plan.Write(&text) // to memory
	answer := struct {
		Plan    string     `json:"plan"`
		Removed *gc.Result `json:"removed,omitempty"`
	}{Plan: text.String()}
	if !asked.Plan {
		began := time.Now()
		answer.Removed, err = plan.Apply(req.Context())
		u.collected(time.Since(began), answer.Removed, err)
		if err != nil {
			u.door.Fail(w, req, err)
			return
		}
	}
	door.Answer(w, http.StatusOK, answer)
}

func (u *upkeep) check(w http.ResponseWriter, req *http.Request) {
	var asked struct {
		Content bool `json:"content"`
		Repair  bool `json:"repair"`
	}
	if _, ok := u.door.Admin(w, req); !ok || !u.door.Body(w, req, &asked) {
		return
	}
	c, err := u.store.Check(req.Context(), storage.Look(asked))
	if err != nil {
		u.door.Fail(w, req, err)
		return
	}
	problems := make([]string, len(c.Problems))
	for i, p := range c.Problems {
		problems[i] = p.String()
	}
	door.Answer(w, http.StatusOK, map[string]any{"repositories": c.Repositories, "tags": c.Tags, "manifests": c.Manifests, "blobs": c.Blobs, "bytes": c.Bytes, "problems": problems, "repaired": c.Repaired})
}

func (u *upkeep) limits(w http.ResponseWriter, req *http.Request) {
	if _, ok := u.door.Admin(w, req); ok {
		door.Answer(w, http.StatusOK, u.quota.Limits())
	}
}

func (u *upkeep) setLimits(w http.ResponseWriter, req *http.Request) {
	var l quota.Limits
	if _, ok := u.door.Admin(w, req); !ok || !u.door.Body(w, req, &l) {
		return
	}
	if err := u.quota.Set(l); err != nil {
		u.door.Fail(w, req, err)
		return
	}
	door.Answer(w, http.StatusNoContent, nil)
}

func (u *upkeep) usage(w http.ResponseWriter, req *http.Request) {
	if _, ok := u.door.Admin(w, req); !ok {
		return
	}
	name := req.PathValue("name")
	use, err := quota.Use{}, error(nil)
	switch {
	case req.URL.Query().Get("organisation") != "":
		use, err = u.quota.Organisation(req.Context(), name)
	case !u.store.Exists(name):
		err = fault.New(fault.NotFound, "repository %s is not known", name)
	default:
		use, err = u.quota.Repository(req.Context(), name)
	}
	if err != nil {
		u.door.Fail(w, req, err)
		return
	}
	door.Answer(w, http.StatusOK, use)
}
