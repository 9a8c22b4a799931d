package distribution_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/registry/access"
	"berth/registry/distribution"
	"berth/registry/notice"
	"berth/registry/storage"
	"berth/registry/storage/dir"
)

func store(t testing.TB) *storage.Store {
	t.Helper()
	d, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s, err := storage.Open(t.Context(), d, storage.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func ask(t *testing.T, h http.Handler, method, path, body string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	for _, x := range header {
		k, v, _ := strings.Cut(x, ": ")
		req.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

func code(w *httptest.ResponseRecorder) string {
	var e struct{ Errors []struct{ Code string } }
	json.Unmarshal(w.Body.Bytes(), &e)
	if len(e.Errors) == 0 {
		return ""
	}
	return e.Errors[0].Code
}

// rights is a decider for tests: "NAME REPOSITORY ACTION" lines.
type rights []string

func (r rights) Allowed(_ context.Context, s access.Subject, repository string, a access.Action) (bool, error) {
	if repository == "broken" {
		return false, fault.New(fault.Unavailable, "the rights cannot be read")
	}
	return s.Limit.Has(repository, a) && slices.Contains(r, strings.TrimSpace(fmt.Sprintf("%s %s %s", s.Name, repository, a))), nil
}

// who takes the Authorization header for the name; "narrow" has a token that is good for pulling only.
func who(r *http.Request) (access.Subject, error) {
	switch name := r.Header.Get("Authorization"); name {
	case "wrong":
		return access.Subject{}, fault.New(fault.Unauthorized, "incorrect username or password")
	case "down":
		return access.Subject{}, fault.New(fault.Unavailable, "the directory does not answer")
	case "narrow":
		return access.Subject{Name: "alice", Limit: &access.Limit{Every: []access.Action{access.Pull}}}, nil
	case "anonymous-token":
		return access.Subject{}, nil
	default:
		return access.Subject{Name: name}, nil
	}
}

// What callers without rights are told: how to sign in, or no, each in the words that clients show.
func TestRights(t *testing.T) {
	challenged := ""
	h := distribution.New(distribution.Config{
		Storage: store(t),
		Who:     who,
		Access:  rights{"alice team/web pull", "alice team/web push", "alice team/web delete", "bob team/web pull", "public/x pull"},
		Challenge: func(w http.ResponseWriter, _ *http.Request, repo string, actions ...access.Action) {
			challenged = fmt.Sprint(repo, actions)
			w.Header().Set("WWW-Authenticate", "Bearer")
		},
	})
	const put, uploads, manifest, blob = "/v2/team/web/manifests/1", "/v2/team/web/blobs/uploads/", "/v2/team/web/manifests/1", "/v2/team/web/blobs/sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
	for _, c := range []struct {
		method, path, as string
		status           int
		code, challenge  string
	}{
		{"GET", "/v2/", "", 401, "UNAUTHORIZED", "[]"},
		{"GET", "/v2/", "wrong", 401, "UNAUTHORIZED", "[]"},
		{"GET", "/v2/", "down", 503, "TOOMANYREQUESTS", ""},
		{"GET", "/v2/", "alice", 200, "", ""},
		{"GET", "/v2/", "anonymous-token", 200, "", ""},
		{"GET", manifest, "", 401, "UNAUTHORIZED", "team/web[pull]"},
		{"GET", manifest, "anonymous-token", 401, "DENIED", "team/web[pull]"},
		{"GET", manifest, "mallory", 403, "DENIED", ""},
		{"GET", manifest, "bob", 404, "MANIFEST_UNKNOWN", ""},
		{"GET", "/v2/no/such/manifests/1", "mallory", 403, "DENIED", ""}, // whether it exists is not told
		{"GET", "/v2/public/x/manifests/1", "", 404, "MANIFEST_UNKNOWN", ""},
		{"GET", blob, "mallory", 403, "DENIED", ""},
		{"GET", "/v2/team/web/tags/list", "mallory", 403, "DENIED", ""},
		{"GET", "/v2/team/web/referrers/sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", "mallory", 403, "DENIED", ""},
		{"POST", uploads, "", 401, "UNAUTHORIZED", "team/web[pull push]"},
		{"POST", uploads, "bob", 403, "DENIED", ""},
		{"POST", uploads, "narrow", 401, "DENIED", "team/web[pull push]"},
		{"POST", uploads, "alice", 202, "", ""},
		{"PUT", put, "bob", 403, "DENIED", ""},
		{"DELETE", manifest, "bob", 403, "DENIED", ""},
		{"DELETE", manifest, "alice", 404, "MANIFEST_UNKNOWN", ""},
		{"DELETE", blob, "bob", 403, "DENIED", ""},
		{"GET", "/v2/broken/manifests/1", "alice", 503, "TOOMANYREQUESTS", ""},
	} {
		challenged = ""
		w := ask(t, h, c.method, c.path, "", "Authorization: "+c.as)
		if w.Code != c.status || code(w) != c.code || challenged != c.challenge {
			t.Errorf("%s %s as %q: %d %s challenge %q, want %d %s %q", c.method, c.path, c.as, w.Code, code(w), challenged, c.status, c.code, c.challenge)
		}
	}
}

// Whoever may not read a repository cannot get its blobs by mounting them, nor learn that they are there.
func TestMountNeedsPull(t *testing.T) {
	s := store(t)
	secret, err := s.PutBlob(t.Context(), "secret/x", digest.FromString("secret"), strings.NewReader("secret"))
	if err != nil {
		t.Fatal(err)
	}
	h := distribution.New(distribution.Config{Storage: s, Who: who, Access: rights{"mallory own/x pull", "mallory own/x push", "alice own/x pull", "alice own/x push", "alice secret/x pull"}})
	for _, query := range []string{"&from=secret/x", ""} {
		path := "/v2/own/x/blobs/uploads/?mount=" + secret.Digest.String() + query
		if w := ask(t, h, "POST", path, "", "Authorization: mallory"); w.Code != 202 {
			t.Errorf("%s: %d, want an upload", path, w.Code)
		}
	}
	if w := ask(t, h, "GET", "/v2/own/x/blobs/"+secret.Digest.String(), "", "Authorization: mallory"); w.Code != 404 {
		t.Errorf("the blob: %d", w.Code)
	}
	if w := ask(t, h, "POST", "/v2/own/x/blobs/uploads/?mount="+secret.Digest.String(), "", "Authorization: alice"); w.Code != 201 {
		t.Errorf("alice, who may read it: %d", w.Code)
	}
}

// far is a storage to which each question takes long once it is slow.
type far struct {
	storage.Driver
	slow atomic.Bool
}

func (f *far) Stat(ctx context.Context, key string) (storage.Entry, error) {
	if f.slow.Load() {
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return storage.Entry{}, ctx.Err()
		}
	}
	return f.Driver.Stat(ctx, key)
}

// Where it is known who holds a blob nobody need be asked: a mount without a source finds it behind many other repositories of a slow storage.
func TestMountFromWhoIsKnown(t *testing.T) {
	driver, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f := &far{Driver: driver}
	s, err := storage.Open(t.Context(), f, storage.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	for i := range 20 {
		if _, err := s.PutBlob(t.Context(), fmt.Sprintf("a/%d", i), digest.FromString("other"), strings.NewReader("other")); err != nil {
			t.Fatal(err)
		}
	}
	d := digest.FromString("wanted")
	if _, err := s.PutBlob(t.Context(), "b", d, strings.NewReader("wanted")); err != nil {
		t.Fatal(err)
	}
	h := distribution.New(distribution.Config{Storage: s})
	f.slow.Store(true)
	if w := ask(t, h, "HEAD", "/v2/b/blobs/"+d.String(), ""); w.Code != 200 {
		t.Fatal(w.Code)
	}
	if w := ask(t, h, "POST", "/v2/c/blobs/uploads/?mount="+d.String(), ""); w.Code != 201 {
		t.Errorf("%d, want a mount", w.Code)
	}
}

// A token that is good for the target only is to be exchanged for one that is good for the source too, if its owner may read that.
func TestMountAsksForAWiderToken(t *testing.T) {
	s := store(t)
	blob, err := s.PutBlob(t.Context(), "from/x", digest.FromString("x"), strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	h := distribution.New(distribution.Config{Storage: s, Access: rights{"alice to/x pull", "alice to/x push", "alice from/x pull"},
		Who: func(r *http.Request) (access.Subject, error) {
			limit := &access.Limit{Scopes: []access.Scope{{Repository: "to/x", Actions: []access.Action{access.Pull, access.Push}}}}
			return access.Subject{Name: "alice", Limit: limit}, nil
		},
		Challenge: func(w http.ResponseWriter, _ *http.Request, repo string, actions ...access.Action) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="r",scope="repository:`+repo+`:pull,push"`)
		}})
	w := ask(t, h, "POST", "/v2/to/x/blobs/uploads/?from=from/x&mount="+blob.Digest.String(), "", "Authorization: alice")
	if got := w.Header().Get("WWW-Authenticate"); w.Code != 401 || got != `Bearer realm="r",scope="repository:from/x:pull repository:to/x:pull,push"` {
		t.Errorf("%d %s", w.Code, got)
	}
	if w := ask(t, h, "POST", "/v2/to/x/blobs/uploads/?from=secret/x&mount="+blob.Digest.String(), "", "Authorization: alice"); w.Code != 202 {
		t.Errorf("a source that she may not read: %d", w.Code)
	}
}

func TestCatalogShowsWhatMayBePulled(t *testing.T) {
	s := store(t)
	for _, repo := range []string{"a/x", "b/y", "c/z"} {
		if _, err := s.PutBlob(t.Context(), repo, digest.FromString("x"), strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
	}
	h := distribution.New(distribution.Config{Storage: s, Who: who, Access: rights{"alice a/x pull", "alice c/z pull"}})
	if got := ask(t, h, "GET", "/v2/_catalog?n=1", "", "Authorization: alice"); strings.TrimSpace(got.Body.String()) != `{"repositories":["a/x"]}` || got.Header().Get("Link") != `</v2/_catalog?last=a%2Fx&n=1>; rel="next"` {
		t.Errorf("%s, Link %s", got.Body, got.Header().Get("Link"))
	}
	if got := ask(t, h, "GET", "/v2/_catalog?n=1&last=a/x", "", "Authorization: alice").Body.String(); got != `{"repositories":["c/z"]}` {
		t.Error(got)
	}
	if got := ask(t, h, "GET", "/v2/_catalog", "", "Authorization: mallory").Body.String(); got != `{"repositories":[]}` {
		t.Error(got)
	}
}

func image(t *testing.T, h http.Handler, repo string) string {
	t.Helper()
	for _, b := range []string{"{}", "layer"} {
		if w := ask(t, h, "POST", "/v2/"+repo+"/blobs/uploads/?digest="+digest.FromString(b).String(), b); w.Code != 201 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromString("{}"), Size: 2},
		Layers: []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString("layer"), Size: 5}}}
	m.SchemaVersion = 2
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestEvents(t *testing.T) {
	var events []notice.Event
	h := distribution.New(distribution.Config{Storage: store(t), Who: who, Events: func(e notice.Event) { events = append(events, e) }})
	m := image(t, h, "a")
	d := digest.FromString(m)
	ask(t, h, "POST", "/v2/b/blobs/uploads/?mount="+digest.FromString("layer").String()+"&from=a", "")
	ask(t, h, "PUT", "/v2/a/manifests/1", m, "Authorization: alice", "Content-Type: "+ocispec.MediaTypeImageManifest, "User-Agent: test")
	ask(t, h, "PUT", "/v2/a/manifests/"+d.String()+"?tag=2&tag=3", m, "Content-Type: "+ocispec.MediaTypeImageManifest)
	ask(t, h, "HEAD", "/v2/a/manifests/1", "")
	ask(t, h, "GET", "/v2/a/manifests/1", "")
	ask(t, h, "GET", "/v2/a/blobs/"+digest.FromString("layer").String(), "")
	ask(t, h, "GET", "/v2/a/manifests/none", "")
	ask(t, h, "DELETE", "/v2/a/manifests/2", "")
	ask(t, h, "DELETE", "/v2/a/manifests/"+d.String(), "")
	short := map[digest.Digest]string{d: "manifest", digest.FromString("{}"): "config", digest.FromString("layer"): "layer"}
	var got []string
	for _, e := range events {
		if e.ID == "" || e.At.IsZero() || e.Request.ID == "" || e.Request.Addr == "" {
			t.Errorf("%+v", e)
		}
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s %s %s", e.Action, e.Repository, short[e.Digest], e.Tag, e.From)))
	}
	want := []string{"push a config", "push a layer", "mount b layer  a", "push a manifest 1", "push a manifest 2", "push a manifest 3", "pull a manifest 1", "pull a layer", "delete a manifest 2", "delete a manifest"}
	if !slices.Equal(got, want) {
		t.Errorf("events\n%q, want\n%q", got, want)
	}
	push := events[3]
	if push.Actor.Name != "alice" || push.Request.UserAgent != "test" || push.Request.Method != "PUT" || push.MediaType != ocispec.MediaTypeImageManifest || push.Size != int64(len(m)) || len(push.References) != 2 {
		t.Errorf("%+v", push)
	}
}

// upstream has one image for everything below "hub/".
type upstream struct {
	manifest string
	asked    []string
}

func (u *upstream) Covers(repository string) bool { return strings.HasPrefix(repository, "hub/") }

func (u *upstream) Manifest(_ context.Context, repository, reference string) (*distribution.Manifest, error) {
	u.asked = append(u.asked, repository+" "+reference)
	if reference == "none" {
		return nil, fault.New(fault.NotFound, "no such tag")
	}
	return &distribution.Manifest{Manifest: storage.Manifest{Record: storage.Record{Digest: digest.FromString(u.manifest), MediaType: ocispec.MediaTypeImageManifest, Size: int64(len(u.manifest))}, Content: []byte(u.manifest)},
		Age: 90 * time.Second, Warning: "the upstream does not answer"}, nil
}

func (u *upstream) Blob(_ context.Context, repository string, d digest.Digest, w http.ResponseWriter, r *http.Request) error {
	if d != digest.FromString("layer") {
		return fault.New(fault.NotFound, "no such blob")
	}
	io.WriteString(w, "layer")
	return nil
}

func TestUpstream(t *testing.T) {
	u := &upstream{manifest: `{"schemaVersion":2}`}
	h := distribution.New(distribution.Config{Storage: store(t), Upstream: u})
	w := ask(t, h, "GET", "/v2/hub/x/manifests/latest", "")
	if w.Code != 200 || w.Body.String() != u.manifest || w.Header().Get("Age") != "90" || w.Header().Get("Warning") != `299 - "the upstream does not answer"` {
		t.Errorf("%d %s %v", w.Code, w.Body, w.Header())
	}
	for path, want := range map[string]int{
		"/v2/hub/x/manifests/none": 404, "/v2/own/x/manifests/latest": 404,
		"/v2/hub/x/blobs/" + digest.FromString("layer").String(): 200, "/v2/hub/x/blobs/" + digest.FromString("y").String(): 404, "/v2/own/x/blobs/" + digest.FromString("layer").String(): 404,
	} {
		if w := ask(t, h, "GET", path, ""); w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
}

// A client that stops in the middle of a body is given up, and can go on where it was.
func TestSlowClient(t *testing.T) {
	s := httptest.NewServer(distribution.New(distribution.Config{Storage: store(t), Idle: 200 * time.Millisecond}))
	defer s.Close()
	r, err := http.Post(s.URL+"/v2/a/blobs/uploads/", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	u := s.URL + r.Header.Get("Location")
	body, w := io.Pipe()
	go w.Write([]byte("some"))
	req, _ := http.NewRequest("PATCH", u, body)
	if r, err := http.DefaultClient.Do(req); err == nil {
		r.Body.Close()
		if r.StatusCode < 400 {
			t.Errorf("a body that does not go on: %s", r.Status)
		}
	}
	w.Close()
	if r, err = http.Get(u); err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != 204 || r.Header.Get("Range") != "0-3" {
		t.Fatalf("the upload stands at %s (%s)", r.Header.Get("Range"), r.Status)
	}
	req, _ = http.NewRequest("PUT", u+"?digest="+digest.FromString("some more").String(), strings.NewReader(" more"))
	if r, err = http.DefaultClient.Do(req); err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != 201 {
		t.Errorf("going on: %s", r.Status)
	}
}

// FuzzRequest sends any path with any method: never a 5xx, never a panic, and nothing outside of the root is touched.
func FuzzRequest(f *testing.F) {
	for _, p := range []string{"/v2/", "/v2/_catalog?n=1", "/v2/a/b/manifests/latest", "/v2/a/blobs/sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", "/v2/a/blobs/uploads/",
		"/v2/a/blobs/uploads/0123456789abcdef0123456789abcdef?digest=sha256:x", "/v2/a/tags/list?n=2&last=x", "/v2/a/referrers/sha512:00", "/v2/../x/manifests/y", "/v2/a/blobs/uploads/?mount=sha256:ab&from=../.."} {
		f.Add("GET", p, "x")
		f.Add("POST", p, "x")
		f.Add("PUT", p, `{"schemaVersion":2}`)
	}
	h := distribution.New(distribution.Config{Storage: store(f)})
	f.Fuzz(func(t *testing.T, method, path, body string) {
		req, err := http.NewRequest(method, "http://registry"+path, strings.NewReader(body))
		if err != nil {
			t.Skip()
		}
		req.RemoteAddr = "127.0.0.1:1"
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		if w.Code >= 500 {
			t.Errorf("%s %q: %d %s", method, path, w.Code, w.Body)
		}
	})
}

// A client that sends the whole of a manifest before it reads is told that it is too large, whether it said how large it is or not.
func TestManifestTooLargeIsSaid(t *testing.T) {
	server := httptest.NewServer(distribution.New(distribution.Config{Storage: store(t)}))
	defer server.Close()
	for _, head := range []string{"Content-Length: 6291456\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n600000\r\n"} {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprintf(conn, "PUT /v2/a/b/manifests/1 HTTP/1.1\r\nHost: r\r\nContent-Type: %s\r\n%s", ocispec.MediaTypeImageManifest, head)
		if _, err := conn.Write(make([]byte, 6<<20)); err != nil {
			t.Fatalf("%q: %v", head, err)
		}
		io.WriteString(conn, "\r\n0\r\n\r\n")
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%q: %v", head, err)
		}
		if answer.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("%q: %s", head, answer.Status)
		}
	}
}
