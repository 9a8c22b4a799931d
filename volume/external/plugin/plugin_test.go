package plugin_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/base/fault"
	"berth/volume"
	"berth/volume/volumetest"
)

func TestMain(m *testing.M) { volumetest.Main(m) }

// fake is a plugin that keeps volumes in directories and is strict about who has what mounted.
type fake struct {
	dir string

	mu      sync.Mutex
	volumes map[string]map[string]bool // by name: ids of mounts
	calls   []string
	on      map[string]func(w http.ResponseWriter) bool // by method: true when it has answered
	server  *http.Server
}

type request struct {
	Name, ID string
	Opts     map[string]string
}

func start(t *testing.T, sockets, name string) *fake {
	t.Helper()
	f := &fake{dir: t.TempDir(), volumes: map[string]map[string]bool{}, on: map[string]func(http.ResponseWriter) bool{}}
	f.listen(t, filepath.Join(sockets, name+".sock"))
	return f
}

func (f *fake) listen(t *testing.T, socket string) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	f.server = &http.Server{Handler: f}
	go f.server.Serve(l)
	t.Cleanup(func() { f.server.Close() })
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method := strings.TrimPrefix(r.URL.Path, "/")
	var q request
	json.NewDecoder(r.Body).Decode(&q)
	f.mu.Lock()
	f.calls = append(f.calls, strings.TrimPrefix(method, "VolumeDriver.")+" "+q.Name)
	hook := f.on[method]
	f.mu.Unlock()
	if hook != nil && hook(w) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	json.NewEncoder(w).Encode(f.answer(method, &q))
}

func (f *fake) answer(method string, q *request) any {
	type volume struct {
		Name, Mountpoint, CreatedAt string
		Status                      map[string]any
	}
	path := filepath.Join(f.dir, q.Name)
	told := func(name string) volume {
		return volume{name, filepath.Join(f.dir, name), "2024-01-02T03:04:05Z", map[string]any{"mounts": len(f.volumes[name])}}
	}
	refuse := func(text string) any { return map[string]string{"Err": text} }
	users, have := f.volumes[q.Name]
	switch method {
	case "Plugin.Activate":
		return map[string][]string{"Implements": {"VolumeDriver"}}
	case "VolumeDriver.Capabilities":
		return map[string]any{"Capabilities": map[string]string{"Scope": "global"}}
	case "VolumeDriver.List":
		var list []volume
		for n := range f.volumes {
			list = append(list, told(n))
		}
		return map[string]any{"Volumes": list}
	case "VolumeDriver.Create":
		if have {
			return refuse("volume exists")
		}
		if q.Opts["bad"] != "" {
			return refuse("bad option")
		}
		f.volumes[q.Name] = map[string]bool{}
		os.Mkdir(path, 0o755)
		return struct{}{}
	}
	if !have {
		return refuse("no such volume here")
	}
	switch method {
	case "VolumeDriver.Get":
		return map[string]any{"Volume": told(q.Name)}
	case "VolumeDriver.Path":
		return map[string]string{"Mountpoint": path}
	case "VolumeDriver.Mount":
		if users[q.ID] {
			return refuse("mounted twice for " + q.ID)
		}
		users[q.ID] = true
		return map[string]string{"Mountpoint": path}
	case "VolumeDriver.Unmount":
		if !users[q.ID] {
			return refuse("not mounted for " + q.ID)
		}
		delete(users, q.ID)
		return struct{}{}
	case "VolumeDriver.Remove":
		if len(users) > 0 {
			return refuse("in use")
		}
		delete(f.volumes, q.Name)
		os.RemoveAll(path)
		return struct{}{}
	}
	return refuse("no such method")
}

func (f *fake) hook(method string, h func(w http.ResponseWriter) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.on["VolumeDriver."+method] = h
}

func opener(sockets string) func(*testing.T, string, string) *volume.Volumes {
	return func(t *testing.T, root, run string) *volume.Volumes {
		t.Helper()
		v, err := volume.Open(t.Context(), volume.Config{Root: root, RunRoot: run, PluginDirs: []string{sockets}})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestPlugin(t *testing.T) {
	sockets := t.TempDir()
	f := start(t, sockets, "dirs")
	volumetest.Run(t, volumetest.Subject{Driver: "dirs", Open: opener(sockets), NoRename: true})
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.volumes) > 0 {
		t.Errorf("the plugin still has %v", f.volumes)
	}
}

// What a plugin made without us is listed, used and removed like the rest.
func TestForeignVolumes(t *testing.T) {
	sockets := t.TempDir()
	f := start(t, sockets, "dirs")
	f.answer("VolumeDriver.Create", &request{Name: "theirs"})
	v := opener(sockets)(t, t.TempDir(), t.TempDir())
	defer v.Close()
	ctx := t.Context()
	got, err := v.Get(ctx, "theirs")
	if err != nil || got.Driver != "dirs" || got.Scope != "global" || got.Created.Year() != 2024 || got.Status["mounts"] != 0.0 {
		t.Errorf("got %+v, %v", got, err)
	}
	same, err := v.Create(ctx, volume.CreateRequest{Name: "theirs"})
	if err != nil || same.Driver != "dirs" {
		t.Errorf("a create of that name gives %+v, %v", same, err)
	}
	// What is theirs is not taken for a copy of ours, whose failure would remove it.
	if _, err := v.Create(ctx, volume.CreateRequest{Name: "mine", Driver: "dirs"}); err != nil {
		t.Fatal(err)
	}
	if err := v.Clone(ctx, "mine", "theirs"); !fault.Is(err, fault.Conflict) {
		t.Errorf("%v", err)
	}
	if err := v.Remove(ctx, "mine", false); err != nil {
		t.Error(err)
	}
	at, err := v.Mount(ctx, "theirs", "", "c1")
	if err != nil || at != filepath.Join(f.dir, "theirs") {
		t.Errorf("mounted at %q, %v", at, err)
	}
	if err := v.Unmount(ctx, "theirs", "c1"); err != nil {
		t.Error(err)
	}
	if err := v.Remove(ctx, "theirs", false); err != nil {
		t.Error(err)
	}
	// A name that leads out of our directories is nobody's.
	f.mu.Lock()
	f.volumes["../../evil"] = map[string]bool{}
	f.mu.Unlock()
	if _, err := v.Mount(ctx, "../../evil", "", "c1"); !fault.Is(err, fault.Invalid) {
		t.Errorf("%v", err)
	}
	if err := v.Remove(ctx, "../../evil", false); !fault.Is(err, fault.NotFound) {
		t.Errorf("%v", err)
	}
	if list, _, _ := v.List(ctx); len(list) != 0 {
		t.Errorf("left %+v", list)
	}
}

func TestRefusalsAndDyingPlugins(t *testing.T) {
	sockets := t.TempDir()
	f := start(t, sockets, "dirs")
	v := opener(sockets)(t, t.TempDir(), t.TempDir())
	defer v.Close()
	ctx := t.Context()
	_, err := v.Create(ctx, volume.CreateRequest{Name: "bad", Driver: "dirs", Options: map[string]string{"bad": "1"}})
	if err == nil || !strings.Contains(err.Error(), "create bad: ") || !strings.Contains(err.Error(), "bad option") {
		t.Errorf("%v", err)
	}
	if _, err := v.Create(ctx, volume.CreateRequest{Name: "data", Driver: "dirs"}); err != nil {
		t.Fatal(err)
	}

	// It dies in the middle of a mount: the error comes soon, and the user is undone when it is back.
	f.hook("Mount", func(w http.ResponseWriter) bool {
		conn, _, _ := w.(http.Hijacker).Hijack()
		conn.Close()
		return true
	})
	if _, err := v.Mount(ctx, "data", "", "c1"); err == nil || !strings.Contains(err.Error(), `plugin "dirs"`) {
		t.Errorf("%v", err)
	}
	// It says nonsense.
	f.hook("Mount", func(w http.ResponseWriter) bool { w.Write([]byte(`{"Mountpoint":"relative"}`)); return true })
	if _, err := v.Mount(ctx, "data", "", "c1"); err == nil || !strings.Contains(err.Error(), "which is no path") {
		t.Errorf("%v", err)
	}
	// It hangs: the caller's patience counts.
	hung := make(chan struct{})
	f.hook("Mount", func(http.ResponseWriter) bool { <-hung; return true })
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err = v.Mount(short, "data", "", "c1")
	if !fault.Is(err, fault.Deadline) || time.Since(begin) > 8*time.Second {
		t.Errorf("after %v: %v", time.Since(begin), err)
	}
	close(hung)
	f.hook("Mount", nil)
	if _, err := v.Mount(ctx, "data", "", "c2"); err != nil {
		t.Error(err)
	}
	v.Unmount(ctx, "data", "c2")

	// It is gone: listing tells so and shows what is on record, force forgets.
	f.server.Close()
	short, cancel = context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	list, warnings, err := v.List(short)
	if err != nil || len(list) != 1 || list[0].Name != "data" || len(warnings) > 1 {
		t.Errorf("list %+v, warnings %q, %v", list, warnings, err)
	}
	short, cancel = context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if err := v.Remove(short, "data", false); err == nil {
		t.Error("removed without its plugin")
	}
	short, cancel = context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if err := v.Remove(short, "data", true); err != nil {
		t.Errorf("force: %v", err)
	}
}
