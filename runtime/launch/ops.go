package launch

import (
	"strings"

	"golang.org/x/sys/unix"

	"berth/kernel/idmap"
	"berth/kernel/overlay"
	"berth/kernel/probe"
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
		return 0, copyUp(slots[st.Args[0].N], text(st.Args[1].D.Bytes), slots[st.Args[2].N], st.Args[3].N != 0)
	case st.Nr == OpCreateAs:
		return 0, createAs(slots[st.Args[0].N], uint32(st.Args[1].N), uint32(st.Args[2].N))
	case st.Nr == OpOverlay && st.Args[0].D != nil && st.Args[1].D != nil && st.Args[2].D != nil:
		return classicOverlay(st)
	case st.Args[0].D == nil || st.Args[1].D == nil:
		return -1, unix.EINVAL
	}
	return userNamespace(text(st.Args[0].D.Bytes), text(st.Args[1].D.Bytes))
}

func text(b []byte) string { return strings.TrimSuffix(string(b), "\x00") }

// classicOverlay mounts an overlay on a kernel before 6.5.
func classicOverlay(st *Step) (int, error) {
	s := overlay.Stack{Upper: text(st.Args[1].D.Bytes), Work: text(st.Args[2].D.Bytes), UserXattr: st.Args[3].N != 0}
	for _, layer := range st.Args[0].D.Ptrs {
		s.Lower = append(s.Lower, text(layer.To))
	}
	if st.Args[4].D != nil {
		s.Label = text(st.Args[4].D.Bytes)
	}
	have := probe.Host().Without(probe.OverlayAppend)
	if st.Args[5].D == nil {
		return s.Mount(have, s.Work)
	}
	uids, gids, _ := strings.Cut(text(st.Args[5].D.Bytes), ";")
	var m idmap.Pair
	var err error
	if m.Users, err = idmap.ParseProc(uids); err != nil {
		return -1, unix.EINVAL
	}
	if m.Groups, err = idmap.ParseProc(gids); err != nil {
		return -1, unix.EINVAL
	}
	s.Map = &overlay.Mapping{}
	s.Map.UID, s.Map.GID, _ = m.Root()
	if s.Map.NS, err = userNamespace(uids, gids); err != nil {
		return -1, err
	}
	defer unix.Close(s.Map.NS)
	return s.Mount(have, s.Work)
}
