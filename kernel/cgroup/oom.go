package cgroup

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// OOMKills counts the processes of the cgroup, and of cgroups below it, that the kernel's OOM killer has
// ended so far. 0 without a memory controller. It is to be read before Remove.
func (c *Cgroup) OOMKills() uint64 {
	h := c.layout.Find("memory")
	if h == nil {
		return 0
	}
	dir := c.Dir("memory")
	if dir == "" {
		return 0
	}
	if h.V2 {
		b, _ := readFile(dir + "/memory.events") // counts the descendants' too
		n, _ := atou(keyed(b, "oom_kill"))
		return n
	}
	return oomKillsV1(dir)
}

// oomKillsV1: v1 counts each cgroup's own (oom_kill, Linux 4.13).
func oomKillsV1(dir string) uint64 {
	b, _ := readFile(dir + "/memory.oom_control")
	n, _ := atou(keyed(b, "oom_kill"))
	children, _ := subdirs(dir)
	for _, child := range children {
		n += oomKillsV1(child)
	}
	return n
}

// OOMWatch tells of OOM kills as they happen. FD becomes readable then; call Drain and read OOMKills.
// When the cgroup is removed FD becomes readable a last time.
type OOMWatch struct {
	fd      int
	inotify bool
	cgroup  *Cgroup
}

// WatchOOM begins to watch. The caller polls FD and closes the watch.
func (c *Cgroup) WatchOOM() (*OOMWatch, error) {
	h := c.layout.Find("memory")
	dir := c.Dir("memory")
	if h == nil || dir == "" {
		return nil, fault.New(fault.NotImplemented, "cannot watch for OOM kills: cgroup %s has no memory controller", c.path)
	}
	if h.V2 {
		return c.watchV2(dir)
	}
	return c.watchV1(dir)
}

// watchV2: the kernel announces a change of memory.events as a modification of the file.
func (c *Cgroup) watchV2(dir string) (*OOMWatch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "watch %s/memory.events", dir)
	}
	if _, err := unix.InotifyAddWatch(fd, dir+"/memory.events", unix.IN_MODIFY|unix.IN_DELETE_SELF); err != nil {
		unix.Close(fd)
		return nil, fault.Wrap(fault.Internal, err, "watch %s/memory.events", dir)
	}
	return &OOMWatch{fd, true, c}, nil
}

// watchV1: an eventfd and an open memory.oom_control are registered by writing both numbers to
// cgroup.event_control; the second may be closed then.
func (c *Cgroup) watchV1(dir string) (*OOMWatch, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "make an eventfd")
	}
	oom, err := open(dir+"/memory.oom_control", unix.O_RDONLY)
	if err == nil {
		err = writeFile(dir+"/cgroup.event_control", itoa(int64(fd))+" "+itoa(int64(oom)))
		unix.Close(oom)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fault.Wrap(fault.Internal, err, "watch %s/memory.oom_control", dir)
	}
	return &OOMWatch{fd, false, c}, nil
}

// FD is the descriptor to poll for reading. It is non-blocking and belongs to the watch.
func (w *OOMWatch) FD() int { return w.fd }

// Drain empties FD after it became readable, and reports whether the cgroup still exists.
func (w *OOMWatch) Drain() bool {
	buf := make([]byte, 4096)
	for {
		n, err := unix.Read(w.fd, buf)
		if err == unix.EINTR {
			continue
		}
		if n <= 0 || !w.inotify || w.removed(buf[:n]) {
			break
		}
	}
	dir := w.cgroup.Dir("memory")
	return dir != "" && exists(dir)
}

func (w *OOMWatch) removed(events []byte) bool {
	for len(events) >= unix.SizeofInotifyEvent {
		mask := binary.NativeEndian.Uint32(events[unsafe.Offsetof(unix.InotifyEvent{}.Mask):])
		if mask&(unix.IN_DELETE_SELF|unix.IN_IGNORED) != 0 {
			return true
		}
		size := binary.NativeEndian.Uint32(events[unsafe.Offsetof(unix.InotifyEvent{}.Len):])
		events = events[min(len(events), unix.SizeofInotifyEvent+int(size)):]
	}
	return false
}

// Close ends the watch.
func (w *OOMWatch) Close() error {
	if w.fd < 0 {
		return nil
	}
	err := unix.Close(w.fd)
	w.fd = -1
	return err
}
