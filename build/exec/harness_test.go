package exec

import (
	"bytes"
	"context"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/moby/buildkit/solver/pb"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/build/cache"
	"berth/build/graph"
	"berth/build/snapshot"
	"berth/build/solver"
	"berth/image/layer"
	"berth/kernel/probe"
	"berth/kernel/tree"
)

// room is a runner with what it needs, and a base with a busybox.
type room struct {
	*Runner
	t      testing.TB
	snaps  *snapshot.Store
	layers *layer.Store
	base   *snapshot.Snapshot
	cfg    Config
}

var rooms atomic.Int64

func newRoom(t testing.TB, change ...func(*Config)) *room {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: namespaces and mounts are made for real")
	}
	busybox, err := osexec.LookPath("busybox")
	if err != nil {
		t.Skip("needs busybox: install the package busybox-static")
	}
	dir := t.TempDir()
	r := &room{t: t}
	r.layers, err = layer.Open(layer.Config{Root: filepath.Join(dir, "layers"), Facts: probe.Host()})
	must(t, err)
	r.snaps, err = snapshot.Open(snapshot.Config{Layers: r.layers, Root: filepath.Join(dir, "scratch")})
	must(t, err)
	r.cfg = Config{
		Snapshots: r.snaps, Root: filepath.Join(dir, "mounts"), ExecRoot: filepath.Join(dir, "exec"),
		CgroupParent: fmt.Sprintf("/berth-test-%d/%d", os.Getpid(), rooms.Add(1)), Facts: probe.Host(), NofileHard: 4096,
	}
	for _, f := range change {
		f(&r.cfg)
	}
	r.Runner, err = Open(r.cfg)
	must(t, err)
	t.Cleanup(func() {
		must(t, r.Runner.Close())
		r.base.Release()
		must(t, r.snaps.Close())
		must(t, r.layers.Close())
		removeGroups(r.layout, r.cfg.CgroupParent)
	})
	r.base = r.make(nil, func(root string) error {
		text, err := os.ReadFile(busybox)
		if err != nil {
			return err
		}
		for _, d := range []string{"bin", "etc", "tmp", "root"} {
			if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(root, "bin/busybox"), text, 0o755); err != nil {
			return err
		}
		if err := os.Symlink("../bin/no", filepath.Join(root, "to-nothing")); err != nil {
			return err
		}
		for _, name := range strings.Fields("sh cat ls true false id mount hostname stat cut tty sleep readlink touch grep wc echo mkdir dd env pwd ln rm mv chmod sync mknod ip find kill test printf seq head tr chown umount ps") {
			if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(root, "etc/group"), []byte("root:x:0:\nwheel:x:10:root\n"), 0o644); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("root:x:0:0::/root:/bin/sh\nweb:x:1000:1001::/srv:/bin/sh\n"), 0o644)
	})
	return r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// make gives a snapshot of base with what f does to it.
func (r *room) make(base *snapshot.Snapshot, f func(root string) error) *snapshot.Snapshot {
	r.t.Helper()
	if base == nil {
		base = r.snaps.Scratch()
		defer base.Release()
	}
	d, err := r.snaps.Draft(context.Background(), base)
	must(r.t, err)
	must(r.t, d.Path(context.Background(), f))
	s, err := d.Seal(context.Background())
	must(r.t, err)
	return s
}

// root is the mount of a Dockerfile's RUN.
func root() *pb.Mount { return &pb.Mount{Input: 0, Dest: "/", Output: 0} }

// shell is a step that runs a script on the first input.
func shell(script string, mounts ...*pb.Mount) *pb.ExecOp {
	return &pb.ExecOp{
		Meta:    &pb.Meta{Args: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/bin"}, Cwd: "/", RemoveMountStubsRecursive: true},
		Network: pb.NetMode_NONE, Mounts: append([]*pb.Mount{root()}, mounts...),
	}
}

// outcome is what became of a step.
type outcome struct {
	out, err string
	outputs  []*snapshot.Snapshot
	failure  error
}

// run runs a step.
func (r *room) run(op *pb.ExecOp, in ...*snapshot.Snapshot) outcome {
	r.t.Helper()
	return r.runWith(context.Background(), op, &solver.Run{}, in...)
}

func (r *room) runWith(ctx context.Context, op *pb.ExecOp, run *solver.Run, in ...*snapshot.Snapshot) (o outcome) {
	r.t.Helper()
	if len(in) == 0 {
		in = []*snapshot.Snapshot{r.base}
	}
	var out, errs lockedBuffer
	if run.Stdout == nil {
		run.Stdout, run.Stderr = &out, &errs
	}
	v := &graph.Vertex{Digest: "sha256:0", Op: &pb.Op{Op: &pb.Op_Exec{Exec: op}}, Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}}
	run.Vertex = v
	s, err := r.Op(v)
	if err != nil {
		return outcome{failure: err}
	}
	o.outputs, o.failure = s.Run(ctx, in, run)
	r.t.Cleanup(func() {
		for _, s := range o.outputs {
			if s != nil {
				s.Release()
			}
		}
		if f, ok := o.failure.(interface{ Release() }); ok {
			f.Release()
		}
	})
	o.out, o.err = out.String(), errs.String()
	return o
}

// ok fails the test if the step failed.
func (o outcome) ok(t testing.TB) outcome {
	t.Helper()
	if o.failure != nil {
		t.Fatalf("the step failed: %v\n%s%s", o.failure, o.out, o.err)
	}
	return o
}

// text reads a file of a snapshot.
func (r *room) text(s *snapshot.Snapshot, name string) string {
	r.t.Helper()
	var text []byte
	must(r.t, s.View(context.Background(), func(root *tree.Dir) (err error) {
		text, err = readText(root, name)
		return err
	}))
	return string(text)
}

// paths lists what is in the topmost layer of a snapshot.
func (r *room) paths(s *snapshot.Snapshot) []string {
	r.t.Helper()
	chain := s.Chain()
	top := r.layers.FSPath(chain[len(chain)-1])
	var list []string
	_ = filepath.WalkDir(top, func(p string, _ os.DirEntry, err error) error {
		if err == nil && p != top {
			list = append(list, strings.TrimPrefix(p, top))
		}
		return nil
	})
	return list
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

type usage = cache.Usage
