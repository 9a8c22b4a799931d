package catalog

import (
	"net/http"

	"berth/registry/access"
	"berth/registry/door"
)

const adminPrefix = "/berth/registry/v1/catalog"

// AdminHandler serves the catalog's own routes, which doc.go lists.
func (c *Catalog) AdminHandler(d *door.Door) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+adminPrefix, func(w http.ResponseWriter, r *http.Request) {
		s, ok := d.Subject(w, r)
		if !ok {
			return
		}
		s.Limit = nil // as in SearchHandler: the list is of what may be pulled, not of what this token is for
		query, n, page, err := asked(r)
		if err != nil {
			d.Fail(w, r, err)
			return
		}
		found, err := c.Search(r.Context(), s, query, n, page)
		answer(d, w, r, found, err)
	})
	mux.HandleFunc("GET "+adminPrefix+"/entry/{name...}", func(w http.ResponseWriter, r *http.Request) {
		if _, ok := d.May(w, r, r.PathValue("name"), access.Pull); !ok {
			return
		}
		e, err := c.Entry(r.PathValue("name"))
		answer(d, w, r, e, err)
	})
	mux.HandleFunc("PUT "+adminPrefix+"/description/{name...}", func(w http.ResponseWriter, r *http.Request) {
		s, ok := d.May(w, r, r.PathValue("name"), access.Admin)
		var body Description
		if !ok || !d.Body(w, r, &body) {
			return
		}
		answer(d, w, r, nil, c.Describe(r.Context(), s, r.PathValue("name"), body))
	})
	star := func(on bool) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			s, ok := d.May(w, r, r.PathValue("name"), access.Pull)
			if !ok {
				return
			}
			answer(d, w, r, nil, c.Star(r.Context(), s.Name, r.PathValue("name"), on))
		}
	}
	mux.HandleFunc("PUT "+adminPrefix+"/star/{name...}", star(true))
	mux.HandleFunc("DELETE "+adminPrefix+"/star/{name...}", star(false))
	mux.HandleFunc("PUT "+adminPrefix+"/mark/{name...}", func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Official *bool `json:"official"`
		}
		if _, ok := d.Admin(w, r); !ok || !d.Body(w, r, &body) {
			return
		}
		answer(d, w, r, nil, c.MarkOfficial(r.Context(), r.PathValue("name"), body.Official))
	})
	mux.HandleFunc("DELETE "+adminPrefix+"/entry/{name...}", func(w http.ResponseWriter, r *http.Request) {
		if _, ok := d.Admin(w, r); !ok {
			return
		}
		answer(d, w, r, nil, c.Forget(r.Context(), r.PathValue("name")))
	})
	mux.HandleFunc("POST "+adminPrefix+"/rebuild", func(w http.ResponseWriter, r *http.Request) {
		if _, ok := d.Admin(w, r); !ok {
			return
		}
		n, err := c.Rebuild(r.Context())
		answer(d, w, r, map[string]int{"repositories": n}, err)
	})
	return mux
}

// answer writes v or the error; without either, 204.
func answer(d *door.Door, w http.ResponseWriter, r *http.Request, v any, err error) {
	switch {
	case err != nil:
		d.Fail(w, r, err)
	case v == nil:
		door.Answer(w, http.StatusNoContent, nil)
	default:
		door.Answer(w, http.StatusOK, v)
	}
}
