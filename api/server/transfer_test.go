package server

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/api/server/wire"
	"berth/base/fault"
	"berth/base/ref"
	"berth/image"
	"berth/image/remote"
	"berth/image/transfer"
)

// carrier stands for the transfer: it says two lines and fails or not.
type carrier struct {
	mu    sync.Mutex
	calls []string
	early error // before anything is told
	quick error // after the first line
	late  error // after it
	wait  chan struct{}
	ended chan error // why a pull that waits has ended
}

func (f *carrier) note(verb string, r any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, _ := json.Marshal(r)
	f.calls = append(f.calls, verb+" "+string(b))
}

// asked is a request without its function, which JSON cannot have.
func asked(r transfer.PullRequest) any {
	return []any{r.Name.String(), r.AllTags, r.Platform, r.Credentials.Username, r.Credentials.Password, r.Lazy, r.StaleIfError}
}

func askedPush(r transfer.PushRequest) any {
	return []any{r.Name.String(), r.AllTags, r.Platform, r.Credentials.Username}
}

func (f *carrier) PlanPull(_ context.Context, r transfer.PullRequest) (*transfer.PullPlan, error) {
	f.note("plan-pull", asked(r))
	return &transfer.PullPlan{Name: r.Name}, f.early
}

func (f *carrier) Pull(ctx context.Context, r transfer.PullRequest) (*transfer.Pulled, error) {
	f.note("pull", asked(r))
	if f.early != nil {
		return nil, f.early
	}
	r.Progress(transfer.Progress{ID: "1.36", Status: "Pulling from library/busybox"})
	if f.quick != nil {
		return nil, f.quick
	}
	if f.wait != nil {
		r.Progress(transfer.Progress{ID: "39a7a7f69b56", Status: "Pulling fs layer"})
		close(f.wait)
		<-ctx.Done()
		f.ended <- ctx.Err()
		return nil, ctx.Err()
	}
	r.Progress(transfer.Progress{ID: "39a7a7f69b56", Status: "Downloading", Current: 147, Total: 147})
	return &transfer.Pulled{}, f.late
}

func (f *carrier) PlanPush(_ context.Context, r transfer.PushRequest) (*transfer.PushPlan, error) {
	f.note("plan-push", askedPush(r))
	return &transfer.PushPlan{}, f.early
}

func (f *carrier) Push(_ context.Context, r transfer.PushRequest) (*transfer.Pushed, error) {
	f.note("push", askedPush(r))
	if f.early != nil {
		return nil, f.early
	}
	r.Progress(transfer.Progress{Status: "The push refers to repository [r/a]"})
	r.Progress(transfer.Progress{Aux: transfer.PushResult{Tag: "one", Digest: "sha256:8b80", Size: 523}})
	return &transfer.Pushed{}, f.late
}

// oracle stands for registries, but for repositories, which a real client asks.
type oracle struct {
	*remote.Client
	calls []string
	err   error
}

func (f *oracle) Login(_ context.Context, c remote.Credentials) (string, string, error) {
	f.calls = append(f.calls, fmt.Sprintf("login %s %s %s", c.Username, c.Password, c.ServerAddress))
	return "Login Succeeded", c.IdentityToken, f.err
}

func (f *oracle) Search(_ context.Context, term string, limit int, c remote.Credentials) ([]remote.SearchResult, error) {
	f.calls = append(f.calls, fmt.Sprintf("search %s %d %s", term, limit, c.Username))
	return []remote.SearchResult{{Name: "tomcat", Description: "Apache Tomcat", Stars: 7, Official: true}, {Name: "a/tomcat", Automated: true}}, f.err
}

func header(text string) string { return base64.URLEncoding.EncodeToString([]byte(text)) }

func TestTransferRequests(t *testing.T) {
	sha := "sha256:" + webID
	for _, tt := range []struct {
		method, path, auth, pull, body string
		early, quick, late             error
		code                           int
		has, verb                      string
	}{
		{method: "POST", path: "/v1.45/images/create?fromImage=busybox&tag=1.36", code: 200, verb: `pull ["docker.io/library/busybox:1.36",false,null,"","",false,false]`,
			has: `{"status":"Pulling from library/busybox","id":"1.36"}` + "\r\n" + `{"status":"Downloading","progressDetail":{"current":147,"total":147},"progress":"[==================================================\u003e]     147B/147B","id":"39a7a7f69b56"}` + "\r\n"},
		{method: "POST", path: "/images/create?fromImage=busybox&tag=1.36", code: 200, has: `{"status":"Downloading","progressDetail":{"current":147,"total":147},"id":"39a7a7f69b56"}` + "\r\n"},
		{method: "POST", path: "/images/create?fromImage=busybox:1.36", code: 200, verb: `pull ["docker.io/library/busybox:1.36",false,null,"","",false,false]`},
		{method: "POST", path: "/images/create?fromImage=busybox:1.35&tag=1.36", code: 200, verb: `pull ["docker.io/library/busybox:1.36",false,null,"","",false,false]`},
		{method: "POST", path: "/images/create?fromImage=busybox", code: 200, verb: `pull ["docker.io/library/busybox",true,null,"","",false,false]`},
		{method: "POST", path: "/v1.24/images/create?fromImage=busybox:", code: 200, verb: `pull ["docker.io/library/busybox",true,null,"","",false,false]`},
		{method: "POST", path: "/images/create?fromImage=busybox&tag=" + sha, code: 200, verb: `pull ["docker.io/library/busybox@` + sha + `",false,null,"","",false,false]`},
		{method: "POST", path: "/images/create?fromImage=busybox@" + sha, code: 200, verb: `pull ["docker.io/library/busybox@` + sha + `",false,null,"","",false,false]`},
		{method: "POST", path: "/images/create?fromImage=busybox&tag=sha256:91eb", code: 400, has: `{"message":"invalid tag format"}`},
		{method: "POST", path: "/images/create?fromImage=Xx&tag=y", code: 400, has: `invalid reference format: repository name (library/Xx) must be lowercase`},
		{method: "POST", path: "/images/create?fromImage=scratch", code: 403, has: `{"message":"'scratch' is a reserved name"}`},
		{method: "POST", path: "/images/create?fromImage=a&tag=b&platform=linux/arm64/v8", code: 200, verb: `pull ["docker.io/library/a:b",false,{"architecture":"arm64","os":"linux","variant":"v8"},"","",false,false]`},
		{method: "POST", path: "/images/create?fromImage=a&tag=b&platform=a/b/c/d", code: 400, has: `\"a/b/c/d\": cannot parse platform specifier`},
		{method: "POST", path: "/v1.31/images/create?fromImage=a&tag=b&platform=a/b/c/d", code: 200},
		{method: "POST", path: "/images/create?fromImage=a&tag=b", auth: header(`{"username":"ann","password":"secret"}`), code: 200, verb: `pull ["docker.io/library/a:b",false,null,"ann","secret",false,false]`},
		{method: "POST", path: "/images/create?fromImage=a&tag=b", auth: "!!!", code: 200, verb: `pull ["docker.io/library/a:b",false,null,"","",false,false]`},
		{method: "POST", path: "/images/create?fromImage=a&tag=b", auth: header(`{"username":`), code: 200},
		{method: "POST", path: "/images/create?fromImage=a&tag=b", pull: "lazy, stale-if-error", code: 200, verb: `pull ["docker.io/library/a:b",false,null,"","",true,true]`},
		{method: "POST", path: "/images/create?fromImage=a&tag=b&lazy=1", code: 200, verb: `pull ["docker.io/library/a:b",false,null,"","",true,false]`},
		{method: "POST", path: "/images/create?fromImage=a&tag=b", early: fault.New(fault.NotFound, "pull access denied for a, repository does not exist or may require 'docker login'"), code: 404,
			has: `{"message":"pull access denied for a, repository does not exist or may require 'docker login'"}`},
		{method: "POST", path: "/images/create?fromImage=a&tag=b", quick: fault.New(fault.NotFound, "manifest for a:b not found"), code: 404, has: `{"message":"manifest for a:b not found"}`},
		{method: "POST", path: "/images/create?fromImage=a&tag=b", late: fault.New(fault.Internal, "unexpected EOF"), code: 200, has: "\r\n" + `{"errorDetail":{"message":"unexpected EOF"},"error":"unexpected EOF"}` + "\r\n"},
		{method: "POST", path: "/v1.45/images/r:5000/a/push?tag=one", auth: header(`{"username":"ann"}`), code: 200, verb: `push ["r:5000/a:one",false,null,"ann"]`,
			has: `{"status":"The push refers to repository [r/a]"}` + "\r\n" + `{"progressDetail":{},"aux":{"Tag":"one","Digest":"sha256:8b80","Size":523}}` + "\r\n"},
		{method: "POST", path: "/images/a/push", code: 200, verb: `push ["docker.io/library/a",true,null,""]`},
		{method: "POST", path: "/images/a/push?tag=b", body: `{"username":"old"}`, code: 200, verb: `push ["docker.io/library/a:b",false,null,"old"]`},
		{method: "POST", path: "/images/a/push?tag=b", body: `{`, code: 400, has: "bad parameters and missing X-Registry-Auth: invalid X-Registry-Auth header: invalid JSON: unexpected EOF"},
		{method: "POST", path: "/images/A/push?tag=b", code: 400, has: "must be lowercase"},
		{method: "POST", path: "/images/a/push?tag=-", code: 400, has: "invalid tag format"},
		{method: "POST", path: "/images/a/push?tag=b&platform=" + q(`{"os":"linux","architecture":"arm64"}`), code: 200, verb: `push ["docker.io/library/a:b",false,{"architecture":"arm64","os":"linux"},""]`},
		{method: "POST", path: "/images/a/push?tag=b&platform=linux", code: 400, has: "failed to parse platform"},
		{method: "POST", path: "/v1.45/images/a/push?tag=b&platform=linux", code: 200},
		{method: "POST", path: "/images/a/push?tag=b", late: fault.New(fault.NotFound, "tag does not exist: a:b"), code: 200, has: `{"errorDetail":{"message":"tag does not exist: a:b"},"error":"tag does not exist: a:b"}`},
		{method: "GET", path: "/berth/v1/images/create?fromImage=a", code: 200, has: "pull docker.io/library/a", verb: `plan-pull ["docker.io/library/a",true,null,"","",false,false]`},
		{method: "GET", path: "/berth/v1/images/create", code: 400, has: "fromImage is missing"},
		{method: "GET", path: "/berth/v1/images/create?fromImage=a&tag=b", early: fault.New(fault.Unavailable, "no network"), code: 503, has: "no network"},
		{method: "GET", path: "/berth/v1/images/r:5000/team/web/push?tag=2", code: 200, verb: `plan-push ["r:5000/team/web:2",false,null,""]`},
	} {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			f := &carrier{early: tt.early, quick: tt.quick, late: tt.late}
			s, web, _ := serve(t, newFake())
			s.cfg.Transfer = f
			r, _ := http.NewRequest(tt.method, web.URL+tt.path, strings.NewReader(tt.body))
			if tt.auth != "" {
				r.Header.Set("X-Registry-Auth", tt.auth)
			}
			if tt.pull != "" {
				r.Header.Set(pullHeader, tt.pull)
			}
			resp, err := web.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var b strings.Builder
			_, _ = bufio.NewReader(resp.Body).WriteTo(&b)
			if resp.StatusCode != tt.code || !strings.Contains(b.String(), tt.has) {
				t.Errorf("%d %q\nwant %d …%q…", resp.StatusCode, b.String(), tt.code, tt.has)
			}
			if tt.verb != "" && !slices.Contains(f.calls, tt.verb) {
				t.Errorf("the transfer was asked %q, want %q", f.calls, tt.verb)
			}
		})
	}
}

// A client that leaves ends its pull, and so does the engine's end.
func TestPullEndsWithItsClient(t *testing.T) {
	for _, who := range []string{"client", "engine"} {
		f := &carrier{wait: make(chan struct{}), ended: make(chan error, 1)}
		s, web, _ := serve(t, newFake())
		s.cfg.Transfer = f
		ctx, leave := context.WithCancel(context.Background())
		defer leave()
		r, _ := http.NewRequestWithContext(ctx, "POST", web.URL+"/images/create?fromImage=a&tag=b", nil)
		resp, err := web.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(resp.Body).ReadString('\n')
		if err != nil || !strings.Contains(line, "Pulling from") {
			t.Errorf("the first line is not sent at once: %q %v", line, err)
		}
		<-f.wait
		if who == "client" {
			leave()
		} else {
			s.leave()
		}
		select {
		case <-f.ended:
		case <-time.After(time.Minute):
			t.Errorf("%s: the pull goes on", who)
		}
		if who == "engine" {
			var rest strings.Builder
			if _, _ = bufio.NewReader(resp.Body).WriteTo(&rest); !strings.Contains(rest.String(), `"errorDetail":{"message":"the engine is being stopped`) {
				t.Errorf("the client reads %q", rest.String())
			}
		}
		resp.Body.Close()
	}
}

func TestRegistryRequests(t *testing.T) {
	for _, tt := range []struct {
		method, path, auth, body string
		err                      error
		code                     int
		has, verb                string
	}{
		{method: "GET", path: "/images/search?term=tomcat", code: 200, verb: "search tomcat 25 ",
			has: `[{"star_count":7,"is_official":true,"name":"tomcat","is_automated":false,"description":"Apache Tomcat"},{"star_count":0,"is_official":false,"name":"a/tomcat","is_automated":false,"description":""}]`},
		{method: "GET", path: "/images/search?term=a&limit=5", auth: header(`{"username":"ann"}`), code: 200, verb: "search a 5 ann"},
		{method: "GET", path: "/images/search?term=a&limit=0", code: 200, verb: "search a 25 "},
		{method: "GET", path: "/images/search?term=a&limit=101", code: 400, has: `{"message":"limit 101 is outside the range of [1, 100]"}`},
		{method: "GET", path: "/images/search?term=a&limit=-1", code: 400, has: `limit -1 is outside the range of [1, 100]`},
		{method: "GET", path: "/images/search?term=a&limit=z", code: 400, has: `invalid limit specified: strconv.Atoi: parsing \"z\": invalid syntax`},
		{method: "GET", path: "/images/search?term=http://a/b", code: 400, has: `invalid repository name: repository name (http://a/b) should not have a scheme`},
		{method: "GET", path: "/images/search?term=a&filters=" + q(`{"foo":["x"]}`), code: 400, has: "invalid filter 'foo'"},
		{method: "GET", path: "/images/search?term=a&filters=" + q(`{"stars":["x"]}`), code: 400, has: `invalid filter 'stars=x': strconv.Atoi: parsing \"x\": invalid syntax`},
		{method: "GET", path: "/images/search?term=a&filters=" + q(`{"is-official":["x"]}`), code: 400, has: "invalid filter 'is-official=[x]'"},
		{method: "GET", path: "/images/search?term=a&filters=" + q(`{"is-official":["true"]}`), code: 200, has: `"name":"tomcat"`},
		{method: "GET", path: "/images/search?term=a&filters=" + q(`{"is-official":{"false":true}}`), code: 200, has: `[{"star_count":0,"is_official":false,"name":"a/tomcat"`},
		{method: "GET", path: "/images/search?term=a&filters=" + q(`{"stars":["3","8"]}`), code: 200, has: "[]\n"},
		{method: "GET", path: "/images/search?term=a&filters=" + q(`{"is-automated":["true"]}`), code: 200, has: "[]\n"},
		{method: "GET", path: "/images/search?term=a&filters=" + q(`{"is-automated":["false"]}`), code: 200, has: "tomcat"},
		{method: "GET", path: "/images/search?term=a", err: fault.New(fault.Unavailable, "dial tcp"), code: 500, has: "dial tcp"},
		{method: "POST", path: "/auth", body: `{"username":"ann","password":"secret","serveraddress":"r:5000"}`, code: 200, has: `{"Status":"Login Succeeded"}`, verb: "login ann secret r:5000"},
		{method: "POST", path: "/auth", body: `{"identitytoken":"t"}`, code: 200, has: `{"IdentityToken":"t","Status":"Login Succeeded"}`},
		{method: "POST", path: "/v1.51/auth", body: `{"username":"ann"}`, code: 200, has: `{"IdentityToken":"","Status":"Login Succeeded"}`},
		{method: "POST", path: "/auth", body: `{"username":"ann"}`, err: fault.New(fault.Unauthorized, "unauthorized: incorrect username or password"), code: 401, has: `{"message":"unauthorized: incorrect username or password"}`},
		{method: "POST", path: "/auth", body: `{"serveraddress":"ftp://r"}`, code: 400, has: `invalid server address \"ftp://r\": unsupported URL scheme \"ftp\": must be \"http\" or \"https\"`},
		{method: "POST", path: "/auth", body: `{`, code: 400, has: "invalid JSON: unexpected EOF"},
		{method: "POST", path: "/auth", code: 400, has: "invalid JSON: EOF"},
		{method: "GET", path: "/distribution/Xx/json", code: 400, has: "must be lowercase"},
		{method: "GET", path: "/distribution/sha256:" + webID + "/json", code: 500, has: "no manifest found for full image ID"},
	} {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			f := &oracle{err: tt.err}
			s, web, _ := serve(t, newFake())
			s.cfg.Registries = f
			r, _ := http.NewRequest(tt.method, web.URL+tt.path, strings.NewReader(tt.body))
			if tt.auth != "" {
				r.Header.Set("X-Registry-Auth", tt.auth)
			}
			resp, err := web.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var b strings.Builder
			_, _ = bufio.NewReader(resp.Body).WriteTo(&b)
			if resp.StatusCode != tt.code || !strings.Contains(b.String(), tt.has) {
				t.Errorf("%d %q\nwant %d …%q…", resp.StatusCode, b.String(), tt.code, tt.has)
			}
			if tt.verb != "" && !slices.Contains(f.calls, tt.verb) {
				t.Errorf("registries were asked %q, want %q", f.calls, tt.verb)
			}
		})
	}
}

// shelfOfBlobs is a registry of documents by path.
func shelfOfBlobs(t *testing.T, files map[string]string, types map[string]string) *httptest.Server {
	t.Helper()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, ok := files[r.URL.Path]
		switch {
		case r.URL.Path == "/v2/":
			return
		case !ok:
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`)
			return
		}
		w.Header().Set("Content-Type", types[r.URL.Path])
		w.Header().Set("Docker-Content-Digest", digest.FromString(text).String())
		w.Header().Set("Content-Length", fmt.Sprint(len(text)))
		if r.Method == http.MethodGet {
			fmt.Fprint(w, text)
		}
	}))
	t.Cleanup(web.Close)
	return web
}

// newOracle is a client of a registry with a:one, an image, a:many, an index, and a:chart, which is neither. It gives its host.
func newOracle(t *testing.T) (*oracle, string) {
	t.Helper()
	files, types := map[string]string{}, map[string]string{}
	put := func(tag, text, kind string) {
		for _, name := range []string{tag, digest.FromString(text).String()} {
			files["/v2/a/manifests/"+name], types["/v2/a/manifests/"+name] = text, kind
		}
	}
	put("one", singleManifest(), dockerManifest)
	put("many", indexManifest(), ocispec.MediaTypeImageIndex)
	put("chart", manifestOf(ocispec.MediaTypeImageManifest, chartConfig, "application/vnd.cncf.helm.config.v1+json"), ocispec.MediaTypeImageManifest)
	files["/v2/a/blobs/"+digest.FromString(armConfig).String()] = armConfig
	files["/v2/a/blobs/"+digest.FromString(chartConfig).String()] = chartConfig
	shop := shelfOfBlobs(t, files, types)
	client, err := remote.New(remote.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &oracle{Client: client}, strings.TrimPrefix(shop.URL, "http://")
}

const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	armConfig      = `{"architecture":"arm64","os":"linux","variant":"v8","rootfs":{"type":"layers"}}`
	chartConfig    = `{"chart":1}`
)

func singleManifest() string {
	return manifestOf(dockerManifest, armConfig, "application/vnd.docker.container.image.v1+json")
}

func manifestOf(kind, config, configKind string) string {
	b, _ := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": kind, "layers": []any{},
		"config": ocispec.Descriptor{MediaType: configKind, Digest: digest.FromString(config), Size: int64(len(config))},
	})
	return string(b)
}

func indexManifest() string {
	single := singleManifest()
	b, _ := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageIndex, "manifests": []ocispec.Descriptor{{
			MediaType: dockerManifest, Digest: digest.FromString(single), Size: int64(len(single)), Platform: &ocispec.Platform{OS: "linux", Architecture: "arm64"},
		}},
	})
	return string(b)
}

func TestDistributionInspect(t *testing.T) {
	registries, host := newOracle(t)
	s, web, _ := serve(t, newFake())
	s.cfg.Registries = registries
	single, index := singleManifest(), indexManifest()
	for _, tt := range []struct {
		name string
		code int
		want string
	}{
		{"a:one", 200, fmt.Sprintf(`{"Descriptor":{"mediaType":%q,"digest":%q,"size":%d},"Platforms":[{"architecture":"arm64","os":"linux","variant":"v8"}]}`, dockerManifest, digest.FromString(single), len(single))},
		{"a@" + digest.FromString(single).String(), 200, `"Platforms":[{"architecture":"arm64","os":"linux","variant":"v8"}]`},
		{"a:many", 200, fmt.Sprintf(`{"Descriptor":{"mediaType":%q,"digest":%q,"size":%d},"Platforms":[{"architecture":"arm64","os":"linux"}]}`, ocispec.MediaTypeImageIndex, digest.FromString(index), len(index))},
		{"a:chart", 200, `"Platforms":null}`},
		{"a:nope", 404, `{"message":"manifest unknown: manifest unknown"}`},
	} {
		code, text, _ := ask(t, web, "GET", "/distribution/"+host+"/"+tt.name+"/json", "")
		if code != tt.code || !strings.Contains(text, tt.want) {
			t.Errorf("%s: %d %s\nwant %d %s", tt.name, code, text, tt.code, tt.want)
		}
	}
}

var _ Registries = (*remote.Client)(nil)
var _ Transfer = (*transfer.Transfer)(nil)

const provenance = "https://slsa.dev/provenance/v1"

const statement = `{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"` + provenance + `"}`

// describeParts makes the album's image one for several platforms, with an attestation of which one statement is not here.
func describeParts(a *album) {
	a.blobs = map[digest.Digest]string{}
	keep := func(text string) digest.Digest { d := digest.FromString(text); a.blobs[d] = text; return d }
	m, _ := json.Marshal(ocispec.Manifest{Layers: []ocispec.Descriptor{
		{MediaType: "application/vnd.in-toto+json", Digest: keep(statement), Size: int64(len(statement)), Annotations: map[string]string{predicateType: provenance}},
		{MediaType: "application/vnd.in-toto+json", Digest: digest.FromString("gone"), Size: 4, Annotations: map[string]string{predicateType: "https://spdx.dev/Document"}},
		{MediaType: "application/octet-stream", Digest: digest.FromString("other")},
	}})
	attestation := keep(string(m))
	a.img.Index = &image.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromString("index"), Size: 900}
	a.parts = []image.Manifest{
		{Descriptor: *a.img.Manifest, Kind: image.KindImage, Available: true, Content: 700, Unpacked: 1000, Platform: image.Platform{OS: "linux", Architecture: "amd64"}, ImageID: digest.Digest(a.img.ID), Containers: []string{webID}},
		{Descriptor: image.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("arm"), Size: 500}, Kind: image.KindImage, Platform: image.Platform{OS: "linux", Architecture: "arm64"}},
		{Descriptor: image.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: attestation, Size: int64(len(m))}, Kind: image.KindAttestation, Available: true, Content: 30, For: a.img.Manifest.Digest},
	}
}

// Manifests and attestations are told of images that came under an index.
func TestManifestsOfAnImage(t *testing.T) {
	a := newAlbum()
	describeParts(a)
	s, web, _ := serve(t, newFake())
	s.cfg.Images = a
	for _, tt := range []struct {
		path  string
		code  int
		has   string
		lacks string
	}{
		{"/images/json?manifests=1", 200, `"Manifests":[{"ID":"` + a.img.Manifest.Digest.String() + `","Descriptor":{`, ""},
		{"/images/json?manifests=1", 200, `"Available":true,"Size":{"Content":700,"Total":1700},"Kind":"image","ImageData":{"Platform":{"architecture":"amd64","os":"linux"},"Size":{"Unpacked":1000},"Containers":["` + webID + `"]}}`, ""},
		{"/images/json?manifests=1", 200, `"Kind":"image","ImageData":{"Platform":{"architecture":"arm64","os":"linux"},"Size":{"Unpacked":0},"Containers":[]}}`, ""},
		{"/images/json?manifests=1", 200, `"Kind":"attestation","AttestationData":{"For":"` + a.img.Manifest.Digest.String() + `"}}`, ""},
		{"/images/json", 200, "", "Manifests"},
		{"/v1.46/images/json?manifests=1", 200, "", "Manifests"},
		{"/v1.47/images/json?manifests=1", 200, "Manifests", ""},
		{"/images/busybox/json?manifests=1", 200, `"Manifests":[{`, ""},
		{"/v1.47/images/busybox/json?manifests=1", 200, "", "Manifests"},
		{"/images/busybox/json", 200, `"Descriptor":{"mediaType":"application/vnd.oci.image.index.v1+json"`, "Manifests"},
		{"/images/busybox/json?platform=" + q(`{"os":"linux","architecture":"amd64"}`), 200, `"Descriptor":{"mediaType":"application/vnd.oci.image.manifest.v1+json"`, "image.index"},
		{"/images/busybox/attestations", 200, `"PredicateType":"` + provenance + `"}`, `"Statement"`},
		{"/images/busybox/attestations?type=" + provenance + "&statement=1", 200, `"Statement":` + statement, "spdx"},
		{"/images/busybox/attestations?statement=1", 404, "is not available locally", ""},
		{"/images/busybox/attestations?type=x", 200, "[]\n", ""},
		{"/images/busybox/attestations?platform=" + q(`{"os":"linux","architecture":"arm64"}`), 404, "does not provide the specified platform", ""},
	} {
		code, text, _ := ask(t, web, "GET", tt.path, "")
		if code != tt.code || !strings.Contains(text, tt.has) || tt.lacks != "" && strings.Contains(text, tt.lacks) {
			t.Errorf("%s: %d %s\nwant %d …%s… without %q", tt.path, code, text, tt.code, tt.has, tt.lacks)
		}
	}
}

// A check tells what is wrong line by line; a repair fetches it with the credentials of its registry.
func TestImageFsck(t *testing.T) {
	blob := "layer's bytes"
	shop := shelfOfBlobs(t, map[string]string{"/v2/team/web/blobs/" + digest.FromString(blob).String(): blob}, nil)
	host := strings.TrimPrefix(shop.URL, "http://")
	client, err := remote.New(remote.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	damaged := func() *image.Checkup {
		return &image.Checkup{Images: 2, Layers: 3, Damages: []image.Damage{
			{Part: image.PartLayer, Subject: "sha256:1", Images: []string{"web:1"}, What: "a file has other bytes",
				Sources: []image.Source{{Repository: host + "/team/web", Descriptor: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromString(blob), Size: int64(len(blob))}}}},
			{Part: image.PartOrphan, Subject: "layer/x", What: "belongs to nothing"},
		}}
	}
	for _, tt := range []struct {
		path, header string
		code         int
		want         []string
	}{
		{path: "/berth/v1/images/fsck", code: 200, want: []string{
			`{"status":"checking"}`,
			`{"damage":{"part":"layer","subject":"sha256:1","images":["web:1"],"what":"a file has other bytes","source":"` + host + `/team/web","fetch":13}}`,
			`{"damage":{"part":"orphan","subject":"layer/x","images":[],"what":"belongs to nothing"}}`,
			`{"sum":{"images":2,"names":0,"documents":0,"blobs":0,"layers":3,"bytes":0,"damaged":2,"repaired":0}}`}},
		{path: "/berth/v1/images/fsck?repair=1", header: header(`{"` + host + `":{"username":"ann"}}`), code: 200, want: []string{
			`{"status":"repairing"}`,
			`"fetch":13,"tried":true,"repaired":true}}`,
			`"tried":true,"failed":"no source is known"}}`,
			`"damaged":2,"repaired":1}}`}},
		{path: "/berth/v1/images/fsck", header: "x", code: 400, want: []string{"invalid X-Registry-Config header"}},
	} {
		a := newAlbum()
		a.checkup = damaged()
		s, web, _ := serve(t, newFake())
		s.cfg.Images, s.cfg.Registries = a, &oracle{Client: client}
		r, _ := http.NewRequest("POST", web.URL+tt.path, nil)
		r.Header.Set("X-Registry-Config", tt.header)
		resp, err := web.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		_, _ = bufio.NewReader(resp.Body).WriteTo(&b)
		resp.Body.Close()
		rest := b.String()
		for _, w := range tt.want {
			_, after, ok := strings.Cut(rest, w)
			if !ok {
				t.Errorf("%s: %d\n%s\nlacks %s", tt.path, resp.StatusCode, b.String(), w)
			}
			rest = after
		}
		if resp.StatusCode != tt.code {
			t.Errorf("%s: %d %s", tt.path, resp.StatusCode, b.String())
		}
	}
}

// Whatever a client writes as name and tag is refused, or is a name that reads back as the same.
func FuzzPullName(f *testing.F) {
	for _, s := range [][2]string{{"busybox", "1.36"}, {"r:5000/a/b:", "x"}, {"a@sha256:" + webID, ""}, {"a", "sha256:" + webID}, {"a:1@sha256:" + webID, "2"}, {"../x", "/"}, {"", ":"}} {
		f.Add(s[0], s[1])
	}
	s := New(Config{Transfer: &carrier{}})
	f.Fuzz(func(t *testing.T, name, tag string) {
		c := &call{r: httptest.NewRequest("POST", "/", nil), q: url.Values{"fromImage": {name}, "tag": {tag}}, v: wire.Newest}
		r, err := s.pullRequest(c)
		if err != nil {
			if codeOf(err)/100 != 4 {
				t.Errorf("%q %q: %v", name, tag, err)
			}
			return
		}
		again, err := ref.Parse(r.Name.String())
		if err != nil || again != r.Name || r.AllTags != r.Name.IsNameOnly() {
			t.Errorf("%q %q is %v, %v, %v", name, tag, r.Name, again, err)
		}
	})
}

func FuzzRegistryConfig(f *testing.F) {
	for _, s := range []string{"", "x", header(`{}`), header(`{"r":{"username":"a"}}`), header(`{"https://index.docker.io/v1/":{}}`), header(`[]`), header(`{"r":null}`)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := registryConfig(text); err != nil && codeOf(err) != http.StatusBadRequest {
			t.Errorf("%q: %v", text, err)
		}
	})
}
