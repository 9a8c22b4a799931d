package crash

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestDieAtEveryFailpoint lets the engine die at each failpoint that an ordeal passes, and at those of its start. What was acknowledged
// must be there each time. A failpoint that is neither passed here nor named by another test fails it: so a new one gets a test.
func TestDieAtEveryFailpoint(t *testing.T) {
	t.Parallel()
	all := failpoints(t)
	passes := 1
	if os.Getenv("BERTH_SOAK") != "" {
		passes = soakPasses
	}
	o := newTrial(t)
	died := map[string]int{}
	for pass := range passes {
		for p := range all {
			o.left[p] = true
		}
		o.count = 1 + pass // the n-th time that a point is passed since the engine's start
		// Until nothing kills it any more: some points are passed only by an engine that finds something at its start, or lives for a second.
		for before := -1; before != len(o.left); {
			before = len(o.left)
			o.cycle(o.e.ordealVerbs(o.busybox, o.extra), died)
		}
		o.trash(true)
		for before := -1; before != len(o.left); {
			before = len(o.left)
			o.cycle(o.e.trashVerbs(o.busybox, o.extra), died)
		}
		o.trash(false)
	}
	o.end()
	deaths := 0
	for _, n := range died {
		deaths += n
	}
	t.Logf("%d deaths at %d of %d failpoints, %d verbs acknowledged", deaths, len(died), len(all), o.acknowledged)
	named := namedInTests(t)
	for _, p := range slices.Sorted(maps.Keys(all)) {
		if died[p] == 0 {
			t.Logf("left to another test: %s", p)
		}
	}
	for _, p := range slices.Sorted(maps.Keys(all)) {
		if died[p] == 0 && !named[p] {
			t.Errorf("failpoint %s (%s) is passed by no test: add a verb that passes it to ordealVerbs, or a test that names it", p, all[p])
		}
	}
	if deaths < 40 {
		t.Errorf("only %d deaths: is it armed at all?", deaths)
	}
}

// TestKeeperDiesPacking lets the keeper die when it takes a compressed log in the place of a rotated one. No line is lost or doubled.
func TestKeeperDiesPacking(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	e.arm = "keeper/packed=kill:1" // the keeper inherits it
	e.start()
	t.Cleanup(func() { e.end() })
	if code, b := e.insist("POST", "/images/load?quiet=1", busyboxImage(t)); code != http.StatusOK {
		t.Fatalf("load: %d %s", code, b)
	}
	const lines = 6000
	l := &life{e: e, name: "chatty", script: fmt.Sprintf("while [ ! -e /go ]; do sleep 0.02; done; for i in $(seq %d); do echo $i; done; sleep 1", lines)}
	body := map[string]any{"Image": "busybox", "Cmd": []string{"sh", "-c", l.script}, "HostConfig": map[string]any{
		"NetworkMode": "none", "LogConfig": map[string]any{"Type": "json-file", "Config": map[string]string{"max-size": "100k", "max-file": "20", "compress": "true"}},
	}}
	if _, err := e.ask("POST", "/containers/create?name=chatty", body); err != nil {
		t.Fatal(err)
	}
	first := e.keeperPID()
	l.start()
	// Not before the start is acknowledged: the keeper's death would be its failure.
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/root/go", l.inspect().State.Pid), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	died := func() bool {
		_, err := os.Stat(fmt.Sprintf("/proc/%d", first))
		return err != nil
	}
	for range 2000 {
		if died() {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if !died() {
		t.Error("the keeper did not die: is nothing compressed?")
	}
	e.kill()
	e.arm = ""
	e.start()
	l.awaitEnd()
	got := l.logs()
	for n, line := range got {
		if line != fmt.Sprint(n+1) {
			t.Errorf("line %d is %q", n+1, line)
			break
		}
	}
	if len(got) != lines {
		t.Errorf("%d lines, want %d", len(got), lines)
	}
	l.remove()
	e.nothingLeft()
}

// soakPasses bounds at which time that a point is passed the engine dies there.
const soakPasses = 15

// trial is an engine with what it was asked and has acknowledged.
type trial struct {
	t            *testing.T
	e            *engine
	model        facts
	left         map[string]bool // points at which it is to die yet
	count        int             // at which hit
	busybox      []byte
	extra        []byte
	acknowledged int
	stateless    bool // where containers stand is not compared
}

func newTrial(t *testing.T) *trial {
	o := &trial{t: t, left: map[string]bool{}, model: facts{"nameless volumes": "0"}, busybox: busyboxImage(t), extra: extraImage(t)}
	o.e = newEngine(t)
	o.e.start() // not armed: the keeper inherits it
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the engine said:\n%s", o.e.tail())
		}
		o.e.end()
	})
	return o
}

// trash lets the engine to come have a trash, or none.
func (o *trial) trash(on bool) {
	o.e.flags = nil
	if on {
		o.e.flags = []string{"--trash-window", "1h"}
	}
}

// cycle goes once through verbs with an engine that dies at each point that is left.
func (o *trial) cycle(verbs []verb, died map[string]int) {
	o.e.kill()
	o.revive(died)
	for _, v := range verbs {
		again := false
		for try := 0; ; try++ {
			if try > 60 {
				o.t.Fatalf("%s: not done after %d deaths\n%s", v.name, try, o.e.tail())
			}
			err := v.do(again)
			if err == nil {
				break
			}
			var r *refused
			if errors.As(err, &r) {
				o.t.Fatalf("%s (again: %v): %v\nfacts %v\n%s", v.name, again, err, o.model, o.e.tail())
			}
			o.revive(died)
			if o.settle(v, died) {
				again = false
				break // it had happened
			}
			again = true
		}
		o.acknowledged++
		o.model = o.model.after(v)
		o.verify(died)
		if o.t.Failed() {
			o.t.FailNow()
		}
	}
}

// revive starts the engine that died, armed with what is left. Dying over its own start is fine as long as it is at a point.
func (o *trial) revive(died map[string]int) {
	for {
		o.e.mu.Lock()
		ended := o.e.ended
		o.e.mu.Unlock()
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			o.t.Fatalf("the engine neither answers nor ends\n%s", o.e.tail())
		}
		if p := o.e.lastWords(); p != "" && o.left[p] {
			delete(o.left, p)
			died[p]++
		}
		var arm []string
		for p := range o.left {
			arm = append(arm, fmt.Sprintf("%s=kill:%d", p, o.count))
		}
		o.e.arm = strings.Join(arm, ",")
		o.e.mark()
		if o.e.tryStart() {
			return
		}
		if o.e.lastWords() == "" {
			o.t.Fatalf("the engine does not start\n%s", o.e.tail())
		}
	}
}

// settle waits until the facts are those from before the verb or those after it, and tells which.
func (o *trial) settle(v verb, died map[string]int) (happened bool) {
	next := o.model.after(v)
	if len(v.change) == 0 {
		return false
	}
	var got facts
	for range 2000 {
		var err error
		if got, err = o.e.observe(); err != nil {
			o.revive(died)
			continue
		}
		switch {
		case o.same(next, got):
			return true
		case o.same(o.model, got):
			return false
		case v.partly && v.halfway(o.model, next, got):
			o.model = got
			return false
		}
		time.Sleep(5 * time.Millisecond)
	}
	o.t.Fatalf("%s was cut off and has half happened:\n%s", v.name, strings.Join(differ(next, got), "\n"))
	return false
}

// halfway reports whether each fact is as it was or as it will be.
func (v verb) halfway(was, next, got facts) bool {
	for _, k := range slices.Concat(differingKeys(was, got), differingKeys(next, got)) {
		if got[k] != was[k] && got[k] != next[k] {
			return false
		}
	}
	return true
}

func (o *trial) same(want, got facts) bool {
	if o.stateless {
		want, got = want.lasting(), got.lasting()
	}
	return maps.Equal(want, got)
}

// verify waits until the facts are what was acknowledged.
func (o *trial) verify(died map[string]int) {
	o.t.Helper()
	var got facts
	for range 2000 {
		var err error
		if got, err = o.e.observe(); err != nil {
			o.revive(died)
			continue
		}
		if o.same(o.model, got) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	o.t.Errorf("what was acknowledged is not there:\n%s", strings.Join(differ(o.model, got), "\n"))
}

// end checks that nothing is left but the image.
func (o *trial) end() {
	o.e.arm = ""
	o.e.kill()
	o.e.start()
	o.verify(nil)
	o.e.nothingLeft()
	o.e.checkStore()
}

// mark notes where the log of the engine to come begins.
func (e *engine) mark() {
	if st, err := e.log.Stat(); err == nil {
		e.from = st.Size()
	}
}

var dying = regexp.MustCompile(`failpoint (\S+) kills this process`)

// lastWords gives the failpoint at which the engine that was started last died, or "".
func (e *engine) lastWords() string {
	b, _ := os.ReadFile(e.log.Name())
	if m := dying.FindSubmatch(b[min(e.from, int64(len(b))):]); m != nil {
		return string(m[1])
	}
	return ""
}

// checkStore has the engine verify its images.
func (e *engine) checkStore() {
	code, b := e.berth(http.MethodPost, "/images/fsck")
	if code != http.StatusOK || !strings.Contains(string(b), `"damaged":0`) {
		e.t.Errorf("the check of the store: %d %s", code, b)
	}
}

var (
	hits   = regexp.MustCompile(`failpoint\.Hit\("([^"]+)"\)`)
	runs   = regexp.MustCompile(`step\.Run\([^"\n]*, "([^"]+)"`)
	steps  = regexp.MustCompile(`step\.Step\{Name: "([^"]+)"`)
	prefix = regexp.MustCompile(`"([a-z]+/)(?:%s[^"]*"|"\s*\+)`)
	quoted = regexp.MustCompile(`"([a-z-]+)(?:=[^"]*)?"`)
	word   = regexp.MustCompile(`[a-z0-9]+(?:[/-][a-z0-9-]+)+`)
)

// failpoints scans the source for all points: name to file.
func failpoints(t *testing.T) map[string]string {
	all := map[string]string{}
	sources(t, func(path, text string) {
		if strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, "base/failpoint") {
			return
		}
		for _, m := range hits.FindAllStringSubmatch(text, -1) {
			all[m[1]] = path
		}
		if n := strings.Count(text, "failpoint.Hit("); n != len(hits.FindAllString(text, -1)) && path != "engine/step/step.go" {
			t.Errorf("%s: a failpoint whose name is no literal is found by nobody", path)
		}
		for _, part := range runs.FindAllStringSubmatchIndex(text, -1) {
			operation, body := text[part[2]:part[3]], text[part[1]:]
			if next := runs.FindStringIndex(body); next != nil {
				body = body[:next[0]]
			}
			for _, m := range steps.FindAllStringSubmatch(body, -1) {
				all["engine/"+operation+"/"+m[1]] = path
			}
		}
	})
	if len(all) < 90 {
		t.Fatalf("only %d failpoints found", len(all))
	}
	return all
}

// namedInTests gives every word that looks like a failpoint in tests of other packages.
func namedInTests(t *testing.T) map[string]bool {
	named := map[string]bool{}
	sources(t, func(path, text string) {
		if strings.HasSuffix(path, "_test.go") && path != "test/crash/errors_test.go" {
			for _, w := range word.FindAllString(text, -1) {
				named[w] = true
			}
			for _, m := range prefix.FindAllStringSubmatch(text, -1) { // "keeper/" + point
				for _, w := range quoted.FindAllStringSubmatch(text, -1) {
					named[m[1]+w[1]] = true
				}
			}
		}
	})
	return named
}

// sources reads every Go file of the project, paths relative to its root.
func sources(t *testing.T, f func(path, text string)) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, room := range []string{"base", "kernel", "image", "network", "volume", "runtime", "auth", "engine", "build", "registry", "api", "cli", "cmd", "test"} {
		err := filepath.WalkDir(filepath.Join(root, room), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
				return err
			}
			b, err := os.ReadFile(path)
			rel, _ := filepath.Rel(root, path)
			f(rel, string(b))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
