package replicate

import (
	"net/http"
	"slices"
	"strings"

	"berth/base/fault"
	"berth/registry/door"
)

const adminPrefix = "/berth/registry/v1/replication"

// Listed is a rule and how it does.
type Listed struct {
	Rule
	Fixed  bool   `json:"fixed,omitempty"` // part of the registry's settings
	Status Status `json:"status"`
	Wait   int    `json:"wait"`   // jobs that will be tried
	Failed int    `json:"failed"` // jobs that were given up
}

// List gives the rules by name.
func (r *Replicator) List() ([]Listed, error) {
	r.mu.Lock()
	var workers []*worker
	fixed := map[string]bool{}
	for _, w := range r.workers {
		workers = append(workers, w)
	}
	for _, f := range r.fixed {
		fixed[f.Name] = true
	}
	r.mu.Unlock()
	slices.SortFunc(workers, func(a, b *worker) int { return strings.Compare(a.rule.Name, b.rule.Name) })
	list := []Listed{}
	for _, w := range workers {
		w.mu.Lock()
		l := Listed{Rule: w.rule, Fixed: fixed[w.rule.Name], Status: w.status}
		w.mu.Unlock()
		l.Password = ""
		_, err := r.queue.jobs(w.rule.Name, 0, func(j Job) bool {
			if j.Failed {
				l.Failed++
			} else {
				l.Wait++
			}
			return false
		})
		if err != nil {
			return nil, err
		}
		list = append(list, l)
	}
	return list, nil
}

// maxListed is how many jobs are shown.
const maxListed = 1000

// Jobs gives what waits and what has failed for a rule, at most a thousand.
func (r *Replicator) Jobs(name string) ([]Job, error) {
	if _, err := r.worker(name); err != nil {
		return nil, err
	}
	jobs, err := r.queue.jobs(name, maxListed, func(Job) bool { return true })
	if jobs == nil {
		jobs = []Job{}
	}
	return jobs, err
}

// Retry has failed jobs tried again, and those that wait tried at once. It gives their number.
func (r *Replicator) Retry(name string) (int, error) {
	w, err := r.worker(name)
	if err != nil {
		return 0, err
	}
	jobs, err := r.queue.jobs(name, 0, func(j Job) bool { return j.Tries > 0 })
	if err != nil {
		return 0, err
	}
	now := r.now()
	for i := range jobs {
		jobs[i].Failed, jobs[i].Tries, jobs[i].Next, jobs[i].Added = false, 0, now, now
	}
	if err := r.queue.add(jobs...); err != nil {
		return 0, err
	}
	w.wake()
	return len(jobs), nil
}

// AdminHandler serves the routes that doc.go lists.
func (r *Replicator) AdminHandler(d *door.Door) http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, do func(req *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, req *http.Request) {
			if _, ok := d.Admin(w, req); !ok {
				return
			}
			v, err := do(req)
			p, isPlan := v.(*Plan)
			switch {
			case err != nil:
				d.Fail(w, req, err)
			case v == nil:
				door.Answer(w, http.StatusNoContent, nil)
			case isPlan && strings.HasPrefix(req.Header.Get("Accept"), "text/plain"):
				w.Header().Set("Content-Type", "text/plain; charset=utf-8")
				p.Write(w)
			default:
				door.Answer(w, http.StatusOK, v)
			}
		})
	}
	handle("GET "+adminPrefix, func(*http.Request) (any, error) { return r.List() })
	handle("GET "+adminPrefix+"/{name}", func(req *http.Request) (any, error) {
		list, err := r.List()
		if err != nil {
			return nil, err
		}
		for _, l := range list {
			if l.Name == req.PathValue("name") {
				return l, nil
			}
		}
		return nil, fault.New(fault.NotFound, "replication %s is not known", req.PathValue("name"))
	})
	handle("DELETE "+adminPrefix+"/{name}", func(req *http.Request) (any, error) { return nil, r.Remove(req.PathValue("name")) })
	handle("GET "+adminPrefix+"/{name}/jobs", func(req *http.Request) (any, error) { return r.Jobs(req.PathValue("name")) })
	handle("POST "+adminPrefix+"/{name}/plan", func(req *http.Request) (any, error) { return r.Plan(req.Context(), req.PathValue("name")) })
	handle("POST "+adminPrefix+"/{name}/retry", func(req *http.Request) (any, error) {
		n, err := r.Retry(req.PathValue("name"))
		return map[string]int{"jobs": n}, err
	})
	mux.HandleFunc("POST "+adminPrefix+"/{name}/apply", func(w http.ResponseWriter, req *http.Request) {
		var body struct {
			Plan string `json:"plan"`
		}
		if _, ok := d.Admin(w, req); !ok || req.ContentLength != 0 && !d.Body(w, req, &body) {
			return
		}
		p, err := r.Apply(req.Context(), req.PathValue("name"), body.Plan)
		if err != nil {
			d.Fail(w, req, err)
			return
		}
		door.Answer(w, http.StatusOK, p)
	})
	mux.HandleFunc("PUT "+adminPrefix+"/{name}", func(w http.ResponseWriter, req *http.Request) {
		var rule Rule
		if _, ok := d.Admin(w, req); !ok || !d.Body(w, req, &rule) {
			return
		}
		if rule.Name != "" && rule.Name != req.PathValue("name") {
			d.Fail(w, req, fault.New(fault.Invalid, "the body names replication %s, the path %s", rule.Name, req.PathValue("name")))
			return
		}
		rule.Name = req.PathValue("name")
		if err := r.Set(rule); err != nil {
			d.Fail(w, req, err)
			return
		}
		door.Answer(w, http.StatusNoContent, nil)
	})
	return mux
}
