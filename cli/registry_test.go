package cli

import (
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// shop is a registry with Berth's own routes: it answers from a table and remembers what it was asked and by whom.
type shop struct {
	*httptest.Server
	mu      sync.Mutex
	asked   []string // "METHOD /path body who=AUTHORIZATION"
	answers map[string]string
	refuse  int // status of what is asked without credentials
}

func newShop(t *testing.T, answers map[string]string) *shop {
	t.Helper()
	s := &shop{answers: answers}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *shop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	who := r.Header.Get("Authorization")
	if name, password, ok := r.BasicAuth(); ok {
		who = name + ":" + password
	}
	line := r.Method + " " + strings.TrimPrefix(r.URL.RequestURI(), "/berth/registry/v1")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, line+" "+string(body)+" who="+who)
	switch {
	case r.URL.Path == "/v2/":
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="shop"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	case r.URL.Path == "/token":
		fmt.Fprint(w, `{"access_token":"a.b.c"}`)
		return
	case s.refuse != 0 && who == "":
		w.WriteHeader(s.refuse)
		fmt.Fprint(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
		return
	}
	answer, ok := s.answers[line]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, `{"message":"not in the table: %s"}`, strings.ReplaceAll(line, `"`, "'"))
		return
	}
	if code, text, ok := strings.Cut(answer, "!"); ok && len(code) == 3 {
		var n int
		_, _ = fmt.Sscan(code, &n)
		w.WriteHeader(n)
		answer = text
	}
	_, _ = io.WriteString(w, answer)
}

func (s *shop) has(prefix string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.asked {
		if strings.HasPrefix(a, prefix) {
			return true
		}
	}
	return false
}

func TestRegistryCommands(t *testing.T) {
	const plan = `{"id":"3f9a","repositories":[{"name":"team/web","untag":[{"tag":"pr-1","digest":"sha256:0123456789abcdef","at":"2020-01-01T00:00:00Z","why":"older than 7d"}],"delete":[{"digest":"sha256:0123456789abcdef","at":"2020-01-01T00:00:00Z","why":"its tag pr-1 goes"}],"stays":[{"tag":"v1","digest":"sha256:ff","at":"2020-01-01T00:00:00Z","why":"kept by its name"}],"frees":1500}]}`
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	policy, readme, secret := write("policy.json", `{"rules":[]}`), write("README.md", "# Web\n"), write("secret", "key\n")
	answers := map[string]string{
		"GET /whoami":                       `{"name":"ann","groups":["dev"],"admin":true,"guarded":true}`,
		"GET /users":                        `[{"name":"ann","admin":true,"created":"2020-01-01T00:00:00Z","changed":"2020-01-01T00:00:00Z"},{"name":"bob","closed":true}]`,
		"GET /users/ann":                    `{"name":"ann"}`,
		"PATCH /users/bob":                  `{"name":"bob"}`,
		"DELETE /users/bob":                 ``,
		"DELETE /users/eve":                 `404!{"message":"no such user: eve"}`,
		"POST /users/bob/signout":           `{"ended":2}`,
		"GET /groups":                       `{"dev":["ann","bob"]}`,
		"PUT /groups/dev":                   ``,
		"DELETE /groups/dev":                ``,
		"GET /tokens?user=bob":              `[{"id":"3f9a","user":"bob","note":"ci","actions":["pull"],"created":"2020-01-01T00:00:00Z"},{"id":"4f2a","user":"bob","expires":"2031-02-03T00:00:00Z"}]`,
		"POST /tokens":                      `201!{"id":"3f9a","token":"berth_x"}`,
		"DELETE /tokens/3f9a":               ``,
		"GET /orgs":                         `[{"name":"team","description":"The team","grants":{"user:ann":"owner","group:dev":"writer"},"created":"2020-01-01T00:00:00Z"}]`,
		"POST /orgs":                        `201!{"name":"team"}`,
		"PATCH /orgs/team":                  `{"name":"team"}`,
		"DELETE /orgs/team":                 ``,
		"GET /access?repository=team%2Fweb": `{"visibility":"private","inherited":true,"grants":{"user:bob":"writer"}}`,
		"GET /access?organisation=team":     `{"visibility":"public","grants":{}}`,
		"PUT /access":                       ``,
		"DELETE /access?organisation=team&to=%40dev":                             ``,
		"GET /access/explain?action=push&group=x&repository=team%2Fweb&user=bob": `{"allowed":false,"why":"no role","lines":["repository team/web: nobody"]}`,
		"GET /access/site":                           `{"visibility":"private","creation":"admins","admins":["group:dev"]}`,
		"PATCH /access/site":                         ``,
		"PUT /access/visibility":                     ``,
		"GET /catalog?n=50&page=1&q=":                `{"total":60,"entries":[{"name":"team/web","short":"The shop","official":true,"stars":2,"pulls":7,"tags":["4","3","2","1"],"size":1500000,"last_push":"2020-01-01T00:00:00Z"}]}`,
		"GET /catalog?n=5&page=2&q=java+web":         `{"total":0,"entries":[]}`,
		"GET /catalog/entry/team/web":                `{"name":"team/web","short":"The shop","long":"# Web\n","certified":"release","platforms":["linux/amd64"],"tags":["1"]}`,
		"PUT /catalog/description/team/web":          ``,
		"PUT /catalog/star/team/web":                 ``,
		"DELETE /catalog/star/team/web":              ``,
		"PUT /catalog/mark/tomcat":                   ``,
		"DELETE /catalog/entry/team/web":             ``,
		"GET /retention":                             `{"rules":[]}`,
		"PUT /retention":                             ``,
		"POST /retention/plan?":                      plan,
		"POST /retention/plan?repository=team%2F%2A": `{"id":"0","repositories":[]}`,
		"POST /retention/apply":                      `{"plan":"3f9a","untagged":1,"deleted":1,"skipped":[{"repository":"team/web","tag":"pr-2","digest":"sha256:1","why":"was moved"}]}`,
		"GET /retention/runs":                        `[{"plan":"3f9a","at":"2020-01-01T00:00:00Z","untagged":1}]`,
		"GET /webhooks":                              `[{"name":"ci","url":"https://ci/hook","repositories":["team/*"],"status":{"delivered":7,"pending":1,"failures":3,"last_error":"dial tcp"}},{"name":"b","url":"http://b","disabled":true,"status":{}}]`,
		"PUT /webhooks/ci":                           ``,
		"POST /webhooks/ci/test":                     `{"status":202}`,
		"DELETE /webhooks/ci":                        ``,
	}
	for line, answer := range map[string]string{
		"POST /gc":    `{"plan":"blob sha256:1  5 bytes\n","removed":{"Manifests":1,"Links":2,"Blobs":3,"Uploads":0,"Repositories":0,"Bytes":1500,"Spared":1}}`,
		"POST /check": `{"repositories":1,"tags":2,"manifests":3,"blobs":4,"bytes":1500,"problems":["team/web:1: its manifest is not there"]}`,
		"GET /quota":  `{"repository":1000000000,"organisations":{"team":2000000000}}`, "PUT /quota": ``,
		"GET /usage/team/web?": `{"used":500,"limit":1000}`, "GET /usage/team?organisation=1": `{"used":500}`,
		"GET /mirrors":     `[{"name":"hub","registry":"docker.io","copies":1,"hits":2,"misses":3,"stale":4,"bytes":1500},{"name":"quay","registry":"quay.io","prefix":"quay","failed":"2020-01-01T00:00:00Z","message":"429"}]`,
		"PUT /mirrors/hub": ``, "DELETE /mirrors/hub": ``, "POST /mirrors/hub/check": `{"answers":true}`, "POST /mirrors/quay/check": `{"answers":false,"message":"429"}`,
		"GET /replication":        `[{"name":"backup","registry":"b:5000","prefix":"from-a","repositories":["team/**"],"wait":1,"failed":2,"status":{"done":7,"sent":1500,"last_error":"dial tcp"}}]`,
		"PUT /replication/backup": ``, "DELETE /replication/backup": ``, "POST /replication/backup/retry": `{"jobs":2}`,
		"GET /replication/backup/jobs":   `[{"repository":"team/web","reference":"1","tries":3,"failed":true,"error":"dial tcp"}]`,
		"POST /replication/backup/plan":  `{"id":"3f9a","registry":"b:5000","items":[{"action":"push","repository":"team/web","tag":"1","target":"b:5000/team/web:1","digest":"sha256:0123456789abcdef","size":1500}],"same":4,"problems":["team/x: 500"]}`,
		"POST /replication/backup/apply": `{"items":[{}]}`,
		"POST /replication/same/plan":    `{"id":"0","registry":"b:5000","items":[],"same":4}`,
	} {
		answers[line] = answer
	}
	for _, tt := range []struct {
		args      string
		stdin     string
		code      int
		out, errs string
		asked     string
	}{
		{args: "whoami", out: "ann   dev     administrator\n"},
		{args: "user ls", out: "NAME  CREATED", asked: "GET /users  who=ann:secret"},
		{args: "user ls", out: "closed\n"},
		{args: "user ls --json", out: `"closed": true`},
		{args: "user inspect ann", out: "ann"},
		{args: "user add bob --password-stdin", stdin: "hunter22\n", code: 1, errs: "not in the table: POST /users", asked: `POST /users {"admin":false,"name":"bob","password":"hunter22"}`},
		{args: "user add bob", code: 1, errs: "there is no password on standard input"},
		{args: "user update bob --closed", out: "bob\n", asked: `PATCH /users/bob {"closed":true}`},
		{args: "user update bob --admin=false", asked: `PATCH /users/bob {"admin":false}`},
		{args: "user update bob", code: 1, errs: "say what to change"},
		{args: "user passwd bob --password-stdin", stdin: "hunter23", out: "bob\n", asked: `PATCH /users/bob {"password":"hunter23"}`},
		{args: "user rm bob eve", code: 1, out: "bob\n", errs: "no such user: eve"},
		{args: "user signout bob", out: "2 logins of bob ended\n"},
		{args: "group ls", out: "dev    ann, bob\n"},
		{args: "group set dev ann", out: "dev\n", asked: `PUT /groups/dev {"members":["ann"]}`},
		{args: "group set dev", asked: `PUT /groups/dev {"members":[]}`},
		{args: "group rm dev", out: "dev\n"},
		{args: "token ls --user bob", out: "3f9a  bob   pull"},
		{args: "token ls --user bob", out: "2031-02-03\n"},
		{args: "token add --note ci --action pull,push --days 7", out: "berth_x\n", errs: "Token 3f9a. It is shown this once", asked: `POST /tokens {"actions":["pull","push"],"days":7,"note":"ci"}`},
		{args: "token rm 3f9a", out: "3f9a\n"},
		{args: "org ls", out: "team  (inherited)  group:dev (writer), ann (owner)"},
		{args: "org add team --owner ann --owner @leads", out: "team\n", asked: `POST /orgs {"description":"","name":"team","owners":["ann","@leads"],"visibility":""}`},
		{args: "org update team --visibility public", asked: `PATCH /orgs/team {"visibility":"public"}`},
		{args: "org rm team", out: "team\n"},
		{args: "access ls team/web", out: "team/web is private (inherited)\n\nWHO       ROLE    MAY\nuser:bob  writer  pull, push\n"},
		{args: "access ls --org team", out: "team is public\n"},
		{args: "access grant team/web bob writer", out: "team/web\n", asked: `PUT /access {"repository":"team/web","role":"writer","to":"bob"}`},
		{args: "access grant --org team @dev reader", asked: `PUT /access {"organisation":"team","role":"reader","to":"@dev"}`},
		{args: "access revoke --org team @dev", out: "team\n"},
		{args: "access explain team/web --user bob --action push --group x", out: "bob may not push team/web: no role\n  repository team/web: nobody\n"},
		{args: "access explain bob team/web push --group x", out: "bob may not push team/web: no role\n"},
		{args: "access site", out: "private           admins                group:dev\n"},
		{args: "access site --creation admins --admin @dev", asked: `PATCH /access/site {"admins":["@dev"],"creation":"admins"}`},
		{args: "repository ls", out: "team/web  4, 3, 2 +1  1.5MB", errs: "1 of 60; the next: --page 2"},
		{args: "repository ls --limit 5 --page 2 java web", out: "NAME  TAGS"},
		{args: "repository inspect team/web", out: "team/web: The shop\n  marks      certified under release\n  tags       1\n  platforms  linux/amd64\n  counts     0 stars, 0 pulls, 0 pushes\n\n# Web\n"},
		{args: "repository describe team/web Shop", asked: `PUT /catalog/description/team/web {"long":"# Web\n","short":"Shop"}`},
		{args: "repository describe team/web --readme " + readme, out: "team/web\n", asked: `PUT /catalog/description/team/web {"long":"# Web\n","short":"The shop"}`},
		{args: "repository describe team/web", code: 1, errs: "say what it is"},
		{args: "repository star team/web", out: "team/web\n"},
		{args: "repository unstar team/web", asked: "DELETE /catalog/star/team/web"},
		{args: "repository visibility team/web public", asked: `PUT /access/visibility {"repository":"team/web","visibility":"public"}`},
		{args: "repository official tomcat", asked: `PUT /catalog/mark/tomcat {"official":true}`},
		{args: "repository official --off tomcat", asked: `PUT /catalog/mark/tomcat {"official":false}`},
		{args: "repository official --by-name tomcat", asked: `PUT /catalog/mark/tomcat {"official":null}`},
		{args: "repository forget team/web", asked: "DELETE /catalog/entry/team/web"},
		{args: "retention show", out: `"rules": []`},
		{args: "retention set " + policy, asked: `PUT /retention {"rules":[]}`},
		{args: "retention set " + readme, code: 1, errs: "is no JSON"},
		{args: "retention plan", out: "team/web: frees up to 1.5kB\n  untag   pr-1  sha256:0123456789ab", asked: "POST /retention/plan?"},
		{args: "retention plan", out: "To do exactly this: berth registry retention apply 3f9a\n"},
		{args: "retention plan --all", out: "  keep    v1    sha256:ff"},
		{args: "retention plan --repository team/*", out: "Nothing would go.\n"},
		{args: "retention apply 3f9a", out: "1 tags and 1 manifests are gone, 1 that had changed meanwhile stayed. Their bytes go with the next collection.\n  team/web pr-2: was moved\n", asked: `POST /retention/apply {"plan":"3f9a"}`},
		{args: "retention apply", code: 1, out: "  untag   pr-1", errs: "Take 1 tags and 1 manifests out? Say so with --yes"},
		{args: "retention apply --yes", out: "1 tags and 1 manifests are gone", asked: `POST /retention/apply {"plan":"3f9a"}`},
		{args: "retention runs", out: "3f9a  1"},
		{args: "webhook ls", out: "ci    https://ci/hook  team/*        7     1        0        failing (3): dial tcp\nb     http://b         all           0     0        0        disabled\n"},
		{args: "webhook set ci https://ci/hook --repository team/* --ignore pull --timeout 2s --secret-file " + secret, out: "ci\n",
			asked: `PUT /webhooks/ci {"disabled":false,"ignore":{"actions":["pull"]},"name":"ci","repositories":["team/*"],"secret":"key","timeout":"2s","url":"https://ci/hook"}`},
		{args: "webhook set ci https://ci/hook --header X", code: 1, errs: "write 'NAME: VALUE'"},
		{args: "webhook test ci", out: "ci answered 202 Accepted\n"},
		{args: "webhook rm ci", out: "ci\n"},
		{args: "gc --plan", out: "blob sha256:1  5 bytes\n", asked: `POST /gc {"plan":true}`},
		{args: "gc --untagged 168h", out: "Removed: 1 manifests, 2 links, 3 blobs, 0 uploads, 0 repositories; 1.5kB are free.\n1 of the plan stayed", asked: `POST /gc {"plan":false,"untagged":"168h0m0s"}`},
		{args: "check --content", code: 1, out: "team/web:1: its manifest is not there\n1 repositories, 2 tags, 3 manifests, 4 blobs (1.5kB): 1 problems\n", asked: `POST /check {"content":true}`},
		{args: "check --content --repair", code: 1, out: "team/web:1: its manifest is not there\n1 repositories, 2 tags, 3 manifests, 4 blobs (1.5kB): 1 problems, 0 repaired\n", asked: `POST /check {"content":true,"repair":true}`},
		{args: "quota ls", out: "every repository  1GB\nteam/             2GB\n"},
		{args: "quota set team/web 10GB", out: "team/web\n", asked: `PUT /quota {"repository":1000000000,"repositories":{"team/web":10000000000},"organisations":{"team":2000000000}}`},
		{args: "quota set --org team none", asked: `PUT /quota {"repository":1000000000}`},
		{args: "quota set every none", asked: `PUT /quota {"organisations":{"team":2000000000}}`},
		{args: "quota set team/web much", code: 1, errs: "is no size"},
		{args: "quota usage team/web", out: "team/web  500B  1kB    50%\n"},
		{args: "quota usage --org team", out: "team  500B  none\n"},
		{args: "mirror ls", out: "hub   docker.io  same names  1       2     3       4      1.5kB\nquay  quay.io    quay/…"},
		{args: "mirror set hub docker.io --only library/* --fresh 5m -u ann --password-stdin", stdin: "secret", out: "hub\n", asked: `PUT /mirrors/hub {"fresh":"5m0s","insecure":false,"name":"hub","only":["library/*"],"password":"secret","registry":"docker.io","username":"ann"}`},
		{args: "mirror check hub", out: "hub answers\n"},
		{args: "mirror check quay", code: 1, errs: "quay: 429"},
		{args: "mirror rm hub", out: "hub\n"},
		{args: "replicate ls", out: "backup  b:5000/from-a  team/**       all   7     1.5kB  1        2       failing: dial tcp\n"},
		{args: "replicate set backup b:5000 --repository team/** --every 24h --plain", asked: `PUT /replication/backup {"deletes":false,"every":"24h0m0s","insecure":true,"name":"backup","paused":false,"registry":"b:5000","repositories":["team/**"]}`},
		{args: "replicate jobs backup", out: "send  team/web    1    3      given up  dial tcp\n"},
		{args: "replicate plan backup", out: "push  team/web:1  b:5000/team/web:1  sha256:0123456789ab  1.5kB\n1 to do; 4 are the same\n\nTo do exactly this: berth registry replicate apply backup 3f9a\n", errs: "team/x: 500"},
		{args: "replicate plan same", out: "Nothing to do: b:5000 has all 4 tags.\n"},
		{args: "replicate apply backup", code: 1, errs: "Do that at b:5000? Say so with --yes"},
		{args: "replicate apply backup --yes", out: "1 begun", asked: `POST /replication/backup/apply {"plan":"3f9a"}`},
		{args: "replicate apply backup 4f2a", out: "1 begun", asked: `POST /replication/backup/apply {"plan":"4f2a"}`},
		{args: "replicate retry backup", out: "2 tried again\n"},
		{args: "replicate rm backup", out: "backup\n"},
		{args: "--help", out: "berth registry access grant team/web bob writer"},
		{args: "user --help", out: "passwd"},
		{args: "access grant --help", out: "maintainer (delete) or owner"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			t.Setenv("BERTH_REGISTRY_AUTH", "ann:secret")
			t.Setenv("BERTH_REGISTRY", "")
			s := newShop(t, answers)
			in, err := os.Open(write("stdin", tt.stdin))
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			old := os.Stdin
			os.Stdin = in
			defer func() { os.Stdin = old }()
			out, errs, code := berth(t, append([]string{"--config", t.TempDir(), "registry", "--url", s.URL}, strings.Fields(tt.args)...)...)
			if code != tt.code || !strings.Contains(out, tt.out) || !strings.Contains(errs, tt.errs) {
				t.Errorf("code %d, stdout:\n%s\nstderr: %s\nwant %d, %q, %q", code, out, errs, tt.code, tt.out, tt.errs)
			}
			if tt.asked != "" && !s.has(tt.asked) {
				t.Errorf("asked was\n%s\nwant %s", strings.Join(s.asked, "\n"), tt.asked)
			}
		})
	}
}

// Who somebody is comes from the environment, from what a login has left, or from the registry's own directory.
func TestRegistryCredentials(t *testing.T) {
	t.Setenv("BERTH_REGISTRY", "")
	t.Setenv("BERTH_REGISTRY_AUTH", "")
	s := newShop(t, map[string]string{"GET /users": `[]`, "GET /whoami": `{"guarded":false}`})
	s.refuse = http.StatusUnauthorized
	host := strings.TrimPrefix(s.URL, "http://")
	config := func(text string) string {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	basic := base64.StdEncoding.EncodeToString([]byte("ann:secret"))
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "auth"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "auth", "local.key"), []byte("k3y\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, config string
		args         []string
		code         int
		errs, asked  string
	}{
		{"a login with a password, the only one", `{"auths":{"` + host + `":{"auth":"` + basic + `"},"https://index.docker.io/v1/":{"auth":"` + basic + `"}}}`, nil, 0, "", "GET /users  who=ann:secret"},
		{"kept under a whole URL", `{"auths":{"http://` + host + `/v2/":{"auth":"` + basic + `"}}}`, []string{"--url", host}, 0, "", "GET /users  who=ann:secret"},
		{"a login with a token", `{"auths":{"` + host + `":{"auth":"YW5uOg==","identitytoken":"refresh"}}}`, nil, 0, "", "GET /users  who=Bearer a.b.c"},
		{"the token is exchanged", `{"auths":{"` + host + `":{"auth":"YW5uOg==","identitytoken":"refresh"}}}`, nil, 0, "", "POST /token client_id=berth&grant_type=refresh_token&refresh_token=refresh&scope=registry%3Asite%3Aadmin&service=shop who="},
		{"nobody", `{}`, []string{"--url", host}, 1, "sign in first: berth login " + host, "GET /users  who="},
		{"no registry", `{}`, nil, 1, "which registry? Name it with --url", ""},
		{"two registries", `{"auths":{"a.example":{"auth":"` + basic + `"},"b.example":{"auth":"` + basic + `"}}}`, nil, 1, "credentials for a.example, b.example: name one", ""},
		{"the local key", `{}`, []string{"--url", s.URL, "--root", root}, 0, "", "GET /users  who=Bearer k3y"},
		{"no local key", `{}`, []string{"--url", s.URL, "--root", t.TempDir()}, 1, "is a registry being served from there?", ""},
		{"nobody there", `{}`, []string{"--url", "http://127.0.0.1:1"}, 1, "cannot reach the registry", ""},
		{"a scheme that is none", `{}`, []string{"--url", "ftp://r"}, 1, "reached by http or https", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.mu.Lock()
			s.asked = nil
			s.mu.Unlock()
			out, errs, code := berth(t, append(append([]string{"--config", config(tt.config), "registry"}, tt.args...), "user", "ls")...)
			if code != tt.code || !strings.Contains(errs, tt.errs) {
				t.Errorf("code %d, %q, %q", code, out, errs)
			}
			if tt.asked != "" && !s.has(tt.asked) {
				t.Errorf("asked was %q, want %q", s.asked, tt.asked)
			}
		})
	}
	// A token that is not good for it: without a terminal the way out is named.
	s.answers["GET /users"] = `403!{"message":"only an administrator of the registry may do this"}`
	_, errs, code := berth(t, "--config", config(`{"auths":{"`+host+`":{"auth":"YW5uOg==","identitytoken":"refresh"}}}`), "registry", "user", "ls")
	if code != 1 || !strings.Contains(errs, "BERTH_REGISTRY_AUTH: Error response from "+host+": only an administrator") {
		t.Errorf("code %d, %q", code, errs)
	}
}

// A registry's certificate is checked also on this machine; one that speaks plain HTTP here is found out.
func TestRegistryCertificates(t *testing.T) {
	t.Setenv("BERTH_REGISTRY", "")
	t.Setenv("BERTH_REGISTRY_AUTH", "")
	s := &shop{answers: map[string]string{"GET /whoami": `{"guarded":false,"admin":true}`}}
	s.Server = httptest.NewTLSServer(s)
	t.Cleanup(s.Close)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	host := strings.TrimPrefix(s.URL, "https://")
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	plain := newShop(t, s.answers)
	for _, tt := range []struct {
		args string
		code int
		errs string
	}{
		{"--url " + host, 1, "the registry's certificate is not known here: name its CA with --cacert"},
		{"--url " + host + " --cacert " + ca, 0, ""},
		{"--url " + s.URL + " --insecure", 0, ""},
		{"--url http://" + host, 1, "Client sent an HTTP request to an HTTPS server."},
		{"--url " + host + " --cacert /nonexistent", 1, "--cacert"},
		{"--url " + strings.TrimPrefix(plain.URL, "http://"), 0, ""},
		{"--url https://" + strings.TrimPrefix(plain.URL, "http://"), 1, "cannot reach the registry"},
	} {
		out, errs, code := berth(t, append(append([]string{"--config", t.TempDir(), "registry"}, strings.Fields(tt.args)...), "whoami")...)
		if code != tt.code || !strings.Contains(errs, tt.errs) || code == 0 && !strings.Contains(out, "administrator") {
			t.Errorf("%s: code %d, %q, %q", tt.args, code, out, errs)
		}
	}
}
