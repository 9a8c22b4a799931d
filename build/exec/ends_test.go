package exec

import (
	"context"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/buildkit/solver/pb"

	"berth/build/snapshot"
	"berth/build/solver"
)

// Steps do not survive the engine, also those that become another user (first, by what they execute, as gosu does), and in an engine without root.
func TestStepsDieWithTheEngine(t *testing.T) {
	for _, c := range []string{"plain", "set-user-ID", "capable", "set-user-ID later", "gosu", "mapped", "gosu mapped", "without root", "gosu without root"} {
		t.Run(c, func(t *testing.T) {
			newRoom(t) // skips where steps cannot run
			dir := t.TempDir()
			self, err := os.Executable()
			must(t, err)
			engine := osexec.Command(self, "-test.run=^TestEngineToBeKilled$", "-test.v")
			engine.Env = append(os.Environ(), "BERTH_TEST_ENGINE="+c, "TMPDIR="+dir)
			engine.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			out, err := engine.StdoutPipe()
			must(t, err)
			var said lockedBuffer
			engine.Stderr = &said
			must(t, engine.Start())
			defer func() { _ = engine.Process.Kill(); _ = engine.Wait() }()
			var parent string
			buf := make([]byte, 4096)
			for parent == "" {
				n, err := out.Read(buf)
				_, _ = said.Write(buf[:n])
				if err != nil {
					_ = engine.Wait() // for its errors, too
				}
				if _, rest, ok := strings.Cut(said.String(), "runs in "); ok {
					parent, _, _ = strings.Cut(rest, "\n")
				}
				if err != nil && parent == "" {
					if strings.Contains(said.String(), "SKIP") {
						t.Skip("needs what the engine needs: " + said.String())
					}
					t.Fatalf("no step came to run: %s", said.String())
				}
			}
			steps := members(parent)
			if len(steps) == 0 {
				t.Fatalf("nothing runs in %s", parent)
			}
			must(t, engine.Process.Kill())
			_ = engine.Wait()
			for end := time.Now().Add(time.Minute); len(members(parent)) > 0; time.Sleep(5 * time.Millisecond) {
				if time.Now().After(end) {
					t.Errorf("processes %v of the step live", members(parent))
					for _, pid := range members(parent) {
						n, _ := strconv.Atoi(pid)
						_ = syscall.Kill(n, syscall.SIGKILL)
					}
					break
				}
			}
			// A process that has ended holds its cgroup until somebody has waited for it.
			for end := time.Now().Add(time.Minute); !removedGroups(parent); time.Sleep(5 * time.Millisecond) {
				if time.Now().After(end) {
					t.Errorf("cgroups %v stay", groupRoots(parent))
					break
				}
			}
		})
	}
}

// removedGroups removes a cgroup with what is below it, and the one that it is in. False: something is still there.
func removedGroups(parent string) bool {
	for _, root := range groupRoots(parent) {
		var dirs []string
		_ = filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, p)
			}
			return nil
		})
		for _, p := range slices.Backward(dirs) {
			_ = syscall.Rmdir(p)
		}
		_ = syscall.Rmdir(filepath.Dir(root))
	}
	return len(groupRoots(parent)) == 0
}

// groupRoots are the directories of a cgroup.
func groupRoots(parent string) []string {
	v1, _ := filepath.Glob("/sys/fs/cgroup/*" + parent)
	v2, _ := filepath.Glob("/sys/fs/cgroup" + parent)
	return append(v1, v2...)
}

// members are the processes in a cgroup and below it that are no zombies.
func members(parent string) (list []string) {
	for _, root := range groupRoots(parent) {
		_ = filepath.WalkDir(root, func(p string, _ os.DirEntry, err error) error {
			if err != nil || filepath.Base(p) != "cgroup.procs" {
				return nil
			}
			text, _ := os.ReadFile(p)
			for _, pid := range strings.Fields(string(text)) {
				if stat, err := os.ReadFile("/proc/" + pid + "/stat"); err == nil && !strings.Contains(string(stat), ") Z ") {
					list = append(list, pid)
				}
			}
			return nil
		})
	}
	return list
}

// TestEngineToBeKilled is that engine: it runs a step that does not end, and is killed.
func TestEngineToBeKilled(t *testing.T) {
	kind := os.Getenv("BERTH_TEST_ENGINE")
	if kind == "" {
		t.Skip("needs to be run by another test")
	}
	var r *room
	switch {
	case strings.HasSuffix(kind, "mapped"):
		r = inUserNS(t)
	case strings.HasSuffix(kind, "without root"):
		r = newRoom(t, func(c *Config) { c.InUserNS = true }) // the same ways, with root's rights
	default:
		r = newRoom(t)
	}
	text := ownProgram(t)
	base := r.make(r.base, func(root string) error {
		name := filepath.Join(root, "bin/waits")
		if err := os.WriteFile(name, text, 0o755); err != nil {
			return err
		}
		switch kind {
		case "set-user-ID", "set-user-ID later", "mapped", "without root":
			if err := os.Chown(name, 33, 34); err != nil {
				return err
			}
			return syscall.Chmod(name, 0o6755)
		case "capable":
			return syscall.Setxattr(name, "security.capability", netBind, 0)
		}
		return nil
	})
	op := &pb.ExecOp{
		Meta:    &pb.Meta{Args: []string{"waits", "-test.run=^TestStepToBeKilled$"}, Env: []string{"PATH=/bin", "BERTH_TEST_STEP=" + kind}, Cwd: "/", User: "1000:1000"},
		Network: pb.NetMode_NONE, Mounts: []*pb.Mount{root()},
	}
	if strings.HasPrefix(kind, "gosu") {
		op.Meta.User = ""
	}
	if kind == "set-user-ID later" {
		op.Meta.Args = []string{"sh", "-c", "exec waits -test.run='^TestStepToBeKilled$'"}
	}
	w := writer(func(b []byte) {
		os.Stderr.Write(b)
		if strings.Contains(string(b), "waiting") {
			fmt.Fprintf(os.Stdout, "runs in %s\n", r.cfg.CgroupParent)
		}
	})
	o := r.runWith(context.Background(), op, &solver.Run{Stdout: w, Stderr: w}, []*snapshot.Snapshot{base}...)
	t.Fatalf("the step ended: %v %s", o.failure, o.out)
}

// TestStepToBeKilled is the step.
func TestStepToBeKilled(t *testing.T) {
	switch kind := os.Getenv("BERTH_TEST_STEP"); {
	case kind == "":
		t.Skip("needs to be run by another test")
	case strings.HasPrefix(kind, "gosu"):
		must(t, syscall.Setgid(34))
		must(t, syscall.Setuid(33))
		must(t, syscall.Exec("/bin/waits", os.Args, []string{"BERTH_TEST_STEP=another user"}))
	case kind != "plain" && kind != "capable":
		if os.Geteuid() != 33 {
			t.Fatal("the user is " + strconv.Itoa(os.Geteuid()))
		}
	}
	os.Stdout.WriteString("waiting\n")
	time.Sleep(time.Minute)
}
