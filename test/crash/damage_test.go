package crash

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestDamage damages one file of each kind that an engine keeps, in every way, and opens an engine on it: it must start, tell what is
// damaged, and serve the rest; and with repair nothing may get worse.
func TestDamage(t *testing.T) {
	t.Parallel()
	_, seed := ordeal(t)
	r := rand.New(rand.NewPCG(seed, 3))
	e := newEngine(t)
	e.start()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("BERTH_SEED=%d; the engine said:\n%s", seed, e.tail())
		}
		e.end()
	})
	furnish(t, e)
	want, err := e.observe()
	if err != nil {
		t.Fatal(err)
	}
	if _, wrong := e.checkup(false); len(wrong) != 0 {
		t.Fatalf("damaged before anything was damaged: %v", wrong)
	}
	e.shutdown()
	whole := filepath.Join(e.dir, "whole")
	os.Rename(e.data, whole)
	kinds := kindsOf(t, whole)
	tried, named, silent := 0, 0, []string{}
	ways := []string{"missing", "empty", "truncated", "garbage", "flipped"}
	if os.Getenv("BERTH_SOAK") == "" {
		r.Shuffle(len(ways), func(i, j int) { ways[i], ways[j] = ways[j], ways[i] })
	}
	for n, kind := range slices.Sorted(maps.Keys(kinds)) {
		for w, way := range ways {
			if os.Getenv("BERTH_SOAK") == "" && w != n%len(ways) {
				continue // one way each, another the next time
			}
			file := kinds[kind][r.IntN(len(kinds[kind]))]
			what := fmt.Sprintf("%s %s", file, way)
			copyTree(t, whole, e.data)
			spoil(t, filepath.Join(e.data, file), way, r)
			e.mark()
			if !e.tryStart() {
				t.Fatalf("%s: the engine does not start:\n%s", what, e.sinceMark())
			}
			tried++
			got, err := e.observe()
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			_, wrong := e.checkup(false)
			lost := differ(want.lasting(), got.lasting())
			if len(lost) > 2 && !onLayer(kind, lost) {
				t.Errorf("%s: more is gone than what was damaged:\n%s", what, strings.Join(lost, "\n"))
			}
			told := strings.Contains(e.sinceMark(), "level=ERROR") || strings.Contains(e.sinceMark(), "level=WARN")
			switch {
			case len(wrong) > 0:
				named++
			case len(lost) > 0 && !told && way != "missing": // what is missing was never there
				t.Errorf("%s: nobody tells, and this is gone:\n%s", what, strings.Join(lost, "\n"))
			case len(lost) == 0:
				silent = append(silent, what)
			}
			_, after := e.checkup(true)
			if len(after) > len(wrong) {
				t.Errorf("%s: a repair made it worse:\n%v\n%v", what, wrong, after)
			}
			if got["image busybox:latest"] == "" { // loading it again is what a person does
				if _, err := e.ask("POST", "/images/load?quiet=1", busyboxImage(t)); err != nil {
					t.Errorf("%s: load: %v", what, err)
				}
			}
			// A layer of an archive can be fetched from nowhere: the check says so, and containers of that image miss what is gone.
			if !slices.ContainsFunc(after, func(d string) bool { return strings.HasPrefix(d, "images: layer ") }) {
				e.runs(what, "beside")
			}
			e.shutdown()
			if t.Failed() {
				t.FailNow()
			}
		}
	}
	os.RemoveAll(e.data)
	os.Rename(whole, e.data)
	e.start()
	t.Logf("%d damages to %d kinds of files: %d named by the check; without consequence: %v", tried, len(kinds), named, silent)
}

// onLayer reports whether what is lost are images alone, after a layer's own record was damaged: all images of an engine that furnish
// filled stand on one layer.
func onLayer(kind string, lost []string) bool {
	return strings.HasPrefix(kind, "image/layer/d/") && !slices.ContainsFunc(lost, func(l string) bool { return !strings.HasPrefix(l, "image ") })
}

// TestRepair damages what a running engine has, and has it repaired.
func TestRepair(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	e.start()
	t.Cleanup(func() { e.end() })
	furnish(t, e)
	want, err := e.observe()
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"containers/*/container.json", "volumes/*/volume.json", "network/*.json", "plugin/p/*/plugin.json", "states.journal"} {
		files, _ := filepath.Glob(filepath.Join(e.data, pattern))
		if len(files) == 0 {
			t.Fatalf("no %s", pattern)
		}
		for _, f := range files {
			for _, way := range []string{"garbage", "missing"} {
				spoil(t, f, way, rand.New(rand.NewPCG(1, 2)))
				if _, wrong := e.checkup(false); len(wrong) == 0 {
					t.Errorf("%s %s: not noticed", f, way)
				}
				if _, wrong := e.checkup(true); len(wrong) != 0 {
					t.Errorf("%s %s: not repaired: %v", f, way, wrong)
				}
			}
		}
	}
	e.kill()
	e.start()
	if _, wrong := e.checkup(false); len(wrong) != 0 {
		t.Errorf("after a restart: %v", wrong)
	}
	if got, err := e.observe(); err != nil || len(differ(want, got)) != 0 {
		t.Errorf("%v %v", differ(want, got), err)
	}
}

// furnish fills an engine's data root with everything there is.
func furnish(t *testing.T, e *engine) {
	t.Helper()
	for _, v := range e.ordealVerbs(busyboxImage(t), extraImage(t)) {
		if strings.HasPrefix(v.name, "remove") || strings.HasPrefix(v.name, "prune") || strings.HasPrefix(v.name, "kill") || v.name == "untag" {
			continue
		}
		if err := v.do(false); err != nil {
			t.Fatalf("%s: %v\n%s", v.name, err, e.tail())
		}
		e.awaitFacts(v) // what a later verb may do depends on it: a container that has ended can be connected once more
	}
	for _, n := range []string{"www", "job", "chatty", "lan"} {
		e.ask("POST", "/containers/"+n+"/kill", nil)
		e.ask("POST", "/containers/"+n+"/wait", nil)
	}
}

// awaitFacts waits until what a verb makes of facts is so.
func (e *engine) awaitFacts(v verb) {
	e.t.Helper()
	var wrong []string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		got, err := e.observe()
		if err != nil {
			e.t.Fatalf("%s: %v\n%s", v.name, err, e.tail())
		}
		wrong = nil
		for k, want := range v.change {
			if got[k] != want {
				wrong = append(wrong, fmt.Sprintf("%s: is %q, want %q", k, got[k], want))
			}
		}
		if wrong == nil {
			return
		}
	}
	e.t.Fatalf("%s: not so after a minute:\n%s", v.name, strings.Join(wrong, "\n"))
}

// shutdown ends the engine with its keeper.
func (e *engine) shutdown() {
	e.soon("POST", "/berth/v1/shutdown", nil, prompt)
	<-e.ended
	os.RemoveAll(e.dir + "/exec")
}

// checkup asks for a check of the whole store and gives what is damaged and not repaired.
func (e *engine) checkup(repair bool) (rooms int, wrong []string) {
	e.t.Helper()
	path := "/system/check"
	if repair {
		path += "?repair=1"
	}
	code, b := e.berth(http.MethodPost, path)
	if code != http.StatusOK {
		e.t.Fatalf("system check: %d %s", code, b)
	}
	for in := json.NewDecoder(strings.NewReader(string(b))); in.More(); {
		var l struct {
			Room    string
			Damages []struct {
				Subject, What, Failed string
				Repaired              bool
			}
			Error string
			Sum   *struct{ Rooms int }
		}
		if err := in.Decode(&l); err != nil || l.Error != "" {
			e.t.Fatalf("system check: %v %s", err, b)
		}
		for _, d := range l.Damages {
			if !d.Repaired {
				wrong = append(wrong, l.Room+": "+d.Subject+": "+d.What+" "+d.Failed)
			}
		}
		if l.Sum != nil {
			rooms = l.Sum.Rooms
		}
	}
	if rooms < 5 {
		e.t.Fatalf("system check is not whole: %s", b)
	}
	return rooms, wrong
}

var changing = regexp.MustCompile(`[0-9a-f]{8,}|[0-9]{4,}`)

// kindsOf gives the files of a data root by their path with what is different from file to file left out. The content of layers and
// volumes is one kind each.
func kindsOf(t *testing.T, root string) map[string][]string {
	kinds := map[string][]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		kind := changing.ReplaceAllString(rel, "N")
		for _, content := range []string{"/fs/", "/_data/", "/rootfs/", "/shm/"} {
			if i := strings.Index(kind, content); i >= 0 {
				kind = kind[:i+len(content)] + "…"
			}
		}
		parts := strings.Split(kind, "/")
		if len(parts) > 1 && (parts[0] == "volumes" || parts[0] == "image" && parts[1] == "layer" && len(parts) > 3) { // names
			parts[map[bool]int{true: 1, false: 3}[parts[0] == "volumes"]] = "NAME"
		}
		if rel == "engine.lock" || strings.HasSuffix(rel, "/lock") {
			return nil
		}
		kind = strings.Join(parts, "/")
		kinds[kind] = append(kinds[kind], rel)
		return nil
	})
	if err != nil || len(kinds) < 10 {
		t.Fatalf("%v: %v", err, kinds)
	}
	return kinds
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	os.RemoveAll(to)
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v %s", err, out)
	}
}

// spoil damages a file.
func spoil(t *testing.T, path, way string, r *rand.Rand) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	switch way {
	case "missing":
		err = os.Remove(path)
	case "empty":
		err = os.Truncate(path, 0)
	case "truncated":
		err = os.Truncate(path, int64(len(b)/2))
	case "garbage":
		for i := range b {
			b[i] = byte(r.UintN(256))
		}
		err = os.WriteFile(path, append(b, 'x'), 0o600)
	case "flipped":
		if len(b) > 0 {
			b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		}
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
