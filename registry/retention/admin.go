package retention

import (
	"net/http"
	"strings"

	"berth/registry/door"
)

const adminPrefix = "/berth/registry/v1/retention"

// AdminHandler serves the routes that doc.go lists.
func (e *Engine) AdminHandler(d *door.Door) http.Handler {
	mux := http.NewServeMux()
	admin := func(pattern string, serve http.HandlerFunc) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if _, ok := d.Admin(w, r); ok {
				serve(w, r)
			}
		})
	}
	admin("GET "+adminPrefix, func(w http.ResponseWriter, r *http.Request) {
		p := e.Policy()
		if p.Rules == nil {
			p.Rules = []Rule{}
		}
		door.Answer(w, http.StatusOK, p)
	})
	admin("PUT "+adminPrefix, func(w http.ResponseWriter, r *http.Request) {
		var p Policy
		if !d.Body(w, r, &p) {
			return
		}
		if err := e.SetPolicy(p); err != nil {
			d.Fail(w, r, err)
			return
		}
		door.Answer(w, http.StatusNoContent, nil)
	})
	admin("POST "+adminPrefix+"/plan", func(w http.ResponseWriter, r *http.Request) {
		policy := e.Policy()
		if r.ContentLength != 0 {
			policy = Policy{}
			if !d.Body(w, r, &policy) {
				return
			}
		}
		p, err := e.PlanFor(r.Context(), policy, r.URL.Query().Get("repository"))
		switch {
		case err != nil:
			d.Fail(w, r, err)
		case strings.HasPrefix(r.Header.Get("Accept"), "text/plain"):
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			p.Write(w, r.URL.Query().Get("all") == "1")
		default:
			door.Answer(w, http.StatusOK, p)
		}
	})
	admin("POST "+adminPrefix+"/apply", func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Plan string `json:"plan"`
		}
		if !d.Body(w, r, &body) {
			return
		}
		result, err := e.Apply(r.Context(), body.Plan)
		if err != nil && result.Plan == "" {
			d.Fail(w, r, err)
			return
		}
		if err != nil { // it began: what was done is told as well
			door.Answer(w, door.Status(err), struct {
				Message string `json:"message"`
				Result
			}{err.Error(), result})
			return
		}
		door.Answer(w, http.StatusOK, result)
	})
	admin("GET "+adminPrefix+"/runs", func(w http.ResponseWriter, r *http.Request) { door.Answer(w, http.StatusOK, e.Runs()) })
	return mux
}
