package webhook

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/registry/access"
	"berth/registry/door"
	"berth/registry/notice"
)

// An ear is a server that remembers what it was told and fails as often as it is asked to.
type ear struct {
	*httptest.Server
	mu      sync.Mutex
	events  []Event
	headers []http.Header
	bodies  []string
	fail    int // answer 500 so often; negative: always
	calls   int
}

func listen(t *testing.T) *ear {
	e := &ear{}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		e.mu.Lock()
		defer e.mu.Unlock()
		e.calls++
		if e.fail != 0 {
			if e.fail > 0 {
				e.fail--
			}
			w.WriteHeader(500)
			return
		}
		var env Envelope
		if err := json.Unmarshal(body, &env); err != nil {
			t.Error(err)
		}
		e.events = append(e.events, env.Events...)
		e.headers = append(e.headers, r.Header)
		e.bodies = append(e.bodies, string(body))
	}))
	t.Cleanup(e.Close)
	return e
}

func (e *ear) setFail(n int) { e.mu.Lock(); defer e.mu.Unlock(); e.fail = n }

func (e *ear) heard() []Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]Event(nil), e.events...)
}

func (e *ear) called() int { e.mu.Lock(); defer e.mu.Unlock(); return e.calls }

// until waits for what other goroutines bring about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if ok() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("did not happen: %s", what)
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func open(t *testing.T, file string) *Webhooks {
	t.Helper()
	w, err := Open(Config{File: file, Source: Source{Addr: "registry:5000", InstanceID: "i"}, BaseURL: "https://reg.example", Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func pushed(i int) notice.Event {
	return notice.Event{ID: fmt.Sprint("id-", i), At: time.Now(), Action: notice.Push, Repository: "team/web", Tag: "2", Size: 528,
		Digest: digest.FromString("x"), MediaType: "application/vnd.oci.image.manifest.v1+json", Actor: access.Subject{Name: "alice"},
		Request: notice.Request{ID: "r", Addr: "10.0.0.1:5", Host: "h", Method: "PUT", UserAgent: "docker"}}
}

func status(t *testing.T, w *Webhooks, name string) Status {
	t.Helper()
	list, err := w.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range list {
		if l.Name == name {
			return l.Status
		}
	}
	t.Fatalf("no webhook %s", name)
	return Status{}
}

func TestTellsInDockersFormat(t *testing.T) {
	e, w := listen(t), open(t, filepath.Join(t.TempDir(), "w.db"))
	defer w.Close()
	err := w.Set(Endpoint{Name: "ci", URL: e.URL, Secret: "s3cret", Headers: http.Header{"Authorization": {"Bearer x"}}})
	if err != nil {
		t.Fatal(err)
	}
	n := pushed(1)
	n.At = time.Now().UTC().Truncate(time.Second)
	w.Notify(n)
	until(t, "it is told", func() bool { return len(e.heard()) == 1 })
	want := `{"events":[{"id":"id-1","timestamp":"` + n.At.Format(time.RFC3339) + `","action":"push","target":{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":528,"digest":"sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","length":528,"repository":"team/web","url":"https://reg.example/v2/team/web/manifests/sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","tag":"2"},"request":{"id":"r","addr":"10.0.0.1:5","host":"h","method":"PUT","useragent":"docker"},"actor":{"name":"alice"},"source":{"addr":"registry:5000","instanceID":"i"}}]}`
	if e.bodies[0] != want {
		t.Errorf("body\n%s\nwant\n%s", e.bodies[0], want)
	}
	h := e.headers[0]
	if h.Get("Content-Type") != MediaType || h.Get("Authorization") != "Bearer x" || h.Get("X-Berth-Signature") != sign("s3cret", []byte(want)) {
		t.Errorf("%v", h)
	}
	// RFC 4231, case 2.
	if got := sign("Jefe", []byte("what do ya want for nothing?")); got != "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843" {
		t.Error(got)
	}
	list, _ := w.List()
	if shown, _ := json.Marshal(list); strings.Contains(string(shown), "s3cret") || strings.Contains(string(shown), "Bearer") {
		t.Errorf("secrets are shown: %s", shown)
	}
}

func TestFilters(t *testing.T) {
	for i, c := range []struct {
		e    Endpoint
		v    Event
		want bool
	}{
		{Endpoint{}, Event{Action: "pull"}, true},
		{Endpoint{Disabled: true}, Event{Action: "pull"}, false},
		{Endpoint{Ignore: Ignore{Actions: []string{"pull"}}}, Event{Action: "pull"}, false},
		{Endpoint{Ignore: Ignore{Actions: []string{"pull"}}}, Event{Action: "push"}, true},
		{Endpoint{Ignore: Ignore{MediaTypes: []string{notice.Blob}}}, Event{Target: Target{MediaType: notice.Blob}}, false},
		{Endpoint{IgnoredMediaTypes: []string{notice.Blob}}, Event{Target: Target{MediaType: notice.Blob}}, false},
		{Endpoint{Repositories: []string{"team/*"}}, Event{Target: Target{Repository: "team/web"}}, true},
		{Endpoint{Repositories: []string{"team/*"}}, Event{Target: Target{Repository: "team/web/x"}}, false},
		{Endpoint{Repositories: []string{"team/**"}}, Event{Target: Target{Repository: "team/web/x"}}, true},
		{Endpoint{Repositories: []string{"team/**"}}, Event{Target: Target{Repository: "team"}}, false},
		{Endpoint{Repositories: []string{"*/web/**"}}, Event{Target: Target{Repository: "team/web/x"}}, true},
		{Endpoint{Repositories: []string{"other", "**"}}, Event{Target: Target{Repository: "a"}}, true},
	} {
		if got := c.e.wants(c.v); got != c.want {
			t.Errorf("%d: %v", i, got)
		}
	}
}

func TestFailuresAreRetriedInOrder(t *testing.T) {
	e, w := listen(t), open(t, filepath.Join(t.TempDir(), "w.db"))
	defer w.Close()
	e.setFail(5)
	if err := w.Set(Endpoint{Name: "ci", URL: e.URL, Threshold: 2, Backoff: door.Duration(10 * time.Millisecond)}); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		w.Notify(pushed(i))
	}
	until(t, "all are told", func() bool { return len(e.heard()) == 100 })
	for i, v := range e.heard() {
		if v.ID != fmt.Sprint("id-", i) {
			t.Fatalf("event %d is %s", i, v.ID)
		}
	}
	until(t, "the status says so", func() bool { s := status(t, w, "ci"); return s.Delivered == 100 && s.Pending == 0 && s.Failures == 0 })
	if e.called() != 105 {
		t.Errorf("%d calls", e.called())
	}
}

func TestQueueSurvivesARestartAndIsBounded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "w.db")
	e, w := listen(t), open(t, file)
	e.setFail(-1)
	if err := w.Set(Endpoint{Name: "ci", URL: e.URL, Threshold: 1, Backoff: door.Duration(time.Hour), QueueLimit: 10}); err != nil {
		t.Fatal(err)
	}
	for i := range 25 {
		w.Notify(pushed(i))
	}
	until(t, "the queue is full", func() bool { s := status(t, w, "ci"); return s.Pending == 10 && s.Dropped == 15 && s.Failures == 1 })
	if s := status(t, w, "ci"); !strings.Contains(s.LastError, "answers 500") {
		t.Errorf("%+v", s)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	e.setFail(0)
	w = open(t, file)
	defer w.Close()
	until(t, "the last ten are told", func() bool { return len(e.heard()) == 10 })
	if first := e.heard()[0].ID; first != "id-15" {
		t.Errorf("the first is %s", first)
	}
	if err := w.Remove("ci"); err != nil {
		t.Fatal(err)
	}
	if err := w.Remove("ci"); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	w.Notify(pushed(1))
	if list, _ := w.List(); len(list) != 0 {
		t.Errorf("%+v", list)
	}
}

func TestOldEventsAreDropped(t *testing.T) {
	e, w := listen(t), open(t, filepath.Join(t.TempDir(), "w.db"))
	defer w.Close()
	w.Set(Endpoint{Name: "ci", URL: e.URL})
	old := pushed(1)
	old.At = time.Now().Add(-100 * time.Hour)
	w.Notify(old)
	w.Notify(pushed(2))
	until(t, "the young one is told", func() bool { return len(e.heard()) == 1 })
	if e.heard()[0].ID != "id-2" {
		t.Error(e.heard())
	}
	until(t, "the old one is counted", func() bool { return status(t, w, "ci").Dropped == 1 })
}

func TestPause(t *testing.T) {
	e := Endpoint{Threshold: 3, Backoff: door.Duration(time.Second)}
	for failures, want := range map[int]time.Duration{1: 0, 2: 0, 3: time.Second, 4: 2 * time.Second, 5: 4 * time.Second, 20: time.Minute, 1 << 40: time.Minute} {
		if got := pause(e, failures); got != want {
			t.Errorf("%d failures: %s, want %s", failures, got, want)
		}
	}
	e.Backoff = door.Duration(10 * time.Minute)
	if got := pause(e, 9); got != 10*time.Minute {
		t.Error(got)
	}
}

func TestEndpointIsChecked(t *testing.T) {
	w := open(t, filepath.Join(t.TempDir(), "w.db"))
	defer w.Close()
	for _, e := range []Endpoint{
		{Name: "", URL: "http://x"}, {Name: "a/b", URL: "http://x"}, {Name: "a", URL: "file:///etc/passwd"}, {Name: "a", URL: "http://"},
		{Name: "a", URL: "http://u:p@x"}, {Name: "a", URL: "http://x", Timeout: -1}, {Name: "a", URL: "http://x", Timeout: door.Duration(time.Hour)},
		{Name: "a", URL: "http://x", Headers: http.Header{"A b": {"c"}}}, {Name: "a", URL: "http://x", Headers: http.Header{"A": {"c\r\nd"}}},
		{Name: "a", URL: "http://x", Repositories: []string{"["}}, {Name: "a", URL: "http://x", QueueLimit: -1},
	} {
		if err := w.Set(e); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", e, err)
		}
	}
}

func TestForgedTargetsAreRefused(t *testing.T) {
	w, err := Open(Config{File: filepath.Join(t.TempDir(), "w.db"), Log: quiet(), Refuse: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for i, url := range []string{"http://169.254.169.254/latest", "http://[fe80::1]/", "http://0.0.0.0/", "http://[::ffff:169.254.1.1]/", "http://127.0.0.2/"} {
		name := fmt.Sprint("e", i)
		if err := w.Set(Endpoint{Name: name, URL: url}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Test(t.Context(), name); err == nil || !strings.Contains(err.Error(), "is refused") {
			t.Errorf("%s: %v", url, err)
		}
	}
	followed := false
	far := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed = true }))
	defer far.Close()
	near := httptest.NewServer(http.RedirectHandler(far.URL, http.StatusTemporaryRedirect))
	defer near.Close()
	w.Set(Endpoint{Name: "r", URL: near.URL})
	if code, err := w.Test(t.Context(), "r"); err == nil || code != 307 || followed {
		t.Errorf("redirect: %d %v, followed %v", code, err, followed)
	}
}

func TestAdminRoutes(t *testing.T) {
	e, w := listen(t), open(t, filepath.Join(t.TempDir(), "w.db"))
	defer w.Close()
	h := w.AdminHandler(&door.Door{Log: quiet(), Who: func(r *http.Request) (access.Subject, error) {
		user, _, _ := r.BasicAuth()
		return access.Subject{Name: user, Admin: user == "root"}, nil
	}})
	const p = "/berth/registry/v1/webhooks"
	for i, q := range []struct {
		method, path, user, body string
		code                     int
		has                      string
	}{
		{"GET", p, "", "", 401, ""},
		{"GET", p, "bob", "", 403, "administrator"},
		{"GET", p, "root", "", 200, "[]"},
		{"PUT", p + "/ci", "bob", `{"url":"` + e.URL + `"}`, 403, ""},
		{"PUT", p + "/ci", "root", `{"name":"other","url":"` + e.URL + `"}`, 400, ""},
		{"PUT", p + "/ci", "root", `{"url":"ftp://x"}`, 400, "http://"},
		{"PUT", p + "/ci", "root", `{"url":"` + e.URL + `","timeout":"500ms","threshold":5,"backoff":"1s","secret":"x","ignore":{"actions":["pull"]}}`, 204, ""},
		{"GET", p + "/ci", "root", "", 200, `"timeout":"500ms","threshold":5,"backoff":"1s"`},
		{"GET", p + "/no", "root", "", 404, ""},
		{"POST", p + "/ci/test", "root", "", 200, `{"status":200}`},
		{"POST", p + "/no/test", "root", "", 404, ""},
		{"DELETE", p + "/ci", "root", "", 204, ""},
		{"DELETE", p + "/ci", "root", "", 404, ""},
	} {
		r := httptest.NewRequest(q.method, q.path, strings.NewReader(q.body))
		if q.user != "" {
			r.SetBasicAuth(q.user, "x")
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if rec.Code != q.code || !strings.Contains(rec.Body.String(), q.has) {
			t.Errorf("%d %s %s: %d %s", i, q.method, q.path, rec.Code, rec.Body)
		}
	}
	if got := e.heard(); len(got) != 1 || got[0].Action != "ping" {
		t.Errorf("%+v", got)
	}
}
