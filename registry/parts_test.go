package registry

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/crypto/bcrypt"

	"berth/registry/guard"
	"berth/registry/webhook"
)

// push puts an image into the registry and waits until the catalog knows it.
func push(t *testing.T, r *Registry, ref string) {
	t.Helper()
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	img, err := random.Image(1000, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, img); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := r.Catalog().Settle(ctx); err != nil {
		t.Fatal(err)
	}
}

func fetch(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body)
}

func TestWhatIsPushedIsFoundCountedAndTold(t *testing.T) {
	told := make(chan webhook.Event, 100)
	ear := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var env webhook.Envelope
		json.NewDecoder(r.Body).Decode(&env)
		for _, e := range env.Events {
			told <- e
		}
	}))
	defer ear.Close()
	r, host := open(t, Config{Around: Around{Webhooks: []webhook.Endpoint{{Name: "ci", URL: ear.URL,
		Ignore: webhook.Ignore{MediaTypes: []string{"application/octet-stream"}}}}}})
	push(t, r, host+"/library/tomcat:9")

	if code, body := fetch(t, "http://"+host+"/v1/search?q=tomcat"); code != 200 || !strings.Contains(body, `"num_results":1`) ||
		!strings.Contains(body, `"name":"tomcat"`) || !strings.Contains(body, `"is_official":true`) {
		t.Errorf("search: %d %s", code, body)
	}
	if code, body := fetch(t, "http://"+host+"/v1/search?q=nosuch"); code != 200 || !strings.Contains(body, `"results":[]`) {
		t.Errorf("search: %d %s", code, body)
	}
	select {
	case e := <-told:
		if e.Action != "push" || e.Target.Repository != "library/tomcat" || e.Target.Tag != "9" {
			t.Errorf("told %+v", e)
		}
	case <-time.After(time.Minute):
		t.Error("nothing was told")
	}
	for _, line := range []string{`berth_registry_requests_total{code="201",method="PUT",route="manifest"} 1`, `berth_registry_repositories 1`,
		`berth_registry_webhook_pending{endpoint="ci"}`} {
		for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) { // a request is counted when its answer is out
			code, body := fetch(t, "http://"+host+"/metrics") // from this machine, and nobody is known: an administrator
			if code == 200 && strings.Contains(body, line) {
				break
			}
			if code != 200 || time.Now().After(end) {
				t.Errorf("metrics: %d, missing %s", code, line)
				break
			}
		}
	}
	if code, body := fetch(t, "http://"+host+"/berth/registry/v1/retention"); code != 200 || !strings.Contains(body, `"rules":[]`) {
		t.Errorf("retention: %d %s", code, body)
	}
	if code, body := fetch(t, "http://"+host+"/berth/registry/v1/catalog/entry/library/tomcat"); code != 200 || !strings.Contains(body, `"pushes":1`) {
		t.Errorf("entry: %d %s", code, body)
	}
}

func TestPagesKnowTheGuardsUsers(t *testing.T) {
	write := func(file, password string) {
		t.Helper()
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("alice:"+string(hash)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	users := filepath.Join(t.TempDir(), "users")
	write(users, "right")
	_, host := open(t, Config{Htpasswd: users, Auth: guard.Config{RememberedFor: 1}})
	jar, _ := cookiejar.New(nil)
	browser := &http.Client{Jar: jar}
	signIn := func(password string) string {
		t.Helper()
		resp, err := browser.Get("http://" + host + "/signin")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		_, form, _ := strings.Cut(string(body), `name="form" value="`)
		form, _, _ = strings.Cut(form, `"`)
		if resp, err = browser.PostForm("http://"+host+"/signin", url.Values{"form": {form}, "name": {"alice"}, "password": {password}}); err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ = io.ReadAll(resp.Body)
		return string(body)
	}
	if body := signIn("wrong"); !strings.Contains(body, "wrong") {
		t.Errorf("a wrong password:\n%s", body)
	}
	if body := signIn("right"); !strings.Contains(body, "Sign out") {
		t.Fatalf("the right password:\n%s", body)
	}
	write(users, "another")
	for end := time.Now().Add(time.Minute); time.Now().Before(end); { // a password file is looked at again within a moment
		resp, err := browser.Get("http://" + host + "/")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if !strings.Contains(string(body), "Sign out") {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Error("the session outlives its password")
}

func TestUnknownRoutesSaySo(t *testing.T) {
	_, host := open(t, Config{})
	if code, body := fetch(t, "http://"+host+"/berth/registry/v1/nosuch"); code != 404 || !strings.HasPrefix(body, `{"message":`) {
		t.Errorf("%d %s", code, body)
	}
	if code, body := fetch(t, "http://"+host+"/"); code != 200 || !strings.Contains(body, "Nothing has been pushed yet") || strings.Contains(body, "Sign in") {
		t.Errorf("%d %s", code, body)
	}
}

func TestMetricsHaveAnAddressOfTheirOwn(t *testing.T) {
	r, _ := open(t, Config{Addr: "127.0.0.1:0", Around: Around{MetricsAddr: "127.0.0.1:0"}})
	ctx, stop := context.WithCancel(t.Context())
	wait, err := r.serveMetrics(ctx)
	if err != nil {
		t.Fatal(err)
	}
	stop()
	wait()
}

// What podman prints is what can be pulled.
func TestSearchAsPodmanAsksIt(t *testing.T) {
	podman, err := exec.LookPath("podman")
	if err != nil {
		t.Skip("needs podman: its search is asked")
	}
	r, host := open(t, Config{})
	push(t, r, host+"/library/tomcat:9")
	out, err := exec.Command(podman, "--root", t.TempDir(), "--runroot", t.TempDir(), "search", "--tls-verify=false", host+"/tomcat").CombinedOutput()
	if err != nil || !strings.Contains(string(out), host+"/library/tomcat") {
		t.Errorf("%v\n%s", err, out)
	}
}
