package launch

import (
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// standardDevices exist in every container (runtime-spec, config-linux.md, "Default Devices").
var standardDevices = []specs.LinuxDevice{
	{Path: "/dev/null", Type: "c", Major: 1, Minor: 3},
	{Path: "/dev/zero", Type: "c", Major: 1, Minor: 5},
	{Path: "/dev/full", Type: "c", Major: 1, Minor: 7},
	{Path: "/dev/random", Type: "c", Major: 1, Minor: 8},
	{Path: "/dev/urandom", Type: "c", Major: 1, Minor: 9},
	{Path: "/dev/tty", Type: "c", Major: 5, Minor: 0},
}

var devLinks = [][2]string{{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"}, {"/proc/self/fd/2", "stderr"}, {"pts/ptmx", "ptmx"}}

// deviceList is the standard devices and the spec's, which may replace them.
func (c *compiler) deviceList() []specs.LinuxDevice {
	list := slices.Clone(standardDevices)
	for _, d := range c.s.Linux.Devices {
		list = slices.DeleteFunc(list, func(x specs.LinuxDevice) bool { return filepath.Clean(x.Path) == filepath.Clean(d.Path) })
		list = append(list, d)
	}
	return list
}

// ownsDev says whether /dev is the container's: a tmpfs of the spec. A bound /dev is left as it is.
func (c *compiler) ownsDev() bool {
	for i := range c.s.Mounts {
		if filepath.Clean(c.s.Mounts[i].Destination) == "/dev" {
			return c.s.Mounts[i].Type == "tmpfs"
		}
	}
	return true
}

// bindNodes says that device nodes cannot be made and are bound from the host: in a user namespace, the
// container's or the launcher's.
func (c *compiler) bindNodes() bool {
	return c.o.InUserNS || c.private&unix.CLONE_NEWUSER != 0 || c.joinedFlag(unix.CLONE_NEWUSER)
}

// prepareNodes clones the host's device nodes where they have to be bound.
func (c *compiler) prepareNodes() error {
	if !c.bindNodes() || !c.ownsDev() {
		return nil
	}
	for _, d := range c.deviceList() {
		if d.Type == "p" || c.devMade && strings.HasPrefix(filepath.Clean("/"+d.Path), "/dev/") {
			continue
		}
		c.nodes[d.Path] = c.cloneHost("node:"+d.Path, "open the host's "+d.Path, d.Path, false)
	}
	return nil
}

// devices fills /dev where the spec mounts nothing on it.
func (c *compiler) devices() error {
	if c.root == NoSlot || !c.ownsDev() {
		return nil
	}
	for i := range c.s.Mounts {
		if filepath.Clean(c.s.Mounts[i].Destination) == "/dev" {
			return nil // done right after the mount
		}
	}
	return c.fillDev()
}

// fillDev makes nodes and links in /dev.
func (c *compiler) fillDev() error {
	k := &c.kid
	dev := c.target("/dev", "make /dev", false)
	if len(c.s.Mounts) > 0 {
		// After a mount the path leads to the new file system; the old descriptor does not.
		dev = c.inRoot("dev", "open /dev", "/dev", unix.O_PATH|unix.O_DIRECTORY)
	}
	for _, d := range c.deviceList() {
		if c.devMade && strings.HasPrefix(filepath.Clean("/"+d.Path), "/dev/") {
			continue
		}
		if err := c.device(dev, d); err != nil {
			return err
		}
	}
	if len(c.s.Linux.MaskedPaths) > 0 {
		c.null = k.open("null", "open /dev/null", unix.SYS_OPENAT2, Of(dev), Str("null"),
			openHow(unix.O_PATH|unix.O_CLOEXEC, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS), Int(sizeofOpenHow))
	}
	for _, l := range devLinks {
		k.call("link /dev/"+l[1], unix.SYS_SYMLINKAT, Str(l[0]), Of(dev), Str(l[1])).expect(unix.EEXIST, 0)
	}
	return nil
}

var deviceKinds = map[string]uint32{"c": unix.S_IFCHR, "u": unix.S_IFCHR, "b": unix.S_IFBLK, "p": unix.S_IFIFO}

// device makes one node, or binds the host's.
func (c *compiler) device(dev Slot, d specs.LinuxDevice) error {
	kind, ok := deviceKinds[d.Type]
	if !ok {
		return fault.New(fault.Invalid, "linux.devices: %s: type %q is not one of c, b, u, p", d.Path, d.Type)
	}
	k, what, path := &c.kid, "make device "+d.Path, filepath.Clean("/"+d.Path)
	if path == "/dev/console" || path == "/dev/ptmx" {
		return nil // the terminal's matter
	}
	if tree, ok := c.nodes[d.Path]; ok {
		c.move(tree, what, c.target(path, what, true))
		return nil
	}
	parent, name := dev, strings.TrimPrefix(path, "/dev/")
	if strings.Contains(name, "/") {
		dir := filepath.Dir(path)
		c.target(dir, what, false)
		parent, name = c.inRoot("dir:"+dir, what, dir, unix.O_PATH|unix.O_DIRECTORY), filepath.Base(path)
	}
	mode := uint32(0o666)
	if d.FileMode != nil {
		mode = uint32(d.FileMode.Perm())
	}
	k.call(what, unix.SYS_MKNODAT, Of(parent), Str(name), Int(kind|mode), Int(unix.Mkdev(uint32(d.Major), uint32(d.Minor)))).expect(unix.EEXIST, 0)
	if uid, gid := deref(d.UID), deref(d.GID); uid != 0 || gid != 0 {
		k.call(what, unix.SYS_FCHOWNAT, Of(parent), Str(name), Int(uid), Int(gid), Int(unix.AT_SYMLINK_NOFOLLOW))
	}
	return nil
}

func deref(p *uint32) uint32 {
	if p == nil {
		return 0
	}
	return *p
}

func mapped(ms []specs.LinuxIDMapping, id string) bool {
	n, err := strconv.ParseUint(id, 10, 32)
	if err != nil {
		return false
	}
	for _, m := range ms {
		if uint64(m.ContainerID) <= n && n < uint64(m.ContainerID)+uint64(m.Size) {
			return true
		}
	}
	return false
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// prepareTerminal makes the container's devpts before the container exists, so that the master end of
// its terminal never has to be passed anywhere. Where the spec mounts no devpts the host's serves.
func (c *compiler) prepareTerminal() error {
	if !c.s.Process.Terminal {
		return nil
	}
	p, what := &c.prep, "make the terminal"
	c.p.Terminal = true
	pts := c.devptsMount()
	if pts == nil || c.root == NoSlot {
		p.call(what, unix.SYS_OPENAT, atCwd, Str("/dev/ptmx"), Int(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC), Int(0)).Out = SlotConsole
	} else {
		fs := p.open("devpts-fs", what, unix.SYS_FSOPEN, Str("devpts"), Int(unix.FSOPEN_CLOEXEC))
		for _, o := range pts.Options {
			key, value, has := strings.Cut(o, "=")
			if !has {
				continue
			}
			if key == "gid" && c.bindNodes() { // here it is the host's
				if value = c.hostGroup(value); value == "" {
					continue
				}
			}
			p.call(what, unix.SYS_FSCONFIG, Of(fs), Int(unix.FSCONFIG_SET_STRING), Str(key), Str(value), Int(0))
		}
		c.labelFS(&c.prep, fs, what)
		p.call(what, unix.SYS_FSCONFIG, Of(fs), Int(unix.FSCONFIG_CMD_CREATE), Int(0), Int(0), Int(0))
		c.devpts = p.open("devpts", what, unix.SYS_FSMOUNT, Of(fs), Int(unix.FSMOUNT_CLOEXEC), Int(unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC))
		p.call(what, unix.SYS_OPENAT, Of(c.devpts), Str("ptmx"), Int(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC), Int(0)).Out = SlotConsole
	}
	c.openSlave(what)
	return nil
}

// hostGroup gives the host's number of one of the container's groups; "" where it has none, or the launcher may not
// use it.
func (c *compiler) hostGroup(gid string) string {
	n, err := strconv.ParseUint(gid, 10, 32)
	if err != nil || !c.launcherOwns() {
		return ""
	}
	id, ok := hostID(c.s.Linux.GIDMappings, uint32(n))
	if !ok {
		return ""
	}
	return strconv.FormatUint(uint64(id), 10)
}

// openSlave unlocks the terminal whose master is in SlotConsole and opens its other end without a path
// (ioctl_tty(2), TIOCGPTPEER, Linux 4.13).
func (c *compiler) openSlave(what string) {
	c.prep.call(what, unix.SYS_IOCTL, Of(SlotConsole), Int(unix.TIOCSPTLCK), Bytes(make([]byte, 4)))
	c.tty = c.prep.open("tty", what, unix.SYS_IOCTL, Of(SlotConsole), Int(unix.TIOCGPTPEER), Int(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC))
	uid, ok := hostID(c.s.Linux.UIDMappings, c.s.Process.User.UID)
	if !ok {
		return
	}
	// The terminal is the launcher's, whom nobody in the user namespace may chown from.
	const ttyGroup = 5 // Debian's and everybody's
	gid, ok := hostID(c.s.Linux.GIDMappings, ttyGroup)
	if !ok {
		gid, _ = hostID(c.s.Linux.GIDMappings, 0)
	}
	c.prep.call(what, unix.SYS_FCHOWN, Of(c.tty), Int(uid), Int(gid))
}

// hostID is the host's id for one of the container's.
func hostID(ms []specs.LinuxIDMapping, id uint32) (uint32, bool) {
	for _, m := range ms {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return m.HostID + id - m.ContainerID, true
		}
	}
	return 0, false
}

func (c *compiler) devptsMount() *specs.Mount {
	for i := range c.s.Mounts {
		if m := &c.s.Mounts[i]; m.Type == "devpts" && filepath.Clean(m.Destination) == "/dev/pts" {
			return m
		}
	}
	return nil
}

// terminal makes the tty the controlling one, and shows it as /dev/console.
func (c *compiler) terminal() error {
	if c.tty == NoSlot {
		return nil
	}
	k, what := &c.kid, "take the terminal"
	k.call(what, unix.SYS_IOCTL, Of(c.tty), Int(unix.TIOCSCTTY), Int(0))
	if owner := c.s.Process.User.UID; owner != 0 && len(c.s.Linux.UIDMappings) == 0 {
		k.call(what, unix.SYS_FCHOWN, Of(c.tty), Int(owner), Int(^uint32(0))).expect(unix.EPERM, 0)
	}
	if c.devpts == NoSlot || !c.ownsDev() {
		return nil
	}
	// A fresh devpts numbers its first terminal 0.
	console := k.open("console-mount", what, unix.SYS_OPEN_TREE, Of(c.devpts), Str("0"), Int(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC))
	c.move(console, what, c.target("/dev/console", what, true))
	return nil
}
