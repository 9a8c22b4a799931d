package export

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/session/filesync"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/build/progress"
	"berth/build/session"
	"berth/build/snapshot"
	"berth/image"
	"berth/image/remote"
	"berth/kernel/tree"
)

// bench is an engine's stores with an exporter, and a client that takes what it is sent.
type bench struct {
	*Exporter
	t      testing.TB
	root   string
	images *image.Store
	snaps  *snapshot.Store

	mu     sync.Mutex
	said   []string // ids of progress, in the order of their beginnings
	client string   // session's id
	got    bytes.Buffer
	dir    string // of the client
}

func newBench(t testing.TB) *bench {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: overlay mounts")
	}
	b := &bench{t: t, root: t.TempDir(), dir: t.TempDir()}
	var err error
	if b.images, err = image.Open(image.Config{Root: filepath.Join(b.root, "image")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.images.Close() })
	if b.snaps, err = snapshot.Open(snapshot.Config{Layers: b.images.Layers(), Root: filepath.Join(b.root, "snapshot")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.snaps.Close() })
	client, err := remote.New(remote.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	sessions := session.NewManager(nil)
	t.Cleanup(func() { sessions.Close() })
	out := filesync.NewFSSyncTarget(
		filesync.WithFSSync(0, func(map[string]string) (io.WriteCloser, error) { b.got.Reset(); return nopCloser{&b.got}, nil }),
		filesync.WithFSSyncDir(1, b.dir))
	id, end, err := sessions.Local(t.Context(), "", out)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(end)
	b.client = id
	b.Exporter = New(Config{Root: filepath.Join(b.root, "export"), Images: b.images, Remote: client, Snapshots: b.snaps, Sessions: sessions})
	return b
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// fixed is a Ref that has been evaluated.
type fixed struct{ s *snapshot.Snapshot }

func (f *fixed) Result(context.Context) (*snapshot.Snapshot, error) { return f.s, nil }

// step makes a tree from another one, nil for none: name, content, name, content; a content "" deletes.
func (b *bench) step(from Ref, pairs ...string) Ref {
	b.t.Helper()
	base := b.snaps.Scratch()
	if from != nil {
		base = from.(*fixed).s
	}
	d, err := b.snaps.Draft(b.t.Context(), base)
	if err != nil {
		b.t.Fatal(err)
	}
	defer d.Drop()
	err = d.Path(b.t.Context(), func(root string) error {
		for i := 0; i < len(pairs); i += 2 {
			p := filepath.Join(root, pairs[i])
			if pairs[i+1] == "" {
				if err := os.RemoveAll(p); err != nil {
					return err
				}
				continue
			}
			if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(p, []byte(pairs[i+1]), 0o644); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	s, err := d.Seal(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(s.Release)
	return &fixed{s}
}

// config is what a frontend says of an image with a history of so many layers.
func config(arch string, layers int) []byte {
	img := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: arch}}
	for range layers {
		img.History = append(img.History, ocispec.History{CreatedBy: "RUN something", Comment: "buildkit.dockerfile.v0"}, ocispec.History{CreatedBy: "ENV A=b", EmptyLayer: true})
	}
	img.Config.Env = []string{"PATH=/bin"}
	raw, _ := json.Marshal(img)
	return raw
}

// result is a result of one platform.
func result1(ref Ref, layers int) *Result {
	r := &Result{}
	r.SetRef(ref)
	r.AddMeta(exptypes.ExporterImageConfigKey, config("amd64", layers))
	return r
}

// platforms is a result of two platforms.
func platforms2(t testing.TB, amd, arm Ref, layers int) *Result {
	r := &Result{}
	ps := exptypes.Platforms{}
	for id, ref := range map[string]Ref{"linux/amd64": amd, "linux/arm64": arm} {
		r.AddRef(id, ref)
		r.AddMeta(exptypes.ExporterImageConfigKey+"/"+id, config(strings.TrimPrefix(id, "linux/"), layers))
	}
	for _, arch := range []string{"amd64", "arm64"} {
		ps.Platforms = append(ps.Platforms, exptypes.Platform{ID: "linux/" + arch, Platform: ocispec.Platform{OS: "linux", Architecture: arch}})
	}
	raw, err := json.Marshal(ps)
	if err != nil {
		t.Fatal(err)
	}
	r.AddMeta(exptypes.ExporterPlatformsKey, raw)
	return r
}

// export exports and fails the test when that fails.
func (b *bench) export(kind string, id int, res *Result, attrs ...string) *Done {
	b.t.Helper()
	done, err := b.try(kind, id, res, attrs...)
	if err != nil {
		b.t.Fatal(err)
	}
	return done
}

func (b *bench) try(kind string, id int, res *Result, attrs ...string) (*Done, error) {
	b.t.Helper()
	m := map[string]string{}
	for _, a := range attrs {
		k, v, _ := strings.Cut(a, "=")
		m[k] = v
	}
	o, err := b.Resolve(Request{Type: kind, Attrs: m, ID: id})
	if err != nil {
		return nil, err
	}
	b.said = nil
	return o.Export(b.t.Context(), res, &Run{Session: b.client, Status: func(s progress.Status) {
		b.mu.Lock()
		defer b.mu.Unlock()
		if s.Completed == nil && s.Current == 0 {
			b.said = append(b.said, s.ID)
		}
	}})
}

// files reads the archive that the client got.
func (b *bench) files() map[string][]byte {
	b.t.Helper()
	out := map[string][]byte{}
	tr := tar.NewReader(bytes.NewReader(b.got.Bytes()))
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			b.t.Fatal(err)
		}
		raw, err := io.ReadAll(tr)
		if err != nil {
			b.t.Fatal(err)
		}
		out[h.Name] = raw
	}
}

// newRegistry gives the host of a registry in memory.
func newRegistry(t testing.TB) string {
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithBlobHandler(registry.NewInMemoryBlobHandler())))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func decode[T any](t testing.TB, raw []byte) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func hexed(d digest.Digest) string { return "blobs/sha256/" + d.Encoded() }

func encode(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

var later = time.Now().Add(48 * time.Hour)

func nil2(*tree.Dir) error { return nil }
