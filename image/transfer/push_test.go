package transfer

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/base/ref"
	"berth/image"
)

func (e *engine) tag(name, newName string) {
	e.t.Helper()
	if err := e.images.Tag(name, newName); err != nil {
		e.t.Fatal(err)
	}
}

func (e *engine) planPush(name string) *PushPlan {
	e.t.Helper()
	n, err := ref.Parse(name)
	if err != nil {
		e.t.Fatal(err)
	}
	p, err := e.PlanPush(ctx, PushRequest{Name: n})
	if err != nil {
		e.t.Fatal(err)
	}
	return p
}

// load makes an image here that no registry knows.
func (e *engine) load(name string, texts ...string) {
	e.t.Helper()
	doc := image.Document{Platform: image.Platform{OS: "linux", Architecture: "amd64"}, RootFS: image.RootFS{Type: "layers"}}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(name string, content []byte) {
		w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))})
		w.Write(content)
	}
	var layers []string
	for i, text := range texts {
		raw := layerTar(e.t, text)
		doc.RootFS.DiffIDs = append(doc.RootFS.DiffIDs, digest.FromBytes(raw))
		layers = append(layers, fmt.Sprintf("%d/layer.tar", i))
		add(layers[i], raw)
	}
	config, _ := json.Marshal(doc)
	add("config.json", config)
	list, _ := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{name}, "Layers": layers}})
	add("manifest.json", list)
	w.Close()
	if _, err := e.images.Load(ctx, &b, image.LoadOptions{}); err != nil {
		e.t.Fatal(err)
	}
}

func layerIDs(s sample, status string) (lines []string) {
	for _, d := range slices.Backward(s.diffIDs) {
		lines = append(lines, short(d)+": "+status)
	}
	return lines
}

// Wherever an image came from, it goes on with the digest it came with, and its layers by the cheapest way.
func TestPushKeepsTheDigest(t *testing.T) {
	g, target := newRegistry(t), newRegistry(t)
	e := newEngine(t, nil)
	s := g.build("team/web", "1", ocispec.Platform{}, []string{"gzip", "zstd", "tar"}, "a", "b", "c")
	e.mustPull(g.host() + "/team/web:1")

	// To another registry: streamed from the source.
	to := target.host() + "/mirror/web:2"
	e.tag(g.host()+"/team/web:1", to)
	plan := e.planPush(to)
	target.goldenPair(g, "push-stream.txt", plan)
	g.asked()
	done, lines, err := e.push(to, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{fmt.Sprintf("The push refers to repository [%s/mirror/web]", target.host())}
	for _, d := range slices.Backward(s.diffIDs) {
		for _, w := range []string{"Preparing", "Pushed"} {
			want = append(want, short(d)+": "+w)
		}
	}
	want = append(want, fmt.Sprintf("2: digest: %s size: %d", s.digest, len(s.manifest)), fmt.Sprintf(`aux {"Tag":"2","Digest":"%s","Size":%d}`, s.digest, len(s.manifest)))
	same(t, "streamed", lines, want)
	if img := done.Images[0]; img.Digest != s.digest || img.NewDigest {
		t.Errorf("%+v", img)
	}
	if !bytes.Equal(target.manifests["mirror/web"]["2"].raw, s.manifest) {
		t.Error("the target has another manifest")
	}
	if n := len(g.asked()); n != 3 {
		t.Errorf("the source was asked %d times for 3 layers", n)
	}

	// To another repository of the registry that has it: mounted.
	to = g.host() + "/team/copy:1"
	e.tag(g.host()+"/team/web:1", to)
	plan = e.planPush(to)
	target.goldenPair(g, "push-mount.txt", plan)
	_, lines, err = e.push(to, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range layerIDs(s, "Mounted from team/web") {
		if !slices.Contains(lines, want) {
			t.Errorf("%q is not in %q", want, lines)
		}
	}
	if !bytes.Equal(g.manifests["team/copy"]["1"].raw, s.manifest) {
		t.Error("the copy has another manifest")
	}

	// Again: it is there.
	_, lines, err = e.push(to, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range layerIDs(s, "Layer already exists") {
		if !slices.Contains(lines, want) {
			t.Errorf("%q is not in %q", want, lines)
		}
	}
	img, err := e.images.Resolve(to)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{g.host() + "/team/copy@" + string(s.digest), target.host() + "/mirror/web@" + string(s.digest)} {
		if !slices.Contains(img.RepoDigests, want) {
			t.Errorf("%s is not in %q", want, img.RepoDigests)
		}
	}
	if !slices.Contains(e.events, "push "+to) {
		t.Errorf("events %q", e.events)
	}
}

// goldenPair is golden with two registries in the text.
func (g *registry) goldenPair(source *registry, name string, plan *PushPlan) {
	g.t.Helper()
	source.golden(name, func(b *bytes.Buffer) error {
		var raw bytes.Buffer
		err := plan.Write(&raw)
		b.WriteString(strings.ReplaceAll(raw.String(), g.host(), "target.test"))
		return err
	})
}

func TestPushOfKeptBlobs(t *testing.T) {
	g, target := newRegistry(t), newRegistry(t)
	e := newEngine(t, func(c *Config) { c.KeepBlobs = true })
	s := g.build("x", "1", ocispec.Platform{}, nil, "a", "b")
	e.mustPull(g.host() + "/x:1")
	g.Close()
	e.tag(g.host()+"/x:1", target.host()+"/x:1")
	done, _, err := e.push(target.host()+"/x:1", nil)
	if err != nil || done.Images[0].Digest != s.digest {
		t.Fatal(done, err)
	}
}

// When the source is gone the layers are compressed anew, and whoever pushed is told that the digest is another one.
func TestPushWhenTheSourceIsGone(t *testing.T) {
	t.Parallel() // the client waits and asks again
	g, target := newRegistry(t), newRegistry(t)
	e := newEngine(t, nil)
	s := g.build("x", "1", ocispec.Platform{}, []string{"gzip"}, "a", "b")
	e.mustPull(g.host() + "/x:1")
	delete(g.blobs, "x@"+string(s.blobs[0].Digest))
	delete(g.blobs, "x@"+string(s.blobs[1].Digest))
	name := target.host() + "/x:1"
	e.tag(g.host()+"/x:1", name)
	done, lines, err := e.push(name, nil)
	if err != nil {
		t.Fatal(err)
	}
	img := done.Images[0]
	if !img.NewDigest || img.Original != s.digest || img.Digest == s.digest {
		t.Errorf("%+v", img)
	}
	want := fmt.Sprintf("WARNING: 2 layers of %s cannot be had any more as the image came with them and went compressed anew: the image was pushed as %s, not as %s", name, img.Digest, s.digest)
	if !slices.Contains(lines, want) {
		t.Errorf("%q is not in\n%s", want, strings.Join(lines, "\n"))
	}
	// The next push knows what is there.
	again, lines, err := e.push(name, nil)
	if err != nil || again.Images[0].Digest != img.Digest {
		t.Fatal(again, err)
	}
	for _, want := range layerIDs(s, "Layer already exists") {
		if !slices.Contains(lines, want) {
			t.Errorf("%q is not in %q", want, lines)
		}
	}
	other := newEngine(t, nil)
	if pulled := other.mustPull(name); pulled.Images[0].ID != s.id || pulled.Images[0].Digest != img.Digest {
		t.Errorf("another engine gets %+v", pulled.Images[0])
	}
	other.has(name, "a", "b")
}

// A registry that does not answer for a while is not one whose blobs are gone: what is pushed is the image that was asked for, or nothing.
func TestPushWhileTheRegistryIsAway(t *testing.T) {
	t.Parallel() // the client waits and asks again
	g := newRegistry(t)
	e := newEngine(t, nil)
	s := g.build("x", "1", ocispec.Platform{}, []string{"gzip"}, "a", "b")
	e.mustPull(g.host() + "/x:1")
	name := g.host() + "/copy:1"
	e.tag(g.host()+"/x:1", name)
	g.answer(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Has("mount") || r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			panic(http.ErrAbortHandler) // the connection breaks
		}
		return false
	})
	if done, lines, err := e.push(name, nil); err == nil {
		t.Errorf("pushed as %s (%s was asked for) while the registry broke off what was asked of it:\n%s", done.Images[0].Digest, s.digest, strings.Join(lines, "\n"))
	}
	g.answer(nil)
	done, _, err := e.push(name, nil)
	if err != nil || done.Images[0].Digest != s.digest {
		t.Errorf("afterwards: %v, %v; want %s", done, err, s.digest)
	}
}

// An image made here is compressed while it is pushed, once, and shares the layers that the registry has.
func TestPushOfAnImageMadeHere(t *testing.T) {
	g := newRegistry(t)
	e := newEngine(t, nil)
	name := g.host() + "/team/web:2"
	e.load(name, "a", "b")
	g.golden("push-made.txt", func(b *bytes.Buffer) error { return e.planPush(name).Write(b) })
	done, _, err := e.push(name, nil)
	if err != nil {
		t.Fatal(err)
	}
	if done.Images[0].NewDigest || done.Images[0].MediaType != typeDockerManifest {
		t.Errorf("%+v", done.Images[0])
	}
	for _, r := range g.asked() {
		if strings.HasPrefix(r, "GET") {
			t.Errorf("needless request %q", r)
		}
	}
	again, lines, err := e.push(name, nil)
	if err != nil || again.Images[0].Digest != done.Images[0].Digest {
		t.Fatal(again, err)
	}
	img, _ := e.images.Resolve(name)
	for _, d := range img.Layers {
		if want := short(d) + ": Layer already exists"; !slices.Contains(lines, want) {
			t.Errorf("%q is not in %q", want, lines)
		}
	}
	same(t, "digests", img.RepoDigests, []string{g.host() + "/team/web@" + string(done.Images[0].Digest)})
	other := newEngine(t, nil)
	other.mustPull(name)
	other.has(name, "a", "b")
}

// A manifest whose layer was here already is not believed when it says in which blob the layer is: it would get another content into
// what others push.
func TestPushDoesNotBelieveClaims(t *testing.T) {
	g := newRegistry(t)
	e := newEngine(t, nil)
	base := g.build("lib/base", "1", ocispec.Platform{}, nil, "base")
	e.mustPull(g.host() + "/lib/base:1")
	evil := g.build("evil/x", "1", ocispec.Platform{}, nil, "evil")
	for tag, blobs := range map[string][]ocispec.Descriptor{"1": evil.blobs, "2": {base.blobs[0], evil.blobs[0]}} {
		doc := image.Document{Platform: image.Platform{OS: "linux", Architecture: "amd64"}, RootFS: image.RootFS{Type: "layers"}}
		for range blobs {
			doc.RootFS.DiffIDs = append(doc.RootFS.DiffIDs, base.diffIDs[0])
		}
		config, _ := json.Marshal(doc)
		m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: blobs,
			Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: g.putBlob("evil/x", config), Size: int64(len(config))}}
		m.SchemaVersion = 2
		raw, _ := json.Marshal(m)
		g.put("evil/x", tag, m.MediaType, raw)
		e.mustPull(g.host() + "/evil/x:" + tag)
	}
	name := g.host() + "/team/web:1"
	e.load(name, "base", "mine")
	for range 2 { // what a push has noted is believed no more than before
		if _, _, err := e.push(name, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, there := g.blobs["team/web@"+string(base.blobs[0].Digest)]; !there {
		t.Error("the blob that is known to be the layer's was not used")
	}
	other := newEngine(t, nil)
	other.mustPull(name)
	other.has(name, "base", "mine")
}

func TestPushOfSeveralPlatforms(t *testing.T) {
	g, target := newRegistry(t), newRegistry(t)
	e := newEngine(t, nil)
	a, b, root, att := g.multi("m", "latest")
	one, _ := image.ParsePlatform("linux/amd64")
	two, _ := image.ParsePlatform("linux/arm64")
	pull := func(p image.Platform) {
		if _, _, err := e.pull(g.host()+"/m", func(r *PullRequest) { r.Platform = &p }); err != nil {
			t.Fatal(err)
		}
	}
	pull(one)

	// The same registry mounts what is not here.
	e.tag(g.host()+"/m", g.host()+"/copy:1")
	plan := e.planPush(g.host() + "/copy:1")
	g.golden("push-index.txt", func(b *bytes.Buffer) error { return plan.Write(b) })
	done, _, err := e.push(g.host()+"/copy:1", nil)
	if err != nil || done.Images[0].Digest != root.Digest {
		t.Fatal(done, err)
	}

	// Another registry gets the platform that is here, as Docker does it.
	to := target.host() + "/m:1"
	e.tag(g.host()+"/m", to)
	done, lines, err := e.push(to, nil)
	if err != nil {
		t.Fatal(err)
	}
	if img := done.Images[0]; img.Digest != a.digest || !img.NewDigest || img.Original != root.Digest {
		t.Errorf("%+v", img)
	}
	if !slices.ContainsFunc(lines, func(l string) bool {
		return strings.HasPrefix(l, `aux {"manifestPushedInsteadOfIndex":true,"originalIndex":{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"`+string(root.Digest))
	}) {
		t.Errorf("no note in %q", lines)
	}

	// With both here it is the index, attestations and all.
	pull(two)
	done, _, err = e.push(to, nil)
	if err != nil || done.Images[0].Digest != root.Digest {
		t.Fatal(done, err)
	}
	for _, d := range []digest.Digest{a.digest, b.digest, att.Digest, root.Digest} {
		if _, ok := target.manifests["m"][string(d)]; !ok {
			t.Errorf("the target has no %s", d)
		}
	}
	// Asked for one platform it is that one alone.
	done, _, err = e.push(to, func(r *PushRequest) { r.Platform = &two })
	if err != nil || done.Images[0].Digest != b.digest {
		t.Fatal(done, err)
	}
}

func TestPushAllTags(t *testing.T) {
	g := newRegistry(t)
	e := newEngine(t, nil)
	e.load(g.host()+"/x:1", "a")
	e.load(g.host()+"/x:2", "a", "b")
	done, _, err := e.push(g.host()+"/x", func(r *PushRequest) { r.AllTags = true })
	if err != nil || len(done.Images) != 2 {
		t.Fatal(done, err)
	}
	other := newEngine(t, nil)
	other.mustPull(g.host() + "/x:2")
	other.has(g.host()+"/x:2", "a", "b")
}

func TestPushRefused(t *testing.T) {
	g := newRegistry(t)
	e := newEngine(t, nil)
	e.load(g.host()+"/x:1", "a")
	for _, c := range []struct{ name, want string }{
		{g.host() + "/y", "An image does not exist locally with the tag: " + g.host() + "/y"},
		{g.host() + "/x:2", "tag does not exist: " + g.host() + "/x:2"},
		{g.host() + "/x@" + string(digest.FromString("x")), "cannot push a digest reference"},
	} {
		if _, _, err := e.push(c.name, nil); err == nil || err.Error() != c.want {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	g.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut || r.Method == http.MethodPost {
			refuse(w, http.StatusForbidden, "DENIED")
			return true
		}
		return false
	})
	_, lines, err := e.push(g.host()+"/x:1", nil)
	if !fault.Is(err, fault.Forbidden) {
		t.Errorf("denied: %v", err)
	}
	for _, l := range lines {
		if strings.Contains(l, "digest:") {
			t.Errorf("the client was told %q", l)
		}
	}
}

// A layer that its author does not let others hand on stays where it is.
func TestPushLeavesForeignLayers(t *testing.T) {
	g, target := newRegistry(t), newRegistry(t)
	e := newEngine(t, nil)
	s := g.build("x", "1", ocispec.Platform{}, []string{"gzip"}, "a", "b")
	g.forge("1", s, func(m *ocispec.Manifest, _ *image.Document) {
		m.MediaType = typeDockerManifest
		m.Layers[0].MediaType = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
		m.Layers[0].URLs = []string{"https://layers.example.com/a"}
	})
	e.mustPull(g.host() + "/x:1")
	e.tag(g.host()+"/x:1", target.host()+"/x:1")
	_, lines, err := e.push(target.host()+"/x:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := short(s.diffIDs[0]) + ": Skipped foreign layer"; !slices.Contains(lines, want) {
		t.Errorf("%q is not in %q", want, lines)
	}
	if _, there := target.blobs["x@"+string(s.blobs[0].Digest)]; there {
		t.Error("the layer was pushed")
	}
}
