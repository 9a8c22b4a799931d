package retention

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/registry/access"
	"berth/registry/door"
	"berth/registry/notice"
	"berth/registry/storage"
	"berth/registry/storage/dir"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func openStorage(t *testing.T) *storage.Store {
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

// put stores an index, which needs no blobs, and tags it.
func put(t *testing.T, s *storage.Store, name, subject string, parts []digest.Digest, tags ...string) digest.Digest {
	t.Helper()
	index := map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "annotations": map[string]string{"name": name}}
	list := []map[string]any{}
	for _, p := range parts {
		r, err := s.Record(t.Context(), "team/web", string(p))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, map[string]any{"mediaType": r.MediaType, "digest": p, "size": r.Size})
	}
	index["manifests"] = list
	if subject != "" {
		index["subject"] = map[string]any{"mediaType": "application/vnd.oci.image.index.v1+json", "digest": subject, "size": 2}
	}
	content, _ := json.Marshal(index)
	m, err := s.PutManifest(t.Context(), "team/web", storage.Put{Reference: string(digest.FromBytes(content)), Tags: tags,
		MediaType: "application/vnd.oci.image.index.v1+json", Content: content})
	if err != nil {
		t.Fatal(err)
	}
	return m.Digest
}

func open(t *testing.T, s *storage.Store, events func(notice.Event)) *Engine {
	t.Helper()
	e, err := Open(Config{Root: filepath.Join(t.TempDir(), "retention"), Storage: s, Events: events, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func tagsOf(t *testing.T, s *storage.Store) string {
	t.Helper()
	tags, err := s.Tags(t.Context(), "team/web")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(tags, " ")
}

func manifests(t *testing.T, s *storage.Store) int {
	t.Helper()
	n := 0
	for _, err := range s.Manifests(t.Context(), "team/web") {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

func TestPlanThenApply(t *testing.T) {
	s := openStorage(t)
	part := put(t, s, "part", "", nil)
	put(t, s, "one", "", []digest.Digest{part}, "v1")
	two := put(t, s, "two", "", nil, "v2")
	put(t, s, "sbom of two", string(two), nil)
	three := put(t, s, "three", "", nil, "v3", "latest")
	put(t, s, "sbom of three", string(three), nil)
	var told []notice.Event
	e := open(t, s, func(ev notice.Event) { told = append(told, ev) })
	if err := e.SetPolicy(Policy{Rules: []Rule{{Repositories: []string{"**"}, Keep: &Keep{Last: 1}, Untagged: age(0)}}}); err != nil {
		t.Fatal(err)
	}
	p, err := e.Plan(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if got := tagNames(p.Repositories[0].Untag); got != "v1 v2" || len(p.Repositories[0].Delete) != 4 {
		t.Fatalf("%+v", p.Repositories[0])
	}
	if tagsOf(t, s) != "latest v1 v2 v3" {
		t.Fatal("a plan changed something")
	}
	// v2 gets another name between plan and application: it and its SBOM stay.
	if err := e.put(t.Context(), "team/web", two, []string{"stable"}); err != nil {
		t.Fatal(err)
	}
	r, err := e.Apply(t.Context(), p.ID)
	if err != nil {
		t.Fatal(err)
	}
	if tagsOf(t, s) != "latest stable v2 v3" && tagsOf(t, s) != "latest stable v3" || r.Deleted != 2 || manifests(t, s) != 4 || len(told) != r.Deleted+r.Untagged {
		t.Errorf("tags %q, %+v, %d manifests, %d told", tagsOf(t, s), r, manifests(t, s), len(told))
	}
	if _, err := e.Apply(t.Context(), p.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("applied twice: %v", err)
	}
	for _, id := range []string{"", "../policy", "0123456789abcdeg"} {
		if _, err := e.Apply(t.Context(), id); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", id, err)
		}
	}
	if runs := e.Runs(); len(runs) != 1 || runs[0].Plan != p.ID {
		t.Errorf("%+v", runs)
	}
}

func TestPolicyAndRunsAreKept(t *testing.T) {
	s := openStorage(t)
	root := t.TempDir()
	e, err := Open(Config{Root: root, Storage: s, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.SetPolicy(policy()); err != nil {
		t.Fatal(err)
	}
	p, err := e.Plan(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	e.Close()
	if e, err = Open(Config{Root: root, Storage: s, Log: quiet()}); err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if len(e.Policy().Rules) != 3 || e.Policy().Rules[1].Keep.Younger != door.Duration(7*day) {
		t.Errorf("%+v", e.Policy())
	}
	if _, err := e.Apply(t.Context(), p.ID); err != nil {
		t.Errorf("a plan does not survive a restart: %v", err)
	}
	old := filepath.Join(root, "plans", "0123456789abcdef.json")
	os.WriteFile(old, []byte(`{"id":"0123456789abcdef","made":"2020-01-01T00:00:00Z"}`), 0o600)
	if _, err := e.Apply(t.Context(), "0123456789abcdef"); !fault.Is(err, fault.NotFound) {
		t.Errorf("an old plan: %v", err)
	}
}

func TestScheduledRun(t *testing.T) {
	s := openStorage(t)
	put(t, s, "one", "", nil, "v1")
	put(t, s, "two", "", nil, "v2")
	e := open(t, s, nil)
	if err := e.SetPolicy(Policy{Every: door.Duration(time.Minute), Rules: []Rule{{Repositories: []string{"**"}, Keep: &Keep{Last: 1}}}}); err != nil {
		t.Fatal(err)
	}
	past := time.Now().Add(-time.Hour) // the policy has been there for an hour
	if err := os.Chtimes(e.file("policy.json"), past, past); err != nil {
		t.Fatal(err)
	}
	e.wake <- struct{}{}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if len(e.Runs()) > 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if runs := e.Runs(); len(runs) != 1 || !runs[0].Scheduled || runs[0].Untagged != 1 || tagsOf(t, s) != "v2" || manifests(t, s) != 2 {
		t.Errorf("%+v, tags %q", runs, tagsOf(t, s))
	}
}

// Indexes that are pushed while a plan is applied find what they name, whatever the order of things.
func TestPushesDuringAnApplication(t *testing.T) {
	s := openStorage(t)
	e := open(t, s, nil)
	if err := e.SetPolicy(Policy{Rules: []Rule{{Repositories: []string{"**"}, Untagged: age(0)}}}); err != nil {
		t.Fatal(err)
	}
	for range 30 {
		part := put(t, s, "part", "", nil)
		put(t, s, "other", "", nil)
		p, err := e.Plan(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		var both sync.WaitGroup
		both.Go(func() {
			if _, err := e.Apply(t.Context(), p.ID); err != nil {
				t.Error(err)
			}
		})
		both.Go(func() {
			content := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","size":2,"digest":"` + string(part) + `"}]}`)
			_, err := s.PutManifest(t.Context(), "team/web", storage.Put{Reference: "x", Content: content})
			if err != nil && !fault.Is(err, fault.NotFound) {
				t.Error(err)
			}
		})
		both.Wait()
		for m, err := range s.Manifests(t.Context(), "team/web") {
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range m.Manifests {
				if _, err := s.Record(t.Context(), "team/web", string(c.Digest)); err != nil {
					t.Fatalf("an index names what is gone: %v", err)
				}
			}
		}
		s.DeleteTag(t.Context(), "team/web", "x")
	}
}

func TestAdminRoutes(t *testing.T) {
	s := openStorage(t)
	put(t, s, "one", "", nil, "v1")
	put(t, s, "two", "", nil, "v2")
	e := open(t, s, nil)
	h := e.AdminHandler(&door.Door{Log: quiet(), Who: func(r *http.Request) (access.Subject, error) {
		user, _, _ := r.BasicAuth()
		return access.Subject{Name: user, Admin: user == "root"}, nil
	}})
	do := func(method, path, user, body, accept string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, "/berth/registry/v1/retention"+path, strings.NewReader(body))
		r.Header.Set("Accept", accept)
		if user != "" {
			r.SetBasicAuth(user, "x")
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	for i, q := range []struct {
		method, path, user, body, accept string
		code                             int
		has                              string
	}{
		{"GET", "", "", "", "", 401, ""},
		{"GET", "", "bob", "", "", 403, ""},
		{"GET", "", "root", "", "", 200, `{"rules":[]}`},
		{"PUT", "", "root", `{"rules":[{"repositories":["**"],"keep":{}}]}`, "", 400, "rule 1"},
		{"PUT", "", "root", `{"every":"24h","rules":[{"repositories":["**"],"keep":{"last":1},"untagged":"0s"}]}`, "", 204, ""},
		{"GET", "", "root", "", "", 200, `{"every":"24h0m0s","rules":[{"repositories":["**"],"keep":{"last":1},"untagged":"0s"}]}`},
		{"POST", "/plan", "bob", "", "", 403, ""},
		{"POST", "/plan?repository=[", "root", "", "", 400, ""},
		{"POST", "/plan?repository=none/*", "root", "", "text/plain", 200, "nothing goes"},
		{"POST", "/plan", "root", "", "text/plain", 200, "- tag v1 sha256:"},
		{"POST", "/plan", "root", `{"rules":[{"repositories":["**"],"keep":{"all":true}}]}`, "text/plain", 200, "nothing goes"},
		{"POST", "/plan", "root", `{"rules":[{"repositories":["**"]}]}`, "text/plain", 400, "rule 1"},
		{"POST", "/apply", "root", `{"plan":"0000000000000000"}`, "", 404, ""},
		{"GET", "/runs", "root", "", "", 200, `[]`},
	} {
		w := do(q.method, q.path, q.user, q.body, q.accept)
		if w.Code != q.code || !strings.Contains(w.Body.String(), q.has) {
			t.Errorf("%d %s %s: %d %s", i, q.method, q.path, w.Code, w.Body)
		}
	}
	var p Plan
	if err := json.Unmarshal(do("POST", "/plan", "root", "", "").Body.Bytes(), &p); err != nil {
		t.Fatal(err)
	}
	if w := do("POST", "/apply", "root", `{"plan":"`+p.ID+`"}`, ""); w.Code != 200 || !strings.Contains(w.Body.String(), `"untagged":1,"deleted":1`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if !slices.Equal(strings.Fields(tagsOf(t, s)), []string{"v2"}) {
		t.Error(tagsOf(t, s))
	}
}
