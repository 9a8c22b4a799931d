package token

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"berth/auth"
	"berth/base/fault"
)

func issuer(t testing.TB) *Issuer {
	t.Helper()
	keys, err := LoadKeys(filepath.Join(t.TempDir(), "auth", "token.key"))
	if err != nil {
		t.Fatal(err)
	}
	return &Issuer{Keys: keys, Name: "berth", Service: "berth-registry"}
}

func TestIssueAndCheck(t *testing.T) {
	i := issuer(t)
	now := time.Now()
	i.Now = func() time.Time { return now }
	text, _, err := i.Issue(Grant{
		User: auth.User{Name: "alice", Groups: []string{"dev"}, Source: "ldap"}, Personal: "abc",
		Scopes: []Scope{{Type: "repository", Name: "team/web", Actions: []string{"pull"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	g, err := i.Check(text)
	if err != nil || g.User.Name != "alice" || g.User.Groups[0] != "dev" || g.Personal != "abc" || g.Scopes[0].String() != "repository:team/web:pull" || g.ID == "" {
		t.Fatalf("%+v, %v", g, err)
	}
	if life := g.Expires.Sub(g.Issued); life != 5*time.Minute {
		t.Errorf("good for %v", life)
	}
	for what, at := range map[string]struct {
		d  time.Duration
		ok bool
	}{
		"just before its end":          {5*time.Minute - time.Second, true},
		"a clock that is a bit ahead":  {5*time.Minute + 30*time.Second, true},
		"after its end":                {5*time.Minute + 2*time.Minute, false},
		"a clock that is a bit behind": {-30 * time.Second, true},
		"before its time":              {-3 * time.Minute, false},
	} {
		i.Now = func() time.Time { return now.Add(at.d) }
		if _, err := i.Check(text); (err == nil) != at.ok {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestForgedTokensAreRefused(t *testing.T) {
	i := issuer(t)
	good, _, err := i.Issue(Grant{User: auth.User{Name: "alice"}})
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(good, ".")
	b64 := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	other := issuer(t)
	foreign, _, _ := other.Issue(Grant{User: auth.User{Name: "alice"}})
	stolen := strings.Split(foreign, ".")
	body := func(change func(m map[string]any)) string {
		raw, _ := base64.RawURLEncoding.DecodeString(parts[1])
		var m map[string]any
		json.Unmarshal(raw, &m)
		change(m)
		raw, _ = json.Marshal(m)
		return string(raw)
	}
	sign := func(issuer *Issuer, method jwt.SigningMethod, key any, c jwt.MapClaims) string {
		tok := jwt.NewWithClaims(method, c)
		tok.Header["kid"] = issuer.Keys.id
		s, err := tok.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	valid := func() jwt.MapClaims {
		return jwt.MapClaims{"iss": "berth", "aud": "berth-registry", "sub": "root", "exp": time.Now().Add(time.Minute).Unix()}
	}
	without := func(k string, v any) jwt.MapClaims {
		c := valid()
		delete(c, k)
		if v != nil {
			c[k] = v
		}
		return c
	}
	if _, err := i.Check(sign(i, jwt.SigningMethodES256, i.Keys.signer, valid())); err != nil {
		t.Errorf("the frame of the test itself: %v", err)
	}
	for what, text := range map[string]string{
		"empty":                   "",
		"words":                   "a.b.c",
		"no signature":            parts[0] + "." + parts[1] + ".",
		"none":                    b64(`{"alg":"none","typ":"JWT"}`) + "." + parts[1] + ".",
		"another name":            parts[0] + "." + b64(body(func(m map[string]any) { m["sub"] = "root" })) + "." + parts[2],
		"another key":             foreign,
		"another key's sig":       parts[0] + "." + parts[1] + "." + stolen[2],
		"HS256 by the public key": sign(i, jwt.SigningMethodHS256, i.Keys.Public(), valid()),
		"another service":         sign(i, jwt.SigningMethodES256, i.Keys.signer, without("aud", "other")),
		"another issuer":          sign(i, jwt.SigningMethodES256, i.Keys.signer, without("iss", "other")),
		"no end":                  sign(i, jwt.SigningMethodES256, i.Keys.signer, without("exp", nil)),
		"no service":              sign(i, jwt.SigningMethodES256, i.Keys.signer, without("aud", nil)),
		"long":                    good + strings.Repeat("A", maxToken),
	} {
		if g, err := i.Check(text); !fault.Is(err, fault.Unauthorized) {
			t.Errorf("%s: %+v, %v", what, g, err)
		}
	}
}

func TestKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token.key")
	i := &Issuer{Name: "berth", Service: "s"}
	load := func() {
		t.Helper()
		k, err := LoadKeys(path)
		if err != nil {
			t.Fatal(err)
		}
		i.Keys = k
	}
	load()
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	old, _, _ := i.Issue(Grant{})
	load()
	if _, err := i.Check(old); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	// A new key is put before the old one, whose tokens stay good.
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	second, _, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(second, text...), 0o600); err != nil {
		t.Fatal(err)
	}
	before := i.Keys.id
	load()
	if i.Keys.id == before || len(i.Keys.public) != 2 {
		t.Error("no new key")
	}
	if _, err := i.Check(old); err != nil {
		t.Errorf("after a rotation: %v", err)
	}
	var set struct {
		Keys []map[string]string `json:"keys"`
	}
	if err := json.Unmarshal(i.Keys.Public(), &set); err != nil || len(set.Keys) != 2 || set.Keys[0]["d"] != "" || set.Keys[0]["x"] == "" {
		t.Errorf("%s, %v", i.Keys.Public(), err)
	}
	os.Chmod(path, 0o644)
	if _, err := LoadKeys(path); !fault.Is(err, fault.Invalid) {
		t.Errorf("a key that others can read: %v", err)
	}
	os.Chmod(path, 0o600)
	for _, text := range []string{"", "nothing", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		os.WriteFile(path, []byte(text), 0o600)
		if _, err := LoadKeys(path); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestParseScopes(t *testing.T) {
	for _, c := range []struct {
		in   []string
		want string
	}{
		{nil, ""},
		{[]string{"repository:team/web:pull,push"}, "repository:team/web:pull,push"},
		{[]string{"repository:a:pull repository:b:pull", "repository:a:push,pull"}, "repository:a:pull,push repository:b:pull"},
		{[]string{"repository(plugin):team/vol:pull"}, "repository(plugin):team/vol:pull"},
		{[]string{"repository:host:5000/web:pull"}, "repository:host:5000/web:pull"},
		{[]string{"registry:catalog:*"}, "registry:catalog:*"},
		{[]string{"repository:*:pull", "repository:team/*:pull"}, ""},
		{[]string{"", ":", "::", "a", "a:b", "a:b:", ":b:c", "a::c", "repository:x:pull,", "repository(:x:pull", "repository():x:pull"}, ""},
		{[]string{`repository:a"b:pull`, "repository:a\\b:pull", "repository:x:pu\"ll", "REPOSITORY:x:pull"}, ""},
		{[]string{"repository:" + strings.Repeat("x", maxScope) + ":pull"}, ""},
	} {
		if got := scopeText(ParseScopes(c.in)); got != c.want {
			t.Errorf("%q: %q, want %q", c.in, got, c.want)
		}
	}
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("repository:r%d:pull", i))
	}
	if n := len(ParseScopes(many)); n != maxScopes {
		t.Errorf("%d scopes", n)
	}
}

func FuzzParseScopes(f *testing.F) {
	f.Add("repository(plugin):a/b:c:pull,push registry:catalog:*")
	f.Fuzz(func(t *testing.T, text string) {
		all := ParseScopes([]string{text})
		again := ParseScopes([]string{scopeText(all)})
		if scopeText(all) != scopeText(again) {
			t.Errorf("%q is read as %q, and that as %q", text, scopeText(all), scopeText(again))
		}
		if strings.ContainsAny(scopeText(all), "\"\\\r\n") {
			t.Errorf("%q would break a header", scopeText(all))
		}
	})
}

// service knows alice, who may pull and push team/web, and everybody, who may pull public/x.
func service(t *testing.T) (*Service, map[string]SignIn) {
	kept := map[string]SignIn{}
	s := &Service{
		Issuer: issuer(t),
		Password: func(_ context.Context, user, password string, from netip.Addr) (SignIn, error) {
			switch {
			case user == "slow":
				return SignIn{}, &auth.Slow{After: 90 * time.Second}
			case user == "down":
				return SignIn{}, fault.New(fault.Unavailable, "down")
			case user != "alice" || password != "one" || !from.IsValid():
				return SignIn{}, auth.ErrPassword
			}
			return SignIn{User: auth.User{Name: "alice", Groups: []string{"dev", "unnamed"}}}, nil
		},
		Grant: func(_ context.Context, who SignIn, asked Scope) ([]string, error) {
			switch {
			case asked.Name == "public/x", who.User.Name == "alice" && asked.Name == "team/web":
				return slices.DeleteFunc(slices.Clone(asked.Actions), func(a string) bool {
					return a != "pull" && (a != "push" || who.User.Name == "")
				}), nil
			}
			return nil, nil
		},
		Groups: func(u auth.User) []string { return u.Groups[:min(1, len(u.Groups))] },
		Keep: func(_ context.Context, who SignIn, service, client string) (string, error) {
			kept["refresh-1"] = who
			return "refresh-1", nil
		},
		Refresh: func(_ context.Context, service, text string) (SignIn, error) {
			who, ok := kept[text]
			if !ok {
				return SignIn{}, fault.New(fault.Unauthorized, "ended")
			}
			return who, nil
		},
		From: func(*http.Request) netip.Addr { return netip.MustParseAddr("192.0.2.1") },
		Refuse: func(w http.ResponseWriter, r *http.Request, err error) {
			status := map[fault.Kind]int{fault.Unauthorized: 401, fault.Invalid: 400, fault.Unavailable: 503}[fault.KindOf(err)]
			if errors.As(err, new(*auth.Slow)) {
				status = 429
			}
			http.Error(w, err.Error(), status)
		},
	}
	return s, kept
}

func TestService(t *testing.T) {
	s, kept := service(t)
	do := func(r *http.Request) (*httptest.ResponseRecorder, answer, Grant) {
		t.Helper()
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		var a answer
		var g Grant
		if w.Code == 200 {
			if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
				t.Fatal(err)
			}
			var err error
			if g, err = s.Issuer.Check(a.AccessToken); err != nil {
				t.Fatal(err)
			}
		}
		if w.Header().Get("Cache-Control") != "no-store" {
			t.Error("an answer with a token could be cached")
		}
		return w, a, g
	}
	get := func(query, user, password string) *http.Request {
		r := httptest.NewRequest("GET", "/token?"+query, nil)
		if user != "" {
			r.SetBasicAuth(user, password)
		}
		return r
	}
	post := func(form url.Values) *http.Request {
		r := httptest.NewRequest("POST", "/token", strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		return r
	}
	for _, c := range []struct {
		what   string
		r      *http.Request
		status int
		user   string
		scope  string
	}{
		{"anonymous, public", get("service=berth-registry&scope=repository:public/x:pull", "", ""), 200, "", "repository:public/x:pull"},
		{"anonymous, may not push", get("scope=repository:public/x:pull,push", "", ""), 200, "", "repository:public/x:pull"},
		{"anonymous, private", get("scope=repository:team/web:pull", "", ""), 200, "", ""},
		{"alice", get("account=alice&scope=repository:team/web:pull,push,delete", "alice", "one"), 200, "alice", "repository:team/web:pull,push"},
		{"alice, several", get("scope=repository:team/web:push&scope=repository:public/x:pull&scope=repository:secret:pull", "alice", "one"), 200, "alice", "repository:team/web:push repository:public/x:pull"},
		{"alice, nothing", get("", "alice", "one"), 200, "alice", ""},
		{"wrong password", get("", "alice", "two"), 401, "", ""},
		{"guessing", get("", "slow", "x"), 429, "", ""},
		{"directory is down", get("", "down", "x"), 503, "", ""},
		{"another account", get("account=bob", "alice", "one"), 401, "", ""},
		{"another service", get("service=other", "alice", "one"), 400, "", ""},
		{"post", post(url.Values{"grant_type": {"password"}, "service": {"berth-registry"}, "client_id": {"x"}, "username": {"alice"}, "password": {"one"}, "scope": {"repository:team/web:pull repository:public/x:pull"}}), 200, "alice", "repository:team/web:pull repository:public/x:pull"},
		{"post, wrong", post(url.Values{"grant_type": {"password"}, "username": {"alice"}, "password": {"two"}}), 401, "", ""},
		{"post, no grant", post(url.Values{}), 400, "", ""},
		{"post, unknown grant", post(url.Values{"grant_type": {"client_credentials"}}), 400, "", ""},
		{"post, bad refresh", post(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"x"}}), 401, "", ""},
		{"post, large", post(url.Values{"grant_type": {strings.Repeat("x", maxForm)}}), 400, "", ""},
		{"password in the address", httptest.NewRequest("POST", "/token?grant_type=password&username=alice&password=one", nil), 400, "", ""},
		{"put", httptest.NewRequest("PUT", "/token", nil), 405, "", ""},
	} {
		w, a, g := do(c.r)
		if w.Code != c.status || a.Scope != c.scope || g.User.Name != c.user || scopeText(g.Scopes) != c.scope {
			t.Errorf("%s: %d %q for %q: %s; want %d %q for %q", c.what, w.Code, a.Scope, g.User.Name, w.Body, c.status, c.scope, c.user)
		}
		if c.status == 200 && (a.ExpiresIn != 300 || a.IssuedAt == "" || c.r.Method == "GET" && a.Token != a.AccessToken || a.RefreshToken != "") {
			t.Errorf("%s: %+v", c.what, a)
		}
		if c.status == 429 && w.Header().Get("Retry-After") != "90" {
			t.Errorf("%s: Retry-After %q", c.what, w.Header().Get("Retry-After"))
		}
		if len(g.User.Groups) > 1 {
			t.Errorf("%s: groups that no right names travel along: %q", c.what, g.User.Groups)
		}
	}
	if len(kept) > 0 {
		t.Error("refresh tokens that nobody asked for")
	}
	if _, a, _ := do(get("offline_token=true", "", "")); a.RefreshToken != "" {
		t.Error("a refresh token for nobody")
	}
	_, a, _ := do(get("offline_token=true&client_id=docker", "alice", "one"))
	if a.RefreshToken != "refresh-1" {
		t.Fatalf("%+v", a)
	}
	_, a, g := do(post(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {a.RefreshToken}, "scope": {"repository:team/web:push"}}))
	if g.User.Name != "alice" || a.Scope != "repository:team/web:push" || a.RefreshToken != "refresh-1" {
		t.Errorf("%+v", a)
	}
	if _, a, _ := do(post(url.Values{"grant_type": {"password"}, "username": {"alice"}, "password": {"one"}, "access_type": {"offline"}})); a.RefreshToken != "refresh-1" {
		t.Errorf("offline: %+v", a)
	}
}
