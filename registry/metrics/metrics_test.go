package metrics

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/registry/access"
	"berth/registry/door"
)

func testDoor() *door.Door {
	return &door.Door{Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Who: func(r *http.Request) (access.Subject, error) {
		user, _, _ := r.BasicAuth()
		return access.Subject{Name: user, Admin: user == "root"}, nil
	}}
}

func look(m *Metrics, user string) (int, string) {
	r := httptest.NewRequest("GET", "/metrics", nil)
	if user != "" {
		r.SetBasicAuth(user, "x")
	}
	w := httptest.NewRecorder()
	m.Handler(testDoor()).ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func TestCounts(t *testing.T) {
	m := New(Config{Anonymous: true,
		Storage:  func() Storage { return Storage{1 << 20, 2} },
		Webhooks: func() []Queue { return []Queue{{Endpoint: "ci", Pending: 4, Delivered: 9}} }})
	h := m.Around(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if strings.Contains(r.URL.Path, "nosuch") {
			w.WriteHeader(404)
			return
		}
		if strings.Contains(r.URL.Path, "uploads") {
			_, body := look(m, "")
			if !strings.Contains(body, "berth_registry_uploads_in_flight 1\n") {
				t.Error("the running upload is not seen")
			}
		}
		w.Write([]byte("12345"))
	}))
	for _, q := range []struct{ method, path, body string }{
		{"GET", "/v2/team/web/manifests/2", ""}, {"GET", "/v2/team/nosuch/manifests/2", ""}, {"GET", "/v2/a/blobs/sha256:x", ""},
		{"PATCH", "/v2/a/blobs/uploads/1", "1234567"}, {"INVENTED", "/x", ""},
	} {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(q.method, q.path, strings.NewReader(q.body)))
	}
	m.AuthFailure("password")
	m.Upstream("hub", "manifest", "miss", 100)
	m.Upstream("hub", "manifest", "hit", 0)
	m.Collected(1500*time.Millisecond, 3, 4096, nil)
	m.Collected(time.Second, 0, 0, errors.New("disk"))
	m.Retired(2, 1)
	_, body := look(m, "")
	for _, line := range []string{
		`berth_registry_requests_total{code="200",method="GET",route="manifest"} 1`,
		`berth_registry_requests_total{code="404",method="GET",route="manifest"} 1`,
		`berth_registry_requests_total{code="200",method="PATCH",route="upload"} 1`,
		`berth_registry_requests_total{code="200",method="other",route="page"} 1`,
		`berth_registry_received_bytes_total{route="upload"} 7`,
		`berth_registry_sent_bytes_total{route="blob"} 5`,
		`berth_registry_auth_failures_total{reason="password"} 1`,
		`berth_registry_upstream_requests_total{kind="manifest",result="hit",upstream="hub"} 1`,
		`berth_registry_upstream_bytes_total{upstream="hub"} 100`,
		`berth_registry_gc_runs_total{result="ok"} 1`, `berth_registry_gc_runs_total{result="error"} 1`,
		`berth_registry_gc_bytes_total 4096`,
		`berth_registry_retention_removed_total{what="tag"} 2`,
		`berth_registry_storage_bytes 1.048576e+06`, `berth_registry_repositories 2`,
		`berth_registry_webhook_pending{endpoint="ci"} 4`, `berth_registry_webhook_delivered_total{endpoint="ci"} 9`,
		`berth_registry_uploads_in_flight 0`, `go_goroutines `, `process_resident_memory_bytes `,
	} {
		if !strings.Contains(body, line) {
			t.Errorf("missing: %s", line)
		}
	}
	if t.Failed() {
		t.Log(body)
	}
}

func TestWhoMayLook(t *testing.T) {
	m := New(Config{Readers: []string{"prometheus"}})
	for user, want := range map[string]int{"": 401, "bob": 403, "prometheus": 200, "root": 200} {
		if code, _ := look(m, user); code != want {
			t.Errorf("%q: %d, want %d", user, code, want)
		}
	}
}

func TestRoute(t *testing.T) {
	for path, want := range map[string]string{
		"/v2/": "ping", "/v2/_catalog": "catalog", "/v2/a/b/tags/list": "tags", "/v2/a/referrers/sha256:1": "referrers",
		"/v2/a/blobs/uploads/": "upload", "/v2/a/blobs/uploads/id": "upload", "/v2/a/blobs/sha256:1": "blob", "/v2/a/manifests/x": "manifest",
		"/v2/x": "other", "/": "page", "/r/team/web": "page", "/token": "token", "/v1/search": "search", "/berth/registry/v1/gc": "admin", "/metrics": "metrics",
	} {
		if got := Route(path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

// A file that is served must still go by sendfile: the counting writer must not hide io.ReaderFrom.
func TestFilesAreServedWhole(t *testing.T) {
	m := New(Config{Anonymous: true})
	file := filepath.Join(t.TempDir(), "f")
	os.WriteFile(file, make([]byte, 1<<20), 0o600)
	s := httptest.NewServer(m.Around(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := w.(io.ReaderFrom); !ok {
			t.Error("no io.ReaderFrom")
		}
		http.ServeFile(w, r, file)
	})))
	defer s.Close()
	resp, err := http.Get(s.URL + "/v2/a/blobs/sha256:1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if n, err := io.Copy(io.Discard, resp.Body); n != 1<<20 || err != nil {
		t.Fatal(n, err)
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); { // the count is made after the last byte has left
		if _, body := look(m, ""); strings.Contains(body, `berth_registry_sent_bytes_total{route="blob"} 1.048576e+06`) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the bytes are not counted")
}

func TestNilCountsNothing(t *testing.T) {
	var m *Metrics
	m.AuthFailure("x")
	m.Upstream("a", "b", "c", 1)
	m.Collected(0, 0, 0, nil)
	m.Retired(1, 1)
	if m.Around(http.NotFoundHandler()) == nil {
		t.Error("nil")
	}
}
