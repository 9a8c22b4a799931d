package launch

import (
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/lsm/apparmor"
	"berth/kernel/lsm/selinux"
	"berth/kernel/probe"
)

// applyProfile begins the purpose of the steps that AppArmor may refuse; see Error.Error.
const applyProfile = "apply apparmor profile "

// confine has the security modules label the process at its next execve. The files are opened in the
// host's /proc, which the child still sees. The words are runc's.
func (c *compiler) confine(p *specs.Process) error {
	if path, value := apparmor.ExecAttr(p.ApparmorProfile); path != "" {
		if !c.o.Facts.Has(probe.AppArmor) {
			return fault.New(fault.Invalid, "unable to apply apparmor profile: apparmor: config provided but apparmor not supported")
		}
		// ENOENT from the write: no such profile is loaded.
		c.writeOwn(path[len("/proc/"):], value, applyProfile+p.ApparmorProfile)
	}
	path, value := selinux.ExecAttr(p.SelinuxLabel)
	if path == "" {
		return nil
	}
	if !c.o.Facts.Has(probe.SELinux) {
		return fault.New(fault.Invalid, "selinux label is specified in config, but selinux is disabled or not supported")
	}
	// EINVAL: the policy does not know the label.
	c.writeOwn(path[len("/proc/"):], value, "apply SELinux label "+p.SelinuxLabel)
	if c.o.NewKeyring {
		// The container is to own the keyring it is about to get. execve(2) resets the attribute.
		path, value = selinux.KeyAttr(p.SelinuxLabel)
		c.writeOwn(path[len("/proc/"):], value, "label the session keyring")
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
func (c *compiler) labelFS(s *section, fs Slot, what string) {
	if l := c.mountLabel(); l != "" {
		s.call(what, unix.SYS_FSCONFIG, Of(fs), Int(unix.FSCONFIG_SET_STRING), Str("context"), Str(l), Int(0))
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
