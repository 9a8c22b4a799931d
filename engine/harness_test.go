package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/event"
	"berth/base/fault"
	"berth/engine/container"
	"berth/engine/userns"
	"berth/image"
	"berth/image/layer"
	"berth/kernel/cgroup"
	"berth/runtime/keeper"
)

// binaries are built once for the package's tests.
var binaries struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if binaries.dir != "" {
		os.RemoveAll(binaries.dir)
	}
	os.Exit(code)
}

// binary gives the path of one of our commands, built from this tree.
func binary(t testing.TB, name string) string {
	t.Helper()
	binaries.once.Do(func() {
		if binaries.dir, binaries.err = os.MkdirTemp("", "berth-engine-test-"); binaries.err != nil {
			return
		}
		cmd := exec.Command("go", "build", "-o", binaries.dir, "berth/cmd/berth-keeper", "berth/cmd/berth-init")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			binaries.err = fmt.Errorf("%w\n%s", err, out)
		}
	})
	if binaries.err != nil {
		t.Fatal(binaries.err)
	}
	return filepath.Join(binaries.dir, name)
}

// dirImages is an image store with one image: a busybox in a directory.
type dirImages struct {
	committed []image.CommitOptions
	lower     string
	root      string
	fail      string // method that fails
	during    func() // called while a container is being made; nil: nothing
}

const testImageID = "sha256:00000000000000000000000000000000000000000000000000000000deadbeef"

func (d *dirImages) Resolve(ref string) (Image, error) {
	if ref != "busybox" && ref != testImageID {
		return Image{}, fault.New(fault.NotFound, "No such image: %s", ref)
	}
	return Image{ID: testImageID, OS: "linux", Defaults: container.ImageDefaults{Cmd: []string{"sh"}, Env: []string{"FROM=image"}, Labels: map[string]string{"image": "label"}}}, nil
}

func (d *dirImages) CreateLayer(_ context.Context, cid string, _ Image) error {
	if d.fail == "CreateLayer" {
		return errors.New("disk full")
	}
	if d.during != nil {
		d.during()
	}
	return errors.Join(os.MkdirAll(filepath.Join(d.root, cid, "upper"), 0o755), os.MkdirAll(filepath.Join(d.root, cid, "work"), 0o755))
}

func (d *dirImages) Layer(cid string) (Layer, error) {
	dir := filepath.Join(d.root, cid)
	if _, err := os.Stat(dir); err != nil {
		return Layer{}, fault.New(fault.NotFound, "no layer of container %s", cid)
	}
	return Layer{Lower: []string{d.lower}, Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work")}, nil
}

func (d *dirImages) Lower(string) ([]string, error) { return []string{d.lower}, nil }

func (d *dirImages) RemoveLayer(cid string) error {
	if d.fail == "RemoveLayer" {
		return errors.New("disk on fire")
	}
	return os.RemoveAll(filepath.Join(d.root, cid))
}

func (d *dirImages) Layers() (ids []string) {
	entries, _ := os.ReadDir(d.root)
	for _, e := range entries {
		ids = append(ids, e.Name())
	}
	return ids
}

// Changes is the store's.
func (d *dirImages) Changes(context.Context, string) ([]layer.Change, error) { return nil, nil }

// Commit notes what it is asked; making images is the store's.
func (d *dirImages) Commit(_ context.Context, o image.CommitOptions) (string, error) {
	d.committed = append(d.committed, o)
	return "sha256:" + strings.Repeat("c", 64), nil
}

func (d *dirImages) LayerSize(cid string) (size int64, err error) {
	err = filepath.WalkDir(filepath.Join(d.root, cid, "upper"), func(_ string, e fs.DirEntry, err error) error {
		if i, ierr := e.Info(); ierr == nil && e.Type().IsRegular() {
			size += i.Size()
		}
		return err
	})
	return size, err
}

var applets = strings.Fields("sh cat ls true false id mount hostname stat tty sleep readlink touch grep wc echo test mkdir dd env pwd kill seq yes head ps stty date printf ln rm sync tail tr")

func busybox(t testing.TB) string {
	t.Helper()
	bin, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs busybox: install the package busybox-static")
	}
	data, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(t.TempDir(), "image")
	for _, dir := range strings.Fields("bin sbin proc sys dev etc tmp root") {
		os.MkdirAll(filepath.Join(root, dir), 0o755)
	}
	os.Chmod(root, 0o755)
	os.WriteFile(filepath.Join(root, "bin/busybox"), data, 0o755)
	for _, name := range applets {
		os.Symlink("busybox", filepath.Join(root, "bin", name))
	}
	for _, f := range []string{"etc/hosts", "etc/hostname", "etc/resolv.conf", "sbin/docker-init"} {
		os.WriteFile(filepath.Join(root, f), nil, 0o644)
	}
	os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/tmp:/bin/sh\n"), 0o644)
	os.WriteFile(filepath.Join(root, "etc/group"), []byte("root:x:0:\napp:x:1001:\nextra:x:5000:app\n"), 0o644)
	os.WriteFile(filepath.Join(root, "etc/text"), []byte("not a program\n"), 0o644)
	return root
}

// world is an engine with its keeper, and what is needed to open another one on the same roots.
type world struct {
	t        testing.TB
	cfg      Config
	images   *dirImages
	networks Networks // nil: an engine without
	volumes  Volumes
	client   *keeper.Client
	bus      *event.Bus
	*Engine
}

func newWorld(t testing.TB) *world { return newWorldWith(t, nil, nil) }

// newWorldWith is a world whose engine has networks and volumes.
func newWorldWith(t testing.TB, n Networks, v Volumes) *world {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: containers are started for real")
	}
	dir, err := os.MkdirTemp("", "berth-engine-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{t: t, networks: n, volumes: v, images: &dirImages{lower: busybox(t), root: filepath.Join(dir, "layers")}}
	level := slog.LevelWarn
	if testing.Verbose() {
		level = slog.LevelDebug
	}
	w.cfg = Config{
		DataRoot: filepath.Join(dir, "data"), ExecRoot: filepath.Join(dir, "exec"), CgroupParent: fmt.Sprintf("/berth-test-%d-%s", os.Getpid(), filepath.Base(dir)),
		InitPath: binary(t, "berth-init"), LogDriver: "json-file", Userns: userns.Config{Default: userns.Host},
		Log: slog.New(slog.NewTextHandler(logTo{t}, &slog.HandlerOptions{Level: level})),
	}
	w.open()
	t.Cleanup(w.close)
	return w
}

type logTo struct{ t testing.TB }

func (l logTo) Write(b []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func (w *world) open() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := keeper.Open(ctx, keeper.StartConfig{ExecRoot: w.cfg.ExecRoot, Binary: binary(w.t, "berth-keeper"), NoSystemd: true})
	if err != nil {
		w.t.Fatal(err)
	}
	w.client, w.bus = client, event.New(nil)
	if w.Engine, err = Open(ctx, w.cfg, Rooms{Images: w.images, Networks: w.networks, Volumes: w.volumes, Keeper: client, Events: w.bus}); err != nil {
		w.t.Fatal(err)
	}
}

// reopen is a restart of the engine; the containers go on.
func (w *world) reopen() {
	w.t.Helper()
	if err := w.Engine.Close(); err != nil {
		w.t.Error(err)
	}
	w.client.Close()
	w.open()
}

// close removes everything and complains about what is left.
func (w *world) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	list, _ := w.List(ctx, ListOptions{All: true})
	for _, i := range list {
		if err := w.Remove(ctx, i.ID, RemoveOptions{Force: true}); err != nil && !fault.Is(err, fault.NotFound) {
			w.t.Errorf("cleaning up: %v", err)
		}
	}
	if err := w.Engine.Close(); err != nil {
		w.t.Error(err)
	}
	if err := w.client.Shutdown(ctx); err != nil {
		w.t.Errorf("shutting the keeper down: %v", err)
	}
	w.client.Close()
	l, _ := cgroup.Detect()
	for i := range l.Hierarchies {
		dir := l.Hierarchies[i].Place(l.Mode, w.cfg.CgroupParent)
		if left, _ := filepath.Glob(filepath.Join(dir, "*", "cgroup.procs")); len(left) > 0 {
			w.t.Errorf("left cgroups %v", left)
		}
		unix.Rmdir(dir)
	}
	if left, _ := filepath.Glob(filepath.Join(w.cfg.DataRoot, "containers", "*")); len(left) > 0 {
		w.t.Errorf("left directories %v", left)
	}
	if b, _ := os.ReadFile("/proc/self/mounts"); strings.Contains(string(b), w.cfg.DataRoot) {
		w.t.Error("left a mount")
	}
}

// spec is a container on no network that runs a shell line.
func spec(line string) container.Spec {
	return container.Spec{Image: "busybox", Network: container.Network{Mode: "none"}, Process: container.Process{Cmd: []string{"sh", "-c", line}}}
}

func (w *world) create(name string, s container.Spec) string {
	w.t.Helper()
	r, err := w.Create(w.t.Context(), name, s)
	if err != nil {
		w.t.Fatalf("create: %v", err)
	}
	return r.ID
}

func (w *world) run(name string, s container.Spec) string {
	w.t.Helper()
	id := w.create(name, s)
	if err := w.Start(w.t.Context(), id); err != nil {
		w.t.Fatalf("start: %v", err)
	}
	return id
}

// wait gives the exit code.
func (w *world) wait(id string) int {
	w.t.Helper()
	c, err := w.Wait(w.t.Context(), id, container.WaitNotRunning)
	if err != nil {
		w.t.Fatal(err)
	}
	select {
	case s := <-c:
		return s.Code
	case <-time.After(time.Minute):
		w.t.Fatalf("container %s does not end", id)
		return -1
	}
}

// output runs a container to its end and gives what it logged.
func (w *world) output(s container.Spec) (string, int) {
	w.t.Helper()
	id := w.run("", s)
	code := w.wait(id)
	out := w.logged(id)
	if err := w.Remove(w.t.Context(), id, RemoveOptions{}); err != nil {
		w.t.Fatal(err)
	}
	return out, code
}

func (w *world) logged(id string) string {
	w.t.Helper()
	r, err := w.Logs(w.t.Context(), id, LogOptions{Stdout: true, Stderr: true, Tail: -1})
	if err != nil {
		w.t.Fatal(err)
	}
	defer r.Close()
	var b strings.Builder
	for {
		l, err := r.Next()
		if err != nil {
			return b.String()
		}
		b.Write(l.Data)
	}
}

func (w *world) state(id string) container.State {
	w.t.Helper()
	i, err := w.Inspect(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return i.State
}

// dial connects to the keeper without an engine.
func (w *world) dial() *keeper.Client {
	w.t.Helper()
	c, err := keeper.Dial(w.t.Context(), w.cfg.ExecRoot)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}
