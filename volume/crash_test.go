package volume_test

import (
	"bytes"
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

	"berth/base/atomicfile"
	"berth/base/failpoint"
	"berth/base/fault"
	"berth/volume"
	"berth/volume/volumetest"
)

const crashVariable = "BERTH_TEST_CRASH" // "ROOT RUNROOT VERB"

func TestMain(m *testing.M) {
	if what := os.Getenv(crashVariable); what != "" {
		if err := failpoint.Arm(os.Getenv(failpoint.Env)); err == nil {
			err = victim(strings.Fields(what))
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(3)
	}
	volumetest.Main(m)
}

func open(t *testing.T, root, run string) *volume.Volumes {
	t.Helper()
	v, err := config(root, run)
	must(t, err)
	return v
}

func config(root, run string) (*volume.Volumes, error) {
	return volume.Open(context.Background(), volume.Config{Root: root, RunRoot: run, PluginDirs: []string{run + "/no-plugins"}, CSIDirs: []string{}, MountTimeout: 30 * time.Second})
}

// victim is the process that dies in the middle of a verb.
func victim(args []string) error {
	ctx := context.Background()
	v, err := config(args[0], args[1])
	if err != nil {
		return err
	}
	switch args[2] {
	case "create":
		_, err = v.Create(ctx, volume.CreateRequest{Name: "new"})
	case "remove":
		err = v.Remove(ctx, "data", false)
	case "rename":
		err = v.Rename(ctx, "data", "new")
	case "mount":
		_, err = v.Mount(ctx, "tmp", "", "c1")
	case "pin":
		_, err = v.Mount(ctx, "data", "sub", "c1")
	case "clone":
		err = v.Clone(ctx, "data", "new")
	case "import":
		var b bytes.Buffer
		if err = v.Export(ctx, "data", &b); err == nil {
			err = v.Import(ctx, "new", &b)
		}
	case "fill":
		var from *os.File
		if from, err = os.Open(filepath.Join(args[0], "data", "_data")); err == nil {
			err = v.Fill(ctx, "empty", "", from)
		}
	}
	return err
}

// Killed at any point, the engine leaves each volume whole or not there at all, and nothing mounted that nobody uses.
func TestKilled(t *testing.T) {
	volumetest.NeedMounts(t)
	whole := []string{"data", "empty", "tmp"}
	for _, c := range []struct {
		verb, point string
		after       []string // volumes
	}{
		{"create", "volume/staged", whole},
		{"create", "volume/named", append([]string{"new"}, whole...)},
		{"clone", "volume/staged", whole},
		{"clone", "volume/named", append([]string{"new"}, whole...)},
		{"import", "volume/staged", whole},
		{"import", "volume/named", append([]string{"new"}, whole...)},
		{"remove", "volume/unnamed", []string{"empty", "tmp"}},
		{"fill", "volume/filling", whole},
		{"mount", "volume/mount-noted", whole},
		{"mount", "volume/mounted", whole},
		{"pin", "volume/pinned", whole},
	} {
		t.Run(c.verb+" "+c.point, func(t *testing.T) {
			base, err := filepath.EvalSymlinks(t.TempDir())
			must(t, err)
			root, run := filepath.Join(base, "root"), filepath.Join(base, "run")
			v := open(t, root, run)
			ctx := t.Context()
			for _, name := range whole {
				r := volume.CreateRequest{Name: name}
				if name == "tmp" {
					r.Options = map[string]string{"type": "tmpfs", "device": "tmpfs"}
				}
				_, err := v.Create(ctx, r)
				must(t, err)
			}
			must(t, os.Mkdir(filepath.Join(root, "data/_data/sub"), 0o755))
			must(t, os.WriteFile(filepath.Join(root, "data/_data/sub/f"), []byte("x"), 0o600))
			v.Close()

			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), crashVariable+"="+root+" "+run+" "+c.verb, failpoint.Env+"="+c.point+"=kill")
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("it was not killed: %v %s", err, out)
			}

			v = open(t, root, run)
			defer v.Close()
			v.Recovered(func(string) bool { return false })
			list, _, err := v.List(ctx)
			must(t, err)
			var names []string
			for _, one := range list {
				names = append(names, one.Name)
				if one.Name == "new" && c.verb != "create" || one.Name == "data" {
					if b, err := os.ReadFile(filepath.Join(one.Mountpoint, "sub/f")); err != nil || string(b) != "x" {
						t.Errorf("%s holds %q, %v", one.Name, b, err)
					}
				}
				if one.Name == "empty" {
					if left, _ := os.ReadDir(one.Mountpoint); len(left) > 0 {
						t.Errorf("half filled: %v", left)
					}
				}
			}
			if got, want := fmt.Sprint(names), sortedText(c.after); got != want {
				t.Errorf("there are %s, want %s", got, want)
			}
			if left := volumetest.Left(t, base); len(left) > 0 {
				t.Errorf("left mounted: %v", left)
			}
			if left := leftFiles(root+"/.new-*", root+"/.gone-*", root+"/*/filling", run+"/pins/*", run+"/users/*"); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
			// Everything still works.
			_, err = v.Create(ctx, volume.CreateRequest{Name: "data"})
			must(t, err)
			must(t, v.Remove(ctx, "data", false))
		})
	}
}

func sortedText(names []string) string { return fmt.Sprint(slices.Sorted(slices.Values(names))) }

// leftFiles gives what matches and stays: notes go after mounts, and both behind the answer.
func leftFiles(patterns ...string) (left []string) {
	for range 6000 {
		left = nil
		for _, pattern := range patterns {
			found, _ := filepath.Glob(pattern)
			left = append(left, found...)
		}
		if len(left) == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return left
}

// What an answer costs on disk.
func TestSyncs(t *testing.T) {
	base := t.TempDir()
	v := open(t, filepath.Join(base, "root"), filepath.Join(base, "run"))
	defer v.Close()
	ctx := t.Context()
	for _, c := range []struct {
		verb string
		want int64
		do   func() error
	}{
		{"create", 3, func() error { _, err := v.Create(ctx, volume.CreateRequest{Name: "data"}); return err }},
		{"create again", 0, func() error { _, err := v.Create(ctx, volume.CreateRequest{Name: "data"}); return err }},
		{"mount", 0, func() error { _, err := v.Mount(ctx, "data", "", "c1"); return err }},
		{"unmount", 0, func() error { return v.Unmount(ctx, "data", "c1") }},
		{"list", 0, func() error { _, _, err := v.List(ctx); return err }},
		{"remove", 1, func() error { return v.Remove(ctx, "data", false) }},
	} {
		before := atomicfile.Syncs()
		must(t, c.do())
		if n := atomicfile.Syncs() - before; n != c.want {
			t.Errorf("%s: %d fsyncs, want %d", c.verb, n, c.want)
		}
	}
}

// A directory of dockerd's is taken over with its options, and left-overs of nobody are left alone.
func TestForeignDirectories(t *testing.T) {
	base := t.TempDir()
	root := filepath.Join(base, "root")
	for _, dir := range []string{"old/_data", "nfs/_data", "no-volume", ".hidden/_data", "x/_data"} {
		must(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	must(t, os.WriteFile(filepath.Join(root, "nfs/opts.json"), []byte(`{"MountType":"nfs","MountOpts":"addr=10.0.0.1","MountDevice":":/x","Quota":{"Size":0}}`), 0o600))
	must(t, os.WriteFile(filepath.Join(root, "metadata.db"), []byte("x"), 0o600))
	must(t, os.MkdirAll(filepath.Join(root, "newer/_data"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "newer/volume.json"), []byte(`{"version":99,"driver":"local"}`), 0o600))
	v := open(t, root, filepath.Join(base, "run"))
	defer v.Close()
	list, _, err := v.List(t.Context())
	must(t, err)
	if len(list) != 2 || list[0].Name != "nfs" || list[0].Options["o"] != "addr=10.0.0.1" || list[1].Name != "old" {
		t.Errorf("%+v", list)
	}
	// The newer one is not ours to touch.
	if _, err := v.Create(t.Context(), volume.CreateRequest{Name: "newer"}); err == nil {
		t.Error("a volume that cannot be read was replaced")
	}
	if _, err := os.Stat(filepath.Join(root, "newer/volume.json")); err != nil {
		t.Error(err)
	}
}

func TestPrune(t *testing.T) {
	base := t.TempDir()
	var events []string
	v, err := volume.Open(t.Context(), volume.Config{Root: filepath.Join(base, "root"), RunRoot: filepath.Join(base, "run"), PluginDirs: []string{base}, CSIDirs: []string{},
		Emit: func(action, name string, attrs map[string]string) {
			events = append(events, action+" "+name+" "+fmt.Sprint(attrs))
		}})
	must(t, err)
	defer v.Close()
	ctx := t.Context()
	for name, options := range map[string]map[string]string{"free": nil, "kept": nil, "used": nil, "mounted": nil, "tmp": {"type": "tmpfs", "device": "tmpfs"}} {
		_, err := v.Create(ctx, volume.CreateRequest{Name: name, Options: options})
		must(t, err)
	}
	must(t, os.WriteFile(filepath.Join(base, "root/free/_data/f"), make([]byte, 1234), 0o600))
	_, err = v.Mount(ctx, "mounted", "", "c1")
	must(t, err)
	v.UsedBy(func(name string) []string {
		if name == "used" {
			return []string{"c2"}
		}
		return nil
	})
	events = nil
	plan, err := v.PlanPrune(ctx, func(v volume.Volume) string {
		if v.Name == "kept" {
			return "asked to"
		}
		return ""
	}, nil)
	must(t, err)
	var spared []string
	for _, i := range plan.Spare {
		spared = append(spared, i.Name+": "+i.Why)
	}
	if got := strings.Join(spared, "; "); got != "kept: asked to; mounted: used by container c1; tmp: its content is elsewhere: it has options; used: used by container c2" {
		t.Errorf("spared %s", got)
	}
	report, err := v.ApplyPrune(ctx, plan)
	must(t, err)
	if len(report.Removed) != 1 || report.Removed[0].Name != "free" || report.Reclaimed != 1234 || len(report.Skipped) > 0 {
		t.Errorf("%+v", report)
	}
	if got := fmt.Sprint(events); got != "[destroy free map[driver:local] prune  map[reclaimed:1234]]" {
		t.Errorf("events %s", got)
	}
}

func TestRootBelongsToOneEngine(t *testing.T) {
	base := t.TempDir()
	v := open(t, filepath.Join(base, "root"), filepath.Join(base, "run"))
	defer v.Close()
	if _, err := config(filepath.Join(base, "root"), filepath.Join(base, "run")); !fault.Is(err, fault.Conflict) {
		t.Errorf("%v", err)
	}
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{"ab", "a", "../x", "a/b", "a\x00", ".a", "a.b_c-d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if volume.CheckName(name) == nil && (filepath.Base(name) != name || name[0] == '.' || len(name) < 2) {
			t.Errorf("%q is taken for a volume's name", name)
		}
		if volume.CheckSubpath(name) == nil && !filepath.IsLocal(filepath.Clean(name)) && name != "" {
			t.Errorf("%q is taken for a subpath", name)
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
