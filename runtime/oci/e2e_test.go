package oci_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/runtime/spec"
)

// These tests run the real command line on real bundles. They need root, and busybox for the
// containers' programs.

var build struct {
	once sync.Once
	path string
	err  error
}

// binary builds berth-oci once for all tests of the package.
func binary(t *testing.T) string {
	t.Helper()
	build.once.Do(func() {
		dir, err := os.MkdirTemp("", "berth-oci-test-")
		if err != nil {
			build.err = err
			return
		}
		build.path = filepath.Join(dir, "berth-oci")
		cmd := exec.Command("go", "build", "-ldflags", "-E _berth_shortlived", "-o", build.path, "berth/cmd/berth-oci")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			build.err = fmt.Errorf("%w: %s", err, out)
		}
	})
	if build.err != nil {
		t.Fatal(build.err)
	}
	return build.path
}

func TestMain(m *testing.M) {
	code := m.Run()
	if build.path != "" {
		os.RemoveAll(filepath.Dir(build.path))
	}
	os.Exit(code)
}

// runtime is a berth-oci with a root of its own.
type runtime struct {
	t    *testing.T
	bin  string
	root string
	env  []string // beside our own
}

var serial atomic.Int64

// newRuntime gives a runtime whose containers are all deleted when the test ends.
func newRuntime(t *testing.T) *runtime {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: containers with namespaces and cgroups of their own")
	}
	r := &runtime{t: t, bin: binary(t), root: filepath.Join(t.TempDir(), "state")}
	t.Cleanup(func() { removeParents("/berth-test-" + fmt.Sprint(os.Getpid())) }) // when what is in it has been deleted
	t.Cleanup(func() {
		entries, _ := os.ReadDir(r.root)
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), ".") {
				r.env = nil
				if out := r.do("delete", "--force", e.Name()); out.code != 0 {
					t.Errorf("clean up %s: %s", e.Name(), out.err)
				}
			}
		}
	})
	return r
}

// id gives a name that no other test on the machine uses.
func (r *runtime) id() string {
	return fmt.Sprintf("berth-test-%d-%d", os.Getpid(), serial.Add(1))
}

// outcome is what a command did.
type outcome struct {
	code     int
	out, err string
}

// do runs a command to its end.
func (r *runtime) do(args ...string) outcome { return r.with("", args...) }

// with is do with a standard input.
func (r *runtime) with(stdin string, args ...string) outcome {
	r.t.Helper()
	cmd := r.command(args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	// Pipes are held open by containers that stay: do not wait for them.
	cmd.WaitDelay = 100 * time.Millisecond
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		r.t.Fatalf("%v: %v", args, err)
	}
	return outcome{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

func (r *runtime) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	r.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, r.bin, append([]string{"--root", r.root}, args...)...)
	cmd.Env = append(os.Environ(), r.env...)
	return cmd
}

// must is do for commands that have to succeed; it gives their output.
func (r *runtime) must(args ...string) string {
	r.t.Helper()
	o := r.do(args...)
	if o.code != 0 {
		r.t.Fatalf("%v: exit %d\n%s%s", args, o.code, o.out, o.err)
	}
	return o.out
}

// fails is do for commands that have to fail with these words.
func (r *runtime) fails(words string, args ...string) {
	r.t.Helper()
	// The log's lines quote the message.
	if o := r.do(args...); o.code == 0 || !strings.Contains(strings.ReplaceAll(o.err, `\"`, `"`), words) {
		r.t.Errorf("%v: exit %d, %q; want a failure with %q", args, o.code, o.err, words)
	}
}

// bundle makes a bundle whose root is busybox, with Docker's defaults and the changes applied.
func (r *runtime) bundle(change func(*specs.Spec)) string {
	r.t.Helper()
	dir := r.t.TempDir()
	rootfs := filepath.Join(dir, "rootfs")
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		r.t.Skip("needs busybox: package busybox-static")
	}
	for _, d := range []string{"bin", "etc", "proc", "sys", "dev", "tmp", "root", "home/user"} {
		if err := os.MkdirAll(filepath.Join(rootfs, d), 0o755); err != nil {
			r.t.Fatal(err)
		}
	}
	copyFile(r.t, busybox, filepath.Join(rootfs, "bin/busybox"))
	for _, name := range []string{"sh", "true", "false", "cat", "echo", "id", "env", "sleep", "ls", "pwd", "hostname", "mount", "kill", "ps", "head", "stat", "wc", "touch", "readlink", "grep", "cut", "nproc", "mkdir", "dd", "stty", "tty", "test"} {
		if err := os.Symlink("busybox", filepath.Join(rootfs, "bin", name)); err != nil {
			r.t.Fatal(err)
		}
	}
	writeText(r.t, filepath.Join(rootfs, "etc/passwd"), "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")
	s := spec.Default(spec.DefaultOptions{Hostname: "berth", HostCgroupNamespace: true})
	delete(s.Linux.Sysctl, "net.ipv4.ping_group_range")
	s.Process.Args = []string{"/bin/true"}
	s.Linux.CgroupsPath = "/berth-test-" + fmt.Sprint(os.Getpid()) + "/" + fmt.Sprint(serial.Add(1))
	r.t.Cleanup(func() { removeParents(filepath.Dir(s.Linux.CgroupsPath)) })
	if change != nil {
		change(s)
	}
	r.write(dir, s)
	return dir
}

// removeParents removes the test's parent cgroups where they are empty.
func removeParents(path string) {
	dirs, _ := filepath.Glob("/sys/fs/cgroup/*" + path)
	for _, d := range append(dirs, "/sys/fs/cgroup"+path) {
		_ = unix.Rmdir(d)
	}
}

func (r *runtime) write(bundle string, s *specs.Spec) {
	r.t.Helper()
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		r.t.Fatal(err)
	}
	writeText(r.t, filepath.Join(bundle, "config.json"), string(text))
}

// shell is a change that makes the container run a script.
func shell(script string) func(*specs.Spec) {
	return func(s *specs.Spec) { s.Process.Args = []string{"/bin/sh", "-c", script} }
}

// both applies several changes.
func both(changes ...func(*specs.Spec)) func(*specs.Spec) {
	return func(s *specs.Spec) {
		for _, c := range changes {
			c(s)
		}
	}
}

func writeText(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// state is what the state command says.
type state struct {
	OCIVersion  string            `json:"ociVersion"`
	ID          string            `json:"id"`
	PID         int               `json:"pid"`
	Status      string            `json:"status"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Annotations map[string]string `json:"annotations"`
	Owner       string            `json:"owner"`
}

func (r *runtime) state(id string) state {
	r.t.Helper()
	var s state
	if err := json.Unmarshal([]byte(r.must("state", id)), &s); err != nil {
		r.t.Fatal(err)
	}
	return s
}

// await waits until the container has the status.
func (r *runtime) await(id, status string) {
	r.t.Helper()
	eventually(r.t, "status "+status, func() bool { return r.state(id).Status == status })
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("%s: not within 20 s", what)
}

// read gives a bundle's configuration, to be changed and written again.
func (r *runtime) read(bundle string) *specs.Spec {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		r.t.Fatal(err)
	}
	var s specs.Spec
	if err := json.Unmarshal(text, &s); err != nil {
		r.t.Fatal(err)
	}
	return &s
}
