package idmap

import (
	"runtime"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// As calls do on a thread whose file system ids are uid and gid, with the capabilities that this thread has.
//
// Overlayfs works on its layers as who mounted it. On layers that are id-mapped the host's root has no id, so
// nothing could be made there: who mounts has to be the host's ids of the mapping's root. The switch of the file
// system user takes capabilities away (capabilities(7), "Effect of user ID changes"), which are put back. do must
// not hand work to other goroutines.
func As(uid, gid uint32, do func() error) (err error) {
	runtime.LockOSThread()
	var before [2]unix.CapUserData
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&header, &before[0]); err != nil {
		runtime.UnlockOSThread()
		return fault.Wrap(fault.Internal, err, "read own capabilities")
	}
	defer func() {
		setFS(0, 0)
		if berr := unix.Capset(&header, &before[0]); berr != nil || !isFS(0, 0) {
			if err == nil {
				err = fault.New(fault.Internal, "the thread could not become itself again: %v", berr)
			}
			return // it stays locked, and ends with its goroutine
		}
		runtime.UnlockOSThread()
	}()
	setFS(uid, gid)
	if err := unix.Capset(&header, &before[0]); err != nil {
		return fault.Wrap(fault.Forbidden, err, "keep capabilities")
	}
	if !isFS(uid, gid) {
		return fault.New(fault.Forbidden, "this process may not act as user %d and group %d on file systems", uid, gid)
	}
	return do()
}

// setFS sets this thread's file system ids; the calls tell nothing of a failure. The group comes first: a user
// other than root may not change it.
func setFS(uid, gid uint32) {
	_, _, _ = unix.RawSyscall(unix.SYS_SETFSGID, uintptr(gid), 0, 0)
	_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, uintptr(uid), 0, 0)
}

// isFS asks with ids that are none, which change nothing and give the present ones.
func isFS(uid, gid uint32) bool {
	u, _, _ := unix.RawSyscall(unix.SYS_SETFSUID, ^uintptr(0), 0, 0)
	g, _, _ := unix.RawSyscall(unix.SYS_SETFSGID, ^uintptr(0), 0, 0)
	return uint32(u) == uid && uint32(g) == gid
}
