package engine

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/engine/container"
	"berth/engine/userns"
	"berth/kernel/idmap"
	"berth/kernel/overlay"
	"berth/kernel/probe"
)

// mappedWorld is an engine whose pool has room for n containers of 10,000 ids.
func mappedWorld(t *testing.T, n uint32) *world {
	t.Helper()
	if why := overlay.CanMap(probe.Host()); why != "" {
		t.Skip("needs id-mapped overlay layers: " + why)
	}
	w := newWorld(t)
	blocks := []idmap.Block{{Start: 3000000, Size: n * 10000}}
	w.cfg.Userns = userns.Config{Default: userns.Host, Users: blocks, Groups: blocks}
	w.reopen()
	return w
}

// auto is a container with 10,000 ids of its own.
func auto(args ...string) container.Spec {
	s := container.Spec{Image: "busybox", Network: container.Network{Mode: "none"}, Security: container.Security{UsernsMode: "auto:size=10000"}}
	s.Process.Cmd = args
	return s
}

// mapOf gives the first host id of a running container's root, as the kernel has it.
func (w *world) mapOf(id string) string {
	w.t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(w.state(id).Pid) + "/uid_map")
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(b)), ":")
}

// Ids are given once, to whoever is created, until it is removed, whatever becomes of the engine in between.
func TestUsernsRanges(t *testing.T) {
	w := mappedWorld(t, 2)
	a, b := w.run("aa", auto("sleep", "1000")), w.run("bb", auto("sleep", "1000"))
	if w.mapOf(a) != "0:3000000:10000" || w.mapOf(b) != "0:3010000:10000" {
		t.Errorf("%s and %s", w.mapOf(a), w.mapOf(b))
	}
	full := func(when string) {
		t.Helper()
		if _, err := w.Create(context.Background(), "cc", auto("true")); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "no 10000 host ids in a row are left") {
			t.Errorf("%s: %v", when, err)
		}
	}
	full("both are taken")
	w.reopen()
	full("a new engine")
	if w.mapOf(a) != "0:3000000:10000" {
		t.Errorf("after the engine's restart %s", w.mapOf(a))
	}
	// One that cannot be made gives back what it had.
	if err := w.Remove(context.Background(), b, RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	w.images.fail = "CreateLayer"
	for range 3 {
		if _, err := w.Create(context.Background(), "dd", auto("true")); err == nil || fault.Is(err, fault.Conflict) {
			t.Errorf("with a full disk: %v", err)
		}
	}
	w.images.fail = ""
	c := w.run("ee", auto("sleep", "1000"))
	if w.mapOf(c) != "0:3010000:10000" {
		t.Errorf("what was given back is %s", w.mapOf(c))
	}
}

// A creation that was cut off between the choice of its ids and its record holds nothing.
func TestUsernsOfHalfACreation(t *testing.T) {
	w := mappedWorld(t, 1)
	m, err := w.userns.pool.Take(strings.Repeat("a", 64), userns.Wish{Size: 10000})
	if err != nil || m.Users[0].Outside != 3000000 {
		t.Fatal(m, err)
	}
	if err := w.store.MakeDir(strings.Repeat("a", 64)); err != nil {
		t.Fatal(err)
	}
	w.reopen()
	if id := w.run("aa", auto("sleep", "1000")); w.mapOf(id) != "0:3000000:10000" {
		t.Errorf("%s", w.mapOf(id))
	}
}

// What a container writes is stored with the ids that it has inside, and the engine's keeper dies without harm to it.
func TestUsernsKeeperDies(t *testing.T) {
	w := mappedWorld(t, 1)
	id := w.run("aa", auto("sh", "-c", "touch /made; chmod 4755 /made; while sleep .05; do :; done"))
	w.eventually("the file is there", func() bool {
		var st unix.Stat_t
		return unix.Lstat(w.images.root+"/"+id+"/upper/made", &st) == nil && st.Uid == 0 && st.Mode&0o7777 == 0o4755
	})
	pid := w.Info(context.Background()).KeeperPID
	if b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline"); !strings.Contains(string(b), w.cfg.ExecRoot) {
		t.Fatalf("%d is not our keeper: %q", pid, b)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.eventually("a new keeper", func() bool { p := w.Info(context.Background()).KeeperPID; return p != 0 && p != pid })
	if w.mapOf(id) != "0:3000000:10000" {
		t.Error(w.mapOf(id))
	}
}

// What a container may not be together with a user namespace is refused, or gets the host's where that was configured.
func TestUsernsRefusals(t *testing.T) {
	w := mappedWorld(t, 4)
	donor, other := w.run("aa", auto("sleep", "1000")), w.run("bb", auto("sleep", "1000"))
	plain := w.run("cc", container.Spec{Image: "busybox", Network: container.Network{Mode: "none"}, Process: container.Process{Cmd: []string{"sleep", "1000"}}})
	s := auto("sleep", "1000")
	s.Security.UsernsMode = "container:aa"
	w.run("guest", s)
	for _, c := range []struct {
		change func(*container.Spec)
		want   string // of the error; "" it is created
		mapped string // id of the container with the same mapping
	}{
		{func(s *container.Spec) { s.Security.Privileged = true }, "privileged mode is incompatible with user namespaces", ""},
		{func(s *container.Spec) { s.Network.Mode = "host" }, "cannot share the host's network namespace", ""},
		{func(s *container.Spec) { s.Namespaces.PID = "host" }, "cannot share the host PID namespace", ""},
		{func(s *container.Spec) { s.Namespaces.IPC = "host" }, "cannot share the host IPC namespace", ""},
		{func(s *container.Spec) { s.Namespaces.UTS = "host" }, "cannot share the host UTS namespace", ""},
		{func(s *container.Spec) { s.Security.UsernsMode = "container:nobody" }, "No such container: nobody", ""},
		{func(s *container.Spec) { s.Namespaces.PID = "container:aa" }, "who shares one lives in its user namespace", ""},
		{func(s *container.Spec) { s.Security.UsernsMode, s.Namespaces.PID = "", "container:aa" }, "", donor},
		{func(s *container.Spec) { s.Security.UsernsMode = "container:bb" }, "", other},
		{func(s *container.Spec) {
			s.Security.UsernsMode, s.Namespaces.PID, s.Network.Mode = "", "container:guest", "container:aa"
		}, "", donor},
		{func(s *container.Spec) {
			s.Security.UsernsMode, s.Namespaces.PID, s.Network.Mode = "", "container:guest", "container:bb"
		}, "live in different user namespaces", ""},
		{func(s *container.Spec) {
			s.Security.UsernsMode, s.Namespaces.PID, s.Security.Privileged = "", "container:aa", true
		}, "privileged mode is incompatible", ""},
		{func(s *container.Spec) { s.Security.UsernsMode, s.Namespaces.PID = "host", "container:aa" }, "", plain},
		{func(s *container.Spec) { s.Security.UsernsMode, s.Namespaces.PID = "", "container:cc" }, "", plain},
		{func(s *container.Spec) { s.Security.UsernsMode, s.Plugin = "", "plugin" }, "", plain},
	} {
		s := auto("true")
		c.change(&s)
		made, err := w.Create(context.Background(), "", s)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", s.Security, err, c.want)
		}
		if err != nil {
			continue
		}
		got, want := w.index.get(made.ID).record(), w.index.get(c.mapped).record()
		if w.homeOf(got) != w.homeOf(want) {
			t.Errorf("%+v: lives in the user namespace of %q, want %q", s.Security, w.homeOf(got), w.homeOf(want))
		}
		if err := w.Remove(context.Background(), made.ID, RemoveOptions{}); err != nil {
			t.Error(err)
		}
	}
	w.Engine.cfg.DataRoot = "/proc" // which cannot be mapped
	if _, err := w.Create(context.Background(), "", auto("true")); !fault.Is(err, fault.NotImplemented) || !strings.Contains(err.Error(), "the file system of /proc has no id-mapped mounts") {
		t.Errorf("%v", err)
	}
	w.Engine.cfg.DataRoot = w.cfg.DataRoot
}

// --userns-remap is for who does not say otherwise; a mapping stays with its container.
func TestUsernsRemap(t *testing.T) {
	w := mappedWorld(t, 2)
	m := idmap.Map{{Inside: 0, Outside: 5000000, Size: 1000}}
	w.cfg.Userns.Default, w.cfg.Userns.Remap, w.cfg.Userns.HostToo = userns.Default, idmap.Pair{Users: m, Groups: m}, true
	w.reopen()
	s := auto("sleep", "1000")
	s.Security.UsernsMode = ""
	id := w.run("aa", s)
	if w.mapOf(id) != "0:5000000:1000" || w.snapshotOf(id).Spec.Security.UsernsMode != "" {
		t.Error(w.mapOf(id), w.snapshotOf(id).Spec.Security.UsernsMode)
	}
	s.Security.Privileged = true
	made, err := w.Create(context.Background(), "bb", s)
	if err != nil || len(made.Warnings) != 1 || w.snapshotOf(made.ID).Spec.Security.UsernsMode != "host" || w.index.get(made.ID).record().IDMap != nil {
		t.Errorf("a privileged one: %v %v", made, err)
	}
	w.cfg.Userns = userns.Config{}
	w.reopen()
	if err := errors.Join(w.Stop(context.Background(), id, StopOptions{Timeout: new(int)}), w.Start(context.Background(), id)); err != nil {
		t.Fatal(err)
	}
	if w.mapOf(id) != "0:5000000:1000" {
		t.Errorf("without the setting it has %s", w.mapOf(id))
	}
	if out, code := w.output(container.Spec{Image: "busybox", Network: container.Network{Mode: "none"}, Process: container.Process{Cmd: []string{"cat", "/proc/self/uid_map"}}}); code != 0 || !strings.Contains(out, "4294967295") {
		t.Errorf("%d %s", code, out)
	}
}

// What comes back from the trash has ids that nobody else has got meanwhile.
func TestUsernsOfWhatIsRestored(t *testing.T) {
	w := mappedWorld(t, 2)
	m := idmap.Map{{Inside: 0, Outside: 3000000, Size: 10000}}
	old := &container.Record{ID: strings.Repeat("a", 64), IDMap: &idmap.Pair{Users: m, Groups: m}, Spec: &container.Spec{Security: container.Security{UsernsMode: "auto:size=10000"}}}
	if err := w.regiveUserns(old); err != nil || old.IDMap.Users[0].Outside != 3000000 {
		t.Errorf("%v %v", old.IDMap, err)
	}
	w.create("aa", auto("true"))
	if err := w.regiveUserns(old); err != nil || old.IDMap.Users.String() != "0:3010000:10000" {
		t.Errorf("%v %v", old.IDMap, err)
	}
	w.releaseUserns(old)
	w.create("bb", auto("true"))
	if err := w.regiveUserns(old); !fault.Is(err, fault.Conflict) {
		t.Errorf("%v %v", old.IDMap, err)
	}
}
