package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"berth/base/fault"
)

// judge is an authorizer that notes what it is asked.
type judge struct {
	name   string
	asked  []string // method, request, status, bodies
	denies string   // part of a request that it denies
	fails  error
}

func (j *judge) Name() string { return j.name }

func (j *judge) Call(_ context.Context, method string, args, ret any) error {
	q := args.(*authzQuestion)
	raw, err := json.Marshal(q)
	if err != nil {
		return err
	}
	j.asked = append(j.asked, method+" "+string(raw))
	if j.fails != nil {
		return j.fails
	}
	a := ret.(*authzAnswer)
	a.Allow = j.denies == "" || !strings.Contains(method+" "+q.RequestMethod+" "+q.RequestURI+" "+string(q.RequestBody), j.denies)
	if !a.Allow {
		a.Msg = "not today"
	}
	return nil
}

func judged(t *testing.T, plugins ...Authorizer) *Server {
	t.Helper()
	s := New(Config{Authorizers: func(context.Context) ([]Authorizer, error) { return plugins, nil }})
	s.table = newTable([]route{
		{method: http.MethodGet, path: "/list", handle: func(_ *Server, c *call) error { return c.json(http.StatusOK, map[string]string{"a": "b"}) }},
		{method: http.MethodGet, path: "/fails", handle: func(*Server, *call) error { return fault.New(fault.NotFound, "nothing there") }},
		{method: http.MethodPost, path: "/make", handle: func(_ *Server, c *call) error {
			body, err := c.jsonBody()
			if err != nil {
				return err
			}
			return c.body(http.StatusCreated, "application/json", body)
		}},
		{method: http.MethodPost, path: "/auth", handle: func(_ *Server, c *call) error {
			return c.json(http.StatusOK, map[string]string{"IdentityToken": "secret"})
		}},
		{method: http.MethodGet, path: "/long", handle: func(_ *Server, c *call) error {
			c.begin(http.StatusOK)
			for range 100 {
				if _, err := c.w.Write(make([]byte, 1024)); err != nil {
					return err
				}
			}
			return nil
		}},
	})
	return s
}

func send(s *Server, method, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("X-Registry-Auth", "secret")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func TestAuthorizersAreAsked(t *testing.T) {
	first, second := &judge{name: "first"}, &judge{name: "second"}
	s := judged(t, first, second)
	w := send(s, "POST", "/v1.44/make?x=1", `{"Image":"box"}`)
	if w.Code != http.StatusCreated || w.Body.String() != `{"Image":"box"}` {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if len(first.asked) != 2 || len(second.asked) != 2 {
		t.Fatalf("asked %v and %v", first.asked, second.asked)
	}
	for i, want := range []string{`AuthZPlugin.AuthZReq {"RequestMethod":"POST","RequestUri":"/v1.44/make?x=1","RequestBody":"eyJJbWFnZSI6ImJveCJ9"`, `"ResponseStatusCode":201,"ResponseBody":"eyJJbWFnZSI6ImJveCJ9"`} {
		if !strings.Contains(first.asked[i], want) || strings.Contains(first.asked[i], "secret") {
			t.Errorf("asked %s, want %s", first.asked[i], want)
		}
	}
}

func TestAuthorizersDeny(t *testing.T) {
	for _, tt := range []struct {
		name, denies, method, path, body string
		code                             int
		text                             string
	}{
		{"the request", "AuthZReq POST", "POST", "/make", "{}", 403, "authorization denied by plugin p: not today"},
		{"its body", "forbidden", "POST", "/make", `{"Image":"forbidden"}`, 403, "authorization denied by plugin p: not today"},
		{"the answer", "AuthZRes", "GET", "/list", "", 403, "authorization denied by plugin p: not today"},
		{"something else", "AuthZReq DELETE", "GET", "/list", "", 200, `{"a":"b"}`},
		{"nothing, but it fails", "", "GET", "/fails", "", 404, "nothing there"},
	} {
		w := send(judged(t, &judge{name: "p", denies: tt.denies}), tt.method, tt.path, tt.body)
		if w.Code != tt.code || !strings.Contains(w.Body.String(), tt.text) {
			t.Errorf("%s: %d %s", tt.name, w.Code, w.Body)
		}
		if tt.code == 403 && strings.Contains(w.Body.String(), `"a":"b"`) {
			t.Errorf("%s: the answer was denied and sent: %s", tt.name, w.Body)
		}
	}
}

func TestAuthorizersFailClosed(t *testing.T) {
	w := send(judged(t, &judge{name: "p", fails: errors.New("no answer")}), "GET", "/list", "")
	if w.Code != 500 || !strings.Contains(w.Body.String(), "plugin p failed with error: no answer") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	s := judged(t)
	s.cfg.Authorizers = func(context.Context) ([]Authorizer, error) { return nil, errors.New("plugin gone") }
	if w := send(s, "GET", "/list", ""); w.Code != 500 || !strings.Contains(w.Body.String(), "plugin gone") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// A body that plugins would not see is no way around them.
func TestAuthorizersSeeTheWholeBody(t *testing.T) {
	j := &judge{name: "p"}
	w := send(judged(t, j), "POST", "/make", `{"x":"`+strings.Repeat("a", maxAuthzBody)+`"}`)
	if w.Code != 403 || len(j.asked) != 0 {
		t.Errorf("%d, asked %d times", w.Code, len(j.asked))
	}
}

func TestAuthorizersDoNotSeePasswords(t *testing.T) {
	j := &judge{name: "p"}
	if w := send(judged(t, j), "POST", "/v1.44/auth", `{"password":"secret"}`); w.Code != 200 || !strings.Contains(w.Body.String(), "secret") {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for _, a := range j.asked {
		if strings.Contains(a, "secret") || strings.Contains(a, "Body") {
			t.Errorf("told %s", a)
		}
	}
}

func TestLongAnswersPass(t *testing.T) {
	if w := send(judged(t, &judge{name: "p"}), "GET", "/long", ""); w.Code != 200 || w.Body.Len() != 100<<10 {
		t.Errorf("%d, %d bytes", w.Code, w.Body.Len())
	}
}

// Whatever a request's head says of its body: what a handler reads, the plugins have seen, byte for byte.
func TestAuthorizersSeeWhatHandlersRead(t *testing.T) {
	const body = `{"Image":"box","image":"twice"}`
	for _, kind := range []string{"application/json", "application/json; charset=utf-8", "Application/JSON", "application/json;x", "text/plain", "application/x-www-form-urlencoded", "", "application/json, text/plain", "/"} {
		for _, length := range []int64{int64(len(body)), -1, 0} {
			j := &judge{name: "p"}
			s := judged(t, j)
			r := httptest.NewRequest("POST", "/make", strings.NewReader(body))
			r.ContentLength = length
			if length < 0 {
				r.TransferEncoding = []string{"chunked"}
			}
			if r.Header.Del("Content-Type"); kind != "" {
				r.Header.Set("Content-Type", kind)
			}
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			if w.Code != http.StatusCreated {
				continue // not read
			}
			seen, _ := json.Marshal(w.Body.Bytes())
			if w.Body.Len() > 0 && !strings.Contains(j.asked[0], `"RequestBody":`+string(seen)) {
				t.Errorf("%q, length %d: the handler read %s, the plugin was told %s", kind, length, w.Body, j.asked[0])
			}
		}
	}
}
