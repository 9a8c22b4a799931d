package upstream

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/rand/v2"
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
	"berth/registry/storage"
	"berth/registry/storage/dir"
)

// far is another registry, which can be made to fail.
type far struct {
	host  string
	mu    sync.Mutex
	asked map[string]int // "GET /v2/…"
	hook  func(w http.ResponseWriter, r *http.Request) bool
}

func newFar(t *testing.T) *far {
	f := &far{asked: map[string]int{}}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.asked[r.Method+" "+r.URL.Path]++
		hook := f.hook
		f.mu.Unlock()
		if hook == nil || !hook(w, r) {
			inner.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	f.host = s.Listener.Addr().String()
	return f
}

func (f *far) set(hook func(w http.ResponseWriter, r *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = hook
}

func (f *far) fail() {
	f.set(func(w http.ResponseWriter, r *http.Request) bool {
		w.WriteHeader(http.StatusInsufficientStorage) // not tried again, unlike 503
		return true
	})
}

// total counts requests whose path contains part.
func (f *far) total(part string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for k, v := range f.asked {
		if strings.Contains(k, part) {
			n += v
		}
	}
	return n
}

// near is a registry with a cache.
type near struct {
	root  string
	store *storage.Store
	cache *Cache
	host  string
	stop  func()
}

func newNear(t *testing.T, root string, hosts string, sources ...Source) *near {
	t.Helper()
	driver, err := dir.Open(filepath.Join(root, "content"))
	if err != nil {
		t.Fatal(err)
	}
	quietLog := slog.New(slog.DiscardHandler)
	store, err := storage.Open(t.Context(), driver, storage.Config{Log: quietLog})
	if err != nil {
		t.Fatal(err)
	}
	cache, err := Open(Config{Dir: filepath.Join(root, "upstream"), Store: store, Sources: sources, HostsDirs: []string{hosts}, Log: quietLog})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(distribution.New(distribution.Config{Storage: store, Upstream: cache, Events: cache.Notify}))
	n := &near{root: root, store: store, cache: cache, host: s.Listener.Addr().String()}
	n.stop = sync.OnceFunc(func() {
		s.Close()
		if err := cache.Close(); err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(n.stop)
	return n
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

// image is a manifest with its blobs.
type image struct {
	manifest []byte
	blobs    [][]byte
}

func newImage(seed uint64, size int) image {
	r := rand.New(rand.NewPCG(seed, 2))
	config := fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","seed":%d,"rootfs":{"type":"layers","diff_ids":[]}}`, seed)
	im := image{blobs: [][]byte{config}}
	layers := []string{}
	for range 2 {
		b := make([]byte, size)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		im.blobs = append(im.blobs, b)
		layers = append(layers, fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}`, digest.FromBytes(b), len(b)))
	}
	im.manifest = fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[%s]}`,
		ocispec.MediaTypeImageManifest, digest.FromBytes(config), len(config), strings.Join(layers, ","))
	return im
}

func (im image) push(t *testing.T, name, tag string) {
	t.Helper()
	r := client(t, name)
	for _, b := range im.blobs {
		if err := r.PushBlob(t.Context(), ocispec.Descriptor{Digest: digest.FromBytes(b), Size: int64(len(b))}, func(at int64) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(b[at:])), nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.PushManifest(t.Context(), tag, ocispec.MediaTypeImageManifest, im.manifest); err != nil {
		t.Fatal(err)
	}
}

// pull fetches the image and compares it.
func (im image) pull(t *testing.T, name, tag string) *remote.Document {
	t.Helper()
	r := client(t, name)
	doc, err := r.Manifest(t.Context(), tag)
	if err != nil {
		t.Fatalf("%s:%s: %v", name, tag, err)
	}
	if !bytes.Equal(doc.Content, im.manifest) {
		t.Fatalf("%s:%s: another manifest", name, tag)
	}
	for i, b := range im.blobs {
		rc, err := r.Blob(t.Context(), ocispec.Descriptor{Digest: digest.FromBytes(b), Size: int64(len(b))}, 0)
		if err != nil {
			t.Fatalf("blob %d: %v", i, err)
		}
		got, err := io.ReadAll(rc)
		rc.Close()
		if err != nil || !bytes.Equal(got, b) {
			t.Fatalf("blob %d: %d bytes, %v", i, len(got), err)
		}
	}
	return doc
}

// status asks once, without the patience of our client.
func status(t *testing.T, host, path string) int {
	t.Helper()
	resp, err := http.Get("http://" + host + path)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// until waits for what happens behind the requests.
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

const nothingFresh = door.Duration(time.Nanosecond)

// TestPullThrough fetches once, keeps whole, and serves when the source fails, also after a restart.
func TestPullThrough(t *testing.T) {
	f, root := newFar(t), t.TempDir()
	im := newImage(1, 1<<20)
	im.push(t, f.host+"/team/web", "1")
	src := Source{Name: "far", Registry: "http://" + f.host, Fresh: nothingFresh}
	n := newNear(t, root, t.TempDir(), src)
	im.pull(t, n.host+"/team/web", "1")
	d := digest.FromBytes(im.manifest)
	until(t, "storing the manifest", func() bool { _, err := n.store.Manifest(t.Context(), "team/web", "1"); return err == nil })
	blobs := f.total("/blobs/sha256")
	im.pull(t, n.host+"/team/web", "1")
	im.pull(t, n.host+"/team/web", d.String())
	if got := f.total("/blobs/sha256"); got != blobs {
		t.Errorf("blobs were asked for again: %d, then %d", blobs, got)
	}
	n.stop()

	f.fail()
	n = newNear(t, root, t.TempDir(), src)
	doc := im.pull(t, n.host+"/team/web", "1")
	if doc.Age <= 0 {
		t.Error("the copy does not say how old it is")
	}
	resp, err := http.Get("http://" + n.host + "/v2/team/web/manifests/1")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if w := resp.Header.Get("Warning"); !strings.Contains(w, "could not be asked") || resp.Header.Get("Age") == "" {
		t.Errorf("Warning %q, Age %q", w, resp.Header.Get("Age"))
	}
	if got := status(t, n.host, "/v2/team/web/manifests/2"); got != http.StatusServiceUnavailable {
		t.Errorf("what is not here and cannot be asked for: %d", got)
	}
}

// TestFresh asks about a tag only when the last answer is old, and then follows it.
func TestFresh(t *testing.T) {
	f := newFar(t)
	a, b := newImage(2, 1000), newImage(3, 1000)
	a.push(t, f.host+"/x", "1")
	lazy := newNear(t, t.TempDir(), t.TempDir(), Source{Name: "far", Registry: "http://" + f.host, Fresh: door.Duration(time.Hour)})
	eager := newNear(t, t.TempDir(), t.TempDir(), Source{Name: "far", Registry: "http://" + f.host, Fresh: nothingFresh})
	a.pull(t, lazy.host+"/x", "1")
	a.pull(t, eager.host+"/x", "1")
	b.push(t, f.host+"/x", "1")
	a.pull(t, lazy.host+"/x", "1")
	b.pull(t, eager.host+"/x", "1")
	f.set(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/manifests/") {
			w.WriteHeader(404)
			return true
		}
		return false
	})
	if _, err := client(t, eager.host+"/x").Manifest(t.Context(), "1"); !fault.Is(err, fault.NotFound) {
		t.Errorf("a tag that is gone at the source: %v", err)
	}
}

// TestNames finds the source of a name: by prefix, in order, with the Hub's short names.
func TestNames(t *testing.T) {
	hub, quay, second := newFar(t), newFar(t), newFar(t)
	hosts := t.TempDir()
	if err := os.MkdirAll(filepath.Join(hosts, "docker.io"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(hosts, "docker.io", "hosts.toml"), []byte("server = \"http://"+hub.host+"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tomcat, prom, own := newImage(4, 100), newImage(5, 100), newImage(6, 100)
	tomcat.push(t, hub.host+"/library/tomcat", "9")
	prom.push(t, quay.host+"/prometheus/node", "1")
	own.push(t, second.host+"/team/own", "1")
	n := newNear(t, t.TempDir(), hosts, Source{Name: "hub", Registry: "docker.io"}, Source{Name: "hub2", Registry: "docker.io", Prefix: "hub"},
		Source{Name: "quay", Registry: "http://" + quay.host, Prefix: "quay", Only: []string{"prometheus/*"}}, Source{Name: "second", Registry: "http://" + second.host})
	tomcat.pull(t, n.host+"/library/tomcat", "9")
	tomcat.pull(t, n.host+"/hub/tomcat", "9")
	tomcat.pull(t, n.host+"/hub/library/tomcat", "9")
	prom.pull(t, n.host+"/quay/prometheus/node", "1")
	own.pull(t, n.host+"/team/own", "1") // the Hub says no first
	if hub.total("/v2/team/own") == 0 {
		t.Error("the first source was not asked")
	}
	if _, err := client(t, n.host+"/quay/other/x").Manifest(t.Context(), "1"); !fault.Is(err, fault.NotFound) || quay.total("other") != 0 {
		t.Errorf("a repository outside the rule: %v", err)
	}
	// what the first source could have must not come from the second while the first fails
	hub.fail()
	if got := status(t, n.host, "/v2/team/later/manifests/1"); got != http.StatusServiceUnavailable || second.total("team/later") != 0 {
		t.Errorf("%d, the second was asked %d times", got, second.total("team/later"))
	}
}

// TestPushed keeps what was pushed here from the sources.
func TestPushed(t *testing.T) {
	f := newFar(t)
	theirs, ours := newImage(7, 1000), newImage(8, 1000)
	theirs.push(t, f.host+"/team/web", "1")
	theirs.push(t, f.host+"/team/web", "2")
	theirs.push(t, f.host+"/team/app", "1")
	n := newNear(t, t.TempDir(), t.TempDir(), Source{Name: "far", Registry: "http://" + f.host, Fresh: nothingFresh})
	ours.push(t, n.host+"/team/app", "2")
	if _, err := client(t, n.host+"/team/app").Manifest(t.Context(), "1"); !fault.Is(err, fault.NotFound) || f.total("/v2/team/app/manifests/1") != 1 {
		t.Errorf("a repository that was pushed here was filled from elsewhere: %v", err)
	}
	theirs.pull(t, n.host+"/team/web", "1")
	ours.push(t, n.host+"/team/web", "1")
	ours.pull(t, n.host+"/team/web", "1")
	theirs.pull(t, n.host+"/team/web", "2")
	if err := client(t, n.host+"/team/web").Delete(t.Context(), "1"); err != nil {
		t.Fatal(err)
	}
	theirs.pull(t, n.host+"/team/web", "1")
}

// TestOneFetch has many clients share one fetch, and read while it runs.
func TestOneFetch(t *testing.T) {
	f := newFar(t)
	im := newImage(9, 4<<20)
	im.push(t, f.host+"/x", "1")
	blob := im.blobs[1]
	d := digest.FromBytes(blob)
	half, early := make(chan struct{}), make(chan struct{})
	f.set(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/v2/x/blobs/"+d.String() {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(blob)))
		_, _ = w.Write(blob[:len(blob)/2])
		w.(http.Flusher).Flush()
		<-half
		_, _ = w.Write(blob[len(blob)/2:])
		return true
	})
	n := newNear(t, t.TempDir(), t.TempDir(), Source{Name: "far", Registry: "http://" + f.host})
	r := client(t, n.host+"/x")
	if _, err := r.Manifest(t.Context(), "1"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var good, first atomic.Int32
	for i := range 20 {
		wg.Go(func() {
			offset := int64(i) * 1000
			rc, err := r.Blob(t.Context(), ocispec.Descriptor{Digest: d, Size: int64(len(blob))}, offset)
			if err != nil {
				t.Error(err)
				return
			}
			defer rc.Close()
			b := make([]byte, 1000)
			if _, err := io.ReadFull(rc, b); err == nil && first.Add(1) == 20 {
				close(early)
			}
			rest, err := io.ReadAll(rc)
			if err == nil && bytes.Equal(append(b, rest...), blob[offset:]) {
				good.Add(1)
			}
		})
	}
	select {
	case <-early: // all read before the source has sent everything
	case <-time.After(time.Minute):
		t.Error("the clients wait for the whole blob")
	}
	close(half)
	wg.Wait()
	if good.Load() != 20 || f.total("/blobs/"+d.String()) != 1 {
		t.Errorf("%d of 20 clients, the source was asked %d times", good.Load(), f.total("/blobs/"+d.String()))
	}
	left, err := os.ReadDir(filepath.Join(n.root, "upstream"))
	if err != nil || len(left) != 1 {
		t.Errorf("left over: %v %v", left, err)
	}
}

// TestKilledBeforeUnlink opens a cache that was killed in the moment in which a blob's file has a name.
func TestKilledBeforeUnlink(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "upstream")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	file, err := os.CreateTemp(dir, fetchName)
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
	newNear(t, root, "")
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left over: %v %v", left, err)
	}
}

// TestWrongBytes hands out no whole blob and stores nothing when the source sends something else.
func TestWrongBytes(t *testing.T) {
	f := newFar(t)
	im := newImage(10, 100_000)
	im.push(t, f.host+"/x", "1")
	d := digest.FromBytes(im.blobs[1])
	var mode atomic.Int32
	f.set(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/v2/x/blobs/"+d.String() {
			return false
		}
		b := bytes.Clone(im.blobs[1])
		if mode.Load() == 0 {
			b[50] ^= 1
		} else {
			b = b[:99_999]
		}
		_, _ = w.Write(b)
		return true
	})
	n := newNear(t, t.TempDir(), t.TempDir(), Source{Name: "far", Registry: "http://" + f.host})
	if _, err := client(t, n.host+"/x").Manifest(t.Context(), "1"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		resp, err := http.Get("http://" + n.host + "/v2/x/blobs/" + d.String())
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil && resp.StatusCode == 200 {
			t.Errorf("the client took %d wrong bytes for the blob", len(b))
		}
		if _, err := n.store.StatBlob(t.Context(), "x", d); !fault.Is(err, fault.NotFound) {
			t.Errorf("stored: %v", err)
		}
		mode.Add(1)
	}
}

// TestFinish makes an image whole of which a client had some layers already, and leaves one alone that was only looked at.
func TestFinish(t *testing.T) {
	f := newFar(t)
	pulled, seen := newImage(11, 1000), newImage(12, 1000)
	pulled.push(t, f.host+"/x", "1")
	seen.push(t, f.host+"/x", "2")
	n := newNear(t, t.TempDir(), t.TempDir(), Source{Name: "far", Registry: "http://" + f.host})
	r := client(t, n.host+"/x")
	had := newImage(18, 1000) // the client has its layers
	had.push(t, f.host+"/x", "3")
	for _, what := range []string{"1", "2", digest.FromBytes(had.manifest).String()} {
		if _, err := r.Manifest(t.Context(), what); err != nil {
			t.Fatal(err)
		}
	}
	rc, err := r.Blob(t.Context(), ocispec.Descriptor{Digest: digest.FromBytes(pulled.blobs[1])}, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, rc)
	rc.Close()
	until(t, "storing", func() bool {
		_, err := n.store.StatBlob(t.Context(), "x", digest.FromBytes(pulled.blobs[1]))
		return err == nil
	})
	if list := n.cache.gone(0); len(list) != 1 {
		t.Fatalf("%q are to be finished", list)
	}
	if err := n.cache.finish(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := n.store.Manifest(t.Context(), "x", "1"); err != nil {
		t.Errorf("the image is not whole: %v", err)
	}
	if _, err := n.store.Manifest(t.Context(), "x", "2"); !fault.Is(err, fault.NotFound) {
		t.Errorf("an image that nobody pulled: %v", err)
	}
	f.fail()
	pulled.pull(t, n.host+"/x", "1")
	had.pull(t, n.host+"/x", digest.FromBytes(had.manifest).String())
}

// TestWaiting keeps what waits over a restart, makes it whole then, and forgets it after a month.
func TestWaiting(t *testing.T) {
	f, root := newFar(t), t.TempDir()
	im := newImage(14, 1000)
	im.push(t, f.host+"/x", "1")
	src := Source{Name: "far", Registry: "http://" + f.host}
	n := newNear(t, root, t.TempDir(), src)
	if _, err := client(t, n.host+"/x").Manifest(t.Context(), "1"); err != nil {
		t.Fatal(err)
	}
	if _, err := n.store.PutBlob(t.Context(), "x", digest.FromBytes(im.blobs[0]), bytes.NewReader(im.blobs[0])); err != nil {
		t.Fatal(err) // as if the registry had been killed behind it
	}
	n.stop()
	n = newNear(t, root, t.TempDir(), src)
	if list := n.cache.gone(0); len(list) != 1 || list[0] != "x" {
		t.Fatalf("%q are to be finished", list)
	}
	if err := n.cache.finish(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := n.store.Manifest(t.Context(), "x", "1"); err != nil {
		t.Error(err)
	}

	old := waitingEntry{MediaType: ocispec.MediaTypeImageManifest, Content: im.manifest, Wanted: time.Now().Add(-waitingFor - time.Hour)}
	if err := n.cache.put(bucketWaiting, pairKey("y", "sha256:x"), old); err != nil {
		t.Fatal(err)
	}
	if err := n.cache.tidy(); err != nil {
		t.Fatal(err)
	}
	if list, err := n.cache.waitingOf("y"); err != nil || len(list) != 0 {
		t.Errorf("%v %v", list, err)
	}
}

// TestQuota gives the clients what the storage has no room for.
func TestQuota(t *testing.T) {
	f := newFar(t)
	im := newImage(15, 1000)
	im.push(t, f.host+"/x", "1")
	n := newNear(t, t.TempDir(), t.TempDir(), Source{Name: "far", Registry: "http://" + f.host})
	n.cache.cfg.Quota = func(context.Context, string, int64) error { return fault.New(fault.Forbidden, "full") }
	im.pull(t, n.host+"/x", "1")
	if _, err := n.store.StatBlob(t.Context(), "x", digest.FromBytes(im.blobs[1])); !fault.Is(err, fault.NotFound) {
		t.Errorf("stored in spite of the quota: %v", err)
	}
}

// TestReferrers fetches signatures when they are asked for, and keeps them when the source fails.
func TestReferrers(t *testing.T) {
	f := newFar(t)
	im := newImage(16, 1000)
	im.push(t, f.host+"/x", "1")
	d := digest.FromBytes(im.manifest)
	sig := newImage(17, 100)
	sig.manifest = bytes.Replace(sig.manifest, []byte(`"config":`), fmt.Appendf(nil, `"artifactType":"test/signature","subject":{"mediaType":%q,"digest":%q,"size":%d},"config":`, ocispec.MediaTypeImageManifest, d, len(im.manifest)), 1)
	sig.push(t, f.host+"/x", digest.FromBytes(sig.manifest).String())
	n := newNear(t, t.TempDir(), t.TempDir(), Source{Name: "far", Registry: "http://" + f.host, Prefix: "far", Fresh: nothingFresh})
	im.pull(t, n.host+"/far/x", "1")
	for range 2 {
		if err := n.cache.Referrers(t.Context(), "far/x", d); err != nil {
			t.Fatal(err)
		}
		list, err := client(t, n.host+"/far/x").Referrers(t.Context(), d, "test/signature")
		if err != nil || len(list) != 1 || list[0].Digest != digest.FromBytes(sig.manifest) {
			t.Errorf("%+v %v", list, err)
		}
	}
	sig.pull(t, n.host+"/far/x", digest.FromBytes(sig.manifest).String())
	f.fail()
	if err := n.cache.Referrers(t.Context(), "far/x", d); err == nil {
		t.Error("nothing is said of a source that fails")
	}
	if list, err := client(t, n.host+"/far/x").Referrers(t.Context(), d, ""); err != nil || len(list) != 1 {
		t.Errorf("%+v %v", list, err)
	}
	if err := n.cache.Referrers(t.Context(), "other", d); err != nil {
		t.Errorf("of a repository that is no copy: %v", err)
	}
	if name, ok := n.cache.Local(f.host, "x/y"); !ok || name != "far/x/y" {
		t.Errorf("%q %v", name, ok)
	}
	if name, ok := n.cache.Local("quay.io", "x/y"); ok {
		t.Errorf("%q", name)
	}
}

// TestAbsent does not ask again at once for what is not there.
func TestAbsent(t *testing.T) {
	f := newFar(t)
	n := newNear(t, t.TempDir(), t.TempDir(), Source{Name: "far", Registry: "http://" + f.host})
	r := client(t, n.host+"/x")
	for range 5 {
		if _, err := r.Manifest(t.Context(), "nosuch"); !fault.Is(err, fault.NotFound) {
			t.Error(err)
		}
	}
	if got := f.total("/manifests/nosuch"); got != 1 {
		t.Errorf("asked %d times", got)
	}
	if n.store.Exists("x") {
		t.Error("a question made a repository")
	}
	if _, err := r.Blob(t.Context(), ocispec.Descriptor{Digest: digest.FromString("x")}, 0); !fault.Is(err, fault.NotFound) || f.total("/blobs/") != 0 {
		t.Errorf("a blob of nothing: %v", err)
	}
}

// TestAdmin adds, shows, changes and removes a source.
func TestAdmin(t *testing.T) {
	f := newFar(t)
	im := newImage(13, 100)
	im.push(t, f.host+"/x", "1")
	n := newNear(t, t.TempDir(), t.TempDir(), Source{Name: "fixed", Registry: "registry.invalid", Prefix: "no"})
	err := n.cache.Set(Source{Name: "far", Registry: "http://" + f.host, Prefix: "f", Username: "u", Password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	im.pull(t, n.host+"/f/x", "1")
	if err := n.cache.Set(Source{Name: "moved", Registry: "a.example", Prefix: "m", Username: "u", Password: "secret"}); err != nil {
		t.Fatal(err)
	}
	if err := n.cache.Set(Source{Name: "moved", Registry: "b.example", Prefix: "m", Username: "u"}); err != nil || n.cache.added[1].Password != "" {
		t.Errorf("a password follows to another host: %v", err)
	}
	if err := n.cache.Remove("moved"); err != nil {
		t.Fatal(err)
	}
	if err := n.cache.Set(Source{Name: "far", Registry: "http://" + f.host, Prefix: "f", Username: "u"}); err != nil || n.cache.added[0].Password != "secret" {
		t.Errorf("the password is lost: %v", err)
	}
	list := n.cache.List()
	if len(list) != 2 || list[1].Name != "far" || list[1].Password != "" || list[1].Copies != 1 || list[1].Insecure != true || !list[0].Fixed {
		t.Errorf("%+v", list)
	}
	if err := n.cache.Check(context.Background(), "far"); err != nil {
		t.Error(err)
	}
	for _, bad := range []Source{{Name: "A", Registry: "x"}, {Name: "a"}, {Name: "a", Registry: "a/b"}, {Name: "a", Registry: "x", Prefix: "A"}, {Name: "a", Registry: "x", Only: []string{"["}}, {Name: "a", Registry: "x", Fresh: -1}} {
		if err := n.cache.Set(bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if err := n.cache.Set(Source{Name: "fixed", Registry: "x"}); !fault.Is(err, fault.Conflict) {
		t.Error(err)
	}
	if err := n.cache.Remove("far"); err != nil {
		t.Fatal(err)
	}
	if n.cache.Covers("f/x") || n.cache.Covers("f/y") {
		t.Error("a source that was removed is still asked")
	}
	until(t, "storing", func() bool { _, err := n.store.Manifest(t.Context(), "f/x", "1"); return err == nil })
	im.pull(t, n.host+"/f/x", "1")
}
