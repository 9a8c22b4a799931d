package export

import (
	"slices"
	"testing"

	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/image"
)

// What is exported into the store is an image without a manifest and without compressed layers, and the same each time.
func TestIntoTheStore(t *testing.T) {
	b := newBench(t)
	first := b.step(nil, "etc/a", "1", "bin/x", "2")
	second := b.step(first, "etc/b", "3")
	done := b.export(Moby, 0, result1(second, 2), "name=example/app:1,example/app")
	img, err := b.images.Resolve("example/app:1")
	if err != nil {
		t.Fatal(err)
	}
	if done.Response[exptypes.ExporterImageDigestKey] != img.ID || done.Response[exptypes.ExporterImageConfigDigestKey] != img.ID {
		t.Errorf("%v of %s", done.Response, img.ID)
	}
	if got := done.Response[exptypes.ExporterImageNameKey]; got != "docker.io/example/app:1,docker.io/example/app:latest" {
		t.Errorf("name %s", got)
	}
	if img.Manifest != nil || len(img.Layers) != 2 || !slices.Equal(img.RepoTags, []string{"example/app:1", "example/app:latest"}) {
		t.Errorf("%+v", img)
	}
	history, err := b.images.History("example/app:1")
	if err != nil || len(history) != 4 || history[3].CreatedBy != "RUN something" || history[0].Created.IsZero() {
		t.Errorf("history %+v, %v", history, err)
	}
	if again := b.export(Moby, 0, result1(second, 2), "name=example/app:2"); again.Response[exptypes.ExporterImageDigestKey] != img.ID {
		t.Error("the same result is another image the second time")
	}
	// An image outlives the build that it came from.
	second.(*fixed).s.Release()
	first.(*fixed).s.Release()
	if err := b.images.Layers().Retain(img.Layers...); err != nil {
		t.Error(err)
	}
}

func TestPlatformsInTheStore(t *testing.T) {
	b := newBench(t)
	common := b.step(nil, "etc/a", "1")
	res := platforms2(t, b.step(common, "arch", "amd"), b.step(common, "arch", "arm"), 2)
	done := b.export(Image, 0, res, "name=example/multi:1", "annotation-index.who=us", "annotation[linux/arm64].arm=yes")
	docs, err := b.images.ManifestOf("example/multi:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if string(docs.Root.Digest) != done.Response[exptypes.ExporterImageDigestKey] || len(docs.Manifests) != 2 {
		t.Fatalf("%+v", docs)
	}
	index := decode[ocispec.Index](t, docs.Root.Content)
	if index.Annotations["who"] != "us" || index.Manifests[1].Platform.Architecture != "arm64" {
		t.Errorf("%+v", index)
	}
	if m := decode[ocispec.Manifest](t, docs.Manifests[1].Content); m.Annotations["arm"] != "yes" || m.Layers[0].MediaType != ocispec.MediaTypeImageLayerGzip {
		t.Errorf("%+v", m)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		if _, err := b.images.ResolvePlatform("example/multi:1", &image.Platform{OS: "linux", Architecture: arch}); err != nil {
			t.Error(err)
		}
	}
	// What the documents name can be made again.
	for _, m := range docs.Manifests {
		for _, l := range m.Layers {
			got, err := b.images.RecompressAs(t.Context(), l.DiffID, l.Descriptor.MediaType, discard{})
			if err != nil || got.Digest != l.Descriptor.Digest {
				t.Errorf("%s: %+v, %v", l.DiffID, got, err)
			}
		}
	}
	if blobs, _ := b.images.DiskUsage(t.Context()); blobs.Kept.Count != 0 {
		t.Errorf("%d compressed layers are kept", blobs.Kept.Count)
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func TestNothingAtAll(t *testing.T) {
	b := newBench(t)
	b.export(Moby, 0, &Result{}, "name=empty")
	img, err := b.images.Resolve("empty")
	if err != nil || len(img.Layers) != 0 || img.Config.OS != "linux" {
		t.Errorf("%+v, %v", img, err)
	}
}

func TestWhatMeansNothingIsRefused(t *testing.T) {
	e := New(Config{})
	for _, c := range []struct{ kind, key, value string }{
		{"moby", "compression", "brotli"}, {"image", "push", "perhaps"}, {"oci", "compression-level", "x"}, {"gha", "", ""},
		{"image", "source-date-epoch", "yesterday"}, {"image", "annotation-nonsense.a", "b"}, {"image", "name", "UPPER"}, {"local", "mode", "move"}, {"image", "push-by-digest", "x"},
	} {
		if _, err := e.Resolve(Request{Type: c.kind, Attrs: map[string]string{c.key: c.value}}); err == nil {
			t.Errorf("%s %s=%s is taken", c.kind, c.key, c.value)
		}
	}
	if _, err := e.Resolve(Request{Type: "image", Attrs: map[string]string{"compression": "estargz", "oci-mediatypes": "false"}}); err == nil {
		t.Error("estargz with Docker's media types is taken")
	}
}
