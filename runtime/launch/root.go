package launch

import (
	"encoding/binary"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/probe"
)

// prepareRoot makes the root as a detached mount: an overlay of layers, or a clone of a directory.
func (c *compiler) prepareRoot() error {
	if c.o.RootFD != 0 {
		c.root = c.given("root", "take the root filesystem", c.o.RootFD)
		return nil
	}
	if c.o.Overlay != nil {
		return c.prepareOverlay(c.o.Overlay)
	}
	if c.s.Root == nil || c.s.Root.Path == "" {
		if c.joined(specs.MountNamespace) {
			return nil // it has one
		}
		return fault.New(fault.Invalid, "root.path: the spec names no root filesystem")
	}
	path := c.abs(c.s.Root.Path)
	c.root = c.prep.open("root", "open the root filesystem "+path, unix.SYS_OPEN_TREE, atCwd, Str(path),
		Int(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE))
	c.setPropagation(&c.prep, c.root, "keep the root's mounts from the host", unix.MS_SLAVE, true)
	return nil
}

// given takes a mount that the caller has made. The copy of its descriptor is closed with what Prepare opens.
func (c *compiler) given(name, what string, fd int) Slot {
	return c.prep.open(name, what, unix.SYS_FCNTL, Int(fd), Int(unix.F_DUPFD_CLOEXEC), Int(3))
}

// prepareOverlay assembles the layers. The upper directory must be an exact difference to the
// lower ones, so the options that would turn entries into references are off.
func (c *compiler) prepareOverlay(v *Overlay) error {
	if len(v.Lower) == 0 {
		return fault.New(fault.Invalid, "overlay: at least one lower layer is needed")
	}
	p, what := &c.prep, "mount the overlay"
	if v.Mapped {
		return c.mappedOverlay(v, what)
	}
	if !c.o.Facts.Has(probe.OverlayAppend) {
		return c.classicOverlay(v, what)
	}
	fs := p.open("overlay", what, unix.SYS_FSOPEN, Str("overlay"), Int(unix.FSOPEN_CLOEXEC))
	set := func(key, value string) {
		p.call(what, unix.SYS_FSCONFIG, Of(fs), Int(unix.FSCONFIG_SET_STRING), Str(key), Str(value), Int(0))
	}
	for _, dir := range v.Lower {
		set("lowerdir+", dir)
	}
	if v.Upper != "" {
		set("upperdir", v.Upper)
		set("workdir", v.Work)
	}
	c.overlayOptions(fs, what)
	if v.UserXattr {
		p.call(what, unix.SYS_FSCONFIG, Of(fs), Int(unix.FSCONFIG_SET_FLAG), Str("userxattr"), Int(0), Int(0))
	}
	p.call(what, unix.SYS_FSCONFIG, Of(fs), Int(unix.FSCONFIG_CMD_CREATE), Int(0), Int(0), Int(0))
	c.root = p.open("root", what, unix.SYS_FSMOUNT, Of(fs), Int(unix.FSMOUNT_CLOEXEC), Int(0))
	return nil
}

// overlayOptions sets all but the layers.
func (c *compiler) overlayOptions(fs Slot, what string) {
	for _, o := range [...][2]string{
		{"redirect_dir", "nofollow"}, // stricter than off: not even what is there already
		{"metacopy", "off"}, {"index", "off"},
	} {
		c.prep.call(what, unix.SYS_FSCONFIG, Of(fs), Int(unix.FSCONFIG_SET_STRING), Str(o[0]), Str(o[1]), Int(0))
	}
	c.labelFS(&c.prep, fs, what)
}

// classicOverlay is for kernels before 6.5, where fsconfig(2) takes all lower layers as one string of at
// most 255 bytes: an operation instead of calls. It needs a place for a moment, for which the work
// directory serves, since it is this container's alone.
func (c *compiler) classicOverlay(v *Overlay, what string) error {
	if v.Upper == "" {
		return fault.New(fault.NotImplemented, "overlay: without an upper directory it needs Linux 6.5")
	}
	userXattr := 0
	if v.UserXattr {
		userXattr = 1
	}
	c.root = c.prep.open("root", what, OpOverlay, vector(v.Lower), Str(v.Upper), Str(v.Work), Int(userXattr), Str(c.mountLabel()))
	// It was mounted for a moment where mounts may be shared (systemd shares all), and is a peer of that one.
	c.setPropagation(&c.prep, c.root, what, unix.MS_PRIVATE, false)
	return nil
}

// sharesMounts says that the container's mounts are made in a mount namespace that others live in: the
// launcher's, or one that was joined. Then the root must not be exchanged, only entered, and the mounts
// stay at the root's path when the container is gone.
func (c *compiler) sharesMounts() bool { return c.private&unix.CLONE_NEWNS == 0 }

// attachRoot puts the detached root into the child's mount namespace, on top of "/". Absolute paths
// keep meaning the old root until enterRoot, since a process's root is not looked up.
func (c *compiler) attachRoot() error {
	if c.root == NoSlot {
		return nil
	}
	k, what := &c.kid, "attach the root filesystem"
	if !c.p.Clone.Covered && !c.sharesMounts() {
		k.call("keep the container's mounts from the host", unix.SYS_MOUNT, Int(0), Str("/"), Int(0), Int(unix.MS_REC|unix.MS_SLAVE), Int(0))
	}
	place := Str("/")
	// Hooks look for it at its own path, and on top of "/" there is nothing to move it over.
	if (c.o.HookGates.BeforePivot || c.o.NoPivot || c.sharesMounts()) && c.s.Root != nil {
		place = Str(c.abs(c.s.Root.Path))
	}
	k.call(what, unix.SYS_MOVE_MOUNT, Of(c.root), Str(""), atCwd, place, Int(unix.MOVE_MOUNT_F_EMPTY_PATH))
	if !c.o.Facts.Has(probe.MountSetattr) || c.sharesMounts() {
		// A clone of a shared mount is its peer, and one attached to a shared mount is shared: what is mounted
		// in it would appear on the host, and pivot_root refuses it.
		k.call(what, unix.SYS_FCHDIR, Of(c.root))
		k.call(what, unix.SYS_MOUNT, Int(0), Str("."), Int(0), Int(unix.MS_REC|unix.MS_SLAVE), Int(0))
	}
	return nil
}

// enterRoot makes the attached root the process's "/". In the covered case nothing lies beneath but an
// empty read-only directory, and chroot will do; so it has to where others use the mount namespace. Otherwise
// pivot_root and the old root is taken away.
func (c *compiler) enterRoot() error {
	if c.root == NoSlot {
		return nil
	}
	k, what := &c.kid, "enter the root filesystem"
	if c.o.HookGates.BeforePivot {
		c.barrier(syncPivot, "wait for the hooks")
	}
	switch {
	case c.p.Clone.Covered, c.sharesMounts():
		k.call(what, unix.SYS_FCHDIR, Of(c.root))
		k.call(what, unix.SYS_CHROOT, Str("."))
	case c.o.NoPivot:
		c.hideKernelViews()
		k.call(what, unix.SYS_FCHDIR, Of(c.root))
		k.call(what, unix.SYS_MOUNT, Str("."), Str("/"), Int(0), Int(unix.MS_MOVE), Int(0))
		k.call(what, unix.SYS_CHROOT, Str("."))
	default:
		old := k.open("old-root", what, unix.SYS_OPENAT, atCwd, Str("/"), Int(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC), Int(0))
		k.call(what, unix.SYS_FCHDIR, Of(c.root))
		k.call(what, unix.SYS_PIVOT_ROOT, Str("."), Str("."))
		k.call("leave the old root", unix.SYS_FCHDIR, Of(old))
		k.call("leave the old root", unix.SYS_MOUNT, Int(0), Str("."), Int(0), Int(unix.MS_REC|unix.MS_SLAVE), Int(0))
		k.call("leave the old root", unix.SYS_UMOUNT2, Str("."), Int(unix.MNT_DETACH))
		k.call("leave the old root", unix.SYS_CLOSE, Of(old))
	}
	k.call(what, unix.SYS_CHDIR, Str("/"))
	return nil
}

// hideKernelViews takes the host's proc and sysfs out of the mount namespace: without pivot_root the host's
// mounts stay beneath the root, and a user namespace inside may mount an unmasked proc wherever one is visible.
func (c *compiler) hideKernelViews() {
	const what = "hide the host's proc and sysfs"
	for _, path := range c.o.KernelViews {
		c.kid.call(what, unix.SYS_UMOUNT2, Str(path), Int(unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)).OnOK = 1
		st := &c.kid.steps[len(c.kid.steps)-1]
		st.expect(unix.ENOENT, 1).expect(unix.EINVAL, 0).expect(unix.EPERM, 0) // a user namespace cannot unmount it
		c.kid.call(what, unix.SYS_MOUNT, Str("tmpfs"), Str(path), Str("tmpfs"), Int(unix.MS_RDONLY), Int(0))
	}
}

var propagations = map[string]uint64{
	"": 0, "private": unix.MS_PRIVATE, "rprivate": unix.MS_PRIVATE | unix.MS_REC, "slave": unix.MS_SLAVE, "rslave": unix.MS_SLAVE | unix.MS_REC,
	"shared": unix.MS_SHARED, "rshared": unix.MS_SHARED | unix.MS_REC, "unbindable": unix.MS_UNBINDABLE, "runbindable": unix.MS_UNBINDABLE | unix.MS_REC,
}

// rootAttributes sets what the spec says of the root mount itself, once nothing has to be made in it.
func (c *compiler) rootAttributes() error {
	if c.root == NoSlot {
		return nil
	}
	c.kid.steps = append(c.kid.steps, c.late...)
	prop, ok := propagations[c.s.Linux.RootfsPropagation]
	if !ok {
		return fault.New(fault.Invalid, "linux.rootfsPropagation: %q is not one of private, slave, shared, unbindable and their r- forms", c.s.Linux.RootfsPropagation)
	}
	if prop != 0 {
		c.kid.call("set the root's propagation", unix.SYS_MOUNT, Int(0), Str("/"), Int(0), Int(prop), Int(0))
	}
	if c.s.Root == nil || !c.s.Root.Readonly {
		return nil
	}
	what := "make the root read-only"
	if c.o.Facts.Has(probe.MountSetattr) {
		c.setAttr(&c.kid, c.root, what, unix.MOUNT_ATTR_RDONLY, 0, false)
		return nil
	}
	c.kid.call(what, unix.SYS_MOUNT, Int(0), Str("/"), Int(0), Int(unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY), Int(0))
	return nil
}

// mountAttr is struct mount_attr of mount_setattr(2).
func mountAttr(set, clear, propagation uint64) Arg {
	b := make([]byte, 32)
	binary.LittleEndian.PutUint64(b, set)
	binary.LittleEndian.PutUint64(b[8:], clear)
	binary.LittleEndian.PutUint64(b[16:], propagation)
	return Bytes(b)
}

const sizeofMountAttr = 32

func attrFlags(recursive bool) Arg {
	if recursive {
		return Int(unix.AT_EMPTY_PATH | unix.AT_RECURSIVE)
	}
	return Int(unix.AT_EMPTY_PATH)
}

// setAttr changes the attributes of the mount behind a descriptor.
func (c *compiler) setAttr(s *section, mnt Slot, what string, set, clear uint64, recursive bool) {
	s.call(what, unix.SYS_MOUNT_SETATTR, Of(mnt), Str(""), attrFlags(recursive), mountAttr(set, clear, 0), Int(sizeofMountAttr))
}

// setPropagation changes the propagation of the mount behind a descriptor. Before Linux 5.12 a
// detached mount cannot be changed; there the child's own mount(2) on "/" has to do.
func (c *compiler) setPropagation(s *section, mnt Slot, what string, prop uint64, recursive bool) {
	if c.o.Facts.Has(probe.MountSetattr) {
		s.call(what, unix.SYS_MOUNT_SETATTR, Of(mnt), Str(""), attrFlags(recursive), mountAttr(0, 0, prop), Int(sizeofMountAttr))
	}
}
