package quota

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/mount"
)

// Control is a file system that counts projects. It is safe for concurrent use, except Free together with Set.
type Control struct {
	fd     int
	device string // for kernels without quotactl_fd; "" when it is not needed
}

// Usage is what a project uses and may use, in bytes; Limit 0 is no limit.
type Usage struct {
	Used, Limit uint64
}

// Open opens the file system that holds the directory. fault.NotImplemented says why it counts no projects: it is none of the
// kinds that can, it is not mounted with prjquota, or the kernel has no quotas.
func Open(dir string) (*Control, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "open %s", dir)
	}
	c := &Control{fd: fd}
	if err := c.probe(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close gives the file system up. Limits stay.
func (c *Control) Close() error { return unix.Close(c.fd) }

func (c *Control) probe() error {
	_, err := c.Usage(0)
	if errors.Is(err, unix.ENOSYS) { // before Linux 5.14
		if c.device, err = deviceOf(c.fd); err == nil {
			_, err = c.Usage(0)
		}
	}
	if err == nil || errors.Is(err, unix.ENOENT) { // nothing is counted yet for project 0
		return nil
	}
	return fault.Wrap(fault.NotImplemented, err, "the file system keeps no project quotas (ext4 or xfs mounted with prjquota do)")
}

// Set limits the tree at dir, an empty directory, to bytes: dir gets the project number, which what is made in it inherits.
func (c *Control) Set(dir string, project uint32, bytes uint64) error {
	if err := c.Limit(project, bytes); err != nil {
		return err
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "open %s", dir)
	}
	defer unix.Close(fd)
	var a fsxattr
	if err := ioctl(fd, fsGetXattr, unsafe.Pointer(&a)); err != nil {
		return fault.Wrap(fault.NotImplemented, err, "read the project of %s", dir)
	}
	a.projid = project
	a.xflags |= projInherit
	if err := ioctl(fd, fsSetXattr, unsafe.Pointer(&a)); err != nil {
		return fault.Wrap(fault.NotImplemented, err, "give %s a project", dir)
	}
	return nil
}

// Project tells which project a directory belongs to; 0 is none.
func Project(dir string) (uint32, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fault.Wrap(fault.Internal, err, "open %s", dir)
	}
	defer unix.Close(fd)
	var a fsxattr
	if err := ioctl(fd, fsGetXattr, unsafe.Pointer(&a)); err != nil {
		return 0, fault.Wrap(fault.NotImplemented, err, "read the project of %s", dir)
	}
	return a.projid, nil
}

// Limit changes what a project may use; 0 takes the limit away. The kernel counts in blocks of 1024 bytes: bytes is rounded up.
func (c *Control) Limit(project uint32, bytes uint64) error {
	d := dqblk{hard: (bytes + 1023) / 1024, valid: validLimits}
	return fault.Wrap(fault.Internal, c.call(setQuota, project, &d), "limit project %d", project)
}

// Usage tells what a project uses. One that was never seen is ENOENT or zeros, as the file system likes.
func (c *Control) Usage(project uint32) (Usage, error) {
	var d dqblk
	if err := c.call(getQuota, project, &d); err != nil {
		return Usage{}, err
	}
	return Usage{Used: d.space, Limit: d.hard * 1024}, nil
}

// Free finds a project number from first on that has no limit and no use, skipping those that taken reports.
func (c *Control) Free(first uint32, taken func(uint32) bool) (uint32, error) {
	for p := first; p != 0; p++ {
		if taken(p) {
			continue
		}
		u, err := c.Usage(p)
		if errors.Is(err, unix.ENOENT) || err == nil && u == (Usage{}) {
			return p, nil
		}
		if err != nil {
			return 0, fault.Wrap(fault.Internal, err, "look for a free project")
		}
	}
	return 0, fault.New(fault.Internal, "all project numbers are taken")
}

// fsxattr is struct fsxattr of linux/fs.h.
type fsxattr struct {
	xflags, extsize, nextents, projid, cowextsize uint32
	_                                             [8]byte
}

// dqblk is struct if_dqblk of linux/quota.h. The kernel's generic commands serve ext4 and xfs alike.
type dqblk struct {
	hard, soft, space  uint64 // limits in blocks of 1024 bytes, space in bytes
	ihard, isoft, inos uint64
	btime, itime       uint64
	valid              uint32
	_                  uint32
}

const (
	fsGetXattr  = 0x801c581f // FS_IOC_FSGETXATTR
	fsSetXattr  = 0x401c5820 // FS_IOC_FSSETXATTR
	projInherit = 0x200      // FS_XFLAG_PROJINHERIT

	projectQuota = 2 // PRJQUOTA
	getQuota     = 0x800007<<8 | projectQuota
	setQuota     = 0x800008<<8 | projectQuota
	validLimits  = 1 // QIF_BLIMITS
)

func (c *Control) call(cmd int, project uint32, d *dqblk) error {
	var errno unix.Errno
	if c.device == "" {
		_, _, errno = unix.Syscall6(unix.SYS_QUOTACTL_FD, uintptr(c.fd), uintptr(cmd), uintptr(project), uintptr(unsafe.Pointer(d)), 0, 0)
	} else {
		name, err := unix.BytePtrFromString(c.device)
		if err != nil {
			return err
		}
		_, _, errno = unix.Syscall6(unix.SYS_QUOTACTL, uintptr(cmd), uintptr(unsafe.Pointer(name)), uintptr(project), uintptr(unsafe.Pointer(d)), 0, 0)
	}
	if errno != 0 {
		return os.NewSyscallError("quotactl", errno)
	}
	return nil
}

// deviceOf gives the block device of the file system that an open directory is on, as mountinfo names it.
func deviceOf(fd int) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	major, minor := int(unix.Major(uint64(st.Dev))), int(unix.Minor(uint64(st.Dev)))
	list, err := mount.Self(func(i *mount.Info) bool { return i.Major == major && i.Minor == minor && i.Source != "" })
	if err != nil {
		return "", err
	}
	for _, i := range list {
		var dev unix.Stat_t
		if unix.Stat(i.Source, &dev) == nil && dev.Mode&unix.S_IFMT == unix.S_IFBLK && dev.Rdev == uint64(st.Dev) {
			return i.Source, nil
		}
	}
	return "", unix.ENODEV
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}
