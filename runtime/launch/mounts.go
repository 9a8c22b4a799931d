package launch

import (
	"cmp"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/mount"
	"berth/kernel/probe"
)

// prepareMounts checks the spec's mounts and makes what the child cannot make itself, as detached mounts
// with their final attributes.
func (c *compiler) prepareMounts() error {
	if c.root == NoSlot {
		if len(c.s.Mounts) > 0 {
			return fault.New(fault.Invalid, "mounts: without root.path there is nothing to mount in")
		}
		return nil
	}
	for i := range c.s.Mounts {
		m := &c.s.Mounts[i]
		opts, err := mount.ParseOptions(m.Options)
		if err != nil {
			return fault.In(err, "mounts[%d] (%s)", i, m.Destination)
		}
		if err := c.checkMount(i, m, opts); err != nil {
			return err
		}
		if isBind(m, opts) {
			if needs := needsSetattr(m, opts); needs != "" && !c.o.Facts.Has(probe.MountSetattr) {
				return fault.New(fault.NotImplemented, "mounts[%d] (%s): %s takes mount_setattr, which Linux has since 5.12", i, m.Destination, needs)
			}
			c.prepareBind(i, m, opts)
		}
		if c.mapped() && m.Type == "tmpfs" && filepath.Clean(m.Destination) == "/dev" {
			if err := c.prepareDev(i, m, opts); err != nil {
				return err
			}
			continue
		}
		if opts.TmpCopyUp && m.Type == "tmpfs" {
			c.trees[i] = c.prepareCopy(m, opts)
		}
	}
	if !c.ownsDev() {
		// A detached mount can be cloned since 6.15 only, so one for each.
		for range c.s.Linux.MaskedPaths {
			c.nulls = append(c.nulls, c.cloneHost("null", "open the host's /dev/null", "/dev/null", false))
		}
	}
	return c.prepareNodes()
}

func isBind(m *specs.Mount, opts mount.Options) bool {
	return m.Type == "bind" || opts.Flags&unix.MS_BIND != 0
}

// procFiles are the paths in /proc that a mount may cover: files that programs such as lxcfs
// virtualise. Everything else there decides about security (CVE-2019-16884).
var procFiles = map[string]bool{
	"/proc/cpuinfo": true, "/proc/diskstats": true, "/proc/meminfo": true, "/proc/stat": true, "/proc/swaps": true, "/proc/uptime": true,
	"/proc/loadavg": true, "/proc/slabinfo": true, "/proc/sys/kernel/ns_last_pid": true, "/proc/sys/crypto/fips_enabled": true,
}

func (c *compiler) checkMount(i int, m *specs.Mount, opts mount.Options) error {
	dest := filepath.Clean("/" + m.Destination)
	if m.Destination == "" {
		return fault.New(fault.Invalid, "mounts[%d].destination: must not be empty", i)
	}
	if strings.HasPrefix(dest, "/proc/") && !procFiles[dest] {
		return fault.New(fault.Invalid, "%q cannot be mounted because it is inside /proc", dest)
	}
	if dest == "/proc" && m.Type != "proc" && !(isBind(m, opts) && filepath.Clean(m.Source) == "/proc") {
		return fault.New(fault.Invalid, "%q cannot be mounted because it is not of type proc", dest)
	}
	if !isBind(m, opts) && m.Type == "" {
		return fault.New(fault.Invalid, "mounts[%d] (%s): a type is needed, or the option bind", i, m.Destination)
	}
	return nil
}

// mounts attaches and makes the spec's mounts in order.
func (c *compiler) mounts() error {
	for i := range c.s.Mounts {
		m := &c.s.Mounts[i]
		o, err := mount.ParseOptions(m.Options)
		if err != nil {
			return err
		}
		dest := filepath.Clean("/" + m.Destination)
		switch {
		case isBind(m, o):
			c.bind(i, m, o, dest)
		case c.trees[i] != 0: // a tmpfs filled beforehand
			c.copiedTmpfs(i, o, dest)
		case m.Type == "tmpfs":
			c.tmpfs(i, m, o, dest)
		case m.Type == "proc":
			c.procfs(m, o, dest)
		case m.Type == "devpts" && c.devpts != NoSlot && dest == "/dev/pts":
			c.move(c.devpts, "mount devpts on "+dest, c.target(dest, "mount devpts on "+dest, false))
		case m.Type == "cgroup":
			c.cgroupfs(m, o, dest)
		default:
			c.filesystem(m, o, dest)
		}
		if dest == "/dev" && !isBind(m, o) && m.Type == "tmpfs" {
			// Devices come before the mounts below /dev, which may cover one of them.
			if err := c.fillDev(); err != nil {
				return err
			}
		}
	}
	return nil
}

// target opens a mount's destination, which is made where it is missing: directories down to it, and
// a file or directory at its end.
func (c *compiler) target(dest, what string, file bool) Slot {
	k := &c.kid
	flags := uint64(unix.O_PATH)
	t := c.inRoot("at:"+dest, what, dest, flags)
	var there mark
	k.onOK(&there)
	k.steps[len(k.steps)-1].expect(unix.ENOENT, 0)
	parts := strings.Split(relative(dest), "/")
	parent := c.root
	for i, name := range parts {
		if i == len(parts)-1 && file {
			// Unlike mknod it also makes the file that a link of the image leads to.
			k.call(what, unix.SYS_CLOSE, Of(k.open("made", what, unix.SYS_OPENAT2, Of(c.root), Str(relative(dest)), createHow(0o755), Int(sizeofOpenHow))))
			break
		}
		k.call(what, unix.SYS_MKDIRAT, Of(parent), Str(name), Int(0o755)).expect(unix.EEXIST, 0)
		if i < len(parts)-1 {
			parent = c.inRoot("made", what, strings.Join(parts[:i+1], "/"), flags|unix.O_DIRECTORY)
		}
	}
	k.call(what, unix.SYS_OPENAT2, Of(c.root), Str(relative(dest)), openHow(flags|unix.O_CLOEXEC, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS),
		Int(sizeofOpenHow)).Out = t
	k.here(&there)
	return t
}

// move attaches a detached mount.
func (c *compiler) move(tree Slot, what string, target Slot) {
	c.kid.call(what, unix.SYS_MOVE_MOUNT, Of(tree), Str(""), Of(target), Str(""), Int(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH))
}

// filesystem mounts a fresh file system. The mount point is entered by descriptor and named ".", so
// that no path is looked up twice.
func (c *compiler) filesystem(m *specs.Mount, o mount.Options, dest string) {
	what := "mount " + m.Type + " on " + dest
	t := c.safeTarget(m.Type, dest, what)
	source := m.Source
	if source == "" {
		source = m.Type
	}
	c.kid.call(what, unix.SYS_FCHDIR, Of(t))
	c.kid.call(what, unix.SYS_MOUNT, Str(source), Str("."), Str(m.Type), Int(uint64(o.Flags)), dataArg(c.labelData(m.Type, c.mapGroup(m.Type, o.Data))))
	c.labelDir(m.Type, dest, what)
	c.propagate(o, dest, what)
}

// safeTarget is target for file systems; sysfs must be where it says, not behind a link of the image.
func (c *compiler) safeTarget(fstype, dest, what string) Slot {
	if fstype == "sysfs" || fstype == "proc" {
		return c.plainTarget(dest, what)
	}
	return c.target(dest, what, false)
}

// plainTarget opens a directory in the root that must not be reached through any link (CVE-2019-19921).
func (c *compiler) plainTarget(dest, what string) Slot {
	k := &c.kid
	how := openHow(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_SYMLINKS)
	t := k.open("at:"+dest, what, unix.SYS_OPENAT2, Of(c.root), Str(relative(dest)), how, Int(sizeofOpenHow))
	var there mark
	k.onOK(&there)
	k.steps[len(k.steps)-1].expect(unix.ENOENT, 0)
	k.call(what, unix.SYS_MKDIRAT, Of(c.root), Str(relative(dest)), Int(0o755)).expect(unix.EEXIST, 0)
	k.call(what, unix.SYS_OPENAT2, Of(c.root), Str(relative(dest)), how, Int(sizeofOpenHow)).Out = t
	k.here(&there)
	return t
}

// procfs mounts proc and keeps the mount itself: paths in it are later opened beneath this
// descriptor, which is the real thing whatever lies on the path /proc (CVE-2025-52881).
func (c *compiler) procfs(m *specs.Mount, o mount.Options, dest string) {
	k, what := &c.kid, "mount proc on "+dest
	t := c.plainTarget(dest, what)
	fs := k.open("procfs", what, unix.SYS_FSOPEN, Str("proc"), Int(unix.FSOPEN_CLOEXEC))
	// Without a source /proc/mounts would say "none", and tools look for "proc".
	k.call(what, unix.SYS_FSCONFIG, Of(fs), Int(unix.FSCONFIG_SET_STRING), Str("source"), Str(cmp.Or(m.Source, "proc")), Int(0))
	for _, d := range words(o.Data) {
		key, value, has := strings.Cut(d, "=")
		if has {
			k.call(what, unix.SYS_FSCONFIG, Of(fs), Int(unix.FSCONFIG_SET_STRING), Str(key), Str(value), Int(0))
		} else {
			k.call(what, unix.SYS_FSCONFIG, Of(fs), Int(unix.FSCONFIG_SET_FLAG), Str(key), Int(0), Int(0))
		}
	}
	k.call(what, unix.SYS_FSCONFIG, Of(fs), Int(unix.FSCONFIG_CMD_CREATE), Int(0), Int(0), Int(0))
	proc := k.open("proc", what, unix.SYS_FSMOUNT, Of(fs), Int(unix.FSMOUNT_CLOEXEC), Int(mount.Attributes(o.Flags)))
	c.move(proc, what, t)
	c.propagate(o, dest, what)
	if dest == "/proc" {
		c.proc = proc
	}
}

// propagate sets the propagation of a mount just made, which only its own path names.
func (c *compiler) propagate(o mount.Options, dest, what string) {
	if len(o.Propagation) == 0 {
		return
	}
	at := c.inRoot("top:"+dest, what, dest, unix.O_PATH|unix.O_DIRECTORY)
	for _, p := range o.Propagation {
		c.kid.call(what, unix.SYS_FCHDIR, Of(at))
		c.kid.call(what, unix.SYS_MOUNT, Int(0), Str("."), Int(0), Int(uint64(p)), Int(0))
	}
}

func dataArg(data string) Arg {
	if data == "" {
		return Int(0)
	}
	return Str(data)
}

// words are the file system's own options one by one.
func words(data string) []string {
	if data == "" {
		return nil
	}
	return strings.Split(data, ",")
}

// mapGroup drops devpts' gid option where the user namespace has no such group: the mount would fail.
func (c *compiler) mapGroup(fstype, data string) string {
	if fstype != "devpts" || len(c.s.Linux.GIDMappings) == 0 {
		return data
	}
	var out []string
	for _, d := range words(data) {
		if gid, ok := strings.CutPrefix(d, "gid="); ok && !mapped(c.s.Linux.GIDMappings, gid) {
			continue
		}
		out = append(out, d)
	}
	return strings.Join(out, ",")
}
