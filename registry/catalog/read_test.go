package catalog

import (
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/registry/access"
	"berth/registry/distribution"
	"berth/registry/storage"
	"berth/registry/storage/dir"
)

// serve gives a storage with the distribution protocol in front of it, and its HOST:PORT.
func serve(t *testing.T, cfg distribution.Config) (*storage.Store, string) {
	t.Helper()
	d, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s, err := storage.Open(t.Context(), d, storage.Config{})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Storage = s
	srv := httptest.NewServer(distribution.New(cfg))
	t.Cleanup(func() { srv.Close(); s.Close() })
	return s, strings.TrimPrefix(srv.URL, "http://")
}

// build makes an image with labels and a history of one step each layer and an empty one.
func build(t *testing.T, arch string, layers int64, labels map[string]string) v1.Image {
	t.Helper()
	img, err := random.Image(1000, layers)
	if err != nil {
		t.Fatal(err)
	}
	cf, _ := img.ConfigFile()
	cf = cf.DeepCopy()
	cf.Config.Labels, cf.Architecture, cf.OS = labels, arch, "linux"
	cf.History = []v1.History{{CreatedBy: "ENV A=b", EmptyLayer: true}}
	for i := range layers {
		cf.History = append(cf.History, v1.History{CreatedBy: fmt.Sprint("RUN step ", i)})
	}
	if img, err = mutate.ConfigFile(img, cf); err != nil {
		t.Fatal(err)
	}
	return img
}

func tag(t *testing.T, s string) name.Tag {
	t.Helper()
	r, err := name.NewTag(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestReadsWhatWasPushed(t *testing.T) {
	var c *Catalog
	store, host := serve(t, distribution.Config{Events: nil})
	c = open(t, t.TempDir(), FromStorage(store))
	img := build(t, "amd64", 2, map[string]string{"org.opencontainers.image.description": "A servlet container", "maintainer": "x"})
	if err := remote.Write(tag(t, host+"/library/tomcat:9"), img); err != nil {
		t.Fatal(err)
	}
	arm := build(t, "arm64", 3, nil)
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: arm, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}}},
		mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}},
		mutate.IndexAddendum{Add: build(t, "unknown", 1, nil), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"}}})
	if err := remote.WriteIndex(tag(t, host+"/library/tomcat:10"), index); err != nil {
		t.Fatal(err)
	}
	h, _ := img.Digest()
	if err := remote.Write(tag(t, host+"/library/tomcat:"+strings.ReplaceAll(h.String(), ":", "-")+".sig"), build(t, "amd64", 1, nil)); err != nil {
		t.Fatal(err)
	}

	if n, err := c.Rebuild(t.Context()); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	e, err := c.Entry("library/tomcat")
	if err != nil {
		t.Fatal(err)
	}
	if e.Short != "A servlet container" || !e.Official || e.Kind != "image" || e.Newest.Tag != "10" || !slices.Equal(e.Tags, []string{"10", "9"}) ||
		!slices.Equal(e.Platforms, []string{"linux/arm64", "linux/amd64"}) || e.Labels["maintainer"] != "x" || e.Size < 2000 || e.LastPush.IsZero() {
		t.Errorf("%+v", e)
	}
	if got, _ := c.Search(t.Context(), access.Subject{}, "servlet", 25, 1); names(got.Entries) != "tomcat" {
		t.Errorf("%+v", got)
	}

	d, err := Inspect(t.Context(), store, "library/tomcat", "10", "linux/arm64")
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Layers) != 3 || d.Layers[2].CreatedBy != "RUN step 2" || d.Chosen.Name != "linux/arm64" || len(d.Platforms) != 2 || len(d.History) != 4 ||
		d.Platforms[1].Size == 0 || d.Config.Architecture != "arm64" {
		t.Errorf("%+v", d)
	}
	if d, err = Inspect(t.Context(), store, "library/tomcat", "9", ""); err != nil || d.Chosen.Name != "linux/amd64" || len(d.Layers) != 2 || string(d.Digest) != h.String() {
		t.Errorf("%+v %v", d, err)
	}
	if _, err := Inspect(t.Context(), store, "library/tomcat", "10", "windows/amd64"); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	if _, err := Inspect(t.Context(), store, "library/tomcat", "11", ""); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

func TestBoundTag(t *testing.T) {
	hex := strings.Repeat("0a", 32)
	for s, want := range map[string]digest.Digest{
		"sha256-" + hex: digest.Digest("sha256:" + hex), "sha256-" + hex + ".sig": digest.Digest("sha256:" + hex),
		"sha512-" + hex + hex + ".att": digest.Digest("sha512:" + hex + hex),
		"sha256-" + hex + "x":          "", "sha256-" + hex[:10]: "", "latest": "", "sha512-" + hex: "", "sha256-" + hex + ".sig.x": "",
	} {
		if got, ok := BoundTag(s); ok != (want != "") || ok && got != want {
			t.Errorf("%s: %s %v", s, got, ok)
		}
	}
}

func TestLabelsAreBounded(t *testing.T) {
	all := map[string]string{"org.opencontainers.image.title": strings.Repeat("x", 5000)}
	for i := range 500 {
		all[fmt.Sprint("a", i)] = "y"
	}
	got := boundedLabels(all)
	if len(got) != maxLabels || len(got["org.opencontainers.image.title"]) != maxLabelBytes {
		t.Errorf("%d labels, title %d bytes", len(got), len(got["org.opencontainers.image.title"]))
	}
}
