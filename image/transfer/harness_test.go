package transfer

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/ref"
	"berth/image"
	"berth/image/remote"
)

var ctx = context.Background()

// engine is what a test pulls into and pushes from.
type engine struct {
	*Transfer
	t      testing.TB
	root   string
	images *image.Store

	mu     sync.Mutex
	events []string
}

func newEngine(t testing.TB, change func(*Config)) *engine {
	t.Helper()
	return newEngineWith(t, image.Config{}, change)
}

func newEngineWith(t testing.TB, store image.Config, change func(*Config)) *engine {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: owners and trusted attributes of layers")
	}
	e := &engine{t: t, root: t.TempDir()}
	store.Root = e.root
	store.Events = func(ev image.Event) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.events = append(e.events, ev.Action+" "+ev.ID)
	}
	var err error
	e.images, err = image.Open(store)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.images.Close() })
	client, err := remote.New(remote.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	cfg := Config{Images: e.images, Remote: client}
	if change != nil {
		change(&cfg)
	}
	e.Transfer = New(cfg)
	return e
}

// rooms counts what is on disk, once deletions in the background are done: layers, layers being made, blobs.
func (e *engine) rooms() string {
	e.t.Helper()
	if err := e.images.Layers().WaitTrash(ctx); err != nil {
		e.t.Fatal(err)
	}
	count := func(pattern string) int {
		list, _ := filepath.Glob(filepath.Join(e.root, pattern))
		return len(list)
	}
	return fmt.Sprintf("layers %d staged %d blobs %d half %d trash %d", count("layer/d/*"), count("layer/tmp/*"), count("blob/sha*/*"), count("blob/tmp/*"), count("layer/trash/*"))
}

// transcript collects what a client would see. Byte counts are left out: when they are told is a matter of time.
type transcript struct {
	mu    sync.Mutex
	lines []string
	names *strings.Replacer
}

func (s *transcript) tell(p Progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	line := p.Status
	if p.ID != "" {
		line = p.ID + ": " + line
	}
	if p.Aux != nil {
		b, _ := json.Marshal(p.Aux)
		line = "aux " + string(b)
	}
	if p.Status == "Downloading" || p.Status == "Pushing" && p.Total > 0 || p.Status == "Waiting" {
		return
	}
	if s.names != nil {
		line = s.names.Replace(line)
	}
	s.lines = append(s.lines, line)
}

// sorted gives the lines with those of layers brought into an order: they come in parallel.
func (s *transcript) sorted() []string {
	list := slices.Clone(s.lines)
	rank := map[string]int{}
	key := func(l string) string {
		id, _, ok := strings.Cut(l, ": ")
		if !ok || len(id) != 12 && !strings.HasPrefix(id, "layer") {
			return ""
		}
		return id
	}
	for i, l := range list {
		if k := key(l); k != "" {
			if _, ok := rank[k]; !ok {
				rank[k] = i
			}
		}
	}
	slices.SortStableFunc(list, func(a, b string) int {
		ka, kb := key(a), key(b)
		if ka == "" || kb == "" {
			return 0
		}
		return rank[ka] - rank[kb]
	})
	return list
}

func (e *engine) pull(name string, change func(*PullRequest)) (*Pulled, []string, error) {
	e.t.Helper()
	n, err := ref.Parse(name)
	if err != nil {
		e.t.Fatal(err)
	}
	s := &transcript{}
	req := PullRequest{Name: n, Progress: s.tell}
	if change != nil {
		change(&req)
	}
	done, err := e.Pull(ctx, req)
	return done, s.sorted(), err
}

func (e *engine) mustPull(name string) *Pulled {
	e.t.Helper()
	done, _, err := e.pull(name, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	return done
}

func (e *engine) push(name string, change func(*PushRequest)) (*Pushed, []string, error) {
	e.t.Helper()
	n, err := ref.Parse(name)
	if err != nil {
		e.t.Fatal(err)
	}
	s := &transcript{}
	req := PushRequest{Name: n, Progress: s.tell}
	if change != nil {
		change(&req)
	}
	done, err := e.Push(ctx, req)
	return done, s.sorted(), err
}

// sample is an image at a registry.
type sample struct {
	config   []byte
	manifest []byte
	digest   digest.Digest // of the manifest
	id       digest.Digest
	blobs    []ocispec.Descriptor
	diffIDs  []digest.Digest
}

func (s sample) descriptor(p *ocispec.Platform) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: s.digest, Size: int64(len(s.manifest)), Platform: p}
}

// build puts an image into a repository: one layer for each text, of an incompressible file of some size beside a text.
// kinds are the layers' compressions in turn: gzip, zstd, tar.
func (g *registry) build(repo, tag string, p ocispec.Platform, kinds []string, texts ...string) sample {
	g.t.Helper()
	if p.OS == "" {
		p = ocispec.Platform{OS: "linux", Architecture: "amd64"}
	}
	doc := image.Document{Platform: image.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}, RootFS: image.RootFS{Type: "layers"}}
	doc.Config.Cmd = []string{"sh", tag}
	var s sample
	for i, text := range texts {
		raw := layerTar(g.t, text)
		kind := "gzip"
		if len(kinds) > 0 {
			kind = kinds[i%len(kinds)]
		}
		packed, mediaType := pack(g.t, kind, raw)
		d := g.putBlob(repo, packed)
		s.blobs = append(s.blobs, ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(packed))})
		doc.RootFS.DiffIDs = append(doc.RootFS.DiffIDs, digest.FromBytes(raw))
	}
	s.diffIDs = doc.RootFS.DiffIDs
	s.config, _ = json.Marshal(doc)
	s.id = g.putBlob(repo, s.config)
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: s.blobs,
		Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: s.id, Size: int64(len(s.config))}}
	m.SchemaVersion = 2
	s.manifest, _ = json.Marshal(m)
	s.digest = digest.Digest(g.put(repo, tag, m.MediaType, s.manifest))
	return s
}

// index puts an index into a repository.
func (g *registry) index(repo, tag string, list ...ocispec.Descriptor) ocispec.Descriptor {
	ix := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: list}
	ix.SchemaVersion = 2
	raw, _ := json.Marshal(ix)
	d := digest.Digest(g.put(repo, tag, ix.MediaType, raw))
	return ocispec.Descriptor{MediaType: ix.MediaType, Digest: d, Size: int64(len(raw))}
}

func layerTar(t testing.TB, text string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	noise := make([]byte, 40000)
	r := rand.NewChaCha8([32]byte(append([]byte(text), make([]byte, 32)...)[:32]))
	r.Read(noise)
	for _, f := range []struct {
		name string
		data []byte
	}{{"text-" + text, []byte(text)}, {"noise-" + text, noise}} {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.data)), ModTime: time.Unix(1600000000, 0)}); err != nil {
			t.Fatal(err)
		}
		w.Write(f.data)
	}
	w.Close()
	return b.Bytes()
}

func pack(t testing.TB, kind string, raw []byte) ([]byte, string) {
	var b bytes.Buffer
	switch kind {
	case "gzip":
		w := gzip.NewWriter(&b)
		w.Write(raw)
		w.Close()
		return b.Bytes(), ocispec.MediaTypeImageLayerGzip
	case "zstd":
		w, _ := zstd.NewWriter(&b)
		w.Write(raw)
		w.Close()
		return b.Bytes(), ocispec.MediaTypeImageLayerZstd
	}
	return raw, ocispec.MediaTypeImageLayer
}

func same(t testing.TB, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %s\nwant %s", what, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
}

// has checks that an image's files are there, by their texts.
func (e *engine) has(name string, texts ...string) {
	e.t.Helper()
	img, err := e.images.Resolve(name)
	if err != nil {
		e.t.Fatal(err)
	}
	if len(img.Layers) != len(texts) {
		e.t.Fatalf("%s has %d layers, want %d", name, len(img.Layers), len(texts))
	}
	for i, d := range img.Layers {
		var b bytes.Buffer
		if err := e.images.Layers().Tar(ctx, d, &b); err != nil {
			e.t.Fatal(err)
		}
		if !bytes.Equal(b.Bytes(), layerTar(e.t, texts[i])) {
			e.t.Errorf("layer %d of %s is not that of %q", i, name, texts[i])
		}
	}
}
