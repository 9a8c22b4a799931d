package launch

import (
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/kernel/mount"
	"berth/kernel/probe"
)

// cgroupfs shows the container its cgroups. On v2 that is a mount of its own; on v1 a tmpfs with the
// container's directory of each hierarchy bound into it.
func (c *compiler) cgroupfs(m *specs.Mount, o mount.Options, dest string) {
	if len(c.o.Cgroup.V1Procs) > 0 {
		c.cgroupsV1(o, dest)
		return
	}
	k, what := &c.kid, "mount cgroup on "+dest
	view := NoSlot
	if c.bindNodes() {
		view = c.cgroupView(o, what)
	}
	t := c.target(dest, what, false)
	k.call(what, unix.SYS_FCHDIR, Of(t))
	k.call(what, unix.SYS_MOUNT, Str("cgroup"), Str("."), Str("cgroup2"), Int(uint64(o.Flags)&^(unix.MS_REC|unix.MS_BIND)), Int(0))
	if view == NoSlot {
		return
	}
	// Only the owner of the cgroup namespace may mount cgroup2 (cgroup_namespaces(7)).
	var done mark
	k.onOK(&done)
	k.steps[len(k.steps)-1].expect(unix.EPERM, 0).expect(unix.EBUSY, 0)
	c.move(view, what, t)
	if !c.o.Facts.Has(probe.MountSetattr) {
		c.remount(view, uint64(o.Flags)&^unix.MS_REC|unix.MS_REMOUNT|unix.MS_BIND, what)
	}
	k.here(&done)
}

// cgroup2Dir is where hosts mount the unified hierarchy.
const cgroup2Dir = "/sys/fs/cgroup"

// cgroupView clones what a fresh cgroup2 would show: with a cgroup namespace of its own the container's cgroup,
// else the whole hierarchy, in which /proc/self/cgroup names the container's.
func (c *compiler) cgroupView(o mount.Options, what string) Slot {
	dir := cgroup2Dir
	if own := c.o.Cgroup.V2Dir; own != "" && c.private&unix.CLONE_NEWCGROUP != 0 {
		dir = own
	}
	// With all below it: in a mount namespace that came with a user namespace mounts cannot be uncovered.
	tree := c.cloneHost("cgroup2", what, dir, true)
	c.setPropagation(&c.prep, tree, what, unix.MS_PRIVATE, true)
	if c.o.Facts.Has(probe.MountSetattr) {
		c.setAttr(&c.prep, tree, what, mount.Attributes(o.Flags), 0, true)
	}
	return tree
}

// cgroupsV1 is cgroupfs where the limits are v1's.
func (c *compiler) cgroupsV1(o mount.Options, dest string) {
	k, what := &c.kid, "mount cgroup on "+dest
	t := c.target(dest, what, false)
	k.call(what, unix.SYS_FCHDIR, Of(t))
	k.call(what, unix.SYS_MOUNT, Str("tmpfs"), Str("."), Str("tmpfs"), Int(uint64(o.Flags)&^(unix.MS_REC|unix.MS_BIND|unix.MS_RDONLY)), Str(c.labelData("tmpfs", "mode=755")))
	top := c.inRoot("cgroups", what, dest, unix.O_PATH|unix.O_DIRECTORY)
	for _, file := range c.o.Cgroup.V1Procs {
		name := controllerOf(file)
		who := &c.prep
		if c.seesHost() {
			who = k
		}
		tree := who.open("cgroup:"+name, what, unix.SYS_OPEN_TREE, atCwd, Str(filepath.Dir(file)), treeFlags(false))
		if c.o.Facts.Has(probe.MountSetattr) {
			c.setAttr(who, tree, what, mount.Attributes(o.Flags), 0, false)
		}
		k.call(what, unix.SYS_MKDIRAT, Of(top), Str(name), Int(0o755))
		k.call(what, unix.SYS_MOVE_MOUNT, Of(tree), Str(""), Of(top), Str(name), Int(unix.MOVE_MOUNT_F_EMPTY_PATH))
		if !c.o.Facts.Has(probe.MountSetattr) {
			c.remount(tree, uint64(o.Flags)&^unix.MS_REC|unix.MS_REMOUNT|unix.MS_BIND, what)
		}
		for _, alias := range strings.Split(name, ",") {
			if alias != name {
				k.call(what, unix.SYS_SYMLINKAT, Str(name), Of(top), Str(alias))
			}
		}
	}
	if o.Flags&unix.MS_RDONLY != 0 {
		k.call(what, unix.SYS_FCHDIR, Of(top))
		k.call(what, unix.SYS_MOUNT, Int(0), Str("."), Int(0), Int((uint64(o.Flags)&^unix.MS_REC)|unix.MS_REMOUNT|unix.MS_BIND), Int(0))
	}
}
