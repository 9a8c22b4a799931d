package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/base/event"
	"berth/base/fault"
	"berth/engine/container"
	"berth/kernel/cgroup"
)

// fakeQuota is a file system that counts projects.
type fakeQuota struct {
	limits map[uint32]uint64
	dirs   map[string]uint32
	fail   bool
}

func (q *fakeQuota) Free(first uint32, taken func(uint32) bool) (uint32, error) {
	for p := first; ; p++ {
		if q.limits[p] == 0 && !taken(p) {
			return p, nil
		}
	}
}

func (q *fakeQuota) Set(dir string, project uint32, bytes uint64) error {
	if q.fail {
		return errors.New("disk on fire")
	}
	q.limits[project], q.dirs[dir] = bytes, project
	return nil
}

func (q *fakeQuota) Limit(project uint32, bytes uint64) error {
	if delete(q.limits, project); bytes > 0 {
		q.limits[project] = bytes
	}
	return nil
}

func (q *fakeQuota) Close() error { return nil }

func TestStorageOpt(t *testing.T) {
	w := newWorld(t)
	sized := func(opts map[string]string) container.Spec {
		s := spec("true")
		s.StorageOpt = opts
		return s
	}
	w.quotas.control = nil
	w.quotas.why = errors.New("no quotas here")
	if _, err := w.Create(t.Context(), "", sized(map[string]string{"size": "10m"})); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "--storage-opt is supported only for overlay over xfs") {
		t.Errorf("%v", err)
	}
	q := &fakeQuota{limits: map[uint32]uint64{}, dirs: map[string]uint32{}}
	w.quotas.control = q
	for opts, want := range map[[2]string]string{
		{"colour", "red"}: "Unknown option colour", {"size", "much"}: "--storage-opt size=much: invalid size", {"size", ""}: "--storage-opt size=: invalid size",
	} {
		if _, err := w.Create(t.Context(), "", sized(map[string]string{opts[0]: opts[1]})); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", opts, err)
		}
	}

	one, two := w.create("", sized(map[string]string{"Size": "10m"})), w.create("", sized(map[string]string{"size": "1g"}))
	w.create("", sized(nil))
	p := w.quotas.first
	if want := map[uint32]uint64{p: 10 << 20, p + 1: 1 << 30}; !reflect.DeepEqual(q.limits, want) {
		t.Errorf("limits %v, want %v", q.limits, want)
	}
	layer, _ := w.images.Layer(one)
	if q.dirs[layer.Upper] != p || q.dirs[layer.Work] != p {
		t.Errorf("%v: both directories of a layer have the number, or nothing can be moved between them", q.dirs)
	}
	w.reopen()
	w.quotas.control = q
	if r := w.index.get(two).record(); r.LayerProject != p+1 || r.LayerSize != 1<<30 {
		t.Errorf("%+v", r)
	}
	if err := w.Remove(t.Context(), one, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if want := map[uint32]uint64{p + 1: 1 << 30}; !reflect.DeepEqual(q.limits, want) {
		t.Errorf("after the removal: limits %v, want %v", q.limits, want)
	}

	// A layer that got lost is made again with its limit.
	w.images.RemoveLayer(two)
	if err := w.Start(t.Context(), two); err != nil {
		t.Fatal(err)
	}
	w.wait(two)
	if r := w.index.get(two).record(); q.limits[r.LayerProject] != 1<<30 {
		t.Errorf("%+v, %v", r, q.limits)
	}

	q.fail = true
	if _, err := w.Create(t.Context(), "", sized(map[string]string{"size": "10m"})); err == nil || !strings.Contains(err.Error(), "disk on fire") {
		t.Errorf("%v", err)
	}
	if left := w.images.Layers(); len(left) != 2 {
		t.Errorf("layers left: %v", left)
	}
}

func TestUmaskAndCDI(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "crane.yaml"), []byte("cdiVersion: 0.5.0\nkind: harbour.example/crane\ndevices: [{name: north, containerEdits: {env: [CRANE=north]}}]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.cfg.CDIDirs = []string{dir}
	w.reopen()
	s := spec("umask; echo $CRANE")
	mask := uint32(0o27)
	s.Process.Umask = &mask
	s.Resources.DeviceRequests = []container.DeviceRequest{{Driver: "cdi", DeviceIDs: []string{"harbour.example/crane=north"}}}
	if out, code := w.output(s); out != "0027\nnorth\n" || code != 0 {
		t.Errorf("%q, %d", out, code)
	}
	if f := w.Info(t.Context()); !slices.Equal(f.CDIDirs, []string{dir}) || !slices.Equal(f.CDIDevices, []string{"harbour.example/crane=north"}) {
		t.Errorf("%+v", f)
	}
	s.Resources.DeviceRequests[0].DeviceIDs = []string{"harbour.example/crane=south"}
	id := w.create("", s)
	if err := w.Start(t.Context(), id); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "CDI device injection failed: unresolvable CDI devices harbour.example/crane=south") {
		t.Errorf("%v", err)
	}
	mask = 0o1000
	if _, err := w.Create(t.Context(), "", s); !fault.Is(err, fault.Invalid) {
		t.Errorf("%v", err)
	}
}

func TestLifting(t *testing.T) {
	old := &container.Resources{
		BlkioWeightDevice:  []container.WeightDevice{{Path: "/dev/a", Weight: 100}, {Path: "/dev/b", Weight: 200}},
		BlkioDeviceReadBps: []container.ThrottleDevice{{Path: "/dev/a", Rate: 1}}, BlkioDeviceWriteIOps: []container.ThrottleDevice{{Path: "/dev/c", Rate: 3}},
	}
	for _, c := range []struct {
		name string
		ask  container.Resources
		want string
	}{
		{"nothing", container.Resources{}, "[{/dev/a 100} {/dev/b 200}] [{/dev/a 1}] [{/dev/c 3}]"},
		{"one replaced", container.Resources{BlkioWeightDevice: []container.WeightDevice{{Path: "/dev/b", Weight: 300}}}, "[{/dev/b 300} {/dev/a 0}] [{/dev/a 1}] [{/dev/c 3}]"},
		{"lifted", container.Resources{BlkioDeviceReadBps: []container.ThrottleDevice{}, BlkioDeviceWriteIOps: []container.ThrottleDevice{}}, "[{/dev/a 100} {/dev/b 200}] [{/dev/a 0}] [{/dev/c 0}]"},
	} {
		now, err := mergeResources(*old, c.ask)
		if err != nil {
			t.Fatal(err)
		}
		l := lifting(old, &now)
		if got := fmt.Sprint(l.BlkioWeightDevice, l.BlkioDeviceReadBps, l.BlkioDeviceWriteIOps); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if len(now.BlkioWeightDevice) > 2 {
			t.Errorf("%s: the lines that lift limits are remembered: %v", c.name, now)
		}
	}
}

// An update that cannot be written down changes nothing in the cgroup either, and one that is written is told once.
func TestUpdateIsAtomic(t *testing.T) {
	w := newWorld(t)
	s := spec("exec sleep 100")
	limit := int64(50)
	s.Resources.PidsLimit, s.Resources.CPUShares = &limit, 300
	id := w.run("", s)
	cg := w.index.get(id).cgroup()
	holds := func(when string, pids, weight string) {
		t.Helper()
		if got := fileIn(cg, "pids", "pids.max"); got != pids {
			t.Errorf("%s: pids.max is %s, want %s", when, got, pids)
		}
		if got := fileIn(cg, "cpu", "cpu.shares", "cpu.weight"); got != weight {
			t.Errorf("%s: the weight is %s, want %s", when, got, weight)
		}
	}
	first := fileIn(cg, "cpu", "cpu.shares", "cpu.weight")
	dir := w.store.Dir(id)
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	more := int64(60)
	_, err := w.Update(t.Context(), id, container.Resources{PidsLimit: &more, CPUShares: 700}, &container.Restart{Name: "always"})
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	if err == nil {
		t.Fatal("an update was answered that was not written down")
	}
	holds("not written down", "50", first)
	if i, _ := w.Inspect(t.Context(), id); *i.Spec.Resources.PidsLimit != 50 || i.Spec.Restart.Name != "no" {
		t.Errorf("%+v", i.Spec)
	}
	if _, err := w.Update(t.Context(), id, container.Resources{PidsLimit: &more}, nil); err != nil {
		t.Fatal(err)
	}
	holds("updated", "60", first)
	none := int64(0)
	if _, err := w.Update(t.Context(), id, container.Resources{PidsLimit: &none}, nil); err != nil {
		t.Fatal(err)
	}
	holds("without a limit", "max", first)
	if i, _ := w.Inspect(t.Context(), id); i.Spec.Resources.PidsLimit == nil || *i.Spec.Resources.PidsLimit != 0 {
		t.Errorf("a limit that was lifted is %v, not 0", i.Spec.Resources.PidsLimit)
	}
}

func fileIn(cg *cgroup.Cgroup, controller string, names ...string) string {
	for _, n := range names {
		if b, err := os.ReadFile(filepath.Join(cg.Dir(controller), n)); err == nil {
			return strings.TrimSpace(string(b))
		}
	}
	return ""
}

// heard collects a container's events from now on.
func (w *world) heard(id string) func() []string {
	sub := w.bus.Subscribe(w.t.Context(), time.Time{}, time.Time{}, func(e event.Event) bool { return e.ID == id })
	var mu sync.Mutex
	var all []string
	go func() {
		for {
			e, ok := sub.Next(w.t.Context())
			if !ok {
				return
			}
			mu.Lock()
			all = append(all, e.Action)
			mu.Unlock()
		}
	}()
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

// The kernel kills a process of a container that goes on: the event comes then, once, and not again at the end.
func TestOOMIsToldWhenItHappens(t *testing.T) {
	w := newWorld(t)
	s := spec("tail /dev/zero; echo survived; exec sleep 100")
	s.Resources.Memory, s.Resources.MemorySwap = 8<<20, 8<<20
	id := w.create("", s)
	told := w.heard(id)
	if err := w.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	w.await(id, "survived")
	w.eventually("the event", func() bool { return slices.Contains(told(), "oom") })
	if st := w.state(id); !st.OOMKilled || !st.Running {
		t.Errorf("%+v", st)
	}
	w.reopen()
	told = w.heard(id)
	if err := w.Kill(context.Background(), id, "KILL"); err != nil {
		t.Fatal(err)
	}
	w.wait(id)
	w.eventually("the end", func() bool { return slices.Contains(told(), "die") })
	if all := told(); slices.Contains(all, "oom") {
		t.Errorf("told again: %v", all)
	}
	if st := w.state(id); !st.OOMKilled || st.Running {
		t.Errorf("%+v", st)
	}
}

// The same for one that gets its limit while it runs.
func TestOOMIsToldAfterAnUpdate(t *testing.T) {
	w := newWorld(t)
	id := w.create("", spec("until test -e /go; do sleep 0.02; done; tail /dev/zero; echo survived; exec sleep 100"))
	told := w.heard(id)
	if err := w.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Update(t.Context(), id, container.Resources{Memory: 8 << 20, MemorySwap: 8 << 20}, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/root/go", w.state(id).Pid), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	w.await(id, "survived")
	w.eventually("the event", func() bool { return slices.Contains(told(), "oom") })
	if st := w.state(id); !st.OOMKilled || !st.Running {
		t.Errorf("%+v", st)
	}
}

// A policy that is changed while a container waits for its next start counts at once.
func TestPolicyChangedWhileWaiting(t *testing.T) {
	w := newWorld(t)
	s := spec("exit 3")
	s.Restart = container.Restart{Name: "always"}
	id := w.run("", s)
	waiting := func() bool { // for seconds to come: waits double
		at := w.index.get(id).standing()
		return at.State.Status == container.Restarting && time.Until(at.State.FinishedAt.Add(at.RestartWait)) > 2*time.Second
	}
	w.eventually("a wait", waiting)
	if err := w.Rename(t.Context(), id, "another"); err != nil {
		t.Errorf("renamed while waiting: %v", err)
	}
	w.eventually("a wait", waiting)
	if _, err := w.Update(t.Context(), id, container.Resources{CPUShares: 100}, &container.Restart{Name: "no"}); err != nil {
		t.Fatal(err)
	}
	if st := w.state(id); st.Status != container.Exited || st.ExitCode != 3 || st.Restarting {
		t.Errorf("%+v", st)
	}
	n := w.index.get(id).standing().RestartCount
	if err := w.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	w.eventually("its end", func() bool { return w.state(id).Status == container.Exited })
	if got := w.index.get(id).standing().RestartCount; got != 0 {
		t.Errorf("%d restarts after %d and a start by hand", got, n)
	}
}
