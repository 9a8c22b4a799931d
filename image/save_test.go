package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/image/layer"
	"berth/kernel/tree"
)

// entries reads an archive into memory.
func entries(t testing.TB, b []byte) (names []string, content map[string]string) {
	t.Helper()
	content = map[string]string{}
	r := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names, content
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		content[h.Name] = string(data)
	}
}

func TestSaveIsBothLayoutsAndExact(t *testing.T) {
	h := open(t)
	bottom := tarOf(t, "bottom", "1", "bottom", "twice")
	a, b := makeSample(t, nil, bottom, tarOf(t, "a", "1")), makeSample(t, nil, bottom)
	h.load(a.dockerArchive(t, "app:1", "app:2"))
	h.load(b.dockerArchive(t))
	var out bytes.Buffer
	if err := h.Save(ctx, &out, []string{"app", b.id(), "app:1"}, nil); err != nil {
		t.Fatal(err)
	}
	names, content := entries(t, out.Bytes())
	if !slices.IsSorted(slices.Compact(slices.Clone(names))) && len(names) != len(content) {
		t.Errorf("a name twice: %q", names)
	}
	for _, l := range append(a.layers, b.layers...) {
		if got := content[blobPath(digest.FromBytes(l))]; got != string(l) {
			t.Errorf("layer of %d bytes came out with %d", len(l), len(got))
		}
	}
	var items []dockerItem
	json.Unmarshal([]byte(content["manifest.json"]), &items)
	if len(items) != 2 || !slices.Equal(items[0].RepoTags, []string{"app:1", "app:2"}) || len(items[1].RepoTags) != 0 || content[items[0].Config] != a.config {
		t.Errorf("manifest.json %s", content["manifest.json"])
	}
	var index ociManifest
	json.Unmarshal([]byte(content["index.json"]), &index)
	if len(index.Manifests) != 3 {
		t.Errorf("index.json %s", content["index.json"])
	}
	for _, d := range index.Manifests {
		raw := content[blobPath(d.Digest)]
		m, err := parseManifest([]byte(raw))
		if err != nil || digest.FromString(raw) != d.Digest || int64(len(raw)) != d.Size || content[blobPath(m.Config.Digest)] == "" {
			t.Errorf("manifest %s: %v", d.Digest, err)
		}
		for _, l := range m.Layers {
			if c := content[blobPath(l.Digest)]; int64(len(c)) != l.Size || digest.FromString(c) != l.Digest {
				t.Errorf("layer %s has %d bytes, %d announced", l.Digest, len(c), l.Size)
			}
		}
	}
	if content["oci-layout"] == "" || !strings.Contains(content["repositories"], `"app"`) {
		t.Errorf("oci-layout or repositories: %q", names)
	}
	// What one engine saves another loads, by either layout.
	other := open(t)
	same(t, "messages", other.load(out.Bytes()), []string{"Loaded image: app:1", "Loaded image: app:2", "Loaded image ID: " + b.id()})
	same(t, "files", other.files("app:2"), []string{"a=1", "bottom=twice"})
	var pairs []string
	for _, n := range names {
		if n != "manifest.json" && n != "repositories" {
			pairs = append(pairs, n, content[n])
		}
	}
	third := open(t)
	same(t, "as OCI layout", third.load(tarOf(t, pairs...)), []string{"Loaded image: app:1", "Loaded image: app:2", "Loaded image ID: " + b.id()})
	var again bytes.Buffer
	if err := other.Save(ctx, &again, []string{"app", b.id()}, nil); err != nil || !bytes.Equal(again.Bytes(), out.Bytes()) {
		t.Errorf("saved again: %d bytes, want %d, %v", again.Len(), out.Len(), err)
	}
}

func TestSaveRefuses(t *testing.T) {
	h := open(t)
	h.load(twoLayers(t).dockerArchive(t, "a:1"))
	p, _ := ParsePlatform("linux/arm64")
	for name, c := range map[string]struct {
		refs     []string
		platform *Platform
		kind     fault.Kind
	}{
		"missing":  {[]string{"a:1", "none"}, nil, fault.NotFound},
		"bad":      {[]string{"UPPER"}, nil, fault.Invalid},
		"platform": {[]string{"a:1"}, &p, fault.NotFound},
	} {
		var out bytes.Buffer
		if err := h.Save(ctx, &out, c.refs, c.platform); fault.KindOf(err) != c.kind || out.Len() != 0 {
			t.Errorf("%s: %v, %d bytes written", name, err, out.Len())
		}
	}
}

func TestImport(t *testing.T) {
	h := open(t)
	archive := gz(tarOf(t, "bin/", "", "bin/sh", "shell"))
	id, err := h.Import(ctx, bytes.NewReader(archive), ImportOptions{Ref: "deb", Message: "from tar", Platform: "linux/arm64/v8",
		Changes: []string{`CMD ["/bin/sh"]`, "ENV A=1\nLABEL x=y"}})
	if err != nil {
		t.Fatal(err)
	}
	img, err := h.Resolve("deb:latest")
	if err != nil || img.ID != id {
		t.Fatal(err)
	}
	c := img.Config
	if c.Config.Cmd[0] != "/bin/sh" || c.Config.Env[0] != "A=1" || c.Config.Labels["x"] != "y" || c.Architecture != "arm64" || c.Comment != "from tar" || img.Created.IsZero() {
		t.Errorf("%+v", c)
	}
	same(t, "files", h.files("deb"), []string{"bin/sh=shell"})
	steps, err := h.History("deb")
	if err != nil || len(steps) != 1 || steps[0].Comment != "from tar" || steps[0].Size != 5 {
		t.Errorf("%+v %v", steps, err)
	}
	for name, c := range map[string]struct {
		b []byte
		o ImportOptions
	}{
		"not a tar":    {[]byte(strings.Repeat("x", 2000)), ImportOptions{}},
		"hostile":      {tarOf(t, "../x", "1"), ImportOptions{}},
		"bad change":   {archive, ImportOptions{Changes: []string{"RUN x"}}},
		"bad ref":      {archive, ImportOptions{Ref: "UPPER"}},
		"digest ref":   {archive, ImportOptions{Ref: "a@" + id}},
		"bad platform": {archive, ImportOptions{Platform: "a/b/c/d"}},
		"windows":      {archive, ImportOptions{Platform: "windows/amd64"}},
	} {
		if _, err := h.Import(ctx, bytes.NewReader(c.b), c.o); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	h.Layers().WaitTrash(ctx)
	if layers, _ := h.counts(); layers != 1 || h.Count() != 1 {
		t.Errorf("%d layers, %d images", layers, h.Count())
	}
}

func TestCommit(t *testing.T) {
	h := open(t)
	s := twoLayers(t)
	h.load(s.dockerArchive(t, "base:1"))
	img, _ := h.Resolve("base:1")
	if _, err := h.Layers().Create(ctx, "c1", img.Layers, layer.CreateOptions{ImageID: digest.Digest(img.ID)}); err != nil {
		t.Fatal(err)
	}
	err := h.Layers().WithMount(ctx, "c1", false, func(root *tree.Dir) error {
		os.Remove(filepath.Join(root.Path(), "bin/ls"))
		return os.WriteFile(filepath.Join(root.Path(), "new"), []byte("n"), 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	config := img.Config.Config.clone()
	id, err := h.Commit(ctx, CommitOptions{ContainerID: "c1", Ref: "made:1", Author: "me", Comment: "why", Config: config, Changes: []string{"USER 7", `ENTRYPOINT ["e"]`}})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "files", h.files("made:1"), []string{"bin/sh=shell", "new=n"})
	made, _ := h.Resolve(id)
	if made.Parent != s.id() || made.Config.Config.User != "7" || made.Config.Config.Cmd != nil || made.Config.Author != "me" || len(made.Layers) != 3 {
		t.Errorf("%+v %+v", made, made.Config)
	}
	steps, err := h.History("made:1")
	if err != nil || len(steps) != 3 || steps[0].ID != id || steps[0].CreatedBy != "sh" || steps[0].Comment != "why" || steps[1].ID != s.id() {
		t.Errorf("%+v %v", steps, err)
	}
	// A container that changed nothing adds no layer.
	h.Layers().Create(ctx, "c2", img.Layers, layer.CreateOptions{ImageID: digest.Digest(img.ID)})
	id2, err := h.Commit(ctx, CommitOptions{ContainerID: "c2", Config: config})
	if err != nil {
		t.Fatal(err)
	}
	if made, _ := h.Resolve(id2); len(made.Layers) != 2 {
		t.Errorf("%d layers", len(made.Layers))
	}
	if _, err := h.Commit(ctx, CommitOptions{ContainerID: "none"}); fault.KindOf(err) != fault.NotFound {
		t.Errorf("%v", err)
	}
	// The image may be forced away under its containers: they keep their layers, and can be committed still.
	if _, err := h.Remove(ctx, "made:1", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	h.Remove(ctx, id2, RemoveOptions{})
	if _, err := h.Remove(ctx, "base:1", RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Resolve(s.id()); err == nil {
		t.Fatal("the image should be gone")
	}
	if _, err := h.Commit(ctx, CommitOptions{ContainerID: "c1", Ref: "orphan:1"}); err != nil {
		t.Fatal(err)
	}
	same(t, "files", h.files("orphan:1"), []string{"bin/sh=shell", "new=n"})
}

// Configurations and layers have their image's time in an archive, what is made for the archive none.
func TestSaveTimes(t *testing.T) {
	h := open(t)
	made := time.Date(2021, 2, 3, 4, 5, 6, 789, time.UTC)
	bottom := tarOf(t, "bottom", "1")
	dated := makeSample(t, func(d *Document) { d.Created = &made }, bottom)
	timeless := makeSample(t, func(d *Document) { d.Created = nil }, tarOf(t, "other", "1"))
	h.load(dated.dockerArchive(t, "dated:1"))
	h.load(timeless.dockerArchive(t, "timeless:1"))
	var out bytes.Buffer
	if err := h.Save(ctx, &out, []string{"dated:1", "timeless:1"}, nil); err != nil {
		t.Fatal(err)
	}
	first := bytes.Clone(out.Bytes())
	got := map[string]time.Time{}
	for r := tar.NewReader(&out); ; {
		e, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got[e.Name] = e.ModTime
	}
	for path, want := range map[string]time.Time{
		blobPath(digest.Digest(dated.id())): made.Truncate(time.Second), blobPath(digest.FromBytes(bottom)): made.Truncate(time.Second),
		blobPath(digest.Digest(timeless.id())): time.Unix(0, 0), "manifest.json": time.Unix(0, 0),
	} {
		if at, ok := got[path]; !ok || !at.Equal(want) {
			t.Errorf("%s is of %v, want %v", path, at, want)
		}
	}
	if err := h.Save(ctx, &out, []string{"dated:1", "timeless:1"}, nil); err != nil || !bytes.Equal(out.Bytes(), first) {
		t.Errorf("saved again it is another archive: %v", err)
	}
}
