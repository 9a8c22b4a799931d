package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"berth/image/archive"
	"berth/kernel/tree"
)

var ctx = context.Background()

// harness is a store with what tests look at.
type harness struct {
	*Store
	t      testing.TB
	root   string
	mu     sync.Mutex
	events []string
	told   []Event
	uses   map[string][]Use
	keep   bool // KeepBlobs, from the next reopen on
	limits archive.Limits
}

func open(t testing.TB) *harness {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: owners and trusted attributes of layers")
	}
	h := &harness{t: t, root: t.TempDir(), uses: map[string][]Use{}}
	h.reopen()
	t.Cleanup(func() {
		if h.Store != nil {
			h.Close()
		}
	})
	return h
}

func (h *harness) reopen() {
	h.t.Helper()
	if h.Store != nil {
		h.Close()
	}
	s, err := Open(Config{Root: h.root, KeepBlobs: h.keep, Limits: h.limits, Events: func(e Event) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.events, h.told = append(h.events, e.Action), append(h.told, e)
	}})
	if err != nil {
		h.t.Fatal(err)
	}
	s.UsedBy(func(id string) []Use { return h.uses[id] })
	h.Store = s
}

// counts tells how many layers and documents are on disk.
func (h *harness) counts() (layers, documents int) {
	d, _ := os.ReadDir(filepath.Join(h.root, "layer", "d"))
	b, _ := filepath.Glob(filepath.Join(h.root, "blob", "sha*", "*"))
	return len(d), len(b)
}

// tarOf makes a tar of files in the order given: name, content, name, content. A name with a slash at the end is a directory;
// content "-> x" is a symbolic link.
func tarOf(t testing.TB, pairs ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(pairs); i += 2 {
		h := &tar.Header{Name: pairs[i], Mode: 0o644, Size: int64(len(pairs[i+1])), ModTime: time.Unix(1600000000, 0), Typeflag: tar.TypeReg}
		switch target, link := strings.CutPrefix(pairs[i+1], "-> "); {
		case link:
			h.Typeflag, h.Linkname, h.Size, pairs[i+1] = tar.TypeSymlink, target, 0, ""
		case strings.HasSuffix(pairs[i], "/"):
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		case strings.HasPrefix(pairs[i], "bin/"):
			h.Mode = 0o755
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, pairs[i+1])
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gz(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(b)
	w.Close()
	return out.Bytes()
}

func zst(b []byte) []byte {
	w, _ := zstd.NewWriter(nil)
	defer w.Close()
	return w.EncodeAll(b, nil)
}

func toJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// sample is an image to be put into archives.
type sample struct {
	layers [][]byte // tars
	config string
}

func makeSample(t testing.TB, change func(*Document), layers ...[]byte) sample {
	t.Helper()
	created := time.Unix(1700000000, 0).UTC()
	d := Document{Created: &created, Platform: Platform{OS: "linux", Architecture: "amd64"}, RootFS: RootFS{Type: "layers"},
		Config: RunConfig{Cmd: []string{"sh"}, Env: []string{"PATH=/bin"}}}
	for i, l := range layers {
		d.RootFS.DiffIDs = append(d.RootFS.DiffIDs, digest.FromBytes(l))
		d.History = append(d.History, HistoryLine{Created: &created, CreatedBy: fmt.Sprintf("step %d", i)})
	}
	if change != nil {
		change(&d)
	}
	return sample{layers: layers, config: toJSON(t, d)}
}

func (s sample) id() string { return string(digest.FromString(s.config)) }

// dockerArchive is what docker save wrote before 25: directories named by ids that mean nothing, manifest.json last.
func (s sample) dockerArchive(t testing.TB, tags ...string) []byte {
	var pairs, layers []string
	for i, l := range s.layers {
		dir := fmt.Sprintf("%064x", i+1)
		pairs = append(pairs, dir+"/", "", dir+"/VERSION", "1.0", dir+"/json", `{"id":"x"}`, dir+"/layer.tar", string(l))
		layers = append(layers, dir+"/layer.tar")
	}
	name := digest.FromString(s.config).Encoded() + ".json"
	pairs = append(pairs, name, s.config, "manifest.json", toJSON(t, []map[string]any{{"Config": name, "RepoTags": tags, "Layers": layers}}),
		"repositories", "{}")
	return tarOf(t, pairs...)
}

// layout collects the blobs of an OCI layout.
type layout struct {
	t     testing.TB
	blobs map[string]string
}

func (l *layout) add(mediaType, content string) Descriptor {
	d := digest.FromString(content)
	l.blobs[blobPath(d)] = content
	return Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content))}
}

// manifest adds an image; compress turns each layer's tar into its blob.
func (l *layout) manifest(s sample, compress func([]byte) []byte) Descriptor {
	var layers []Descriptor
	for _, tar := range s.layers {
		layers = append(layers, l.add("application/vnd.oci.image.layer.v1.tar", string(compress(tar))))
	}
	m := map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": l.add("application/vnd.oci.image.config.v1+json", s.config), "layers": layers}
	return l.add("application/vnd.oci.image.manifest.v1+json", toJSON(l.t, m))
}

func (l *layout) index(manifests ...Descriptor) string {
	return toJSON(l.t, map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests})
}

// archive writes the layout with further files; order sorts them.
func (l *layout) archive(index string, more ...string) []byte {
	var names []string
	for n := range l.blobs {
		names = append(names, n)
	}
	slices.Sort(names)
	pairs := []string{"oci-layout", `{"imageLayoutVersion":"1.0.0"}`}
	for _, n := range names {
		pairs = append(pairs, n, l.blobs[n])
	}
	return tarOf(l.t, append(append(pairs, "index.json", index), more...)...)
}

func plain(b []byte) []byte { return b }

func (h *harness) load(archive []byte) []string {
	h.t.Helper()
	list, err := h.Load(ctx, bytes.NewReader(archive), LoadOptions{})
	if err != nil {
		h.t.Fatal(err)
	}
	var lines []string
	for _, l := range list {
		lines = append(lines, l.Messages()...)
	}
	return lines
}

// files lists what an image's tree has.
func (h *harness) files(name string) []string {
	h.t.Helper()
	img, err := h.Resolve(name)
	if err != nil {
		h.t.Fatal(err)
	}
	var lines []string
	err = h.Layers().WithChain(ctx, img.Layers, func(root *tree.Dir) error {
		return filepath.WalkDir(root.Path()+"/", func(p string, e os.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() {
				b, _ := os.ReadFile(p)
				lines = append(lines, strings.TrimPrefix(p, root.Path()+"/")+"="+string(b))
			}
			return err
		})
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return lines
}

func same(t testing.TB, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

func hexOf(id string) string { return strings.TrimPrefix(id, "sha256:") }
