package export

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/image"
)

func TestDockerArchive(t *testing.T) {
	b := newBench(t)
	tree := b.step(b.step(nil, "etc/a", "1"), "etc/b", "3")
	done := b.export(Docker, 0, result1(tree, 2), "name=example/app:1,example/app:2")
	files := b.files()
	type item struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	list := decode[[]item](t, files["manifest.json"])
	if len(list) != 1 || !slices.Equal(list[0].RepoTags, []string{"example/app:1", "example/app:2"}) || len(list[0].Layers) != 2 {
		t.Fatalf("%+v", list)
	}
	for n, raw := range files {
		if d, ok := strings.CutPrefix(n, "blobs/sha256/"); ok && d != "" && digest.FromBytes(raw).Encoded() != d {
			t.Errorf("%s is something else", n)
		}
	}
	if done.Response[exptypes.ExporterImageConfigDigestKey] != "sha256:"+strings.TrimPrefix(list[0].Config, "blobs/sha256/") {
		t.Errorf("%v", done.Response)
	}
	// It can be loaded, by us at least.
	other := newBench(t)
	loaded, err := other.images.Load(t.Context(), bytes.NewReader(b.got.Bytes()), image.LoadOptions{})
	if err != nil || len(loaded) == 0 {
		t.Fatal(loaded, err)
	}
	if img, err := other.images.Resolve("example/app:2"); err != nil || img.ID != done.Response[exptypes.ExporterImageConfigDigestKey] {
		t.Errorf("%+v, %v", img, err)
	}
	if _, err := b.images.Resolve("example/app:1"); err == nil {
		t.Error("an archive is in the store")
	}
	if err := contains(b.root+"/export", ".blob-"); err != "" {
		t.Error(err)
	}
}

func contains(dir, prefix string) string {
	names, _ := os.ReadDir(dir)
	for _, n := range names {
		if strings.HasPrefix(n.Name(), prefix) {
			return n.Name() + " is left"
		}
	}
	return ""
}

func TestOCIArchiveIsTheSameTwice(t *testing.T) {
	b := newBench(t)
	common := b.step(nil, "etc/a", "1")
	res := platforms2(t, b.step(common, "arch", "amd"), b.step(common, "arch", "arm"), 2)
	export := func() ([]byte, *Done) {
		done := b.export(OCI, 0, res, "name=example/multi:1", "source-date-epoch=1000", "rewrite-timestamp=true")
		return bytes.Clone(b.got.Bytes()), done
	}
	one, done := export()
	two, _ := export()
	if !bytes.Equal(one, two) {
		t.Error("two exports differ")
	}
	files := b.files()
	index := decode[ocispec.Index](t, files["index.json"])
	if len(index.Manifests) != 1 || string(index.Manifests[0].Digest) != done.Response[exptypes.ExporterImageDigestKey] ||
		index.Manifests[0].Annotations[ocispec.AnnotationRefName] != "1" || index.Manifests[0].Annotations[ocispec.AnnotationCreated] != "1970-01-01T00:16:40Z" {
		t.Errorf("%+v", index)
	}
	if _, there := files["manifest.json"]; there {
		t.Error("an OCI archive has a manifest.json")
	}
	inner := decode[ocispec.Index](t, files[hexed(index.Manifests[0].Digest)])
	m := decode[ocispec.Manifest](t, files[hexed(inner.Manifests[0].Digest)])
	img := decode[ocispec.Image](t, files[hexed(m.Config.Digest)])
	if m.Layers[0].Annotations[rewrittenKey] != "1000" {
		t.Errorf("%+v", m.Layers[0])
	}
	if img.Created.Unix() != 1000 || img.History[3].Created.Unix() != 1000 {
		t.Errorf("%+v", img)
	}
	for i, l := range m.Layers {
		zr, err := gzip.NewReader(bytes.NewReader(files[hexed(l.Digest)]))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(zr)
		if err != nil || digest.FromBytes(raw) != img.RootFS.DiffIDs[i] {
			t.Errorf("layer %d is not what the configuration says: %v", i, err)
		}
	}
}

// Two builds of one input at different times give one image.
func TestRewrittenTimes(t *testing.T) {
	b := newBench(t)
	var ids []string
	for i := range 2 {
		tree := b.step(b.step(nil, "etc/a", "1"), "etc/b", "3")
		err := tree.(*fixed).s.View(t.Context(), nil2)
		if err != nil {
			t.Fatal(err)
		}
		if i == 1 { // as if it had run later
			d, err := b.snaps.Draft(t.Context(), b.snaps.Scratch())
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Path(t.Context(), func(root string) error {
				if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
					return err
				}
				p := filepath.Join(root, "etc/a")
				if err := os.WriteFile(p, []byte("1"), 0o644); err != nil {
					return err
				}
				return os.Chtimes(p, later, later)
			}); err != nil {
				t.Fatal(err)
			}
			s, err := d.Seal(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(s.Release)
			tree = b.step(&fixed{s}, "etc/b", "3")
		}
		done := b.export(Moby, 0, result1(tree, 2), "source-date-epoch=1000", "rewrite-timestamp=true", "name=same")
		ids = append(ids, done.Response[exptypes.ExporterImageDigestKey])
	}
	if ids[0] != ids[1] {
		t.Errorf("%v", ids)
	}
}

func TestSquash(t *testing.T) {
	b := newBench(t)
	base := b.step(nil, "etc/a", "1", "etc/gone", "2")
	top := b.step(b.step(b.step(base, "etc/b", "3", "etc/gone", ""), "big", "4"), "big", "")
	res := result1(top, 4)
	baseConfig := decode[ocispec.Image](t, config("amd64", 1))
	baseConfig.RootFS.DiffIDs = base.(*fixed).s.Chain()
	res.AddMeta(exptypes.ExporterImageBaseConfigKey, encode(t, baseConfig))
	b.export(Moby, 0, res, "name=squashed", "squash=true")
	img, err := b.images.Resolve("squashed")
	if err != nil || len(img.Layers) != 2 || img.Layers[0] != base.(*fixed).s.Chain()[0] {
		t.Fatalf("%+v, %v", img, err)
	}
	var out bytes.Buffer
	if err := b.images.Layers().Tar(t.Context(), img.Layers[1], &out); err != nil {
		t.Fatal(err)
	}
	b.got = out
	files := b.files()
	if _, ok := files["big"]; ok || string(files["etc/b"]) != "3" {
		t.Errorf("%v", files)
	}
	if _, ok := files["etc/.wh.gone"]; !ok {
		t.Errorf("%v", files)
	}
	raw, _ := b.images.Raw(img.ID)
	layers := 0
	for _, h := range decode[ocispec.Image](t, raw).History {
		if !h.EmptyLayer {
			layers++
		}
	}
	if layers != 2 {
		t.Errorf("%s", raw)
	}
}

func TestToDirectoryAndTar(t *testing.T) {
	b := newBench(t)
	tree := b.step(b.step(nil, "etc/a", "1", "x", "gone"), "etc/b", "3", "x", "")
	b.export(Local, 1, result1(tree, 2))
	for name, want := range map[string]string{"etc/a": "1", "etc/b": "3"} {
		if got, err := os.ReadFile(filepath.Join(b.dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := os.Stat(filepath.Join(b.dir, "x")); err == nil {
		t.Error("a deleted file is there")
	}
	b.export(Tar, 0, result1(tree, 2), "source-date-epoch=1000")
	if files := b.files(); string(files["etc/b"]) != "3" || len(files) != 3 {
		t.Errorf("%v", files)
	}
	b.export(Tar, 0, platforms2(t, tree, tree, 2))
	if files := b.files(); string(files["linux_arm64/etc/b"]) != "3" {
		t.Errorf("%v", files)
	}
	if _, err := b.try(Tar, 0, platforms2(t, tree, tree, 2), "platform-split=false"); err == nil {
		t.Error("platforms overwrite each other")
	}
	b.export(Tar, 0, &Result{})
}
