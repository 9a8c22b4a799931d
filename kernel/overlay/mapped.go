package overlay

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/idmap"
	"berth/kernel/mount"
	"berth/kernel/probe"
)

// Mapping shows a stack's layers through an id mapping: whatever owner is on disk is shown as the mapping has it on
// the host, and what is made through the mount is stored with the id that it has inside. So one copy of the layers
// serves any mapping.
type Mapping struct {
	NS       int    // descriptor of a user namespace that has the mapping; see idmap.Namespace
	UID, GID uint32 // the host's ids of its root
}

// CanMap says why the kernel cannot show layers through a mapping; "" when it can.
func CanMap(have probe.Features) string { return have.Why(probe.OverlayIDMap) }

// mapped mounts the stack with its layers id-mapped. Layers are private clones of their mounts either way: the
// mapping is of this overlay alone.
func (s Stack) mapped(have probe.Features, scratch string) (fd int, err error) {
	if why := CanMap(have); why != "" {
		return -1, fault.New(fault.NotImplemented, "layers for a container in a user namespace of its own: %s", why)
	}
	if have.Has(probe.OverlayFD) && have.Has(probe.MoveDetached) {
		return s.mappedByFD()
	}
	return s.mappedInPlace(have, scratch)
}

// mappedByFD hands the layers over as descriptors of detached mounts. Overlayfs takes descriptors since Linux 6.13, of
// mounts that are attached nowhere since 6.15.
func (s Stack) mappedByFD() (fd int, err error) {
	var open []int
	defer func() {
		for _, fd := range open {
			unix.Close(fd)
		}
	}()
	f, err := mount.OpenFS("overlay")
	if err != nil {
		return -1, err
	}
	defer f.Close()
	for _, dir := range s.Lower {
		tree, err := s.Map.Clone(dir)
		if err != nil {
			return -1, err
		}
		open = append(open, tree)
		if err := f.SetFD("lowerdir+", tree); err != nil {
			return -1, err
		}
	}
	if s.Upper != "" {
		// Both must be on one mount.
		parent := filepath.Dir(s.Upper)
		tree, err := s.Map.Clone(parent)
		if err != nil {
			return -1, err
		}
		open = append(open, tree)
		for key, dir := range map[string]string{"upperdir": s.Upper, "workdir": s.Work} {
			name, err := filepath.Rel(parent, dir)
			if err != nil || strings.HasPrefix(name, "..") {
				return -1, fault.New(fault.Internal, "%s and %s must lie in one directory", s.Upper, s.Work)
			}
			at, err := unix.Openat(tree, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				return -1, fault.Wrap(fault.Internal, err, "open layer %s", dir)
			}
			open = append(open, at)
			if err := f.SetFD(key, at); err != nil {
				return -1, err
			}
		}
	}
	attributes, err := s.options(f)
	if err != nil {
		return -1, err
	}
	err = idmap.As(s.Map.UID, s.Map.GID, func() (err error) {
		fd, err = f.Mount(attributes)
		return err
	})
	return fd, err
}

// mappedInPlace is the way of Linux 5.19 to 6.14, which take layers by paths in the mount namespace of who mounts: in
// one of this call's own each layer is covered by its id-mapped clone, under the same path.
func (s Stack) mappedInPlace(have probe.Features, scratch string) (fd int, err error) {
	cover := append([]string(nil), s.Lower...)
	if s.Upper != "" {
		cover = append(cover, filepath.Dir(s.Upper))
	}
	fd = -1
	release, err := mount.Private(func() error {
		for _, dir := range cover {
			tree, err := s.Map.Clone(dir)
			if err != nil {
				return err
			}
			err = mount.Attach(tree, dir)
			if err != nil {
				return err
			}
		}
		return idmap.As(s.Map.UID, s.Map.GID, func() (err error) {
			plain := s
			plain.Map = nil
			fd, err = plain.Mount(have, scratch)
			return err
		})
	})
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return -1, err
	}
	release()
	return fd, nil
}

// Clone gives a detached, id-mapped clone of the mount that a directory is on, with the directory as its root.
func (m *Mapping) Clone(dir string) (int, error) {
	tree, err := mount.OpenTree(unix.AT_FDCWD, dir, true, false)
	if err != nil {
		return -1, err
	}
	if err := mount.IDMap(tree, m.NS, false); err != nil {
		unix.Close(tree)
		return -1, fault.In(err, "id-map %s: its file system may have no id-mapped mounts (ext4, xfs, btrfs, and tmpfs since Linux 6.3 have)", dir)
	}
	return tree, nil
}

// Mappable says whether the file system that a path is on can be id-mapped, by trying. ns is as in Mapping. An error says nothing about the
// file system: another time may give another answer.
func Mappable(path string, ns int) (bool, error) {
	if _, err := os.Stat(path); err != nil {
		return false, fault.Wrap(fault.KindOf(err), err, "id-map %s", path)
	}
	m := Mapping{NS: ns}
	fd, err := m.Clone(path)
	for _, passing := range [...]error{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOSPC, unix.EINTR} {
		if errors.Is(err, passing) {
			return false, err
		}
	}
	if err != nil {
		return false, nil
	}
	unix.Close(fd)
	return true, nil
}
