package launch

import (
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/lsm/apparmor"
	"berth/kernel/lsm/selinux"
	"berth/kernel/probe"
)

// confine has the security modules label the process at its next execve. The files are opened in the
// host's /proc, which the child still sees.
func (c *compiler) confine(p *specs.Process) error {
	if path, value := apparmor.ExecAttr(p.ApparmorProfile); path != "" {
		if why := c.o.Facts.Why(probe.AppArmor); why != "" {
			return fault.New(fault.Invalid, "process.apparmorProfile: %s cannot be applied: %s", p.ApparmorProfile, why)
		}
		c.writeOwn(path[len("/proc/"):], value, "apply apparmor profile "+p.ApparmorProfile)
	}
	if path, value := selinux.ExecAttr(p.SelinuxLabel); path != "" {
		if why := c.o.Facts.Why(probe.SELinux); why != "" {
			return fault.New(fault.Invalid, "process.selinuxLabel: %s cannot be applied: %s", p.SelinuxLabel, why)
		}
		what := "apply SELinux label " + p.SelinuxLabel + " (the policy must know it)"
		c.writeOwn(path[len("/proc/"):], value, what)
		if c.o.NewKeyring {
			path, value = selinux.KeyAttr(p.SelinuxLabel)
			c.writeOwn(path[len("/proc/"):], value, what)
		}
	}
	return nil
}

// mountLabel is the label of the container's own file systems; "" where the kernel knows no labels.
func (c *compiler) mountLabel() string {
	if c.s.Linux.MountLabel == "" || !c.o.Facts.Has(probe.SELinux) {
		return ""
	}
	return c.s.Linux.MountLabel
}

// labelFS gives a file system that fsopen made the container's label.
func (c *compiler) labelFS(fs Slot, what string) {
	if l := c.mountLabel(); l != "" {
		c.prep.call(what, unix.SYS_FSCONFIG, Of(fs), Int(unix.FSCONFIG_SET_STRING), Str("context"), Str(l), Int(0))
	}
}

// labelData adds the label to the data of mount(2), for file systems that keep none of their own.
func (c *compiler) labelData(fstype, data string) string {
	o := selinux.MountOption(c.mountLabel())
	switch {
	case o == "" || fstype != "tmpfs" && fstype != "devpts" && fstype != "overlay" && fstype != "ramfs":
		return data
	case data == "":
		return o
	}
	return data + "," + o
}

// labelDir labels the directory at the top of a mount whose kind takes no option for it: mqueue.
func (c *compiler) labelDir(fstype, dest, what string) {
	l := c.mountLabel()
	if l == "" || fstype != "mqueue" {
		return
	}
	c.kid.call(what, unix.SYS_FCHDIR, Of(c.inRoot("top:"+dest, what, dest, unix.O_PATH|unix.O_DIRECTORY)))
	c.kid.call(what, unix.SYS_SETXATTR, Str("."), Str("security.selinux"), Str(l), Int(len(l)+1), Int(0)).expect(unix.ENOTSUP, 0)
}
