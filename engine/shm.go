package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/engine/container"
	"berth/kernel/lsm/selinux"
	"berth/kernel/probe"
)

// A container whose IPC namespace may be shared has its /dev/shm mounted on the host, in its own directory, so that the others can bind
// it.

func (e *Engine) shmPath(cid string) string { return filepath.Join(e.store.Dir(cid), "shm") }

// mountShm makes the shared /dev/shm of a run.
func (e *Engine) mountShm(r *container.Record) error {
	if r.Spec.Namespaces.IPC != "shareable" {
		return nil
	}
	dir := e.shmPath(r.ID)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fault.Wrap(fault.Internal, err, "making the shared /dev/shm")
	}
	options := fmt.Sprintf("mode=1777,size=%d", r.Spec.Resources.ShmSize) + rootOptions(r)
	if o := selinux.MountOption(r.MountLabel); o != "" && e.facts.Has(probe.SELinux) {
		options += "," + o
	}
	err := unix.Mount("shm", dir, "tmpfs", unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, options)
	return fault.Wrap(fault.Internal, err, "mounting the shared /dev/shm")
}

// unmountShm takes it away. One that is not there is no error.
func (e *Engine) unmountShm(r *container.Record) error {
	if r.Spec.Namespaces.IPC != "shareable" {
		return nil
	}
	err := unix.Unmount(e.shmPath(r.ID), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return fault.Wrap(fault.Internal, err, "unmounting the shared /dev/shm")
}

// sweepMounts unmounts what containers of a dead engine left that do not run any more: a shared /dev/shm, images.
func (e *Engine) sweepMounts() {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return
	}
	below := e.store.Dir("") + "/"
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		rest, is := strings.CutPrefix(f[1], below)
		cid, what, _ := strings.Cut(rest, "/")
		if is && (what == "shm" || strings.HasPrefix(what, "images/")) {
			e.sweepMountOf(cid, f[1])
		}
	}
}

// sweepMountOf unmounts one of a container's. A container that is being started holds its op, and has its mount before it runs.
func (e *Engine) sweepMountOf(cid, path string) {
	if c := e.index.get(cid); c != nil {
		select {
		case c.op <- struct{}{}:
			defer func() { <-c.op }()
		default:
			return // somebody is at work on it and will see to it
		}
		if c.snapshot().State.Running {
			return
		}
	}
	if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		e.log.Warn("cannot unmount what a container left", "path", path, "error", err)
	}
}
