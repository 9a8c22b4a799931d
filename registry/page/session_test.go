package page

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"berth/base/fault"
	"berth/registry/access"
)

func TestSignInStarAndDescribe(t *testing.T) {
	s := start(t, nil)
	s.push(t, "team/web:1", img(t, "amd64", []int64{100}, []string{"x"}, nil))
	s.push(t, "secret/plans:1", img(t, "amd64", []int64{100}, []string{"x"}, nil))

	alice := s.browser(t)
	if code, body := alice.post(t, "/signin", "/signin", url.Values{"name": {"alice"}, "password": {"wrong"}}); code != 403 || !strings.Contains(body, "Name or password is wrong") || !strings.Contains(body, `value="alice"`) {
		t.Errorf("wrong password: %d %s", code, body)
	}
	if code, body := alice.post(t, "/signin?next=/r/secret/plans", "/signin", url.Values{"name": {"alice"}, "password": {"right"}, "next": {"/r/secret/plans"}}); code != 200 || !strings.Contains(body, "secret/plans") || !strings.Contains(body, ">Private<") {
		t.Errorf("after signing in: %d %s", code, body)
	}
	code, body := alice.post(t, "/r/team/web", "/star/team/web", url.Values{"on": {"1"}})
	if code != 200 || !strings.Contains(body, "★ Starred") {
		t.Errorf("star: %d %s", code, body)
	}
	if code, body = alice.post(t, "/r/team/web", "/star/team/web", url.Values{"on": {"0"}}); code != 200 || !strings.Contains(body, "☆ Star") {
		t.Errorf("no star: %d %s", code, body)
	}
	code, body = alice.post(t, "/edit/team/web", "/edit/team/web", url.Values{"short": {"The shop"}, "long": {"# Hello\r\n\r\nworld"}})
	if code != 200 || !strings.Contains(body, "The shop") || !strings.Contains(body, "<h2>Hello</h2>") {
		t.Errorf("describe: %d %s", code, body)
	}
	if code, body = alice.post(t, "/edit/team/web", "/edit/team/web", url.Values{"short": {"two\nlines"}}); code != 400 || !strings.Contains(body, "one line") {
		t.Errorf("a bad description: %d %s", code, body)
	}

	bob := s.browser(t)
	bob.signIn(t, "bob")
	if code, _ := bob.get(t, "/edit/team/web"); code != 403 {
		t.Errorf("bob's form: %d", code)
	}
	if code, _ := bob.post(t, "/r/team/web", "/edit/team/web", url.Values{"short": {"mine"}}); code != 403 {
		t.Errorf("bob's description: %d", code)
	}
	if code, _ := bob.post(t, "/r/team/web", "/star/secret/plans", url.Values{"on": {"1"}}); code != 404 {
		t.Errorf("bob's star for what he may not see: %d", code)
	}
	if e, _ := s.catalog.Entry("team/web"); e.Short != "The shop" {
		t.Errorf("%+v", e)
	}

	if code, body := alice.post(t, "/", "/signout", url.Values{}); code != 200 || strings.Contains(body, "Sign out") {
		t.Errorf("signing out: %d %s", code, body)
	}
	if code, _ := alice.get(t, "/r/secret/plans"); code != 404 {
		t.Errorf("after signing out: %d", code)
	}
}

func TestForgedFormsAreRefused(t *testing.T) {
	s := start(t, nil)
	s.push(t, "team/web:1", img(t, "amd64", []int64{100}, []string{"x"}, nil))
	alice := s.browser(t)
	alice.signIn(t, "alice")
	for _, form := range []string{"", "x"} {
		resp, err := alice.PostForm(s.URL+"/star/team/web", url.Values{"on": {"1"}, "form": {form}})
		if err != nil {
			t.Fatal(err)
		}
		if code, _ := read(t, resp); code != 403 {
			t.Errorf("form %q: %d", form, code)
		}
	}
	for header, value := range map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"} {
		r, _ := http.NewRequest("POST", s.URL+"/signout", nil)
		r.Header.Set(header, value)
		resp, err := alice.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if code, body := read(t, resp); code != 403 || !strings.Contains(body, "another site") {
			t.Errorf("%s: %d", header, code)
		}
	}
	if s.catalog.Starred("alice", "team/web") {
		t.Error("a forged star")
	}
	// Without the cookie of the form nobody is signed in: an attacker cannot sign a victim in as himself.
	resp, err := http.PostForm(s.URL+"/signin", url.Values{"name": {"mallory"}, "password": {"right"}, "form": {"x"}})
	if err != nil {
		t.Fatal(err)
	}
	if code, _ := read(t, resp); code != 403 || len(resp.Cookies()) != 1 {
		t.Errorf("forged sign-in: %d %v", code, resp.Cookies())
	}
}

func TestSessionsEnd(t *testing.T) {
	var ended error
	s := start(t, func(c *Config) {
		c.SignIn = func(_ *http.Request, name, _ string) (access.Subject, func(context.Context) (access.Subject, error), error) {
			who := access.Subject{Name: name}
			return who, func(context.Context) (access.Subject, error) { return who, ended }, nil
		}
	})
	b := s.browser(t)
	b.signIn(t, "alice")
	ended = fault.New(fault.Unavailable, "the directory does not answer")
	if _, body := b.get(t, "/"); strings.Contains(body, "alice") {
		t.Error("who cannot be looked up has rights")
	}
	ended = nil
	if _, body := b.get(t, "/"); !strings.Contains(body, "alice") {
		t.Error("a failure has ended the session")
	}
	ended = fault.New(fault.Unauthorized, "the account is closed")
	if _, body := b.get(t, "/"); strings.Contains(body, "alice") {
		t.Error("a closed account is still signed in")
	}
	ended = nil
	if _, body := b.get(t, "/"); strings.Contains(body, "alice") {
		t.Error("an ended session came back")
	}

	all := newSessions()
	key := all.begin("x", nil)
	r := httptest.NewRequest("GET", "/", nil)
	r.AddCookie(&http.Cookie{Name: "c", Value: key})
	if all.find(r, "c") == nil {
		t.Error("not found")
	}
	for _, o := range all.all {
		o.seen = time.Now().Add(-3 * time.Hour)
	}
	if all.find(r, "c") != nil || len(all.all) != 0 {
		t.Error("an idle session lives")
	}
	for range maxSessions + 5 {
		all.begin("x", nil)
	}
	if len(all.all) > maxSessions || len(all.all) < maxSessions*8/10 {
		t.Errorf("%d sessions", len(all.all))
	}
}

func TestCookiesOverTLS(t *testing.T) {
	s := start(t, nil)
	r := httptest.NewRequest("GET", "/signin", nil)
	r.TLS = &tls.ConnectionState{}
	w := httptest.NewRecorder()
	s.pages.ServeHTTP(w, r)
	if c := w.Result().Cookies(); len(c) != 1 || !strings.HasPrefix(c[0].Name, "__Host-") || !c[0].Secure || !c[0].HttpOnly || c[0].SameSite != http.SameSiteLaxMode || c[0].Path != "/" {
		t.Errorf("%+v", c)
	}
}

func TestLocal(t *testing.T) {
	for in, want := range map[string]string{"/r/a/b?x=1": "/r/a/b?x=1", "": "/", "//evil.example": "/", "/\\evil.example": "/", "https://evil.example": "/",
		"javascript:alert(1)": "/", "/%2f/evil.example": "/", "/\t/evil.example": "/", "/signin": "/", "r/a": "/", "/a//b": "/a//b"} {
		if got := local(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestWithoutUsersNobodySignsIn(t *testing.T) {
	for _, change := range []func(*Config){func(c *Config) { c.SignIn = nil }, func(c *Config) { c.Guarded = func() bool { return false } }} {
		s := start(t, change)
		b := s.browser(t)
		if _, body := b.get(t, "/"); strings.Contains(body, "Sign in") {
			t.Error("signing in is offered")
		}
		if code, _ := b.get(t, "/signin"); code != 404 {
			t.Errorf("form: %d", code)
		}
	}
}
