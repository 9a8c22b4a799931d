package server

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/base/removal"
	"berth/image"
)

// album stands for the image store: one image, "busybox:1.36".
type album struct {
	img   *image.Image
	calls []string
	fail  error
	late  bool // fail after the first output
	data  string
	parts []image.Manifest

	checkup *image.Checkup
	blobs   map[digest.Digest]string
}

func newAlbum() *album {
	created := at
	return &album{img: &image.Image{
		ID: "sha256:" + webID, RepoTags: []string{"busybox:1.36"}, RepoDigests: []string{}, Parent: "", Created: created, Size: 1000, Tagged: at,
		Layers:   []digest.Digest{digest.FromString("layer")},
		Manifest: &image.Descriptor{MediaType: "application/vnd.oci.image.manifest.v1+json", Digest: digest.FromString("manifest"), Size: 500},
		Config: &image.Document{
			Created: &created, Platform: image.Platform{OS: "linux", Architecture: "amd64"}, RootFS: image.RootFS{Type: "layers"},
			Config: image.RunConfig{Cmd: []string{"sh"}, Env: []string{"PATH=/bin"}, Labels: map[string]string{"a": "b"}, Healthcheck: &image.Healthcheck{Test: []string{"CMD", "true"}}},
		},
	}}
}

func (a *album) note(verb string, args ...any) error {
	text := verb
	for _, x := range args {
		b, _ := json.Marshal(x)
		text += " " + string(b)
	}
	a.calls = append(a.calls, text)
	return a.fail
}

func (a *album) Resolve(name string) (*image.Image, error) {
	if name != "busybox" && name != "busybox:1.36" && name != a.img.ID && name != "library/busybox" {
		return nil, fault.New(fault.NotFound, "No such image: %s:latest", name)
	}
	return a.img, nil
}
func (a *album) List(_ context.Context, o image.ListOptions) ([]image.Summary, error) {
	s := image.Summary{Image: a.img, SharedSize: -1, Containers: -1}
	if o.SharedSize {
		s.SharedSize = 10
	}
	if o.Containers {
		s.Containers = 2
	}
	if o.Manifests {
		s.Manifests = a.parts
	}
	return []image.Summary{s}, a.note("list", o)
}
func (a *album) ResolvePlatform(name string, p *image.Platform) (*image.Image, error) {
	if p != nil && p.Architecture != "amd64" {
		return nil, fault.New(fault.NotFound, "image with reference %s was found but does not provide the specified platform (%s)", name, p)
	}
	return a.Resolve(name)
}
func (a *album) Manifests(name string) ([]image.Manifest, error) {
	if _, err := a.Resolve(name); err != nil {
		return nil, err
	}
	return a.parts, nil
}
func (a *album) OpenBlob(_ context.Context, d digest.Digest) (io.ReadCloser, int64, error) {
	text, ok := a.blobs[d]
	if !ok {
		return nil, 0, fault.New(fault.NotFound, "no blob %s", d)
	}
	return io.NopCloser(strings.NewReader(text)), int64(len(text)), nil
}
func (a *album) Sources(digest.Digest) []image.Source {
	return []image.Source{{Repository: "docker.io/library/busybox", Descriptor: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromString("blob"), Size: 7}}}
}
func (a *album) HistoryFor(name string, p *image.Platform) ([]image.Step, error) {
	img, err := a.ResolvePlatform(name, p)
	if err != nil {
		return nil, err
	}
	name = img.ID

	return []image.Step{{ID: name, Created: at, CreatedBy: "make", Tags: []string{"busybox:1.36"}, Size: 5, Comment: "c"}, {ID: "<missing>", Created: time.Time{}}}, a.note("history", name)
}
func (a *album) Tag(name, newName string) error { return a.note("tag", name, newName) }
func (a *album) Remove(_ context.Context, name string, o image.RemoveOptions) ([]image.Removed, error) {
	return []image.Removed{{Untagged: "busybox:1.36"}, {Deleted: a.img.ID}}, a.note("remove", name, o)
}
func (a *album) PlanPruneWithout(f image.Filters, gone func(string) bool) (*removal.Plan, error) {
	why := "no container uses it"
	if gone != nil && gone(webID) {
		why = "nor will container web"
	}
	return &removal.Plan{Version: removal.Version, Remove: []removal.Item{{Kind: removal.Image, ID: a.img.ID, Name: "idle:1", Look: "idle", Size: 7, Why: why}}, Spare: []removal.Item{}, Reclaimable: 7}, a.note("plan", f)
}

func (a *album) ApplyPrune(_ context.Context, p *removal.Plan) (image.PruneReport, error) {
	return image.PruneReport{Reclaimed: 9}, a.note("prune", len(removal.Of(p.Remove, removal.Image)))
}
func (a *album) Count() int { return 1 }
func (a *album) DiskUsage(context.Context) (*image.DiskUsage, error) {
	parent := *a.img
	parent.ID, parent.RepoTags, parent.Manifest = "sha256:"+strings.Repeat("0", 64), nil, nil
	child := *a.img
	child.Parent = parent.ID
	return &image.DiskUsage{
		Images: []image.ImageUsage{{Image: &child, TotalSize: 1000, SharedSize: 10, UniqueSize: 990, Containers: []string{webID}}, {Image: &parent, TotalSize: 10, SharedSize: 10}},
		Layers: image.Space{Count: 1, Size: 900}, Documents: image.Space{Count: 3, Size: 60}, Kept: image.Space{Count: 1, Size: 30}, Reclaimable: 5,
	}, a.fail
}
func (a *album) Check(context.Context) (*image.Checkup, error) { return a.checkup, a.note("check") }
func (a *album) Repair(ctx context.Context, c *image.Checkup, fetch image.Fetch) error {
	for i := range c.Damages {
		d := &c.Damages[i]
		if len(d.Sources) == 0 {
			d.Failed = "no source is known"
			continue
		}
		r, err := fetch(ctx, d.Sources[0])
		if err != nil {
			d.Failed = err.Error()
			continue
		}
		b, _ := io.ReadAll(r)
		r.Close()
		if digest.FromBytes(b) != d.Sources[0].Descriptor.Digest {
			d.Failed = "other content"
			continue
		}
		d.Repaired, d.From = true, d.Sources[0].Repository
	}
	return a.note("repair")
}
func (a *album) Load(_ context.Context, r io.Reader, o image.LoadOptions) ([]image.Loaded, error) {
	b, _ := io.ReadAll(r)
	a.data = string(b)
	if o.Progress != nil {
		o.Progress(image.Progress{ID: "abc", Action: "Loading layer", Current: 1, Total: 2})
	}
	return []image.Loaded{{ID: a.img.ID, Name: "busybox:1.36"}}, a.note("load", o.Platforms)
}
func (a *album) Import(_ context.Context, r io.Reader, o image.ImportOptions) (string, error) {
	b, _ := io.ReadAll(r)
	a.data = string(b)
	return a.img.ID, a.note("import", o)
}
func (a *album) SaveWith(_ context.Context, w io.Writer, names []string, o image.SaveOptions) error {
	if a.fail == nil || a.late {
		fmt.Fprint(w, "tar bytes")
	}
	return a.note("save", names, o.Platforms)
}

func TestImageRequests(t *testing.T) {
	for _, tt := range []struct {
		method, path, body string
		code               int
		has, verb          string
		fail               error
	}{
		{method: "GET", path: "/images/json", code: 200, has: `"Containers":2`, verb: `list {"All":false,"Filters":null,"SharedSize":false,"Containers":true,"Manifests":false}`},
		{method: "GET", path: "/v1.43/images/json?all=1&shared-size=1", code: 200, has: `"VirtualSize":1000`},
		{method: "GET", path: "/v1.24/images/json?filter=busy*", code: 200, has: `"Containers":-1`, verb: `list {"All":false,"Filters":{"reference":["busy*"]},"SharedSize":false,"Containers":false,"Manifests":false}`},
		{method: "GET", path: "/images/json?filters=" + q(`{"foo":["x"]}`), code: 400, has: "invalid filter 'foo'"},
		{method: "GET", path: "/images/json?identity=1", code: 400, has: "identity requires manifests=1"},
		{method: "GET", path: "/images/library/busybox/json", code: 200, has: `"Id":"sha256:` + webID + `"`},
		{method: "GET", path: "/images/nope/json", code: 404, has: `{"message":"No such image: nope:latest"}`},
		{method: "GET", path: "/images/busybox/json?platform=" + q(`{"os":"linux","architecture":"arm64","variant":"v8"}`), code: 404, has: "does not provide the specified platform (linux/arm64"},
		{method: "GET", path: "/images/busybox/json?platform=x", code: 400, has: "failed to parse platform"},
		{method: "GET", path: "/images/busybox/json?platform=" + q(`{"os":"linux"}`), code: 400, has: "both OS and Architecture must be provided"},
		{method: "GET", path: "/images/busybox/json?platform=" + q(`{"variant":"x"}`), code: 400, has: "optional platform fields provided, but OS and Architecture are missing"},
		{method: "GET", path: "/images/busybox/json?manifests=1&platform=" + q(`{"os":"linux","architecture":"amd64"}`), code: 400, has: "cannot both be set"},
		{method: "GET", path: "/v1.48/images/busybox/json?platform=x", code: 200},
		{method: "GET", path: "/images/busybox/history", code: 200, has: `{"Comment":"c","Created":1772600767,"CreatedBy":"make","Id":"sha256:` + webID + `","Size":5,"Tags":["busybox:1.36"]},{"Comment":"","Created":0,"CreatedBy":"","Id":"<missing>"`},
		{method: "POST", path: "/images/busybox/tag?repo=mine&tag=one", code: 201, verb: `tag "busybox" "docker.io/library/mine:one"`},
		{method: "POST", path: "/images/busybox/tag?repo=mine", code: 201, verb: `tag "busybox" "docker.io/library/mine:latest"`},
		{method: "POST", path: "/images/busybox/tag?repo=Xx", code: 400, has: "invalid reference format: repository name (library/Xx) must be lowercase"},
		{method: "POST", path: "/images/busybox/tag?repo=sha256", code: 400, has: "refusing to create an ambiguous tag"},
		{method: "POST", path: "/images/busybox/tag", code: 400, has: "the new name is missing"},
		{method: "DELETE", path: "/images/busybox?force=1&noprune=1", code: 200, has: `[{"Untagged":"busybox:1.36"},{"Deleted":"sha256:` + webID + `"}]`, verb: `remove "busybox" {"Force":true,"NoPrune":true,"ForGood":false,"Reason":"","Platforms":null}`},
		{method: "DELETE", path: "/images/busybox", fail: fault.New(fault.Conflict, "conflict: in use"), code: 409, has: "conflict: in use"},
		{method: "DELETE", path: "/images/busybox?platforms=x", code: 400, has: "failed to parse platform"},
		{method: "DELETE", path: "/v1.49/images/busybox?platforms=x", code: 200},
		{method: "DELETE", path: "/images/busybox?platforms=" + q(`{"os":"linux","architecture":"arm64"}`) + "&platforms=" + q(`{"os":"linux","architecture":"amd64"}`), code: 200,
			verb: `remove "busybox" {"Force":false,"NoPrune":false,"ForGood":false,"Reason":"","Platforms":[{"architecture":"arm64","os":"linux"},{"architecture":"amd64","os":"linux"}]}`},
		{method: "POST", path: "/images/prune?filters=" + q(`{"dangling":["false"]}`), code: 200, has: `{"ImagesDeleted":null,"SpaceReclaimed":9}`, verb: `plan {"dangling":["false"]}`},
		{method: "POST", path: "/images/create?fromImage=busybox&tag=1", code: 501, has: "pulling images is not in this build"},
		{method: "POST", path: "/images/create", code: 400, has: "fromSrc is missing"},
		{method: "POST", path: "/images/create?fromSrc=ftp://127.0.0.1/x", code: 500, has: "unsupported protocol scheme"},
		{method: "POST", path: "/images/create?fromSrc=%7f", code: 400, has: "invalid control character"},
		{method: "POST", path: "/images/create?fromSrc=-&repo=a/b&tag=c&changes=CMD%20x&changes=ENV%20y&message=m&platform=linux/arm64", body: "{tar", code: 200, has: `{"status":"sha256:` + webID + `"}`,
			verb: `import {"Ref":"docker.io/a/b:c","Changes":["CMD x","ENV y"],"Message":"m","Platform":"linux/arm64"}`},
		{method: "POST", path: "/images/create?fromSrc=-", body: "{tar", fail: fault.New(fault.Invalid, "no tar"), code: 400, has: `{"message":"no tar"}`},
		{method: "POST", path: "/images/load?quiet=1", body: "{tar", code: 200, has: `{"stream":"Loaded image: busybox:1.36\n"}`, verb: `load null`},
		{method: "POST", path: "/images/load?quiet=0", body: "{tar", code: 200, has: `{"status":"Loading layer","progressDetail":{"current":1,"total":2},"id":"abc"}` + "\r\n"},
		{method: "POST", path: "/images/load?quiet=0", body: "{tar", fail: fault.New(fault.Invalid, "broken"), code: 200, has: `{"errorDetail":{"message":"broken"},"error":"broken"}`},
		{method: "GET", path: "/images/get?names=busybox&names=other", code: 200, has: "tar bytes", verb: `save ["busybox","other"] null`},
		{method: "GET", path: "/images/library/busybox/get", code: 200, has: "tar bytes", verb: `save ["library/busybox"] null`},
		{method: "GET", path: "/images/get", code: 400, has: "names is missing"},
		{method: "GET", path: "/images/get?names=nope", fail: fault.New(fault.NotFound, "No such image: nope"), code: 404, has: `{"message":"No such image: nope"}`},
		{method: "GET", path: "/images/search?term=x", code: 501, has: "talking to registries is not in this build"},
		{method: "POST", path: "/images/a/b/push", code: 501},
		{method: "POST", path: "/auth", code: 501},
		{method: "GET", path: "/distribution/a/json", code: 501},
		{method: "GET", path: "/images/get?names=a&platform=" + q(`{"os":"linux","architecture":"arm64"}`), code: 200, verb: `save ["a"] [{"architecture":"arm64","os":"linux"}]`},
		{method: "GET", path: "/images/get?names=a&platform=" + q(`{"os":"linux","architecture":"arm64"}`) + "&platform=" + q(`{"os":"linux","architecture":"amd64"}`), code: 200,
			verb: `save ["a"] [{"architecture":"arm64","os":"linux"},{"architecture":"amd64","os":"linux"}]`},
		{method: "GET", path: "/v1.51/images/get?names=a&platform=x&platform=y", code: 400, has: "multiple platform parameters not supported"},
		{method: "GET", path: "/v1.47/images/get?names=a&platform=x", code: 200, verb: `save ["a"] null`},
		{method: "POST", path: "/images/load?platform=" + q(`{"os":"linux","architecture":"arm64"}`), body: "{tar", code: 200, verb: `load [{"architecture":"arm64","os":"linux"}]`},
		{method: "GET", path: "/images/busybox/attestations", code: 200, has: "[]\n"},
		{method: "GET", path: "/images/nope/attestations", code: 404},
		{method: "GET", path: "/images/busybox/attestations?platform=x", code: 400, has: "failed to parse platform"},
		{method: "GET", path: "/images/busybox/attestations?platform=x&platform=y", code: 400, has: "only one platform value is currently supported"},
		{method: "GET", path: "/berth/v1/images/library/busybox/sources", code: 200, has: `"sources":[{"repository":"docker.io/library/busybox","digest":"sha256:`},
		{method: "GET", path: "/system/df", code: 200, has: `"TotalSize":990`},
		{method: "GET", path: "/v1.52/system/df", code: 200, has: `"LayersSize":930`},
		{method: "GET", path: "/v1.52/system/df?verbose=1", code: 200, has: `"ImageUsage":{"ActiveCount":1,"Items":[{`},
		{method: "GET", path: "/system/df", code: 200, has: `"ImageUsage":{"ActiveCount":1,"Reclaimable":5,"TotalCount":1,"TotalSize":990}`},
		{method: "GET", path: "/v1.41/system/df", code: 200, has: `"BuildCache":[]`},
		{method: "GET", path: "/system/df?type=x", code: 400, has: "unknown object type: x"},
		{method: "GET", path: "/system/df?verbose=x", code: 400, has: "invalid value for verbose: x"},
		{method: "GET", path: "/system/df?type=volume", code: 200, has: `{"VolumeUsage":{}}`},
	} {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			a := newAlbum()
			a.fail = tt.fail
			s, web, _ := serve(t, newFake())
			s.cfg.Images = a
			code, text, _ := ask(t, web, tt.method, tt.path, tt.body)
			if code != tt.code || !strings.Contains(text, tt.has) {
				t.Errorf("%d %s\nwant %d …%s…", code, text, tt.code, tt.has)
			}
			if tt.verb != "" && !slices.Contains(a.calls, tt.verb) {
				t.Errorf("the store was asked %q, want %q", a.calls, tt.verb)
			}
			if tt.body != "" && a.data != tt.body {
				t.Errorf("the store read %q", a.data)
			}
		})
	}
}

// The engine downloads a tar itself, tells how far it is, and gives the other side's refusal on.
func TestImportFromURL(t *testing.T) {
	there := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/x.tar" {
			http.Error(w, "not here", http.StatusNotFound)
			return
		}
		fmt.Fprint(w, "{tar")
	}))
	defer there.Close()
	for _, tt := range []struct {
		source string
		code   int
		has    string
	}{
		{there.URL + "/x.tar", 200, `{"status":"Downloading from ` + there.URL + `/x.tar"}` + "\r\n" +
			`{"status":"Importing","progressDetail":{"current":4,"total":4},"progress":"[==================================================\u003e]       4B/4B"}` + "\r\n" + `{"status":"sha256:`},
		{strings.TrimPrefix(there.URL, "http://") + "/x.tar", 200, "Downloading from http://"},
		{strings.Replace(there.URL, "://", "://ann:secret@", 1) + "/x.tar", 200, "Downloading from http://ann:xxxxx@"},
		{there.URL + "/y.tar", 404, "failed to GET " + there.URL + "/y.tar with status 404 Not Found: not here"},
		{"http://127.0.0.1:1/x", 500, "connection refused"},
	} {
		a := newAlbum()
		s, web, _ := serve(t, newFake())
		s.cfg.Images = a
		code, text, _ := ask(t, web, "POST", "/v1.45/images/create?repo=a&fromSrc="+q(tt.source), "")
		if code != tt.code || !strings.Contains(text, tt.has) {
			t.Errorf("%s: %d %s\nwant %d …%s…", tt.source, code, text, tt.code, tt.has)
		}
		if code == 200 && (a.data != "{tar" || !strings.Contains(strings.Join(a.calls, " "), `"Message":"Imported from `+strings.Replace(tt.source, ":secret@", ":xxxxx@", 1)+`"`)) {
			t.Errorf("%s: %q was read, %q", tt.source, a.data, a.calls)
		}
	}
}

// An archive that breaks off must not look whole.
func TestSaveThatBreaksOff(t *testing.T) {
	a := newAlbum()
	a.fail, a.late = fault.New(fault.Internal, "disk"), true
	s, web, _ := serve(t, newFake())
	s.cfg.Images = a
	resp, err := http.Get(web.URL + "/images/get?names=busybox")
	if err != nil {
		return // broken off before the headers were flushed
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("the client takes %q for the whole", b)
	}
}

func TestImageAnswersGolden(t *testing.T) {
	for _, version := range []string{"1.24", "1.43", "1.44", "1.49", "1.51", "1.56"} {
		s, web, _ := serve(t, newFake())
		s.cfg.Images = newAlbum()
		_, list, _ := ask(t, web, "GET", "/v"+version+"/images/json", "")
		_, one, _ := ask(t, web, "GET", "/v"+version+"/images/busybox/json", "")
		golden(t, "testdata/image-"+version+".json", []byte(indent(t, list)+indent(t, one)))
	}
}

func indent(t *testing.T, text string) string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	b, _ := json.MarshalIndent(v, "", "  ")
	return string(b) + "\n"
}
