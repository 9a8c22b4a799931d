package launch

import (
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/kernel/mount"
	"berth/kernel/probe"
)

// A bind is a clone of what is mounted at its source (open_tree(2)), with its final attributes before it is
// attached. There are three moments to clone:
//
//	inside    the source lies below the container's root: the child, when its turn comes, since an
//	          earlier mount may have made it; by way of the root's descriptor, so that no link leads out
//	by child  the child, when its turn comes, from its copy of the host's mounts: mounts are then
//	          listed in the order in which the spec has them
//	prepared  the launcher, where the child cannot see or may not take the host's paths (it is cloned
//	          from the empty mount namespace, or has a user namespace), or where the bind is to stay
//	          a peer of the host's mount, from which the child's copy is cut off; and where the caller
//	          has made the mount himself (Options.Trees)
type bindSource uint8

const (
	prepared bindSource = iota
	byChild
	inside
)

// sourceOf says when a bind's source is cloned.
func (c *compiler) sourceOf(i int, m *specs.Mount, o mount.Options) bindSource {
	idmapped := len(m.UIDMappings) > 0 || o.IDMap || o.IDMapRec
	switch {
	case c.o.Trees[i] != 0:
		return prepared
	case c.bindNodes() && idmapped: // only the owner of the file system may map it
		return prepared
	case c.belowRoot(m.Source) != "":
		return inside
	case !c.seesHost(), c.private&unix.CLONE_NEWNS != 0 && c.staysPeer(o):
		return prepared
	}
	return byChild
}

// seesHost says that the child can take the host's mounts itself.
func (c *compiler) seesHost() bool {
	return !c.p.Clone.Covered && !c.bindNodes() && !c.joined(specs.MountNamespace)
}

// staysPeer says that mounts made below the bind are to appear on the host too: for that Docker and
// Kubernetes ask for a shared bind in a shared root.
func (c *compiler) staysPeer(o mount.Options) bool {
	if !strings.HasSuffix(c.s.Linux.RootfsPropagation, "shared") {
		return false
	}
	for _, p := range o.Propagation {
		if p&unix.MS_SHARED != 0 {
			return true
		}
	}
	return false
}

// belowRoot is a host path as seen from the container's root, "" where it is outside.
func (c *compiler) belowRoot(path string) string {
	if c.o.Overlay != nil || c.s.Root == nil || c.s.Root.Path == "" {
		return ""
	}
	path, root := c.abs(path), c.abs(c.s.Root.Path)
	if path == root {
		return "."
	}
	rest, ok := strings.CutPrefix(path, root+"/")
	if !ok {
		return ""
	}
	return rest
}

// cloneHost makes a detached copy of a host path's mount.
func (c *compiler) cloneHost(name, what, path string, recursive bool) Slot {
	return c.prep.open(name, what, unix.SYS_OPEN_TREE, atCwd, Str(path), treeFlags(recursive))
}

func treeFlags(recursive bool) Arg {
	if recursive {
		return Int(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_RECURSIVE)
	}
	return Int(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
}

// needsSetattr names what of a bind mount(2) cannot do; to leave it out would give the container more than was asked for.
func needsSetattr(m *specs.Mount, o mount.Options) string {
	switch {
	case o.RecSet|o.RecClear != 0:
		return "a recursive option"
	case len(m.UIDMappings) > 0 || o.IDMap || o.IDMapRec:
		return "an id mapping"
	}
	return ""
}

// prepareBind does what of a bind the launcher has to do.
func (c *compiler) prepareBind(i int, m *specs.Mount, o mount.Options) {
	what := "bind " + c.abs(m.Source) + " on " + m.Destination
	if c.sourceOf(i, m, o) == prepared {
		if fd := c.o.Trees[i]; fd != 0 {
			c.trees[i] = c.given("tree:"+m.Destination, what, fd)
		} else {
			c.trees[i] = c.cloneHost("tree:"+m.Destination, what, c.abs(m.Source), o.Flags&unix.MS_REC != 0)
		}
		if ns := c.owner(m, o, what); ns != NoSlot {
			c.idmap(&c.prep, c.trees[i], ns, o.IDMapRec, what)
		}
		c.dress(&c.prep, c.trees[i], m, o, what)
		return
	}
	if ns := c.owner(m, o, what); ns != NoSlot {
		c.owners[i] = ns
	}
}

// dress gives a clone its attributes. A clone of a shared mount would stay its peer, and the container's
// mounts would appear on the host: without a propagation option it becomes a slave.
func (c *compiler) dress(s *section, tree Slot, m *specs.Mount, o mount.Options, what string) {
	if !c.o.Facts.Has(probe.MountSetattr) {
		return // attributes follow after the attaching; see bindFallback
	}
	if len(o.Propagation) == 0 {
		c.setPropagation(s, tree, what, unix.MS_SLAVE, true)
	}
	for _, p := range o.Propagation {
		c.setPropagation(s, tree, what, uint64(p)&^unix.MS_REC, uint64(p)&unix.MS_REC != 0)
	}
	if set, clear := bindAttributes(o); set|clear != 0 {
		c.setAttr(s, tree, what, set, clear, false)
	}
	if o.RecSet|o.RecClear != 0 {
		c.setAttr(s, tree, what, o.RecSet, o.RecClear, true)
	}
}

// bindAttributes are the attributes that a bind's options change; the others stay the source's. The
// access times are one field, which is cleared to be set.
func bindAttributes(o mount.Options) (set, clear uint64) {
	set, clear = mount.Attributes(o.Flags), mount.Attributes(o.Cleared)
	if (o.Flags|o.Cleared)&accessTimes != 0 {
		clear = clear | unix.MOUNT_ATTR__ATIME
	}
	return set, clear
}

// owner gives the user namespace whose maps an id-mapped bind takes on, or NoSlot: one made for the bind's
// own maps, else the container's.
func (c *compiler) owner(m *specs.Mount, o mount.Options, what string) Slot {
	uids, gids := m.UIDMappings, m.GIDMappings
	switch {
	case len(uids) == 0 && !o.IDMap && !o.IDMapRec:
		return NoSlot
	case len(uids) == 0 && len(c.s.Linux.UIDMappings) == 0 && !c.joined(specs.UserNamespace):
		return NoSlot
	case len(uids) == 0:
		return c.mapping(what)
	}
	return c.prep.open("idmap:"+m.Destination, what, OpUserns, Str(mapText(uids)), Str(mapText(gids)))
}

// idmap gives a clone the mapping of a user namespace (mount_setattr(2), MOUNT_ATTR_IDMAP).
func (c *compiler) idmap(s *section, tree, ns Slot, recursive bool, what string) {
	attr := mountAttr(unix.MOUNT_ATTR_IDMAP, 0, 0)
	attr.D.Fill = []Fill{{Off: 24, Slot: ns}}
	s.call(what, unix.SYS_MOUNT_SETATTR, Of(tree), Str(""), attrFlags(recursive), attr, Int(sizeofMountAttr))
}

// bind attaches a bind, and clones it first if it is not prepared.
func (c *compiler) bind(i int, m *specs.Mount, o mount.Options, dest string) {
	k, what := &c.kid, "bind "+c.abs(m.Source)+" on "+dest
	tree, kind := c.trees[i], c.sourceOf(i, m, o)
	var target Slot
	if kind == inside {
		tree, target = c.cloneInside(m, o, dest, what)
	} else {
		if kind == byChild {
			tree = k.open("tree:"+dest, what, unix.SYS_OPEN_TREE, atCwd, Str(c.abs(m.Source)), treeFlags(o.Flags&unix.MS_REC != 0))
		}
		target = c.target(dest, what, c.o.IsFile(c.abs(m.Source)))
	}
	if kind != prepared {
		if ns, ok := c.owners[i]; ok {
			c.idmap(k, tree, ns, o.IDMapRec, what)
		}
		c.dress(k, tree, m, o, what)
	}
	c.move(tree, what, target)
	if !c.o.Facts.Has(probe.MountSetattr) {
		c.bindFallback(i, tree, o, dest, what)
	}
}

// cloneInside clones a source below the container's root. Whether it is a file shows only now.
func (c *compiler) cloneInside(m *specs.Mount, o mount.Options, dest, what string) (tree, target Slot) {
	k, path := &c.kid, c.belowRoot(m.Source)
	var file, made mark
	from := c.inRoot("from:"+path, what, path, unix.O_PATH|unix.O_DIRECTORY)
	k.onErr(&file, unix.ENOTDIR)
	c.target(dest, what, false)
	k.call(what, unix.SYS_GETPID) // a step that never fails, to skip from
	k.onOK(&made)
	k.here(&file)
	k.call(what, unix.SYS_OPENAT2, Of(c.root), Str(path), openHow(unix.O_PATH|unix.O_CLOEXEC, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS), Int(sizeofOpenHow)).Out = from
	c.target(dest, what, true)
	k.here(&made)
	flags := treeFlags(o.Flags&unix.MS_REC != 0)
	flags.N |= unix.AT_EMPTY_PATH
	tree = k.open("tree:"+dest, what, unix.SYS_OPEN_TREE, Of(from), Str(""), flags)
	return tree, c.inRoot("at:"+dest, what, dest, unix.O_PATH)
}

// bindFallback sets a bind's attributes with mount(2), as kernels before 5.12 want it, which names mounts
// by path. A directory is named "." from within the mount itself, so that nothing can be put in its place.
// A file has no such name: its turn comes when the root is entered and the path means what it will mean to
// the program; see rootAttributes.
func (c *compiler) bindFallback(i int, tree Slot, o mount.Options, dest, what string) {
	var flags []uint64
	for _, p := range o.Propagation {
		flags = append(flags, uint64(p))
	}
	if len(flags) == 0 {
		flags = append(flags, unix.MS_SLAVE|unix.MS_REC)
	}
	source := c.abs(c.s.Mounts[i].Source)
	if set := uint64(o.Flags) &^ (unix.MS_BIND | unix.MS_REC); set != 0 || o.Cleared != 0 {
		// A remount sets all flags: those that the options do not name are to stay the source's.
		kept := uint64(c.o.MountFlags(source) &^ o.Cleared)
		if o.Flags&accessTimes != 0 {
			kept &^= accessTimes
		}
		flags = append(flags, set|kept|unix.MS_REMOUNT|unix.MS_BIND)
	}
	if c.o.IsFile(source) {
		for _, f := range flags {
			c.late = append(c.late, Step{What: what, Nr: unix.SYS_MOUNT, Args: [6]Arg{Int(0), Str(dest), Int(0), Int(f), Int(0)}, Out: NoSlot})
		}
		return
	}
	for _, f := range flags {
		c.remount(tree, f, what)
	}
}

// remount changes an attached mount of a directory with mount(2).
func (c *compiler) remount(mnt Slot, flags uint64, what string) {
	c.kid.call(what, unix.SYS_FCHDIR, Of(mnt))
	c.kid.call(what, unix.SYS_MOUNT, Int(0), Str("."), Int(0), Int(flags), Int(0))
}

// accessTimes are the flags of which a mount has one; none of them means relatime.
const accessTimes = unix.MS_NOATIME | unix.MS_RELATIME | unix.MS_STRICTATIME

// mountFlags are the flags of the mount that a path is on, as mount(2) has them; statfs(2) has other
// numbers for some, and none for strictatime.
func mountFlags(path string) uintptr {
	const own = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	const noatime, nodiratime, relatime, nosymfollow = 0x400, 0x800, 0x1000, 0x2000
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil {
		return 0
	}
	flags := uintptr(st.Flags) & own
	for _, f := range [...]struct{ st, ms uintptr }{
		{noatime, unix.MS_NOATIME}, {nodiratime, unix.MS_NODIRATIME}, {relatime, unix.MS_RELATIME}, {nosymfollow, unix.MS_NOSYMFOLLOW},
	} {
		if uintptr(st.Flags)&f.st != 0 {
			flags |= f.ms
		}
	}
	if flags&(unix.MS_NOATIME|unix.MS_RELATIME) == 0 {
		flags |= unix.MS_STRICTATIME
	}
	return flags
}
