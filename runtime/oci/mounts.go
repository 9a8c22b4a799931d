package oci

import (
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/kernel/mount"
)

// A container without a mount namespace of its own has its root and its mounts in ours, one on top of
// the other at the root's path. They do not go with its last process: delete takes them away.

// countMounts notes what is mounted on the root before such a container is made.
func (r *record) countMounts(s *specs.Spec) error {
	if namespaceOf(s, specs.MountNamespace) != nil {
		return nil
	}
	list, err := mountsOn(r.Rootfs)
	r.SharesMounts, r.MountsBefore = true, len(list)
	return err
}

// mountsOn lists what is mounted on a directory.
func mountsOn(path string) ([]mount.Info, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	return mount.Self(func(i *mount.Info) bool { return i.Point == real })
}

// unmountRoot takes away a container's root with all that is mounted below it, and nothing of what was
// there before.
func (r *record) unmountRoot() error {
	if !r.SharesMounts {
		return nil
	}
	list, err := mountsOn(r.Rootfs)
	if err != nil {
		return nil // the directory is gone, and its mounts with it
	}
	for range len(list) - r.MountsBefore {
		if err := unix.Unmount(r.Rootfs, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return err
		}
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
