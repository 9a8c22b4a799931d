package launch

import (
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/probe"
)

// inside opens a path for masking, write protection or a sysctl. Below /proc it starts at the proc that
// this program has mounted itself and follows no link at all, so that nothing an image or a shared
// volume holds can lead it elsewhere.
func (c *compiler) inside(name, what, path string, flags uint64) Slot {
	path = filepath.Clean("/" + path)
	if rest, ok := strings.CutPrefix(path, "/proc/"); ok && c.proc != NoSlot {
		return c.kid.open(name, what, unix.SYS_OPENAT2, Of(c.proc), Str(rest),
			openHow(flags|unix.O_CLOEXEC, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS), Int(sizeofOpenHow))
	}
	return c.inRoot(name, what, path, flags)
}

// skipMissing lets a step fail where the kernel lacks the path.
func (c *compiler) skipMissing(m *mark) {
	c.kid.onErr(m, unix.ENOENT)
	c.kid.onErr(m, unix.ENOTDIR)
}

// maskedPaths hides files behind /dev/null and directories behind an empty read-only tmpfs. The
// /dev/null is the node that this program has just made in a fresh file system, held by descriptor, or
// a clone of the host's: by its path, it could have been replaced by then (CVE-2025-31133).
func (c *compiler) maskedPaths() error {
	if c.root == NoSlot {
		return nil // the namespace joined was masked by whoever made it
	}
	for i, path := range c.s.Linux.MaskedPaths {
		k, what := &c.kid, "mask "+path
		if err := absolute("linux.maskedPaths", path); err != nil {
			return err
		}
		var done, file mark
		dir := c.inside("mask:"+path, what, path, unix.O_PATH|unix.O_DIRECTORY)
		k.onErr(&done, unix.ENOENT)
		k.onErr(&file, unix.ENOTDIR)
		k.call(what, unix.SYS_FCHDIR, Of(dir))
		k.call(what, unix.SYS_MOUNT, Str("tmpfs"), Str("."), Str("tmpfs"), Int(unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC), Str(c.labelData("tmpfs", "size=0,nr_inodes=2")))
		k.onOK(&done)
		k.here(&file)
		t := c.inside("mask:"+path, what, path, unix.O_PATH)
		c.skipMissing(&done)
		null := NoSlot
		if c.ownsDev() {
			null = k.open("null-clone", what, unix.SYS_OPEN_TREE, Of(c.null), Str(""), Int(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH))
		} else {
			null = c.nulls[i]
		}
		c.move(null, what, t)
		k.here(&done)
	}
	return nil
}

// readonlyPaths puts a read-only clone of each path over itself.
func (c *compiler) readonlyPaths() error {
	if c.root == NoSlot {
		return nil
	}
	for _, path := range c.s.Linux.ReadonlyPaths {
		k, what := &c.kid, "make "+path+" read-only"
		if err := absolute("linux.readonlyPaths", path); err != nil {
			return err
		}
		var done mark
		t := c.inside("ro:"+path, what, path, unix.O_PATH)
		c.skipMissing(&done)
		tree := k.open("ro-clone:"+path, what, unix.SYS_OPEN_TREE, Of(t), Str(""),
			Int(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE|unix.AT_EMPTY_PATH))
		if c.o.Facts.Has(probe.MountSetattr) {
			c.setAttr(k, tree, what, unix.MOUNT_ATTR_RDONLY, 0, false)
			c.move(tree, what, t)
			k.here(&done)
			continue
		}
		// Before 5.12 only mount(2) changes attributes, and for that the clone must be attached and,
		// being named ".", be a directory; /proc/sysrq-trigger, the one file in Docker's list, is then
		// left to the missing capability.
		c.move(tree, what, t)
		k.call(what, unix.SYS_FCHDIR, Of(tree)).expect(unix.ENOTDIR, 1)
		k.call(what, unix.SYS_MOUNT, Int(0), Str("."), Int(0), Int(unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC), Int(0))
		k.here(&done)
	}
	return nil
}

func absolute(field, path string) error {
	if !strings.HasPrefix(path, "/") {
		return fault.New(fault.Invalid, "%s: %q is not an absolute path", field, path)
	}
	return nil
}

// sysctls writes the spec's kernel parameters through the container's own proc. Which ones may be set is
// the kernel's namespaces' matter: only those that belong to a namespace of the container.
func (c *compiler) sysctls() error {
	for _, key := range sortedKeys(c.s.Linux.Sysctl) {
		file, err := c.sysctlFile(key)
		if err != nil {
			return err
		}
		value, what := c.s.Linux.Sysctl[key], "set sysctl "+key
		var fd Slot
		if c.proc != NoSlot {
			fd = c.inside("sysctl:"+key, what, "/proc/sys/"+file, unix.O_WRONLY)
		} else {
			fd = c.kid.open("sysctl:"+key, what, unix.SYS_OPENAT, Of(c.hostProc), Str("sys/"+file), Int(unix.O_WRONLY|unix.O_CLOEXEC), Int(0))
		}
		c.kid.call(what, unix.SYS_WRITE, Of(fd), Str(value), Int(len(value)))
	}
	return nil
}

// sysctlFile is a parameter's file below /proc/sys. A name with a slash in it uses slashes as
// separators and may contain dots (interface names).
func (c *compiler) sysctlFile(key string) (string, error) {
	file := key
	if i := strings.IndexAny(key, "./"); i < 0 || key[i] == '.' {
		file = strings.Map(func(r rune) rune {
			switch r {
			case '.':
				return '/'
			case '/':
				return '.'
			}
			return r
		}, key)
	}
	if file == "" || filepath.Clean("/"+file) != "/"+file {
		return "", fault.New(fault.Invalid, "linux.sysctl: %q names no kernel parameter", key)
	}
	need := uint64(0)
	switch {
	case strings.HasPrefix(file, "net/"):
		need = unix.CLONE_NEWNET
	case strings.HasPrefix(file, "fs/mqueue/"), ipcSysctls[file]:
		need = unix.CLONE_NEWIPC
	case file == "kernel/domainname" || file == "kernel/hostname":
		need = unix.CLONE_NEWUTS
	case strings.HasPrefix(file, "user/"):
		need = unix.CLONE_NEWUSER
	default:
		return "", fault.New(fault.Invalid, "sysctl %q is not in a separate kernel namespace", key)
	}
	if c.private&need == 0 && !c.joinedFlag(need) {
		return "", fault.New(fault.Invalid, "sysctl %q is not allowed in the hosts %s namespace", key, cloneFlags(need))
	}
	return file, nil
}

var ipcSysctls = map[string]bool{
	"kernel/msgmax": true, "kernel/msgmnb": true, "kernel/msgmni": true, "kernel/sem": true, "kernel/shmall": true, "kernel/shmmax": true,
	"kernel/shmmni": true, "kernel/shm_rmid_forced": true,
}

func (c *compiler) joinedFlag(flag uint64) bool {
	for _, j := range c.joins {
		if j.flag == flag {
			return true
		}
	}
	return false
}
