package cli

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// transferRecorder is a Berth engine that remembers how it was asked to pull, push, search and log in.
type transferRecorder struct {
	mu      sync.Mutex
	asked   []string // "POST /path?query Berth-Pull=… user=…"
	missing bool     // no image is there until it is pulled
	token   string   // what a login gives for a password
}

func (r *transferRecorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if strings.HasSuffix(req.URL.Path, "_ping") {
		w.Header().Set("Api-Version", "1.56")
		w.Header().Set(versionHeader, "1")
		return
	}
	line := req.Method + " " + req.URL.RequestURI()
	if h := req.Header.Get(pullHeader); h != "" {
		line += " " + pullHeader + "=" + h
	}
	if h := req.Header.Get("X-Registry-Auth"); h != "" {
		line += " auth=" + decodedAuth(h)
	}
	body, _ := io.ReadAll(req.Body)
	if strings.HasSuffix(req.URL.Path, "/auth") {
		line += " " + string(body)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, line)
	path := req.URL.Path
	switch {
	case path == "/berth/v1/images/create":
		fmt.Fprint(w, "would pull\n")
	case strings.HasPrefix(path, "/berth/v1/images/"):
		fmt.Fprint(w, "would push\n")
	case strings.HasSuffix(path, "/images/create"):
		r.missing = false
		fmt.Fprint(w, `{"status":"Status: Downloaded newer image for busybox:latest"}`+"\r\n")
	case strings.HasSuffix(path, "/push"):
		fmt.Fprint(w, `{"status":"latest: digest: sha256:1 size: 5"}`+"\r\n"+`{"progressDetail":{},"aux":{"Tag":"latest","Digest":"sha256:1","Size":5}}`+"\r\n")
	case strings.HasSuffix(path, "/images/search"):
		fmt.Fprint(w, `[{"star_count":7,"is_official":true,"name":"tomcat","is_automated":false,"description":"Apache Tomcat"}]`)
	case strings.HasSuffix(path, "/auth"):
		var a struct{ Password, IdentityToken string }
		_ = json.Unmarshal(body, &a)
		if a.Password != "secret" && a.IdentityToken == "" {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"message":"Get \"https://r.example/v2/\": unauthorized: incorrect username or password"}`)
			return
		}
		fmt.Fprintf(w, `{"Status":"Login Succeeded","IdentityToken":%q}`, r.token)
	case strings.HasSuffix(path, "/containers/create"):
		if r.missing {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"message":"No such image: busybox:latest"}`)
			return
		}
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{"Id":"4f2a","Warnings":[]}`)
	default:
		fmt.Fprint(w, `{}`)
	}
}

func decodedAuth(h string) string {
	b, err := base64.URLEncoding.DecodeString(h)
	if err != nil {
		return "bad"
	}
	return string(b)
}

func (r *transferRecorder) has(prefix string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.asked {
		if strings.HasPrefix(a, prefix) {
			return true
		}
	}
	return false
}

func TestTransferCommands(t *testing.T) {
	config := t.TempDir()
	auths := `{"auths":{"r.example:5000":{"auth":"` + base64.StdEncoding.EncodeToString([]byte("ann:secret")) + `"}}}`
	if err := os.WriteFile(filepath.Join(config, "config.json"), []byte(auths), 0o600); err != nil {
		t.Fatal(err)
	}
	const create = "/v1.56/images/create?fromImage="
	for _, tt := range []struct {
		args      string
		missing   bool
		code      int
		out, errs string
		asked     string
	}{
		{args: "pull busybox", out: "Using default tag: latest\nStatus: Downloaded newer image for busybox:latest\ndocker.io/library/busybox:latest\n", asked: "POST " + create + "docker.io%2Flibrary%2Fbusybox&tag=latest auth={}"},
		{args: "pull r.example:5000/a:1", asked: "POST " + create + "r.example%3A5000%2Fa&tag=1 auth={\"username\":\"ann\",\"password\":\"secret\",\"serveraddress\":\"r.example:5000\"}"},
		{args: "pull -q -a --platform linux/arm64 busybox", asked: "POST " + create + "docker.io%2Flibrary%2Fbusybox&platform=linux%2Farm64 auth"},
		{args: "pull --plan busybox", out: "would pull\n", asked: "GET /berth/v1/images/create?fromImage=docker.io%2Flibrary%2Fbusybox&tag=latest auth={}"},
		{args: "image pull --plan --platform linux/arm64 r.example:5000/a@sha256:" + strings.Repeat("4f2a", 16), out: "would pull\n",
			asked: "GET /berth/v1/images/create?fromImage=r.example%3A5000%2Fa&platform=linux%2Farm64&tag=sha256%3A" + strings.Repeat("4f2a", 16) + ` auth={"username":"ann"`},
		{args: "pull --plan --lazy --stale-if-error busybox", asked: "GET /berth/v1/images/create?fromImage=docker.io%2Flibrary%2Fbusybox&lazy=1&stale-if-error=1&tag=latest"},
		{args: "pull --plan -a busybox:1", code: 1, errs: "tag can't be used with --all-tags/-a"},
		{args: "pull --plan Busybox", code: 1, errs: "must be lowercase"},
		{args: "pull --lazy busybox", out: "Downloaded newer", asked: "POST " + create + "docker.io%2Flibrary%2Fbusybox&tag=latest Berth-Pull=lazy"},
		{args: "pull --lazy --stale-if-error busybox", asked: "POST " + create + "docker.io%2Flibrary%2Fbusybox&tag=latest Berth-Pull=lazy,stale-if-error"},
		{args: "run -d busybox", missing: true, out: "4f2a", errs: "Unable to find image 'busybox:latest' locally", asked: "POST " + create + "docker.io%2Flibrary%2Fbusybox&tag=latest auth"},
		{args: "run -d --pull=never busybox", missing: true, code: 125, errs: "No such image: busybox:latest"},
		{args: "run -d --pull=lazy busybox", missing: true, out: "4f2a", errs: "Unable to find image", asked: "POST " + create + "docker.io%2Flibrary%2Fbusybox&tag=latest Berth-Pull=lazy"},
		{args: "create --pull lazy busybox", missing: true, out: "4f2a", asked: "POST " + create + "docker.io%2Flibrary%2Fbusybox&tag=latest Berth-Pull=lazy"},
		{args: "run -d --pull=sometimes busybox", code: 125, errs: "invalid pull option: 'sometimes'"},
		{args: "run --help", out: `"lazy",`},
		{args: "push r.example:5000/team/web", out: "latest: digest: sha256:1 size: 5", asked: `POST /v1.56/images/r.example:5000/team/web/push?tag=latest auth={"username":"ann"`},
		{args: "push -a r.example:5000/team/web", asked: `POST /v1.56/images/r.example:5000/team/web/push auth`},
		{args: "push --plan r.example:5000/team/web:2", out: "would push\n", asked: `GET /berth/v1/images/r.example:5000/team/web/push?tag=2 auth={"username":"ann"`},
		{args: "image push --plan --platform linux/amd64 team/web", out: "would push\n", asked: `GET /berth/v1/images/docker.io/team/web/push?platform=%7B%22architecture%22%3A%22amd64%22%2C%22os%22%3A%22linux%22%7D&tag=latest`},
		{args: "search tomcat", out: "NAME      DESCRIPTION     STARS     OFFICIAL\ntomcat    Apache Tomcat   7         [OK]\n", asked: "GET /v1.56/images/search?term=tomcat"},
		{args: "search --limit 5 --filter stars=3 r.example:5000/web", asked: `GET /v1.56/images/search?filters=%7B%22stars%22%3A%7B%223%22%3Atrue%7D%7D&limit=5&term=r.example%3A5000%2Fweb auth={"username":"ann"`},
		{args: "pull --help", out: "berth pull --plan --platform linux/arm64"},
		{args: "push --help", out: "--plan"},
		{args: "search --help", out: "berth search registry.example:5000/web"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			r := &transferRecorder{missing: tt.missing}
			host := serve(t, r.ServeHTTP)
			out, errs, code := berth(t, append([]string{"--config", config, "-H", host}, strings.Fields(tt.args)...)...)
			if code != tt.code || !strings.Contains(out, tt.out) || !strings.Contains(errs, tt.errs) {
				t.Errorf("code %d, stdout:\n%s\nstderr: %s\nwant %d, %q, %q", code, out, errs, tt.code, tt.out, tt.errs)
			}
			if tt.asked != "" && !r.has(tt.asked) {
				t.Errorf("asked was\n%s\nwant %s", strings.Join(r.asked, "\n"), tt.asked)
			}
		})
	}
}

// helper is a credential helper that keeps secrets in a file: the protocol of docker-credential-*.
const helper = `#!/bin/sh
f=$(dirname "$0")/store
case $1 in
store) cat >"$f"; echo store >>"$f.log";;
get) read server; if [ -e "$f" ]; then cat "$f"; else echo 'credentials not found in native keychain'; exit 1; fi;;
erase) rm -f "$f"; echo erase >>"$f.log";;
list) if [ -e "$f" ]; then echo '{"r.example":"ann"}'; else echo '{}'; fi;;
esac
`

func TestLogin(t *testing.T) {
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stdin := func(t *testing.T, path string) {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		old := os.Stdin
		os.Stdin = f
		t.Cleanup(func() { os.Stdin = old; f.Close() })
	}
	t.Run("config.json", func(t *testing.T) {
		config := t.TempDir()
		host := serve(t, (&transferRecorder{}).ServeHTTP)
		stdin(t, password)
		out, errs, code := berth(t, "--config", config, "-H", host, "login", "-u", "ann", "--password-stdin", "r.example")
		if code != 0 || !strings.Contains(out, "Login Succeeded") {
			t.Fatalf("code %d, %q, %q", code, out, errs)
		}
		b, _ := os.ReadFile(filepath.Join(config, "config.json"))
		if !strings.Contains(string(b), `"auth": "`+base64.StdEncoding.EncodeToString([]byte("ann:secret"))) {
			t.Errorf("config.json has %s", b)
		}
		if out, _, code := berth(t, "--config", config, "-H", host, "logout", "r.example"); code != 0 || !strings.Contains(out, "Removing login credentials for r.example") {
			t.Errorf("logout: %d %q", code, out)
		}
		if b, _ := os.ReadFile(filepath.Join(config, "config.json")); strings.Contains(string(b), "r.example") {
			t.Errorf("config.json has %s", b)
		}
	})
	t.Run("identity token", func(t *testing.T) {
		config := t.TempDir()
		r := &transferRecorder{token: "refresh"}
		host := serve(t, r.ServeHTTP)
		if _, errs, code := berth(t, "--config", config, "-H", host, "login", "-u", "ann", "-p", "secret", "r.example"); code != 0 {
			t.Fatal(errs)
		}
		b, _ := os.ReadFile(filepath.Join(config, "config.json"))
		if !strings.Contains(string(b), `"identitytoken": "refresh"`) || strings.Contains(string(b), base64.StdEncoding.EncodeToString([]byte("ann:secret"))) {
			t.Errorf("config.json has %s", b)
		}
		if _, errs, code := berth(t, "--config", config, "-H", host, "pull", "r.example/a"); code != 0 || !r.has(`POST /v1.56/images/create?fromImage=r.example%2Fa&tag=latest auth={"username":"ann","serveraddress":"r.example","identitytoken":"refresh"}`) {
			t.Errorf("%q, asked %q", errs, r.asked)
		}
	})
	t.Run("wrong password", func(t *testing.T) {
		config := t.TempDir()
		host := serve(t, (&transferRecorder{}).ServeHTTP)
		_, errs, code := berth(t, "--config", config, "-H", host, "login", "-u", "ann", "-p", "bad", "r.example")
		if code != 1 || !strings.Contains(errs, "unauthorized: incorrect username or password") {
			t.Errorf("code %d, %q", code, errs)
		}
		if _, err := os.Stat(filepath.Join(config, "config.json")); err == nil {
			t.Error("config.json was written")
		}
	})
	t.Run("credential helper", func(t *testing.T) {
		config, bin := t.TempDir(), t.TempDir()
		if err := os.WriteFile(filepath.Join(bin, "docker-credential-berthtest"), []byte(helper), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(config, "config.json"), []byte(`{"credsStore":"berthtest"}`), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
		r := &transferRecorder{}
		host := serve(t, r.ServeHTTP)
		if _, errs, code := berth(t, "--config", config, "-H", host, "login", "-u", "ann", "-p", "secret", "r.example"); code != 0 {
			t.Fatal(errs)
		}
		kept, _ := os.ReadFile(filepath.Join(bin, "store"))
		if !strings.Contains(string(kept), `"Username":"ann"`) || !strings.Contains(string(kept), `"Secret":"secret"`) {
			t.Errorf("the helper keeps %s", kept)
		}
		if b, _ := os.ReadFile(filepath.Join(config, "config.json")); strings.Contains(string(b), "secret") || !strings.Contains(string(b), `"r.example": {}`) {
			t.Errorf("config.json has %s", b)
		}
		if _, errs, code := berth(t, "--config", config, "-H", host, "pull", "r.example/a"); code != 0 || !r.has(`POST /v1.56/images/create?fromImage=r.example%2Fa&tag=latest auth={"username":"ann","password":"secret","serveraddress":"r.example"}`) {
			t.Errorf("%q, asked %q", errs, r.asked)
		}
		if out, errs, code := berth(t, "--config", config, "-H", host, "logout", "r.example"); code != 0 {
			t.Errorf("logout: %d %q %q", code, out, errs)
		}
		if _, err := os.Stat(filepath.Join(bin, "store")); err == nil {
			t.Error("the helper still has the secret")
		}
	})
}
