package transfer

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/base/ref"
	"berth/image"
	"berth/image/remote"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares a printed plan with testdata/NAME; the registry's address is not in it.
func (g *registry) golden(name string, write func(*bytes.Buffer) error) {
	g.t.Helper()
	var b bytes.Buffer
	if err := write(&b); err != nil {
		g.t.Fatal(err)
	}
	got := strings.ReplaceAll(b.String(), g.host(), "registry.test")
	path := filepath.Join("testdata", name)
	if *update {
		os.MkdirAll("testdata", 0o755)
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			g.t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		g.t.Fatal(err)
	}
	if got != string(want) {
		g.t.Errorf("%s:\n got:\n%s\nwant:\n%s", name, got, want)
	}
}

func (e *engine) planPull(name string, change func(*PullRequest)) *PullPlan {
	e.t.Helper()
	n, err := ref.Parse(name)
	if err != nil {
		e.t.Fatal(err)
	}
	req := PullRequest{Name: n}
	if change != nil {
		change(&req)
	}
	p, err := e.PlanPull(ctx, req)
	if err != nil {
		e.t.Fatal(err)
	}
	return p
}

func TestPullSpeaksDocker(t *testing.T) {
	g := newRegistry(t)
	e := newEngine(t, nil)
	s := g.build("team/web", "1", ocispec.Platform{}, []string{"gzip", "zstd", "tar"}, "a", "b", "c", "a")
	name := g.host() + "/team/web:1"
	done, lines, err := e.pull(name, nil)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	want = append(want, "1: Pulling from team/web")
	for _, b := range s.blobs[:3] {
		for _, w := range []string{"Pulling fs layer", "Verifying Checksum", "Download complete", "Extracting", "Pull complete"} {
			want = append(want, short(b.Digest)+": "+w)
		}
	}
	want = append(want, "Digest: "+string(s.digest), "Status: Downloaded newer image for "+name)
	same(t, "stream", lines, want)
	e.has(name, "a", "b", "c", "a")
	if img := done.Images[0]; img.ID != s.id || img.Digest != s.digest || img.UpToDate {
		t.Errorf("pulled %+v", img)
	}
	img, err := e.images.Resolve(name)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "digests", img.RepoDigests, []string{g.host() + "/team/web@" + string(s.digest)})
	same(t, "events", e.events, []string{"pull " + name})
	for i, d := range s.diffIDs {
		src := e.images.Sources(d)
		if len(src) != 1 || src[0].Repository != g.host()+"/team/web" || src[0].Descriptor.Digest != s.blobs[i].Digest {
			t.Errorf("layer %d has the sources %+v", i, src)
		}
	}
	if got := e.rooms(); got != "layers 3 staged 0 blobs 2 half 0 trash 0" {
		t.Error(got)
	}

	g.asked()
	done, lines, err = e.pull(name, nil)
	if err != nil || !done.Images[0].UpToDate {
		t.Fatal(done, err)
	}
	same(t, "again", lines, []string{"1: Pulling from team/web", "Digest: " + string(s.digest), "Status: Image is up to date for " + name})
	same(t, "requests for what is up to date", g.asked(), []string{"HEAD team/web manifests 1"})
}

func TestPullTakesOnlyWhatIsMissing(t *testing.T) {
	g := newRegistry(t)
	e := newEngine(t, nil)
	g.build("x", "1", ocispec.Platform{}, nil, "base", "one")
	s := g.build("y", "2", ocispec.Platform{}, nil, "base", "two")
	e.mustPull(g.host() + "/x:1")
	g.asked()
	_, lines, err := e.pull(g.host()+"/y:2", nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := short(s.blobs[0].Digest) + ": Already exists"; !slices.Contains(lines, want) {
		t.Errorf("%q is not in %q", want, lines)
	}
	same(t, "requests", g.asked(), []string{"GET y manifests 2", "GET y blobs " + s.id.Encoded(), "GET y blobs " + s.blobs[1].Digest.Encoded()})
	e.has(g.host()+"/y:2", "base", "two")
	if src := e.images.Sources(s.diffIDs[0]); len(src) != 2 {
		t.Errorf("the shared layer has the sources %+v", src)
	}
}

func TestPullByDigestAndMovedTag(t *testing.T) {
	g := newRegistry(t)
	e := newEngine(t, nil)
	old := g.build("x", "latest", ocispec.Platform{}, nil, "old")
	e.mustPull(g.host() + "/x")
	s := g.build("x", "latest", ocispec.Platform{}, nil, "new")
	done, lines, err := e.pull(g.host()+"/x", nil)
	if err != nil || done.Images[0].ID != s.id || done.Images[0].UpToDate {
		t.Fatal(done, err)
	}
	if last := lines[len(lines)-1]; last != "Status: Downloaded newer image for "+g.host()+"/x:latest" {
		t.Error(last)
	}
	by := g.host() + "/x@" + string(old.digest)
	_, lines, err = e.pull(g.host()+"/x:latest@"+string(old.digest), nil)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "by digest", lines, []string{string(old.digest) + ": Pulling from x", "Digest: " + string(old.digest), "Status: Image is up to date for " + by})
	img, err := e.images.Resolve(by)
	if err != nil || img.ID != string(old.id) {
		t.Error(img, err)
	}
}

var arm64 = ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}
var amd64 = ocispec.Platform{OS: "linux", Architecture: "amd64"}

// multi builds an image for two platforms, the second in an index of its own, with an attestation of the first.
func (g *registry) multi(repo, tag string) (a, b sample, root ocispec.Descriptor, att ocispec.Descriptor) {
	a = g.build(repo, "", amd64, []string{"tar"}, "common", "amd")
	b = g.build(repo, "", arm64, []string{"tar"}, "common", "arm")
	statement := []byte(`{"_type":"https://in-toto.io/Statement/v0.1"}`)
	sd := g.putBlob(repo, statement)
	config := []byte(`{"architecture":"unknown","os":"unknown","config":{},"rootfs":{"type":"layers","diff_ids":["` + string(sd) + `"]}}`)
	cd := g.putBlob(repo, config)
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: cd, Size: int64(len(config))},
		Layers: []ocispec.Descriptor{{MediaType: "application/vnd.in-toto+json", Digest: sd, Size: int64(len(statement))}}}
	m.SchemaVersion = 2
	raw, _ := json.Marshal(m)
	att = ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.Digest(g.put(repo, "", m.MediaType, raw)), Size: int64(len(raw)),
		Platform:    &ocispec.Platform{OS: "unknown", Architecture: "unknown"},
		Annotations: map[string]string{annotationReferenceType: attestationManifest, annotationReferenceDigest: string(a.digest)}}
	inner := g.index(repo, "", b.descriptor(&arm64))
	root = g.index(repo, tag, a.descriptor(&amd64), inner, att)
	return a, b, root, att
}

func TestPullChoosesThePlatform(t *testing.T) {
	g := newRegistry(t)
	e := newEngine(t, nil)
	a, b, root, att := g.multi("m", "latest")
	name := g.host() + "/m"
	on := func(p string) func(*PullRequest) {
		return func(r *PullRequest) {
			at, err := image.ParsePlatform(p)
			if err != nil {
				t.Fatal(err)
			}
			r.Platform = &at
		}
	}
	if done, _, err := e.pull(name, on("linux/amd64")); err != nil || done.Images[0].ID != a.id || done.Images[0].Digest != root.Digest {
		t.Fatal(done, err)
	}
	for _, d := range []digest.Digest{a.digest, root.Digest, att.Digest} {
		if !e.images.Blobs().Has(d) {
			t.Errorf("%s is not kept", d)
		}
	}
	if done, _, err := e.pull(name, on("linux/arm64")); err != nil || done.Images[0].ID != b.id {
		t.Fatal(done, err)
	}
	for p, id := range map[string]digest.Digest{"linux/amd64": a.id, "linux/arm64": b.id} {
		at, _ := image.ParsePlatform(p)
		if img, err := e.images.ResolvePlatform(name, &at); err != nil || img.ID != string(id) {
			t.Errorf("%s: %v %v", p, img, err)
		}
	}
	_, _, err := e.pull(name, on("linux/riscv64"))
	if err == nil || err.Error() != "no matching manifest for linux/riscv64 in the manifest list entries" || !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	// A manifest alone is pulled whatever it is for, and that is said.
	single := g.build("single", "latest", amd64, nil, "s")
	done, lines, err := e.pull(g.host()+"/single", on("linux/arm64"))
	if err != nil || done.Images[0].ID != single.id {
		t.Fatal(err)
	}
	want := fmt.Sprintf("WARNING: image with reference %s/single:latest was found but its platform (linux/amd64) does not match the specified platform (linux/arm64)", g.host())
	if !slices.Contains(lines, want) && !slices.Contains(lines, strings.Replace(want, "linux/arm64)", "linux/arm64/v8)", 1)) {
		t.Errorf("%q is not in %q", want, lines)
	}
}

func TestPullPlanPrints(t *testing.T) {
	g := newRegistry(t)
	e := newEngine(t, func(c *Config) { c.Verify = verifier{rule: "accept every image of registry.test (line 3)"} })
	g.multi("m", "latest")
	at, _ := image.ParsePlatform("linux/amd64")
	on := func(r *PullRequest) { r.Platform = &at }
	plan := e.planPull(g.host()+"/m", on)
	g.golden("pull-fresh.txt", func(b *bytes.Buffer) error { return plan.Write(b) })
	if got := e.rooms(); got != "layers 0 staged 0 blobs 0 half 0 trash 0" {
		t.Errorf("planning has changed something: %s", got)
	}
	if _, err := e.ApplyPull(ctx, plan, nil); err != nil {
		t.Fatal(err)
	}
	other, _ := image.ParsePlatform("linux/arm64")
	plan = e.planPull(g.host()+"/m", func(r *PullRequest) { r.Platform = &other })
	g.golden("pull-second.txt", func(b *bytes.Buffer) error { return plan.Write(b) })
	plan = e.planPull(g.host()+"/m", on)
	g.golden("pull-uptodate.txt", func(b *bytes.Buffer) error { return plan.Write(b) })
}

// verifier is a policy of one rule.
type verifier struct {
	rule string
	no   error
}

func (v verifier) Rule(ref.Ref) string { return v.rule }
func (v verifier) Verify(context.Context, ref.Ref, ocispec.Descriptor, *remote.Repository) error {
	return v.no
}

func TestPullAsksThePolicyFirst(t *testing.T) {
	g := newRegistry(t)
	e := newEngine(t, func(c *Config) { c.Verify = verifier{no: fault.New(fault.Forbidden, "rule 1: reject")} })
	g.build("x", "1", ocispec.Platform{}, nil, "a")
	_, _, err := e.pull(g.host()+"/x:1", nil)
	if !fault.Is(err, fault.Forbidden) {
		t.Error(err)
	}
	if got := e.rooms(); got != "layers 0 staged 0 blobs 0 half 0 trash 0" || e.images.Count() != 0 {
		t.Error(got)
	}
}

func TestPullAllTags(t *testing.T) {
	g := newRegistry(t)
	e := newEngine(t, nil)
	g.build("x", "1", ocispec.Platform{}, nil, "a")
	g.build("x", "2", ocispec.Platform{}, nil, "a", "b")
	chart := g.build("x", "chart", ocispec.Platform{}, nil, "c")
	raw := bytes.Replace(chart.manifest, []byte(ocispec.MediaTypeImageConfig), []byte(typeHelmConfig), 1)
	g.put("x", "chart", ocispec.MediaTypeImageManifest, raw)
	done, lines, err := e.pull(g.host()+"/x", func(r *PullRequest) { r.AllTags = true })
	if err != nil || len(done.Images) != 2 {
		t.Fatal(done, err)
	}
	for _, want := range []string{"1: Pulling from x", "2: Pulling from x", "Status: Downloaded newer image for " + g.host() + "/x",
		`chart: Skipped: Encountered remote "application/vnd.cncf.helm.config.v1+json"(helm chart) when fetching`} {
		if !slices.Contains(lines, want) {
			t.Errorf("%q is not in %q", want, lines)
		}
	}
	e.has(g.host()+"/x:2", "a", "b")
}

// Pulls at the same time fetch each layer once; one that goes away takes nothing from the others.
func TestPullsShareTheWork(t *testing.T) {
	g := newRegistry(t)
	e := newEngine(t, func(c *Config) { c.MaxDownloads = 2 })
	s := g.build("x", "1", ocispec.Platform{}, nil, "a", "b", "c")
	g.build("y", "1", ocispec.Platform{}, nil, "b", "c", "d")
	gate := make(chan struct{})
	var fetched atomic.Int64
	begun := make(chan struct{}, 100)
	g.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/") && r.Method == http.MethodGet && !strings.HasSuffix(r.URL.Path, string(s.id)) && len(g.blobs[strings.Split(r.URL.Path, "/")[2]+"@"+digestOf(r)]) > 10000 {
			fetched.Add(1)
			begun <- struct{}{}
			<-gate
		}
		return false
	})
	var wg sync.WaitGroup
	errs := make([]error, 10)
	gone, leave := context.WithCancel(ctx)
	for i := range errs {
		wg.Go(func() {
			n, _ := ref.Parse(g.host() + []string{"/x:1", "/y:1"}[i%2])
			c := ctx
			if i < 2 { // the first ones to come, probably: they go away again
				c = gone
			} else {
				time.Sleep(10 * time.Millisecond)
			}
			_, errs[i] = e.Pull(c, PullRequest{Name: n})
		})
	}
	<-begun
	<-begun
	// All others are on the same flights by now, or come to them later: both must do.
	time.Sleep(50 * time.Millisecond)
	leave()
	close(gate)
	wg.Wait()
	for i, err := range errs {
		switch {
		case i < 2 && !fault.Is(err, fault.Cancelled):
			t.Errorf("pull %d, whose client went away: %v", i, err)
		case i >= 2 && err != nil:
			t.Errorf("pull %d: %v", i, err)
		}
	}
	if n := fetched.Load(); n != 4 {
		t.Errorf("%d layers were fetched, there are 4", n)
	}
	e.has(g.host()+"/x:1", "a", "b", "c")
	e.has(g.host()+"/y:1", "b", "c", "d")
	if len(e.flights) != 0 {
		t.Errorf("%d flights are left", len(e.flights))
	}
	if got := e.rooms(); !strings.HasPrefix(got, "layers 4 staged 0") {
		t.Error(got)
	}
}

func digestOf(r *http.Request) string {
	return r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
}

func TestPullGivenUpLeavesNothing(t *testing.T) {
	g := newRegistry(t)
	e := newEngine(t, nil)
	s := g.build("x", "1", ocispec.Platform{}, nil, "a", "b")
	c, cancel := context.WithCancel(ctx)
	g.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if digestOf(r) == string(s.blobs[1].Digest) {
			b := g.blobs["x@"+digestOf(r)]
			w.Header().Set("Content-Length", fmt.Sprint(len(b)))
			w.Write(b[:len(b)/2])
			w.(http.Flusher).Flush()
			cancel()
			<-r.Context().Done()
			return true
		}
		return false
	})
	n, _ := ref.Parse(g.host() + "/x:1")
	if _, err := e.Pull(c, PullRequest{Name: n}); !fault.Is(err, fault.Cancelled) {
		t.Error(err)
	}
	if got := e.rooms(); got != "layers 0 staged 0 blobs 0 half 0 trash 0" || len(e.flights) != 0 {
		t.Error(got, len(e.flights))
	}
}

func TestPullKeepsBlobs(t *testing.T) {
	g := newRegistry(t)
	e := newEngine(t, func(c *Config) { c.KeepBlobs = true })
	s := g.build("x", "1", ocispec.Platform{}, []string{"gzip", "zstd"}, "a", "b")
	e.mustPull(g.host() + "/x:1")
	for _, b := range s.blobs {
		if !e.images.Blobs().Has(b.Digest) {
			t.Errorf("blob %s is not kept", b.Digest)
		}
	}
	if _, err := e.images.Remove(ctx, g.host()+"/x:1", image.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := e.rooms(); got != "layers 0 staged 0 blobs 0 half 0 trash 0" {
		t.Error(got)
	}
}

func TestPullUsesTheCopyWhenTheRegistryIsDown(t *testing.T) {
	t.Parallel() // the client waits and asks again
	g := newRegistry(t)
	e := newEngine(t, nil)
	s := g.build("x", "1", ocispec.Platform{}, nil, "a")
	name := g.host() + "/x:1"
	e.mustPull(name)
	g.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/v2/" {
			return false
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	if _, _, err := e.pull(name, nil); !fault.Is(err, fault.Unavailable) {
		t.Errorf("without permission: %v", err)
	}
	done, lines, err := e.pull(name, func(r *PullRequest) { r.StaleIfError = true })
	if err != nil {
		t.Fatal(err)
	}
	if img := done.Images[0]; img.ID != s.id || img.Stale == 0 {
		t.Errorf("%+v", img)
	}
	last := lines[len(lines)-1]
	if !strings.HasPrefix(last, "Status: Using the existing image for "+name+", which is ") || !strings.Contains(last, " old: the registry cannot be asked") {
		t.Error(last)
	}
	if len(lines) < 3 || !strings.HasPrefix(lines[1], "WARNING: ") {
		t.Errorf("%q", lines)
	}
	// The registry gives the manifest of a newer image, but not its layers.
	newer := g.build("x", "1", ocispec.Platform{}, nil, "b")
	g.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if digestOf(r) != string(newer.blobs[0].Digest) {
			return false
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	done, lines, err = e.pull(name, func(r *PullRequest) { r.StaleIfError = true })
	if err != nil || done.Images[0].ID != s.id || done.Images[0].Stale == 0 {
		t.Fatalf("%+v %v %q", done, err, lines)
	}
	e.has(name, "a")
	g.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/v2/" {
			return false
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	if _, _, err := e.pull(g.host()+"/other:1", func(r *PullRequest) { r.StaleIfError = true }); !fault.Is(err, fault.Unavailable) {
		t.Errorf("of what is not here: %v", err)
	}
}

func TestPlanOfWhatCannotBeAsked(t *testing.T) {
	n, _ := ref.Parse("docker.io/team/web:1")
	tagged, _ := n.WithTag("sig")
	p := &PullPlan{Name: n, Images: []*PullImage{{Name: n, Stale: &Stale{ID: digest.FromString("x"), Age: 3 * time.Hour, Err: fault.New(fault.Unavailable, "Get \"https://registry-1.docker.io/v2/\": dial tcp: i/o timeout")}}}}
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	want := `pull docker.io/team/web:1
  use the copy of team/web:1 that is here: image sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881, 3 hours old
    because the registry cannot be asked: Get "https://registry-1.docker.io/v2/": dial tcp: i/o timeout
`
	if b.String() != want {
		t.Errorf("got\n%s", b.String())
	}
	n.Tag = ""
	p = &PullPlan{Name: n, AllTags: true, Skipped: []SkippedTag{{tagged.Tag, fault.New(fault.Invalid, "Encountered remote %q(unknown) when fetching", "application/vnd.x")}}}
	b.Reset()
	p.Write(&b)
	want = "pull all 1 tags of docker.io/team/web\n  skip sig: Encountered remote \"application/vnd.x\"(unknown) when fetching\n"
	if b.String() != want {
		t.Errorf("got\n%s", b.String())
	}
}
