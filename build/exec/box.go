package exec

import (
	"context"
	"slices"
	"strconv"
	"sync"

	"github.com/moby/buildkit/solver/pb"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
	"berth/build/session"
	"berth/build/snapshot"
	"berth/kernel/cgroup"
	"berth/kernel/idmap"
	"berth/kernel/overlay"
	"berth/kernel/seccomp"
)

// boxConfig is what a box is asked to be.
type boxConfig struct {
	id        string
	mounts    []Mount
	cwd       string // where relative destinations start
	network   pb.NetMode
	hostname  string
	hosts     []*pb.HostIP
	platform  ocispec.Platform
	sessions  session.Group
	devices   []*pb.CDIDevice
	ulimits   []*pb.Ulimit
	parent    string // cgroup
	resources *pb.LinuxResources
	limits    Limits
	what      string // for descriptions of cache mounts
}

// box is a prepared container. It is made by Runner.box, has processes started in it, and is taken down with close, after which
// its drafts can be sealed.
type box struct {
	r      *Runner
	cfg    boxConfig
	places []*place // by mount
	root   *place
	net    Attached
	etc    etcFiles
	group  *cgroup.Cgroup
	filter *seccomp.Filter
	spec   *specs.Spec      // without a process
	trees  map[int]int      // launch.Options.Trees
	held   map[string]*hold // cache mounts by key
	ooms   uint64           // what the kernel's OOM killer had ended in the cgroup before

	ids        *idmap.Pair      // of its user namespace; nil: it lives in the engine's
	releaseIDs func()           // gives them back
	mapping    *overlay.Mapping // by which its files are shown to it; nil without ids

	confined Confined // by the kernel's security modules; its processes are not where they are insecure
	insecure bool     // it is not confined
	closed   bool
}

// box prepares a container. When it fails nothing is left.
func (r *Runner) box(ctx context.Context, cfg boxConfig) (b *box, err error) {
	b = &box{r: r, cfg: cfg}
	if err := r.begin(b); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			b.close()
			b.drop()
		}
	}()
	if err := b.takeIDs(); err != nil {
		return b, err
	}
	if err := b.confine(ctx); err != nil {
		return b, err
	}
	// The network takes the longest and needs nothing of the rest.
	var wait sync.WaitGroup
	var neterr error
	wait.Go(func() { b.net, neterr = r.join(ctx, cfg.id, cfg.network, cfg.limits.Network, b.ids) })
	err = b.prepare(ctx)
	wait.Wait()
	if err == nil {
		err = neterr
	}
	if err != nil {
		return b, err
	}
	b.etc, err = b.etcFiles()
	return b, err
}

// settle decides what is still open until the first process is known: how far the box is confined.
func (b *box) settle(insecure bool) error {
	b.insecure = insecure
	if err := b.describe(); err != nil {
		return err
	}
	return b.makeGroup()
}

// prepare makes the places.
func (b *box) prepare(ctx context.Context) error {
	for _, m := range b.cfg.mounts {
		if destination(m.Dest, b.cfg.cwd) == pb.RootMount && m.MountType != pb.MountType_BIND {
			return fault.New(fault.Invalid, "invalid mount type %s for %s", m.MountType, m.Dest)
		}
		p, err := b.place(ctx, m)
		if err != nil {
			return err
		}
		b.places = append(b.places, p)
		if p.dest == pb.RootMount {
			b.root = p
		}
	}
	if b.root == nil {
		return fault.New(fault.Invalid, "no root mount is given")
	}
	if sel := b.root.m.Selector; sel != "" && sel != "/" {
		return fault.New(fault.Invalid, "the root mount cannot be a part of its input (%s)", sel)
	}
	var err error
	b.root.fd, err = b.mountDraft(ctx, b.root.draft, b.points()...)
	return err
}

// points are the mount points that must not be left in the layer. What /proc, /dev and /sys are mounted on is, as BuildKit leaves it.
func (b *box) points() []snapshot.Point {
	points := []snapshot.Point{{Path: "/etc/resolv.conf", File: true}, {Path: "/etc/hosts", File: true}}
	for _, p := range sortPlaces(b.places) {
		if p == b.root || p.absent || slices.ContainsFunc(systemDirs, func(dir string) bool { return below(p.dest, dir) }) {
			continue
		}
		if !slices.ContainsFunc(points, func(o snapshot.Point) bool { return below(p.dest, o.Path) && !o.File }) {
			points = append(points, snapshot.Point{Path: p.dest, File: p.file})
		}
	}
	return points
}

// systemDirs are covered by file systems of every container's own.
var systemDirs = []string{"/proc", "/dev", "/sys"}

// close takes the box down. Its processes are gone.
func (b *box) close() {
	if b.closed {
		return
	}
	b.closed = true
	if b.group != nil {
		if err := b.group.Remove(); err != nil {
			b.r.cfg.Log.Error("a step's cgroup stays", "step", b.cfg.id, "error", err)
		}
	}
	for _, p := range b.places {
		p.close()
	}
	for _, h := range b.held {
		h.release()
	}
	if b.net.Leave != nil {
		b.net.Leave()
	}
	if b.confined.Free != nil {
		b.confined.Free()
	}
	b.dropIDs()
	b.r.end(b)
}

// drop drops all drafts.
func (b *box) drop() {
	for _, p := range b.places {
		if p.draft != nil {
			p.draft.Drop()
		}
	}
}

// source names a descriptor as a path, for specifications.
func source(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
