package crash

import (
	"archive/tar"
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	usualBuildKills = 8
	soakBuildKills  = 200
)

// buildKills gives how often to kill an engine that builds.
func buildKills() int {
	switch {
	case *killsFlag > 0:
		return *killsFlag
	case os.Getenv("BERTH_SOAK") != "":
		return soakBuildKills
	}
	return usualBuildKills
}

// dockerfile has steps of all kinds. Each round changes one of them in the middle, so that some are cached and others run. What the last
// one prints tells whether every file of every layer is whole.
const dockerfile = `FROM busybox AS base
COPY data /data/
RUN for i in $(seq 40); do echo "line $i of the base" >>/lines; done

FROM base AS left
ARG ROUND
RUN mkdir -p /left && for i in $(seq 60); do echo "$ROUND $i" >/left/$i; done
RUN --mount=type=cache,target=/cache echo x >>/cache/rounds

FROM base AS right
ARG ROUND
COPY data/big /right/
RUN busybox dd if=/data/big of=/right/copy bs=64k 2>/dev/null && busybox rm /lines && sleep 0.02

FROM right
COPY --from=left /left /left
RUN busybox find /left /right /data -type f | busybox sort | busybox xargs busybox md5sum | busybox md5sum >/sum
`

// contextOf makes the context of a round as a tar; wants gives what /sum has to be.
func contextOf(round int) (context []byte, want string) {
	big := bytes.Repeat([]byte(fmt.Sprintf("round %d, ", round/4)), 40000)
	files := map[string][]byte{"data/big": big}
	for i := range 30 {
		files[fmt.Sprintf("data/small%d", i)] = []byte(fmt.Sprintf("small %d", i))
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	add := func(name string, text []byte) {
		w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text)), ModTime: time.Unix(1700000000, 0)})
		w.Write(text)
	}
	add("Dockerfile", []byte(dockerfile))
	seen := map[string][]byte{"/right/big": big, "/right/copy": big}
	for name, text := range files {
		seen["/"+name] = text
	}
	for i := 1; i <= 60; i++ {
		seen[fmt.Sprintf("/left/%d", i)] = fmt.Appendf(nil, "%d %d\n", round, i)
	}
	var names, lines []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		add(name, files[name])
	}
	w.Close()
	for name := range seen {
		lines = append(lines, name)
	}
	slices.Sort(lines)
	all := ""
	for _, name := range lines {
		sum := md5.Sum(seen[name])
		all += hex.EncodeToString(sum[:]) + "  " + name + "\n"
	}
	sum := md5.Sum([]byte(all))
	return out.Bytes(), hex.EncodeToString(sum[:]) + "  -\n"
}

// build builds a round. An engine that died meanwhile is errGone; a build that failed an error with its transcript.
func (e *engine) build(round int, context []byte) error {
	args, _ := json.Marshal(map[string]string{"ROUND": fmt.Sprint(round)})
	q := url.Values{"t": {"built"}, "buildargs": {string(args)}, "networkmode": {"none"}, "rm": {"1"}}
	req, err := http.NewRequest("POST", "http://berth/v1.44/build?"+q.Encode(), bytes.NewReader(context))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-tar")
	resp, err := e.client.Do(req)
	if err != nil {
		return errGone
	}
	defer resp.Body.Close()
	transcript, err := io.ReadAll(resp.Body)
	if err != nil {
		return errGone
	}
	if resp.StatusCode != http.StatusOK || bytes.Contains(transcript, []byte(`"errorDetail"`)) {
		return fmt.Errorf("%d %s", resp.StatusCode, transcript)
	}
	return nil
}

// The engine is killed in mid-build, again and again: the next build is right to the last byte of every layer, whatever it finds in the cache,
// and in the end nothing is left of all the builds that were never finished.
func TestKillInMidBuild(t *testing.T) {
	t.Parallel()
	kills := buildKills()
	_, seed := ordeal(t)
	t.Logf("%d kills of builds", kills)
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
	context, want := contextOf(0)
	if err := e.build(0, context); err != nil {
		t.Fatal(err)
	}
	e.builtSays(want)
	begin := time.Now() // the first one also opened the builder
	other, want := contextOf(900_000)
	if err := e.build(900_000, other); err != nil {
		t.Fatal(err)
	}
	whole := time.Since(begin)
	e.builtSays(want)
	r := rand.New(rand.NewPCG(seed, 2000))
	hit, tried := 0, 0
	// How long a build takes changes with what else the machine does: where too few kills have hit one, some more are tried.
	for k := 1; (k <= kills || hit < kills/4 && k <= 3*kills) && !t.Failed(); k++ {
		tried = k
		context, want := contextOf(k)
		ended := make(chan error, 1)
		go func() { ended <- e.build(k, context) }()
		time.Sleep(time.Duration(r.Int64N(int64(whole))))
		e.kill()
		if err := <-ended; err == errGone {
			hit++
		} else if err != nil {
			t.Fatalf("kill %d: the build failed by itself: %v", k, err)
		}
		if left := e.steps(); len(left) > 0 {
			t.Errorf("kill %d: steps outlive their engine: %v", k, left)
		}
		e.start()
		if k%4 == 0 { // sometimes it is another build that comes next
			context, want = contextOf(k + 1_000_000)
			begin = time.Now()
			if err := e.build(k+1_000_000, context); err != nil {
				t.Fatalf("kill %d: another build after it: %v", k, err)
			}
			whole = time.Since(begin) // as busy as the machine is by now
			e.builtSays(want)
			continue
		}
		if err := e.build(k, context); err != nil {
			t.Fatalf("kill %d: the build after it: %v", k, err)
		}
		e.builtSays(want)
	}
	t.Logf("%d of %d kills hit a build; a whole one takes %v", hit, tried, whole)
	if hit < kills/4 {
		t.Errorf("only %d of %d kills hit a build", hit, tried)
	}
	e.nothingBuilt()
}

// steps lists processes of steps that live, half a second after their engine's death.
func (e *engine) steps() (left []string) {
	for range 50 {
		left = nil
		procs, _ := filepath.Glob("/proc/[0-9]*/cgroup")
		for _, p := range procs {
			stat, _ := os.ReadFile(filepath.Join(filepath.Dir(p), "stat"))
			if strings.Contains(string(stat), ") Z ") {
				continue // it is dead; that nobody has reaped it yet is the machine's own affair
			}
			if b, _ := os.ReadFile(p); strings.Contains(string(b), e.parent+"/build-") {
				left = append(left, p+": "+livesAs(filepath.Dir(p)))
			}
		}
		if len(left) == 0 {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return left
}

// livesAs tells what a process is and in what it waits, for people.
func livesAs(proc string) string {
	stat, _ := os.ReadFile(proc + "/stat")
	stack, _ := os.ReadFile(proc + "/stack")
	status, _ := os.ReadFile(proc + "/status")
	return fmt.Sprintf("%.60s\n%s\n%s", stat, stack, status)
}

// builtSays runs the image that was built and compares what it finds in itself.
func (e *engine) builtSays(want string) {
	e.t.Helper()
	const sum = "busybox find /left /right /data -type f | busybox sort | busybox xargs busybox md5sum | busybox md5sum; busybox cat /sum; busybox ls /lines 2>/dev/null"
	l := &life{e: e, name: "says", image: "built", script: sum, host: map[string]any{"NetworkMode": "none"}}
	l.create()
	l.start()
	l.awaitEnd()
	if got, want := strings.Fields(strings.Join(l.logs(), " ")), strings.Fields(want+want); !slices.Equal(got, want) {
		e.t.Errorf("the image has %q, want %q", got, want)
	}
	l.remove()
}

// nothingBuilt removes the image and prunes the cache; then nothing may be left of any build.
func (e *engine) nothingBuilt() {
	e.t.Helper()
	for _, name := range []string{"built", "busybox"} {
		if code, b := e.insist("DELETE", "/images/"+name+"?force=1", nil); code != http.StatusOK {
			e.t.Errorf("remove %s: %d %s", name, code, b)
		}
	}
	if code, b := e.insist("POST", "/images/prune?filters="+url.QueryEscape(`{"dangling":["false"]}`), nil); code != http.StatusOK {
		e.t.Errorf("prune images: %d %s", code, b)
	}
	if code, b := e.insist("POST", "/build/prune?all=1", nil); code != http.StatusOK {
		e.t.Errorf("prune the cache: %d %s", code, b)
	}
	e.nothingLeft()
	left := func() (all []string) {
		for _, pattern := range []string{"/image/layer/tmp/*", "/image/layer/trash/*", "/build/mounts/*", "/build/trees/[0-9a-z]*/*", "/build/tmp/*"} {
			m, _ := filepath.Glob(e.data + pattern)
			all = append(all, m...)
		}
		if layers, _ := filepath.Glob(e.data + "/image/layer/d/*"); len(layers) > 1 { // the empty one stays
			all = append(all, layers...)
		}
		for _, sub := range []string{"/exec/build/tmp", "/exec/build/agent"} {
			m, _ := filepath.Glob(e.dir + sub + "/*")
			all = append(all, m...)
		}
		return all
	}
	var found []string
	if eventually(func() bool { found = left(); return len(found) == 0 }) {
		return
	}
	e.t.Errorf("builds have left: %v", found)
	for _, f := range found {
		filepath.WalkDir(f, func(p string, _ fs.DirEntry, _ error) error { e.t.Log(p); return nil })
	}
}
