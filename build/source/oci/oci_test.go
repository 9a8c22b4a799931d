package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ctdcontent "github.com/containerd/containerd/v2/core/content"
	ctdlocal "github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	sessioncontent "github.com/moby/buildkit/session/content"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/failpoint"
	"berth/build/graph"
	"berth/build/progress"
	"berth/build/session"
	"berth/build/snapshot"
	"berth/build/solver"
	"berth/image"
	"berth/kernel/tree"
)

type world struct {
	*Layouts
	t     *testing.T
	store *image.Store
	id    string // of the client's session
	blobs ctdcontent.Store
}

// newWorld is an engine's layers and a client with a content store that it calls "mine".
func newWorld(t *testing.T) *world {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: owners and trusted attributes of layers")
	}
	store, err := image.Open(image.Config{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	snapshots, err := snapshot.Open(snapshot.Config{Layers: store.Layers(), Root: filepath.Join(t.TempDir(), "s")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = snapshots.Close() })
	sessions := session.NewManager(nil)
	t.Cleanup(func() { _ = sessions.Close() })
	blobs, err := ctdlocal.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	id, end, err := sessions.Local(t.Context(), "k", sessioncontent.NewAttachable(map[string]ctdcontent.Store{"oci:mine": blobs}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(end)
	return &world{Layouts: New(Config{Images: store, Snapshots: snapshots, Sessions: sessions}), t: t, store: store, id: id, blobs: blobs}
}

func (w *world) put(raw []byte, mediaType string) ocispec.Descriptor {
	w.t.Helper()
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	if err := ctdcontent.WriteBlob(context.Background(), w.blobs, string(d.Digest), bytes.NewReader(raw), d); err != nil {
		w.t.Fatal(err)
	}
	return d
}

func (w *world) putJSON(v any, mediaType string) ocispec.Descriptor {
	raw, err := json.Marshal(v)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.put(raw, mediaType)
}

// image puts an image with one layer for each word. change may spoil it.
func (w *world) image(arch string, words []string, change func(*ocispec.Image, *ocispec.Manifest)) ocispec.Descriptor {
	config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: arch}}
	config.RootFS.Type = "layers"
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	m.SchemaVersion = 2
	for _, word := range words {
		var plain, packed bytes.Buffer
		tw := tar.NewWriter(&plain)
		_ = tw.WriteHeader(&tar.Header{Name: word, Mode: 0o644})
		_ = tw.Close()
		z := gzip.NewWriter(&packed)
		_, _ = z.Write(plain.Bytes())
		_ = z.Close()
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(plain.Bytes()))
		m.Layers = append(m.Layers, w.put(packed.Bytes(), ocispec.MediaTypeImageLayerGzip))
	}
	if change != nil {
		change(&config, &m)
	}
	if m.Config.Digest == "" {
		m.Config = w.putJSON(config, ocispec.MediaTypeImageConfig)
	}
	d := w.putJSON(m, m.MediaType)
	d.Platform = &config.Platform
	return d
}

func (w *world) op(root digest.Digest, attrs map[string]string) *pb.SourceOp {
	all := map[string]string{pb.AttrOCILayoutStoreID: "mine", pb.AttrOCILayoutSessionID: w.id}
	for k, v := range attrs {
		all[k] = v
	}
	return &pb.SourceOp{Identifier: Scheme + "any/name@" + string(root), Attrs: all}
}

var amd64 = ocispec.Platform{OS: "linux", Architecture: "amd64"}

// files pins an image and reads what is in it.
func (w *world) files(op *pb.SourceOp) (string, error) {
	w.t.Helper()
	v := &graph.Vertex{Op: &pb.Op{Op: &pb.Op_Source{Source: op}}, Platform: amd64}
	src, err := w.Source(v)
	if err != nil {
		return "", err
	}
	p, err := src.Pin(w.t.Context(), &solver.Run{Vertex: v, Manager: w.cfg.Sessions, Progress: progress.Discard})
	if err != nil {
		return "", err
	}
	snap, err := p.Snapshot(w.t.Context())
	if err != nil {
		return "", err
	}
	defer snap.Release()
	if err := snap.Ready(w.t.Context()); err != nil {
		return "", err
	}
	var names []string
	err = snap.View(w.t.Context(), func(root *tree.Dir) error {
		names, err = root.Names()
		return err
	})
	slices.Sort(names)
	return strings.Join(names, " "), err
}

func TestLayout(t *testing.T) {
	w := newWorld(t)
	one := w.image("amd64", []string{"a", "b", "a"}, nil)
	other := w.image("arm64", []string{"c"}, nil)
	attestation := w.image("amd64", []string{"d"}, nil)
	attestation.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{attestation, other, one}}
	index.SchemaVersion = 2
	root := w.putJSON(index, index.MediaType)
	for _, x := range []struct {
		op   *pb.SourceOp
		want string
	}{
		{w.op(one.Digest, nil), "a b"},
		{w.op(root.Digest, nil), "a b"},
		{w.op(one.Digest, map[string]string{pb.AttrOCILayoutLayerLimit: "1"}), "a"},
	} {
		got, err := w.files(x.op)
		if err != nil || got != x.want {
			t.Errorf("%v: %q %v, want %q", x.op, got, err, x.want)
		}
	}
	meta, err := w.ResolveSourceMetadata(t.Context(), w.op(root.Digest, nil), sourceresolver.Opt{OCILayoutOpt: &sourceresolver.ResolveOCILayoutOpt{Platform: &amd64}}, nil)
	if err != nil || meta.Image.Digest != root.Digest {
		t.Fatalf("%+v %v", meta, err)
	}
	if doc, err := image.ParseDocument(meta.Image.Config); err != nil || doc.Architecture != "amd64" || len(doc.RootFS.DiffIDs) != 3 {
		t.Errorf("%+v %v", doc, err)
	}
	if list, _ := w.store.List(t.Context(), image.ListOptions{All: true}); len(list) != 0 {
		t.Errorf("a layout left images: %v", list)
	}
}

func TestHostileLayouts(t *testing.T) {
	w := newWorld(t)
	good := w.image("amd64", []string{"x"}, nil)
	nested := good
	for range maxDepth + 2 {
		index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{{MediaType: nested.MediaType, Digest: nested.Digest, Size: nested.Size}}}
		nested = w.putJSON(index, index.MediaType)
	}
	for _, x := range []struct {
		name, want string
		root       digest.Digest
	}{
		{"not there", "not found", digest.FromString("nothing")},
		{"no JSON", "invalid character", w.put([]byte("x"), "").Digest},
		{"neither", "neither an index nor a manifest", w.put([]byte("{}"), "").Digest},
		{"both", "both a manifest and an index", w.put([]byte(`{"config":{},"manifests":[{}]}`), "").Digest},
		{"deep", "nested more than", nested.Digest},
		{"no such platform", "no match for platform", w.putJSON(ocispec.Index{Manifests: []ocispec.Descriptor{{Digest: good.Digest, Size: good.Size, Platform: &ocispec.Platform{OS: "plan9", Architecture: "mips"}}}}, "").Digest},
		{"more layers than diff ids", "layers from manifest don't match", w.image("amd64", []string{"x"}, func(c *ocispec.Image, _ *ocispec.Manifest) { c.RootFS.DiffIDs = nil }).Digest},
		{"another layer", "layer sha256:", w.image("amd64", []string{"y"}, func(c *ocispec.Image, _ *ocispec.Manifest) { c.RootFS.DiffIDs[0] = digest.FromString("z") }).Digest},
		{"a layer without a digest", "means nothing", w.image("amd64", []string{"x"}, func(_ *ocispec.Image, m *ocispec.Manifest) { m.Layers[0].Digest = "../../x" }).Digest},
		{"a configuration that is large", "more than", w.image("amd64", nil, func(_ *ocispec.Image, m *ocispec.Manifest) {
			m.Config = ocispec.Descriptor{Digest: digest.FromString("c"), Size: 1 << 40}
		}).Digest},
		{"a configuration without a digest", "digest", w.image("amd64", nil, func(_ *ocispec.Image, m *ocispec.Manifest) {
			m.Config = ocispec.Descriptor{Digest: "sha256:short", Size: 4}
		}).Digest},
	} {
		if got, err := w.files(w.op(x.root, nil)); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %q %v, want %q", x.name, got, err, x.want)
		}
	}
	if err := w.store.Layers().WaitTrash(t.Context()); err != nil {
		t.Fatal(err)
	}
	if list := w.store.Layers().List(); len(list) != 0 {
		t.Errorf("refused layouts left layers: %v", list)
	}
	for _, bad := range []string{"any/name", "any/name:tag", "any@sha256:x"} {
		if _, err := w.files(&pb.SourceOp{Identifier: Scheme + bad}); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

// TestDiesBeforeCommit: what was unpacked and not committed leaves nothing.
func TestDiesBeforeCommit(t *testing.T) {
	w := newWorld(t)
	img := w.image("amd64", []string{"a", "b"}, nil)
	if err := failpoint.Arm("build/before-layout-commit=error"); err != nil {
		t.Fatal(err)
	}
	_, err := w.files(w.op(img.Digest, nil))
	if aerr := failpoint.Arm(""); aerr != nil {
		t.Fatal(aerr)
	}
	if err == nil || len(w.store.Layers().List()) != 0 {
		t.Errorf("%v, layers %v", err, w.store.Layers().List())
	}
	if got, err := w.files(w.op(img.Digest, nil)); err != nil || got != "a b" {
		t.Errorf("%q %v", got, err)
	}
}
