package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/api/server/wire"
	"berth/base/fault"
	"berth/engine/container"
)

// Every line is a request and what must come of it: status, a part of the answer, and the verb that reached the engine.
func TestRequests(t *testing.T) {
	for _, tt := range []struct {
		method, path, body string
		code               int
		has                string
		verb               string
		fail               error
	}{
		{method: "GET", path: "/_ping", code: 200, has: "OK"},
		{method: "HEAD", path: "/_ping", code: 200},
		{method: "GET", path: "/v1.24/_ping", code: 200, has: "OK"},
		{method: "GET", path: "/v1.23/info", code: 400, has: "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"},
		{method: "GET", path: "/v1.99/info", code: 400, has: `{"message":"client version 1.99 is too new. Maximum supported API version is 1.56"}`},
		{method: "GET", path: "/v2.0/info", code: 400, has: "too new"},
		{method: "GET", path: "/v1/info", code: 400, has: "client version 1 is too old"},
		{method: "GET", path: "/nope", code: 404, has: `{"message":"page not found"}`},
		{method: "GET", path: "/", code: 404, has: "page not found"},
		{method: "GET", path: "/v1.45", code: 404, has: "page not found"},
		{method: "PUT", path: "/containers/web/json", code: 404, has: "page not found"},
		{method: "POST", path: "/containers/json", code: 404, has: "page not found"},
		{method: "GET", path: "/containers/web/json/", code: 404, has: "page not found"},
		{method: "GET", path: "//containers/json", code: 301},
		{method: "GET", path: "/v1.45/../info", code: 301},
		{method: "GET", path: "/containers/%2e%2e/json", code: 400, has: "encoded dot"},
		{method: "OPTIONS", path: "/info", code: 200},
		{method: "GET", path: "/info?x=%zz", code: 400, has: "invalid URL escape"},
		{method: "POST", path: "/auth", code: 501, has: `{"message":"talking to registries is not in this build of Berth"}`},
		{method: "GET", path: "/networks", code: 501, has: "networks of one's own are not in this build"},
		{method: "POST", path: "/build/prune", code: 200, has: `{"CachesDeleted":null,"SpaceReclaimed":0}`},
		{method: "GET", path: "/volumes/x", code: 404, has: "get x: no such volume"},
		{method: "GET", path: "/networks/x", code: 404, has: "network x not found"},
		{method: "GET", path: "/containers/web/archive?path=/x", code: 200, has: "tar"},
		{method: "DELETE", path: "/containers/web/checkpoints/c1", code: 501, has: "checkpointing"},

		{method: "POST", path: "/containers/create?name=web", body: `{"Image":"busybox","HostConfig":{"NetworkMode":"none"}}`, code: 201, has: `{"Id":"` + webID + `","Warnings":[]}`,
			verb: `create  "web" {"Image":"busybox","Network":{"Mode":"none"}}`},
		{method: "POST", path: "/containers/create", body: `{"Image":"busybox","HostConfig":{"NetworkMode":"none","Mmeory":1}}`, code: 201, has: `HostConfig.Mmeory is no field of a container's configuration`},
		{method: "POST", path: "/containers/create?platform=linux/arm64", body: `{"Image":"a","name":"x","HostConfig":{"NetworkMode":"none"}}`, code: 201, has: `"Warnings":[]`,
			verb: `create  "" {"Image":"a","Platform":"linux/arm64","Network":{"Mode":"none"}}`},
		{method: "POST", path: "/containers/create?platform=a/b/c/d", body: `{"Image":"a","HostConfig":{"NetworkMode":"none"}}`, code: 400},
		{method: "POST", path: "/containers/create", body: `{"Image":"busybox"}`, code: 201, has: webID},
		{method: "POST", path: "/containers/create", body: `{"Image":"busybox"}`, code: 400, has: `{"message":"network x not found"}`, verb: "create", fail: fault.New(fault.NotFound, "network x not found")},
		{method: "POST", path: "/containers/create", body: `{"Image":"busybox"}`, code: 404, has: `{"message":"No such image: busybox:latest"}`, verb: "create", fail: fault.New(fault.NotFound, "No such image: busybox:latest")},
		{method: "POST", path: "/containers/create", body: `{}`, code: 400, has: "config cannot be empty"},
		{method: "POST", path: "/containers/create", body: "{", code: 400, has: "invalid JSON: unexpected EOF"},
		{method: "POST", path: "/containers/create", code: 400, has: "invalid JSON: got EOF while reading request body"},
		{method: "POST", path: "/containers/create", body: `{"Image":"x","HostConfig":{"NetworkMode":"none"}}`, fail: fault.New(fault.NotFound, "No such image: x:latest"), verb: "create", code: 404, has: `{"message":"No such image: x:latest"}`},

		{method: "POST", path: "/containers/web/start", code: 204, verb: "start web"},
		{method: "POST", path: "/containers/web/start", body: `{"Binds":[]}`, code: 400, has: "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"},
		{method: "POST", path: "/containers/web/start", body: `{}`, code: 204},
		{method: "POST", path: "/containers/web/start?checkpoint=c", code: 501, has: "checkpoint"},
		{method: "POST", path: "/containers/web/start", fail: fault.New(fault.NotModified, "already started"), verb: "start", code: 304},
		{method: "POST", path: "/containers/nope/start", code: 404, has: `{"message":"No such container: nope"}`},
		{method: "POST", path: "/containers/a%2fb/start", code: 404, has: `No such container: a/b`},
		{method: "POST", path: "/containers/web/stop?t=3&signal=INT", code: 204, verb: `stop web {"Signal":"INT","Timeout":3}`},
		{method: "POST", path: "/v1.41/containers/web/stop?signal=INT", code: 204, verb: `stop web {"Signal":"","Timeout":null}`},
		{method: "POST", path: "/containers/web/stop?t=x", code: 400, has: `strconv.Atoi: parsing \"x\": invalid syntax`},
		{method: "POST", path: "/containers/web/restart?t=0", code: 204, verb: `restart web {"Signal":"","Timeout":0}`},
		{method: "POST", path: "/containers/web/kill?signal=HUP", code: 204, verb: `kill web "HUP"`},
		{method: "POST", path: "/containers/nope/kill", code: 404, has: `cannot kill container: nope: No such container: nope`},
		{method: "POST", path: "/containers/web/pause", code: 204, verb: "pause web"},
		{method: "POST", path: "/containers/web/unpause", code: 204, verb: "unpause web"},
		{method: "DELETE", path: "/containers/web?force=1&v=true&link=0", code: 204, verb: `remove web {"Force":true,"Volumes":true,"Link":false}`},
		{method: "DELETE", path: "/containers/web", fail: fault.New(fault.Conflict, "running"), verb: "remove", code: 409, has: `{"message":"running"}`},
		{method: "POST", path: "/containers/web/rename?name=new", code: 204, verb: `rename web "new"`},
		{method: "POST", path: "/containers/web/update", body: `{"Memory":10000000,"PidsLimit":-1}`, code: 200, has: `{"Warnings":null}`, verb: `update web {"Memory":10000000,"PidsLimit":0}`},
		{method: "POST", path: "/containers/web/update", body: `{"RestartPolicy":{"Name":"always"}}`, code: 200, verb: `update web {"Restart":{"Name":"always"}}`},
		{method: "POST", path: "/containers/web/update", body: `{"Ulimits":[{"Name":"core"}]}`, code: 400, has: "Ulimits: cannot be changed"},
		{method: "POST", path: "/containers/web/update", body: `{"CpuCount":1}`, code: 400, has: "CpuCount"},
		{method: "POST", path: "/containers/web/resize?h=10&w=20", code: 200, verb: "resize web 10 20"},
		{method: "POST", path: "/containers/web/resize?h=a&w=20", code: 400, has: `invalid resize height \"a\": invalid syntax`},
		{method: "POST", path: "/containers/web/resize?h=-100&w=20", code: 400, has: `invalid resize height \"-100\": value out of range`},
		{method: "POST", path: "/containers/web/resize?h=1&w=70000", code: 400, has: `invalid resize width \"70000\": value out of range`},
		{method: "POST", path: "/containers/prune?filters=" + q(`{"until":["1h"]}`), code: 200, has: `{"ContainersDeleted":["` + webID + `"],"SpaceReclaimed":7}`, verb: `plan  {"until":["1h"]}`},
		{method: "POST", path: "/containers/prune?filters=" + q(`{"foo":["x"]}`), code: 400, has: "invalid filter 'foo'"},

		{method: "GET", path: "/containers/json?all=1&limit=3&size=1&before=a", code: 200, has: `"Status":"Up About a minute"`, verb: `list  {"All":true,"Limit":3,"Before":"a","Since":"","Filters":null,"Size":true}`},
		{method: "GET", path: "/containers/json?filters=" + q(`{"name":{"c1":true}}`), code: 200, verb: `list  {"All":false,"Limit":0,"Before":"","Since":"","Filters":{"name":["c1"]},"Size":false}`},
		{method: "GET", path: "/containers/json?filters=" + q(`{"annotation":["note=x"]}`), code: 200, has: webID},
		{method: "GET", path: "/containers/json?filters=" + q(`{"annotation":["note=y"]}`), code: 200, has: "[]"},
		{method: "GET", path: "/containers/json?filters=x", code: 400, has: `{"message":"invalid filter"}`},
		{method: "GET", path: "/containers/json?filters=" + q(`{"foo":["x"]}`), code: 400, has: "invalid filter 'foo'"},
		{method: "GET", path: "/containers/json?filters=" + q(`{"status":["x"]}`), code: 400, has: "invalid filter 'status=x'"},
		{method: "GET", path: "/containers/json?filters=" + q(`{"exited":["x"]}`), code: 400, has: "invalid filter 'exited=x'"},
		{method: "GET", path: "/containers/json?limit=x", code: 400, has: "invalid syntax"},
		{method: "GET", path: "/containers/web/json?size=1", code: 200, has: `"SizeRw":5,"SizeRootFs":50`},
		{method: "GET", path: "/containers/91eb2db98720/json", code: 200, has: `"Name":"/web"`},
		{method: "GET", path: "/containers/web/top", code: 200, has: `{"Processes":[["1","sleep"]],"Titles":["PID","CMD"]}`, verb: `top web "-ef"`},
		{method: "GET", path: "/containers/web/logs", code: 400, has: "Bad parameters: you must choose at least one stream"},
		{method: "GET", path: "/containers/web/logs?stdout=1&since=x", code: 400, has: "invalid syntax"},
		{method: "POST", path: "/containers/web/wait?condition=foo", code: 400, has: `invalid condition: \"foo\"`},
		{method: "POST", path: "/containers/nope/wait", code: 404},
		{method: "POST", path: "/containers/nope/attach", code: 404, has: "No such container"},
		{method: "GET", path: "/swarm", code: 503, has: "This node is not a swarm manager."},
		{method: "GET", path: "/services/x", code: 503, has: "This node is not a swarm manager."},
		{method: "POST", path: "/swarm/leave", code: 503, has: "This node is not part of a swarm"},
		{method: "POST", path: "/swarm/init", code: 501, has: "cluster mode is not in this build"},

		{method: "POST", path: "/containers/web/exec", body: `{"Cmd":["a","b"],"Tty":true,"ConsoleSize":[3,4]}`, code: 201, has: `{"Id":"e1"}`, verb: `exec-create web {"Cmd":["a","b"],"TTY":true,"ConsoleSize":[3,4]}`},
		{method: "POST", path: "/containers/web/exec", body: `{"Cmd":[]}`, code: 400, has: "No exec command specified"},
		{method: "POST", path: "/exec/e1/start", body: `{"Detach":true}`, code: 200, verb: `exec-start  "e1" {"Detach":true,"TTY":false,"Rows":0,"Cols":0}`},
		{method: "POST", path: "/exec/nope/start", body: `{"Detach":true}`, code: 404, has: "No such exec instance: nope"},
		{method: "POST", path: "/exec/e1/resize?h=1&w=2", code: 200, verb: `exec-resize  "e1" 1 2`},
		{method: "GET", path: "/exec/e1/json", code: 200, has: `"ExitCode":null`},
		{method: "GET", path: "/exec/nope/json", code: 404},

		{method: "GET", path: "/version", code: 200, has: `"ApiVersion":"1.56","MinAPIVersion":"1.24"`},
		{method: "GET", path: "/info", code: 200, has: `"ServerVersion":"1.2.3"`},
		{method: "GET", path: "/v1.48/info", code: 200, has: `"RuncCommit":{"ID":"","Expected":""}`},
		{method: "GET", path: "/events?since=20&until=10", code: 400, has: "`since` time (20) cannot be after `until` time (10)"},
		{method: "GET", path: "/events?since=1&until=0", code: 400, has: "`since` time (1) cannot be after `until` time (0)"},
		{method: "GET", path: "/events?since=x", code: 400, has: "invalid syntax"},
		{method: "GET", path: "/events?filters=" + q(`{"x":["y"]}`), code: 400, has: "invalid filter 'x'"},
		{method: "GET", path: "/events?since=10&until=20", code: 200},

		{method: "GET", path: "/berth/v1/openapi.json", code: 200, has: `"openapi"`},
		{method: "GET", path: "/berth/v1/containers/web/explain", code: 200, has: `"program":"clone3()\n"`},
		{method: "GET", path: "/berth/v1/kernel", code: 200, has: `"name":"openat2"`},
		{method: "POST", path: "/berth/v1/shutdown", code: 501},
	} {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			f := newFake()
			verb, _, _ := strings.Cut(tt.verb, " ")
			if tt.fail != nil {
				f.fail[verb] = tt.fail
			}
			_, web, _ := serve(t, f)
			code, text, h := ask(t, web, tt.method, tt.path, tt.body)
			if tt.path == "/containers/create" && tt.body == "" {
				code, text, h = askEmptyJSON(t, web.URL+tt.path)
			}
			if code != tt.code || !strings.Contains(text, tt.has) {
				t.Errorf("%d %s\nwant %d …%s…", code, text, tt.code, tt.has)
			}
			if tt.verb != "" && tt.fail == nil && !slices.Contains(f.calls, tt.verb) {
				t.Errorf("the engine was asked %q, want %q", f.calls, tt.verb)
			}
			if code >= 400 && text != "" && h.Get("Content-Type") != "application/json" && !strings.HasPrefix(tt.path, "/v1.23/") && !strings.HasPrefix(tt.path, "/v1/") && !strings.HasSuffix(tt.path, "/attach") {
				t.Errorf("an error as %s", h.Get("Content-Type"))
			}
		})
	}
}

func q(s string) string {
	return strings.NewReplacer("{", "%7B", "}", "%7D", `"`, "%22", "[", "%5B", "]", "%5D", " ", "%20").Replace(s)
}

func askEmptyJSON(t *testing.T, url string) (int, string, http.Header) {
	t.Helper()
	resp, err := http.Post(url, "application/json", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), resp.Header
}

func TestHeaders(t *testing.T) {
	_, web, _ := serve(t, newFake())
	_, _, h := ask(t, web, "GET", "/_ping", "")
	for name, want := range map[string]string{
		"Api-Version": "1.56", "Docker-Experimental": "false", "Ostype": "linux", "Server": "Berth/1.2.3 (linux)", "Berth-Version": "1.2.3",
		"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache", "Swarm": "inactive", "Content-Type": "text/plain; charset=utf-8", "Content-Length": "2",
	} {
		if got := h.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if _, _, h := ask(t, web, "HEAD", "/_ping", ""); h.Get("Api-Version") != "1.56" || h.Get("Content-Length") != "0" {
		t.Errorf("HEAD: %v", h)
	}
	if _, text, h := ask(t, web, "GET", "/v1.10/info", ""); h.Get("Content-Type") != "text/plain; charset=utf-8" || strings.HasPrefix(text, "{") {
		t.Errorf("an old client reads %q as %s", text, h.Get("Content-Type"))
	}
}

func TestContentTypeOfBodies(t *testing.T) {
	_, web, _ := serve(t, newFake())
	for contentType, want := range map[string]string{
		"":                                  "malformed Content-Type header ()",
		"application/x-www-form-urlencoded": "unsupported Content-Type header (application/x-www-form-urlencoded): must be 'application/json'",
		"application/json; charset=utf-8":   "",
		"text/":                             "malformed Content-Type header (text/)",
	} {
		r, _ := http.NewRequest("POST", web.URL+"/containers/create", strings.NewReader(`{"Image":"a","HostConfig":{"NetworkMode":"none"}}`))
		r.Header["Content-Type"] = []string{contentType}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if want == "" && resp.StatusCode != 201 || want != "" && (resp.StatusCode != 400 || !strings.Contains(string(b), want)) {
			t.Errorf("%q: %d %s", contentType, resp.StatusCode, b)
		}
	}
}

func TestBodiesAreBounded(t *testing.T) {
	_, web, _ := serve(t, newFake())
	code, text, _ := ask(t, web, "POST", "/containers/create", `{"Image":"`+strings.Repeat("x", maxBody)+`"}`)
	if code != http.StatusRequestEntityTooLarge || !strings.Contains(text, "too large") {
		t.Errorf("%d %.200s", code, text)
	}
}

func TestPanicsStayInTheirRequest(t *testing.T) {
	f := newFake()
	f.info.Spec = nil // inspect will trip over it
	_, web, _ := serve(t, f)
	if code, text, _ := ask(t, web, "GET", "/containers/web/json", ""); code != 500 || !strings.Contains(text, "internal error") {
		t.Errorf("%d %s", code, text)
	}
	if code, _, _ := ask(t, web, "GET", "/_ping", ""); code != 200 {
		t.Error("the server is gone")
	}
}

// A client starts the container only when it has seen wait's headers.
func TestWaitSendsHeadersAtOnce(t *testing.T) {
	f := newFake()
	_, web, _ := serve(t, f)
	resp, err := http.Post(web.URL+"/v1.45/containers/web/wait?condition=next-exit", "", nil)
	if err != nil {
		t.Fatal(err) // the headers are here, nobody has ended yet
	}
	defer resp.Body.Close()
	f.waits <- container.ExitStatus{Code: 7}
	b, err := io.ReadAll(resp.Body)
	if err != nil || string(b) != "{\"StatusCode\":7}\n" || resp.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%q, %v, %v", b, err, resp.Header)
	}
}

func TestWaitErrors(t *testing.T) {
	for version, want := range map[string]string{"1.45": `{"Error":{"Message":"busy"},"StatusCode":5}`, "1.33": ""} {
		f := newFake()
		_, web, _ := serve(t, f)
		f.waits <- container.ExitStatus{Code: 5, Err: "busy"}
		_, text, _ := ask(t, web, "POST", "/v"+version+"/containers/web/wait?condition=removed", "")
		if strings.TrimSpace(text) != want {
			t.Errorf("%s: %q, want %q", version, text, want)
		}
	}
}

func TestStreamsEndWithTheirClientAndWithTheServer(t *testing.T) {
	s, web, bus := serve(t, newFake())
	resp, err := http.Get(web.URL + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	bus.Publish(eventOf("container", "start"))
	if line, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil || !strings.Contains(line, `"Action":"start"`) {
		t.Fatalf("%q %v", line, err)
	}
	s.leave()
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Errorf("the stream ended with %v", err)
	}
}

func TestShutdown(t *testing.T) {
	f := newFake()
	s := New(Config{Containers: f, System: f})
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	s.Serve(l)
	client := http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", l.Addr().String()) }}}
	resp, err := client.Post("http://x/containers/web/wait", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if b, err := io.ReadAll(resp.Body); err != nil || len(b) != 0 {
		t.Errorf("a wait that was cut short says %q, %v", b, err)
	}
	if _, err := client.Get("http://x/_ping"); err == nil {
		t.Error("it still answers")
	}
}

func TestShutdownRoute(t *testing.T) {
	f := newFake()
	called := make(chan bool, 1)
	s := New(Config{Containers: f, Shutdown: func() { called <- true }})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Serve(l)
	defer s.Shutdown(context.Background())
	resp, err := http.Post("http://"+l.Addr().String()+"/berth/v1/shutdown", "", nil)
	if err != nil || resp.StatusCode != 202 {
		t.Fatal(resp, err)
	}
	resp.Body.Close()
	<-called
}

func TestOversizedHeaders(t *testing.T) {
	s := New(Config{Containers: newFake()})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Serve(l)
	defer s.Shutdown(context.Background())
	r, _ := http.NewRequest("GET", "http://"+l.Addr().String()+"/_ping", nil)
	r.Header.Set("X", strings.Repeat("x", 1<<20))
	resp, err := http.DefaultClient.Do(r)
	if err == nil && resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%v", resp.Status)
	}
}

func TestEveryKindHasACode(t *testing.T) {
	for kind := fault.Internal; kind <= fault.Gone; kind++ {
		if _, ok := codes[kind]; !ok {
			t.Errorf("%s has no status code", kind)
		}
	}
	if codeOf(errors.New("x")) != 500 || codeOf(fmt.Errorf("a: %w", fault.New(fault.NotFound, "b"))) != 404 || codeOf(context.Canceled) != 500 {
		t.Error("codeOf")
	}
}

func TestListUsesTheImagesName(t *testing.T) {
	f := newFake()
	s, web, _ := serve(t, f)
	a := newAlbum()
	s.cfg.Images = a
	if _, text, _ := ask(t, web, "GET", "/containers/json", ""); !strings.Contains(text, `"Image":"busybox"`) {
		t.Error(text)
	}
	a.img.ID = "sha256:other" // the name has moved on
	if _, text, _ := ask(t, web, "GET", "/containers/json", ""); !strings.Contains(text, `"Image":"`+f.info.ImageID+`"`) {
		t.Error(text)
	}
}

func BenchmarkList1000(b *testing.B) {
	f := newFake()
	for range 1000 {
		f.list = append(f.list, f.info)
	}
	s, web, _ := serve(b, f)
	s.cfg.Images = newAlbum()
	for b.Loop() {
		resp, err := http.Get(web.URL + "/v1.45/containers/json?all=1")
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
}

func BenchmarkPing(b *testing.B) {
	_, web, _ := serve(b, newFake())
	for b.Loop() {
		resp, err := http.Head(web.URL + "/_ping")
		if err != nil {
			b.Fatal(err)
		}
		resp.Body.Close()
	}
}

func TestVersionText(t *testing.T) {
	for text, want := range map[string]wire.Version{"1.24": 24, "1.56": 56, "1.44.1": 44, "1": 0, "0.99": 0, "2.0": 1 << 20, "1.": 0, ".5": 0, "1.99999999999": 1<<63 - 1, "..": 0} {
		got := wire.ParseVersion(text)
		if text == "1.99999999999" {
			if got <= wire.Newest {
				t.Errorf("%s: %d", text, got)
			}
		} else if got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
}

func TestInfoTellsWhatConfines(t *testing.T) {
	f := newFake()
	s, web, _ := serve(t, f)
	s.Describe(About{Seccomp: "builtin", NoNewPrivs: true, Labels: []string{"a=b"}, Hosts: []string{"unix:///x", "tcp://127.0.0.1:2375"}})
	_, text, _ := ask(t, web, "GET", "/info", "")
	for _, want := range []string{
		`"SecurityOptions":["name=apparmor","name=seccomp,profile=builtin","name=cgroupns","name=no-new-privileges"]`, `"Labels":["a=b"]`,
		`API is accessible on http://127.0.0.1:2375 without encryption`, `"Containers":3,"ContainersRunning":1,"ContainersPaused":1,"ContainersStopped":1`, `"MemTotal":`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in %s", want, text)
		}
	}
	if strings.Contains(text, `"MemTotal":0`) || strings.Contains(text, `"KernelVersion":""`) {
		t.Error(text)
	}
}

func TestHostFacts(t *testing.T) {
	root := t.TempDir()
	for file, text := range map[string]string{
		"etc/os-release":      "NAME=x\nPRETTY_NAME=\"Some Linux 3\"\nVERSION_ID='3'\n",
		"proc/meminfo":        "MemTotal:       2048 kB\nMemFree: 1 kB\n",
		"proc/self/mountinfo": "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / /srv rw shared:1 - xfs /dev/b rw\n3 1 0:5 / /srvx rw - tmpfs t rw\nbroken\n",
		"etc/machine-id":      "abc\n",
	} {
		path := filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if name, version := osRelease(root); name != "Some Linux 3" || version != "3" {
		t.Errorf("%q %q", name, version)
	}
	if n := memTotal(root); n != 2<<20 {
		t.Error(n)
	}
	for dir, want := range map[string]string{"/var/lib/berth": "extfs", "/srv/berth": "xfs", "/srvx": "tmpfs", "/srv": "xfs"} {
		if got := fileSystem(root, dir); got != want {
			t.Errorf("%s: %s, want %s", dir, got, want)
		}
	}
	a, b := engineID(root, "/a"), engineID(root, "/b")
	if a == b || a != engineID(root, "/a") || len(a) != 36 {
		t.Errorf("%s %s", a, b)
	}
	if name, _ := osRelease(t.TempDir()); name != "Linux" {
		t.Error(name)
	}
}
