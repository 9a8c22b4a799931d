package script

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/test/live"

	"github.com/rogpeppe/go-internal/testscript"
)

// removalFlags are what the engines of testdata/removal run with, by script.
var removalFlags = map[string][]string{
	"trash":  {"--trash-window", "1h"},
	"events": nil,
	"gc":     {"--gc-high", "85%", "--gc-low", "80%", "--gc-min-age", "0", "--gc-keep", "keep*", "--gc-keep", "label=keep=yes"},
	"full":   {"--trash-window", "1h", "--event-journal-size", "1m"},
}

// onSmallDisk are those whose data root is a disk of 200 MB.
var onSmallDisk = map[string]bool{"gc": true, "full": true}

// TestRemoval runs each script with an engine of its own and settings that concern what goes away.
func TestRemoval(t *testing.T) {
	if lacks := live.Lacks(); lacks != "" {
		t.Skip(lacks)
	}
	bin, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	for client, path := range clients(t, bin) {
		for name, flags := range removalFlags {
			if client == "docker" && name != "events" {
				continue // the others need what Docker's command line has not
			}
			t.Run(client+"/"+name, func(t *testing.T) {
				disk := ""
				if onSmallDisk[name] {
					disk = smallDisk(t)
					flags = append([]string{"--data-root", filepath.Join(disk, "data")}, flags...)
				}
				e := start(t, flags...)
				verbs := places(e.World)
				verbs["engine"] = func(ts *testscript.TestScript, neg bool, args []string) {
					if neg || len(args) != 1 {
						ts.Fatalf("usage: engine kill | run | restart | kill-keeper")
					}
					ts.Check(engine(e, args[0]))
				}
				testscript.Run(t, testscript.Params{
					Files:     []string{filepath.Join("testdata/removal", name+".txtar")},
					Condition: conditions(client),
					Cmds:      verbs,
					Setup: func(env *testscript.Env) error {
						prepare(env, client, path, e.Host)
						env.Setenv("DISK", disk)
						return nil
					},
				})
			})
		}
	}
}

// smallDisk mounts a file system of 200 MB.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "berth-disk-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(dir) })
	if err := syscall.Mount("berth-test", dir, "tmpfs", 0, "mode=711,size=200m"); err != nil {
		t.Skipf("needs a tmpfs of its own: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil && !strings.Contains(err.Error(), "invalid") {
			_ = syscall.Unmount(dir, syscall.MNT_DETACH)
			t.Errorf("unmount the small disk: %v", err)
		}
	})
	return dir
}

// TestTrashKilled kills the engine at each step of the ways into the trash, out of it and to the end. Each time the thing is there
// afterwards exactly once: alive, or in the trash; but for the last way, where it may be gone.
func TestTrashKilled(t *testing.T) {
	if lacks := live.Lacks(); lacks != "" {
		t.Skip(lacks)
	}
	e := start(t, "--trash-window", "1h")
	cli := filepath.Join(e.Bin, "berth")
	run := func(args ...string) (string, error) {
		out, err := exec.Command(cli, append([]string{"-H", e.Host}, args...)...).CombinedOutput()
		return string(out), err
	}
	there := func(kind string) (n int) {
		if _, err := run(kind, "inspect", "thing"); err == nil {
			n++
		}
		out, err := run("trash", "ls")
		if err != nil {
			t.Fatal(out)
		}
		for _, line := range strings.Split(out, "\n") {
			if strings.HasSuffix(line, " thing") || strings.HasSuffix(line, " thing:latest") {
				n++
			}
		}
		return n
	}
	for _, tt := range []struct {
		kind   string
		make   []string
		points []string
	}{
		{"container", []string{"create", "--name", "thing", "--network", "none", "box", "true"}, []string{
			"engine/store/before-trash", "engine/store/trashed", "engine/store/before-restore", "engine/store/before-discard"}},
		{"volume", []string{"volume", "create", "thing"}, []string{"volume/before-trash", "volume/trashed", "volume/before-restore", "volume/before-empty"}},
		{"image", []string{"tag", "box", "thing"}, []string{"image/before-delete", "image/before-write", "image/after-commit", "image/before-restore", "image/before-empty"}},
	} {
		for _, point := range tt.points {
			t.Run(point, func(t *testing.T) {
				if tt.kind == "image" { // one of its own: a further name of another is only a name
					if out, err := run("create", "--name", "maker", "--network", "none", "box", "true"); err != nil {
						t.Fatal(out)
					}
					if out, err := run("commit", "-m", point, "maker", "thing"); err != nil {
						t.Fatal(out)
					}
					if out, err := run("rm", "maker"); err != nil {
						t.Fatal(out)
					}
				} else if out, err := run(tt.make...); err != nil {
					t.Fatal(out)
				}
				remove := []string{tt.kind, "rm", "thing"}
				way := remove
				switch {
				case strings.HasSuffix(point, "before-restore"):
					way = []string{"trash", "restore", "thing"}
				case strings.HasSuffix(point, "before-empty"), strings.HasSuffix(point, "before-discard"):
					way = []string{"trash", "empty", "-f", "thing"}
				}
				if way[0] == "trash" {
					if out, err := run(remove...); err != nil {
						t.Fatal(out)
					}
				}
				t.Setenv("BERTH_FAILPOINTS", point+"=kill")
				if err := engine(e, "restart"); err != nil {
					t.Fatal(err)
				}
				if out, err := run(way...); err == nil {
					t.Errorf("the engine was not killed: %s", out)
				}
				os.Unsetenv("BERTH_FAILPOINTS")
				if err := engine(e, "restart"); err != nil {
					t.Fatal(err)
				}
				n := 0
				for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
					if n = there(tt.kind); n == 1 { // a removal that was begun is finished behind
						break
					}
				}
				if n != 1 {
					out, _ := run("trash", "ls")
					t.Errorf("it is there %d times\n%s", n, out)
				}
				_, _ = run(tt.kind, "rm", "thing")
				if out, err := run("trash", "empty", "-f"); err != nil {
					t.Error(out)
				}
				if n := there(tt.kind); n != 0 {
					t.Errorf("it is there %d times after all", n)
				}
			})
		}
	}
}
