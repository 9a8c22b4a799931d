package remotecache

import (
	"bytes"
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/google/go-containerregistry/pkg/registry"
	sessioncontent "github.com/moby/buildkit/session/content"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/build/export"
	"berth/build/graph"
	"berth/build/session"
	"berth/build/snapshot"
	"berth/build/solver"
	"berth/image"
	"berth/image/remote"
	"berth/kernel/tree"
)

// engine is one builder's stores with what exports and imports.
type engine struct {
	*Caches
	t      testing.TB
	images *image.Store
	snaps  *snapshot.Store
	mounts *shelf
	client string // session's id
	dir    string // the client's
}

// newEngine makes one whose client has a directory.
func newEngine(t testing.TB, dir string) *engine {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: overlay mounts")
	}
	e := &engine{t: t, dir: dir, mounts: &shelf{t: t, dirs: map[string]string{}}}
	root := t.TempDir()
	var err error
	if e.images, err = image.Open(image.Config{Root: filepath.Join(root, "image")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.images.Close() })
	if e.snaps, err = snapshot.Open(snapshot.Config{Layers: e.images.Layers(), Root: filepath.Join(root, "snapshot")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.snaps.Close() })
	client, err := remote.New(remote.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	sessions := session.NewManager(nil)
	t.Cleanup(func() { sessions.Close() })
	store, err := local.NewStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	id, end, err := sessions.Local(t.Context(), "", sessioncontent.NewAttachable(map[string]content.Store{"local:" + dir: store}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(end)
	e.client = id
	ex := export.New(export.Config{Root: filepath.Join(root, "export"), Images: e.images, Remote: client, Snapshots: e.snaps, Sessions: sessions})
	e.Caches = New(Config{Images: e.images, Remote: client, Sessions: sessions, Export: ex, Mounts: e.mounts})
	return e
}

// built is a result of steps.
type built struct {
	steps []solver.Outcome
	last  *snapshot.Snapshot
}

func (b *built) Result(context.Context) (*snapshot.Snapshot, error) { return b.last, nil }

func (b *built) Walk(f func(solver.Outcome) error) error {
	for _, s := range b.steps {
		if err := f(s); err != nil {
			return err
		}
	}
	return nil
}

func keyOf(name string) digest.Digest { return digest.FromString("key of " + name) }

// build makes a result: each step writes a file called as it is, the last two stand on different ones.
func (e *engine) build(steps ...string) *built {
	e.t.Helper()
	b := &built{last: e.snaps.Scratch()}
	for _, name := range steps {
		d, err := e.snaps.Draft(e.t.Context(), b.last)
		if err != nil {
			e.t.Fatal(err)
		}
		if err := d.Path(e.t.Context(), func(root string) error {
			return os.WriteFile(filepath.Join(root, name), bytes.Repeat([]byte(name), 1000), 0o644)
		}); err != nil {
			e.t.Fatal(err)
		}
		if b.last, err = d.Seal(e.t.Context()); err != nil {
			e.t.Fatal(err)
		}
		e.t.Cleanup(b.last.Release)
		op := &pb.Op{Op: &pb.Op_Exec{Exec: &pb.ExecOp{Mounts: []*pb.Mount{{MountType: pb.MountType_CACHE, CacheOpt: &pb.CacheOpt{ID: "cache-of-" + name}}}}}}
		b.steps = append(b.steps, solver.Outcome{
			Vertex: &graph.Vertex{Name: "RUN " + name, Op: op}, Keys: []digest.Digest{keyOf(name), keyOf(name + " by content")},
			Chains: [][]digest.Digest{b.last.Chain(), nil}, Created: time.Unix(1000, 0).UTC(),
		})
	}
	return b
}

func request(kind string, attrs ...string) Request {
	r := Request{Type: kind, Attrs: map[string]string{}}
	for _, a := range attrs {
		k, v, _ := strings.Cut(a, "=")
		r.Attrs[k] = v
	}
	return r
}

func (e *engine) export(req Request, refs ...Ref) map[string]string {
	e.t.Helper()
	t, err := e.Target(req)
	if err != nil {
		e.t.Fatal(err)
	}
	resp, err := t.Export(e.t.Context(), refs, Run{Session: e.client})
	if err != nil {
		e.t.Fatal(err)
	}
	return resp
}

// check looks a step up, and brings its layers here when they are said to be there.
func (e *engine) check(req Request, name string, want []digest.Digest, data bool) {
	e.t.Helper()
	r, err := e.Import(e.t.Context(), req, e.client)
	if err != nil {
		e.t.Fatal(err)
	}
	for _, key := range []digest.Digest{keyOf(name), keyOf(name + " by content")} {
		f, err := r.Lookup(e.t.Context(), key)
		if err != nil {
			e.t.Fatal(err)
		}
		if len(f.Outputs) != 2 || !slices.Equal(f.Outputs[0], want) || f.Outputs[1] != nil || f.Name != "RUN "+name || !f.Created.Equal(time.Unix(1000, 0)) {
			e.t.Errorf("%s: %+v, want %v", name, f, want)
		}
		if (f.Provide != nil) != data {
			e.t.Errorf("%s: has data: %v", name, f.Provide != nil)
		}
		if !data {
			continue
		}
		if err := f.Provide(e.t.Context(), 0); err != nil {
			e.t.Fatal(err)
		}
		s, err := e.snaps.FromChain(want)
		if err != nil {
			e.t.Fatal(err)
		}
		e.images.Layers().Release(want...)
		err = s.View(e.t.Context(), func(root *tree.Dir) error {
			_, err := root.Stat(name)
			return err
		})
		if err != nil {
			e.t.Error(err)
		}
		s.Release()
	}
	if _, err := r.Lookup(e.t.Context(), keyOf("something else")); !fault.Is(err, fault.NotFound) {
		e.t.Error(err)
	}
}

func newRegistry(t testing.TB) string {
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithBlobHandler(registry.NewInMemoryBlobHandler())))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// bucket is an S3 store in memory that knows just enough.
type bucket struct {
	mu      sync.Mutex
	objects map[string][]byte
	puts    int
}

func newBucket(t testing.TB) (*bucket, string) {
	b := &bucket{objects: map[string][]byte{}}
	s := httptest.NewServer(b)
	t.Cleanup(s.Close)
	return b, s.URL
}

func (b *bucket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, _ := io.ReadAll(r.Body)
	b.mu.Lock()
	defer b.mu.Unlock()
	if !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=id/") {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	switch obj, ok := b.objects[r.URL.Path]; {
	case r.Method == http.MethodPut:
		b.objects[r.URL.Path] = raw
		b.puts++
	case !ok:
		w.WriteHeader(http.StatusNotFound)
	default:
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(obj))
	}
}

// shelf are cache mounts.
type shelf struct {
	t    testing.TB
	dirs map[string]string
}

func (s *shelf) CacheKeys() (list []string) {
	for k := range s.dirs {
		list = append(list, k)
	}
	return list
}

func (s *shelf) ReadCache(_ context.Context, key string, f func(root *tree.Dir) error) error {
	dir, ok := s.dirs[key]
	if !ok {
		return fault.New(fault.NotFound, "no cache %s", key)
	}
	root, err := tree.OpenDir(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return f(root)
}

func (s *shelf) FillCache(_ context.Context, key, _ string, f func(root *tree.Dir) error) (bool, error) {
	if _, ok := s.dirs[key]; ok {
		return false, nil
	}
	dir := s.t.(*testing.T).TempDir()
	root, err := tree.OpenDir(dir)
	if err != nil {
		return false, err
	}
	defer root.Close()
	if err := f(root); err != nil {
		return false, err
	}
	s.dirs[key] = dir
	return true, nil
}

func (s *shelf) put(key, name, text string) {
	dir := s.t.(*testing.T).TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o640); err != nil {
		s.t.Fatal(err)
	}
	s.dirs[key] = dir
}
