package launch

import (
	"fmt"
	"path/filepath"
	"strings"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/kernel/mount"
	"berth/kernel/probe"
)

// tmpfs mounts a tmpfs. Unless the options give it a mode it has that of the directory it covers, if there is
// one, else its own default. One that is to be read-only becomes so at the end if the spec has more to put
// into it.
func (c *compiler) tmpfs(i int, m *specs.Mount, o mount.Options, dest string) {
	readonly := o.Flags&unix.MS_RDONLY != 0
	known := hasMode(o.Data)
	if !known && c.o.DirMode != nil && !c.onEarlier(i, dest) {
		known = true
		if mode, ok := c.o.DirMode(dest); ok {
			o.Data = strings.TrimSuffix(fmt.Sprintf("mode=%o,%s", mode, o.Data), ",")
		}
	}
	if known {
		late := readonly && c.filledLater(i, dest)
		if late {
			o.Flags &^= unix.MS_RDONLY
		}
		c.filesystem(m, o, dest)
		if late {
			c.protectLater(c.inRoot("top:"+dest, "mount tmpfs on "+dest, dest, unix.O_PATH|unix.O_DIRECTORY), o, dest, "mount tmpfs on "+dest)
		}
		return
	}
	k, what := &c.kid, "mount tmpfs on "+dest
	tree := c.newTmpfs(k, m, o, what)
	var missing mark
	there := c.inRoot("there:"+dest, what, dest, unix.O_PATH|unix.O_DIRECTORY)
	k.onErr(&missing, unix.ENOENT)
	mode := c.modeOf(there, what)
	k.call(what, unix.SYS_FCHMODAT, Of(tree), Str("."), Of(mode))
	k.here(&missing)
	c.move(tree, what, c.target(dest, what, false))
	c.propagate(o, dest, what)
	if readonly {
		c.protectLater(tree, o, dest, what)
	}
}

func hasMode(data string) bool {
	for _, d := range words(data) {
		if strings.HasPrefix(d, "mode=") {
			return true
		}
	}
	return false
}

// newTmpfs makes a detached tmpfs that can be written to.
func (c *compiler) newTmpfs(s *section, m *specs.Mount, o mount.Options, what string) Slot {
	fs := s.open("tmpfs", what, unix.SYS_FSOPEN, Str("tmpfs"), Int(unix.FSOPEN_CLOEXEC))
	if m.Source != "" {
		s.call(what, unix.SYS_FSCONFIG, Of(fs), Int(unix.FSCONFIG_SET_STRING), Str("source"), Str(m.Source), Int(0))
	}
	configure(s, fs, o.Data, what)
	for _, super := range [...]struct {
		flag uintptr
		word string
	}{{unix.MS_SYNCHRONOUS, "sync"}, {unix.MS_DIRSYNC, "dirsync"}, {unix.MS_LAZYTIME, "lazytime"}} {
		if o.Flags&super.flag != 0 {
			s.call(what, unix.SYS_FSCONFIG, Of(fs), Int(unix.FSCONFIG_SET_FLAG), Str(super.word), Int(0), Int(0))
		}
	}
	c.labelFS(s, fs, what)
	s.call(what, unix.SYS_FSCONFIG, Of(fs), Int(unix.FSCONFIG_CMD_CREATE), Int(0), Int(0), Int(0))
	return s.open("tree:"+m.Destination, what, unix.SYS_FSMOUNT, Of(fs), Int(unix.FSMOUNT_CLOEXEC), Int(mount.Attributes(o.Flags&^unix.MS_RDONLY)))
}

// configure hands the file system's own option words to what fsopen gave.
func configure(s *section, fs Slot, data, what string) {
	for _, d := range words(data) {
		if key, value, has := strings.Cut(d, "="); has {
			s.call(what, unix.SYS_FSCONFIG, Of(fs), Int(unix.FSCONFIG_SET_STRING), Str(key), Str(value), Int(0))
		} else {
			s.call(what, unix.SYS_FSCONFIG, Of(fs), Int(unix.FSCONFIG_SET_FLAG), Str(key), Int(0), Int(0))
		}
	}
}

// modeOf has the child find out a directory's mode: struct stat is as long as some slots, and the one that
// holds st_mode is given. The kernel takes no more of it than a mode's bits.
func (c *compiler) modeOf(dir Slot, what string) Slot {
	var st unix.Stat_t
	const size, offset = unsafe.Sizeof(st), unsafe.Offsetof(st.Mode)
	first := c.p.newSlot("stat")
	for range size/8 - 1 {
		c.p.newSlot("stat")
	}
	c.kid.call(what, unix.SYS_FSTAT, Of(dir), Arg{Kind: ArgSlotAddress, N: uint64(first)})
	mode := first + Slot(offset/8)
	c.p.Slots[mode] = "mode"
	return mode
}

// onEarlier says whether a path leads through a mount that comes before.
func (c *compiler) onEarlier(i int, dest string) bool {
	for _, m := range c.s.Mounts[:i] {
		if at := filepath.Clean("/" + m.Destination); at == dest || strings.HasPrefix(dest, at+"/") {
			return true
		}
	}
	return false
}

// filledLater says whether a later part of the spec wants something made below the mount.
func (c *compiler) filledLater(i int, dest string) bool {
	if dest == "/dev" {
		return true
	}
	for _, later := range c.s.Mounts[i+1:] {
		if strings.HasPrefix(filepath.Clean("/"+later.Destination), dest+"/") {
			return true
		}
	}
	return false
}

// protectLater makes a mount read-only once the root is complete; see rootAttributes.
func (c *compiler) protectLater(tree Slot, o mount.Options, dest, what string) {
	if c.o.Facts.Has(probe.MountSetattr) {
		c.late = append(c.late, Step{What: what, Nr: unix.SYS_MOUNT_SETATTR, Out: NoSlot,
			Args: [6]Arg{Of(tree), Str(""), Int(unix.AT_EMPTY_PATH), mountAttr(unix.MOUNT_ATTR_RDONLY, 0, 0), Int(sizeofMountAttr)}})
		return
	}
	flags := uint64(o.Flags) | unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY
	c.late = append(c.late, Step{What: what, Nr: unix.SYS_MOUNT, Out: NoSlot, Args: [6]Arg{Int(0), Str(dest), Int(0), Int(flags), Int(0)}})
}

// prepareCopy makes a tmpfs that begins with what it covers (the option tmpcopyup).
func (c *compiler) prepareCopy(m *specs.Mount, o mount.Options) Slot {
	what := "mount tmpfs on " + m.Destination
	tree := c.newTmpfs(&c.prep, m, o, what)
	mode := 0 // of the tmpfs: its own
	if !hasMode(o.Data) {
		mode = 1 // that of the directory
	}
	c.prep.call("copy "+m.Destination+" into its tmpfs", OpCopyUp, Of(c.root), Str(relative(m.Destination)), Of(tree), Int(mode)).expect(unix.ENOENT, 0)
	return tree
}

// copiedTmpfs attaches what prepareCopy made.
func (c *compiler) copiedTmpfs(i int, o mount.Options, dest string) {
	what := "mount tmpfs on " + dest
	c.move(c.trees[i], what, c.target(dest, what, false))
	c.propagate(o, dest, what)
	if o.Flags&unix.MS_RDONLY != 0 {
		c.protectLater(c.trees[i], o, dest, what)
	}
}
