package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
)

// tokenWorld is a registry with a token server, which write down what they were asked.
type tokenWorld struct {
	mu     sync.Mutex
	asked  []string        // requests to the token server
	valid  map[string]bool // "TOKEN" or "TOKEN METHOD /path" that the registry takes
	answer func(w http.ResponseWriter, r *http.Request)
	scope  string // of the challenge
}

func (tw *tokenWorld) serve(t *testing.T) string {
	return handle(t, func(w http.ResponseWriter, r *http.Request) {
		tw.mu.Lock()
		defer tw.mu.Unlock()
		if r.URL.Path == "/token" {
			_ = r.ParseForm()
			user, pass, _ := r.BasicAuth()
			scopes := r.Form["scope"]
			slices.Sort(scopes)
			tw.asked = append(tw.asked, fmt.Sprintf("%s %s:%s service=%s scope=%s grant=%s refresh=%s offline=%s%s", r.Method, user, pass, r.Form.Get("service"),
				strings.Join(scopes, " "), r.Form.Get("grant_type"), r.Form.Get("refresh_token"), r.Form.Get("offline_token"), r.Form.Get("access_type")))
			tw.answer(w, r)
			return
		}
		bearer := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !tw.valid[bearer] {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="the registry",scope="%s"`, r.Host, tw.scope))
			w.WriteHeader(401)
			return
		}
		if strings.Contains(r.URL.Path, "/manifests/") {
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			_, _ = w.Write(goodManifest)
		}
		if r.Method == http.MethodPost {
			w.WriteHeader(201)
		}
	})
}

func give(text string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, text) }
}

func TestTokens(t *testing.T) {
	for name, c := range map[string]struct {
		world *tokenWorld
		cred  Credentials
		do    func(*Repository) error
		asked []string
		want  string // error
		kind  fault.Kind
	}{
		"anonymous": {&tokenWorld{valid: map[string]bool{"t1": true}, answer: give(`{"token":"t1"}`)}, Credentials{}, pullTwice,
			[]string{"GET : service=the registry scope=repository:team/web:pull grant= refresh= offline="}, "", 0},
		"password": {&tokenWorld{valid: map[string]bool{"t1": true}, answer: give(`{"access_token":"t1","expires_in":300}`)}, Credentials{Username: "ann", Password: "s"}, pullTwice,
			[]string{"GET ann:s service=the registry scope=repository:team/web:pull grant= refresh= offline="}, "", 0},
		"identity token": {&tokenWorld{valid: map[string]bool{"t1": true}, answer: give(`{"access_token":"t1"}`)}, Credentials{Username: "<token>", IdentityToken: "id"}, pullTwice,
			[]string{"POST : service=the registry scope=repository:team/web:pull grant=refresh_token refresh=id offline="}, "", 0},
		"registry token": {&tokenWorld{valid: map[string]bool{"rt": true}}, Credentials{RegistryToken: "rt"}, pullTwice, nil, "", 0},
		"only by POST": {&tokenWorld{valid: map[string]bool{"t1": true}, answer: func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodPost {
				w.WriteHeader(405)
				return
			}
			_, _ = io.WriteString(w, `{"access_token":"t1"}`)
		}}, Credentials{Username: "ann", Password: "s"}, pullTwice,
			[]string{"GET ann:s service=the registry scope=repository:team/web:pull grant= refresh= offline=", "POST : service=the registry scope=repository:team/web:pull grant=password refresh= offline="}, "", 0},
		"mount": {&tokenWorld{valid: map[string]bool{"t1": true}, answer: give(`{"token":"t1"}`)}, Credentials{}, func(r *Repository) error {
			_, err := r.Mount(r.ctx(), digest.FromString("x"), "base/debian")
			return err
		}, []string{"GET : service=the registry scope=repository:base/debian:pull repository:team/web:pull,push grant= refresh= offline="}, "", 0},
		"more scopes": {&tokenWorld{scope: "repository:team/web:pull,metadata registry:catalog:*", valid: map[string]bool{"t1": true}, answer: func(w http.ResponseWriter, r *http.Request) {
			if len(r.URL.Query()["scope"]) == 1 {
				_, _ = io.WriteString(w, `{"token":"narrow"}`)
				return
			}
			_, _ = io.WriteString(w, `{"token":"t1"}`)
		}}, Credentials{}, func(r *Repository) error { _, err := r.Manifest(r.ctx(), "1"); return err },
			[]string{"GET : service=the registry scope=repository:team/web:pull grant= refresh= offline=",
				"GET : service=the registry scope=registry:catalog:* repository:team/web:metadata,pull grant= refresh= offline="}, "", 0},
		"loop": {&tokenWorld{answer: give(`{"token":"never good"}`)}, Credentials{}, func(r *Repository) error { _, err := r.Manifest(r.ctx(), "1"); return err },
			[]string{"GET : service=the registry scope=repository:team/web:pull grant= refresh= offline=", "GET : service=the registry scope=repository:team/web:pull grant= refresh= offline="},
			"unauthorized: authentication required", fault.Unauthorized},
		"wrong password": {&tokenWorld{answer: func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(401)
			_, _ = io.WriteString(w, `{"details":"incorrect username or password"}`)
		}}, Credentials{Username: "ann", Password: "no"}, func(r *Repository) error { _, err := r.Manifest(r.ctx(), "1"); return err },
			[]string{"GET ann:no service=the registry scope=repository:team/web:pull grant= refresh= offline="},
			`Head "http://HOST/v2/team/web/manifests/1": unauthorized: incorrect username or password`, fault.Unauthorized},
		"no token": {&tokenWorld{answer: give(`{}`)}, Credentials{}, func(r *Repository) error { _, err := r.Manifest(r.ctx(), "1"); return err },
			[]string{"GET : service=the registry scope=repository:team/web:pull grant= refresh= offline="}, "did not include a token in the response", fault.Unauthorized},
		"smuggled head": {&tokenWorld{answer: give(`{"token":"a\r\nX: y"}`)}, Credentials{}, func(r *Repository) error { _, err := r.Manifest(r.ctx(), "1"); return err },
			[]string{"GET : service=the registry scope=repository:team/web:pull grant= refresh= offline="}, "did not include a token", fault.Unauthorized},
		"html": {&tokenWorld{answer: give(`<html>`)}, Credentials{}, func(r *Repository) error { _, err := r.Manifest(r.ctx(), "1"); return err },
			[]string{"GET : service=the registry scope=repository:team/web:pull grant= refresh= offline="}, "unable to decode the token", fault.Unauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			host := c.world.serve(t)
			err := c.do(repository(t, newClient(t, Config{}), host+"/team/web", c.cred))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), strings.ReplaceAll(c.want, "HOST", host)) || fault.KindOf(err) != c.kind) {
				t.Errorf("%v (%v), want %q", err, fault.KindOf(err), c.want)
			}
			if !reflect.DeepEqual(c.world.asked, c.asked) {
				t.Errorf("the token server was asked\n%s\nwant\n%s", strings.Join(c.world.asked, "\n"), strings.Join(c.asked, "\n"))
			}
		})
	}
}

func pullTwice(r *Repository) error {
	for range 2 {
		if _, err := r.Manifest(r.ctx(), "1"); err != nil {
			return err
		}
	}
	return nil
}

// TestExpiredToken gets a new token when the registry no longer takes the one that was good a moment ago.
func TestExpiredToken(t *testing.T) {
	n := 0
	w := tokenWorld{valid: map[string]bool{"t1": true}}
	w.answer = func(rw http.ResponseWriter, _ *http.Request) { n++; fmt.Fprintf(rw, `{"token":"t%d"}`, n) }
	r := repository(t, newClient(t, Config{}), w.serve(t)+"/a", Credentials{})
	if _, err := r.Manifest(t.Context(), "1"); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.valid = map[string]bool{"t2": true}
	w.mu.Unlock()
	if _, err := r.Manifest(t.Context(), "1"); err != nil || n != 2 {
		t.Errorf("%v after %d tokens", err, n)
	}
}

// TestManyAskOneToken lets parallel requests share a token.
func TestManyAskOneToken(t *testing.T) {
	w := tokenWorld{valid: map[string]bool{"t1": true}, answer: give(`{"token":"t1"}`)}
	r := repository(t, newClient(t, Config{}), w.serve(t)+"/a", Credentials{})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := r.Manifest(t.Context(), "1"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(w.asked) != 1 {
		t.Errorf("%d tokens were asked for", len(w.asked))
	}
}

func TestLoginWithTokens(t *testing.T) {
	w := tokenWorld{valid: map[string]bool{"t1": true}, answer: give(`{"token":"t1","refresh_token":"keep me"}`)}
	host := w.serve(t)
	c := newClient(t, Config{})
	status, id, err := c.Login(t.Context(), Credentials{Username: "ann", Password: "s", ServerAddress: "http://" + host + "/v1/"})
	if status != "Login Succeeded" || id != "keep me" || err != nil {
		t.Errorf("%q %q %v", status, id, err)
	}
	if want := []string{"GET ann:s service=the registry scope= grant= refresh= offline=true"}; !reflect.DeepEqual(w.asked, want) {
		t.Errorf("%q", w.asked)
	}
	w.answer = func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(401)
		_, _ = io.WriteString(w, `{"details":"incorrect username or password"}`)
	}
	_, _, err = c.Login(t.Context(), Credentials{Username: "ann", Password: "x", ServerAddress: host})
	if want := `Get "http://` + host + `/v2/": unauthorized: incorrect username or password`; err == nil || err.Error() != want || !fault.Is(err, fault.Unauthorized) {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestServerDomain(t *testing.T) {
	for in, want := range map[string]string{"": "docker.io", "https://index.docker.io/v1/": "docker.io", "registry-1.docker.io": "docker.io", "docker.io": "docker.io",
		"localhost:5000": "localhost:5000", "http://x.y/v2/": "x.y", "https://": "", "a b": ""} {
		if got, _ := serverDomain(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestRealms(t *testing.T) {
	secure, plain := &endpoint{base: *mustURL(t, "https://r.example/v2")}, &endpoint{base: *mustURL(t, "https://r.example/v2"), insecure: true}
	for _, c := range []struct {
		e     *endpoint
		realm string
		ok    bool
	}{
		{secure, "https://auth.example/token", true},
		{secure, "http://auth.example/token", false},
		{plain, "http://auth.example/token", true},
		{secure, "", false},
		{secure, "ftp://x/", false},
		{secure, "https://169.254.169.254/latest/meta-data", false},
		{plain, "http://[fe80::1]/", false},
		{secure, "https://u:p@auth.example/token", true},
		{secure, "://", false},
	} {
		u, err := checkRealm(c.realm, c.e)
		if (err == nil) != c.ok || err == nil && u.User != nil {
			t.Errorf("%s: %v %v", c.realm, u, err)
		}
	}
}

func TestChallenges(t *testing.T) {
	for in, want := range map[string][]challenge{
		`Bearer realm="https://a/t",service="s",scope="repository:a:pull,push"`: {{"bearer", map[string]string{"realm": "https://a/t", "service": "s", "scope": "repository:a:pull,push"}}},
		`Basic realm="a \"quoted\" realm", Bearer realm=plain , x = "y"`:        {{"basic", map[string]string{"realm": `a "quoted" realm`}}, {"bearer", map[string]string{"realm": "plain", "x": "y"}}},
		`BASIC`:                {{"basic", map[string]string{}}},
		``:                     nil,
		`Bearer realm="open`:   {{"bearer", map[string]string{}}},
		`Negotiate, Basic a=b`: {{"negotiate", map[string]string{}}, {"basic", map[string]string{"a": "b"}}},
	} {
		if got := parseChallenges([]string{in}); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", in, got, want)
		}
	}
}

func TestLinks(t *testing.T) {
	for in, want := range map[string]string{
		`</v2/a/tags/list?n=1&last=x>; rel="next"`:   "/v2/a/tags/list?n=1&last=x",
		`<a>; rel=prev, <b>; title="x, y"; rel=next`: "b",
		`<a>; rel="first next"`:                      "a",
		`<a`:                                         "",
		`<a>; rel`:                                   "",
		`nonsense`:                                   "",
	} {
		if got := parseLink([]string{in}); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}

func TestScopes(t *testing.T) {
	atoms := splitScopes("repository:host:5000/a:pull,push registry:catalog:* nonsense repository:host:5000/a:pull")
	want := []string{"repository:host:5000/a:pull,push", "registry:catalog:*"}
	if got := groupScopes(atoms); !reflect.DeepEqual(got, want) {
		t.Errorf("%q", got)
	}
}

// Headers of hosts.toml may be secrets: they go to the server that they are for, and not to the token server that it names.
func TestHeadersStay(t *testing.T) {
	var given, leaked string
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leaked = r.Header.Get("X-Key")
		_, _ = io.WriteString(w, `{"token":"t1"}`)
	}))
	t.Cleanup(tokens.Close)
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given = r.Header.Get("X-Key")
		if r.Header.Get("Authorization") != "Bearer t1" {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token"`, tokens.URL))
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(up.Close)
	host, dir := up.Listener.Addr().String(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, host), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, host, "hosts.toml"), []byte("[header]\nX-Key = \"secret\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := newClient(t, Config{HostsDirs: []string{dir}})
	if _, err := repository(t, c, host+"/team/web", Credentials{}).HasManifest(t.Context(), digest.FromString("x")); err != nil {
		t.Fatal(err)
	}
	if given != "secret" || leaked != "" {
		t.Errorf("the registry was given %q, its token server %q", given, leaked)
	}
}

// asks is a caller who fetches tokens himself.
type asks struct {
	token, user, password string
	err                   error
	asked                 []string
}

func (a *asks) Token(_ context.Context, q TokenQuestion) (Token, error) {
	a.asked = append(a.asked, fmt.Sprintf("token service=%s scope=%s", q.Service, strings.Join(q.Scopes, " ")))
	return Token{Text: a.token}, a.err
}

func (a *asks) Password(context.Context, string) (Credentials, error) {
	a.asked = append(a.asked, "password")
	return Credentials{Username: a.user, Password: a.password}, nil
}

// TestAsker has a caller fetch tokens, and asks for his password only where that is what opens the door.
func TestAsker(t *testing.T) {
	token := "token service=the registry scope=repository:team/web:pull"
	for name, c := range map[string]struct {
		asks  *asks
		basic bool // the registry takes a password
		asked []string
		fetch []string // by us
		want  string
	}{
		"token":          {asks: &asks{token: "t1"}, asked: []string{token}},
		"basic":          {asks: &asks{user: "ann", password: "s"}, basic: true, asked: []string{"password"}},
		"basic, unknown": {asks: &asks{}, basic: true, asked: []string{"password"}, want: "no basic auth credentials"},
		"smuggled head":  {asks: &asks{token: "a\r\nX: y"}, asked: []string{token}, want: "did not include a token"},
		"refused": {asks: &asks{user: "ann", password: "s", err: errors.New("failed to fetch oauth token: unexpected status from POST request to https://x: 401")},
			asked: []string{token}, want: "unexpected status"},
		"in reach of us alone": {asks: &asks{user: "ann", password: "s", err: errors.New("dial tcp: no route to host")}, asked: []string{token, "password"},
			fetch: []string{"GET ann:s service=the registry scope=repository:team/web:pull grant= refresh= offline="}},
	} {
		t.Run(name, func(t *testing.T) {
			w := &tokenWorld{valid: map[string]bool{"t1": true}, answer: give(`{"token":"t1"}`)}
			host := w.serve(t)
			if c.basic {
				host = handle(t, func(w http.ResponseWriter, r *http.Request) {
					if u, p, _ := r.BasicAuth(); u != "ann" || p != "s" {
						w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
						w.WriteHeader(401)
						return
					}
					w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
					_, _ = w.Write(goodManifest)
				})
			}
			err := pullTwice(repository(t, newClient(t, Config{}), host+"/team/web", Credentials{Asker: c.asks}))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !fault.Is(err, fault.Unauthorized)) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if !slices.Equal(c.asks.asked, c.asked) || !slices.Equal(w.asked, c.fetch) {
				t.Errorf("the caller was asked %q, want %q; the token server %q, want %q", c.asks.asked, c.asked, w.asked, c.fetch)
			}
		})
	}
}
