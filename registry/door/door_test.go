package door

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"berth/auth"
	"berth/base/fault"
	"berth/registry/access"
)

type rights map[string]bool // NAME REPOSITORY ACTION

func (r rights) Allowed(_ context.Context, s access.Subject, repository string, a access.Action) (bool, error) {
	if repository == "broken" {
		return false, errors.New("disk")
	}
	return r[s.Name+" "+repository+" "+string(a)], nil
}

func TestMay(t *testing.T) {
	d := &Door{Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Access: rights{"bob r pull": true, " public pull": true, "bob public pull": true},
		Who: func(r *http.Request) (access.Subject, error) {
			switch name, _, _ := r.BasicAuth(); name {
			case "wrong":
				return access.Subject{}, auth.ErrPassword
			case "guess":
				return access.Subject{}, &auth.Slow{After: 3 * time.Second}
			case "down":
				return access.Subject{}, fault.New(fault.Unavailable, "the directory does not answer")
			default:
				return access.Subject{Name: name, Admin: name == "root"}, nil
			}
		}}
	for _, c := range []struct {
		user, repo string
		action     access.Action
		code       int
	}{
		{"bob", "r", access.Pull, 200}, {"bob", "r", access.Push, 403}, {"bob", "secret", access.Pull, 404}, {"bob", "secret", access.Push, 404},
		{"", "public", access.Pull, 200}, {"", "public", access.Push, 401}, {"", "secret", access.Pull, 401}, {"wrong", "public", access.Pull, 401},
		{"guess", "public", access.Pull, 429}, {"down", "public", access.Pull, 503}, {"bob", "broken", access.Pull, 500},
	} {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
		if c.user != "" {
			r.SetBasicAuth(c.user, "x")
		}
		if _, ok := d.May(w, r, c.repo, c.action); ok != (c.code == 200) || !ok && w.Code != c.code {
			t.Errorf("%q %s %s: %v, %d %s; want %d", c.user, c.action, c.repo, ok, w.Code, w.Body, c.code)
		}
		if c.code == 429 && w.Header().Get("Retry-After") != "4" {
			t.Errorf("Retry-After %q", w.Header().Get("Retry-After"))
		}
	}
}

func TestAnotherSitesPageChangesNothing(t *testing.T) {
	d := &Door{Who: func(*http.Request) (access.Subject, error) { return access.Subject{Name: "root", Admin: true}, nil }}
	for _, c := range []struct {
		method, header, value string
		ok                    bool
	}{
		{"PUT", "", "", true}, {"PUT", "Sec-Fetch-Site", "same-origin", true}, {"PUT", "Sec-Fetch-Site", "cross-site", false},
		{"PUT", "Origin", "https://evil.example", false}, {"GET", "Sec-Fetch-Site", "cross-site", true},
	} {
		w, r := httptest.NewRecorder(), httptest.NewRequest(c.method, "/", nil)
		r.Header.Set(c.header, c.value)
		if _, ok := d.Admin(w, r); ok != c.ok || !ok && w.Code != 403 {
			t.Errorf("%+v: %v %d", c, ok, w.Code)
		}
	}
}

func TestBody(t *testing.T) {
	d := &Door{}
	for body, code := range map[string]int{`{"a":1}`: 200, `{"b":1}`: 400, `{"a":1} x`: 400, ``: 400, `{`: 400, `{"a":"` + strings.Repeat("x", maxBody) + `"}`: 400} {
		w := httptest.NewRecorder()
		var v struct{ A any }
		if ok := d.Body(w, httptest.NewRequest("PUT", "/", strings.NewReader(body)), &v); ok != (code == 200) || w.Code != code {
			t.Errorf("%.20q: %v %d", body, ok, w.Code)
		}
	}
}
