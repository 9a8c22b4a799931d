package door

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"

	"berth/auth"
	"berth/base/fault"
	"berth/registry/access"
)

// Door tells who stands before a route and what he may do there.
type Door struct {
	// Who gives the subject of a request, by its token or password; an error is that they are wrong.
	Who func(r *http.Request) (access.Subject, error)
	// Challenge writes the 401 that tells a client how to sign in; nil: a bare one.
	Challenge func(w http.ResponseWriter, r *http.Request, repository string, actions ...access.Action)
	// Access says what a subject may do to a repository.
	Access access.Decider
	// Administrator says whether a request is from an administrator of the site; nil: Subject.Admin.
	Administrator func(r *http.Request, s access.Subject) bool

	Log *slog.Logger // nil: slog.Default()
}

// Subject gives who is asking. When his credentials are wrong it has answered and gives false. A browser that changes
// something on behalf of another site's page is refused: it may know a password that its user did not mean to use.
func (d *Door) Subject(w http.ResponseWriter, r *http.Request) (access.Subject, bool) {
	if err := http.NewCrossOriginProtection().Check(r); err != nil {
		d.Fail(w, r, fault.New(fault.Forbidden, "another site's page may not change anything here"))
		return access.Subject{}, false
	}
	s, err := d.Who(r)
	if err == nil {
		return s, true
	}
	if k := fault.KindOf(err); k != fault.Unauthorized && k != fault.Forbidden {
		d.Fail(w, r, err) // a directory that cannot be reached is no wrong password
		return access.Subject{}, false
	}
	d.challenge(w, r, "")
	return access.Subject{}, false
}

// May gives who is asking if he may do the action to the repository. Otherwise it has answered: a repository that
// he may not even pull does not exist for him.
func (d *Door) May(w http.ResponseWriter, r *http.Request, repository string, a access.Action) (access.Subject, bool) {
	s, ok := d.Subject(w, r)
	if !ok {
		return s, false
	}
	allowed, err := d.Access.Allowed(r.Context(), s, repository, a)
	if err == nil && allowed {
		return s, true
	}
	if err != nil {
		d.Fail(w, r, err)
		return s, false
	}
	if s.Anonymous() {
		d.challenge(w, r, repository, a)
		return s, false
	}
	if visible, err := d.Access.Allowed(r.Context(), s, repository, access.Pull); err != nil || !visible {
		d.Fail(w, r, fault.New(fault.NotFound, "repository %s is not known", repository))
		return s, false
	}
	d.Fail(w, r, fault.New(fault.Forbidden, "%s may not %s %s", s.Name, a, repository))
	return s, false
}

// Admin gives who is asking if he is an administrator of the site. Otherwise it has answered.
func (d *Door) Admin(w http.ResponseWriter, r *http.Request) (access.Subject, bool) {
	s, ok := d.Subject(w, r)
	if !ok {
		return s, false
	}
	if d.IsAdmin(r, s) {
		return s, true
	}
	if s.Anonymous() {
		d.challenge(w, r, "")
		return s, false
	}
	d.Fail(w, r, fault.New(fault.Forbidden, "only an administrator of the registry may do this"))
	return s, false
}

// IsAdmin reports whether the request is an administrator's.
func (d *Door) IsAdmin(r *http.Request, s access.Subject) bool {
	if d.Administrator != nil {
		return d.Administrator(r, s)
	}
	return s.Admin
}

func (d *Door) challenge(w http.ResponseWriter, r *http.Request, repository string, actions ...access.Action) {
	if d.Challenge != nil {
		d.Challenge(w, r, repository, actions...)
		return
	}
	d.Fail(w, r, fault.New(fault.Unauthorized, "authentication required"))
}

// maxBody is the largest body of a request that is read.
const maxBody = 1 << 20

// Body reads a request's JSON. When it is wrong it has answered and gives false.
func (d *Door) Body(w http.ResponseWriter, r *http.Request, into any) bool {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if err == nil && dec.More() {
		err = errors.New("there is more after the value")
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("there is no body")
	}
	if err != nil {
		d.Fail(w, r, fault.Wrap(fault.Invalid, err, "read the request"))
		return false
	}
	return true
}

// Answer writes a value as JSON; nil writes the status only.
func Answer(w http.ResponseWriter, status int, v any) {
	if v == nil {
		w.WriteHeader(status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) // the client is gone when this fails
}

// Fail writes an error as {"message": TEXT} with the status of its kind. What is nobody's fault is logged.
func (d *Door) Fail(w http.ResponseWriter, r *http.Request, err error) {
	var slow *auth.Slow
	if errors.As(err, &slow) { // somebody guesses passwords
		w.Header().Set("Retry-After", strconv.Itoa(int(slow.After.Seconds())+1))
		Answer(w, http.StatusTooManyRequests, map[string]string{"message": err.Error()})
		return
	}
	status := Status(err)
	if status >= 500 {
		log := d.Log
		if log == nil {
			log = slog.Default()
		}
		log.Error("a request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	Answer(w, status, map[string]string{"message": err.Error()})
}

// Status gives the HTTP status of an error's kind.
func Status(err error) int {
	switch fault.KindOf(err) {
	case fault.Invalid:
		return http.StatusBadRequest
	case fault.NotFound:
		return http.StatusNotFound
	case fault.Conflict:
		return http.StatusConflict
	case fault.NotModified:
		return http.StatusNotModified
	case fault.Forbidden:
		return http.StatusForbidden
	case fault.Unauthorized:
		return http.StatusUnauthorized
	case fault.Unavailable, fault.Cancelled:
		return http.StatusServiceUnavailable
	case fault.Deadline:
		return http.StatusGatewayTimeout
	case fault.NotImplemented:
		return http.StatusNotImplemented
	case fault.Gone:
		return http.StatusGone
	}
	return http.StatusInternalServerError
}
