package cgroup

import (
	"encoding/binary"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// OOMWatcher tells of OOM kills in many cgroups as they happen, with one thread's wait for all: v1's kernel signals an eventfd for each
// cgroup; changes of v2's memory.events come through one inotify descriptor, of which a user may have 128 only
// (fs.inotify.max_user_instances). All methods may be called from many goroutines, Wait from one.
type OOMWatcher struct {
	epoll, inotify int

	mu     sync.Mutex
	keys   map[int32]string // by descriptor (v1, from 1 on) or by watch (v2, below 0: -1 minus its number)
	marks  map[string]int32
	closed bool
	wake   int // eventfd by which Close ends a Wait
}

// NewOOMWatcher makes a watcher of nothing.
func NewOOMWatcher() (*OOMWatcher, error) {
	w := &OOMWatcher{epoll: -1, inotify: -1, wake: -1, keys: map[int32]string{}, marks: map[string]int32{}}
	var err error
	if w.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err == nil {
		if w.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err == nil {
			err = w.poll(w.wake)
		}
	}
	if err != nil {
		w.release()
		return nil, fault.Wrap(fault.Internal, err, "make a watch for OOM kills")
	}
	return w, nil
}

func (w *OOMWatcher) poll(fd int) error {
	return unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

// Add watches a cgroup; key is what Wait gives for it. A key that is watched already is watched anew. fault.NotImplemented: the cgroup
// has no memory controller.
func (w *OOMWatcher) Add(key string, c *Cgroup) error {
	h, dir := c.layout.Find("memory"), c.Dir("memory")
	if h == nil || dir == "" {
		return fault.New(fault.NotImplemented, "cannot watch for OOM kills: cgroup %s has no memory controller", c.path)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return fault.New(fault.Unavailable, "the watch for OOM kills is closed")
	}
	w.remove(key)
	if h.V2 {
		return w.addV2(key, dir)
	}
	o, err := c.watchV1(dir)
	if err != nil {
		return err
	}
	if err := w.poll(o.fd); err != nil {
		o.Close()
		return fault.Wrap(fault.Internal, err, "watch %s", dir)
	}
	w.keys[int32(o.fd)], w.marks[key] = key, int32(o.fd)
	return nil
}

// addV2 needs w.mu.
func (w *OOMWatcher) addV2(key, dir string) error {
	if w.inotify < 0 {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return fault.Wrap(fault.Internal, err, "watch %s/memory.events", dir)
		}
		if err := w.poll(fd); err != nil {
			unix.Close(fd)
			return fault.Wrap(fault.Internal, err, "watch %s/memory.events", dir)
		}
		w.inotify = fd
	}
	n, err := unix.InotifyAddWatch(w.inotify, dir+"/memory.events", unix.IN_MODIFY)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "watch %s/memory.events", dir)
	}
	w.keys[-1-int32(n)], w.marks[key] = key, -1-int32(n)
	return nil
}

// Remove stops watching; a key that is not watched is in order. It may be called before or after the cgroup is removed.
func (w *OOMWatcher) Remove(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.remove(key)
}

func (w *OOMWatcher) remove(key string) {
	mark, watched := w.marks[key]
	if !watched {
		return
	}
	delete(w.marks, key)
	delete(w.keys, mark)
	if mark < 0 {
		_, _ = unix.InotifyRmWatch(w.inotify, uint32(-1-mark)) // gone with its file already where the cgroup is removed
		return
	}
	unix.Close(int(mark)) // which takes it out of epoll and ends the kernel's side of it
}

// Wait blocks until something happens in a watched cgroup and gives its key: the caller then looks at OOMKills, since v1 signals before
// it kills, and v2 also other events of memory. ok is false once the watcher is closed.
func (w *OOMWatcher) Wait() (keys []string, ok bool) {
	events := make([]unix.EpollEvent, 16)
	for {
		n, err := unix.EpollWait(w.epoll, events, -1)
		w.mu.Lock()
		if w.closed || err != nil && err != unix.EINTR {
			w.mu.Unlock()
			return nil, false
		}
		for _, e := range events[:max(0, n)] {
			switch {
			case int(e.Fd) == w.inotify:
				keys = append(keys, w.modified()...)
			case w.keys[e.Fd] != "":
				var count [8]byte
				_, _ = unix.Read(int(e.Fd), count[:]) // how often does not matter
				keys = append(keys, w.keys[e.Fd])
			}
		}
		w.mu.Unlock()
		if len(keys) > 0 {
			return keys, true
		}
	}
}

// modified reads what inotify has to tell. w.mu is held.
func (w *OOMWatcher) modified() (keys []string) {
	buf := make([]byte, 16<<10)
	n, err := unix.Read(w.inotify, buf)
	if err != nil {
		return nil
	}
	seen := map[string]bool{}
	for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
		watch := int32(binary.NativeEndian.Uint32(b[unsafe.Offsetof(unix.InotifyEvent{}.Wd):]))
		if key := w.keys[-1-watch]; key != "" && !seen[key] {
			keys, seen[key] = append(keys, key), true
		}
		size := binary.NativeEndian.Uint32(b[unsafe.Offsetof(unix.InotifyEvent{}.Len):])
		b = b[min(len(b), unix.SizeofInotifyEvent+int(size)):]
	}
	return keys
}

// Close ends the watch, and a Wait that is under way.
func (w *OOMWatcher) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	w.closed = true
	_, _ = unix.Write(w.wake, binary.NativeEndian.AppendUint64(nil, 1)) // cannot fail: the counter is at 0
}

// Release gives the descriptors up, once no Wait is under way any more.
func (w *OOMWatcher) Release() {
	w.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.release()
}

func (w *OOMWatcher) release() {
	for mark := range w.keys {
		if mark >= 0 {
			unix.Close(int(mark))
		}
	}
	clear(w.keys)
	clear(w.marks)
	for _, fd := range []*int{&w.inotify, &w.wake, &w.epoll} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
}
