package launch

import (
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/idmap"
	"berth/kernel/mount"
	"berth/kernel/overlay"
	"berth/kernel/probe"
)

// A mapped container is one in a user namespace whose files are stored as if it had none: its layers are shown
// through the namespace's mapping. The launcher, which has the right to, also makes its /dev with the mapping's root
// as owner: nodes bound from the host would belong to nobody in there, and only who is let in by their mode could
// open them.

// launcherOwns says that the container's ids on the host are the launcher's to give: it is root there.
func (c *compiler) launcherOwns() bool { return !c.o.InUserNS && !c.o.Unprivileged }

// mapped says that the container's layers are shown through its mapping.
func (c *compiler) mapped() bool {
	return c.o.Overlay != nil && c.o.Overlay.Mapped || c.o.RootMapped && c.o.RootFD != 0
}

// mappedOverlay assembles layers that are each a clone with the mapping (Linux 6.15: descriptors of mounts that are
// attached nowhere). Overlayfs works on them as who mounts it: that must be the mapping's root, since the host's has
// no id in there.
func (c *compiler) mappedOverlay(v *Overlay, what string) error {
	if why := overlay.CanMap(c.o.Facts); why != "" {
		return fault.New(fault.NotImplemented, "a container in a user namespace of its own needs id-mapped layers: %s", why)
	}
	uid, gid, err := c.mappedRoot()
	if err != nil {
		return err
	}
	if v.Upper == "" || filepath.Dir(v.Upper) != filepath.Dir(v.Work) {
		return fault.New(fault.Invalid, "overlay: upper and work directory must lie in one directory, not %q and %q", v.Upper, v.Work)
	}
	p := &c.prep
	if !c.o.Facts.Has(probe.OverlayFD) || !c.o.Facts.Has(probe.MoveDetached) {
		maps := Str(mapText(c.s.Linux.UIDMappings) + ";" + mapText(c.s.Linux.GIDMappings))
		c.root = p.open("root", what, OpOverlay, vector(v.Lower), Str(v.Upper), Str(v.Work), Int(0), Str(c.mountLabel()), maps)
		c.setPropagation(p, c.root, what, unix.MS_PRIVATE, false)
		return nil
	}
	ns := c.mapping(what)
	layer := func(dir string) Slot {
		tree := c.cloneHost("layer", what, dir, false)
		c.idmap(p, tree, ns, false, what)
		return tree
	}
	var layers []Slot
	for _, dir := range v.Lower {
		layers = append(layers, layer(dir))
	}
	box, beneath := layer(filepath.Dir(v.Upper)), Int(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
	upper := p.open("upper", what, unix.SYS_OPENAT, Of(box), Str(filepath.Base(v.Upper)), beneath, Int(0))
	work := p.open("work", what, unix.SYS_OPENAT, Of(box), Str(filepath.Base(v.Work)), beneath, Int(0))
	fs := p.open("overlay", what, unix.SYS_FSOPEN, Str("overlay"), Int(unix.FSOPEN_CLOEXEC))
	give := func(key string, dir Slot) {
		p.call(what, unix.SYS_FSCONFIG, Of(fs), Int(unix.FSCONFIG_SET_FD), Str(key), Int(0), Of(dir))
	}
	for _, l := range layers {
		give("lowerdir+", l)
	}
	give("upperdir", upper)
	give("workdir", work)
	c.overlayOptions(fs, what)
	p.call(what, OpCreateAs, Of(fs), Int(uid), Int(gid))
	c.root = p.open("root", what, unix.SYS_FSMOUNT, Of(fs), Int(unix.FSMOUNT_CLOEXEC), Int(0))
	return nil
}

// mappedRoot gives the host's ids of the mapping's root.
func (c *compiler) mappedRoot() (uid, gid uint32, err error) {
	uid, ok1 := hostID(c.s.Linux.UIDMappings, 0)
	gid, ok2 := hostID(c.s.Linux.GIDMappings, 0)
	if !ok1 || !ok2 {
		return 0, 0, fault.New(fault.Invalid, "linux.uidMappings: the user namespace has no root: map id 0")
	}
	return uid, gid, nil
}

// mapping gives a user namespace with the container's mapping: the one that it joins, else one that is made for
// its mounts.
func (c *compiler) mapping(what string) Slot {
	for _, j := range c.joins {
		if j.kind == specs.UserNamespace {
			return j.fd
		}
	}
	if c.maps == NoSlot {
		c.maps = c.prep.open("mapping", what, OpUserns, Str(mapText(c.s.Linux.UIDMappings)), Str(mapText(c.s.Linux.GIDMappings)))
	}
	return c.maps
}

// prepareDev makes the /dev of a mapped container: a tmpfs with all nodes, owned by ids of the mapping.
func (c *compiler) prepareDev(i int, m *specs.Mount, o mount.Options) error {
	p, what := &c.prep, "make /dev"
	uid, gid, err := c.mappedRoot()
	if err != nil {
		return err
	}
	for _, id := range [...]struct {
		key   string
		value uint32
	}{{"uid", uid}, {"gid", gid}} {
		o.Data = strings.TrimPrefix(o.Data+","+id.key+"="+strconv.FormatUint(uint64(id.value), 10), ",")
	}
	tree := c.newTmpfs(p, m, o, what)
	made := map[string]bool{}
	for _, d := range c.deviceList() {
		if err := c.mappedNode(tree, d, made); err != nil {
			return err
		}
	}
	c.trees[i], c.devMade = tree, true
	return nil
}

// mappedNode makes one node, and the directories above it.
func (c *compiler) mappedNode(dev Slot, d specs.LinuxDevice, made map[string]bool) error {
	kind, ok := deviceKinds[d.Type]
	if !ok {
		return fault.New(fault.Invalid, "linux.devices: %s: type %q is not one of c, b, u, p", d.Path, d.Type)
	}
	path := filepath.Clean("/" + d.Path)
	name, below := strings.CutPrefix(path, "/dev/")
	if !below {
		return nil // fillDev binds it from the host
	}
	if name == "console" || name == "ptmx" || strings.HasPrefix(name, "pts/") || strings.HasPrefix(name, "shm/") || strings.HasPrefix(name, "mqueue/") {
		return nil // the terminal's matter, or covered by a mount
	}
	p, what := &c.prep, "make device "+d.Path
	uid, ok1 := hostID(c.s.Linux.UIDMappings, deref(d.UID))
	gid, ok2 := hostID(c.s.Linux.GIDMappings, deref(d.GID))
	if !ok1 {
		uid, _, _ = c.mappedRoot()
	}
	if !ok2 { // its group has no id in there: root's has it
		_, gid, _ = c.mappedRoot()
	}
	own := func(name string, uid, gid uint32) {
		p.call(what, unix.SYS_FCHOWNAT, Of(dev), Str(name), Int(uid), Int(gid), Int(unix.AT_SYMLINK_NOFOLLOW))
	}
	rootUID, rootGID, _ := c.mappedRoot()
	parts := strings.Split(name, "/")
	for i := range parts[:len(parts)-1] {
		dir := strings.Join(parts[:i+1], "/")
		if !made[dir] {
			made[dir] = true
			p.call(what, unix.SYS_MKDIRAT, Of(dev), Str(dir), Int(0o755))
			own(dir, rootUID, rootGID)
		}
	}
	mode := uint32(0o666)
	if d.FileMode != nil {
		mode = uint32(d.FileMode.Perm())
	}
	p.call(what, unix.SYS_MKNODAT, Of(dev), Str(name), Int(kind|mode), Int(unix.Mkdev(uint32(d.Major), uint32(d.Minor)))).expect(unix.EEXIST, 0)
	p.call(what, unix.SYS_FCHMODAT, Of(dev), Str(name), Int(mode)) // whatever the launcher's umask
	own(name, uid, gid)
	return nil
}

// createAs is OpCreateAs.
func createAs(fs int, uid, gid uint32) error {
	return idmap.As(uid, gid, func() error { return unix.FsconfigCreate(fs) })
}
