package host

import (
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

	"berth/base/fault"
	"berth/kernel/cgroup"
)

func TestLimits(t *testing.T) {
	b := open(t)
	layout, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{"memory", "pids"} {
		if layout.Find(c) == nil {
			t.Skip("needs the cgroup controller " + c)
		}
	}
	b.cfg.Memory = 48 << 20
	g, err := b.group()
	if err != nil {
		t.Fatal(err)
	}
	if g == nil {
		t.Skip("needs the right to make cgroups")
	}
	for _, f := range []struct{ controller, v1, v2, want string }{
		{"memory", "memory.limit_in_bytes", "memory.max", "50331648"},
		{"pids", "pids.max", "pids.max", "1024"},
	} {
		name := f.v1
		if layout.Find(f.controller).V2 {
			name = f.v2
		}
		if text, err := os.ReadFile(filepath.Join(g.Dir(f.controller), name)); err != nil || strings.TrimSpace(string(text)) != f.want {
			t.Errorf("%s: %q %v", name, text, err)
		}
	}
	// Swap is no part of the limit. Those below this one are to have none here, so that what is too much is too much soon, on any machine.
	swap := "memory.swappiness"
	if layout.Find("memory").V2 {
		swap = "memory.swap.max"
	}
	if f, err := os.OpenFile(filepath.Join(filepath.Dir(g.Dir("memory")), swap), os.O_WRONLY, 0); err == nil { // else the kernel knows no swap
		if _, err := f.WriteString("0"); err != nil {
			t.Error(err)
		}
		f.Close()
	}
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
	var e *ExitError
	if out, err := b.sh("head -c 200m /dev/zero | tail -n 1 | wc -c; exit 3"); !errors.As(err, &e) || !e.Memory || e.Code != 3 || strings.Contains(out, "209715200") {
		t.Errorf("more memory than is allowed: %v %q", err, out)
	}
	if _, err := b.sh("exit 3"); !errors.As(err, &e) || e.Memory {
		t.Errorf("none of it: %v", err)
	}
	if left := groups(b.cfg.CgroupParent); slices.ContainsFunc(left, func(p string) bool { return strings.Contains(p, groupPrefix) }) {
		t.Errorf("left: %v", left)
	}
	if m := memory(); m < leastMemory {
		t.Error(m)
	}
}

// A runner that is closed ends what it runs, and runs nothing any more.
func TestClosed(t *testing.T) {
	b := open(t)
	over := make(chan error)
	go func() {
		_, err := b.sh("touch started; sleep 1000")
		over <- err
	}()
	await(t, filepath.Join(b.work, "started"))
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := <-over; !fault.Is(err, fault.Unavailable) {
		t.Error(err)
	}
	if _, err := b.sh("true"); !fault.Is(err, fault.Unavailable) {
		t.Error(err)
	}
}

// What runs ends with the engine, also when that is killed.
func TestEndsWithTheEngine(t *testing.T) {
	if dir := os.Getenv("BERTH_TEST_ENGINE"); dir != "" {
		b := open(t)
		fmt.Printf("runs in %s\n", b.cfg.CgroupParent)
		_, err := b.sh("touch started; sleep 1000 & sleep 1000", func(c *Command) { c.Dir, c.Writable = dir, []string{dir} })
		t.Fatal(err)
	}
	if b := open(t); b.cfg.InUserNS {
		t.Skip("needs the right to make cgroups, by which what runs is found")
	}
	dir := t.TempDir()
	engine := exec.Command("/proc/self/exe", "-test.run=^TestEndsWithTheEngine$")
	engine.Env = append(os.Environ(), "BERTH_TEST_ENGINE="+dir, "TMPDIR="+t.TempDir())
	var said strings.Builder
	engine.Stdout = &said
	if err := engine.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, filepath.Join(dir, "started"))
	if err := engine.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = engine.Wait()
	_, rest, _ := strings.Cut(said.String(), "runs in ")
	parent, _, _ := strings.Cut(rest, "\n")
	if len(groups(parent)) < 2 {
		t.Fatalf("no cgroup of what ran is here: %v (%s)", groups(parent), said.String())
	}
	removeGroups(t, parent)
}

func await(t *testing.T, file string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(file); err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not come", file)
		}
	}
}

// removeGroups removes the cgroups below one, and it, which can be done only when nobody is in them any more.
func removeGroups(t *testing.T, parent string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		list := groups(parent)
		for _, p := range slices.Backward(list) {
			_ = syscall.Rmdir(p)
		}
		if len(list) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Errorf("somebody is in one of %v", list)
			break
		}
	}
	for _, dir := range roots(filepath.Dir(parent)) {
		_ = syscall.Rmdir(dir)
	}
}

// groups are the directories of a cgroup and of those below it, parents first.
func groups(parent string) (list []string) {
	for _, root := range roots(parent) {
		_ = filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				list = append(list, p)
			}
			return nil
		})
	}
	return list
}

func roots(group string) []string {
	v1, _ := filepath.Glob("/sys/fs/cgroup/*" + group)
	v2, _ := filepath.Glob("/sys/fs/cgroup" + group)
	return append(v1, v2...)
}
