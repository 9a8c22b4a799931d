package image

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"

	"berth/base/failpoint"
	"berth/base/fault"
)

func twoLayers(t testing.TB) sample {
	return makeSample(t, nil, tarOf(t, "bin/", "", "bin/sh", "shell", "gone", "x"), tarOf(t, "bin/ls", "list", ".wh.gone", ""))
}

func TestLoadDockerArchive(t *testing.T) {
	h := open(t)
	s := twoLayers(t)
	same(t, "messages", h.load(s.dockerArchive(t, "app:1", "example.com/app:2")), []string{"Loaded image: app:1", "Loaded image: example.com/app:2"})
	img, err := h.Resolve("app:1")
	if err != nil || img.ID != s.id() || len(img.Layers) != 2 || img.Config.Config.Cmd[0] != "sh" {
		t.Fatalf("%+v %v", img, err)
	}
	if img.Size != int64(len("shell")+len("x")+len("list")) {
		t.Errorf("size %d", img.Size)
	}
	same(t, "tags", img.RepoTags, []string{"app:1", "example.com/app:2"})
	same(t, "files", h.files("app:1"), []string{"bin/ls=list", "bin/sh=shell"})
	h.reopen()
	same(t, "files after reopening", h.files("example.com/app:2"), []string{"bin/ls=list", "bin/sh=shell"})
	same(t, "again", h.load(s.dockerArchive(t)), []string{"Loaded image ID: " + s.id()})
	if layers, docs := h.counts(); layers != 2 || docs != 1 {
		t.Errorf("%d layers, %d documents on disk", layers, docs)
	}
}

func TestLoadOCILayouts(t *testing.T) {
	s := twoLayers(t)
	arm := makeSample(t, func(d *Document) { d.Architecture = "arm64" }, tarOf(t, "bin/sh", "arm"))
	named := func(d Descriptor, name string) Descriptor {
		d.Annotations = map[string]string{"io.containerd.image.name": name, "org.opencontainers.image.ref.name": "tag"}
		return d
	}
	on := func(d Descriptor, arch string) Descriptor {
		d.Platform = &Platform{OS: "linux", Architecture: arch}
		return d
	}
	attestation := func(l *layout) Descriptor {
		m := map[string]any{"config": l.add("application/vnd.oci.image.config.v1+json", `{"rootfs":{"type":"layers","diff_ids":[]}}`), "layers": []any{}}
		d := l.add("application/vnd.oci.image.manifest.v1+json", toJSON(l.t, m))
		d.Platform = &Platform{OS: "unknown", Architecture: "unknown"}
		return d
	}
	for name, c := range map[string]struct {
		index func(l *layout) string
		want  []string
		files []string
	}{
		"plain":       {func(l *layout) string { return l.index(l.manifest(s, plain)) }, []string{"Loaded image ID: " + s.id()}, nil},
		"gzip, named": {func(l *layout) string { return l.index(named(l.manifest(s, gz), "docker.io/library/app:1")) }, []string{"Loaded image: app:1"}, nil},
		"zstd, short name": {func(l *layout) string {
			d := l.manifest(s, zst)
			d.Annotations = map[string]string{"org.opencontainers.image.ref.name": "app:7"}
			return l.index(d)
		}, []string{"Loaded image: app:7"}, nil},
		"nested, platforms, attestation": {func(l *layout) string {
			inner := l.index(on(l.manifest(arm, gz), "arm64"), attestation(l), on(l.manifest(s, gz), "amd64"))
			return l.index(named(l.add("application/vnd.oci.image.index.v1+json", inner), "docker.io/me/multi:2"))
		}, []string{"Loaded image: me/multi:2"}, nil},
		"two names, two platforms at the top": {func(l *layout) string {
			a, b := on(l.manifest(s, gz), "amd64"), on(l.manifest(arm, gz), "arm64")
			return l.index(named(a, "docker.io/library/x:1"), named(b, "docker.io/library/x:1"), named(a, "docker.io/library/y:1"))
		}, []string{"Loaded image: x:1", "Loaded image: y:1"}, nil},
		"the only platform, though not ours": {func(l *layout) string {
			return l.index(named(on(l.manifest(arm, gz), "arm64"), "docker.io/library/a:1"))
		},
			[]string{"Loaded image: a:1"}, []string{"bin/sh=arm"}},
	} {
		h := open(t)
		l := &layout{t: t, blobs: map[string]string{}}
		same(t, name, h.load(l.archive(c.index(l))), c.want)
		id := s.id()
		files := []string{"bin/ls=list", "bin/sh=shell"}
		if c.files != nil {
			id, files = arm.id(), c.files
		}
		same(t, name, h.files(id), files)
		img, _ := h.Resolve(id)
		if img.Manifest == nil {
			t.Errorf("%s: the manifest is not kept", name)
		} else if by, err := h.Resolve(string(img.Manifest.Digest)); err != nil || by.ID != img.ID {
			t.Errorf("%s: by manifest digest: %v", name, err)
		}
		want := len(img.Layers)
		if strings.HasPrefix(name, "nested") {
			want++ // of the other platform
		}
		if layers, _ := h.counts(); layers != want {
			t.Errorf("%s: %d layers on disk, the image has %d", name, layers, want)
		}
		h.reopen()
		same(t, name+" after reopening", h.files(id), files)
	}
}

func TestLoadBothLayouts(t *testing.T) {
	h := open(t)
	s := twoLayers(t)
	l := &layout{t: t, blobs: map[string]string{}}
	m := l.manifest(s, plain)
	var layers []string
	for _, b := range s.layers {
		layers = append(layers, blobPath(digest.FromBytes(b)))
	}
	docker := toJSON(t, []map[string]any{{"Config": blobPath(digest.Digest(s.id())), "RepoTags": []string{"app:9"}, "Layers": layers}})
	same(t, "messages", h.load(l.archive(l.index(m), "manifest.json", docker)), []string{"Loaded image: app:9"})
	if img, _ := h.Resolve("app:9"); img.Manifest == nil || img.Manifest.Digest != m.Digest {
		t.Errorf("manifest %+v", img.Manifest)
	}
}

func TestLoadPlatform(t *testing.T) {
	s := twoLayers(t)
	arm := makeSample(t, func(d *Document) { d.Architecture, d.Variant = "arm64", "v8" }, tarOf(t, "bin/sh", "arm"))
	h := open(t)
	l := &layout{t: t, blobs: map[string]string{}}
	archive := l.archive(l.index(l.add("application/vnd.oci.image.index.v1+json", l.index(l.manifest(s, gz), l.manifest(arm, gz)))))
	p, err := ParsePlatform("linux/arm64")
	if err != nil {
		t.Fatal(err)
	}
	list, err := h.Load(ctx, bytes.NewReader(archive), LoadOptions{Platform: &p})
	if err != nil || len(list) != 1 || list[0].ID != arm.id() {
		t.Errorf("%+v %v", list, err)
	}
	for _, a := range [][]byte{archive, s.dockerArchive(t, "a:1")} {
		p, _ := ParsePlatform("linux/riscv64")
		if _, err := h.Load(ctx, bytes.NewReader(a), LoadOptions{Platform: &p}); fault.KindOf(err) != fault.NotFound || !strings.Contains(err.Error(), "linux/riscv64") {
			t.Errorf("%v", err)
		}
	}
	if _, err := ParsePlatform("a/b/c/d/e"); fault.KindOf(err) != fault.Invalid {
		t.Errorf("%v", err)
	}
}

func TestLoadOddities(t *testing.T) {
	s := twoLayers(t)
	item := func(layers ...string) string {
		return toJSON(t, []map[string]any{{"Config": "c.json", "RepoTags": []string{"odd:1"}, "Layers": layers}})
	}
	for name, archive := range map[string][]byte{
		"manifest first":       tarOf(t, "manifest.json", item("a", "b"), "c.json", s.config, "a", string(s.layers[0]), "b", string(s.layers[1])),
		"compressed layers":    tarOf(t, "a", string(gz(s.layers[0])), "b", string(zst(s.layers[1])), "c.json", s.config, "manifest.json", item("a", "b")),
		"links to layers":      tarOf(t, "x/a", string(s.layers[0]), "y/b", string(s.layers[1]), "l/a", "-> ../x/a", "l/b", "-> /y/b", "c.json", s.config, "manifest.json", item("l/a", "./l/b")),
		"whole gzipped":        gz(s.dockerArchive(t, "odd:1")),
		"whole zstd":           zst(s.dockerArchive(t, "odd:1")),
		"dirty names":          tarOf(t, "./manifest.json", item("./a", "b"), "./c.json", s.config, "./a", string(s.layers[0]), "/b", string(s.layers[1])),
		"things not asked for": tarOf(t, "junk", "some text", "other.tar", string(tarOf(t, "unused", "1")), "broken.tar", string(tarOf(t, "x", "1")[:700]), "bad.gz", "\x1f\x8b\x08 not gzip", "a", string(s.layers[0]), "b", string(s.layers[1]), "c.json", s.config, "manifest.json", item("a", "b")),
		"hostile but unused":   tarOf(t, "evil.tar", string(tarOf(t, "../../../../evil", "1")), "a", string(s.layers[0]), "b", string(s.layers[1]), "c.json", s.config, "manifest.json", item("a", "b")),
	} {
		h := open(t)
		same(t, name, h.load(archive), []string{"Loaded image: odd:1"})
		same(t, name, h.files("odd:1"), []string{"bin/ls=list", "bin/sh=shell"})
		h.Layers().WaitTrash(ctx)
		if layers, _ := h.counts(); layers != 2 {
			t.Errorf("%s: %d layers kept", name, layers)
		}
		if left, _ := os.ReadDir(filepath.Join(h.root, "layer", "tmp")); len(left) != 0 {
			t.Errorf("%s: left %v", name, left)
		}
	}
}

// A layer that is here already need not be in the archive.
func TestLoadWithoutKnownLayers(t *testing.T) {
	h := open(t)
	s := twoLayers(t)
	h.load(s.dockerArchive(t, "a:1"))
	item := toJSON(t, []map[string]any{{"Config": "c.json", "RepoTags": []string{"b:1"}, "Layers": []string{"gone/layer.tar", "gone2/layer.tar"}}})
	same(t, "messages", h.load(tarOf(t, "c.json", s.config, "manifest.json", item)), []string{"Loaded image: b:1"})
}

// A layer may be a file of no bytes: importing nothing makes such a one.
func TestLoadEmptyLayer(t *testing.T) {
	h := open(t)
	s := makeSample(t, nil, tarOf(t, "f", "1"), nil)
	h.load(s.dockerArchive(t, "e:1"))
	var out bytes.Buffer
	if err := h.Save(ctx, &out, []string{"e:1"}, nil); err != nil {
		t.Fatal(err)
	}
	other := open(t)
	other.load(out.Bytes())
	same(t, "files", other.files("e:1"), []string{"f=1"})
	if c, err := other.Fsck(ctx, nil); err != nil || !c.OK() {
		t.Errorf("%+v %v", c, err)
	}
}

func TestLoadMovesNames(t *testing.T) {
	h := open(t)
	a, b := makeSample(t, nil, tarOf(t, "a", "1")), makeSample(t, nil, tarOf(t, "b", "2"))
	h.load(a.dockerArchive(t, "app:1"))
	same(t, "messages", h.load(b.dockerArchive(t, "app:1")), []string{
		"The image app:1 already exists, renaming the old one with ID " + a.id() + " to empty string", "Loaded image: app:1"})
	old, err := h.Resolve(a.id())
	if err != nil || len(old.RepoTags) != 0 {
		t.Errorf("the old image: %+v %v", old, err)
	}
	h.reopen()
	if img, _ := h.Resolve("app:1"); img == nil || img.ID != b.id() {
		t.Errorf("%+v", img)
	}
}

func TestLoadRefuses(t *testing.T) {
	s := twoLayers(t)
	item := func(v any) string { return toJSON(t, v) }
	good := map[string]any{"Config": "c.json", "RepoTags": []string{"a:1"}, "Layers": []string{"a", "b"}}
	with := func(key string, v any) map[string]any {
		m := map[string]any{}
		for k, x := range good {
			m[k] = x
		}
		m[key] = v
		return m
	}
	base := []string{"a", string(s.layers[0]), "b", string(s.layers[1]), "c.json", s.config}
	add := func(more ...string) []byte { return tarOf(t, append(append([]string{}, base...), more...)...) }
	windows := makeSample(t, func(d *Document) { d.OS = "windows" }, s.layers...)
	l := &layout{t: t, blobs: map[string]string{}}
	m := l.manifest(s, gz)
	wrongSize := m
	wrongSize.Size++
	swapped := &layout{t: t, blobs: map[string]string{}}
	sm := swapped.manifest(s, gz)
	for p, b := range swapped.blobs {
		if strings.HasPrefix(b, "\x1f\x8b") {
			swapped.blobs[p] = string(gz(tarOf(t, "evil", p)))
		}
	}
	for name, c := range map[string]struct {
		archive []byte
		want    string
	}{
		"no archive":         {[]byte(strings.Repeat("hello world ", 100)), "wrong checksum"},
		"empty":              {nil, "neither manifest.json"},
		"nothing known":      {tarOf(t, "a", "b"), "neither manifest.json"},
		"cut":                {s.dockerArchive(t, "a:1")[:3000], "unexpected EOF"},
		"null manifest":      {add("manifest.json", "null "), "no JSON"},
		"bad manifest":       {add("manifest.json", "{}"), "invalid manifest.json"},
		"no config":          {add("manifest.json", item([]any{with("Config", "none.json")})), "none.json is not in it"},
		"bad config":         {add("x.json", "{", "manifest.json", item([]any{with("Config", "x.json")})), "invalid image JSON"},
		"config no rootfs":   {add("x.json", "{}", "manifest.json", item([]any{with("Config", "x.json")})), "no RootFS key"},
		"bad diff id":        {add("x.json", `{"rootfs":{"diff_ids":["sha256:../../x"]}}`, "manifest.json", item([]any{with("Config", "x.json")})), "diff id"},
		"layer count":        {add("manifest.json", item([]any{with("Layers", []string{"a"})})), "layers length mismatch: expected 1, got 2"},
		"layers swapped":     {add("manifest.json", item([]any{with("Layers", []string{"b", "a"})})), "invalid diffID for layer 0"},
		"layer missing":      {add("manifest.json", item([]any{with("Layers", []string{"a", "../../etc/passwd"})})), "layer 1: not in the archive"},
		"layer is a loop":    {add("x", "-> y", "y", "-> x", "manifest.json", item([]any{with("Layers", []string{"a", "x"})})), "not in the archive"},
		"layer is text":      {add("x", "text", "manifest.json", item([]any{with("Layers", []string{"a", "x"})})), "neither a layer nor"},
		"layer is a doc":     {add("manifest.json", item([]any{with("Layers", []string{"a", "c.json"})})), "a document, not a layer"},
		"hostile layer":      {tarOf(t, "a", string(tarOf(t, "../evil", "1")), "b", string(s.layers[1]), "c.json", s.config, "manifest.json", item([]any{good})), "leads out of the root"},
		"bad tag":            {add("manifest.json", item([]any{with("RepoTags", []string{"UPPER:1"})})), "must be lowercase"},
		"tag without tag":    {add("manifest.json", item([]any{with("RepoTags", []string{"a"})})), "invalid tag"},
		"other system":       {windows.dockerArchive(t, "w:1"), "cannot load windows image on linux"},
		"index: bad digest":  {l.archive(l.index(Descriptor{Digest: "sha256:zz"})), "digest"},
		"index: wrong size":  {l.archive(l.index(wrongSize)), "were announced"},
		"index: missing":     {l.archive(l.index(Descriptor{Digest: digest.FromString("none"), Size: 4})), "is not in it"},
		"index: empty":       {l.archive(l.index()), "names no manifest"},
		"index: swapped":     {swapped.archive(swapped.index(sm)), "were announced"},
		"index: not a blob":  {l.archive(l.index(l.add("x", "[1]"))), "invalid manifest"},
		"index: an artifact": {l.archive(l.index(l.add("x", `{"config":{"mediaType":"application/x","digest":"`+string(m.Digest)+`"},"layers":[]}`))), "names no image"},
	} {
		h := open(t)
		_, err := h.Load(ctx, bytes.NewReader(c.archive), LoadOptions{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want …%s…", name, err, c.want)
			continue
		}
		if k := fault.KindOf(err); k != fault.Invalid && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: kind %v", name, k)
		}
		h.Layers().WaitTrash(ctx)
		if layers, docs := h.counts(); layers+docs+h.Count() != 0 {
			t.Errorf("%s: %d layers, %d documents, %d images stay", name, layers, docs, h.Count())
		}
	}
}

func TestDeeplyNestedIndexes(t *testing.T) {
	l := &layout{t: t, blobs: map[string]string{}}
	d := l.manifest(twoLayers(t), gz)
	for range 12 {
		d = l.add("application/vnd.oci.image.index.v1+json", l.index(d))
	}
	_, err := open(t).Load(ctx, bytes.NewReader(l.archive(l.index(d))), LoadOptions{})
	if err == nil || !strings.Contains(err.Error(), "nested") {
		t.Errorf("%v", err)
	}
}

func TestLoadIsCancelled(t *testing.T) {
	h := open(t)
	c, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := h.Load(c, bytes.NewReader(twoLayers(t).dockerArchive(t, "a:1")), LoadOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	lost := errors.New("connection lost")
	archive := twoLayers(t).dockerArchive(t, "a:1")
	if _, err := h.Load(ctx, io.MultiReader(bytes.NewReader(archive[:3000]), iotest.ErrReader(lost)), LoadOptions{}); !errors.Is(err, lost) {
		t.Errorf("%v", err)
	}
}

func TestLoadReadsOneByteAtATime(t *testing.T) {
	h := open(t)
	archive := gz(twoLayers(t).dockerArchive(t, "a:1"))
	var progress []Progress
	list, err := h.Load(ctx, iotest.OneByteReader(bytes.NewReader(archive)), LoadOptions{Progress: func(p Progress) { progress = append(progress, p) }})
	if err != nil || len(list) != 1 || len(progress) == 0 || progress[0].Action != "Loading layer" || progress[0].Total == 0 {
		t.Errorf("%v %v %+v", list, err, progress)
	}
}

// What a failure in the last step leaves must be nothing.
func TestLoadFailsWhole(t *testing.T) {
	t.Cleanup(func() { failpoint.Arm("") })
	for _, p := range []string{"image/before-commit", "blob/before-name", "layer/before-sync", "layer/before-rename"} {
		h := open(t)
		failpoint.Arm(p + "=error")
		_, err := h.Load(ctx, bytes.NewReader(twoLayers(t).dockerArchive(t, "a:1")), LoadOptions{})
		failpoint.Arm("")
		if err == nil {
			t.Errorf("%s: no error", p)
		}
		h.Layers().WaitTrash(ctx)
		if layers, docs := h.counts(); layers+docs+h.Count() != 0 {
			t.Errorf("%s: %d layers, %d documents, %d images stay", p, layers, docs, h.Count())
		}
		h.load(twoLayers(t).dockerArchive(t, "a:1"))
	}
}

func FuzzLoad(f *testing.F) {
	s := twoLayers(f)
	f.Add(s.dockerArchive(f, "a:1"))
	l := &layout{t: f, blobs: map[string]string{}}
	f.Add(l.archive(l.index(l.manifest(s, gz))))
	f.Add(tarOf(f, "manifest.json", `[{"Config":"c","Layers":["l"]}]`, "c", `{"rootfs":{"diff_ids":[]}}`))
	if os.Getuid() != 0 {
		f.Skip("needs root: owners and trusted attributes of layers")
	}
	h := open(f)
	f.Fuzz(func(t *testing.T, archive []byte) {
		_, err := h.Load(ctx, bytes.NewReader(archive), LoadOptions{})
		if k := fault.KindOf(err); err != nil && k != fault.Invalid && k != fault.NotFound && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, os.ErrPermission) {
			t.Fatalf("kind %v: %v", k, err)
		}
		if err == nil {
			h.Prune(ctx, Filters{"dangling": {"false"}})
		}
	})
}

// The plan is made of documents alone: it can be fuzzed without a disk.
func FuzzPlanLoad(f *testing.F) {
	s := twoLayers(f)
	l := &layout{t: f, blobs: map[string]string{}}
	m := l.manifest(s, plain)
	f.Add(`[{"Config":"blobs/c","RepoTags":["a:1"],"Layers":["x","y"]}]`, l.index(m), l.blobs[blobPath(m.Digest)], s.config)
	f.Add("null", `{"manifests":[{"digest":"sha256:00"}]}`, "{}", `{"rootfs":{}}`)
	f.Fuzz(func(t *testing.T, docker, index, manifest, config string) {
		for _, both := range []bool{true, false} {
			a := &incoming{files: map[string]*found{}}
			doc := func(name, content string) { a.files[name] = &found{document: []byte(content)} }
			if both {
				doc("manifest.json", docker)
			}
			doc("index.json", index)
			doc("blobs/c", config)
			doc(blobPath(digest.FromString(manifest)), manifest)
			doc(blobPath(digest.FromString(config)), config)
			plan, err := planLoad(a, nil)
			if err != nil {
				if k := fault.KindOf(err); k != fault.Invalid && k != fault.NotFound {
					t.Fatalf("kind %v: %v", k, err)
				}
				continue
			}
			for _, g := range plan {
				for _, p := range g.images {
					if len(p.layers) != len(p.doc.RootFS.DiffIDs) {
						t.Fatal("layers and diff ids differ in number")
					}
				}
			}
		}
	})
}

// A parent that stands behind its child in the archive is its parent all the same.
func TestLoadParents(t *testing.T) {
	h := open(t)
	base, child := small(t, "base", nil), small(t, "child", nil)
	h.load(base.dockerArchive(t, "base:1"))
	h.load(child.dockerArchive(t, "child:1"))
	if _, _, err := h.Register(ctx, Registration{Config: []byte(child.config), Parent: digest.Digest(base.id())}); err != nil {
		t.Fatal(err)
	}
	for _, refs := range [][]string{{"child:1", "base:1"}, {"base:1", "child:1"}, {"child:1"}} {
		var b bytes.Buffer
		if err := h.Save(ctx, &b, refs, nil); err != nil {
			t.Fatal(err)
		}
		fresh := open(t)
		lines := fresh.load(b.Bytes())
		if len(lines) != len(refs) {
			t.Errorf("%q: %q", refs, lines)
		}
		img, err := fresh.Resolve("child:1")
		want := base.id()
		if len(refs) == 1 {
			want = ""
		}
		if err != nil || img.Parent != want {
			t.Errorf("%q: the parent is %q, want %q (%v)", refs, img.Parent, want, err)
		}
	}
	if !h.descends(digest.Digest(child.id()), digest.Digest(base.id())) || h.descends(digest.Digest(base.id()), digest.Digest(child.id())) {
		t.Error("who comes from whom")
	}
	// Each the other's parent, as an archive may say.
	if _, _, err := h.Register(ctx, Registration{Config: []byte(base.config), Parent: digest.Digest(child.id())}); err != nil {
		t.Fatal(err)
	}
	if h.descends(digest.Digest(base.id()), "sha256:other") {
		t.Error("a circle has come to an end")
	}
}
