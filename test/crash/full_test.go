package crash

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFullDisk fills the disk of the data root before each verb. A verb that needs room says that there is none and leaves nothing
// half made; who asks is answered; an engine starts; and once there is room everything goes on.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root: file systems are mounted")
	}
	o := &trial{t: t, left: map[string]bool{}, model: facts{"nameless volumes": "0"}, busybox: busyboxImage(t), extra: extraImage(t)}
	o.e = newEngine(t)
	image := ext4Image(t, 128<<20) // not a tmpfs: what a file system keeps back for its own names matters
	loop := attach(t, image)
	t.Cleanup(func() { detach(loop) })
	rec := &recording{t: t, o: o, mounted: t.TempDir()}
	rec.mount(loop, "")
	o.e.data = filepath.Join(rec.mounted, "data")
	o.e.start()
	defer rec.leave(loop)
	full, starts := 0, 0
	for n, v := range o.e.ordealVerbs(o.busybox, o.extra) {
		fill(t, rec.mounted)
		var r *refused
		err := v.do(false)
		if errors.As(err, &r) {
			full++
			o.mayBe(v, err)
			if r.code >= 400 && !strings.Contains(err.Error(), "no space left") {
				t.Errorf("%s on a full disk: %v", v.name, err)
			}
		} else if err != nil {
			t.Fatalf("%s: the engine died: %v", v.name, err)
		}
		if n%6 == 0 {
			o.e.answers(v.name + " on a full disk")
			if n > 0 {
				o.e.kill()
				o.e.mark()
				if !o.e.tryStart() {
					t.Fatalf("%s: no engine starts on a full disk: %s", v.name, o.e.sinceMark())
				}
				starts++
				o.e.answers("an engine that started on a full disk")
			}
		}
		os.Remove(filepath.Join(rec.mounted, "filler"))
		if err != nil {
			o.insistWith(v, func(err error) { t.Logf("%s once there is room: %v", v.name, err) }, true)
		} else {
			o.model = o.model.after(v)
			o.verify(nil)
		}
		if t.Failed() {
			t.Fatalf("%s", o.e.tail())
		}
	}
	o.end()
	if code, b := o.e.berth(http.MethodPost, "/system/check"); code != http.StatusOK || !strings.Contains(string(b), `"damaged":0`) {
		t.Errorf("the check of the store: %d %s", code, b)
	}
	t.Logf("%d verbs were refused by a full disk, %d engines started on one", full, starts)
	if full < 10 {
		t.Errorf("only %d verbs were refused: is the disk full at all?", full)
	}
}

// TestDiskErrors lets writes fail at random below the file system, for a while: ext4 stops writing, the engine says so, and after the
// machine has come up again everything that was acknowledged is there.
func TestDiskErrors(t *testing.T) {
	t.Parallel()
	kills, seed := ordeal(t)
	rounds := kills / 6 // each takes seconds
	r := rand.New(rand.NewPCG(seed, 11))
	for n := range rounds {
		diskErrors(t, r)
		if t.Failed() {
			t.Fatalf("BERTH_SEED=%d, round %d", seed, n)
		}
	}
}

func diskErrors(t *testing.T, r *rand.Rand) {
	if os.Getuid() != 0 {
		t.Skip("needs root: file systems are mounted")
	}
	o := &trial{t: t, left: map[string]bool{}, model: facts{"nameless volumes": "0"}, busybox: busyboxImage(t), extra: extraImage(t), stateless: true}
	o.e = newEngine(t)
	defer func() {
		if t.Failed() {
			t.Logf("the engine said:\n%s", o.e.tail())
		}
	}()
	rec := &recording{t: t, o: o, disk: newDisk(t, ext4Image(t, diskSize)), mounted: t.TempDir()}
	rec.mount(rec.disk.loop, "commit=600,errors=remount-ro")
	o.e.data = filepath.Join(rec.mounted, "data")
	o.e.start()
	left := true
	defer func() {
		if left {
			rec.leave(rec.disk.loop)
		}
	}()
	verbs := o.e.ordealVerbs(o.busybox, o.extra)
	from := r.IntN(len(verbs))
	var last *verb
	for n, v := range verbs {
		if n == from {
			rec.disk.failWrites(func(int) bool { return r.IntN(3) == 0 })
		}
		err := v.do(false)
		var ref *refused
		switch {
		case err == nil:
			o.model = o.model.after(v)
			continue
		case errors.As(err, &ref) && n >= from:
			last = &verbs[n]
		default:
			t.Fatalf("%s: %v\n%s", v.name, err, o.e.tail())
		}
		break
	}
	// What is in the kernel's memory counts for nothing any more: the machine is reset.
	o.e.kill()
	rec.disk.failWrites(nil)
	rec.leaveHard()
	left = false
	rec.mount(rec.disk.loop, "")
	defer rec.leave(rec.disk.loop)
	o.e.mark()
	if !o.e.tryStart() {
		t.Fatalf("the engine does not start after the disk failed: %s", o.e.sinceMark())
	}
	if wrong := o.await(o.model, asAck(last)); len(wrong) > 0 {
		t.Errorf("after the disk failed from %q on:\n%s", verbs[from].name, strings.Join(wrong, "\n"))
	}
}

func asAck(v *verb) *ack {
	if v == nil {
		return nil
	}
	return &ack{verb: *v}
}

// leaveHard ends the engine's processes and unmounts, whatever the disk says.
func (rec *recording) leaveHard() {
	rec.o.e.killAll()
	os.RemoveAll(rec.o.e.dir + "/exec")
	if eventually(func() bool { return unix.Unmount(rec.mounted, 0) == nil }) {
		return
	}
	rec.t.Fatalf("the disk stays mounted: %s", readMounts(rec.mounted))
}

// fill takes all room of a file system, also what is kept for root.
func fill(t *testing.T, dir string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "filler"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		if errors.Is(err, unix.ENOSPC) {
			return
		}
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size >= 512; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	f.Sync() // delayed allocation has not told all yet
	for {
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			return
		}
		if f.Sync() != nil {
			return
		}
	}
}
