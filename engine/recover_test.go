package engine

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/base/id"
	"berth/engine/container"
	"berth/engine/store"
	"berth/network"
)

// away restarts the engine and does something while there is none.
func (w *world) away(do func()) {
	w.t.Helper()
	if err := w.Engine.Close(); err != nil {
		w.t.Error(err)
	}
	w.client.Close()
	do()
	w.open()
}

func TestRestartOfTheEngine(t *testing.T) {
	w := newWorld(t)
	if _, err := Open(t.Context(), w.cfg, Rooms{Images: w.images, Keeper: w.client, Events: w.bus}); !fault.Is(err, fault.Conflict) {
		t.Errorf("a second engine on the same root: %v", err)
	}
	lives := w.run("lives", spec("while :; do sleep 0.02; done"))
	s := spec("read x; echo got $x; exit 42")
	s.OpenStdin = true
	ends := w.run("ends", s)
	paused := w.run("paused", spec("while :; do sleep 0.02; done"))
	if err := w.Pause(t.Context(), paused); err != nil {
		t.Fatal(err)
	}
	created := w.create("created", spec("true"))
	s = spec("sleep 0.1; exit 3")
	s.AutoRemove = true
	auto := w.run("auto", s)
	s = spec("echo again; sleep 0.1")
	s.Restart.Name = "unless-stopped"
	again := w.run("again", s)
	x, _ := w.ExecCreate(t.Context(), lives, container.ExecSpec{Cmd: []string{"sh", "-c", "sleep 0.1; exit 8"}})
	if _, err := w.ExecStart(t.Context(), x, ExecStartOptions{Detach: true}); err != nil {
		t.Fatal(err)
	}
	a, err := w.Attach(t.Context(), ends, AttachOptions{Stdin: true, Stdout: true, Stream: true})
	if err != nil {
		t.Fatal(err)
	}
	pid := w.state(lives).Pid

	w.away(func() {
		io.WriteString(a.Conn, "words\n") // an attachment is the keeper's and the client's
		out, _ := io.ReadAll(a.Conn)
		if !strings.Contains(string(out), "got words") {
			t.Errorf("%q", out)
		}
		time.Sleep(200 * time.Millisecond)
	})

	if s := w.state(lives); !s.Running || s.Pid != pid {
		t.Errorf("lives: %+v", s)
	}
	if s := w.until(ends, "ended", func(s container.State) bool { return !s.Running }); s.ExitCode != 42 {
		t.Errorf("ends: %+v", s)
	}
	if s := w.state(paused); !s.Paused {
		t.Errorf("paused: %+v", s)
	}
	if s := w.state(created); s.Status != container.Created {
		t.Errorf("created: %+v", s)
	}
	if err := w.Unpause(t.Context(), paused); err != nil {
		t.Error(err)
	}
	w.eventually("auto-removed", func() bool { _, err := w.Inspect(t.Context(), auto); return fault.Is(err, fault.NotFound) })
	w.eventually("restarted", func() bool { return strings.Count(w.logged(again), "again") >= 2 })
	w.eventually("the exec's code", func() bool {
		i, err := w.ExecInspect(t.Context(), x)
		return err == nil && i.ExitCode != nil && *i.ExitCode == 8
	})
	// All verbs work on a container that another engine started.
	y, err := w.ExecCreate(t.Context(), lives, container.ExecSpec{Cmd: []string{"echo", "hi"}, AttachStdout: true, TTY: true})
	if err != nil {
		t.Fatal(err)
	}
	at, err := w.ExecStart(t.Context(), y, ExecStartOptions{TTY: true})
	if err != nil {
		t.Fatal(err)
	}
	if out, _ := io.ReadAll(at.Conn); string(out) != "hi\r\n" {
		t.Errorf("%q", out)
	}
	if x, err := w.Explain(t.Context(), lives); err != nil || !strings.Contains(x.Program, "execve") {
		t.Errorf("%+v, %v", x, err)
	}
	zero := 0
	if err := w.Stop(t.Context(), lives, StopOptions{Timeout: &zero}); err != nil {
		t.Error(err)
	}
}

func (w *world) eventually(what string, true func() bool) {
	w.t.Helper()
	for end := time.Now().Add(time.Minute); !true(); time.Sleep(5 * time.Millisecond) { // a busy machine is no failure
		if time.Now().After(end) {
			w.t.Errorf("%s: not within a minute", what)
			return
		}
	}
}

// A container whose record is gone is no creation that was cut off: its files stay, at every start, the check names it, and a repair
// leaves it alone. With the record back it is there again.
func TestLostRecordSweepsNothing(t *testing.T) {
	w := newWorld(t)
	id := w.run("kept", spec("exit 3"))
	w.wait(id)
	path := filepath.Join(w.cfg.DataRoot, "containers", id, "container.json")
	record, err := os.ReadFile(path)
	if err == nil {
		err = os.Remove(path)
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w.reopen()
		if _, err := w.Inspect(t.Context(), id); err == nil {
			t.Error("it is known without a record")
		}
		if layers := w.images.Layers(); len(layers) != 1 || layers[0] != id {
			t.Errorf("layers %v", layers)
		}
		for _, repair := range []bool{false, true} {
			if room := w.CheckStore(t.Context(), repair); room.OK() || len(room.Damages) != 1 || !strings.Contains(room.Damages[0].Subject, id) {
				t.Errorf("%+v", room)
			}
		}
	}
	if err := os.WriteFile(path, record, 0o600); err != nil {
		t.Fatal(err)
	}
	w.reopen()
	if st := w.state(id); st.Status != container.Exited || st.ExitCode != 3 {
		t.Errorf("%+v", st)
	}
	if room := w.CheckStore(t.Context(), false); !room.OK() {
		t.Errorf("%+v", room)
	}
}

// What a crash may leave is swept: half-created containers, layers and cgroups of nobody, processes of nobody.
func TestSweep(t *testing.T) {
	w := newWorld(t)
	orphan := w.run("orphan", spec("sleep 100"))
	pid := w.state(orphan).Pid
	half, stray := id.New(), id.New()
	w.away(func() {
		os.Mkdir(filepath.Join(w.cfg.DataRoot, "containers", half), 0o700)
		w.images.CreateLayer(t.Context(), half, Image{})
		w.images.CreateLayer(t.Context(), stray, Image{})
		// A record that vanished: only the process is left.
		os.RemoveAll(filepath.Join(w.cfg.DataRoot, "containers", orphan))
	})
	w.eventually("the orphan's death", func() bool { return errors.Is(unix.Kill(pid, 0), unix.ESRCH) })
	for _, l := range w.images.Layers() {
		t.Errorf("layer %s is left", l)
	}
	w.eventually("cgroups", func() bool { return len(w.strayCgroups()) == 0 })
	if list, _ := w.List(t.Context(), ListOptions{All: true}); len(list) != 0 {
		t.Errorf("%+v", list)
	}
}

// A reboot: another boot id, EXEC-ROOT empty, nothing runs.
func TestReboot(t *testing.T) {
	w := newWorld(t)
	ran := w.run("ran", spec("sleep 100"))
	s := spec("sleep 100")
	s.Restart.Name = "always"
	always := w.run("always", s)
	s = spec("true")
	s.Restart.Name = "unless-stopped"
	stopped := w.run("stopped", s)
	if err := w.Stop(t.Context(), stopped, StopOptions{Timeout: new(int)}); err != nil && !fault.Is(err, fault.NotModified) {
		t.Fatal(err)
	}
	w.away(func() {
		for _, c := range []string{ran, always, stopped} {
			w.killForReboot(c)
		}
		path := filepath.Join(w.cfg.DataRoot, "states.journal")
		b, _ := os.ReadFile(path)
		boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
		os.WriteFile(path, []byte(strings.ReplaceAll(string(b), strings.TrimSpace(string(boot)), "another-boot")), 0o600)
		os.Remove(filepath.Join(w.cfg.ExecRoot, "states.journal"))
	})
	if s := w.state(ran); s.ExitCode != 255 || s.Running {
		t.Errorf("%+v", s)
	}
	if x, _ := w.Explain(t.Context(), ran); x.Ended != "the machine was restarted or went down while it ran" {
		t.Errorf("%q", x.Ended)
	}
	w.eventually("always", func() bool { return w.state(always).Running })
	if s := w.state(stopped); s.Running {
		t.Errorf("%+v", s)
	}
}

// killForReboot ends a container and lets the keeper forget it, behind the engine's back.
func (w *world) killForReboot(cid string) {
	w.t.Helper()
	client := w.dial()
	defer client.Close()
	client.Signal(w.t.Context(), cid, "", 9)
	w.eventually("end of "+cid, func() bool { return client.Forget(w.t.Context(), cid) == nil })
}

// Every step of create, start and remove may fail, and nothing stays; the next attempt works.
func TestFailureInEveryStep(t *testing.T) {
	w := newWorld(t)
	defer failpoint.Arm("")
	for _, point := range []string{"create/directory", "create/layer", "create/record"} {
		failpoint.Arm("engine/" + point + "=error")
		if _, err := w.Create(t.Context(), "same", spec("true")); err == nil {
			t.Errorf("%s: created", point)
		}
		failpoint.Arm("")
		if left, _ := filepath.Glob(filepath.Join(w.cfg.DataRoot, "containers", "*")); len(left) != 0 || len(w.images.Layers()) != 0 {
			t.Errorf("%s left %v %v", point, left, w.images.Layers())
		}
	}
	cid := w.create("same", spec("exit 0"))
	for _, point := range []string{"start/files", "start/cgroup", "start/launch"} {
		failpoint.Arm("engine/" + point + "=error")
		if err := w.Start(t.Context(), cid); err == nil {
			t.Errorf("%s: started", point)
		}
		failpoint.Arm("")
		if s := w.state(cid); s.Status != container.Created || len(w.strayCgroups()) != 0 {
			t.Errorf("%s: %+v", point, s)
		}
	}
	if err := w.Start(t.Context(), cid); err != nil {
		t.Fatal(err)
	}
	w.wait(cid)
	for _, point := range []string{"remove/keeper", "remove/layer", "remove/record"} {
		failpoint.Arm("engine/" + point + "=error")
		if err := w.Remove(t.Context(), cid, RemoveOptions{}); err == nil {
			t.Errorf("%s: removed", point)
		}
		failpoint.Arm("")
		if s := w.state(cid); s.Status != container.Dead {
			t.Errorf("%s: %+v", point, s)
		}
	}
	w.reopen() // finishes the removal that was begun
	w.eventually("removal", func() bool { _, err := w.Inspect(t.Context(), cid); return fault.Is(err, fault.NotFound) })
}

func BenchmarkLife(b *testing.B) {
	w := newWorld(b)
	var before, after unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &before)
	n := 0
	for b.Loop() {
		s := spec("")
		s.Process.Cmd, s.AutoRemove = []string{"true"}, true
		r, err := w.Create(b.Context(), "", s)
		if err != nil {
			b.Fatal(err)
		}
		gone, _ := w.Wait(b.Context(), r.ID, container.WaitRemoved)
		if err := w.Start(b.Context(), r.ID); err != nil {
			b.Fatal(err)
		}
		<-gone
		n++
	}
	unix.Getrusage(unix.RUSAGE_SELF, &after)
	b.ReportMetric(float64(after.Utime.Nano()+after.Stime.Nano()-before.Utime.Nano()-before.Stime.Nano())/float64(n)/1e6, "engine-cpu-ms/op")
}

// A container that starts with the engine has its network before it runs: it is not taken for one whose container is gone.
func TestStartsAfterTheSweepOfNetworks(t *testing.T) {
	w, n, _ := newWorldWithRooms(t)
	var all []string
	for range 4 {
		s := spec("sleep 100")
		s.Network.Mode, s.Restart.Name = "mine", "always"
		all = append(all, w.run("", s))
	}
	w.away(func() {
		for _, c := range all {
			w.killForReboot(c)
		}
		n.live = map[string]network.Sandbox{}
		n.slow = 100 * time.Millisecond
	})
	for _, c := range all {
		w.eventually("start of "+c, func() bool { return w.state(c).Running })
		if _, ok := n.Sandbox(c); !ok {
			t.Errorf("container %.12s runs without its network", c)
		}
	}
}

// A launch whose note was lost: the container has the network that it was given, also for who looks.
func TestLostNoteOfAStart(t *testing.T) {
	w, _, _ := newWorldWithRooms(t)
	s := spec("sleep 100")
	s.Network.Mode = "mine"
	cid := w.run("", s)
	w.away(func() {
		for _, dir := range []string{w.cfg.DataRoot, w.cfg.ExecRoot} {
			os.Remove(filepath.Join(dir, "states.journal"))
		}
	})
	if i, err := w.Inspect(t.Context(), cid); err != nil || !i.State.Running || len(i.Sandbox.Endpoints) != 1 {
		t.Errorf("%+v, %v", i, err)
	}
}

// A container may make its /etc/hosts as large as it likes; the engine does not read it into memory.
func TestHugeHosts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(path, []byte("short\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1<<42); err != nil {
		t.Skip("needs a file system with files of 4 TiB: ", err)
	}
	if err := rewrite(path, []byte("short\n")); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "short\n" {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

// Places in a container that look alike are two places on the host, and long ones are places too.
func TestImagePlaces(t *testing.T) {
	w, _, _ := newWorldWithRooms(t)
	long := "/" + strings.Repeat("long/", 200)
	s := spec("test -f /a/b/etc/passwd && test -f /a-b/passwd && test -f " + long + "bin/sh && ! touch /a/b/x 2>/dev/null")
	s.Mounts = []container.Mount{
		{Type: "image", Source: "busybox", Target: "/a/b"}, {Type: "image", Source: "busybox", Target: "/a-b", Subpath: "etc"}, {Type: "image", Source: "busybox", Target: long},
	}
	if out, code := w.output(s); code != 0 {
		t.Errorf("exit %d: %s", code, out)
	}
}

// Containers that live in another's network, or link to it, come back after a reboot although it starts with them.
func TestRebootOfOthers(t *testing.T) {
	w, _, _ := newWorldWithRooms(t)
	s := spec("sleep 100")
	s.Network.Mode, s.Restart.Name = "mine", "always"
	donor := w.run("donor", s)
	s.Network.Mode = "container:donor"
	guest := w.run("guest", s)
	s.Network.Mode, s.Network.Links = "bridge", []string{"donor:db"}
	linked := w.run("linked", s)
	w.away(func() {
		for _, c := range []string{guest, linked, donor} {
			w.killForReboot(c)
		}
	})
	for _, c := range []string{donor, guest, linked} {
		w.eventually("start of "+c, func() bool { return w.state(c).Running })
	}
}

// A process that comes after the next engine has taken its network away is not taken over: nobody could reach it.
func TestLateWithoutNetwork(t *testing.T) {
	w, n, _ := newWorldWithRooms(t)
	s := spec("sleep 100")
	s.Network.Mode = "mine"
	cid := w.run("", s)
	pid := w.state(cid).Pid
	c := w.index.get(cid)
	// As if the engine had heard nothing of the launch.
	if err := c.change(func(at *store.Standing) error { at.State = container.State{Status: container.Created}; return nil }); err != nil {
		t.Fatal(err)
	}
	n.Leave(t.Context(), cid)
	if err := w.Start(t.Context(), cid); err != nil {
		t.Fatal(err)
	}
	if st := w.state(cid); !st.Running || st.Pid == pid {
		t.Errorf("the process without a network was taken over: %+v", st)
	}
	if _, ok := n.Sandbox(cid); !ok {
		t.Error("the container runs without its network")
	}
}

// An engine that dies between a change of a container's networks and its note leaves nothing that could not be changed any more.
func TestNetworksBesideTheRecord(t *testing.T) {
	w, n, _ := newWorldWithRooms(t)
	s := spec("sleep 100")
	s.Network.Mode = "mine"
	cid := w.run("", s)
	n.mu.Lock()
	box := n.live[cid]
	box.Endpoints = append(box.Endpoints, network.Endpoint{NetworkID: "id-of-other"})
	n.live[cid] = box
	n.mu.Unlock()
	if err := w.DisconnectNetwork(t.Context(), "other", cid, false); err != nil {
		t.Errorf("on a network that the record does not know: %v", err)
	}
	n.mu.Lock()
	box.Endpoints = nil
	n.live[cid] = box
	n.mu.Unlock()
	if err := w.ConnectNetwork(t.Context(), "mine", cid, network.EndpointSpec{}); err != nil {
		t.Errorf("off a network that the record knows: %v", err)
	}
}

// Places where layers were mounted for a moment are gone with the next engine.
func TestScratchOfAKilledEngine(t *testing.T) {
	w := newWorld(t)
	var left []string
	w.away(func() {
		for _, use := range []string{"copy-", "export-", "workdir-"} {
			dir, err := os.MkdirTemp(w.cfg.ExecRoot, use)
			if err != nil {
				t.Fatal(err)
			}
			left = append(left, dir)
		}
	})
	for _, dir := range left {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", dir, err)
		}
	}
}
