package crash

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"berth/test/world"
)

const (
	usualKills = 12
	soakKills  = 1000
	workers    = 4
	survivors  = 3
)

var killsFlag = flag.Int("kills", 0, "how often to kill the engine; 0: a few, or a thousand with BERTH_SOAK")

// ordeal gives how often to kill and the seed of everything random, and notes both.
func ordeal(t *testing.T) (kills int, seed uint64) {
	t.Helper()
	kills = usualKills
	switch {
	case *killsFlag > 0:
		kills = *killsFlag
	case os.Getenv("BERTH_SOAK") != "":
		kills = soakKills
	}
	seed = uint64(time.Now().UnixNano())
	if s := os.Getenv("BERTH_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("BERTH_SEED: %v", err)
		}
	}
	t.Logf("%d kills, BERTH_SEED=%d", kills, seed)
	return kills, seed
}

func TestKillTheEngine(t *testing.T) {
	kills, seed := ordeal(t)
	image := busyboxImage(t)
	e := newEngine(t)
	e.start()
	t.Cleanup(func() { e.end() })
	if code, b := e.insist("POST", "/images/load?quiet=1", image); code != http.StatusOK {
		t.Fatalf("load: %d %s", code, b)
	}

	if code, b := e.insist("POST", "/networks/create", map[string]any{"Name": dock}); code != http.StatusCreated {
		t.Fatalf("create a network: %d %s", code, b)
	}
	const counting = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"
	var old []life
	for i := range survivors {
		l := life{e: e, name: fmt.Sprintf("survivor%d", i), script: counting, host: map[string]any{"NetworkMode": dock}}
		if i == 0 { // a web server for the world
			l.script = "mkdir /www; echo page >/www/index.html; httpd -p 80 -h /www; " + counting
			l.host = map[string]any{"NetworkMode": dock, "PortBindings": map[string]any{"80/tcp": []any{map[string]string{"HostPort": "8080"}}}, "Binds": []string{"hold:/hold"}}
		}
		l.create()
		l.start()
		l.pid = l.inspect().State.Pid
		old = append(old, l)
	}

	var done atomic.Bool
	var lives atomic.Int64
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(w)))
			for n := 0; !done.Load() && !t.Failed(); n++ {
				liveOnce(e, r, fmt.Sprintf("w%d-%d", w, n))
				lives.Add(1)
			}
		})
	}
	r := rand.New(rand.NewPCG(seed, 1000))
	for k := 0; k < kills && !t.Failed(); k++ {
		time.Sleep(time.Duration(r.IntN(150)) * time.Millisecond)
		e.kill()
		if err := e.page(); err != nil {
			t.Errorf("kill %d: no engine, and the published port does not answer: %v", k, err)
		}
		begin := time.Now()
		e.start()
		if took := time.Since(begin); took > prompt {
			t.Errorf("kill %d: the engine answers only after %v", k, took)
		}
	}
	done.Store(true)
	wg.Wait()
	t.Logf("%d containers lived", lives.Load())

	if err := e.page(); err != nil {
		t.Errorf("the published port does not answer: %v", err)
	}
	old[1].run("nslookup -type=a survivor0 127.0.0.11")
	for _, l := range old {
		i := l.inspect()
		if !i.State.Running || i.State.Pid != l.pid {
			t.Errorf("%s did not survive: %+v", l.name, i.State)
		}
		l.kill()
		lines := l.logs()
		for n, line := range lines {
			if line != strconv.Itoa(n+1) {
				t.Errorf("%s: line %d of its log is %q", l.name, n+1, line)
				break
			}
		}
		if len(lines) == 0 {
			t.Errorf("%s: no log", l.name)
		}
		l.remove()
	}
	if code, b := e.insist("DELETE", "/volumes/hold", nil); code != http.StatusNoContent {
		t.Errorf("remove a volume: %d %s", code, b)
	}
	e.nothingLeft()
	if code, b := e.insist("DELETE", "/networks/"+dock, nil); code != http.StatusNoContent {
		t.Errorf("remove a network: %d %s", code, b)
	}
	if t.Failed() {
		t.Logf("the engine said:\n%s", e.tail())
	}
}

// liveOnce takes one container through a life with random turns.
func liveOnce(e *engine, r *rand.Rand, name string) {
	code, lines := r.IntN(100), 1+r.IntN(30)
	l := &life{e: e, name: name, host: hosts[r.IntN(len(hosts))], script: fmt.Sprintf("for i in $(seq %d); do echo $i; done; exit %d", lines, code)}
	stop := r.IntN(4) == 0
	if stop {
		l.script = fmt.Sprintf("trap 'exit %d' TERM; for i in $(seq %d); do echo $i; done; while :; do sleep 0.01; done", code, lines)
	}
	l.create()
	l.start()
	if stop {
		l.await(lines)
		if r.IntN(2) == 0 {
			l.exec(r.IntN(100))
		}
		l.stop()
	}
	i := l.awaitEnd()
	if i.State.ExitCode != code {
		e.t.Errorf("%s: exit code %d, want %d (%+v)", name, i.State.ExitCode, code, i.State)
	}
	got := l.logs()
	for n, line := range got {
		if line != strconv.Itoa(n+1) {
			e.t.Errorf("%s: line %d is %q", name, n+1, line)
			break
		}
	}
	if len(got) != lines {
		e.t.Errorf("%s: %d lines of log, want %d", name, len(got), lines)
	}
	l.remove()
}

// dock is a network of a test's own.
const dock = "dock"

// hosts are the surroundings that containers get: none, the default bridge with a port, a network with names, volumes.
var hosts = []map[string]any{
	{"NetworkMode": "none"},
	{"NetworkMode": "bridge", "PortBindings": map[string]any{"80/tcp": []any{map[string]string{"HostPort": ""}}}},
	{"NetworkMode": dock, "PortBindings": map[string]any{"80/tcp": []any{map[string]string{"HostPort": ""}}, "53/udp": []any{map[string]string{"HostIp": "127.0.0.1"}}}},
	{"NetworkMode": "none", "Binds": []string{"hold:/hold"}, "Mounts": []any{map[string]any{"Type": "volume", "Target": "/scratch"}}},
	{"NetworkMode": dock, "Mounts": []any{map[string]any{"Type": "volume", "Target": "/scratch"}}},
}

// page asks the first survivor's web server, from outside.
func (e *engine) page() error {
	c, err := e.world.Dial(e.world.Outside, "tcp", world.Host4+":8080")
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	fmt.Fprint(c, "GET / HTTP/1.0\r\n\r\n")
	b, err := io.ReadAll(c)
	if !strings.Contains(string(b), "page") {
		return fmt.Errorf("it says %q, %v", b, err)
	}
	return nil
}

// life is one container, as a stubborn client sees it.
type life struct {
	e      *engine
	name   string
	image  string // "" busybox
	script string
	host   map[string]any // HostConfig
	pid    int
}

type inspected struct {
	ID    string `json:"Id"`
	State struct {
		Status   string
		Running  bool
		Pid      int
		ExitCode int
		Error    string
	}
}

func (l *life) path(rest string) string { return "/containers/" + l.name + rest }

func (l *life) create() {
	body := map[string]any{
		"Image": cmp.Or(l.image, "busybox"), "Cmd": []string{"sh", "-c", l.script},
		"HostConfig": l.host,
	}
	// 409 after a crash: the first attempt had come through.
	if code, b := l.e.insist("POST", "/containers/create?name="+l.name, body); code != http.StatusCreated && code != http.StatusConflict {
		l.e.t.Errorf("create %s: %d %s", l.name, code, b)
	}
}

// start starts the container once. When the engine died over it, the container itself tells whether it was started; asking again would
// start it a second time if it has ended by now.
func (l *life) start() {
	for range 1000 {
		code, b, err := l.e.do("POST", l.path("/start"), nil)
		switch {
		case err != nil:
			if i := l.inspect(); i.State.Status != "created" {
				return
			}
			continue
		case code != http.StatusNoContent && code != http.StatusNotModified:
			l.e.t.Errorf("start %s: %d %s", l.name, code, b)
		}
		return
	}
}

func (l *life) inspect() (i inspected) {
	code, b := l.e.insist("GET", l.path("/json"), nil)
	if code != http.StatusOK {
		l.e.t.Errorf("inspect %s: %d %s", l.name, code, b)
	}
	json.Unmarshal(b, &i)
	return i
}

func (l *life) stop() {
	if code, b := l.e.insist("POST", l.path("/stop?t=20"), nil); code != http.StatusNoContent && code != http.StatusNotModified {
		l.e.t.Errorf("stop %s: %d %s", l.name, code, b)
	}
}

func (l *life) kill() {
	if code, b := l.e.insist("POST", l.path("/kill"), nil); code != http.StatusNoContent && code != http.StatusConflict {
		l.e.t.Errorf("kill %s: %d %s", l.name, code, b)
	}
}

func (l *life) remove() {
	if code, b := l.e.insist("DELETE", l.path("?force=1&v=1"), nil); code != http.StatusNoContent && code != http.StatusNotFound && code != http.StatusConflict {
		l.e.t.Errorf("remove %s: %d %s", l.name, code, b)
	}
	for range 2000 { // a removal that a crash cut off is finished by the next engine
		if code, _ := l.e.insist("GET", l.path("/json"), nil); code == http.StatusNotFound {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	l.e.t.Errorf("remove %s: it stays", l.name)
}

// exec runs a command and checks its exit code. Whether a crash came before or after its start is not known to the client: an exec
// that is not known any more was never started, and is tried again.
func (l *life) exec(code int) {
	for range 50 {
		status, b := l.e.insist("POST", l.path("/exec"), map[string]any{"Cmd": []string{"sh", "-c", fmt.Sprintf("exit %d", code)}})
		var made struct{ Id string }
		json.Unmarshal(b, &made)
		if status != http.StatusCreated {
			l.e.t.Errorf("exec %s: %d %s", l.name, status, b)
			return
		}
		l.e.do("POST", "/exec/"+made.Id+"/start", map[string]any{"Detach": true})
		if l.execEnded(made.Id, code) {
			return
		}
	}
	l.e.t.Errorf("exec %s: never came through", l.name)
}

// run runs a shell line in the container, which must succeed.
func (l *life) run(line string) {
	status, b := l.e.insist("POST", l.path("/exec"), map[string]any{"Cmd": []string{"sh", "-c", line}})
	var made struct{ Id string }
	json.Unmarshal(b, &made)
	if status != http.StatusCreated {
		l.e.t.Errorf("exec %s: %d %s", l.name, status, b)
		return
	}
	l.e.do("POST", "/exec/"+made.Id+"/start", map[string]any{"Detach": true})
	if !l.execEnded(made.Id, 0) {
		l.e.t.Errorf("exec %q in %s was not run", line, l.name)
	}
}

func (l *life) execEnded(id string, want int) bool {
	for range 4000 {
		status, b := l.e.insist("GET", "/exec/"+id+"/json", nil)
		var x struct {
			Running  bool
			ExitCode *int
			Pid      int
		}
		json.Unmarshal(b, &x)
		switch {
		case status == http.StatusNotFound, !x.Running && x.ExitCode == nil && x.Pid == 0:
			return false // forgotten, or never started
		case x.ExitCode != nil && !x.Running:
			if *x.ExitCode != want {
				l.e.t.Errorf("exec in %s: exit code %d, want %d", l.name, *x.ExitCode, want)
			}
			return true
		}
		time.Sleep(5 * time.Millisecond)
	}
	l.e.t.Errorf("exec in %s does not end", l.name)
	return true
}

func (l *life) awaitEnd() (i inspected) {
	for range 6000 {
		if i = l.inspect(); i.State.Status == "exited" {
			return i
		}
		time.Sleep(5 * time.Millisecond)
	}
	l.e.t.Errorf("%s does not end: %+v", l.name, i.State)
	return i
}

func (l *life) await(lines int) {
	for range 6000 {
		if len(l.logs()) >= lines {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	l.e.t.Errorf("%s: its lines do not come", l.name)
}

// logs gives the lines of stdout.
func (l *life) logs() []string {
	_, b := l.e.insist("GET", l.path("/logs?stdout=1"), nil)
	var text strings.Builder
	for len(b) >= 8 {
		n := int(binary.BigEndian.Uint32(b[4:8]))
		if len(b) < 8+n {
			break
		}
		text.Write(b[8 : 8+n])
		b = b[8+n:]
	}
	return strings.Fields(text.String())
}

// nothingLeft looks for what belongs to nobody.
func (e *engine) nothingLeft() {
	var list []struct{ Names []string }
	_, b := e.insist("GET", "/containers/json?all=1", nil)
	json.Unmarshal(b, &list)
	if len(list) != 0 {
		e.t.Errorf("containers are left: %s", b)
	}
	left := func() (all []string) {
		for _, pattern := range []string{e.data + "/containers/*", e.data + "/volumes/*", e.data + "/image/layer/c/*", "/sys/fs/cgroup" + e.parent + "/*", "/sys/fs/cgroup/*" + e.parent + "/*"} {
			m, _ := filepath.Glob(pattern)
			for _, p := range m {
				if len(strings.TrimPrefix(filepath.Base(p), ".gone-")) == 64 { // an id; cgroups have files of the kernel's too
					all = append(all, p)
				}
			}
		}
		b, _ := os.ReadFile("/proc/self/mounts")
		spare := 0
		for line := range strings.Lines(string(b)) {
			switch f := strings.Fields(line); {
			case !strings.HasPrefix(f[1], e.dir):
			case strings.HasPrefix(f[1], e.dir+"/exec/network/netns/") && spare < spareNamespaces:
				spare++
			default:
				all = append(all, "the mount "+f[1])
			}
		}
		return append(append(all, e.strayLinks()...), e.strayProcesses()...)
	}
	var found []string
	if !eventually(func() bool { found = left(); return len(found) == 0 }) { // deletions go on behind
		e.t.Errorf("left behind: %v", found)
	}
}

// spareNamespaces bounds the network namespaces that an engine holds ready for containers to come.
const spareNamespaces = 8

// strayLinks finds what containers' networks left on the host: links, sandboxes, published ports.
func (e *engine) strayLinks() (all []string) {
	var out strings.Builder
	cmd := exec.Command("ip", "-o", "link", "show", "type", "veth")
	cmd.Stdout = &out
	if err := e.world.Start(cmd); err != nil {
		return []string{err.Error()}
	}
	if err := cmd.Wait(); err != nil {
		return []string{err.Error()}
	}
	for line := range strings.Lines(out.String()) {
		if !strings.Contains(line, " eth0@") { // the cable
			all = append(all, strings.TrimSpace(line))
		}
	}
	sandboxes, _ := filepath.Glob(e.dir + "/exec/network/sandbox/*")
	all = append(all, sandboxes...)
	status, rules := e.berth("GET", "/network/rules")
	for line := range strings.Lines(string(rules)) {
		if strings.Contains(line, "tcp . ") || strings.Contains(line, "udp . ") {
			all = append(all, "the rule "+strings.TrimSpace(line))
		}
	}
	if status != http.StatusOK {
		all = append(all, fmt.Sprintf("no rules are told: %d %s", status, rules))
	}
	return all
}

// strayProcesses finds processes in the engine's cgroups.
func (e *engine) strayProcesses() (all []string) {
	procs, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	for _, p := range procs {
		b, _ := os.ReadFile(p)
		if strings.Contains(string(b), e.parent+"/") && !strings.Contains(string(b), e.parent+"/keeper") {
			all = append(all, p)
		}
	}
	return all
}

// processes finds those with the exec root on their command line, by their cmdline files.
func (e *engine) processes() (all []string) {
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		if b, _ := os.ReadFile(p); strings.Contains(string(b), "\x00"+e.dir+"/exec\x00") {
			all = append(all, p)
		}
	}
	return all
}

// end stops everything, also after a failure.
func (e *engine) end() {
	if r, err := e.client.Post("http://berth/berth/v1/shutdown", "application/json", nil); err == nil {
		r.Body.Close()
		e.mu.Lock()
		ended := e.ended
		e.mu.Unlock()
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			e.t.Error("berthd does not follow a shutdown")
		}
	}
	e.kill()
	procs := e.processes()
	for range 500 { // the keeper answers before it ends
		if len(procs) == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
		procs = e.processes()
	}
	for _, p := range procs {
		b, _ := os.ReadFile(p)
		e.t.Errorf("%s is left: %q", p, b)
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(p))); err == nil {
			if p, err := os.FindProcess(pid); err == nil {
				p.Kill()
			}
		}
	}
	for _, d := range e.cgroups() {
		if !e.t.Failed() {
			e.t.Errorf("%s is left after a shutdown", d)
		}
		os.Remove(filepath.Join(d, "keeper"))
		os.Remove(d)
	}
}
