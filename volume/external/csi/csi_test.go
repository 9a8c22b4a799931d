package csi_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/volume"
	"berth/volume/volumetest"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(hostVariable); dir != "" {
		serveHost(dir)
		return
	}
	if what := os.Getenv(crashVariable); what != "" {
		if err := failpoint.Arm(os.Getenv(failpoint.Env)); err == nil {
			err = victim(strings.Fields(what))
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(3)
	}
	volumetest.Main(m)
}

// driverDir makes a short directory: the path of a socket has at most 107 bytes.
func driverDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "csi")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func opener(dirs string, timeout time.Duration) func(*testing.T, string, string) *volume.Volumes {
	return func(t *testing.T, root, run string) *volume.Volumes {
		t.Helper()
		for try := 0; ; try++ {
			v, err := volume.Open(t.Context(), volume.Config{Root: root, RunRoot: run, PluginDirs: []string{t.TempDir()}, CSIDirs: []string{dirs}, CSITimeout: timeout})
			if fault.Is(err, fault.Conflict) && try < 100 { // a child of another test, between fork and exec, still holds the root
				time.Sleep(10 * time.Millisecond)
				continue
			}
			must(t, err)
			return v
		}
	}
}

// The driver is in a process of its own, found by its socket's place, or by the volume's option.
func TestDriver(t *testing.T) {
	volumetest.NeedMounts(t)
	dirs := driverDir(t)
	must(t, os.Mkdir(filepath.Join(dirs, "host.test"), 0o755))
	p := startHost(t, filepath.Join(dirs, "host.test"))
	t.Run("by-name", func(t *testing.T) {
		volumetest.Run(t, volumetest.Subject{Driver: "host.test", Options: map[string]string{"size": "8m", "kind": "slow"}, Open: opener(dirs, 10*time.Second)})
	})
	t.Run("by-endpoint", func(t *testing.T) {
		volumetest.Run(t, volumetest.Subject{Driver: "csi", Options: map[string]string{"endpoint": "unix://" + filepath.Join(dirs, "host.test", "csi.sock")},
			Open: opener(t.TempDir(), 10*time.Second)})
	})
	t.Run("by-file", func(t *testing.T) { // the controller on a socket of its own, parameters and secrets in the file
		other := driverDir(t)
		socket := filepath.Join(dirs, "host.test", "csi.sock")
		must(t, os.Symlink(socket, filepath.Join(other, "controller")))
		must(t, os.WriteFile(filepath.Join(other, "fast.json"), []byte(fmt.Sprintf(
			`{"endpoint":"unix://%s","controller":"unix://%s/controller","parameters":{"secret":"s3"},"secrets":{"key":"s3"}}`, socket, other)), 0o600))
		v := opener(other, 10*time.Second)(t, t.TempDir(), t.TempDir())
		defer v.Close()
		_, err := v.Create(t.Context(), volume.CreateRequest{Name: "data", Driver: "fast"})
		must(t, err)
		_, err = v.Mount(t.Context(), "data", "", "c1")
		must(t, err)
		must(t, v.Unmount(t.Context(), "data", "c1"))
		must(t, v.Remove(t.Context(), "data", false))
	})
	t.Run("by-own-name", func(t *testing.T) { // its file says otherwise
		other := driverDir(t)
		must(t, os.Mkdir(filepath.Join(other, "folder"), 0o755))
		must(t, os.Symlink(filepath.Join(dirs, "host.test", "csi.sock"), filepath.Join(other, "folder", "csi.sock")))
		v := opener(other, 10*time.Second)(t, t.TempDir(), t.TempDir())
		defer v.Close()
		_, err := v.Create(t.Context(), volume.CreateRequest{Name: "data", Driver: "host.test"})
		must(t, err)
		must(t, v.Remove(t.Context(), "data", false))
		_, err = v.Create(t.Context(), volume.CreateRequest{Name: "data", Driver: "other.test"})
		if !fault.Is(err, fault.NotFound) {
			t.Errorf("%v", err)
		}
	})
	if m := p.memory(); len(m.Volumes)+len(m.Snapshots) > 0 {
		t.Errorf("the driver still has %d volumes and %d snapshots", len(m.Volumes), len(m.Snapshots))
	}
	must(t, os.WriteFile(filepath.Join(dirs, "host.test", "no-clone"), nil, 0o600))
	p.kill()
	p.start()
	t.Run("without-clones", func(t *testing.T) {
		volumetest.Run(t, volumetest.Subject{Driver: "host.test", Open: opener(dirs, 10*time.Second)})
	})
}

// bench is an engine's volumes with a driver.
type bench struct {
	*volume.Volumes
	t         *testing.T
	p         *process
	open      func(*testing.T, string, string) *volume.Volumes
	root, run string
}

func newBench(t *testing.T, timeout time.Duration) *bench {
	volumetest.NeedMounts(t)
	dirs := driverDir(t)
	must(t, os.Mkdir(filepath.Join(dirs, "host.test"), 0o755))
	base, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	b := &bench{t: t, p: startHost(t, filepath.Join(dirs, "host.test")), open: opener(dirs, timeout), root: filepath.Join(base, "root"), run: filepath.Join(base, "run")}
	b.Volumes = b.open(t, b.root, b.run)
	t.Cleanup(func() {
		b.Close()
		if left := volumetest.Left(t, base); len(left) > 0 {
			t.Errorf("left mounted: %v", left)
		}
	})
	return b
}

func (b *bench) again() {
	b.t.Helper()
	b.Close()
	b.Volumes = b.open(b.t, b.root, b.run)
}

func (b *bench) create(name string, options map[string]string) {
	b.t.Helper()
	_, err := b.Create(context.Background(), volume.CreateRequest{Name: name, Driver: "host.test", Options: options})
	must(b.t, err)
}

// A driver that hangs is given up, named, and nothing is half made when it is back.
func TestHangingDriver(t *testing.T) {
	ctx := context.Background()
	const patience = 900 * time.Millisecond // a third of it must be enough for an answer on a busy machine
	for _, method := range []string{"GetPluginInfo", "Probe", "NodeGetInfo", "CreateVolume", "ControllerPublishVolume", "NodeStageVolume", "NodePublishVolume"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, patience)
			b.p.misbehave("hang", method, "x")
			begin := time.Now()
			_, err := b.Create(ctx, volume.CreateRequest{Name: "data", Driver: "host.test"})
			if err == nil {
				_, err = b.Mount(ctx, "data", "", "c1")
			}
			if !fault.Is(err, fault.Deadline) || !strings.Contains(err.Error(), "csi.sock: "+method+": no answer within "+patience.String()) {
				t.Errorf("%v (%v)", err, fault.KindOf(err))
			}
			if took := time.Since(begin); took > 10*patience {
				t.Errorf("took %s", took)
			}
			b.p.misbehave("hang", method, "")
			if _, err := b.Get(ctx, "data"); err == nil {
				must(t, b.Remove(ctx, "data", false))
			} else {
				b.again() // cleans up
			}
			for range 1000 {
				if len(b.p.memory().Volumes) == 0 {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
			t.Errorf("the driver still has %+v", b.p.memory().Volumes)
		})
	}
}

const crashVariable = "BERTH_TEST_CRASH" // "DIRS ROOT RUNROOT VERB"

// victim is the engine that dies in the middle of a verb.
func victim(args []string) error {
	ctx := context.Background()
	v, err := volume.Open(ctx, volume.Config{Root: args[1], RunRoot: args[2], PluginDirs: []string{args[2] + "/none"}, CSIDirs: []string{args[0]}, CSITimeout: 5 * time.Second})
	if err != nil {
		return err
	}
	switch args[3] {
	case "create":
		_, err = v.Create(ctx, volume.CreateRequest{Name: "new", Driver: "host.test"})
	case "mount":
		_, err = v.Mount(ctx, "data", "", "c1")
	case "unmount":
		if _, err = v.Mount(ctx, "data", "", "c1"); err == nil {
			err = v.Unmount(ctx, "data", "c1")
		}
	case "remove":
		err = v.Remove(ctx, "data", false)
	case "rename":
		err = v.Rename(ctx, "data", "new")
	case "snapshot":
		err = v.Snapshot(ctx, "data", "new")
	}
	return err
}

// Killed at any step, the engine's successor knows of every volume that the driver has, and can take each away.
func TestKilled(t *testing.T) {
	for _, c := range []struct{ verb, point string }{
		{"create", "volume/csi-creating"}, {"create", "volume/csi-created"}, {"create", "volume/made-not-recorded"}, {"create", "volume/staged"}, {"create", "volume/named"},
		{"mount", "volume/csi-attached"}, {"mount", "volume/csi-staged"}, {"mount", "volume/csi-published"},
		{"unmount", "volume/csi-unpublished"}, {"remove", "volume/csi-deleting"}, {"snapshot", "volume/csi-snapshot"},
		{"rename", "volume/half-renamed"},
	} {
		t.Run(c.verb+" "+c.point, func(t *testing.T) {
			// Not parallel: a child of another test, between fork and exec, would hold the lock of our root.
			b := newBench(t, 5*time.Second)
			ctx := context.Background()
			b.create("data", map[string]string{"kind": "x"})
			b.Close()
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %s %s", crashVariable, filepath.Dir(b.p.dir), b.root, b.run, c.verb), failpoint.Env+"="+c.point+"=kill")
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("it was not killed: %v %s", err, out)
			}
			b.Volumes = b.open(t, b.root, b.run)
			b.Recovered(func(string) bool { return false })
			// What was half made goes by itself, the rest is listed.
			for range 6000 {
				list, _, err := b.List(ctx)
				must(t, err)
				m := b.p.memory()
				noted, _ := filepath.Glob(filepath.Join(b.root, ".csi", "*.json"))
				if len(m.Volumes)+len(m.Snapshots) == len(list) && len(noted) == len(list) {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			if left := volumetest.Left(t, b.run); len(left) > 0 {
				t.Errorf("left mounted: %v", left)
			}
			list, _, err := b.List(ctx)
			must(t, err)
			if c.verb == "rename" {
				if v, err := b.Get(ctx, "new"); len(list) != 1 || err != nil || v.Options["kind"] != "x" {
					t.Errorf("%+v, %v", list, err)
				}
			}
			for _, v := range slices.Backward(list) { // snapshots before what they are of
				must(t, b.Remove(ctx, v.Name, false))
			}
			if m := b.p.memory(); len(m.Volumes)+len(m.Snapshots) > 0 {
				t.Errorf("of %d listed, the driver still has %v, %v", len(list), m.Volumes, m.Snapshots)
			}
			// And all of it works again.
			b.create("new", nil)
			_, err = b.Mount(ctx, "new", "", "c1")
			must(t, err)
			must(t, b.Unmount(ctx, "new", "c1"))
			must(t, b.Remove(ctx, "new", false))
		})
	}
}

// A driver that does its work and loses the answer is asked again, with the same words.
func TestLostAnswers(t *testing.T) {
	b := newBench(t, 5*time.Second)
	ctx := context.Background()
	steps := []string{"CreateVolume", "ControllerPublishVolume", "NodeStageVolume", "NodePublishVolume", "NodeUnpublishVolume", "NodeUnstageVolume", "ControllerUnpublishVolume", "DeleteVolume"}
	for _, method := range steps {
		b.p.misbehave("fail", method, `"UNAVAILABLE"`)
	}
	b.create("data", nil)
	at, err := b.Mount(ctx, "data", "", "c1")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(at, "f"), nil, 0o600))
	must(t, b.Unmount(ctx, "data", "c1"))
	must(t, b.Remove(ctx, "data", false))
	m := b.p.memory()
	if len(m.Volumes) > 0 {
		t.Errorf("left %+v", m.Volumes)
	}
	for _, method := range steps {
		if n := count(m.Calls, method); n != 2 {
			t.Errorf("%s was called %d times", method, n)
		}
	}
}

// The driver's process dies while a volume is mounted; its successor goes on.
func TestRestartedDriver(t *testing.T) {
	b := newBench(t, 5*time.Second)
	ctx := context.Background()
	b.create("data", nil)
	at, err := b.Mount(ctx, "data", "", "c1")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(at, "f"), []byte("x"), 0o600))
	b.p.kill()
	if v, err := b.Get(ctx, "data"); err != nil || v.Mountpoint != at {
		t.Errorf("without its driver: %+v, %v", v, err)
	}
	if list, warnings, err := b.List(ctx); err != nil || len(list) != 1 || len(warnings) > 0 {
		t.Errorf("%+v, %q, %v", list, warnings, err)
	}
	b.again()
	b.p.start()
	b.Recovered(func(id string) bool { return id == "c1" })
	if again, err := b.Mount(ctx, "data", "", "c1"); err != nil || again != at {
		t.Errorf("mounted at %s, %v; before at %s", again, err, at)
	}
	must(t, b.Unmount(ctx, "data", "c1"))
	must(t, b.Remove(ctx, "data", false))
}

// Removed by force while its driver is away, a volume is gone for the user at once and for the driver when it is back.
func TestForceWithoutDriver(t *testing.T) {
	b := newBench(t, 1500*time.Millisecond)
	ctx := context.Background()
	b.create("data", nil)
	b.p.kill()
	if err := b.Remove(ctx, "data", false); err == nil || !strings.Contains(err.Error(), "csi.sock") {
		t.Errorf("%v", err)
	}
	if v, err := b.Get(ctx, "data"); err != nil || v.Name != "data" {
		t.Errorf("a removal that failed removed: %v", err)
	}
	must(t, b.Remove(ctx, "data", true))
	if list, _, _ := b.List(ctx); len(list) > 0 {
		t.Errorf("still listed: %+v", list)
	}
	if _, err := b.Get(ctx, "data"); !fault.Is(err, fault.NotFound) {
		t.Errorf("%v", err)
	}
	b.p.start()
	b.again()
	for range 6000 {
		if len(b.p.memory().Volumes) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("the driver still has %v", b.p.memory().Volumes)
}

func TestRefusals(t *testing.T) {
	b := newBench(t, 3*time.Second)
	ctx := context.Background()
	for _, c := range []struct {
		options map[string]string
		kind    fault.Kind
		text    string
	}{
		{map[string]string{"size": "2000g"}, fault.Invalid, "CreateVolume: too large"},
		{map[string]string{"size": "x"}, fault.Invalid, "invalid size: 'x'"},
		{map[string]string{"access": "tape"}, fault.Invalid, "it is mount or block"},
		{map[string]string{"mode": "all"}, fault.Invalid, "it is one of multi-node-multi-writer"},
		{map[string]string{"access": "block", "fstype": "ext4"}, fault.Invalid, "a device has no file system"},
		{map[string]string{"secrets": "rel"}, fault.Invalid, "absolute path"},
		{map[string]string{"topology": "x"}, fault.Invalid, "key=value"},
		{map[string]string{"secret": "s3"}, fault.Forbidden, "wrong secret"},
		{map[string]string{"volumehandle": "nothing"}, fault.NotFound, "no such volume"},
		{map[string]string{"context.a": "b"}, fault.Invalid, "needs volumehandle"},
		{map[string]string{"size": "2g", "limit": "1g"}, fault.Invalid, "less than size"},
	} {
		_, err := b.Create(ctx, volume.CreateRequest{Name: "data", Driver: "host.test", Options: c.options})
		if !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%v: %v (%v)", c.options, err, fault.KindOf(err))
		}
	}
	_, err := b.Create(ctx, volume.CreateRequest{Name: "data", Driver: "csi"})
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), `missing required option: "endpoint"`) {
		t.Errorf("%v", err)
	}
	_, err = b.Create(ctx, volume.CreateRequest{Name: "data", Driver: "csi", Options: map[string]string{"endpoint": "unix:///nowhere/csi.sock"}})
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "/nowhere/csi.sock") {
		t.Errorf("%v (%v)", err, fault.KindOf(err))
	}
	if list, _, _ := b.List(ctx); len(list) > 0 {
		t.Errorf("half made: %+v", list)
	}
	if files, _ := filepath.Glob(filepath.Join(b.root, ".csi", "*")); len(files) > 0 {
		t.Errorf("half made: %v", files)
	}
}

// A volume whose record was lost is not replaced by another one of its name.
func TestLostRecord(t *testing.T) {
	b := newBench(t, 5*time.Second)
	ctx := context.Background()
	b.create("data", map[string]string{"kind": "x"})
	must(t, os.RemoveAll(filepath.Join(b.root, "data")))
	b.again()
	if v, err := b.Get(ctx, "data"); err != nil || v.Driver != "host.test" {
		t.Errorf("%+v, %v", v, err)
	}
	_, err := b.Create(ctx, volume.CreateRequest{Name: "data", Driver: "host.test", Options: map[string]string{"kind": "y"}})
	if !fault.Is(err, fault.Conflict) {
		t.Errorf("%v (%v)", err, fault.KindOf(err))
	}
	b.create("data", map[string]string{"kind": "x"})
	if n := len(b.p.memory().Volumes); n != 1 {
		t.Errorf("the driver has %d volumes", n)
	}
	must(t, b.Remove(ctx, "data", false))
}

// Data written where nothing is mounted would be lost: such a driver is found out.
func TestDriverThatMountsNothing(t *testing.T) {
	b := newBench(t, 3*time.Second)
	ctx := context.Background()
	b.create("data", nil)
	must(t, os.WriteFile(filepath.Join(b.p.dir, "mounts-nothing"), nil, 0o600))
	_, err := b.Mount(ctx, "data", "", "c1")
	if err == nil || !strings.Contains(err.Error(), "nothing is mounted there") {
		t.Errorf("%v", err)
	}
	for _, v := range b.p.memory().Volumes {
		if v.Attached != "" || v.Staged != "" || len(v.Targets) > 0 {
			t.Errorf("left %+v", v)
		}
	}
	must(t, b.Remove(ctx, "data", false))
}

func TestAccess(t *testing.T) {
	b := newBench(t, 5*time.Second)
	ctx := context.Background()
	secretFile := filepath.Join(t.TempDir(), "secrets.json")
	must(t, os.WriteFile(secretFile, []byte(`{"key":"s3"}`), 0o600))
	b.create("disk", map[string]string{"access": "block", "secret": "s3", "secrets": secretFile})
	at, err := b.Mount(ctx, "disk", "", "c1")
	must(t, err)
	if content, err := os.ReadFile(at); err != nil || string(content) != "the disk" {
		t.Errorf("%q, %v", content, err)
	}
	must(t, b.Unmount(ctx, "disk", "c1"))

	b.create("ro", map[string]string{"mode": "multi-node-reader-only"})
	at, err = b.Mount(ctx, "ro", "", "c1")
	must(t, err)
	if err := os.WriteFile(filepath.Join(at, "f"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
		t.Errorf("%v", err)
	}
	must(t, b.Unmount(ctx, "ro", "c1"))

	// A volume that others made is used, and not deleted.
	var id string
	for i := range b.p.memory().Volumes {
		if !strings.Contains(i, "disk") {
			id = i
		}
	}
	v, err := b.Get(ctx, "ro")
	must(t, err)
	id = v.Status["volumeHandle"].(string)
	b.create("static", map[string]string{"volumehandle": id, "context.kind": "x"})
	must(t, b.Remove(ctx, "static", false))
	if b.p.memory().Volumes[id] == nil {
		t.Error("a volume that others made was deleted")
	}
	if topology, _ := v.Status["topology"].([]map[string]string); len(topology) != 1 || topology[0]["zone"] != "z1" {
		t.Errorf("status %v", v.Status)
	}

	// It grows while it is mounted.
	b.create("grows", map[string]string{"size": "1m"})
	_, err = b.Mount(ctx, "grows", "", "c1")
	must(t, err)
	must(t, b.Resize(ctx, "grows", 5<<20))
	if v, err := b.Get(ctx, "grows"); err != nil || v.Status["capacityBytes"] != int64(5<<20) {
		t.Errorf("%v, %v", v.Status, err)
	}
	must(t, b.Unmount(ctx, "grows", "c1"))
	before := count(b.p.memory().Calls, "NodeExpandVolume")
	must(t, b.Resize(ctx, "grows", 6<<20)) // it is nowhere now: its file system grows with the next use
	_, err = b.Mount(ctx, "grows", "", "c1")
	must(t, err)
	if n := count(b.p.memory().Calls, "NodeExpandVolume"); n != before+1 {
		t.Errorf("NodeExpandVolume was called %d times", n-before)
	}
	must(t, b.Unmount(ctx, "grows", "c1"))
	for _, name := range []string{"disk", "ro", "grows"} {
		must(t, b.Remove(ctx, name, false))
	}
	if left := b.p.memory().Volumes; len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

func count(list []string, s string) int {
	n := 0
	for i := range slices.Values(list) {
		if i == s {
			n++
		}
	}
	return n
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
