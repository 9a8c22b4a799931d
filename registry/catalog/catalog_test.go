package catalog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
)

// A shelf is a Source in memory.
type shelf struct {
	mu    sync.Mutex
	repos map[string]Derived
	reads int
	fail  map[string]error
}

func (s *shelf) Each(ctx context.Context, yield func(string) error) error {
	s.mu.Lock()
	names := sortedKeys(s.repos)
	s.mu.Unlock()
	for _, n := range names {
		if err := yield(n); err != nil {
			return err
		}
	}
	return nil
}

func (s *shelf) Read(ctx context.Context, name string) (Derived, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	if err := s.fail[name]; err != nil {
		return Derived{}, err
	}
	d, ok := s.repos[name]
	if !ok {
		return Derived{}, fault.New(fault.NotFound, "no repository %s", name)
	}
	return d, nil
}

func (s *shelf) set(name string, d Derived) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.repos[name] = d
}

func (s *shelf) drop(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.repos, name)
}

// private hides what begins with secret/ from everybody but alice, and lets only alice change things.
type private struct{}

func (private) Allowed(_ context.Context, s access.Subject, repository string, a access.Action) (bool, error) {
	if !s.Limit.Has(repository, a) {
		return false, nil
	}
	if s.Name == "alice" {
		return true, nil
	}
	return a == access.Pull && !strings.HasPrefix(repository, "secret/"), nil
}

func image(tag, description string) Derived {
	return Derived{Tags: []string{tag}, Newest: Image{Tag: tag, Digest: digest.FromString(tag + description)}, Kind: "image",
		Labels: map[string]string{"org.opencontainers.image.description": description}}
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func open(t *testing.T, root string, src Source) *Catalog {
	t.Helper()
	c, err := Open(Config{Root: root, Source: src, Access: private{}, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// push puts a repository on the shelf and tells the catalog.
func push(t *testing.T, c *Catalog, s *shelf, name string, d Derived) {
	t.Helper()
	s.set(name, d)
	c.Notice(notice.Event{Action: notice.Push, Repository: name, At: time.Now(), MediaType: "application/vnd.oci.image.manifest.v1+json"})
	settle(t, c)
}

func settle(t *testing.T, c *Catalog) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.Settle(ctx); err != nil {
		t.Fatal(err)
	}
}

func names(entries []Entry) string {
	var out []string
	for _, e := range entries {
		out = append(out, e.Shown())
	}
	return strings.Join(out, " ")
}

func TestSearchFindsWhatIsAsked(t *testing.T) {
	src := &shelf{repos: map[string]Derived{}}
	c := open(t, t.TempDir(), src)
	push(t, c, src, "library/tomcat", image("9", "Apache Tomcat is a servlet container"))
	push(t, c, src, "library/nginx", image("1.27.3-alpine", "Official build of Nginx"))
	push(t, c, src, "team/tomcat", image("1", "our build"))
	push(t, c, src, "team/tomcat-exporter", image("1", "metrics"))
	push(t, c, src, "team/web", image("2", "runs on Tomcat"))
	push(t, c, src, "secret/tomcat", image("1", ""))
	for _, q := range []struct{ query, want string }{
		{"tomcat", "tomcat team/tomcat team/tomcat-exporter team/web"},
		{"library/tomcat", "tomcat team/tomcat team/tomcat-exporter team/web"},
		{"TOMCAT", "tomcat team/tomcat team/tomcat-exporter team/web"},
		{"team/tomcat", "team/tomcat team/tomcat-exporter"},
		{"tomca", "tomcat team/tomcat team/tomcat-exporter team/web"},
		{"omcat", "tomcat team/tomcat team/tomcat-exporter"},
		{"servlet container", "tomcat"},
		{"servlet nginx", ""},
		{"1.27", "nginx"},
		{"alpine", "nginx"},
		{"nosuch", ""},
		{"library", ""},
		{"***", "nginx tomcat team/tomcat team/tomcat-exporter team/web"},
		{"!?", ""},
		{"", "nginx tomcat team/tomcat team/tomcat-exporter team/web"},
	} {
		got, err := c.Search(t.Context(), access.Subject{}, q.query, 25, 1)
		if err != nil {
			t.Fatal(err)
		}
		if names(got.Entries) != q.want {
			t.Errorf("search %q: %q, want %q", q.query, names(got.Entries), q.want)
		}
	}
	mine, _ := c.Search(t.Context(), access.Subject{Name: "alice"}, "secret", 25, 1)
	if names(mine.Entries) != "secret/tomcat" {
		t.Errorf("alice finds %q", names(mine.Entries))
	}
}

func TestRank(t *testing.T) {
	src := &shelf{repos: map[string]Derived{}}
	c := open(t, t.TempDir(), src)
	for _, n := range []string{"a/web", "b/web", "c/web", "d/web", "e/webby", "web"} {
		push(t, c, src, n, image("1", ""))
	}
	push(t, c, src, "z/other", image("1", "for the web"))
	yes := true
	if err := c.MarkOfficial(t.Context(), "d/web", &yes); err != nil {
		t.Fatal(err)
	}
	for _, u := range []string{"u1", "u2"} {
		if err := c.Star(t.Context(), u, "c/web", true); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Star(t.Context(), "u1", "z/other", true); err != nil {
		t.Fatal(err)
	}
	c.Notice(notice.Event{Action: notice.Pull, Repository: "b/web", MediaType: "m"})
	if err := c.writeCounts(); err != nil {
		t.Fatal(err)
	}
	got, err := c.Search(t.Context(), access.Subject{}, "web", 25, 1)
	if err != nil {
		t.Fatal(err)
	}
	if want := "web d/web c/web b/web a/web e/webby z/other"; names(got.Entries) != want {
		t.Errorf("%q, want %q", names(got.Entries), want)
	}
	page, _ := c.Search(t.Context(), access.Subject{}, "web", 3, 3)
	if page.Total != 7 || names(page.Entries) != "z/other" {
		t.Errorf("page 3 of 3: %d %q", page.Total, names(page.Entries))
	}
	past, _ := c.Search(t.Context(), access.Subject{}, "web", 3, 1<<62)
	if past.Total != 7 || len(past.Entries) != 0 {
		t.Errorf("page past the end: %+v", past)
	}
}

func TestFactsOutliveTheProcess(t *testing.T) {
	root, src := t.TempDir(), &shelf{repos: map[string]Derived{}}
	c := open(t, root, src)
	push(t, c, src, "team/web", image("1", "by label"))
	if e, _ := c.Entry("team/web"); e.Short != "by label" || e.Official || e.Pushes != 1 {
		t.Fatalf("%+v", e)
	}
	alice := access.Subject{Name: "alice"}
	if err := c.Describe(t.Context(), alice, "team/web", Description{"by alice", "# Web\n"}); err != nil {
		t.Fatal(err)
	}
	if err := c.Star(t.Context(), "bob", "team/web", true); err != nil {
		t.Fatal(err)
	}
	if err := c.Star(t.Context(), "bob", "team/web", true); err != nil {
		t.Fatal(err)
	}
	c.Notice(notice.Event{Action: notice.Pull, Repository: "team/web", MediaType: "m"})
	c.Close()

	for _, damage := range []string{"", "gone", "broken", "scratched"} {
		index := filepath.Join(root, "index.db")
		switch damage {
		case "gone":
			os.Remove(index)
		case "broken":
			os.WriteFile(index, bytes.Repeat([]byte("not a database "), 1000), 0o600)
		case "scratched": // the first pages are whole, the others are not
			data, _ := os.ReadFile(index)
			for i := 2 * os.Getpagesize(); i < len(data); i++ {
				data[i] = 0xa5
			}
			os.WriteFile(index, data, 0o600)
		}
		c, err := Open(Config{Root: root, Source: src, Access: private{}, Log: quiet()})
		if err != nil {
			t.Fatalf("%s: %v", damage, err)
		}
		for i := 0; i < 500; i++ { // a fresh index is made in the background
			if _, err = c.Entry("team/web"); err == nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		e, err := c.Entry("team/web")
		if err != nil || e.Short != "by alice" || e.Long != "# Web\n" || e.Stars != 1 || e.Pulls != 1 || e.Pushes != 1 || len(e.Tags) != 1 {
			t.Errorf("index %q: %+v %v", damage, e, err)
		}
		if !c.Starred("bob", "team/web") || c.Starred("alice", "team/web") {
			t.Errorf("index %q: stars are wrong", damage)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}

	os.WriteFile(filepath.Join(root, "people.db"), bytes.Repeat([]byte("x"), 10000), 0o600)
	if c, err := Open(Config{Root: root, Source: src, Access: private{}, Log: quiet()}); err == nil {
		c.Close()
		t.Error("damaged facts were accepted")
	}
}

func TestContentComesAndGoes(t *testing.T) {
	src := &shelf{repos: map[string]Derived{}, fail: map[string]error{}}
	c := open(t, t.TempDir(), src)
	push(t, c, src, "team/web", image("1", "one"))
	c.Star(t.Context(), "bob", "team/web", true)

	src.fail["team/web"] = errors.New("disk")
	c.Refresh("team/web")
	settle(t, c)
	if e, err := c.Entry("team/web"); err != nil || e.Short != "one" {
		t.Errorf("after a failed read: %+v %v", e, err)
	}
	delete(src.fail, "team/web")

	src.drop("team/web")
	c.Notice(notice.Event{Action: notice.Delete, Repository: "team/web", MediaType: "m"})
	settle(t, c)
	if _, err := c.Entry("team/web"); !fault.Is(err, fault.NotFound) {
		t.Errorf("after its removal: %v", err)
	}
	if got, _ := c.Search(t.Context(), access.Subject{}, "web", 25, 1); got.Total != 0 {
		t.Errorf("still found: %+v", got)
	}
	if err := c.Star(t.Context(), "bob", "team/web", false); !fault.Is(err, fault.NotFound) {
		t.Errorf("a star for nothing: %v", err)
	}
	push(t, c, src, "team/untagged", Derived{Newest: Image{Digest: "sha256:x"}})
	src.drop("team/untagged")
	c.Collected()
	settle(t, c)
	if _, err := c.Entry("team/untagged"); !fault.Is(err, fault.NotFound) {
		t.Errorf("after a collection: %v", err)
	}
	push(t, c, src, "team/web", image("2", "two"))
	if e, _ := c.Entry("team/web"); e.Stars != 1 || e.Short != "two" || e.Tags[0] != "2" {
		t.Errorf("pushed again: %+v", e)
	}
	if err := c.Forget(t.Context(), "team/web"); err != nil {
		t.Fatal(err)
	}
	if e, _ := c.Entry("team/web"); e.Stars != 0 || e.Pushes != 0 {
		t.Errorf("after Forget: %+v", e)
	}
	src.set("team/new", image("1", ""))
	src.drop("team/web")
	if n, err := c.Rebuild(t.Context()); n != 1 || err != nil {
		t.Errorf("rebuild: %d %v", n, err)
	}
	src.set("team/damaged", image("1", ""))
	src.fail["team/damaged"] = errors.New("damaged")
	if n, err := c.Rebuild(t.Context()); n != 2 || err == nil || !strings.Contains(err.Error(), "team/damaged") {
		t.Errorf("rebuild with one that cannot be read: %d %v", n, err)
	}
	if got, _ := c.Search(t.Context(), access.Subject{}, "", 25, 1); names(got.Entries) != "team/new" {
		t.Errorf("after the rebuild: %q", names(got.Entries))
	}
}

// What a mirror fetches appears by being pulled, and its labels when its config has arrived.
func TestMirroredContentIsNoticedWhenItIsPulled(t *testing.T) {
	src := &shelf{repos: map[string]Derived{}}
	c := open(t, t.TempDir(), src)
	d := image("9", "")
	d.Kind, d.Partial, d.Labels = "image", true, nil
	src.set("library/tomcat", d)
	pull := notice.Event{Action: notice.Pull, Repository: "library/tomcat", Tag: "9", Digest: d.Newest.Digest, MediaType: "m"}
	blob := notice.Event{Action: notice.Pull, Repository: "library/tomcat", MediaType: notice.Blob}
	c.Notice(blob)
	c.Notice(pull)
	settle(t, c)
	if e, err := c.Entry("library/tomcat"); err != nil || !e.Partial || e.Pulls != 1 {
		t.Fatalf("%+v %v", e, err)
	}
	src.set("library/tomcat", image("9", "A servlet container"))
	c.Notice(blob)
	settle(t, c)
	if e, _ := c.Entry("library/tomcat"); e.Partial || e.Short != "A servlet container" {
		t.Errorf("%+v", e)
	}
	reads := src.reads
	pull.Digest = image("9", "A servlet container").Newest.Digest
	c.Notice(pull)
	c.Notice(blob)
	settle(t, c)
	if src.reads != reads {
		t.Errorf("a pull of what is known reads the storage")
	}
	for _, tag := range []string{"9", "10"} { // the tag was moved upstream; another tag came
		pull.Tag, pull.Digest = tag, "sha256:new"
		reads = src.reads
		c.Notice(pull)
		settle(t, c)
		if src.reads != reads+1 {
			t.Errorf("news under %s is not read", tag)
		}
	}
}

func TestCertifiedFollowsTheNewestImage(t *testing.T) {
	src := &shelf{repos: map[string]Derived{}}
	var policy string
	var failure error
	c, err := Open(Config{Root: t.TempDir(), Source: src, Access: private{}, Log: quiet(),
		Certify: func(ctx context.Context, repository string) (string, bool, error) {
			return policy, policy != "", failure
		}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	certified := func() string { e, _ := c.Entry("team/web"); return e.Certified }
	push(t, c, src, "team/web", image("1", ""))
	if certified() != "" {
		t.Error("unsigned, but certified")
	}
	policy = "release"
	push(t, c, src, "team/web", image("1", ""))
	if certified() != "release" {
		t.Errorf("signed: %q", certified())
	}
	failure = errors.New("no keys")
	push(t, c, src, "team/web", image("1", ""))
	if certified() != "release" {
		t.Error("the same image lost its mark by a failure")
	}
	push(t, c, src, "team/web", image("2", ""))
	if certified() != "" {
		t.Error("another image kept the mark that nobody checked")
	}
}

func TestDescriptionIsChecked(t *testing.T) {
	src := &shelf{repos: map[string]Derived{"team/web": image("1", "")}}
	c := open(t, t.TempDir(), src)
	push(t, c, src, "team/web", image("1", ""))
	for _, d := range []Description{
		{Short: "two\nlines"}, {Short: "\x1b[31mred"}, {Short: strings.Repeat("x", maxShort+1)}, {Short: "\xff"},
		{Long: "\x00"}, {Long: strings.Repeat("x", maxLong+1)}, {Long: "a\u202eb"},
	} {
		if err := c.Describe(t.Context(), access.Subject{}, "team/web", d); !fault.Is(err, fault.Invalid) {
			t.Errorf("%.20q: %v", d, err)
		}
	}
	if got := describedBy(map[string]string{"org.opencontainers.image.title": " a\n\x1b[1mb\u202e "}); got != "a [1mb" {
		t.Errorf("%q", got)
	}
}

func TestV1(t *testing.T) {
	src := &shelf{repos: map[string]Derived{}}
	c := open(t, t.TempDir(), src)
	push(t, c, src, "library/tomcat", image("9", "Apache Tomcat"))
	push(t, c, src, "tomcat", image("9", "another, of the same name"))
	push(t, c, src, "secret/tomcat", image("9", "hidden"))
	h := c.SearchHandler(testDoor())
	if w := get(h, "/v1/_ping", ""); w.Code != 200 || w.Header().Get("X-Docker-Registry-Standalone") != "true" {
		t.Errorf("ping: %d %v", w.Code, w.Header())
	}
	w := get(h, "/v1/search?q=tomcat&n=25", "")
	want := `{"num_results":1,"num_pages":1,"page":1,"page_size":25,"query":"tomcat","results":[{"name":"tomcat","description":"Apache Tomcat","star_count":0,"is_official":true,"is_automated":false,"is_trusted":false,"pull_count":0}]}`
	if w.Code != 200 || strings.TrimSpace(w.Body.String()) != want {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for _, q := range []struct {
		path, user string
		code, n    int
	}{
		{"/v1/search?q=nosuch", "", 200, 0},
		{"/v1/search?q=tomcat", "alice", 200, 2},
		{"/v1/search?q=tomcat&n=1", "alice", 200, 2},
		{"/v1/search?q=tomcat&n=0&page=-5", "", 200, 1},
		{"/v1/search?q=tomcat&n=x", "", 400, 0},
		{"/v1/search?q=tomcat", "mallory", 401, 0},
		{"/v1/search", "", 200, 1},
	} {
		w := get(h, q.path, q.user)
		var r results
		json.Unmarshal(w.Body.Bytes(), &r)
		if w.Code != q.code || r.NumResults != q.n {
			t.Errorf("%s as %q: %d %s", q.path, q.user, w.Code, w.Body)
		}
		if q.code == 200 && r.Results == nil {
			t.Errorf("%s: results is null, which some clients cannot read", q.path)
		}
	}
}

func testDoor() *door.Door {
	return &door.Door{Access: private{}, Log: quiet(), Who: func(r *http.Request) (access.Subject, error) {
		user, _, _ := r.BasicAuth()
		if user == "mallory" {
			return access.Subject{}, fault.New(fault.Unauthorized, "wrong password")
		}
		if user == "alice, by a token" { // as clients get them for what names no repository
			return access.Subject{Name: "alice", Admin: true, Limit: &access.Limit{}}, nil
		}
		return access.Subject{Name: user, Admin: user == "alice"}, nil
	}}
}

func get(h http.Handler, path, user string) *httptest.ResponseRecorder {
	return do(h, "GET", path, user, "")
}

func do(h http.Handler, method, path, user, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if user != "" {
		r.SetBasicAuth(user, "x")
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestAdminRoutes(t *testing.T) {
	src := &shelf{repos: map[string]Derived{}}
	c := open(t, t.TempDir(), src)
	push(t, c, src, "team/web", image("1", ""))
	push(t, c, src, "secret/web", image("1", ""))
	h := c.AdminHandler(testDoor())
	const p = "/berth/registry/v1/catalog"
	for i, q := range []struct {
		method, path, user, body string
		code                     int
		has                      string
	}{
		{"GET", p + "?q=web", "", "", 200, `"total":1`},
		{"GET", p + "?q=web", "alice", "", 200, `"total":2`},
		{"GET", p + "?q=web", "alice, by a token", "", 200, `"total":2`},
		{"GET", p + "/entry/team/web", "", "", 200, `"name":"team/web"`},
		{"GET", p + "/entry/secret/web", "", "", 401, ""},
		{"GET", p + "/entry/secret/web", "bob", "", 404, ""},
		{"GET", p + "/entry/no/such", "bob", "", 404, ""},
		{"PUT", p + "/description/team/web", "", `{"short":"x"}`, 401, ""},
		{"PUT", p + "/description/team/web", "bob", `{"short":"x"}`, 403, "bob may not admin team/web"},
		{"PUT", p + "/description/team/web", "alice", `{"short":"x","extra":1}`, 400, ""},
		{"PUT", p + "/description/team/web", "alice", ``, 400, "there is no body"},
		{"PUT", p + "/description/team/web", "alice", `{"short":"by alice","long":"# x"}`, 204, ""},
		{"PUT", p + "/star/team/web", "", ``, 401, ""},
		{"PUT", p + "/star/team/web", "bob", ``, 204, ""},
		{"PUT", p + "/star/secret/web", "bob", ``, 404, ""},
		{"PUT", p + "/mark/team/web", "bob", `{"official":true}`, 403, ""},
		{"PUT", p + "/mark/team/web", "alice", `{"official":true}`, 204, ""},
		{"GET", p + "/entry/team/web", "", "", 200, `"short":"by alice","long":"# x","official":true,"stars":1`},
		{"DELETE", p + "/star/team/web", "bob", ``, 204, ""},
		{"PUT", p + "/mark/team/web", "alice", `{"official":null}`, 204, ""},
		{"GET", p + "/entry/team/web", "", "", 200, `"official":false,"stars":0`},
		{"DELETE", p + "/entry/team/web", "alice", ``, 204, ""},
		{"POST", p + "/rebuild", "bob", ``, 403, ""},
		{"POST", p + "/rebuild", "alice", ``, 200, `{"repositories":2}`},
	} {
		w := do(h, q.method, q.path, q.user, q.body)
		if w.Code != q.code || !strings.Contains(w.Body.String(), q.has) {
			t.Errorf("%d %s %s as %q: %d %s", i, q.method, q.path, q.user, w.Code, w.Body)
		}
	}
}

func TestManyAtOnce(t *testing.T) {
	root, src := t.TempDir(), &shelf{repos: map[string]Derived{}}
	c := open(t, root, src)
	push(t, c, src, "team/web", image("1", ""))
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			name := fmt.Sprintf("team/r%d", i)
			for j := range 5 {
				src.set(name, image(fmt.Sprint(j), ""))
				c.Notice(notice.Event{Action: notice.Push, Repository: name, MediaType: "m"})
				c.Notice(notice.Event{Action: notice.Pull, Repository: "team/web", MediaType: "m"})
				if err := c.Star(context.Background(), fmt.Sprintf("u%d-%d", i, j), "team/web", true); err != nil {
					t.Error(err)
				}
				if err := c.Describe(context.Background(), access.Subject{}, "team/web", Description{Short: fmt.Sprint(i, j)}); err != nil {
					t.Error(err)
				}
				c.Search(context.Background(), access.Subject{}, "team", 10, 1)
			}
		})
	}
	all.Wait()
	settle(t, c)
	before, _ := c.Entry("team/web")
	if before.Stars != 40 || before.Pulls != 40 {
		t.Errorf("%+v", before)
	}
	c.Close()
	c = open(t, root, src)
	after, _ := c.Entry("team/web")
	if after.Stars != 40 || after.Pulls != 40 || after.Short != before.Short {
		t.Errorf("after a restart: %+v, before %+v", after, before)
	}
	got, _ := c.Search(t.Context(), access.Subject{}, "team/r", 25, 1)
	if len(got.Entries) != 8 || slices.ContainsFunc(got.Entries, func(e Entry) bool { return e.Newest.Tag != "4" }) {
		t.Errorf("%+v", got)
	}
}

func FuzzSearch(f *testing.F) {
	x := newIndex()
	x.put(Entry{Name: "library/tomcat", Derived: image("9.0.1", "Apache")})
	x.put(Entry{Name: "team/web", Derived: image("1", "ünïcode Beschreibung 한국어")})
	for _, s := range []string{"tomcat", "", "*", "9.0", "한국", "a/b", strings.Repeat("x ", 300), "\xff\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, q string) {
		for _, e := range x.search(q) {
			if e.Name == "" {
				t.Error("an entry without a name")
			}
		}
		y := newIndex()
		y.put(Entry{Name: "a/b", Derived: Derived{Labels: map[string]string{"x": q}}})
		y.remove("a/b")
		if len(y.terms)+len(y.postings)+len(y.docs) != 0 {
			t.Errorf("left behind: %v", y.terms)
		}
	})
}

func BenchmarkSearch(b *testing.B) {
	x := newIndex()
	for i := range 10000 {
		x.put(Entry{Name: fmt.Sprintf("team%d/service-%d", i%97, i), Stars: i % 13,
			Derived: image(fmt.Sprintf("1.%d", i), fmt.Sprintf("The service number %d of the platform, with a sentence of words", i))})
	}
	for b.Loop() {
		if len(x.search("service-77")) == 0 {
			b.Fatal("nothing found")
		}
	}
}
