package image

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/base/ref"
)

// several is an image for three platforms under one index, with an attestation.
type several struct {
	l           *layout
	amd, arm, z sample
	index       Descriptor
	manifests   map[string]Descriptor // by architecture
	attests     Descriptor
	statement   digest.Digest // what it says
}

func makeSeveral(t testing.TB, text string) *several { return makeSeveralWith(t, text, gz) }

// makeSeveralWith makes it with layers compressed in one way: the same images by other manifests.
func makeSeveralWith(t testing.TB, text string, compress func([]byte) []byte) *several {
	m := &several{l: &layout{t: t, blobs: map[string]string{}}, manifests: map[string]Descriptor{}}
	shared := tarOf(t, "etc/", "", "etc/shared", "all")
	on := func(arch, variant string) sample {
		s := makeSample(t, func(d *Document) { d.Architecture, d.Variant = arch, variant }, shared, tarOf(t, "bin/sh", arch+text))
		d := m.l.manifest(s, compress)
		d.Platform = &Platform{OS: "linux", Architecture: arch, Variant: variant}
		m.manifests[arch] = d
		return s
	}
	m.arm, m.amd, m.z = on("arm64", "v8"), on("amd64", ""), on("s390x", "")
	statement := m.l.add("application/vnd.in-toto+json", `{"_type":"https://in-toto.io/Statement/v0.1","text":"`+text+`"}`)
	m.statement = statement.Digest
	config := m.l.add(ocispec.MediaTypeImageConfig, toJSON(t, map[string]any{"architecture": "unknown", "os": "unknown", "rootfs": RootFS{Type: "layers", DiffIDs: []digest.Digest{statement.Digest}}}))
	m.attests = m.l.add(ocispec.MediaTypeImageManifest, toJSON(t, map[string]any{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageManifest, "config": config, "layers": []Descriptor{statement}}))
	m.attests.Platform = &Platform{OS: "unknown", Architecture: "unknown"}
	m.attests.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", attestsDigest: string(m.manifests["amd64"].Digest)}
	m.index = m.l.add(ocispec.MediaTypeImageIndex, m.l.index(m.manifests["arm64"], m.manifests["amd64"], m.manifests["s390x"], m.attests))
	return m
}

func (m *several) archive(names ...string) []byte {
	var list []Descriptor
	for _, n := range names {
		d := m.index
		d.Annotations = map[string]string{"io.containerd.image.name": n}
		list = append(list, d)
	}
	if len(names) == 0 {
		list = []Descriptor{m.index}
	}
	return m.l.archive(m.l.index(list...))
}

func platform(t testing.TB, s string) Platform {
	t.Helper()
	p, err := ParsePlatform(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// tree prints the manifests of an image in a line each.
func (h *harness) tree(name string) (lines []string) {
	h.t.Helper()
	list, err := h.Manifests(name)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, m := range list {
		line := fmt.Sprintf("%s %s %v %d", m.Kind, m.Platform, m.Available, m.Unpacked)
		if m.Kind == KindAttestation {
			line = fmt.Sprintf("%s %v", m.Kind, m.Available)
		}
		lines = append(lines, line)
	}
	return lines
}

func TestSeveralPlatforms(t *testing.T) {
	h := open(t)
	m := makeSeveral(t, "1")
	same(t, "load", h.load(m.archive("docker.io/library/app:1", "docker.io/me/app:1")), []string{"Loaded image: app:1", "Loaded image: me/app:1"})
	check := func(when string) {
		t.Helper()
		host, _ := h.Resolve("app:1")
		if host == nil || host.ID != m.amd.id() || host.Index == nil || host.Index.Digest != m.index.Digest || host.Manifest.Digest != m.manifests["amd64"].Digest {
			t.Fatalf("%s: %+v", when, host)
		}
		for arch, want := range map[string]string{"linux/arm64": m.arm.id(), "linux/amd64": m.amd.id(), "linux/s390x": m.z.id(), "linux/arm64/v8": m.arm.id()} {
			p := platform(t, arch)
			for _, name := range []string{"app:1", "app@" + string(m.index.Digest), string(m.index.Digest), hexOf(m.amd.id())[:12]} {
				if img, err := h.ResolvePlatform(name, &p); err != nil || img.ID != want {
					t.Errorf("%s: %s for %s: %v", when, name, arch, err)
				} else if len(img.RepoTags) != 2 {
					t.Errorf("%s: %s for %s has the names %q", when, name, arch, img.RepoTags)
				}
			}
		}
		p := platform(t, "linux/riscv64")
		if _, err := h.ResolvePlatform("app:1", &p); fault.KindOf(err) != fault.NotFound ||
			err.Error() != "image with reference app:1 was found but does not provide the specified platform (linux/riscv64)" {
			t.Errorf("%s: %v", when, err)
		}
		arm := platform(t, "linux/arm64")
		if _, err := h.ResolvePlatform(m.z.id(), &arm); fault.KindOf(err) != fault.NotFound {
			t.Errorf("%s: the id of one platform's image gave another's: %v", when, err)
		}
		same(t, when, h.tree("app:1"), []string{"image linux/arm64 true 9", "image linux/amd64 true 9", "image linux/s390x true 9", "attestation true"})
		list, err := h.List(ctx, ListOptions{All: true, SharedSize: true})
		if err == nil && list[0].SharedSize != 0 {
			t.Errorf("%s: %d bytes are shared, with nobody", when, list[0].SharedSize)
		}
		if err != nil || len(list) != 1 || h.Count() != 1 || list[0].ID != m.amd.id() {
			t.Errorf("%s: list %d, count %d, %v", when, len(list), h.Count(), err)
		}
		same(t, when, h.files("app:1"), []string{"bin/sh=amd641", "etc/shared=all"})
	}
	check("loaded")
	h.reopen()
	check("reopened")
	// What is saved and loaded elsewhere is the same by every digest, though its layers had to be written uncompressed.
	var out bytes.Buffer
	if err := h.Save(ctx, &out, []string{"app:1", "me/app:1"}, nil); err != nil {
		t.Fatal(err)
	}
	h = open(t)
	same(t, "load what was saved", h.load(out.Bytes()), []string{"Loaded image: app:1", "Loaded image: me/app:1"})
	check("saved and loaded")
	steps, err := h.HistoryFor("app:1", &Platform{OS: "linux", Architecture: "arm64"})
	if err != nil || len(steps) != 2 || steps[0].ID != m.arm.id() {
		t.Errorf("history: %+v %v", steps, err)
	}
}

func TestRemoveSeveralPlatforms(t *testing.T) {
	m := makeSeveral(t, "1")
	empty := func(h *harness, what string) {
		t.Helper()
		h.reopen()
		h.Layers().WaitTrash(ctx)
		if layers, docs := h.counts(); layers+docs+h.Count() != 0 {
			t.Errorf("%s: %d layers, %d documents, %d images stay", what, layers, docs, h.Count())
		}
	}
	h := open(t)
	h.load(m.archive("docker.io/library/app:1"))
	if err := h.Tag("app:1", "other:1"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Remove(ctx, "app:1", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	h.reopen()
	same(t, "a tag has all platforms", h.tree("other:1")[:2], []string{"image linux/arm64 true 9", "image linux/amd64 true 9"})
	list, err := h.Remove(ctx, "other:1", RemoveOptions{})
	if err != nil || !slices.Contains(removed(list), "Deleted: "+m.arm.id()) || !slices.Contains(removed(list), "Deleted: "+m.amd.id()) {
		t.Errorf("%q %v", removed(list), err)
	}
	empty(h, "last name")

	h = open(t)
	h.load(m.archive("docker.io/library/app:1"))
	if _, err := h.Remove(ctx, m.amd.id(), RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	empty(h, "id of the first")

	h = open(t)
	h.load(m.archive())
	if list, _ := h.List(ctx, ListOptions{}); len(list) != 1 || list[0].ID != m.amd.id() {
		t.Errorf("nameless: %d in the list", len(list))
	}
	if _, err := h.Prune(ctx, nil); err != nil {
		t.Fatal(err)
	}
	empty(h, "nameless, pruned")

	h = open(t)
	h.load(m.archive("docker.io/library/app:1"))
	list, err = h.Remove(ctx, "app:1", RemoveOptions{Platforms: []Platform{platform(t, "linux/arm64")}})
	if err != nil || !slices.Contains(removed(list), "Deleted: "+m.arm.id()) || len(list) != 2 {
		t.Errorf("one platform: %q %v", removed(list), err)
	}
	same(t, "one platform", h.tree("app:1"), []string{"image linux/arm64 false 0", "image linux/amd64 true 9", "image linux/s390x true 9", "attestation true"})
	if _, err := h.Remove(ctx, "app:1", RemoveOptions{Platforms: []Platform{platform(t, "linux/arm64")}}); fault.KindOf(err) != fault.NotFound {
		t.Errorf("a platform that is gone: %v", err)
	}
	if _, err := h.Remove(ctx, "app:1", RemoveOptions{Platforms: []Platform{platform(t, "linux/amd64")}}); err != nil {
		t.Fatal(err)
	}
	if img, err := h.Resolve("app:1"); err != nil || img.ID != m.z.id() {
		t.Errorf("what is left: %v", err)
	}
	h.reopen()
	h.uses[m.z.id()] = []Use{{"c", true}}
	if _, err := h.Remove(ctx, "app:1", RemoveOptions{Platforms: []Platform{platform(t, "linux/s390x")}, Force: true}); fault.KindOf(err) != fault.Conflict {
		t.Errorf("in use: %v", err)
	}
	delete(h.uses, m.z.id())
	if _, err := h.Remove(ctx, "app:1", RemoveOptions{Platforms: []Platform{platform(t, "linux/s390x")}}); err != nil {
		t.Fatal(err)
	}
	empty(h, "the last platform")
}

// Two indexes that share a platform: each name keeps what it stands for.
func TestSharedSiblings(t *testing.T) {
	h := open(t)
	a := makeSeveral(t, "1")
	b := makeSeveral(t, "2")
	b.amd = a.amd
	for p, content := range a.l.blobs {
		b.l.blobs[p] = content
	}
	b.index = b.l.add(ocispec.MediaTypeImageIndex, b.l.index(a.manifests["amd64"], b.manifests["s390x"]))
	h.load(a.archive("docker.io/library/a:1"))
	h.load(b.archive("docker.io/library/b:1"))
	img, _ := h.Resolve("b:1")
	if img == nil || img.ID != a.amd.id() || img.Index.Digest != b.index.Digest {
		t.Errorf("%+v", img)
	}
	if img, _ = h.Resolve("a:1"); img.Index.Digest != a.index.Digest {
		t.Errorf("a:1 came with %s", img.Index.Digest)
	}
	h.reopen()
	if _, err := h.Remove(ctx, "a:1", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	same(t, "the other name", h.tree("b:1"), []string{"image linux/amd64 true 9", "image linux/s390x true 9"})
	if _, err := h.Get(digest.Digest(a.arm.id())); err == nil {
		t.Error("a platform of the removed name stays")
	}
	if h.Blobs().Has(a.index.Digest) {
		t.Error("the index of the removed name stays")
	}
	if _, err := h.Remove(ctx, "b:1", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	h.Layers().WaitTrash(ctx)
	if layers, docs := h.counts(); layers+docs != 0 {
		t.Errorf("%d layers, %d documents stay", layers, docs)
	}
}

// A pull of another platform of what is here leaves the name where it was; a new index moves it.
func TestNamesAndPlatforms(t *testing.T) {
	h := open(t)
	m := makeSeveral(t, "1")
	arm, amd := platform(t, "linux/arm64"), platform(t, "linux/amd64")
	for _, p := range []Platform{arm, amd, platform(t, "linux/s390x")} {
		if _, err := h.Load(ctx, bytes.NewReader(m.archive("docker.io/library/app:1")), LoadOptions{Platform: &p}); err != nil {
			t.Fatal(err)
		}
		want := m.amd.id()
		if p.Architecture == "arm64" {
			want = m.arm.id() // nothing else is here
		}
		if img, err := h.Resolve("app:1"); err != nil || img.ID != want {
			t.Errorf("after %s: %v", p, err)
		}
	}
	// A container of another platform is one of the image's, and keeps it.
	h.uses[m.arm.id()] = []Use{{strings.Repeat("c", 64), false}}
	if all, _ := h.List(ctx, ListOptions{Containers: true}); len(all) != 1 || all[0].Containers != 1 {
		t.Errorf("%+v", all)
	}
	if _, err := h.Prune(ctx, Filters{"dangling": {"false"}}); err != nil || h.Count() != 1 {
		t.Errorf("%d images, %v", h.Count(), err)
	}
	if _, err := h.Remove(ctx, "app:1", RemoveOptions{}); fault.KindOf(err) != fault.Conflict || !strings.Contains(err.Error(), hexOf(m.arm.id())[:12]) {
		t.Errorf("%v", err)
	}
	delete(h.uses, m.arm.id())
	// A name that came with another platform of the same index gives the same image as the others.
	if _, err := h.Load(ctx, bytes.NewReader(m.archive("docker.io/library/b:1")), LoadOptions{Platform: &arm}); err != nil {
		t.Fatal(err)
	}
	if img, err := h.Resolve("b:1"); err != nil || img.ID != m.amd.id() {
		t.Errorf("b:1: %v", err)
	}
	if _, err := h.Remove(ctx, "app:1", RemoveOptions{Platforms: []Platform{amd}}); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"app:1", "b:1"} {
		if img, _ := h.Resolve(n); img.ID == m.amd.id() {
			t.Errorf("%s: the removed one", n)
		}
	}
	if _, err := h.Load(ctx, bytes.NewReader(m.archive("docker.io/library/b:1")), LoadOptions{Platform: &amd}); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"app:1", "b:1"} {
		if img, _ := h.Resolve(n); img.ID != m.amd.id() {
			t.Errorf("%s gives %s although this machine's is here", n, img.ID)
		}
	}
	if _, err := h.Remove(ctx, "b:1", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	next := makeSeveral(t, "2")
	list, err := h.Load(ctx, bytes.NewReader(next.archive("docker.io/library/app:1")), LoadOptions{Platforms: []Platform{arm}})
	if err != nil || len(list) != 1 || list[0].Replaced != m.amd.id() {
		t.Errorf("%+v %v", list, err)
	}
	if img, _ := h.Resolve("app:1"); img.ID != next.arm.id() {
		t.Error("the name did not move")
	}
	all, _ := h.List(ctx, ListOptions{})
	if len(all) != 2 {
		t.Errorf("%d images in the list: the old one is to be dangling", len(all))
	}
	if _, err := h.Prune(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if n := h.Count(); n != 1 {
		t.Errorf("%d images after the prune", n)
	}
}

// With kept blobs an archive has the image's own documents, for everybody.
func TestKeepBlobs(t *testing.T) {
	h := open(t)
	h.keep = true
	h.reopen()
	m := makeSeveral(t, "1")
	h.load(m.archive("docker.io/library/app:1"))
	h.reopen()
	var out bytes.Buffer
	if err := h.Save(ctx, &out, []string{"app:1"}, nil); err != nil {
		t.Fatal(err)
	}
	if s := out.String(); !strings.Contains(s, string(m.index.Digest)) || strings.Contains(s, originsName) {
		t.Error("the archive does not have the index, or more than that")
	}
	other := open(t)
	other.load(out.Bytes())
	img, err := other.Resolve("app@" + string(m.index.Digest))
	if err != nil || img.ID != m.amd.id() {
		t.Errorf("%v", err)
	}
	same(t, "attestation", other.tree("app:1")[3:], []string{"attestation true"})
	// One platform of it has its own manifest and no index.
	out.Reset()
	arm := platform(t, "linux/arm64")
	if err := h.Save(ctx, &out, []string{"app:1"}, &arm); err != nil {
		t.Fatal(err)
	}
	other = open(t)
	other.load(out.Bytes())
	if img, err := other.Resolve("app:1"); err != nil || img.ID != m.arm.id() || img.Manifest.Digest != m.manifests["arm64"].Digest {
		t.Errorf("%+v %v", img, err)
	}
	if _, err := h.Remove(ctx, "app:1", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	h.Layers().WaitTrash(ctx)
	if layers, docs := h.counts(); layers+docs != 0 {
		t.Errorf("%d layers, %d documents stay", layers, docs)
	}
}

func TestDocumentsForAPush(t *testing.T) {
	h := open(t)
	m := makeSeveral(t, "1")
	h.load(m.archive("docker.io/library/app:1"))
	docs, err := h.ManifestOf("app:1", nil)
	if err != nil || docs.Root.Digest != m.index.Digest || len(docs.Manifests) != 4 {
		t.Fatalf("%+v %v", docs, err)
	}
	for _, d := range docs.Manifests {
		if !d.Available || digest.FromBytes(d.Content) != d.Descriptor.Digest || digest.FromBytes(d.Config) != d.ConfigDesc.Digest {
			t.Errorf("%+v", d)
		}
		for _, l := range d.Layers {
			if (l.DiffID == "") != (d.Attestation != "") {
				t.Errorf("%+v", l)
			}
			if l.DiffID == "" {
				r, size, err := h.OpenBlob(ctx, l.Descriptor.Digest)
				if err != nil || size != l.Descriptor.Size {
					t.Errorf("%v", err)
					continue
				}
				r.Close()
			}
		}
	}
	arm := platform(t, "linux/arm64")
	if docs, err = h.ManifestOf("app:1", &arm); err != nil || docs.Root.Digest != m.manifests["arm64"].Digest || len(docs.Manifests) != 1 {
		t.Errorf("%+v %v", docs, err)
	}
	if _, err := h.Remove(ctx, "app:1", RemoveOptions{Platforms: []Platform{arm}}); err != nil {
		t.Fatal(err)
	}
	if docs, err = h.ManifestOf("app:1", nil); err != nil || docs.Manifests[0].Available || !docs.Manifests[1].Available {
		t.Errorf("%+v %v", docs, err)
	}
	// An image made here gets its manifest once its blobs are known, and is the same afterwards.
	local := small(t, "local", nil)
	h.load(local.dockerArchive(t, "local:1"))
	if docs, err = h.ManifestOf("local:1", nil); err != nil || docs.Root != nil || len(docs.Manifests[0].Layers) != 1 {
		t.Fatalf("%+v %v", docs, err)
	}
	var blobs []ocispec.Descriptor
	for _, l := range docs.Manifests[0].Layers {
		var out, again bytes.Buffer
		d, err := h.Recompress(ctx, l.DiffID, &out)
		if err != nil || digest.FromBytes(out.Bytes()) != d.Digest || int64(out.Len()) != d.Size {
			t.Fatalf("%+v %v", d, err)
		}
		if _, err := h.Recompress(ctx, l.DiffID, &again); err != nil || !bytes.Equal(out.Bytes(), again.Bytes()) {
			t.Error("compressed again it is not the same")
		}
		z, err := h.RecompressAs(ctx, l.DiffID, ocispec.MediaTypeImageLayerZstd, &again)
		if err != nil || z.Digest == d.Digest {
			t.Errorf("zstd: %+v %v", z, err)
		}
		blobs = append(blobs, d)
	}
	manifest, err := MakeManifest(docs.Manifests[0].Config, blobs)
	if err != nil || manifest.MediaType != dockerManifestType {
		t.Fatalf("%+v %v", manifest, err)
	}
	name, _ := ref.Parse("example.com/local@" + string(manifest.Digest))
	src := Source{Repository: "example.com/local", Descriptor: blobs[0]}
	if _, _, err := h.Register(ctx, Registration{Config: docs.Manifests[0].Config, Manifest: manifest, Names: []ref.Ref{name},
		Sources: map[digest.Digest]Source{digest.FromBytes(local.layers[0]): src}}); err != nil {
		t.Fatal(err)
	}
	h.reopen()
	if docs, err = h.ManifestOf("example.com/local@"+string(manifest.Digest), nil); err != nil || docs.Root == nil || docs.Root.Digest != manifest.Digest {
		t.Errorf("%+v %v", docs, err)
	}
	if list := h.Sources(digest.FromBytes(local.layers[0])); len(list) != 1 || list[0].Repository != src.Repository || list[0].Descriptor.Digest != src.Descriptor.Digest {
		t.Errorf("sources %+v", list)
	}
}

// A name that comes with an image alone stands for that, whatever index the image is known by.
func TestNameOfOnePlatform(t *testing.T) {
	h := open(t)
	m := makeSeveral(t, "1")
	h.load(m.archive("docker.io/library/app:1"))
	h.load(m.amd.dockerArchive(t, "one:1"))
	docs, err := h.ManifestOf("one:1", nil)
	if err != nil || docs.Root.Digest != m.manifests["amd64"].Digest || len(docs.Manifests) != 1 {
		t.Errorf("%+v %v", docs, err)
	}
	arm := platform(t, "linux/arm64")
	if _, err := h.ResolvePlatform("one:1", &arm); fault.KindOf(err) != fault.NotFound {
		t.Errorf("%v", err)
	}
	if _, err := h.Remove(ctx, "app:1", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := h.Count(); n != 1 {
		t.Errorf("%d images", n)
	}
	if layers, _ := h.counts(); layers != 2 {
		h.Layers().WaitTrash(ctx)
		if layers, _ = h.counts(); layers != 2 {
			t.Errorf("%d layers", layers)
		}
	}
}

func TestSources(t *testing.T) {
	h := open(t)
	s := small(t, "a", nil)
	h.load(s.dockerArchive(t, "a:1"))
	d := digest.FromBytes(s.layers[0])
	at := func(repository, content string) Source {
		return Source{Repository: repository, Descriptor: ocispec.Descriptor{MediaType: dockerLayerType, Digest: digest.FromString(content), Size: int64(len(content))}}
	}
	for _, src := range []Source{at("docker.io/library/a", "1"), at("example.com/a", "1"), at("docker.io/library/a", "1"), at("docker.io/library/a", "2")} {
		if err := h.AddSource(d, src); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.AddSource(digest.FromString("none"), at("x.io/a", "1")); err != nil || len(h.Sources(digest.FromString("none"))) != 0 {
		t.Errorf("a layer that is not here: %v", err)
	}
	list := func() (out []string) {
		for _, src := range h.Sources(d) {
			out = append(out, src.Repository+" "+hexOf(string(src.Descriptor.Digest))[:4])
		}
		return out
	}
	one, two := hexOf(string(digest.FromString("1")))[:4], hexOf(string(digest.FromString("2")))[:4]
	want := []string{"example.com/a " + one, "docker.io/library/a " + one, "docker.io/library/a " + two}
	same(t, "sources", list(), want)
	h.reopen()
	same(t, "sources after reopening", list(), want)
	for i := range 40 {
		if err := h.AddSource(d, at("docker.io/library/a", fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(h.Sources(d)); n != sourcesMax {
		t.Errorf("%d sources", n)
	}
	// Saved and loaded elsewhere, the layer can be had where it was.
	var out bytes.Buffer
	if err := h.Save(ctx, &out, []string{"a:1"}, nil); err != nil {
		t.Fatal(err)
	}
	other := open(t)
	other.load(out.Bytes())
	if n := len(other.Sources(d)); n != sourcesMax {
		t.Errorf("%d sources elsewhere", n)
	}
	if _, err := h.Remove(ctx, "a:1", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	h.load(s.dockerArchive(t, "a:1"))
	if n := len(h.Sources(d)); n != 0 {
		t.Errorf("%d sources of a layer that came anew", n)
	}
	h.reopen()
	if n := len(h.Sources(d)); n != 0 {
		t.Errorf("%d sources after reopening", n)
	}
}
