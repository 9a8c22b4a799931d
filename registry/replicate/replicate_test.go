package replicate

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/base/ref"
	"berth/image/remote"
	"berth/registry/distribution"
	"berth/registry/door"
	"berth/registry/notice"
	"berth/registry/storage"
	"berth/registry/storage/dir"
)

var update = flag.Bool("update", false, "write golden files")

// site is a registry that replicates.
type site struct {
	root  string
	store *storage.Store
	r     *Replicator
	host  string
	stop  func()
	mount atomic.Int32 // blobs that were mounted
}

func newSite(t *testing.T, root string, rules ...Rule) *site {
	t.Helper()
	driver, err := dir.Open(filepath.Join(root, "content"))
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	store, err := storage.Open(t.Context(), driver, storage.Config{Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(Config{Dir: filepath.Join(root, "replication"), Store: store, Rules: rules, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	n := &site{root: root, store: store, r: r}
	s := httptest.NewServer(distribution.New(distribution.Config{Storage: store, Events: func(e notice.Event) {
		if e.Action == notice.Mount {
			n.mount.Add(1)
		}
		r.Notify(e)
	}}))
	n.host = s.Listener.Addr().String()
	n.stop = sync.OnceFunc(func() {
		s.Close()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(n.stop)
	return n
}

// target is another registry, which can be switched off, and counts.
type target struct {
	host string
	mu   sync.Mutex
	off  bool
	seen map[string]int
}

func newTarget(t *testing.T) *target {
	x := &target{seen: map[string]int{}}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(true))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x.mu.Lock()
		off := x.off
		x.seen[r.Method]++
		x.mu.Unlock()
		if off {
			w.WriteHeader(http.StatusInsufficientStorage)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	x.host = s.Listener.Addr().String()
	return x
}

func (x *target) turn(off bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.off = off
}

func (x *target) count(what string) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.seen[what]
}

func client(t *testing.T, name string) *remote.Repository {
	t.Helper()
	c, err := remote.New(remote.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	r, err := ref.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	return c.Repository(r, remote.Credentials{})
}

func blob(t *testing.T, r *remote.Repository, b []byte) string {
	t.Helper()
	d := digest.FromBytes(b)
	if err := r.PushBlob(t.Context(), ocispec.Descriptor{Digest: d, Size: int64(len(b))}, func(at int64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b[at:])), nil
	}); err != nil {
		t.Fatal(err)
	}
	return d.String()
}

// push pushes an image of one layer and gives its manifest; extra is added to the manifest.
func push(t *testing.T, name, tag, layer, extra string) []byte {
	t.Helper()
	r := client(t, name)
	config := []byte(`{"architecture":"amd64","os":"linux"}`)
	m := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]%s}`,
		ocispec.MediaTypeImageManifest, blob(t, r, config), len(config), blob(t, r, []byte(layer)), len(layer), extra)
	if tag == "" {
		tag = digest.FromBytes(m).String()
	}
	put(t, r, tag, ocispec.MediaTypeImageManifest, m)
	return m
}

func put(t *testing.T, r *remote.Repository, tag, kind string, m []byte) {
	t.Helper()
	if _, err := r.PushManifest(t.Context(), tag, kind, m); err != nil {
		t.Fatal(err)
	}
}

// has reports whether a registry gives a manifest under a name, with its blobs.
func has(t *testing.T, name, tag string, m []byte) bool {
	t.Helper()
	r := client(t, name)
	doc, err := r.Manifest(t.Context(), tag)
	return err == nil && bytes.Equal(doc.Content, m)
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s did not happen", what)
}

func done(t *testing.T, s *site, rule string) {
	t.Helper()
	until(t, "doing all jobs of "+rule, func() bool {
		jobs, err := s.r.Jobs(rule)
		if err != nil {
			t.Fatal(err)
		}
		s.r.mu.Lock()
		defer s.r.mu.Unlock()
		return len(jobs) == 0 && len(s.r.pending) == 0
	})
}

// TestPushes brings to the target what is pushed here: images, indexes, signatures; what it has is not sent again.
func TestPushes(t *testing.T) {
	x := newTarget(t)
	s := newSite(t, t.TempDir(), Rule{Name: "dr", Registry: "http://" + x.host, Repositories: []string{"team/*"}, Tags: []string{"v*"}, Prefix: "copy"})
	one := push(t, s.host+"/team/web", "v1", "layer", "")
	push(t, s.host+"/team/web", "test", "other", "")
	push(t, s.host+"/private", "v1", "secret", "")
	until(t, "replicating", func() bool { return has(t, x.host+"/copy/team/web", "v1", one) })
	done(t, s, "dr")
	for _, name := range []string{"/copy/team/web:test", "/copy/private:v1"} {
		repo, tag, _ := strings.Cut(name, ":")
		if _, err := client(t, x.host+repo).Manifest(t.Context(), tag); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s was replicated: %v", name, err)
		}
	}

	// an index with a child that only it names, and a signature that comes later
	r := client(t, s.host+"/team/web")
	child := push(t, s.host+"/team/web", "", "child", "")
	index := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, digest.FromBytes(child), len(child))
	put(t, r, "v2", ocispec.MediaTypeImageIndex, index)
	until(t, "replicating the index", func() bool { return has(t, x.host+"/copy/team/web", "v2", index) })
	if !has(t, x.host+"/copy/team/web", digest.FromBytes(child).String(), child) {
		t.Error("the index went without its manifest")
	}
	sig := push(t, s.host+"/team/web", "", "signature", fmt.Sprintf(`,"subject":{"mediaType":%q,"digest":%q,"size":%d}`, ocispec.MediaTypeImageIndex, digest.FromBytes(index), len(index)))
	until(t, "replicating the signature", func() bool { return has(t, x.host+"/copy/team/web", digest.FromBytes(sig).String(), sig) })
	done(t, s, "dr")

	puts := x.count("PUT")
	put(t, r, "v1", ocispec.MediaTypeImageManifest, one)
	done(t, s, "dr")
	if got := x.count("PUT"); got != puts {
		t.Errorf("the same was sent again: %d, then %d PUTs", puts, got)
	}
}

// TestMounts sends a layer once that lies in several repositories.
func TestMounts(t *testing.T) {
	x := newSite(t, t.TempDir())
	s := newSite(t, t.TempDir(), Rule{Name: "dr", Registry: "http://" + x.host, Repositories: []string{"**"}})
	for _, name := range []string{"/a", "/b"} {
		m := push(t, s.host+name, "1", "layer", "")
		until(t, "replicating", func() bool { return has(t, x.host+name, "1", m) })
	}
	if x.mount.Load() != 2 {
		t.Errorf("%d blobs were mounted", x.mount.Load())
	}
}

// TestTargetFails keeps jobs while the target fails, over a restart, and does them when it answers again.
func TestTargetFails(t *testing.T) {
	x, root := newTarget(t), t.TempDir()
	rule := Rule{Name: "dr", Registry: "http://" + x.host, Repositories: []string{"**"}}
	s := newSite(t, root, rule)
	x.turn(true)
	m := push(t, s.host+"/a/b", "1", "layer", "")
	until(t, "a failure", func() bool {
		jobs, _ := s.r.Jobs("dr")
		return len(jobs) == 1 && jobs[0].Tries > 0 && strings.Contains(jobs[0].Error, "507")
	})
	list, err := s.r.List()
	if err != nil || len(list) != 1 || list[0].Wait != 1 || list[0].Status.Tries == 0 || list[0].Status.LastError == "" {
		t.Errorf("%+v %v", list, err)
	}
	s.stop()
	x.turn(false)
	s = newSite(t, root, rule)
	if jobs, err := s.r.Jobs("dr"); err != nil || len(jobs) != 1 {
		t.Fatalf("after the restart: %+v %v", jobs, err)
	}
	if n, err := s.r.Retry("dr"); err != nil || n != 1 {
		t.Errorf("%d %v", n, err)
	}
	until(t, "replicating", func() bool { return has(t, x.host+"/a/b", "1", m) })
	done(t, s, "dr")
}

// TestLostEvents compares everything after an end that was no Close.
func TestLostEvents(t *testing.T) {
	x, root := newTarget(t), t.TempDir()
	s := newSite(t, root)
	m := push(t, s.host+"/a", "1", "layer", "")
	s.stop()
	q, _, err := openQueue(filepath.Join(root, "replication", "jobs.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := q.db.Close(); err != nil { // as if it was killed
		t.Fatal(err)
	}
	newSite(t, root, Rule{Name: "dr", Registry: "http://" + x.host, Repositories: []string{"**"}})
	until(t, "replicating", func() bool { return has(t, x.host+"/a", "1", m) })
}

// TestPlan prints what differs, and applies only that.
func TestPlan(t *testing.T) {
	x := newTarget(t)
	s := newSite(t, t.TempDir())
	push(t, s.host+"/team/web", "1", "first", "")
	push(t, s.host+"/team/web", "2", "second", "")
	push(t, s.host+"/team/web", "3", "third", "")
	push(t, x.host+"/team/web", "2", "second", "")
	push(t, x.host+"/team/web", "3", "another third", "")
	push(t, x.host+"/team/web", "4", "fourth", "")
	if err := s.r.Set(Rule{Name: "dr", Registry: "http://" + x.host, Repositories: []string{"team/**"}, Deletes: true}); err != nil {
		t.Fatal(err)
	}
	p, err := s.r.Plan(t.Context(), "dr")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	p.Write(&b)
	got := strings.ReplaceAll(strings.ReplaceAll(b.String(), x.host, "HOST"), p.ID, "ID")
	golden := filepath.Join("testdata", "plan.golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if _, err := s.r.Apply(t.Context(), "dr", "0123456789abcdef"); !fault.Is(err, fault.Conflict) {
		t.Errorf("another plan was applied: %v", err)
	}
	if _, err := s.r.Apply(t.Context(), "dr", p.ID); err != nil {
		t.Fatal(err)
	}
	done(t, s, "dr")
	p, err = s.r.Plan(t.Context(), "dr")
	if err != nil || len(p.Items) != 0 || p.Same != 3 {
		t.Errorf("%+v %v", p, err)
	}
}

// TestDeletes follows deletions only where the rule says so, and not for what is another one there.
func TestDeletes(t *testing.T) {
	follows, keeps := newTarget(t), newTarget(t)
	s := newSite(t, t.TempDir(), Rule{Name: "follows", Registry: "http://" + follows.host, Repositories: []string{"**"}, Deletes: true},
		Rule{Name: "keeps", Registry: "http://" + keeps.host, Repositories: []string{"**"}})
	m := push(t, s.host+"/a", "1", "layer", "")
	n := push(t, s.host+"/a", "2", "other", "")
	for _, x := range []*target{follows, keeps} {
		until(t, "replicating", func() bool { return has(t, x.host+"/a", "1", m) && has(t, x.host+"/a", "2", n) })
	}
	done(t, s, "follows")
	theirs := push(t, follows.host+"/a", "2", "changed there", "")
	for _, tag := range []string{"1", "2"} {
		if err := client(t, s.host+"/a").Delete(t.Context(), tag); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "deleting", func() bool { return !has(t, follows.host+"/a", "1", m) })
	until(t, "giving up", func() bool {
		jobs, _ := s.r.Jobs("follows")
		return len(jobs) == 1 && jobs[0].Failed && strings.Contains(jobs[0].Error, "it stays")
	})
	if !has(t, follows.host+"/a", "2", theirs) || !has(t, keeps.host+"/a", "1", m) {
		t.Error("too much was deleted")
	}
}

// TestDeletesByDigest follows the deletion of a manifest with all its tags.
func TestDeletesByDigest(t *testing.T) {
	x := newTarget(t)
	s := newSite(t, t.TempDir(), Rule{Name: "dr", Registry: "http://" + x.host, Repositories: []string{"**"}, Deletes: true})
	m := push(t, s.host+"/a", "1", "layer", "")
	push(t, s.host+"/a", "2", "layer", "")
	n := push(t, s.host+"/a", "3", "other", "")
	until(t, "replicating", func() bool {
		return has(t, x.host+"/a", "1", m) && has(t, x.host+"/a", "2", m) && has(t, x.host+"/a", "3", n)
	})
	done(t, s, "dr")
	if err := client(t, s.host+"/a").Delete(t.Context(), digest.FromBytes(m).String()); err != nil {
		t.Fatal(err)
	}
	until(t, "deleting", func() bool { return !has(t, x.host+"/a", "1", m) && !has(t, x.host+"/a", "2", m) })
	done(t, s, "dr")
	if !has(t, x.host+"/a", "3", n) {
		t.Error("too much was deleted")
	}
}

// TestBothWays ends: what arrives is not sent back.
func TestBothWays(t *testing.T) {
	a, b := newSite(t, t.TempDir()), newSite(t, t.TempDir())
	for _, p := range [][2]*site{{a, b}, {b, a}} {
		if err := p[0].r.Set(Rule{Name: "other", Registry: "http://" + p[1].host, Repositories: []string{"**"}}); err != nil {
			t.Fatal(err)
		}
	}
	m := push(t, a.host+"/x", "1", "from a", "")
	n := push(t, b.host+"/x", "2", "from b", "")
	until(t, "replicating", func() bool { return has(t, b.host+"/x", "1", m) && has(t, a.host+"/x", "2", n) })
	done(t, a, "other")
	done(t, b, "other")
}

func TestRules(t *testing.T) {
	s := newSite(t, t.TempDir(), Rule{Name: "fixed", Registry: "r.invalid", Repositories: []string{"none"}})
	for _, bad := range []Rule{{}, {Name: "A b", Registry: "x", Repositories: []string{"**"}}, {Name: "a", Repositories: []string{"**"}}, {Name: "a", Registry: "x"},
		{Name: "a", Registry: "x/y", Repositories: []string{"**"}}, {Name: "a", Registry: "x", Repositories: []string{"["}}, {Name: "a", Registry: "x", Repositories: []string{"**"}, Tags: []string{"a**b"}},
		{Name: "a", Registry: "x", Repositories: []string{"**"}, Every: door.Duration(time.Second)}, {Name: "a", Registry: "x", Repositories: []string{"**"}, Prefix: "A"}} {
		if err := s.r.Set(bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if err := s.r.Set(Rule{Name: "fixed", Registry: "x", Repositories: []string{"**"}}); !fault.Is(err, fault.Conflict) {
		t.Error(err)
	}
	if err := s.r.Remove("none"); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	if err := s.r.Set(Rule{Name: "a", Registry: "127.0.0.1:1", Repositories: []string{"**"}, Username: "u", Password: "p"}); err != nil {
		t.Fatal(err)
	}
	if err := s.r.Set(Rule{Name: "a", Registry: "127.0.0.1:1", Repositories: []string{"x"}, Username: "u"}); err != nil || s.r.added[0].Password != "p" {
		t.Errorf("the password is lost: %v", err)
	}
	if err := s.r.Set(Rule{Name: "a", Registry: "127.0.0.2:1", Repositories: []string{"x"}, Username: "u"}); err != nil || s.r.added[0].Password != "" {
		t.Errorf("a password follows to another host: %v", err)
	}
	list, err := s.r.List()
	if err != nil || len(list) != 2 || list[0].Password != "" || !list[1].Fixed {
		t.Errorf("%+v %v", list, err)
	}
	if err := s.r.Remove("a"); err != nil {
		t.Error(err)
	}
}

func TestAgain(t *testing.T) {
	now := time.Now()
	j := Job{}
	var waited time.Duration
	for range maxTries {
		b := again(j, fault.New(fault.Unavailable, "x"), now)
		waited += b.Next.Sub(now)
		if b.Failed != (b.Tries == maxTries) {
			t.Errorf("try %d: failed %v", b.Tries, b.Failed)
		}
		j = *b
	}
	if waited < 18*time.Hour || waited > 30*time.Hour {
		t.Errorf("given up after %v", waited)
	}
	if b := again(Job{}, fault.New(fault.NotImplemented, "x"), now); !b.Failed {
		t.Error("what the target cannot is tried again")
	}
}
