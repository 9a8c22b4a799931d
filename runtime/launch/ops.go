package launch

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// runOp performs one of Prepare's operations that are more than one system call.
func runOp(st *Step, slots []int) (int, error) {
	for _, a := range st.Args {
		if a.Kind == ArgData && a.D == nil || a.Kind == ArgSlot && slots[a.N] < 0 {
			return -1, unix.EINVAL
		}
	}
	switch {
	case st.Nr == OpFail:
		return -1, unix.Errno(st.Args[0].N)
	case st.Nr == OpCopyUp && st.Args[1].D != nil:
		path := strings.TrimSuffix(string(st.Args[1].D.Bytes), "\x00")
		return 0, copyUp(slots[st.Args[0].N], path, slots[st.Args[2].N])
	case st.Args[0].D == nil || st.Args[1].D == nil:
		return -1, unix.EINVAL
	}
	text := func(a *Arg) string { return strings.TrimSuffix(string(a.D.Bytes), "\x00") }
	return userNamespace(text(&st.Args[0]), text(&st.Args[1]))
}

// userNamespace makes a user namespace with the maps and nobody in it, for id-mapped mounts, and gives
// its descriptor. A namespace needs a process to begin with: the smallest Program there is, a child
// that waits to be ended.
func userNamespace(uids, gids string) (int, error) {
	p := &Program{Slots: append([]string(nil), fixedNames...), Listener: NoSlot,
		Clone: Clone{Flags: unix.CLONE_NEWUSER, Cgroup: NoSlot, PidNS: NoSlot, Waits: true, Maps: &Maps{UID: uids, GID: gids}}}
	c := &compiler{p: p, kid: section{p: p}}
	c.barrier(syncReady, "wait for the end")
	c.kid.call("end", OpFail, Int(int(unix.ECANCELED)))
	p.Child = c.kid.steps
	proc, err := (&Launcher{}).Start(p, Stdio{In: -1, Out: -1, Err: -1})
	if err != nil {
		return -1, err
	}
	fd, err := unix.Open("/proc/"+strconv.Itoa(proc.PID)+"/ns/user", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	_ = unix.Close(proc.PidFD)
	_ = proc.Release() // the child fails as it was told to
	_, _ = unix.Wait4(proc.PID, nil, 0, nil)
	return fd, err
}
