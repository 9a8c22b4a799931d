package webhook

import (
	"net/http"

	"berth/base/fault"
	"berth/registry/door"
)

const adminPrefix = "/berth/registry/v1/webhooks"

// AdminHandler serves the routes that doc.go lists.
func (w *Webhooks) AdminHandler(d *door.Door) http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, do func(r *http.Request, rw http.ResponseWriter) (any, error)) {
		mux.HandleFunc(pattern, func(rw http.ResponseWriter, r *http.Request) {
			if _, ok := d.Admin(rw, r); !ok {
				return
			}
			switch v, err := do(r, rw); {
			case err != nil:
				d.Fail(rw, r, err)
			case v != nil:
				door.Answer(rw, http.StatusOK, v)
			default:
				door.Answer(rw, http.StatusNoContent, nil)
			}
		})
	}
	handle("GET "+adminPrefix, func(*http.Request, http.ResponseWriter) (any, error) { return w.List() })
	handle("GET "+adminPrefix+"/{name}", func(r *http.Request, _ http.ResponseWriter) (any, error) {
		list, err := w.List()
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			if e.Name == r.PathValue("name") {
				return e, nil
			}
		}
		return nil, fault.New(fault.NotFound, "webhook %s is not known", r.PathValue("name"))
	})
	handle("DELETE "+adminPrefix+"/{name}", func(r *http.Request, _ http.ResponseWriter) (any, error) {
		return nil, w.Remove(r.PathValue("name"))
	})
	handle("POST "+adminPrefix+"/{name}/test", func(r *http.Request, _ http.ResponseWriter) (any, error) {
		status, err := w.Test(r.Context(), r.PathValue("name"))
		return map[string]int{"status": status}, err
	})
	mux.HandleFunc("PUT "+adminPrefix+"/{name}", func(rw http.ResponseWriter, r *http.Request) {
		var e Endpoint
		if _, ok := d.Admin(rw, r); !ok || !d.Body(rw, r, &e) {
			return
		}
		if e.Name != "" && e.Name != r.PathValue("name") {
			d.Fail(rw, r, fault.New(fault.Invalid, "the body names webhook %s, the path %s", e.Name, r.PathValue("name")))
			return
		}
		e.Name = r.PathValue("name")
		if err := w.Set(e); err != nil {
			d.Fail(rw, r, err)
			return
		}
		door.Answer(rw, http.StatusNoContent, nil)
	})
	return mux
}
