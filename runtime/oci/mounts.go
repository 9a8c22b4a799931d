package oci

import (
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/kernel/mount"
	"berth/kernel/probe"
)

// A container without a mount namespace of its own has its root and its mounts in ours, one on top of
// the other at the root's path. They do not go with its last process: delete takes them away.

// noteMount notes what is mounted on the root before such a container is made.
func (r *record) noteMount(s *specs.Spec) (err error) {
	if namespaceOf(s, specs.MountNamespace) != nil {
		return nil
	}
	r.SharesMounts = true
	r.MountBefore, err = mountOn(r.Rootfs)
	return err
}

// mountOn numbers the topmost mount at a path (statx(2); the number is not used again since Linux 6.8).
func mountOn(path string) (uint64, error) {
	const unique = 0x4000 // STATX_MNT_ID_UNIQUE
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MNT_ID|unique, &st); err != nil {
		return 0, fmt.Errorf("stat %s: %w", path, err)
	}
	return st.Mnt_id, nil
}

// unmountRoot takes away a container's root with all that is mounted below it, and nothing of what was
// there before.
func (r *record) unmountRoot() error {
	if !r.SharesMounts {
		return nil
	}
	top, err := mountOn(r.Rootfs)
	if err != nil || top == r.MountBefore { // an error: the directory is gone, and its mounts with it
		return nil
	}
	if err := unix.Unmount(r.Rootfs, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount %s: %w", r.Rootfs, err)
	}
	return nil
}

// kernelViews are the mount points of proc and sysfs outside the root, the last mounted first.
func kernelViews(root string) ([]string, error) {
	list, err := mount.Self(func(i *mount.Info) bool {
		return (i.Type == "proc" || i.Type == "sysfs") && i.Root == "/" && !strings.HasPrefix(i.Point, root+"/")
	})
	var points []string
	for i := range list {
		points = append(points, list[i].Point)
	}
	slices.Reverse(points)
	return points, err
}

// dirMode is the mode of a directory in the root.
func (r *record) dirMode(path string) (uint32, bool) {
	root, err := unix.Open(r.Rootfs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, false
	}
	defer unix.Close(root)
	fd, err := mount.OpenInRoot(probe.Host(), root, path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, false
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	return st.Mode & 0o7777, err == nil
}
