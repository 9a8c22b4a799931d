package server

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/api/server/wire"
	"berth/base/event"
	"berth/base/fault"
	"berth/base/removal"
	"berth/engine"
	"berth/engine/container"
	"berth/image/layer"
	"berth/kernel/cgroup"
	"berth/network"
)

var update = flag.Bool("update", false, "write golden files anew")

// at is the moment at which everything in these tests happens.
var at = time.Date(2026, 3, 4, 5, 6, 7, 89, time.UTC)

const webID = "91eb2db987208f71f5c1753beb25bc5b0b86fc1a6b4d6aaba20be2c516592b87"

// fake stands for the engine: one container, "web", and what a test puts in.
type fake struct {
	stat    engine.PathStat
	changes []layer.Change
	mu      sync.Mutex
	calls   []string // verbs as they came, with their arguments as JSON

	info     container.Info
	list     []container.Info
	fail     map[string]error // verb to what it answers
	waits    chan container.ExitStatus
	process  engine.Conn // what attach and exec start hand out
	tty      bool
	lines    engine.LogReader
	execSpec container.ExecSpec
	exitCode *int
	execRuns atomic.Bool
	stats    engine.Stats
	users    map[string][]string // by volume
}

func newFake() *fake {
	return &fake{
		info: container.Info{
			ID: webID, Name: "web", Created: at, Path: "sleep", Args: []string{"1000"}, ImageID: "sha256:" + webID, Platform: "linux", Driver: "overlay2",
			Command: "sleep 1000", Spec: &container.Spec{Image: "busybox", Hostname: "91eb2db98720", Network: container.Network{Mode: "none"},
				Process: container.Process{Cmd: []string{"sleep", "1000"}}, Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"note": "x"},
				Mounts: []container.Mount{{Type: "bind", Source: "/tmp", Target: "/x", FromBinds: true}}},
			Mounts: []container.MountPoint{{Type: "bind", Source: "/tmp", Destination: "/x", RW: true, Propagation: "rprivate"}},
			State:  container.State{Status: container.Running, Running: true, Pid: 77, StartedAt: at},
			Upper:  "/u", Work: "/w", Lower: []string{"/l"},
		},
		fail: map[string]error{}, waits: make(chan container.ExitStatus, 1),
	}
}

// note remembers a call and gives the failure that the test asked for.
func (f *fake) note(verb, ref string, args ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	text := verb + " " + ref
	for _, a := range args {
		b, _ := json.Marshal(a)
		text += " " + string(b)
	}
	f.calls = append(f.calls, text)
	if err := f.fail[verb]; err != nil {
		return err
	}
	if ref != "" && ref != "web" && !strings.HasPrefix(webID, ref) {
		return fault.New(fault.NotFound, "No such container: %s", ref)
	}
	return nil
}

func (f *fake) last() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.calls) == 0 {
		return ""
	}
	return f.calls[len(f.calls)-1]
}

func (f *fake) Create(_ context.Context, name string, s container.Spec) (engine.CreateResult, error) {
	return engine.CreateResult{ID: webID}, f.note("create", "", name, s)
}
func (f *fake) Start(_ context.Context, ref string) error { return f.note("start", ref) }
func (f *fake) Stop(_ context.Context, ref string, o engine.StopOptions) error {
	return f.note("stop", ref, o)
}
func (f *fake) Restart(_ context.Context, ref string, o engine.StopOptions) error {
	return f.note("restart", ref, o)
}
func (f *fake) Kill(_ context.Context, ref, signal string) error { return f.note("kill", ref, signal) }
func (f *fake) Pause(_ context.Context, ref string) error        { return f.note("pause", ref) }
func (f *fake) Unpause(_ context.Context, ref string) error      { return f.note("unpause", ref) }
func (f *fake) Remove(_ context.Context, ref string, o engine.RemoveOptions) error {
	return f.note("remove", ref, o)
}
func (f *fake) Rename(_ context.Context, ref, name string) error { return f.note("rename", ref, name) }
func (f *fake) Commit(_ context.Context, ref string, o engine.CommitOptions) (string, error) {
	return "sha256:c0", f.note("commit", ref, o)
}
func (f *fake) StatPath(_ context.Context, ref, name string) (engine.PathStat, error) {
	return f.stat, f.note("stat", ref, name)
}
func (f *fake) CopyFrom(_ context.Context, ref, name string, begin func(engine.PathStat) (io.Writer, error)) error {
	if err := f.note("copy-from", ref, name); err != nil {
		return err
	}
	w, err := begin(f.stat)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, "tar")
	return err
}
func (f *fake) CopyTo(_ context.Context, ref, dir string, r io.Reader, o engine.CopyOptions) error {
	b, err := io.ReadAll(r)
	return errors.Join(err, f.note("copy-to", ref, dir, string(b), o))
}
func (f *fake) Changes(_ context.Context, ref string) ([]layer.Change, error) {
	return f.changes, f.note("changes", ref)
}
func (f *fake) Export(_ context.Context, ref string, w io.Writer) error {
	_, err := io.WriteString(w, "tar")
	return errors.Join(err, f.note("export", ref))
}
func (f *fake) Update(_ context.Context, ref string, r container.Resources, p *container.Restart) ([]string, error) {
	return nil, f.note("update", ref, struct {
		container.Resources
		Restart *container.Restart `json:",omitempty"`
	}{r, p})
}
func (f *fake) Wait(_ context.Context, ref string, c container.WaitCondition) (<-chan container.ExitStatus, error) {
	return f.waits, f.note("wait", ref, c)
}
func (f *fake) PlanPrune(_ context.Context, filters container.Filters) (*removal.Plan, error) {
	return &removal.Plan{Version: removal.Version, Remove: []removal.Item{{Kind: removal.Container, ID: webID, Name: "web", Look: "web", Size: 7}}, Spare: []removal.Item{}, Reclaimable: 7}, f.note("plan", "", filters)
}
func (f *fake) Prune(_ context.Context, p *removal.Plan) (removal.Outcome, error) {
	var out removal.Outcome
	for _, i := range removal.Of(p.Remove, removal.Container) {
		out.Done(i)
	}
	return out, f.note("prune", "", removedIDs(out))
}
func (f *fake) Inspect(_ context.Context, ref string) (container.Info, error) {
	return f.info, f.note("inspect", ref)
}
func (f *fake) List(_ context.Context, o engine.ListOptions) ([]container.Info, error) {
	if f.list != nil {
		return f.list, nil
	}
	return []container.Info{f.info}, f.note("list", "", o)
}
func (f *fake) Size(_ context.Context, ref string) (int64, int64, error) {
	return 5, 50, f.note("size", ref)
}
func (f *fake) Top(_ context.Context, ref, args string) (engine.Top, error) {
	return engine.Top{Titles: []string{"PID", "CMD"}, Processes: [][]string{{"1", "sleep"}}}, f.note("top", ref, args)
}
func (f *fake) Stats(_ context.Context, ref string) (engine.Stats, error) {
	return f.stats, f.note("stats", ref)
}
func (f *fake) Attach(_ context.Context, ref string, o engine.AttachOptions) (engine.Attachment, error) {
	return engine.Attachment{Conn: f.process, TTY: f.tty}, f.note("attach", ref, o)
}
func (f *fake) Logs(_ context.Context, ref string, o engine.LogOptions) (engine.LogReader, error) {
	return f.lines, f.note("logs", ref, o)
}
func (f *fake) Resize(_ context.Context, ref string, rows, cols uint16) error {
	return f.note("resize", ref, rows, cols)
}
func (f *fake) ExecCreate(_ context.Context, ref string, e container.ExecSpec) (string, error) {
	return "e1", f.note("exec-create", ref, e)
}
func (f *fake) ExecStart(_ context.Context, id string, o engine.ExecStartOptions) (engine.Attachment, error) {
	return engine.Attachment{Conn: f.process, TTY: f.tty}, f.note("exec-start", "", id, o)
}
func (f *fake) ExecInspect(_ context.Context, id string) (engine.ExecInfo, error) {
	if id != "e1" {
		return engine.ExecInfo{}, fault.New(fault.NotFound, "No such exec instance: %s", id)
	}
	return engine.ExecInfo{ID: id, ContainerID: webID, Spec: f.execSpec, ExitCode: f.exitCode, Pid: 9, Running: f.execRuns.Load()}, nil
}
func (f *fake) ExecResize(_ context.Context, id string, rows, cols uint16) error {
	return f.note("exec-resize", "", id, rows, cols)
}
func (f *fake) Explain(_ context.Context, ref string) (engine.Explanation, error) {
	return engine.Explanation{ID: webID, Name: "web", Program: "clone3()\n", Cgroup: "/berth/" + webID}, f.note("explain", ref)
}
func (f *fake) ConnectNetwork(_ context.Context, name, ref string, s network.EndpointSpec) error {
	return f.note("connect", ref, name, s)
}
func (f *fake) DisconnectNetwork(_ context.Context, name, ref string, force bool) error {
	return f.note("disconnect", ref, name, force)
}
func (f *fake) PublishPorts(_ context.Context, ref string, add, remove []network.PortSpec) ([]network.Port, error) {
	return nil, f.note("publish", ref, add, remove)
}
func (f *fake) HandOverPorts(_ context.Context, from, to string, ports []network.PortSpec) ([]network.Port, error) {
	return nil, f.note("hand-over", from, to, ports)
}
func (f *fake) VolumeUsers(name string) []string { return f.users[name] }
func (f *fake) Info(context.Context) engine.Facts {
	return engine.Facts{Containers: 3, Running: 1, Paused: 1, Stopped: 1, CgroupDriver: "cgroupfs", CgroupVersion: "2", DataRoot: "/var/lib/berth",
		Driver: "overlay2", DefaultRuntime: "berth", LogDriver: "json-file", AppArmor: true}
}

// serve makes a server on the fake and a socket for it.
func serve(t testing.TB, f *fake) (*Server, *httptest.Server, *event.Bus) {
	t.Helper()
	bus := event.New(func() time.Time { return at })
	s := New(Config{
		Containers: f, System: f, Events: bus, About: About{Version: "1.2.3", Commit: "abc"},
		Defaults: wire.Defaults{LogDriver: "json-file", IPCMode: "private", CgroupnsMode: "private", Runtime: "berth", ShmSize: 64 << 20},
		Now:      func() time.Time { return at.Add(time.Minute) },
	})
	web := httptest.NewUnstartedServer(s)
	web.Config.BaseContext = s.http.BaseContext
	web.Start()
	t.Cleanup(func() {
		s.leave()
		web.CloseClientConnections()
		web.Close()
		s.pumps.Wait()
	})
	return s, web, bus
}

// ask sends one request. A body that begins with { or is marked by a leading space is sent as JSON.
func ask(t testing.TB, web *httptest.Server, method, path, body string) (int, string, http.Header) {
	t.Helper()
	r, err := http.NewRequest(method, web.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	client := *web.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text), resp.Header
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s is not current; run the test with -update (-want +got):\n%s", path, diff)
	}
}

func exitSample() container.ExitStatus { return container.ExitStatus{Code: 3} }

func statsSample() engine.Stats {
	return engine.Stats{
		ID: webID, Name: "web", Read: at, CPUs: 2, Memory: 8 << 30, Running: true,
		Cgroup: cgroup.Stats{
			CPU:    cgroup.CPUStats{Usage: 3e9, User: 1e9, System: 2e9},
			Memory: cgroup.MemoryStats{Usage: 1 << 20, Limit: cgroup.Unlimited, Stat: map[string]uint64{"anon": 5}},
			Pids:   cgroup.PidsStats{Current: 2, Limit: 100},
			IO:     cgroup.IOStats{Bytes: []cgroup.IOEntry{{Major: 8, Op: "Read", Value: 4096}}},
		},
	}
}
