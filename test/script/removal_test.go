package script

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"berth/test/live"

	"github.com/rogpeppe/go-internal/testscript"
)

// removalFlags are what the engines of testdata/removal run with, by script.
var removalFlags = map[string][]string{
	"trash":  {"--trash-window", "1h"},
	"events": nil,
	"gc":     {"--gc-high", "85%", "--gc-low", "80%", "--gc-keep", "keep*", "--gc-keep", "label=keep=yes"},
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
