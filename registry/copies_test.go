package registry

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/crypto/bcrypt"

	"berth/base/fault"
	"berth/base/ref"
	client "berth/image/remote"
	"berth/registry/guard"
	"berth/registry/replicate"
	"berth/registry/upstream"
)

// guarded starts a registry with the administrator ann, whose password is secret, and gives its host.
func guarded(t *testing.T) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(file, []byte("ann:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, host := open(t, Config{Htpasswd: file, Auth: guard.Config{RememberedFor: 1}, Log: slog.New(slog.DiscardHandler)})
	return host
}

// TestOurClient goes to a registry with users as the engine does: token, push, mount, words of refusals, login.
func TestOurClient(t *testing.T) {
	host := guarded(t)
	c, err := client.New(client.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ann := client.Credentials{Username: "ann", Password: "secret", ServerAddress: host}
	at := func(path string, cred client.Credentials) *client.Repository {
		r, err := ref.Parse(host + path)
		if err != nil {
			t.Fatal(err)
		}
		return c.Repository(r, cred)
	}
	layer := bytes.Repeat([]byte("layer"), 200_000)
	desc := ocispec.Descriptor{Digest: digest.FromBytes(layer), Size: int64(len(layer))}
	open := func(offset int64) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer[offset:])), nil }
	web := at("/ann/web", ann)
	if err := web.PushBlob(t.Context(), desc, open); err != nil {
		t.Fatal(err)
	}
	m := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":%d},"layers":[]}`, ocispec.MediaTypeImageManifest, desc.Digest, desc.Size)
	if _, err := web.PushManifest(t.Context(), "2", ocispec.MediaTypeImageManifest, m); err != nil {
		t.Fatal(err)
	}
	if ok, err := at("/ann/other", ann).Mount(t.Context(), desc.Digest, "ann/web"); err != nil || !ok {
		t.Errorf("mount: %v %v", ok, err)
	}
	if d, err := web.Resolve(t.Context(), "2"); err != nil || d.Digest != digest.FromBytes(m) {
		t.Errorf("%v %v", d, err)
	}

	for who, cred := range map[string]client.Credentials{"nobody": {}, "wrong": {Username: "ann", Password: "wrong"}} {
		_, err := at("/ann/web", cred).Manifest(t.Context(), "2")
		if err == nil || !strings.Contains(err.Error(), "denied") && !strings.Contains(err.Error(), "unauthorized") {
			t.Errorf("%s pulls: %v", who, err)
		}
		err = at("/ann/web", cred).PushBlob(t.Context(), desc, open)
		if k := fault.KindOf(err); k != fault.Unauthorized && k != fault.Forbidden {
			t.Errorf("%s pushes: %v (%v)", who, err, k)
		}
		t.Logf("%s: %v", who, err)
	}
	status, refresh, err := c.Login(t.Context(), ann)
	if err != nil || status != "Login Succeeded" {
		t.Fatalf("%q %v", status, err)
	}
	if refresh != "" { // what docker keeps instead of the password
		if _, err := at("/ann/web", client.Credentials{Username: "<token>", IdentityToken: refresh}).Manifest(t.Context(), "2"); err != nil {
			t.Errorf("with the identity token: %v", err)
		}
		if _, err := c.Search(t.Context(), host+"/web", 25, client.Credentials{Username: "<token>", IdentityToken: refresh}); err != nil {
			t.Errorf("search with the identity token: %v", err)
		}
	} else {
		t.Error("the login gave no identity token")
	}
	var found []client.SearchResult
	for end := time.Now().Add(time.Minute); time.Now().Before(end); { // the catalog reads a repository a moment after its push
		if found, err = c.Search(t.Context(), host+"/web", 25, ann); len(found) > 0 || err != nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil || len(found) == 0 {
		t.Errorf("search with the password: %v %v", found, err)
	}
	if found, err := c.Search(t.Context(), host+"/web", 25, client.Credentials{}); err == nil && len(found) != 0 {
		t.Errorf("a private repository was found by nobody: %v", found)
	}
	ann.Password = "wrong"
	if _, _, err := c.Login(t.Context(), ann); !fault.Is(err, fault.Unauthorized) {
		t.Errorf("login with a wrong password: %v", err)
	}
}

// TestMirrors pulls an index from two registries through one, which has it when they are gone; and goes on when it starts again.
func TestMirrors(t *testing.T) {
	var off bool
	_, one := open(t, Config{})
	inner, err := Open(Config{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if off {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	defer s.Close()
	two := strings.TrimPrefix(s.URL, "http://")

	ix, err := random.Index(20_000, 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	im, err := random.Image(20_000, 2)
	if err != nil {
		t.Fatal(err)
	}
	tag := func(s string) name.Tag {
		n, err := name.NewTag(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if err := remote.WriteIndex(tag(two+"/big/index:1"), ix); err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag(one+"/team/web:1"), im); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Root: t.TempDir(), Copies: Copies{Mirrors: []upstream.Source{{Name: "one", Registry: "http://" + one, Prefix: "one"}, {Name: "two", Registry: "http://" + two, Fresh: 1}}}}
	for round := range 2 {
		r, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		m := httptest.NewServer(r)
		host := strings.TrimPrefix(m.URL, "http://")
		got, err := remote.Index(tag(host + "/big/index:1"))
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if err := validate.Index(got); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		img, err := remote.Image(tag(host + "/one/team/web:1"))
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if err := validate.Image(img); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		if round == 0 {
			if err := remote.Write(tag(host+"/own/app:1"), im); err != nil {
				t.Errorf("a push beside mirrors: %v", err)
			}
			for end := time.Now().Add(time.Minute); time.Now().Before(end); { // the storage takes what the clients had a moment ago
				if _, err := r.Store().Manifest(t.Context(), "big/index", "1"); err == nil {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
		}
		status, body := fetch(t, m.URL+"/berth/registry/v1/mirrors")
		if !strings.Contains(body, `"name":"two"`) || strings.Contains(body, "password") {
			t.Errorf("mirrors: %d %s", status, body)
		}
		m.Close()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		off = true
	}
}

// TestReplication sends what is pushed to a registry with users.
func TestReplication(t *testing.T) {
	target := guarded(t)
	r, host := open(t, Config{Copies: Copies{Replication: []replicate.Rule{{Name: "dr", Registry: "http://" + target, Repositories: []string{"**"}, Prefix: "ann", Username: "ann", Password: "secret"}}}})
	push(t, r, host+"/web:1")
	c, err := client.New(client.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	web, err := ref.Parse(target + "/ann/web")
	if err != nil {
		t.Fatal(err)
	}
	there := c.Repository(web, client.Credentials{Username: "ann", Password: "secret"})
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if _, err = there.Manifest(t.Context(), "1"); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	status, body := fetch(t, "http://"+host+"/berth/registry/v1/replication")
	t.Errorf("%v\n%d %s", err, status, body)
}

// hostsFor makes a directory that says that a registry has a mirror.
func hostsFor(t *testing.T, registry, mirror string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, registry), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, registry, "hosts.toml"), []byte("[host.\"http://"+mirror+"\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// administer makes a request to the administrator's routes and gives the answer.
func administer(t *testing.T, method, url, body string, header ...string) (int, string) {
	t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, url, r)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// TestCopiesOfDebiansRegistry fetches from docker-registry and replicates to another one, set up by the administrator's routes.
func TestCopiesOfDebiansRegistry(t *testing.T) {
	from, to := debianRegistry(t), debianRegistry(t)
	_, host := open(t, Config{SparseIndexes: true})
	admin := "http://" + host + "/berth/registry/v1"
	ix, err := random.Index(10_000, 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	tag := func(s string) name.Tag {
		n, err := name.NewTag(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if err := remote.WriteIndex(tag(from+"/team/web:1"), ix); err != nil {
		t.Fatal(err)
	}
	want, err := ix.Digest()
	if err != nil {
		t.Fatal(err)
	}

	if code, body := administer(t, http.MethodPut, admin+"/mirrors/deb", `{"registry":"http://`+from+`","prefix":"deb","fresh":"10m"}`); code != 204 {
		t.Fatalf("%d %s", code, body)
	}
	if code, body := administer(t, http.MethodPut, admin+"/mirrors/deb", `{"registry":"a b"}`); code != 400 || !strings.Contains(body, "is no registry") {
		t.Errorf("%d %s", code, body)
	}
	if code, body := administer(t, http.MethodPost, admin+"/mirrors/deb/check", ""); code != 200 || !strings.Contains(body, `"answers":true`) {
		t.Errorf("%d %s", code, body)
	}
	got, err := remote.Index(tag(host + "/deb/team/web:1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(got); err != nil {
		t.Error(err)
	}
	// one mirror for many registries: clients say whose content they mean
	byName, err := client.New(client.Config{HostsDirs: []string{hostsFor(t, from, host)}})
	if err != nil {
		t.Fatal(err)
	}
	defer byName.Close()
	theirs, err := ref.Parse(from + "/team/web")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := byName.Repository(theirs, client.Credentials{}).Manifest(t.Context(), "1")
	if err != nil || doc.From != host || doc.Digest.String() != want.String() {
		t.Errorf("by ns: %+v %v", doc, err)
	}
	if _, err := byName.Repository(theirs, client.Credentials{}).Referrers(t.Context(), digest.Digest(want.String()), ""); err != nil {
		t.Errorf("referrers: %v", err)
	}
	if code, body := administer(t, http.MethodGet, admin+"/mirrors/deb", ""); code != 200 || !strings.Contains(body, `"copies":1`) || !strings.Contains(body, `"fresh":"10m0s"`) {
		t.Errorf("%d %s", code, body)
	}

	if code, body := administer(t, http.MethodPut, admin+"/replication/out", `{"registry":"http://`+to+`","repositories":["deb/**"]}`); code != 204 {
		t.Fatalf("%d %s", code, body)
	}
	var plan string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); { // the copy is stored behind the pull
		code := 0
		if code, plan = administer(t, http.MethodPost, admin+"/replication/out/plan", "", "Accept", "text/plain"); code != 200 {
			t.Fatalf("%d %s", code, plan)
		}
		if strings.Contains(plan, "1 to do") {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if !strings.Contains(plan, "push    deb/team/web:1 → "+to+"/deb/team/web:1  "+want.String()[:19]) {
		t.Errorf("the plan is\n%s", plan)
	}
	if code, body := administer(t, http.MethodPost, admin+"/replication/out/apply", `{"plan":"0000000000000000"}`); code != 409 {
		t.Errorf("%d %s", code, body)
	}
	if code, body := administer(t, http.MethodPost, admin+"/replication/out/apply", ""); code != 200 || !strings.Contains(body, `"action":"push"`) {
		t.Errorf("%d %s", code, body)
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if there, err := remote.Index(tag(to + "/deb/team/web:1")); err == nil {
			if err := validate.Index(there); err != nil {
				t.Error(err)
			}
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if d, err := remote.Head(tag(to + "/deb/team/web:1")); err != nil || d.Digest != want {
		_, jobs := administer(t, http.MethodGet, admin+"/replication/out/jobs", "")
		t.Errorf("%v %v\n%s", d, err, jobs)
	}
	for _, path := range []string{"/mirrors/deb", "/replication/out"} {
		if code, body := administer(t, http.MethodDelete, admin+path, ""); code != 204 {
			t.Errorf("%d %s", code, body)
		}
		if code, body := administer(t, http.MethodGet, admin+path, ""); code != 404 {
			t.Errorf("%d %s", code, body)
		}
	}
}
