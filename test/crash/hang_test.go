package crash

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// prompt is how long what waits for nothing may take on a machine that is busy with other tests.
const prompt = 10 * time.Second

// soon asks with a bound.
func (e *engine) soon(method, path string, body any, within time.Duration) (code int, answer string, err error) {
	var r io.Reader
	if body != nil {
		b, _ := json.Marshal(body)
		r = strings.NewReader(string(b))
	}
	if !strings.HasPrefix(path, "/berth/") {
		path = "/v1.44" + path
	}
	ctx, cancel := context.WithTimeout(e.t.Context(), within)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://berth"+path, r)
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Content-Type", "application/json")
	client := *e.client
	client.Timeout = 0
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// answers checks that everything that only tells answers at once.
func (e *engine) answers(what string, names ...string) {
	e.t.Helper()
	now := time.Now().Unix()
	paths := []string{"/containers/json?all=1", "/info", "/version", "/images/json", "/volumes", "/networks", "/system/df", fmt.Sprintf("/events?since=%d&until=%d", now-100, now), "/berth/v1/waits"}
	for _, n := range names {
		paths = append(paths, "/containers/"+n+"/json", "/containers/"+n+"/logs?stdout=1", "/containers/"+n+"/stats?stream=0&one-shot=1")
	}
	for _, p := range paths {
		begun := time.Now()
		code, b, err := e.soon("GET", p, nil, prompt)
		if err != nil || code != http.StatusOK {
			e.t.Errorf("%s: GET %s: %d %s %v after %v", what, p, code, b, err, time.Since(begun))
		}
	}
}

// runs starts a container beside what hangs, and removes it.
func (e *engine) runs(what, name string) {
	e.t.Helper()
	for _, r := range []struct{ method, path string }{
		{"POST", "/containers/create?name=" + name}, {"POST", "/containers/" + name + "/start"}, {"POST", "/containers/" + name + "/kill"}, {"DELETE", "/containers/" + name + "?force=1"},
	} {
		var body any
		if strings.Contains(r.path, "create") {
			body = map[string]any{"Image": "busybox", "Cmd": []string{"sleep", "1000"}, "HostConfig": map[string]any{"NetworkMode": "none"}}
		}
		if code, b, err := e.soon(r.method, r.path, body, 2*prompt); err != nil || code >= 400 {
			e.t.Errorf("%s: %s %s: %d %s %v", what, r.method, r.path, code, b, err)
			return
		}
	}
}

func hangEngine(t *testing.T) *engine {
	t.Helper()
	e := newEngine(t)
	e.start()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the engine said:\n%s", e.tail())
		}
		e.end()
	})
	if code, b := e.insist("POST", "/images/load?quiet=1", busyboxImage(t)); code != http.StatusOK {
		t.Fatalf("load: %d %s", code, b)
	}
	return e
}

func (e *engine) create(name, script string, host map[string]any) {
	e.t.Helper()
	body := map[string]any{"Image": "busybox", "Cmd": []string{"sh", "-c", script}, "HostConfig": host, "StopTimeout": 1}
	if _, err := e.ask("POST", "/containers/create?name="+name, body); err != nil {
		e.t.Fatalf("create %s: %v", name, err)
	}
}

func (e *engine) keeperPID() int {
	b, _ := os.ReadFile(e.dir + "/exec/keeper.lock")
	pid, _ := strconv.Atoi(strings.Fields(string(b) + " 0")[0])
	if cmd, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); !strings.Contains(string(cmd), e.dir) {
		e.t.Fatalf("process %d is not this engine's keeper: %q", pid, cmd)
	}
	return pid
}

// A keeper that somebody stopped: who asks is answered, who wants to start something is told which process it is.
func TestStoppedKeeper(t *testing.T) {
	t.Parallel()
	e := hangEngine(t)
	none := map[string]any{"NetworkMode": "none"}
	e.create("web", "sleep 1000", none)
	if _, err := e.ask("POST", "/containers/web/start", nil); err != nil {
		t.Fatal(err)
	}
	e.create("other", "sleep 1000", none)
	keeper := e.keeperPID()
	unix.Kill(keeper, unix.SIGSTOP)
	defer unix.Kill(keeper, unix.SIGCONT)
	e.answers("keeper stopped", "web", "other")
	for _, v := range []struct{ method, path, says string }{
		{"POST", "/containers/other/start", "kill -CONT " + strconv.Itoa(keeper)},
		{"POST", "/containers/web/kill?signal=HUP", "is stopped"},
	} {
		code, b, err := e.soon(v.method, v.path, nil, prompt)
		if err != nil || code < 500 || !strings.Contains(b, v.says) {
			t.Errorf("%s %s: %d %s %v, want an error that says %q", v.method, v.path, code, b, err, v.says)
		}
	}
	// The process is killed; its end cannot be told before the keeper goes on.
	code, b, err := e.soon("DELETE", "/containers/web?force=1", nil, time.Minute)
	if err != nil || code < 500 || !strings.Contains(b, "berth-keeper") {
		t.Errorf("rm -f: %d %s %v", code, b, err)
	}
	// A new engine says the same and ends, instead of waiting for ever.
	e.kill()
	e.mark()
	if begun := time.Now(); e.tryStart() {
		t.Error("an engine started without its keeper")
	} else if said := e.sinceMark(); !strings.Contains(said, "kill -CONT "+strconv.Itoa(keeper)) || time.Since(begun) > time.Minute {
		t.Errorf("after %v it said %s", time.Since(begun), said)
	}
	unix.Kill(keeper, unix.SIGCONT)
	e.start()
	for range 1000 { // the removal that was asked for had not begun; the process is dead
		if i, err := e.look("web"); err == nil && i.State.Status == "exited" {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if i, err := e.look("web"); err != nil || i.State.Status != "exited" {
		t.Errorf("web: %+v %v", i, err)
	}
	e.runs("keeper goes on", "after")
	for _, n := range []string{"web", "other"} {
		if _, err := e.ask("DELETE", "/containers/"+n+"?force=1", nil); err != nil {
			t.Error(err)
		}
	}
	e.nothingLeft()
}

// A process that reads from a file system whose server does not answer cannot be killed. Whoever tries is told which process it is and
// where it sleeps; everybody else notices nothing, a new engine neither.
func TestProcessThatCannotBeKilled(t *testing.T) {
	t.Parallel()
	e := hangEngine(t)
	fs := newSilent(t, fuseRead)
	e.create("stuck", "cat /mnt/disk", map[string]any{"NetworkMode": "none", "Binds": []string{fs.dir + ":/mnt"}})
	if _, err := e.ask("POST", "/containers/stuck/start", nil); err != nil {
		t.Fatal(err)
	}
	fs.asked(t)
	killed := make(chan string, 1)
	go func() {
		code, b, err := e.soon("POST", "/containers/stuck/kill", nil, time.Minute)
		killed <- fmt.Sprint(code, " ", b, " ", err)
	}()
	e.answers("a process that cannot be killed", "stuck")
	e.runs("a process that cannot be killed", "beside")
	if said := <-killed; !strings.Contains(said, "uninterruptible sleep") || !strings.Contains(said, "(cat)") || !strings.Contains(said, "500 ") {
		t.Errorf("kill: %s", said)
	}
	code, b, err := e.soon("DELETE", "/containers/stuck?force=1", nil, time.Minute)
	if err != nil || code < 500 || !strings.Contains(b, "uninterruptible sleep") {
		t.Errorf("rm -f: %d %s %v", code, b, err)
	}
	e.kill()
	begun := time.Now()
	e.start()
	if took := time.Since(begun); took > 2*prompt {
		t.Errorf("an engine with such a container starts after %v", took)
	}
	e.answers("a new engine", "stuck")
	e.runs("a new engine", "beside2")
	fs.release()
	for range 2000 {
		if i, err := e.look("stuck"); err == nil && i.State.Status == "exited" {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if _, err := e.ask("DELETE", "/containers/stuck?force=1", nil); err != nil {
		t.Error(err)
	}
	e.nothingLeft()
}

// A shutdown with such a container ends.
func TestShutdownWithAStuckContainer(t *testing.T) {
	t.Parallel()
	e := hangEngine(t)
	fs := newSilent(t, fuseRead)
	e.create("stuck", "cat /mnt/disk", map[string]any{"NetworkMode": "none", "Binds": []string{fs.dir + ":/mnt"}})
	if _, err := e.ask("POST", "/containers/stuck/start", nil); err != nil {
		t.Fatal(err)
	}
	fs.asked(t)
	e.mark()
	if code, b, err := e.soon("POST", "/berth/v1/shutdown", nil, prompt); err != nil || code != http.StatusAccepted {
		t.Fatalf("shutdown: %d %s %v", code, b, err)
	}
	select {
	case <-e.ended:
	case <-time.After(90 * time.Second):
		t.Fatal("the engine does not end")
	}
	if said := e.sinceMark(); !strings.Contains(said, "uninterruptible sleep") {
		t.Errorf("it does not say what holds it up: %s", said)
	}
	fs.release()
	e.start()
	if _, err := e.ask("DELETE", "/containers/stuck?force=1", nil); err != nil {
		t.Error(err)
	}
	e.nothingLeft()
}

// The source of a bind mount is on a file system that answers nothing at all. The start ends with an error, and holds up nobody meanwhile.
func TestHungBindSource(t *testing.T) {
	t.Parallel()
	e := hangEngine(t)
	fs := newSilent(t, fuseLookup, fuseGetattr)
	e.create("bound", "true", map[string]any{"NetworkMode": "none", "Binds": []string{fs.dir + "/disk:/mnt"}})
	started := make(chan string, 1)
	go func() {
		code, b, err := e.soon("POST", "/containers/bound/start", nil, 3*time.Minute)
		started <- fmt.Sprint(code, " ", b, " ", err)
	}()
	fs.asked(t)
	e.answers("a bind's source hangs", "bound")
	e.runs("a bind's source hangs", "beside")
	select {
	case said := <-started:
		if !strings.HasPrefix(said, "5") && !strings.HasPrefix(said, "4") || !strings.Contains(said, fs.dir) {
			t.Errorf("start: %s", said)
		}
	case <-time.After(2 * time.Minute):
		t.Error("the start does not end")
	}
	if code, b, err := e.soon("DELETE", "/containers/bound?force=1", nil, prompt); err != nil || code >= 400 {
		t.Errorf("rm -f: %d %s %v", code, b, err)
	}
	e.runs("after it", "beside2")
	fs.release()
	e.nothingLeft()
}

// Somebody else froze the container's cgroup. A kill ends it, or says what holds it.
func TestFrozenByAnother(t *testing.T) {
	t.Parallel()
	e := hangEngine(t)
	e.create("ice", "sleep 1000", map[string]any{"NetworkMode": "none"})
	if _, err := e.ask("POST", "/containers/ice/start", nil); err != nil {
		t.Fatal(err)
	}
	i, _ := e.look("ice")
	set := func(v1, v2 string) bool {
		for file, text := range map[string]string{"/sys/fs/cgroup/freezer" + e.parent + "/" + i.ID + "/freezer.state": v1, "/sys/fs/cgroup" + e.parent + "/" + i.ID + "/cgroup.freeze": v2} {
			if os.WriteFile(file, []byte(text), 0) == nil {
				return true
			}
		}
		return false
	}
	if !set("FROZEN", "1") {
		t.Skip("needs a freezer: neither freezer.state nor cgroup.freeze of the container can be written")
	}
	defer set("THAWED", "0")
	e.answers("a frozen container", "ice")
	code, b, err := e.soon("POST", "/containers/ice/kill", nil, time.Minute)
	switch {
	case err != nil:
		t.Errorf("kill: %v", err)
	case code == http.StatusNoContent: // thawed by the kill
	case code < 500 || !strings.Contains(b, "is frozen"):
		t.Errorf("kill: %d %s", code, b)
	}
	set("THAWED", "0")
	for range 1000 {
		if i, err := e.look("ice"); err == nil && i.State.Status == "exited" {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if _, err := e.ask("DELETE", "/containers/ice?force=1", nil); err != nil {
		t.Error(err)
	}
	e.nothingLeft()
}

// A step that never ends: lists answer, who wants the container too is listed with whom he waits for, and a new engine is free of it.
func TestStuckStep(t *testing.T) {
	t.Parallel()
	e := hangEngine(t)
	e.create("slow", "true", map[string]any{"NetworkMode": "none"})
	e.kill()
	e.arm = "engine/start/volumes=sleep:1h:1"
	e.start()
	go e.soon("POST", "/containers/slow/start", nil, time.Minute)
	var list []struct{ What, On, Behind, Step string }
	waits := func(want func() bool) {
		t.Helper()
		var b string
		for range 500 {
			var err error
			_, b, err = e.soon("GET", "/berth/v1/waits", nil, prompt)
			list = nil
			if json.Unmarshal([]byte(b), &list); err == nil && want() {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatalf("waits: %s", b)
	}
	has := func(what, step, behind string) bool {
		for _, w := range list {
			if w.What == what && w.Step == step && strings.Contains(w.Behind, behind) {
				return true
			}
		}
		return false
	}
	waits(func() bool { return has("start", "volumes", "") })
	go e.soon("DELETE", "/containers/slow?force=1", nil, 20*time.Second)
	waits(func() bool {
		return has("remove", "", "start (volumes)") && has("POST /containers/{name}/start", "", "") && has("DELETE /containers/{name}", "", "")
	})
	e.answers("a step that hangs", "slow")
	e.runs("a step that hangs", "beside")
	e.kill()
	e.arm = ""
	e.start()
	if _, err := e.ask("DELETE", "/containers/slow?force=1", nil); err != nil {
		t.Error(err)
	}
	e.nothingLeft()
}

// silent is a FUSE file system that never answers some of the kernel's requests until it is released.
type silent struct {
	dir string
	d   *disk
}

func newSilent(t *testing.T, ops ...uint32) *silent {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: file systems are mounted")
	}
	d := &disk{dir: t.TempDir(), blocks: map[int64]*block{}, size: 1 << 20, silent: map[uint32]bool{}, heard: make(chan struct{}, 1000)}
	for _, op := range ops {
		d.silent[op] = true
	}
	served := d.mount(t)
	s := &silent{d.dir, d}
	t.Cleanup(func() {
		s.release()
		<-served
		d.close()
	})
	return s
}

// asked waits until the kernel has asked what is not answered.
func (s *silent) asked(t *testing.T) {
	t.Helper()
	select {
	case <-s.d.heard:
	case <-time.After(30 * time.Second):
		t.Fatal("nobody asks")
	}
}

// release ends the connection: whoever waits gets an error.
func (s *silent) release() {
	unix.Unmount(s.dir, unix.MNT_FORCE) // aborts the connection, busy or not
	unix.Unmount(s.dir, unix.MNT_DETACH)
}
