package exec

import (
	"cmp"
	"context"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/build/snapshot"
	"berth/kernel/mount"
	"berth/kernel/overlay"
	"berth/kernel/probe"
	"berth/kernel/tree"
)

// place is one mount of a step, prepared: a descriptor of a detached mount and the options that it gets where it goes.
type place struct {
	m       *pb.Mount
	dest    string             // absolute and clean
	in      *snapshot.Snapshot // what it shows before; belongs to whoever asked for the box
	draft   *snapshot.Draft    // what is written to it; nil: nothing can be
	fd      int                // of a mount that is whole: the draft's, the snapshot's, the cache's; -1 none
	borrows bool               // fd is closed by undo
	tree    int                // of what is attached, perhaps a part of it; -1: a tmpfs, which the launch mounts, or nothing at all
	file    bool               // a file is attached, not a directory
	absent  bool               // an optional secret or agent that the client has not
	options []string
	undo    []func() // gives up what it holds, last first
}

// close closes the place's mounts. What was written stays in the draft.
func (p *place) close() {
	if p.tree >= 0 {
		mount.Drop(p.tree)
	}
	if p.fd >= 0 && !p.borrows {
		mount.Drop(p.fd)
	}
	p.tree, p.fd = -1, -1
	for _, f := range slices.Backward(p.undo) {
		f()
	}
	p.undo = nil
}

// destination gives where a mount goes; relative ones start at the working directory.
func destination(dest, cwd string) string {
	if path.IsAbs(dest) {
		return path.Clean(dest)
	}
	return path.Join("/", cwd, dest)
}

// place prepares a mount.
func (b *box) place(ctx context.Context, m Mount) (p *place, err error) {
	p = &place{m: m.Mount, dest: destination(m.Dest, b.cfg.cwd), in: m.Snapshot, fd: -1, tree: -1}
	defer func() {
		if err != nil {
			p.close()
			if p.draft != nil {
				p.draft.Drop()
			}
			err = fault.In(err, "mount %s", m.Dest)
		}
	}()
	if m.MountType == pb.MountType_CACHE {
		// Caches are shared by all who know the id.
		return p, b.cachePlace(ctx, p)
	}
	switch m.MountType {
	case pb.MountType_BIND:
		return p, b.bindPlace(ctx, p)
	case pb.MountType_TMPFS:
		p.options = []string{"nosuid"}
		if m.Readonly {
			p.options = append(p.options, "ro")
		}
		if size := m.TmpfsOpt.GetSize(); size > 0 {
			p.options = append(p.options, sizeOption(size))
		}
		return p, nil
	case pb.MountType_SECRET:
		return p, b.secretPlace(ctx, p)
	case pb.MountType_SSH:
		return p, b.agentPlace(ctx, p)
	}
	return p, fault.New(fault.Invalid, "mount type %s not implemented", m.MountType)
}

// writes tells whether a bind gets a draft: what is written to it goes to an output, or is dropped. The root always does, since mount points
// may have to be made in it.
func (p *place) writes() bool { return p.dest == pb.RootMount || !p.m.Readonly || p.in == nil }

// bindPlace prepares a bind of an input. The root is mounted later, when all mount points are known.
func (b *box) bindPlace(ctx context.Context, p *place) error {
	if p.m.Readonly {
		p.options = []string{"ro"}
	}
	if p.writes() {
		base := p.in
		if base == nil {
			base = b.r.cfg.Snapshots.Scratch()
			defer base.Release()
		}
		var err error
		if p.draft, err = b.r.cfg.Snapshots.Draft(ctx, base); err != nil {
			return err
		}
		if p.dest == pb.RootMount {
			return nil
		}
		if p.fd, err = b.mountDraft(ctx, p.draft); err != nil {
			return err
		}
		return b.selectPart(p, p.m.Selector)
	}
	if err := b.showInput(ctx, p); err != nil {
		return err
	}
	return b.selectPart(p, p.m.Selector)
}

// showInput opens what an input that nobody writes to looks like. A single layer is shown as it is, unless
// its files need a label.
func (b *box) showInput(ctx context.Context, p *place) error {
	lower, err := p.in.Lowers(ctx)
	if err != nil {
		return err
	}
	if b.confined.MountLabel != "" && len(lower) == 1 { // its files have labels of those who wrote them
		lower = append(slices.Clip(lower), filepath.Join(b.r.cfg.ExecRoot, "empty"))
	}
	if len(lower) > 1 {
		p.fd, err = b.mount(overlay.Stack{Lower: lower, UserXattr: b.r.cfg.InUserNS})
		return err
	}
	dir, err := tree.OpenDir(lower[0])
	if err != nil {
		return err
	}
	p.undo = append(p.undo, func() { dir.Close() })
	p.fd, p.borrows = dir.FD(), true
	return nil
}

// mountDraft mounts a draft with the points that are to be there for others to be mounted on.
func (b *box) mountDraft(ctx context.Context, d *snapshot.Draft, points ...snapshot.Point) (int, error) {
	m, err := d.Mount(ctx, points...)
	if err != nil {
		return -1, err
	}
	// Without Volatile the kernel would write the whole file system out when the step is over. What is kept is synced later, with others.
	return b.mount(overlay.Stack{Lower: m.Lower, Upper: m.Upper, Work: m.Work, UserXattr: m.UserXattr, Volatile: true})
}

// selectPart makes the tree that is attached: the part of the place's mount at the path sel, resolved inside it.
func (b *box) selectPart(p *place, sel string) error {
	if err := b.clonePart(p, sel); err != nil {
		return err
	}
	return b.mapPlace(p)
}

func (b *box) clonePart(p *place, sel string) error {
	sel = path.Join("/", sel)
	if b.r.facts.Has(probe.MoveDetached) { // since then detached mounts can be cloned, too
		return p.clone(b.r.facts, sel)
	}
	// A directory that is attached somewhere can be cloned on any kernel; a mount that is not has to be, for a moment.
	if err := p.clone(b.r.facts, sel); err == nil || fault.Is(err, fault.NotFound) {
		return err
	}
	if sel == "/" {
		var err error
		p.tree, err = unix.FcntlInt(uintptr(p.fd), unix.F_DUPFD_CLOEXEC, 3)
		return fault.Wrap(fault.Internal, err, "attach the whole")
	}
	scratch, done, err := b.r.scratch()
	if err != nil {
		return err
	}
	defer done()
	if err := mount.Move(p.fd, unix.AT_FDCWD, scratch); err != nil {
		return err
	}
	defer func() { _ = mount.Unmount(scratch) }()
	return p.clone(b.r.facts, sel)
}

func (p *place) clone(have probe.Features, sel string) error {
	fd, dir, err := mount.PinInRoot(have, p.fd, sel)
	if err != nil {
		if tree.Missing(err) || tree.NotDir(err) {
			return fault.Wrap(fault.NotFound, unix.ENOENT, "%q", sel)
		}
		return err
	}
	p.tree, p.file = fd, !dir
	return nil
}

// sortPlaces puts parents before what is mounted in them, as BuildKit does.
func sortPlaces(list []*place) []*place {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b *place) int { return cmp.Compare(a.dest, b.dest) })
	return list
}

// below tells whether a path is dir or in it.
func below(p, dir string) bool {
	return dir == "/" || p == dir || strings.HasPrefix(p, dir+"/")
}

// pinPath makes a path of the host what is attached.
func (b *box) pinPath(p *place, file string) error {
	fd, err := mount.OpenTree(unix.AT_FDCWD, file, true, false)
	if err != nil {
		return err
	}
	p.tree, p.file = fd, true
	return nil
}
