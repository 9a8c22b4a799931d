package launch

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"berth/kernel/process"
)

// on calls clone on the kind of thread that the Program needs and waits for it.
func (l *Launcher) on(p *Program, clone func() error) error {
	done := make(chan error, 1)
	switch c := &p.Clone; {
	case c.Covered:
		if l.covered == nil {
			return fmt.Errorf("the program wants a covered root, but this launcher keeps no empty mount namespace")
		}
		l.covered <- func() { done <- clone() }
	case c.Views && l.hasViews():
		l.views <- func() { done <- clone() }
	default:
		runtime.LockOSThread()
		err := clone()
		runtime.UnlockOSThread()
		return err
	}
	return <-done
}

// hasViews says whether there are threads that see proc and sysfs alone, and makes them when it is first asked. Where they
// cannot be made (no sysfs is mounted), a child is cloned from the host's mount namespace as well.
func (l *Launcher) hasViews() bool {
	l.viewing.Do(func() {
		if l.covered != nil {
			l.views, _ = viewThreads()
		}
	})
	return l.views != nil
}

// viewThreads starts the threads whose mount namespace holds nothing but an empty read-only root, and proc and sysfs in it. A
// user namespace may mount these two only where it sees whole ones (Linux 4.2); all else of the host's need not be copied
// for it, nor taken down.
func viewThreads() (chan func(), error) {
	work, ready := make(chan func()), make(chan error)
	for range runtime.NumCPU() {
		placedThread(viewRoot, work, ready)
		if err := <-ready; err != nil {
			close(work)
			return nil, err
		}
	}
	return work, nil
}

// coveredThread has work served on a thread whose mount namespace holds nothing but an empty read-only
// root. A child cloned from it copies one mount instead of all of the host's, covers that one with
// the container's root, and needs neither pivot_root, which walks every thread of the host, nor the
// unmounting of an old root.
func coveredThread(work <-chan func(), ready chan<- error) {
	placedThread(func() error { return emptyRoot() }, work, ready)
}

// placedThread has work served on a thread that has taken its place; whether it could comes through ready.
func placedThread(place func() error, work <-chan func(), ready chan<- error) {
	process.Aside(func() {
		if err := place(); err != nil {
			ready <- err
			return
		}
		ready <- nil
		for f := range work {
			f()
		}
	})
}

// viewRoot makes the calling thread's root empty but for proc and sysfs.
func viewRoot() error {
	var views []int
	defer func() {
		for _, fd := range views {
			closeFD(fd)
		}
	}()
	paths := []string{"/proc", "/sys"}
	for _, path := range paths {
		fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return fmt.Errorf("clone %s: %w", path, err)
		}
		views = append(views, fd)
	}
	return emptyRoot(func() error {
		for i, path := range paths {
			if err := unix.Mkdir(path, 0o555); err != nil {
				return fmt.Errorf("make %s in the empty root: %w", path, err)
			}
			if err := unix.MoveMount(views[i], "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
				return fmt.Errorf("attach %s in the empty root: %w", path, err)
			}
		}
		return nil
	})
}

// emptyRoot makes the calling thread's root empty, but for what fill puts into it, and read-only.
func emptyRoot(fill ...func() error) error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make all mounts private: %w", err)
	}
	// Any directory will do as the place: it vanishes with the old root.
	if err := unix.Mount("berth", "/proc", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, fmt.Sprintf("size=0,nr_inodes=%d,mode=555", 1+2*len(fill))); err != nil {
		return fmt.Errorf("mount the empty root: %w", err)
	}
	if err := unix.Chdir("/proc"); err != nil {
		return fmt.Errorf("enter the empty root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot into the empty root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter the empty root: %w", err)
	}
	for _, f := range fill {
		if err := f(); err != nil {
			return err
		}
	}
	if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("make the empty root read-only: %w", err)
	}
	return nil
}

// enterPidNS makes the calling thread's next children members of a pid namespace (setns(2); fd is a
// namespace or a pidfd). leave undoes it; where that fails the thread must not be used again, so it
// stays locked to its goroutine.
func enterPidNS(fd, own int) (leave func(), err error) {
	if err := unix.Setns(fd, unix.CLONE_NEWPID); err != nil {
		return nil, &Error{Step: "join the pid namespace", Call: "setns(CLONE_NEWPID)", Errno: err.(unix.Errno)}
	}
	return func() {
		if err := unix.Setns(own, unix.CLONE_NEWPID); err != nil {
			runtime.LockOSThread()
		}
	}, nil
}
