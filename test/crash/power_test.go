package crash

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const diskSize = 192 << 20

// TestPowerCut takes an engine through an ordeal on a disk that remembers every write, and then looks at what power cuts at random
// moments would have left: an engine that opens it must have everything that was acknowledged before, nothing that was not asked for,
// and must be able to start its containers.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	cuts, seed := ordeal(t)
	r := rand.New(rand.NewPCG(seed, 7))
	for _, w := range []struct {
		name, options string
		trash         bool
	}{
		{"data=ordered", "data=ordered", false},                                     // the usual
		{"data=writeback,noauto_da_alloc", "data=writeback,noauto_da_alloc", false}, // what shows most mistakes
		{"with a trash", "data=writeback,noauto_da_alloc", true},
	} {
		t.Run(w.name, func(t *testing.T) {
			rec := record(t, w.options+",commit=600", w.trash)
			if len(rec.disk.log) < 100 {
				t.Fatalf("only %d writes reached the disk", len(rec.disk.log))
			}
			flushes := 0
			for _, w := range rec.disk.log {
				if w.data == nil {
					flushes++
				}
			}
			t.Logf("%d verbs, %d writes, %d flushes", len(rec.acks), len(rec.disk.log)-flushes, flushes)
			for n := range cuts / 3 {
				at := r.IntN(len(rec.disk.log) + 1)
				if n%2 == 0 { // around an acknowledgement: right after it, nothing may be missing
					at = min(len(rec.disk.log), rec.acks[r.IntN(len(rec.acks))].done+r.IntN(3))
				}
				began := time.Now()
				rec.check(at, r)
				if took := time.Since(began); took > 5*time.Second {
					t.Logf("cut %d at %d took %v", n, at, took)
				}
				if t.Failed() {
					t.Fatalf("BERTH_SEED=%d, cut %d", seed, n)
				}
			}
		})
	}
}

// ack is one verb of a recording: the disk's log had begun and done entries when it was asked for and when it was acknowledged.
type ack struct {
	verb        verb
	begun, done int
	facts       facts // that hold from then on
}

// recording is an ordeal on a disk.
type recording struct {
	t       *testing.T
	o       *trial
	options string
	start   *disk // as it was before the first verb
	disk    *disk
	acks    []ack
	mounted string
}

// record takes an engine through an ordeal on a disk.
func record(t *testing.T, options string, trash bool) *recording {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: file systems are mounted")
	}
	o := &trial{t: t, left: map[string]bool{}, model: facts{"nameless volumes": "0"}, busybox: busyboxImage(t), extra: extraImage(t), stateless: true}
	o.e = newEngine(t)
	rec := &recording{t: t, o: o, options: options, disk: newDisk(t, ext4Image(t, diskSize)), mounted: t.TempDir()}
	rec.mount(rec.disk.loop, options)
	o.trash(trash)
	verbs := o.e.ordealVerbs
	if trash {
		verbs = o.e.trashVerbs
	}
	o.e.data = filepath.Join(rec.mounted, "data")
	o.e.start()
	defer rec.leave(rec.disk.loop)
	unix.Sync() // the engine's first start is not what is looked at
	rec.start = rec.disk.snapshot()
	for range 2 { // the second time over what the first has left
		for _, v := range verbs(o.busybox, o.extra) {
			a := ack{verb: v, begun: rec.disk.now()}
			if err := v.do(false); err != nil {
				t.Fatalf("%s: %v\n%s", v.name, err, o.e.tail())
			}
			o.model = o.model.after(v)
			a.done, a.facts = rec.disk.now(), o.model
			o.verify(nil)
			rec.acks = append(rec.acks, a)
		}
	}
	return rec
}

func (rec *recording) mount(device, options string) {
	rec.t.Helper()
	if err := unix.Mount(device, rec.mounted, "ext4", 0, options); err != nil {
		rec.t.Fatalf("mount %s: %v", device, err)
	}
	rec.t.Cleanup(func() { unix.Unmount(rec.mounted, unix.MNT_DETACH) }) // what a failure left
}

// leave ends the engine and unmounts its disk.
func (rec *recording) leave(string) {
	rec.o.e.end()
	os.RemoveAll(rec.o.e.dir + "/exec")
	if eventually(func() bool { return unix.Unmount(rec.mounted, 0) == nil }) {
		return
	}
	rec.t.Errorf("the disk stays mounted: %s", readMounts(rec.mounted))
	unix.Unmount(rec.mounted, unix.MNT_DETACH)
}

func readMounts(below string) (all string) {
	b, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, below) {
			all += line
		}
	}
	return all
}

// check opens an engine on what a cut at a moment of the log leaves.
func (rec *recording) check(at int, r *rand.Rand) {
	t, o := rec.t, rec.o
	image, what := rec.disk.afterCut(t, rec.start, at, r)
	defer os.Remove(image)
	loop := attach(t, image)
	defer exec.Command("losetup", "-d", loop).Run()
	rec.mount(loop, rec.options)
	defer rec.leave(loop)

	before := facts{"nameless volumes": "0"}
	var under *ack
	for i, a := range rec.acks {
		if a.done <= at {
			before = a.facts
		} else if a.begun <= at {
			under = &rec.acks[i]
		}
	}
	what += ", after "
	switch {
	case under != nil:
		what += fmt.Sprintf("facts %v, during %q", before, under.verb.name)
	default:
		what += fmt.Sprintf("facts %v", before)
	}
	o.e.mark()
	if !o.e.tryStart() {
		t.Fatalf("%s: the engine does not start\n%s", what, o.e.sinceMark())
	}
	o.model = before
	wrong := o.await(before, under)
	if len(wrong) > 0 {
		t.Errorf("%s:\n%s\n%s", what, strings.Join(wrong, "\n"), o.e.sinceMark())
		return
	}
	if code, b := o.e.berth(http.MethodPost, "/images/fsck"); code != http.StatusOK || !strings.Contains(string(b), `"damaged":0`) {
		t.Errorf("%s: the check of the store: %d %s", what, code, b)
	}
	o.startAll(what)
}

// await waits until the facts are those before a cut, but for what the verb under way may have changed.
func (o *trial) await(before facts, under *ack) (wrong []string) {
	want := before.lasting()
	next := want
	var v verb
	if under != nil {
		v = under.verb
		next = before.after(v).lasting()
	}
	eventually(func() bool {
		got, err := o.e.observe()
		if err != nil {
			o.t.Fatalf("the engine died\n%s", o.e.tail())
		}
		lasting := got.lasting()
		wrong = nil
		for _, k := range slices.Concat(differingKeys(want, lasting), differingKeys(next, lasting)) {
			if lasting[k] != want[k] && lasting[k] != next[k] {
				wrong = append(wrong, fmt.Sprintf("%s: is %q, was %q, would be %q", k, lasting[k], want[k], next[k]))
			}
		}
		return wrong == nil
	})
	return wrong
}

// startAll starts every container that is there, which needs its layer, its volumes and its network.
func (o *trial) startAll(what string) {
	got, err := o.e.observe()
	if err != nil {
		o.t.Fatal(err)
	}
	for k := range got {
		name, ok := strings.CutPrefix(k, "container ")
		if !ok {
			continue
		}
		if _, err := o.e.ask("POST", "/containers/"+name+"/start", nil); err != nil && !strings.Contains(err.Error(), "marked for removal") && !strings.Contains(err.Error(), "is dead") {
			o.t.Errorf("%s: start %s: %v\n%s", what, name, err, o.e.sinceMark())
		}
	}
}

func (e *engine) sinceMark() string {
	b, _ := os.ReadFile(e.log.Name())
	return string(b[min(e.from, int64(len(b))):])
}
