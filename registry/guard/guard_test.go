package guard_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"berth/auth/ldap"
	"berth/registry"
	"berth/registry/guard"
)

type m map[string]any

func TestOpenRegistryAsksNobody(t *testing.T) {
	s := serve(t, registry.Config{})
	if e := s.push(as(""), "team/web"); e != "" {
		t.Error(e)
	}
	if e := s.pull(as("alice"), "team/web"); e != "" {
		t.Errorf("credentials that a client has stored do no harm: %s", e)
	}
	if status := s.do("GET", "/v2/", "", nil, nil); status != 200 {
		t.Errorf("/v2/: %d", status)
	}
}

// With a password file only it is as with Debian's docker-registry: whoever is in it may push and pull, others nothing.
func TestPasswordFile(t *testing.T) {
	s := serve(t, registry.Config{Htpasswd: htpasswd(t, "alice", "bob")})
	if e := s.push(as(""), "team/web"); !strings.Contains(e, "401 Unauthorized") {
		t.Errorf("anonymous push: %q", e)
	}
	if e := s.push(&authn.Basic{Username: "alice", Password: "wrong"}, "team/web"); !strings.Contains(e, "incorrect username or password") {
		t.Errorf("wrong password: %q", e)
	}
	for _, who := range []string{"alice", "bob"} {
		if e := s.push(as(who), "team/web"); e != "" {
			t.Errorf("%s: %s", who, e)
		}
	}
	if e := s.pull(as(""), "team/web"); e == "" {
		t.Error("anonymous pull of what is private")
	}
	if e := s.pull(as("bob"), "team/web"); e != "" {
		t.Error(e)
	}
	if !strings.Contains(s.log.String(), `msg="sign-in refused" audit=true user=alice`) {
		t.Errorf("no audit line:\n%s", s.log)
	}
}

// The first account guards an open registry without a restart; then organisations, rights, groups and visibility.
func TestTeam(t *testing.T) {
	s := serve(t, registry.Config{})
	if e := s.push(as(""), "team/old"); e != "" {
		t.Fatal(e)
	}
	const root = "root:root-secret"
	var err error
	if got := s.do("POST", guard.Prefix+"/users", "", m{"name": "bob", "password": "x"}, nil); got != 409 {
		t.Errorf("a first user who could not administrate: %d", got)
	}
	s.must(201, "POST", "/users", "", m{"name": "root", "password": "root-secret", "admin": true}, nil)
	s.must(401, "POST", "/users", "", m{"name": "eve", "password": "x", "admin": true}, nil)
	if e := s.push(as(""), "team/old"); e == "" {
		t.Error("anonymous push after the first account")
	}
	for _, n := range []string{"olga", "dora", "nick"} {
		s.must(201, "POST", "/users", root, m{"name": n, "password": n + "-secret"}, nil)
	}
	s.must(403, "POST", "/users", "nick:nick-secret", m{"name": "eve", "password": "x"}, nil)
	s.must(201, "POST", "/orgs", root, m{"name": "team", "owners": []string{"olga"}}, nil)
	s.must(403, "POST", "/orgs", "nick:nick-secret", m{"name": "mine"}, nil)
	s.must(204, "PUT", "/groups/Dev", root, m{"members": []string{"dora"}}, nil)
	s.must(403, "PUT", "/access", "nick:nick-secret", m{"organisation": "team", "to": "nick", "role": "owner"}, nil)
	s.must(204, "PUT", "/access", "olga:olga-secret", m{"organisation": "team", "to": "@dev", "role": "push"}, nil)
	s.must(400, "PUT", "/access", "olga:olga-secret", m{"organisation": "team", "to": "nick", "role": "king"}, nil)

	if e := s.push(as("dora"), "team/web"); e != "" {
		t.Errorf("dora is in group dev: %s", e)
	}
	if e := s.push(as("nick"), "team/web"); !strings.Contains(e, "401 Unauthorized") {
		t.Errorf("nick is not: %q", e)
	}
	if e := s.pull(as("nick"), "team/web"); !strings.Contains(e, "requested access to the resource is denied") {
		t.Errorf("nor may he pull: %q", e)
	}
	if e := s.pull(as(""), "team/web"); e == "" {
		t.Error("nor anybody")
	}
	var verdict struct {
		Allowed bool
		Why     string
		Lines   []string
	}
	s.must(200, "GET", "/access/explain?user=nick&repository=team/web&action=push", root, nil, &verdict)
	if verdict.Allowed || verdict.Why != "neither repository team/web nor organisation team gives nick the right to push" || len(verdict.Lines) == 0 {
		t.Errorf("%+v", verdict)
	}
	s.must(200, "GET", "/access/explain?user=dora&repository=team/web&action=push", root, nil, &verdict)
	if !verdict.Allowed {
		t.Errorf("%+v", verdict)
	}
	s.must(403, "GET", "/access/explain?user=dora&repository=team/web", "nick:nick-secret", nil, nil)
	// About himself he learns the verdict, and not who else may what.
	for _, who := range []string{"nick", ""} {
		login := ""
		if who != "" {
			login = who + ":" + who + "-secret"
		}
		verdict.Lines = nil
		s.must(200, "GET", "/access/explain?user="+who+"&repository=team/web&action=push&group=devs", login, nil, &verdict)
		if verdict.Allowed || len(verdict.Lines) != 0 || strings.Contains(verdict.Why, "team") {
			t.Errorf("%q learns of a private repository: %+v", who, verdict)
		}
	}

	// Public: pulled by everybody, still pushed by few.
	s.must(204, "PUT", "/access/visibility", "dora:dora-secret", m{"repository": "team/web", "visibility": "public"}, nil)
	if e := s.pull(as(""), "team/web"); e != "" {
		t.Errorf("public: %s", e)
	}
	before := s.image
	if s.image, err = random.Image(2000, 2); err != nil {
		t.Fatal(err)
	}
	if e := s.push(as(""), "team/web"); !strings.Contains(e, "denied") {
		t.Errorf("an anonymous push to what is public: %q", e)
	}
	if e := s.push(as("nick"), "team/web"); !strings.Contains(e, "requested access to the resource is denied") {
		t.Errorf("nick pushes to what is public: %q", e)
	}
	s.image = before

	// What one may not pull is in no list.
	var list struct{ Repositories []string }
	for who, want := range map[string]string{root: "[team/old team/web]", "nick:nick-secret": "[team/web]"} {
		if s.do("GET", "/v2/_catalog", who, nil, &list); fmt.Sprint(list.Repositories) != want {
			t.Errorf("%s sees %v, want %s", who, list.Repositories, want)
		}
	}
	catalog, err := name.NewRegistry(s.host)
	if err != nil {
		t.Fatal(err)
	}
	names, err := remote.Catalog(t.Context(), catalog, remote.WithAuth(as("nick")))
	if err != nil || fmt.Sprint(names) != "[team/web]" {
		t.Errorf("by token: %v, %v", names, err)
	}

	// Rights that are taken are gone at once, also for a token that was given before.
	token := s.token("dora", "repository:team/web:pull,push")
	if got := s.bearer("POST", "/v2/team/web/blobs/uploads/", token); got != 202 {
		t.Errorf("dora's token: %d", got)
	}
	s.must(204, "DELETE", "/access?organisation=team&to=@dev", "olga:olga-secret", nil, nil)
	s.must(204, "DELETE", "/access?repository=team/web&to=dora", root, nil, nil)
	if got := s.bearer("POST", "/v2/team/web/blobs/uploads/", token); got != 403 && got != 401 {
		t.Errorf("dora's token after her rights were taken: %d", got)
	}
	s.must(409, "DELETE", "/access?organisation=team&to=olga", "olga:olga-secret", nil, nil)

	// So are those of a password that was changed, and of an account that was closed.
	token = s.token("olga", "repository:team/web:pull,push")
	s.must(200, "PATCH", "/users/olga", root, m{"password": "olga-secret"}, nil)
	if got := s.bearer("POST", "/v2/team/web/blobs/uploads/", token); got != 401 {
		t.Errorf("olga's token after her password was set: %d", got)
	}
	token = s.token("olga", "repository:team/web:pull,push")
	s.must(200, "PATCH", "/users/olga", root, m{"closed": true}, nil)
	if got := s.bearer("POST", "/v2/team/web/blobs/uploads/", token); got != 401 {
		t.Errorf("olga's token after her account was closed: %d", got)
	}
	if !strings.Contains(s.log.String(), `msg="right given" audit=true by=olga`) {
		t.Errorf("no audit line:\n%s", s.log)
	}
}

func TestChallenges(t *testing.T) {
	s := serve(t, registry.Config{Htpasswd: htpasswd(t, "alice")})
	challenge := func(method, path, authorization string) (int, string) {
		t.Helper()
		r, _ := http.NewRequest(method, s.url+path, nil)
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		return answer.StatusCode, strings.Join(answer.Header.Values("WWW-Authenticate"), " | ")
	}
	realm := `Bearer realm="` + s.url + `/token",service="berth-registry"`
	narrow := "Bearer " + s.token("alice", "repository:team/web:pull")
	for _, c := range []struct {
		method, path, authorization string
		status                      int
		challenge                   string
	}{
		{"GET", "/v2/", "", 401, realm},
		{"GET", "/v2/_catalog", "", 401, realm + `,scope="registry:catalog:*"`},
		{"GET", "/v2/team/web/tags/list", "", 401, realm + `,scope="repository:team/web:pull"`},
		{"POST", "/v2/team/web/blobs/uploads/", "", 401, realm + `,scope="repository:team/web:pull,push"`},
		{"POST", "/v2/team/web/blobs/uploads/", narrow, 401, realm + `,scope="repository:team/web:pull,push",error="insufficient_scope"`},
		{"GET", "/v2/", narrow, 200, ""},
		{"GET", "/v2/", "Bearer a.b.c", 401, realm + `,error="invalid_token"`},
		{"GET", "/v2/", "Basic " + base64.StdEncoding.EncodeToString([]byte("alice:alice-secret")), 200, ""},
		{"GET", "/v2/", "Basic nonsense", 401, realm},
		{"GET", "/v2/", "Digest x", 401, realm},
		{"GET", guard.Prefix + "/users", "", 401, `Basic realm="berth-registry"`},
	} {
		if status, got := challenge(c.method, c.path, c.authorization); status != c.status || got != c.challenge {
			t.Errorf("%s %s (%.10s): %d %s\nwant %d %s", c.method, c.path, c.authorization, status, got, c.status, c.challenge)
		}
	}
}

// docker login keeps a refresh token; it ends with the password, and with the sign-out.
func TestRefreshAndPersonalTokens(t *testing.T) {
	s := serve(t, registry.Config{Auth: guard.Config{Admins: []string{"root"}, Guarded: true}})
	key, err := os.ReadFile(filepath.Join(s.root, "auth", "local.key"))
	if err != nil {
		t.Fatal(err)
	}
	local := "@local:" + strings.TrimSpace(string(key))
	s.must(401, "POST", "/users", "", m{"name": "eve", "password": "x", "admin": true}, nil)
	s.must(401, "POST", "/users", "@local:wrong", m{"name": "eve", "password": "x", "admin": true}, nil)
	for _, n := range []string{"root", "alice"} {
		s.must(201, "POST", "/users", local, m{"name": n, "password": n + "-secret"}, nil)
	}
	s.must(200, "GET", "/users", "root:root-secret", nil, nil) // by the configuration

	login := func() string {
		t.Helper()
		var a struct {
			Refresh string `json:"refresh_token"`
		}
		if got := s.do("GET", "/token?service=berth-registry&offline_token=true&client_id=docker&account=alice", "alice:alice-secret", nil, &a); got != 200 || a.Refresh == "" {
			t.Fatalf("%d %+v", got, a)
		}
		return a.Refresh
	}
	refresh := login()
	if e := s.push(&authn.Bearer{Token: "x"}, "alice/app"); e == "" {
		t.Error("a token that is none")
	}
	stored := authn.FromConfig(authn.AuthConfig{IdentityToken: refresh})
	if e := s.push(stored, "alice/app"); e != "" {
		t.Errorf("with what docker login has stored: %s", e)
	}
	s.must(403, "PATCH", "/users/alice", "alice:alice-secret", m{"old": "wrong", "password": "new-secret"}, nil)
	s.must(400, "PATCH", "/users/alice", "alice:alice-secret", m{"password": "new-secret"}, nil)
	s.must(403, "PATCH", "/users/alice", "alice:alice-secret", m{"admin": true}, nil)
	s.must(403, "PATCH", "/users/root", "alice:alice-secret", m{"old": "alice-secret", "password": "x"}, nil)
	s.must(200, "PATCH", "/users/alice", "alice:alice-secret", m{"old": "alice-secret", "password": "new-secret"}, nil)
	if e := s.push(stored, "alice/app"); e == "" {
		t.Error("the stored sign-in outlives the password")
	}
	s.must(200, "PATCH", "/users/alice", "root:root-secret", m{"password": "alice-secret"}, nil)
	stored = authn.FromConfig(authn.AuthConfig{IdentityToken: login()})
	s.must(200, "POST", "/users/alice/signout", "alice:alice-secret", nil, nil)
	if e := s.push(stored, "alice/app"); e == "" {
		t.Error("the stored sign-in outlives the sign-out")
	}

	// What was stored may administrate when it is asked for just that, for whom the user may.
	admin := func(refresh, path string) int {
		t.Helper()
		r, err := http.PostForm(s.url+"/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}, "service": {guard.Service}, "scope": {"registry:site:admin"}})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		var a struct {
			Token string `json:"access_token"`
		}
		json.NewDecoder(r.Body).Decode(&a)
		return s.bearer("GET", guard.Prefix+path, a.Token)
	}
	var of struct {
		Refresh string `json:"refresh_token"`
	}
	s.do("GET", "/token?offline_token=true", "root:root-secret", nil, &of)
	if got := admin(of.Refresh, "/users"); got != 200 {
		t.Errorf("root's stored sign-in: %d", got)
	}
	mine := login()
	if got := admin(mine, "/users"); got != 403 {
		t.Errorf("alice's stored sign-in: %d", got)
	}
	if got := admin(mine, "/users/alice"); got != 200 {
		t.Errorf("alice's own account: %d", got)
	}
	if got := s.bearer("GET", guard.Prefix+"/users", s.token("root", "repository:x/y:pull")); got != 403 {
		t.Errorf("root's token to pull: %d", got)
	}

	var made struct{ ID, Token string }
	s.must(400, "POST", "/tokens", "alice:alice-secret", m{"note": "ci", "actions": []string{"fly"}}, nil)
	s.must(201, "POST", "/tokens", "alice:alice-secret", m{"note": "ci", "actions": []string{"pull"}, "days": 30}, &made)
	reader := &authn.Basic{Username: "alice", Password: made.Token}
	if e := s.pull(reader, "alice/app"); e != "" {
		t.Errorf("a token to pull pulls: %s", e)
	}
	if e := s.push(reader, "alice/other"); e == "" {
		t.Error("a token to pull pushes")
	}
	s.must(403, "POST", "/tokens", "alice:"+made.Token, m{"note": "more"}, nil)
	s.must(403, "GET", "/tokens", "alice:"+made.Token, nil, nil)
	if e := s.pull(&authn.Basic{Username: "root", Password: made.Token}, "alice/app"); e == "" {
		t.Error("good under another name")
	}
	// What a token got, a refresh token of it included, is limited as it is, and ends with it.
	var offline struct {
		Refresh string `json:"refresh_token"`
	}
	s.do("GET", "/token?service=berth-registry&offline_token=true&account=alice", "alice:"+made.Token, nil, &offline)
	stored = authn.FromConfig(authn.AuthConfig{IdentityToken: offline.Refresh})
	if got := admin(offline.Refresh, "/users/alice"); got != 403 {
		t.Errorf("a stored sign-in of a token to pull administrates: %d", got)
	}
	if e := s.pull(stored, "alice/app"); e != "" {
		t.Error(e)
	}
	if e := s.push(stored, "alice/other"); e == "" {
		t.Error("a stored sign-in of a token to pull pushes")
	}
	var short struct{ Token string }
	s.do("GET", "/token?scope=repository:alice/app:pull", "alice:"+made.Token, nil, &short)
	if got := s.bearer("GET", "/v2/alice/app/tags/list", short.Token); got != 200 {
		t.Errorf("an access token of a personal one: %d", got)
	}
	s.must(404, "DELETE", "/tokens/"+made.ID+"x", "alice:alice-secret", nil, nil)
	s.must(204, "DELETE", "/tokens/"+made.ID, "alice:alice-secret", nil, nil)
	for what, who := range map[string]authn.Authenticator{"itself": reader, "what was stored of it": stored} {
		if e := s.pull(who, "alice/app"); e == "" {
			t.Errorf("a revoked token: %s is good", what)
		}
	}

	if got := s.bearer("GET", "/v2/alice/app/tags/list", short.Token); got != 401 {
		t.Errorf("what it got is good: %d", got)
	}

	// A user who is removed leaves nothing that the next of the name would get.
	s.must(204, "DELETE", "/users/alice", "root:root-secret", nil, nil)
	s.must(201, "POST", "/users", "root:root-secret", m{"name": "alice", "password": "alice-secret"}, nil)
	var rights struct{ Grants map[string]string }
	s.must(200, "GET", "/access?repository=alice/app", "root:root-secret", nil, &rights)
	if len(rights.Grants) != 0 {
		t.Errorf("%+v", rights)
	}
	s.must(403, "DELETE", "/repositories?repository=alice/app", "alice:alice-secret", nil, nil)
	s.must(204, "DELETE", "/repositories?repository=alice/app", "root:root-secret", nil, nil)
	s.must(404, "DELETE", "/repositories?repository=alice/app", "root:root-secret", nil, nil)
}

func TestGuessingIsDamped(t *testing.T) {
	s := serve(t, registry.Config{Htpasswd: htpasswd(t, "alice", "bob")})
	for i := range 5 {
		path := []string{"/token", "/v2/"}[i%2] // each of them counts once
		if got := s.do("GET", path, "alice:guess", nil, nil); got != 401 {
			t.Errorf("wrong: %d", got)
		}
	}
	if got := s.do("GET", "/token", "alice:alice-secret", nil, nil); got != 429 {
		t.Errorf("even the right password waits: %d", got)
	}
	if got := s.do("GET", "/v2/", "alice:alice-secret", nil, nil); got != 429 {
		t.Errorf("with Basic as well: %d", got)
	}
	if got := s.do("GET", "/token", "bob:bob-secret", nil, nil); got != 200 {
		t.Errorf("bob: %d", got)
	}
}

// The document's example is a configuration.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile("../../docs/registry-users.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "```json\n")
	block, _, _ := strings.Cut(rest, "```")
	var cfg registry.Config
	d := json.NewDecoder(strings.NewReader(block))
	d.DisallowUnknownFields()
	if err := d.Decode(&cfg); err != nil || len(cfg.Auth.LDAP) != 1 || len(cfg.Auth.Admins) != 2 {
		t.Fatalf("%+v, %v", cfg, err)
	}
	if _, err := ldap.New(cfg.Auth.LDAP[0]); err != nil {
		t.Error(err)
	}
}

// A page of another site, in a browser that knows the password, changes nothing.
func TestCrossSite(t *testing.T) {
	s := serve(t, registry.Config{})
	for _, header := range [][2]string{{"Host", "evil.example:5000"}, {"Sec-Fetch-Site", "cross-site"}, {"Origin", "http://evil.example"}, {"X-Forwarded-For", "192.0.2.9"}, {"X-Real-Ip", "192.0.2.9"}, {"Via", "1.1 proxy"}} {
		r, _ := http.NewRequest("POST", s.url+guard.Prefix+"/users", strings.NewReader(`{"name":"eve","password":"x","admin":true}`))
		r.Header.Set(header[0], header[1])
		if header[0] == "Host" { // a name that its owner made stand for this machine
			r.Host = header[1]
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != 403 && answer.StatusCode != 401 {
			t.Errorf("%s: %d", header[0], answer.StatusCode)
		}
	}
}

// A proxy on this machine that says nothing of its clients, as nginx does when it is told no more than proxy_pass, lends them nothing.
func TestSilentProxy(t *testing.T) {
	s := serve(t, registry.Config{})
	for _, c := range [][2]string{{"HTTP/1.0", " 401 "}, {"HTTP/1.1", " 201 "}} { // in this order: the second one guards the registry
		protocol, want := c[0], c[1]
		conn, err := net.Dial("tcp", s.host)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		body := `{"name":"eve","password":"x-and-more-than-that","admin":true}`
		fmt.Fprintf(conn, "POST %s/users %s\r\nHost: %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", guard.Prefix, protocol, s.host, len(body), body)
		answer := make([]byte, 32)
		if _, err := io.ReadFull(conn, answer); err != nil || !strings.Contains(string(answer), want) {
			t.Errorf("%s: %q %v, want%s", protocol, answer, err, want)
		}
	}
}

// skopeo and curl, as people use them.
func TestRealClients(t *testing.T) {
	for _, program := range []string{"skopeo", "curl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs %s", program)
		}
	}
	s := serve(t, registry.Config{Htpasswd: htpasswd(t, "alice", "bob"), Auth: guard.Config{Admins: []string{"bob"}}})
	oci := filepath.Join(t.TempDir(), "oci")
	if p, err := layout.Write(oci, empty(t)); err != nil {
		t.Fatal(err)
	} else if err := p.AppendImage(s.image); err != nil {
		t.Fatal(err)
	}
	s.must(201, "POST", "/orgs", "bob:bob-secret", m{"name": "team", "owners": []string{"bob"}}, nil)
	home := t.TempDir()
	run := func(args ...string) string {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "HOME="+home, "REGISTRY_AUTH_FILE="+filepath.Join(home, "auth.json"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			return "failed: " + string(out)
		}
		return string(out)
	}
	copyTo := func(repo string) string {
		return run("skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false", "oci:"+oci, "docker://"+s.host+"/"+repo+":2")
	}
	if out := copyTo("team/web"); !strings.Contains(out, "denied") && !strings.Contains(out, "authentication required") {
		t.Errorf("anonymous: %s", out)
	}
	if out := run("skopeo", "login", "--tls-verify=false", "-u", "alice", "-p", "wrong", s.host); !strings.Contains(out, "invalid username/password") {
		t.Errorf("login with a wrong password: %s", out)
	}
	if out := run("skopeo", "login", "--tls-verify=false", "-u", "alice", "-p", "alice-secret", s.host); !strings.Contains(out, "Login Succeeded") {
		t.Errorf("login: %s", out)
	}
	if out := copyTo("team/web"); !strings.Contains(out, "denied: requested access to the resource is denied") {
		t.Errorf("alice is not in team: %s", out)
	}
	s.must(204, "PUT", "/access", "bob:bob-secret", m{"repository": "team/web", "to": "alice", "role": "writer"}, nil)
	if out := copyTo("team/web"); out != "" {
		t.Errorf("alice, entitled: %s", out)
	}
	if out := copyTo("team/other"); !strings.Contains(out, "denied") {
		t.Errorf("alice, elsewhere in team: %s", out)
	}
	if out := run("curl", "-sf", "-u", "alice:alice-secret", s.url+"/v2/team/web/tags/list"); !strings.Contains(out, `"tags":["2"]`) {
		t.Errorf("curl -u: %s", out)
	}
	if out := run("skopeo", "delete", "--tls-verify=false", "docker://"+s.host+"/team/web:2"); !strings.HasPrefix(out, "failed") {
		t.Errorf("a writer deletes: %s", out)
	}
}
