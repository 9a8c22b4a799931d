package server

import (
	"archive/tar"
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/moby/buildkit/client"

	"berth/base/fault"
	"berth/build"
	"berth/build/cache"
	"berth/build/exec"
	"berth/build/session"
)

// fakeBuilds remembers what it was asked for.
type fakeBuilds struct {
	asked    build.Request
	pruned   cache.PruneOptions
	fails    error
	sessions *session.Manager
	spool    string
}

func (f *fakeBuilds) Solve(_ context.Context, r build.Request) (*build.Response, error) {
	f.asked = r
	if f.fails != nil {
		return nil, f.fails
	}
	return &build.Response{ID: r.ID, Exported: map[string]string{"containerimage.config.digest": "sha256:" + strings.Repeat("ab", 32)}}, nil
}
func (f *fakeBuilds) Status(context.Context, string, func(*client.SolveStatus) error) error {
	return nil
}
func (f *fakeBuilds) Cancel(string) bool                  { return false }
func (f *fakeBuilds) Sessions() (*session.Manager, error) { return f.sessions, nil }
func (f *fakeBuilds) Spool() (string, error)              { return f.spool, nil }
func (f *fakeBuilds) DiskUsage(context.Context, []string) ([]cache.Usage, error) {
	return []cache.Usage{{ID: "a", Type: "regular", Size: 5}, {ID: "b", Type: "regular", Size: 7, Shared: true}}, nil
}
func (f *fakeBuilds) Prune(_ context.Context, o cache.PruneOptions, told func(cache.Usage)) error {
	f.pruned = o
	told(cache.Usage{ID: "a", Size: 5})
	return nil
}

type noWire struct{}

func (noWire) ServeConn(context.Context, net.Conn) error { return nil }

// yard is a server that builds.
func yard(t *testing.T, f *fakeBuilds) *httptest.Server {
	s, web, _ := serve(t, newFake())
	s.cfg.Builds, s.cfg.BuildWire = f, noWire{}
	return web
}

// contextOf is a build context with one file.
func contextOf(t *testing.T, name, content string) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	w.Write([]byte(content))
	w.Close()
	return b.String()
}

// TestBuildOptions: every value of the query arrives where it belongs.
func TestBuildOptions(t *testing.T) {
	const file = "FROM scratch\n"
	base := func() build.Request {
		return build.Request{ID: "x", Frontend: "dockerfile.v0", FrontendAttrs: map[string]string{"filename": "Dockerfile"},
			Exporters: []build.Exporter{{Type: "moby", Attrs: map[string]string{"name": ""}}}}
	}
	for name, c := range map[string]struct {
		query url.Values
		want  func(r *build.Request)
	}{
		"nothing": {nil, func(r *build.Request) {}},
		"tags": {url.Values{"t": {"a", "b:1"}}, func(r *build.Request) {
			r.Exporters[0].Attrs["name"] = "docker.io/library/a:latest,docker.io/library/b:1"
		}},
		"arguments": {url.Values{"buildargs": {`{"A":"1","B":null}`}, "labels": {`{"l":"v"}`}}, func(r *build.Request) { r.FrontendAttrs["build-arg:A"], r.FrontendAttrs["label:l"] = "1", "v" }},
		"choices": {url.Values{"nocache": {"1"}, "pull": {"1"}, "target": {"t"}, "platform": {"linux/arm64"}, "squash": {"1"}}, func(r *build.Request) {
			a := r.FrontendAttrs
			a["no-cache"], a["image-resolve-mode"], a["target"], a["platform"] = "", "pull", "t", "linux/arm64"
			r.Exporters[0].Attrs["squash"] = "true"
		}},
		"host": {url.Values{"networkmode": {"host"}}, func(r *build.Request) {
			r.FrontendAttrs["force-network-mode"], r.Entitlements = "host", []string{"network.host"}
		}},
		"network": {url.Values{"networkmode": {"quay"}}, func(r *build.Request) { r.Limits.Network = "quay" }},
		"hosts":   {url.Values{"extrahosts": {"a:10.0.0.1", "b:::1"}}, func(r *build.Request) { r.FrontendAttrs["add-hosts"] = "a=10.0.0.1,b=::1" }},
		"caches": {url.Values{"cachefrom": {`["a","b"]`}}, func(r *build.Request) {
			r.CacheImports = []build.Cache{{Type: "registry", Attrs: map[string]string{"ref": "a"}}, {Type: "registry", Attrs: map[string]string{"ref": "b"}}}
		}},
		"limits": {url.Values{"memory": {"64"}, "memswap": {"-1"}, "cpushares": {"2"}, "cpuperiod": {"3"}, "cpuquota": {"4"}, "cpusetcpus": {"0"}, "cpusetmems": {"0"}, "shmsize": {"5"}, "cgroupparent": {"/p"},
			"ulimits": {`[{"Name":"nofile","Soft":1,"Hard":2}]`}, "securityopt": {"seccomp=unconfined", "apparmor=unconfined", "label=disable"}}, func(r *build.Request) {
			r.Limits = exec.Limits{Memory: 64, MemorySwap: -1, CPUShares: 2, CPUPeriod: 3, CPUQuota: 4, CpusetCpus: "0", CpusetMems: "0", ShmSize: 5, CgroupParent: "/p",
				Ulimits: []exec.Ulimit{{Name: "nofile", Soft: 1, Hard: 2}}, SeccompUnconfined: true, ApparmorUnconfined: true,
				LabelsDisabled: true}
		}},
	} {
		f := &fakeBuilds{sessions: session.NewManager(nil), spool: t.TempDir()}
		web := yard(t, f)
		if c.query == nil {
			c.query = url.Values{}
		}
		c.query.Set("buildid", "x")
		code, body, _ := ask(t, web, "POST", "/v1.50/build?"+c.query.Encode(), contextOf(t, "Dockerfile", file))
		if code != http.StatusOK || !strings.Contains(body, `{"stream":"Successfully built abababababab\n"}`) {
			t.Errorf("%s: %d %s", name, code, body)
		}
		if f.asked.Session == "" {
			t.Errorf("%s: no session serves the context", name)
		}
		f.asked.Session, f.asked.Written = "", nil
		want := base()
		c.want(&want)
		if !reflect.DeepEqual(f.asked, want) {
			t.Errorf("%s:\n%+v\nwant\n%+v", name, f.asked, want)
		}
	}
}

func TestBuildRefused(t *testing.T) {
	for name, c := range map[string]struct {
		query, body, says string
		code              int
	}{
		"no Dockerfile":   {"", contextOf(t, "x", "y"), "Cannot locate specified Dockerfile: Dockerfile", 400},
		"empty":           {"", contextOf(t, "Dockerfile", ""), "the Dockerfile (Dockerfile) cannot be empty", 400},
		"another name":    {"dockerfile=a/b", contextOf(t, "Dockerfile", "FROM scratch\n"), "Cannot locate specified Dockerfile: a/b", 400},
		"no tar":          {"", strings.Repeat("x", 2000), "must be a tar", 400},
		"platform":        {"platform=foobar", "", "unknown operating system or architecture", 400},
		"tag":             {"t=A", "", "invalid tag", 400},
		"version":         {"version=3", "", "invalid version 3", 400},
		"isolation":       {"isolation=hyperv", "", "Windows", 400},
		"network":         {"networkmode=quay&version=2", "", "not supported by buildkit", 400},
		"hosts":           {"extrahosts=x", "", `bad format for add-host: \"x\"`, 400},
		"arguments":       {"buildargs=[]", "", "error reading buildargs", 400},
		"memory":          {"memory=lots", "", "memory must be a number", 400},
		"security option": {"securityopt=label=x", "", "not supported for builds", 400},
		"no session":      {"version=2", "", "Cannot locate specified Dockerfile", 400},
	} {
		web := yard(t, &fakeBuilds{sessions: session.NewManager(nil), spool: t.TempDir()})
		code, body, _ := ask(t, web, "POST", "/v1.50/build?"+c.query, c.body)
		if code != c.code || !strings.Contains(body, c.says) {
			t.Errorf("%s: %d %s", name, code, body)
		}
	}
	f := &fakeBuilds{sessions: session.NewManager(nil), spool: t.TempDir(), fails: fault.New(fault.NotFound, "no such base")}
	web := yard(t, f)
	if code, body, _ := ask(t, web, "POST", "/v1.50/build?q=1", contextOf(t, "Dockerfile", "FROM scratch\n")); code != 404 || !strings.Contains(body, "no such base") {
		t.Errorf("%d %s", code, body)
	}
}

// TestBuildTraced: what a client of BuildKit's own messages reads at the end, and all that it reads of a quiet build.
func TestBuildTraced(t *testing.T) {
	for query, want := range map[string]string{
		"version=2":     `{"aux":{"ID":"sha256:`,
		"version=2&q=1": `{"stream":"sha256:`,
	} {
		web := yard(t, &fakeBuilds{sessions: session.NewManager(nil), spool: t.TempDir()})
		code, body, _ := ask(t, web, "POST", "/v1.50/build?"+query, contextOf(t, "Dockerfile", "FROM scratch\n"))
		if quiet := query != "version=2"; code != http.StatusOK || !strings.Contains(strings.ReplaceAll(body, `"id":"moby.image.id",`, ""), want) || quiet == strings.Contains(body, "moby.") {
			t.Errorf("%s: %d %s", query, code, body)
		}
	}
}

// TestBuildCache: what builds keep is told and pruned.
func TestBuildCache(t *testing.T) {
	f := &fakeBuilds{}
	web := yard(t, f)
	code, body, _ := ask(t, web, "GET", "/v1.50/system/df?type=build-cache", "")
	if code != http.StatusOK || !strings.Contains(body, `"ID":"a"`) || !strings.Contains(body, `"Shared":true`) {
		t.Errorf("%d %s", code, body)
	}
	code, body, _ = ask(t, web, "POST", "/v1.50/build/prune?all=1&keep-storage=10&filters="+url.QueryEscape(`{"until":["24h"],"type":["regular"],"inuse":["true"]}`), "")
	if code != http.StatusOK || !strings.Contains(body, `"CachesDeleted":["a"],"SpaceReclaimed":5`) {
		t.Errorf("%d %s", code, body)
	}
	if want := (cache.PruneOptions{All: true, ReservedSpace: 10, KeepDuration: 24 * 60 * 60 * 1e9, Filters: []string{"type==regular,inuse"}}); !reflect.DeepEqual(f.pruned, want) {
		t.Errorf("%+v, want %+v", f.pruned, want)
	}
	for _, q := range []string{"keep-storage=x", "filters=" + url.QueryEscape(`{"until":["x"]}`), "filters=" + url.QueryEscape(`{"nosuch":["x"]}`), "filters=" + url.QueryEscape(`{"id":["a","b"]}`)} {
		if code, body, _ := ask(t, web, "POST", "/v1.50/build/prune?"+q, ""); code != 400 {
			t.Errorf("%s: %d %s", q, code, body)
		}
	}
}
