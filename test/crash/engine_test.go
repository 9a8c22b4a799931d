package crash

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/failpoint"
	"berth/kernel/mount"
	"berth/test/world"
)

// engine is a berthd that is killed and started again.
type engine struct {
	t      *testing.T
	bin    string
	dir    string
	parent string // cgroup
	data   string // the data root
	client *http.Client
	world  *world.World // berthd runs on its host
	arm    string       // failpoints of the next start; "": none
	flags  []string     // more of berthd's
	from   int64        // where the log of the last start begins

	mu    sync.Mutex
	cmd   *exec.Cmd
	ended chan struct{}
	log   *os.File
}

func newEngine(t *testing.T) *engine {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: containers are started for real")
	}
	dir, err := os.MkdirTemp("", "berth-crash-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w, err := world.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	e := &engine{world: w, t: t, bin: binaries(t), dir: dir, data: dir + "/data", parent: fmt.Sprintf("/berth-test-%d-crash%d", os.Getpid(), engines.Add(1))}
	if e.log, err = os.Create(filepath.Join(dir, "berthd.log")); err != nil {
		t.Fatal(err)
	}
	e.client = &http.Client{
		Timeout: time.Minute,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", e.sock())
			},
			MaxIdleConnsPerHost: 32,
		},
	}
	t.Cleanup(e.clear)
	return e
}

// clear takes away what a test that failed has left of its engine: processes, mounts and cgroups. After end there is nothing.
func (e *engine) clear() {
	e.mu.Lock()
	started := e.cmd != nil
	e.mu.Unlock()
	if started {
		e.kill()
	}
	cgroups := e.cgroups()
	if len(cgroups) > 0 || len(e.processes()) > 0 {
		e.killProcesses()
	}
	mounts, _ := mount.Self(func(i *mount.Info) bool {
		return strings.HasPrefix(i.Point, e.dir+"/") || strings.HasPrefix(i.Point, e.data+"/")
	})
	for _, m := range slices.Backward(mounts) {
		unix.Unmount(m.Point, unix.MNT_DETACH)
	}
	for _, top := range cgroups {
		for range 100 { // what was killed ends in a moment
			var below []string
			filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					below = append(below, path)
				}
				return nil
			})
			for _, dir := range slices.Backward(below) {
				os.Remove(dir)
			}
			if _, err := os.Lstat(top); err != nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// cgroups lists the engine's own, one in each hierarchy.
func (e *engine) cgroups() (all []string) {
	for _, pattern := range []string{"/sys/fs/cgroup" + e.parent, "/sys/fs/cgroup/*" + e.parent} {
		dirs, _ := filepath.Glob(pattern)
		all = append(all, dirs...)
	}
	return all
}

// engines counts engines: several tests have one at the same time.
var engines atomic.Int64

var built struct {
	once sync.Once
	dir  string
	err  error
}

// binaries builds this tree's commands, once for all tests.
func binaries(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "berth-crash-bin-"); built.err != nil {
			return
		}
		build := exec.Command("go", "build", "-o", built.dir, "berth/cmd/berthd", "berth/cmd/berth-keeper", "berth/cmd/berth-init")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("%w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.dir
}

func TestMain(m *testing.M) {
	if code, done := inOwnMounts(); done {
		os.Exit(code)
	}
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// ownMounts says that this process has a mount namespace of its own.
const ownMounts = "BERTH_TEST_OWN_MOUNTS"

// inOwnMounts runs this program again in a mount namespace of its own, and gives its exit code. Whoever makes a mount namespace anywhere on
// the machine, as each start of a container does, copies all mounts of the one that he is in. A test's disk would live on in there after
// it is unmounted, and whoever mounts it again would get the very same file system with all that it remembers, such as that its disk failed.
func inOwnMounts() (code int, done bool) {
	if os.Getuid() != 0 || os.Getenv(ownMounts) != "" {
		return 0, false
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), ownMounts+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL} // and all mounts private
	runtime.LockOSThread()                                                                                // whose death the signal tells of
	if err := cmd.Start(); err != nil {
		return 0, false // the tests say themselves what the machine lacks
	}
	_ = cmd.Wait() // how it ended is in ProcessState
	return cmd.ProcessState.ExitCode(), true
}

func (e *engine) sock() string { return filepath.Join(e.dir, "sock") }

// start runs berthd and waits until it answers.
func (e *engine) start() {
	e.t.Helper()
	if !e.tryStart() {
		e.t.Fatalf("berthd does not start:\n%s", e.tail())
	}
}

// tryStart is start; false when berthd ended before it answered.
func (e *engine) tryStart() bool {
	e.t.Helper()
	cmd := exec.Command(filepath.Join(e.bin, "berthd"), append([]string{"-H", "unix://" + e.sock(), "--data-root", e.data, "--exec-root", e.dir + "/exec",
		"--cgroup-parent", e.parent, "--config-file", e.dir + "/none.json", "--log-level", "info"}, e.flags...)...)
	os.WriteFile(e.dir+"/none.json", []byte("{}"), 0o600)
	cmd.Stdout, cmd.Stderr = e.log, e.log
	cmd.Env = os.Environ()
	if e.arm != "" {
		cmd.Env = append(cmd.Env, failpoint.Env+"="+e.arm)
	}
	if err := e.world.Start(cmd); err != nil {
		e.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	e.mu.Lock()
	e.cmd, e.ended = cmd, ended
	e.mu.Unlock()
	for range 3000 {
		if r, err := e.client.Get("http://berth/_ping"); err == nil {
			r.Body.Close()
			return true
		}
		select {
		case <-ended:
			return false
		case <-time.After(10 * time.Millisecond):
		}
	}
	e.t.Fatalf("berthd does not answer:\n%s", e.tail())
	return false
}

// kill ends berthd as a crash does.
func (e *engine) kill() {
	e.mu.Lock()
	cmd, ended := e.cmd, e.ended
	e.mu.Unlock()
	cmd.Process.Kill()
	<-ended
}

// killAll ends berthd, its keeper and all containers at once, as a reset of the machine does.
func (e *engine) killAll() {
	e.kill()
	e.killProcesses()
}

// killProcesses kills what is in the engine's cgroups.
func (e *engine) killProcesses() {
	procs, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	for range 3 { // a process may come while we look
		for _, p := range procs {
			b, _ := os.ReadFile(p)
			if !strings.Contains(string(b), e.parent+"/") {
				continue
			}
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(p))); err == nil {
				if p, err := os.FindProcess(pid); err == nil {
					p.Kill()
				}
			}
		}
		time.Sleep(20 * time.Millisecond)
		procs, _ = filepath.Glob("/proc/[0-9]*/cgroup")
	}
}

func (e *engine) tail() string {
	b, _ := os.ReadFile(e.log.Name())
	if len(b) > 6000 {
		b = b[len(b)-6000:]
	}
	return string(b)
}

// errGone: the engine died while it was asked; nobody knows what became of the request.
var errGone = errors.New("the engine is gone")

// do asks once. A status of 400 and more is an error with Docker's message, prefixed by the status.
func (e *engine) do(method, path string, body any) (int, []byte, error) {
	var r io.Reader
	if body != nil {
		b, ok := body.([]byte)
		if !ok {
			b, _ = json.Marshal(body)
		}
		r = bytes.NewReader(b)
	}
	if !strings.HasPrefix(path, "/berth/") {
		path = "/v1.44" + path
	}
	req, err := http.NewRequest(method, "http://berth"+path, r)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if _, raw := body.([]byte); raw {
		req.Header.Set("Content-Type", "application/x-tar")
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return 0, nil, errGone
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, errGone
	}
	return resp.StatusCode, b, nil
}

// berth asks Berth's own API once.
func (e *engine) berth(method, path string) (int, []byte) {
	req, err := http.NewRequest(method, "http://berth/berth/v1"+path, nil)
	if err != nil {
		return 0, nil
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return 0, []byte(err.Error())
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, b
}

// eventually asks until it is so, for a minute: what goes on behind takes its time on a machine that is busy with other tests.
func eventually(so func() bool) bool {
	for deadline := time.Now().Add(time.Minute); !so(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// insist asks until the engine answers.
func (e *engine) insist(method, path string, body any) (int, []byte) {
	for range 6000 {
		if code, b, err := e.do(method, path, body); err == nil {
			return code, b
		}
		time.Sleep(5 * time.Millisecond)
	}
	e.t.Errorf("%s %s: no engine for half a minute", method, path)
	return 0, nil
}

// busyboxImage gives a docker-save archive of one static busybox.
func busyboxImage(t *testing.T) []byte {
	t.Helper()
	return imageOf(t, "busybox:latest")
}

// extraImage is the same with a second layer, which has content in /etc.
func extraImage(t *testing.T) []byte {
	t.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for i := range 20 {
		text := bytes.Repeat([]byte{byte('a' + i)}, 3000)
		w.WriteHeader(&tar.Header{Name: fmt.Sprintf("etc/f%d", i), Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text))})
		w.Write(text)
	}
	w.Close()
	return imageOf(t, "extra:latest", layer.Bytes())
}

// imageOf makes an archive of busybox with layers above it.
func imageOf(t *testing.T, tag string, above ...[]byte) []byte {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs busybox: install the package busybox-static")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, d := range strings.Fields("bin/ etc/ tmp/ root/ proc/ sys/ dev/") {
		w.WriteHeader(&tar.Header{Name: d, Typeflag: tar.TypeDir, Mode: 0o755})
	}
	w.WriteHeader(&tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(data))})
	w.Write(data)
	for _, n := range strings.Fields("sh sleep true seq echo httpd mkdir nslookup") {
		w.WriteHeader(&tar.Header{Name: "bin/" + n, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777})
	}
	w.Close()
	layers := append([][]byte{layer.Bytes()}, above...)
	var diffs, names []string
	for i, l := range layers {
		sum := sha256.Sum256(l)
		diffs = append(diffs, "sha256:"+hex.EncodeToString(sum[:]))
		names = append(names, fmt.Sprintf("layer%d.tar", i))
	}
	config, _ := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux", "config": map[string]any{"Env": []string{"PATH=/bin"}, "Cmd": []string{"sh"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
	})
	csum := sha256.Sum256(config)
	name := hex.EncodeToString(csum[:]) + ".json"
	manifest, _ := json.Marshal([]map[string]any{{"Config": name, "RepoTags": []string{tag}, "Layers": names}})
	var out bytes.Buffer
	w = tar.NewWriter(&out)
	add := func(name string, data []byte) {
		w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(data))})
		w.Write(data)
	}
	add(name, config)
	for i, l := range layers {
		add(names[i], l)
	}
	add("manifest.json", manifest)
	w.Close()
	return out.Bytes()
}
