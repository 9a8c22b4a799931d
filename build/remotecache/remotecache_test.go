package remotecache

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/build/export"
)

// Every place carries what steps gave from one builder to another.
func TestPlaces(t *testing.T) {
	dir, host := t.TempDir(), newRegistry(t)
	_, url := newBucket(t)
	s3 := []string{"bucket=b", "region=r", "endpoint_url=" + url, "use_path_style=true", "access_key_id=id", "secret_access_key=secret", "name=n;m", "prefix=p/"}
	for _, c := range []struct {
		kind string
		to   []string
		from []string
	}{
		{"registry", []string{"ref=" + host + "/cache:1"}, []string{"ref=" + host + "/cache:1"}},
		{"registry", []string{"ref=" + host + "/index", "image-manifest=false", "compression=zstd"}, []string{"ref=" + host + "/index:latest"}},
		{"local", []string{"dest=" + dir}, []string{"src=" + dir}},
		{"s3", s3, append(slices.Clone(s3), "name=m")},
	} {
		t.Run(c.kind, func(t *testing.T) {
			one, two := newEngine(t, dir), newEngine(t, dir)
			b := one.build("first", "second", "third")
			resp := one.export(request(c.kind, append(c.to, "mode=max")...), b)
			if c.kind != "s3" {
				var d ocispec.Descriptor
				if err := json.Unmarshal([]byte(resp["cache.manifest"]), &d); err != nil || d.Digest.Validate() != nil {
					t.Fatalf("%v, %v", resp, err)
				}
				c.from = append(c.from, "digest="+string(d.Digest))
			}
			two.check(request(c.kind, c.from...), "third", b.last.Chain(), true)
			two.check(request(c.kind, c.from...), "first", b.last.Chain()[:1], true)
		})
	}
}

// mode=min has the data of results, and still tells what every step gave.
func TestModeMin(t *testing.T) {
	host := newRegistry(t)
	one, two := newEngine(t, t.TempDir()), newEngine(t, t.TempDir())
	b, other := one.build("first", "second"), one.build("elsewhere")
	b.steps = append(b.steps, other.steps...)
	one.export(request("registry", "ref="+host+"/c"), b)
	two.check(request("registry", "ref="+host+"/c"), "second", b.last.Chain(), true)
	two.check(request("registry", "ref="+host+"/c"), "elsewhere", other.last.Chain(), false)
}

// Of a step with several outputs often only one is part of the result and exported. It can be had, and the others not.
func TestOneOfSeveralOutputs(t *testing.T) {
	host := newRegistry(t)
	one, two := newEngine(t, t.TempDir()), newEngine(t, t.TempDir())
	b, root := one.build("made"), one.build("root")
	b.steps[0].Chains = [][]digest.Digest{root.last.Chain(), b.last.Chain()}
	one.export(request("registry", "ref="+host+"/c"), b)
	r, err := two.Import(t.Context(), request("registry", "ref="+host+"/c"), two.client)
	if err != nil {
		t.Fatal(err)
	}
	f, err := r.Lookup(t.Context(), keyOf("made"))
	if err != nil || f.Provide == nil {
		t.Fatalf("%+v, %v", f, err)
	}
	if err := f.Provide(t.Context(), 0); err == nil {
		t.Error("an output is there that was not exported")
	}
	if err := f.Provide(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	two.images.Layers().Release(b.last.Chain()...)
}

// A build that found everything in a cache has no layers here, and its export keeps those that lie there.
func TestExportOfWhatIsNotHere(t *testing.T) {
	host := newRegistry(t)
	one, two, three := newEngine(t, t.TempDir()), newEngine(t, t.TempDir()), newEngine(t, t.TempDir())
	b := one.build("first", "second")
	one.export(request("registry", "ref="+host+"/c", "mode=max"), b)
	ghost := &built{steps: b.steps, last: two.snaps.Promise(b.last.Chain(), nil)}
	two.export(request("registry", "ref="+host+"/c", "mode=max"), ghost)
	three.check(request("registry", "ref="+host+"/c"), "second", b.last.Chain(), true)
}

func TestInline(t *testing.T) {
	host := newRegistry(t)
	one, two := newEngine(t, t.TempDir()), newEngine(t, t.TempDir())
	b := one.build("first", "second")
	target, err := one.Target(request("inline"))
	if err != nil || !target.Inline() {
		t.Fatal(target, err)
	}
	out, err := one.cfg.Export.Resolve(export.Request{Type: export.Image, Attrs: map[string]string{"name": host + "/app:1", "push": "true"}})
	if err != nil {
		t.Fatal(err)
	}
	third := one.build("third")
	for _, several := range []bool{false, true} {
		res := &export.Result{}
		if res.SetRef(b); several {
			res.Ref = nil
			res.AddRef("linux/amd64", b)
			res.AddRef("linux/arm64", third)
			res.AddMeta(exptypes.ExporterPlatformsKey, []byte(`{"Platforms":[{"ID":"linux/amd64","Platform":{"os":"linux","architecture":"amd64"}},{"ID":"linux/arm64","Platform":{"os":"linux","architecture":"arm64"}}]}`))
		}
		if _, err := out.Export(t.Context(), res, &export.Run{Session: one.client, InlineCache: one.InlineCache}); err != nil {
			t.Fatal(err)
		}
		two.check(request("registry", "ref="+host+"/app:1"), "second", b.last.Chain(), true)
		two.check(request("registry", "ref="+host+"/app:1"), "first", b.last.Chain()[:1], true)
	}
	two.check(request("registry", "ref="+host+"/app:1"), "third", third.last.Chain(), true)
	if _, err := two.Import(t.Context(), request("registry", "ref="+host+"/nothing"), two.client); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

// Cache mounts go along where they are asked for, within their scope and their size.
func TestCacheMounts(t *testing.T) {
	host := newRegistry(t)
	one, two := newEngine(t, t.TempDir()), newEngine(t, t.TempDir())
	b := one.build("go", "apt")
	based := "cache-of-apt:" + string(digest.FromString("base"))
	one.mounts.put("cache-of-go", "a", "compiled")
	one.mounts.put(based, "b", "packages")
	one.mounts.put("cache-of-others", "c", "not this build's")
	ref := "ref=" + host + "/c"
	one.export(request("registry", ref, "mounts=true", "scope=main"), b)
	one.mounts.put("cache-of-go", "a", "from a pull request")
	one.export(request("registry", ref, "mounts=cache-of-go", "scope=pr-1"), b)

	read := func(key, name string) string {
		raw, _ := os.ReadFile(filepath.Join(two.mounts.dirs[key], name))
		return string(raw)
	}
	if _, err := two.Import(t.Context(), request("registry", ref), two.client); err != nil || len(two.mounts.dirs) != 0 {
		t.Errorf("%v, %v", two.mounts.dirs, err)
	}
	if _, err := two.Import(t.Context(), request("registry", ref, "mounts=true"), two.client); err != nil || len(two.mounts.dirs) != 0 {
		t.Errorf("other scopes: %v, %v", two.mounts.dirs, err)
	}
	if _, err := two.Import(t.Context(), request("registry", ref, "mounts=true", "scope=main"), two.client); err != nil {
		t.Fatal(err)
	}
	if len(two.mounts.dirs) != 2 || read("cache-of-go", "a") != "compiled" || read(based, "b") != "packages" {
		t.Errorf("%v", two.mounts.dirs)
	}
	clear(two.mounts.dirs)
	if _, err := two.Import(t.Context(), request("registry", ref, "mounts=true", "scope=pr-1;main"), two.client); err != nil || read("cache-of-go", "a") != "from a pull request" || len(two.mounts.dirs) != 2 {
		t.Errorf("%v, %v", two.mounts.dirs, err)
	}
	clear(two.mounts.dirs)
	one.export(request("registry", "ref="+host+"/small", "mounts=true", "mounts-max=10b", "scope=main"), b)
	if _, err := two.Import(t.Context(), request("registry", "ref="+host+"/small", "mounts=true", "scope=main"), two.client); err != nil || len(two.mounts.dirs) != 0 {
		t.Errorf("%v, %v", two.mounts.dirs, err)
	}
}

// What lies there may be anybody's: a blob that is not the layer is refused, and nothing of it stays.
func TestForgedBlob(t *testing.T) {
	b, url := newBucket(t)
	attrs := []string{"bucket=b", "region=r", "endpoint_url=" + url, "use_path_style=true", "access_key_id=id", "secret_access_key=secret"}
	one, two := newEngine(t, t.TempDir()), newEngine(t, t.TempDir())
	x, y := one.build("good"), one.build("evil")
	one.export(request("s3", append(attrs, "name=x")...), x)
	one.export(request("s3", append(attrs, "name=y")...), y)
	var blobs []string
	for k := range b.objects {
		if strings.Contains(k, "/blobs/") {
			blobs = append(blobs, k)
		}
	}
	b.objects[blobs[0]], b.objects[blobs[1]] = b.objects[blobs[1]], b.objects[blobs[0]]
	for name, ref := range map[string]*built{"good": x, "evil": y} {
		for _, n := range []string{"x", "y"} {
			r, err := two.Import(t.Context(), request("s3", append(attrs, "name="+n)...), two.client)
			if err != nil {
				t.Fatal(err)
			}
			f, err := r.Lookup(t.Context(), keyOf(name))
			if err != nil {
				continue
			}
			if err := f.Provide(t.Context(), 0); err == nil || two.images.Layers().Has(ref.last.Chain()[0]) {
				t.Errorf("%s: a forged blob is taken: %v", name, err)
			}
		}
	}
}

// A place may have been cleaned: what is gone is not promised, and the rest still is.
func TestLostBlob(t *testing.T) {
	b, url := newBucket(t)
	attrs := []string{"bucket=b", "region=r", "endpoint_url=" + url, "use_path_style=true", "access_key_id=id", "secret_access_key=secret", "mode=max"}
	one, two := newEngine(t, t.TempDir()), newEngine(t, t.TempDir())
	x := one.build("first", "second")
	one.export(request("s3", attrs...), x)
	top, _, err := one.cfg.Export.Carrier(nil, true, false)
	if err != nil {
		t.Fatal(err)
	}
	desc, _ := top.Known(x.last.Chain()[1])
	delete(b.objects, "/b/blobs/"+string(desc.Digest))
	two.check(request("s3", attrs...), "second", x.last.Chain(), false)
	two.check(request("s3", attrs...), "first", x.last.Chain()[:1], true)
}

func TestWhichMounts(t *testing.T) {
	for _, c := range []struct {
		mounts, id string
		want       bool
	}{
		{"true", "/go", true}, {"false", "/go", false}, {"go", "/go", true}, {"/go", "/go", true}, {"go;apt", "ns/apt", true}, {"go", "/cargo", false},
		{"/root/.cache", "//root/.cache", true}, {"x", "x", true},
	} {
		w := words{mounts: parseMounts(c.mounts)}
		if got := w.takesMount(c.id); got != c.want {
			t.Errorf("mounts=%s takes %s: %v", c.mounts, c.id, got)
		}
	}
}

func TestSecondExportSendsNothing(t *testing.T) {
	b, url := newBucket(t)
	attrs := []string{"bucket=b", "region=r", "endpoint_url=" + url, "use_path_style=true", "access_key_id=id", "secret_access_key=secret"}
	e := newEngine(t, t.TempDir())
	x := e.build("a", "b")
	e.export(request("s3", append(attrs, "mode=max")...), x)
	first := b.puts
	e.export(request("s3", append(attrs, "mode=max")...), x)
	if first != 3 || b.puts != first+1 {
		t.Errorf("%d objects, and then %d", first, b.puts)
	}
}

func TestWhatMeansNothingIsRefused(t *testing.T) {
	c := New(Config{Export: export.New(export.Config{})})
	for _, req := range []Request{
		request("gha"), request("azblob"), request("ftp"), request("registry"), request("registry", "ref=UPPER"), request("registry", "ref=a", "mode=some"), request("local"),
		request("registry", "ref=a", "image-manifest=true", "oci-mediatypes=false"), request("s3"), request("s3", "bucket=b"), request("registry", "ref=a", "compression=rar"),
		request("registry", "ref=a", "scope=../x"), request("registry", "ref=a", "mounts-max=lots"), request("registry", "ref=a", "ignore-error=perhaps"),
	} {
		if _, err := c.Target(req); err == nil {
			t.Errorf("%v is taken", req)
		} else if fault.KindOf(err) != fault.Invalid {
			t.Errorf("%v: %v", req, err)
		}
	}
	if _, err := c.Target(request("gha")); !strings.Contains(err.Error(), "gha is not supported") {
		t.Error(err)
	}
}

func FuzzTable(f *testing.F) {
	b := newBuilder()
	b.record(record{Keys: []digest.Digest{keyOf("a")}, Name: "a"}, [][]digest.Digest{{keyOf("l1"), keyOf("l2")}, nil, {}})
	doc := &document{Berth: &b.t, Layers: []layer{{Blob: keyOf("b"), Parent: -1, Annotations: &layerAnnotations{DiffID: keyOf("l1"), Size: 1}}}}
	raw, _ := json.Marshal(doc)
	f.Add(raw)
	f.Add([]byte(`{"berth":{"version":1,"chains":[{"parent":0}],"records":[{"outputs":[7]}]}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		doc, err := parseDocument(raw)
		if err != nil {
			return
		}
		for _, r := range doc.Berth.Records {
			for _, o := range r.Outputs {
				if _, err := doc.Berth.chain(o); err != nil {
					t.Log(err)
				}
			}
		}
		other, _ := parseDocument(raw)
		doc.join(other)
		if err := doc.check(); err != nil {
			t.Error(err)
		}
		doc.descriptors()
	})
}
