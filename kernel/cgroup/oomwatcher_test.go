package cgroup

import (
	"os"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
)

// waits gives the keys that a watcher tells of, until it is closed.
func waits(t *testing.T, w *OOMWatcher) <-chan string {
	told, done := make(chan string, 100), make(chan struct{})
	go func() {
		defer close(done)
		for {
			keys, ok := w.Wait()
			if !ok {
				return
			}
			for _, k := range keys {
				told <- k
			}
		}
	}()
	t.Cleanup(func() { w.Close(); <-done; w.Release() })
	return told
}

func hear(t *testing.T, told <-chan string, want string) {
	t.Helper()
	select {
	case key := <-told:
		if key != want {
			t.Errorf("told of %s, want %s", key, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("no word of %s", want)
	}
}

// v2 announces a changed memory.events as a modification of the file, which plain files do as well.
func TestOOMWatcherV2(t *testing.T) {
	w, err := NewOOMWatcher()
	if err != nil {
		t.Fatal(err)
	}
	told := waits(t, w)
	files := map[string]string{"cgroup.controllers": "memory", "memory.events": "oom_kill 0\n"}
	one, two := fakeV2(t, files), fakeV2(t, files)
	for key, c := range map[string]*Cgroup{"one": one, "two": two} {
		if err := w.Add(key, c); err != nil {
			t.Fatal(err)
		}
	}
	kill := func(c *Cgroup) {
		t.Helper()
		f, err := os.OpenFile(c.Dir("memory")+"/memory.events", os.O_WRONLY, 0) // not emptied: that would be a modification of its own
		if err == nil {
			_, err = f.WriteString("low 0\noom_kill 3\n")
			f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	kill(two)
	hear(t, told, "two")
	if n := two.OOMKills(); n != 3 {
		t.Errorf("%d kills", n)
	}
	w.Remove("two")
	w.Remove("two")
	kill(two)
	kill(one)
	hear(t, told, "one")
}

func TestOOMWatcherNeedsMemory(t *testing.T) {
	w, err := NewOOMWatcher()
	if err != nil {
		t.Fatal(err)
	}
	waits(t, w)
	if err := w.Add("x", fakeV2(t, map[string]string{"cgroup.controllers": "cpu"})); !fault.Is(err, fault.NotImplemented) && !fault.Is(err, fault.Internal) {
		t.Errorf("%v", err)
	}
	w.Close()
	if err := w.Add("x", fakeV2(t, map[string]string{"cgroup.controllers": "memory", "memory.events": ""})); !fault.Is(err, fault.Unavailable) {
		t.Errorf("%v", err)
	}
}

// Two containers, one of which takes too much: the watch tells of that one, while its other processes live.
func TestRealOOMWatcher(t *testing.T) {
	l, path := real(t)
	needs(t, l, "memory")
	w, err := NewOOMWatcher()
	if err != nil {
		t.Fatal(err)
	}
	told := waits(t, w)
	limits := func() *specs.LinuxResources { return memory(8<<20, 8<<20) }
	one, two := apply(t, l, path+"-one", limits()), apply(t, l, path+"-two", limits())
	for key, c := range map[string]*Cgroup{"one": one, "two": two} {
		if err := w.Add(key, c); err != nil {
			t.Fatal(err)
		}
	}
	sleeper(t, two, "head -c 100000000 /dev/zero | tail -c 100000000 >/dev/null; exec sleep 100")
	hear(t, told, "two")
	eventually(t, "an OOM kill is counted", func() bool { return two.OOMKills() > 0 })
	if n := one.OOMKills(); n != 0 {
		t.Errorf("%d kills in the other", n)
	}
}
