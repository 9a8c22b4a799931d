package server

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/api/access"
	"berth/base/event"
	"berth/base/fault"
	"berth/engine"
	"berth/engine/container"
)

// Whoever adds a route says to which verb it belongs, and what a scope means for it.
func TestEveryRouteHasAVerb(t *testing.T) {
	have := map[string]bool{}
	all := rules()
	for _, r := range routes() {
		key := r.method + " " + r.path
		have[key] = true
		rule, ok := all[key]
		if !ok {
			t.Errorf("%s has no verb: add it to class.go", key)
			continue
		}
		named := strings.HasPrefix(r.path, "/containers/{name}") || strings.HasPrefix(r.path, "/berth/v1/containers/{name}")
		if named && rule.Reach != access.Container && rule.Reach != access.Closed {
			t.Errorf("%s names a container, and its reach is %s", key, rule.Reach)
		}
		if strings.HasPrefix(r.path, "/exec/{name}") && rule.Reach != access.Execution {
			t.Errorf("%s names an exec, and its reach is %s", key, rule.Reach)
		}
		if changes := r.method == "POST" || r.method == "PUT" || r.method == "DELETE"; changes && slices.Contains(access.ReadOnly(), rule.Verb) && r.path != "/containers/{name}/wait" {
			t.Errorf("%s changes something, and read-only sockets allow it", key)
		}
	}
	for key := range all {
		if !have[key] {
			t.Errorf("%s is no route any more: take it out of class.go", key)
		}
	}
}

// town is an engine with containers of two teams.
type town struct {
	*fake
	all []container.Info
}

const (
	mineID   = "aaaa0000aaaa0000aaaa0000aaaa0000aaaa0000aaaa0000aaaa0000aaaa0000"
	theirsID = "aaaa1111aaaa1111aaaa1111aaaa1111aaaa1111aaaa1111aaaa1111aaaa1111"
)

func newTown() *town {
	t := &town{fake: newFake()}
	for _, one := range []struct{ id, name, team string }{{mineID, "mine", "a"}, {theirsID, "theirs", "b"}, {webID, "web", ""}} {
		i := t.info
		spec := *i.Spec
		spec.Labels = map[string]string{}
		if one.team != "" {
			spec.Labels["team"] = one.team
		}
		spec.Process.Env = []string{"PASSWORD=secret"}
		i.ID, i.Name, i.Spec = one.id, one.name, &spec
		t.all = append(t.all, i)
	}
	return t
}

func (t *town) find(ref string) (found []container.Info) {
	for _, i := range t.all {
		if i.Name == ref || i.ID == ref {
			return []container.Info{i}
		}
		if strings.HasPrefix(i.ID, ref) {
			found = append(found, i)
		}
	}
	return found
}

func (t *town) Inspect(_ context.Context, ref string) (container.Info, error) {
	switch found := t.find(ref); len(found) {
	case 1:
		return found[0], nil
	case 0:
		return container.Info{}, fault.New(fault.NotFound, "No such container: %s", ref)
	}
	return container.Info{}, fault.New(fault.Invalid, "multiple IDs found with provided prefix: %s", ref)
}

func (t *town) List(_ context.Context, o engine.ListOptions) (out []container.Info, err error) {
	for _, i := range t.all {
		if hasAll(i.Spec.Labels, o.Filters["label"]) {
			out = append(out, i)
		}
	}
	if o.Limit > 0 {
		out = out[:min(o.Limit, len(out))]
	}
	return out, nil
}

func (t *town) ExecInspect(_ context.Context, id string) (engine.ExecInfo, error) {
	owner := map[string]string{"e-mine": mineID, "e-theirs": theirsID}[id]
	if owner == "" {
		return engine.ExecInfo{}, fault.New(fault.NotFound, "No such exec instance: %s", id)
	}
	return engine.ExecInfo{ID: id, ContainerID: owner}, nil
}

// Verbs of the fake know one container only; here they note what they were asked for.
func (t *town) Start(_ context.Context, ref string) error { return t.noteAny("start", ref) }
func (t *town) Remove(_ context.Context, ref string, _ engine.RemoveOptions) error {
	return t.noteAny("remove", ref)
}
func (t *town) Kill(_ context.Context, ref, _ string) error { return t.noteAny("kill", ref) }

func (t *town) noteAny(verb, ref string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls = append(t.calls, verb+" "+ref)
	return nil
}

func (t *town) done() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.calls)
}

func scoped(t *testing.T, town *town, p access.Policy, told func(access.Entry)) *Server {
	t.Helper()
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	s := New(Config{Containers: town, System: town, Events: event.New(nil), Audit: Audit{Write: told}, Now: func() time.Time { return at }})
	return s.Scoped(&p)
}

// knock sends a request as a client on a unix socket does.
func knock(s *Server, request, body string) (int, string) {
	method, path, _ := strings.Cut(request, " ")
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// What Traefik's docker provider asks for is answered on a read-only socket; what would change anything is refused and reaches nobody.
func TestReadOnlySocketServesTraefik(t *testing.T) {
	town := newTown()
	s := scoped(t, town, access.Policy{Name: "traefik", ReadOnly: true}, nil)
	for _, r := range []string{
		"HEAD /_ping", "GET /_ping", "GET /version", "GET /v1.24/version", "GET /v1.24/containers/json?limit=0", "GET /v1.24/containers/" + mineID + "/json",
		"GET /v1.24/containers/theirs/json", "GET /v1.44/info",
	} {
		if code, body := knock(s, r, ""); code != http.StatusOK {
			t.Errorf("%s: %d %s", r, code, body)
		}
	}
	for _, c := range []struct{ request, body string }{
		{"POST /v1.24/containers/create", `{"Image":"box"}`},
		{"POST /v1.24/containers/create", `{"Image":"box","HostConfig":{"Binds":["/:/host"]}}`},
		{"POST /v1.24/containers/mine/exec", `{"Cmd":["sh"]}`},
		{"POST /v1.24/exec/e-mine/start", `{}`},
		{"POST /v1.24/containers/mine/start", ""}, {"POST /v1.24/containers/mine/kill", ""}, {"DELETE /v1.24/containers/mine?force=1", ""},
		{"POST /containers/mine/attach?stream=1", ""}, {"PUT /containers/mine/archive?path=/", "{}"}, {"GET /containers/mine/archive?path=/etc", ""},
		{"GET /containers/mine/export", ""}, {"POST /berth/v1/shutdown", ""}, {"POST /berth/v1/access", `{"name":"x","verbs":["admin"]}`}, {"POST /containers/prune", ""},
	} {
		code, body := knock(s, c.request, c.body)
		if code != http.StatusForbidden || !strings.Contains(body, `access \"traefik\"`) {
			t.Errorf("%s: %d %s", c.request, code, body)
		}
	}
	if got := town.done(); len(got) > 0 {
		t.Errorf("it reached the engine: %q", got)
	}
}

// On a socket with a scope, what is not in it does not exist: in lists, by name, by id, by the beginning of an id, as filter.
func TestScopeHides(t *testing.T) {
	town := newTown()
	s := scoped(t, town, access.Policy{Name: "ci", Verbs: access.Verbs(), Label: "team=a"}, nil)
	for _, c := range []struct {
		request string
		code    int
		want    string // in the answer
		never   string // in the answer
	}{
		{"GET /containers/json?all=1", 200, "mine", "theirs"},
		{"GET /containers/json?all=1&limit=1", 200, mineID, theirsID},
		{"GET /containers/json?filters=" + url.QueryEscape(`{"label":["team=b"]}`), 200, "[]", "theirs"},
		{"GET /containers/json?since=theirs", 404, "No such container: theirs", ""},
		{"GET /containers/json?filters=" + url.QueryEscape(`{"before":["theirs"]}`), 404, "No such container: theirs", ""},
		{"GET /containers/mine/json", 200, mineID, ""},
		{"GET /containers/aaaa/json", 200, mineID, ""}, // ambiguous to who sees all
		{"GET /containers/theirs/json", 404, "No such container: theirs", ""},
		{"GET /containers/" + theirsID + "/json", 404, "No such container: " + theirsID, ""},
		{"GET /containers/aaaa1/json", 404, "No such container: aaaa1", ""},
		{"GET /containers/web/json", 404, "No such container: web", ""},
		{"GET /containers/web/logs?stdout=1", 404, "No such container: web", ""},
		{"GET /containers/nothing/json", 404, "No such container: nothing", ""},
		{"POST /containers/theirs/start", 404, "No such container", ""},
		{"POST /containers/theirs/kill", 404, "No such container", ""},
		{"DELETE /containers/theirs?force=1", 404, "No such container", ""},
		{"POST /containers/mine/start", 204, "", ""},
		{"GET /exec/e-mine/json", 200, mineID, ""},
		{"GET /exec/e-theirs/json", 404, "No such exec instance: e-theirs", ""},
		{"GET /exec/nothing/json", 404, "No such exec instance: nothing", ""},
		{"GET /info", 200, `"Containers":1,`, ""},
		{"POST /berth/v1/shutdown", 403, "concerns everybody", ""},
		{"POST /commit?container=mine", 403, "concerns everybody", ""},
		{"GET /plugins/theirs/json", 404, "plugin", ""},
	} {
		code, body := knock(s, c.request, "")
		if code != c.code || !strings.Contains(body, c.want) || c.never != "" && strings.Contains(body, c.never) {
			t.Errorf("%s: %d %s", c.request, code, body)
		}
	}
	if got, want := town.done(), []string{"start " + mineID}; !slices.Equal(got, want) {
		t.Errorf("the engine was asked for %q, want %q", got, want)
	}
}

func TestScopeMarks(t *testing.T) {
	town := newTown()
	s := scoped(t, town, access.Policy{Name: "ci", Verbs: access.Verbs(), Label: "team=a"}, nil)
	if code, body := knock(s, "POST /containers/create?name=n", `{"Image":"box","Labels":{"x":"y"}}`); code != http.StatusCreated {
		t.Fatal(code, body)
	}
	if last := town.last(); !strings.Contains(last, `"team":"a"`) || !strings.Contains(last, `"x":"y"`) {
		t.Errorf("%s", last)
	}
	for _, body := range []string{
		`{"Image":"box","Labels":{"team":"b"}}`,
		`{"Image":"box","HostConfig":{"Binds":["/:/host"]}}`,
		`{"Image":"box","HostConfig":{"Mounts":[{"Type":"bind","Source":"/","Target":"/h"}]}}`,
		`{"Image":"box","HostConfig":{"Privileged":true}}`,
		`{"Image":"box","HostConfig":{"PidMode":"container:theirs"}}`,
		`{"Image":"box","HostConfig":{"NetworkMode":"container:theirs"}}`,
		`{"Image":"box","HostConfig":{"IpcMode":"container:web"}}`,
		`{"Image":"box","HostConfig":{"VolumesFrom":["theirs"]}}`,
		`{"Image":"box","HostConfig":{"Links":["theirs:x"]}}`,
		`{"Image":"box","HostConfig":{"NetworkMode":"host"}}`,
		`{"Image":"box","hostconfig":{"privileged":true}}`, // names match in any case
	} {
		// The handler may miss what is not in the scope before the policy does.
		if code, answer := knock(s, "POST /containers/create", body); code != http.StatusForbidden && !strings.Contains(answer, "No such container") {
			t.Errorf("%s: %d %s", body, code, answer)
		}
	}
	if code, answer := knock(s, "POST /containers/mine/exec", `{"Cmd":["sh"],"Privileged":true}`); code != http.StatusForbidden {
		t.Errorf("a privileged exec: %d %s", code, answer)
	}
}

// Who has a name or a port of the host is not told.
func TestScopeKeepsNamesToItself(t *testing.T) {
	town := newTown()
	s := scoped(t, town, access.Policy{Name: "ci", Verbs: access.Verbs(), Label: "team=a"}, nil)
	town.fail["create"] = fault.New(fault.Conflict, "Conflict. The container name \"/theirs\" is already in use by container %q.", theirsID)
	town.fail["restart"] = fault.New(fault.Conflict, "driver failed: Bind for 0.0.0.0:80 failed: port is already allocated (container theirs)")
	for request, body := range map[string]string{"POST /containers/create?name=theirs": `{"Image":"box"}`, "POST /containers/mine/restart": ""} {
		code, answer := knock(s, request, body)
		if code != http.StatusConflict || strings.Contains(answer, theirsID) || strings.Contains(answer, "container theirs") {
			t.Errorf("%s: %d %s", request, code, answer)
		}
	}
}

func TestEnvironmentIsHidden(t *testing.T) {
	s := scoped(t, newTown(), access.Policy{Name: "x", ReadOnly: true, HideEnv: true}, nil)
	code, body := knock(s, "GET /containers/mine/json", "")
	if code != 200 || strings.Contains(body, "secret") || !strings.Contains(body, "PASSWORD="+access.Hidden) {
		t.Errorf("%d %s", code, body)
	}
	for _, r := range []string{"GET /containers/mine/top?ps_args=eww", "GET /containers/mine/logs?stdout=1&details=1"} {
		if code, body := knock(s, r, ""); code != http.StatusForbidden {
			t.Errorf("%s: %d %s", r, code, body)
		}
	}
}

// The end of a socket's time counts by the clock, also where the timer that removes the socket is late.
func TestExpiredSocketRefuses(t *testing.T) {
	for end, want := range map[time.Duration]int{time.Second: 200, 0: 403, -time.Hour: 403} {
		p := access.Policy{Name: "ci", ReadOnly: true, Expires: at.Add(end)}
		if code, body := knock(scoped(t, newTown(), p, nil), "GET /containers/json", ""); code != want {
			t.Errorf("%v before its end: %d %s", end, code, body)
		}
	}
}

// Images are everybody's; when somebody last used one is not.
func TestScopeHidesUseOfImages(t *testing.T) {
	a := newAlbum()
	a.img.LastUsed = at
	plain := New(Config{Containers: newTown(), Images: a})
	narrow := plain.Scoped(&access.Policy{Name: "ci", ReadOnly: true, Label: "team=a"})
	for _, r := range []string{"GET /berth/v1/images", "GET /berth/v1/images/busybox/sources"} {
		for s, tells := range map[*Server]bool{plain: true, narrow: false} {
			if code, body := knock(s, r, ""); code != http.StatusOK || strings.Contains(body, `"lastUsed":"2`) != tells {
				t.Errorf("%s: %d %s, tells %v", r, code, body, tells)
			}
		}
	}
	if a.img.LastUsed.IsZero() {
		t.Error("the image itself was changed")
	}
}

// Events of others do not reach a socket with a scope.
func TestScopeOfEvents(t *testing.T) {
	town := newTown()
	bus := event.New(nil)
	p := access.Policy{Name: "ci", ReadOnly: true, Label: "team=a"}
	s := New(Config{Containers: town, Events: bus}).Scoped(&p)
	web := httptest.NewServer(s)
	defer web.Close()
	answer, err := http.Get(web.URL + "/events?until=" + "9999999999")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	for _, e := range []event.Event{
		{Type: "container", Action: "start", ID: theirsID, Attributes: map[string]string{"team": "b"}},
		{Type: "image", Action: "pull", ID: "box"},
		{Type: "daemon", Action: "reload"},
		{Type: "container", Action: "die", ID: mineID, Attributes: map[string]string{"team": "a"}},
	} {
		bus.Publish(e)
	}
	var first struct{ Action string }
	if err := json.NewDecoder(answer.Body).Decode(&first); err != nil || first.Action != "die" {
		t.Errorf("%+v, %v", first, err)
	}
}

func TestAuditEntries(t *testing.T) {
	var got []access.Entry
	s := scoped(t, newTown(), access.Policy{Name: "ci", Verbs: []access.Verb{access.Read, access.Start}}, func(e access.Entry) { got = append(got, e) })
	knock(s, "POST /v1.44/containers/mine/start", "")
	knock(s, "DELETE /v1.44/containers/mine", "")
	knock(s, "GET /nothing", "")
	knock(s, "GET /containers/%2e%2e/json", "")
	if len(got) != 4 {
		t.Fatalf("%d entries: %+v", len(got), got)
	}
	for i, want := range []access.Entry{
		{Method: "POST", Path: "/containers/mine/start", Verb: access.Start, Object: "mine", Decision: access.Allowed, Status: 204, API: "1.44"},
		{Method: "DELETE", Path: "/containers/mine", Verb: access.Remove, Object: "mine", Decision: access.Denied, Status: 403, API: "1.44"},
		{Method: "GET", Path: "/nothing", Decision: access.Denied, Status: 404},
		{Method: "GET", Path: "/containers/../json", Decision: access.Denied, Status: 400},
	} {
		e := got[i]
		if e.Socket != "ci" || e.Method != want.Method || e.Path != want.Path || e.Verb != want.Verb || e.Object != want.Object || e.Decision != want.Decision || e.Status != want.Status || e.API != want.API {
			t.Errorf("%+v, want %+v", e, want)
		}
	}
}

// broken is an engine with a defect.
type broken struct{ *town }

func (b *broken) Kill(context.Context, string, string) error { panic("a defect") }

// A request that ends in a panic is written down like others.
func TestAuditOfPanics(t *testing.T) {
	var got []access.Entry
	s := New(Config{Containers: &broken{newTown()}, Audit: Audit{All: true, Write: func(e access.Entry) { got = append(got, e) }}})
	if code, body := knock(s, "POST /containers/mine/kill", ""); code != http.StatusInternalServerError {
		t.Errorf("%d %s", code, body)
	}
	if len(got) != 1 || got[0].Status != 500 || got[0].Verb != access.Stop || got[0].Decision != access.Allowed || got[0].Reason == "" {
		t.Errorf("%+v", got)
	}
}

// The rooms of an access socket are narrowed method by method. One that is not here is new: does it take names that no path has, or tell of
// others' things? Then narrow.go must have it. Those in capitals are there.
func TestEveryMethodIsNarrowed(t *testing.T) {
	for _, c := range []struct {
		room    reflect.Type
		methods string
	}{
		{reflect.TypeFor[Containers](), `Attach Changes Commit CONNECTNETWORK CopyFrom CopyTo CREATE DISCONNECTNETWORK EXECCREATE
			ExecInspect ExecResize ExecStart EXPLAIN Export INSPECT Kill LIST LOGS Pause PLANPRUNE Prune PublishPorts Remove RENAME Resize RESTART Size START StatPath Stats
			Stop TOP Unpause UPDATE VolumeUsers Wait`},
		{reflect.TypeFor[Images](), `ApplyPrune Check Count DISKUSAGE HistoryFor Import LIST Load Manifests OpenBlob PlanPruneWithout Remove
			Repair RESOLVE RESOLVEPLATFORM SaveWith Sources Tag`},
		{reflect.TypeFor[Networks](), `Audit CREATE Drivers ENDPOINTS Firewall GET LIST Pools Remove Rules`},
		{reflect.TypeFor[Volumes](), `ApplyPrune Clone CREATE Export GET Import LIST PLANPRUNE REMOVE Rename Size Snapshot`},
		{reflect.TypeFor[Events](), `Publish SUBSCRIBE`},
		{reflect.TypeFor[System](), `INFO`},
	} {
		known := strings.Fields(c.methods)
		for i := range c.room.NumMethod() {
			name := c.room.Method(i).Name
			if !slices.Contains(known, name) && !slices.Contains(known, strings.ToUpper(name)) {
				t.Errorf("%s.%s: what does it mean on a socket with a scope? See narrow.go", c.room.Name(), name)
			}
		}
	}
}
