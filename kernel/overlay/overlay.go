package overlay

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/lsm/selinux"
	"berth/kernel/mount"
	"berth/kernel/probe"
)

// Stack is what to mount: directories, the topmost lower one first. Without Upper it is read-only and needs at
// least two lower ones.
type Stack struct {
	Lower       []string
	Upper, Work string
	UserXattr   bool     // marks are user.overlay.* attributes: mounts in a user namespace
	Label       string   // SELinux label that all files show; "" their own
	Volatile    bool     // fsync(2) in it and its end write nothing out: for what a crash may take, or what is synced later (Linux 5.10)
	Map         *Mapping // the mapping that owners are shown through; nil: as they are on disk. Linux 5.19
}

// Mount mounts the stack and gives a descriptor of its root. Closing the descriptor unmounts. scratch is an empty
// directory that nobody else uses meanwhile: kernels before 6.5 need it for a moment. Needs CAP_SYS_ADMIN.
func (s Stack) Mount(have probe.Features, scratch string) (fd int, err error) {
	if s.Volatile {
		// A former volatile mount has left its mark, with which the kernel refuses the directories: after a crash, ours are thrown away.
		if err := os.RemoveAll(filepath.Join(s.Work, "work", "incompat")); err != nil {
			return -1, fault.Wrap(fault.Internal, err, "mount overlay")
		}
	}
	if s.Map != nil {
		return s.mapped(have, scratch)
	}
	if have.Has(probe.OverlayAppend) {
		return s.assemble()
	}
	return s.classic(scratch)
}

// assemble is the way of Linux 6.5 and newer: layer by layer, of any number and length.
func (s Stack) assemble() (int, error) {
	f, err := mount.OpenFS("overlay")
	if err != nil {
		return -1, err
	}
	defer f.Close()
	set := func(key, value string) {
		if err == nil {
			err = f.Set(key, value)
		}
	}
	for _, dir := range s.Lower {
		set("lowerdir+", dir)
	}
	if s.Upper != "" {
		set("upperdir", s.Upper)
		set("workdir", s.Work)
	}
	if err != nil {
		return -1, err
	}
	attributes, err := s.options(f)
	if err != nil {
		return -1, err
	}
	return f.Mount(attributes)
}

// options sets all but the layers, and gives the attributes that the mount is to have.
func (s Stack) options(f *mount.FS) (attributes uint64, err error) {
	set := func(key, value string) {
		if err == nil {
			err = f.Set(key, value)
		}
	}
	if s.Upper != "" {
		set("index", "off")
	} else {
		attributes = unix.MOUNT_ATTR_RDONLY
	}
	set("redirect_dir", s.redirects())
	set("metacopy", "off")
	if s.Label != "" {
		set("context", s.Label)
	}
	if s.UserXattr && err == nil {
		err = f.Flag("userxattr")
	}
	if s.Volatile && s.Upper != "" && err == nil {
		err = f.Flag("volatile")
	}
	return attributes, err
}

// redirects: "nofollow" refuses redirects that a hostile layer might carry even where the kernel's default is to follow them.
func (s Stack) redirects() string { return "nofollow" }

// classic mounts with one string of options, of less than a page. Layers are named by short paths through
// descriptors so that 125 of them fit.
func (s Stack) classic(scratch string) (fd int, err error) {
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	var short []string
	for _, dir := range s.Lower {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, fault.Wrap(fault.Internal, err, "open layer %s", dir)
		}
		fds = append(fds, fd)
		short = append(short, fmt.Sprintf("/proc/self/fd/%d", fd))
	}
	options := "lowerdir=" + strings.Join(short, ":") + ",redirect_dir=" + s.redirects() + ",metacopy=off"
	flags := uintptr(unix.MS_RDONLY)
	if s.Upper != "" {
		flags = 0
		options += ",index=off,upperdir=" + escape(s.Upper) + ",workdir=" + escape(s.Work)
	}
	if s.UserXattr {
		options += ",userxattr"
	}
	if s.Volatile && s.Upper != "" {
		options += ",volatile"
	}
	if o := selinux.MountOption(s.Label); o != "" {
		options += "," + o
	}
	if err := unix.Mount("overlay", scratch, "overlay", flags, options); err != nil {
		return -1, fault.Wrap(fault.Internal, err, "mount overlay of %d layers", len(s.Lower))
	}
	defer func() {
		if uerr := unix.Unmount(scratch, unix.MNT_DETACH); uerr != nil {
			err = errors.Join(err, uerr)
		}
	}()
	return mount.OpenTree(unix.AT_FDCWD, scratch, true, false)
}

// escape protects what separates options.
func escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, ",", `\,`).Replace(path)
}
