package logs

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// Watcher wakes followers when something happens in their log's directory. All followers share one inotify instance, of which a
// machine gives each user only 128 by default; it exists while there is a Watch. The zero value is ready.
type Watcher struct {
	mu      sync.Mutex // guards all below; held for memory and inotify's calls, which do not block
	file    *os.File   // nil: no instance now
	watches map[int32]map[*Watch]struct{}
}

// Watch is one follower's wake-up.
type Watch struct {
	C chan struct{} // holds a token when something happened

	w     *Watcher
	wd    int32
	works bool
}

// Watch starts watching the directory of path. Where inotify is exhausted the Watch never wakes and says so by Works.
func (w *Watcher) Watch(path string) *Watch {
	h := &Watch{C: make(chan struct{}, 1), w: w}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return h
		}
		w.file = os.NewFile(uintptr(fd), "inotify")
		w.watches = map[int32]map[*Watch]struct{}{}
		go w.read(w.file)
	}
	wd, err := w.add(filepath.Dir(path))
	if err != nil {
		w.closeIfIdle()
		return h
	}
	if w.watches[wd] == nil {
		w.watches[wd] = map[*Watch]struct{}{}
	}
	w.watches[wd][h] = struct{}{}
	h.wd, h.works = wd, true
	return h
}

// Works reports whether wake-ups will come.
func (h *Watch) Works() bool { return h.works }

// Close ends the watch.
func (h *Watch) Close() {
	w := h.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if !h.works {
		return
	}
	h.works = false
	delete(w.watches[h.wd], h)
	if len(w.watches[h.wd]) == 0 {
		delete(w.watches, h.wd)
		w.remove(h.wd)
	}
	w.closeIfIdle()
}

func (w *Watcher) add(dir string) (wd int32, err error) {
	conn, err := w.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	const what = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_MOVED_TO
	if cerr := conn.Control(func(fd uintptr) {
		var n int
		n, err = unix.InotifyAddWatch(int(fd), dir, what)
		wd = int32(n)
	}); cerr != nil {
		return 0, cerr
	}
	return wd, err
}

func (w *Watcher) remove(wd int32) {
	conn, err := w.file.SyscallConn()
	if err != nil {
		return
	}
	conn.Control(func(fd uintptr) { unix.InotifyRmWatch(int(fd), uint32(wd)) }) // already gone with the directory: no matter
}

func (w *Watcher) closeIfIdle() {
	if w.file != nil && len(w.watches) == 0 {
		w.file.Close()
		w.file = nil
	}
}

// read passes events on until the instance is closed.
func (w *Watcher) read(f *os.File) {
	buf := make([]byte, 16<<10)
	for {
		n, err := f.Read(buf)
		if err != nil {
			return
		}
		w.mu.Lock()
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			wd := int32(binary.NativeEndian.Uint32(b))
			mask := binary.NativeEndian.Uint32(b[4:])
			size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
			if mask&unix.IN_Q_OVERFLOW != 0 { // events were lost: everybody looks
				for wd := range w.watches {
					w.wake(wd)
				}
			}
			w.wake(wd)
			b = b[min(size, len(b)):]
		}
		w.mu.Unlock()
	}
}

func (w *Watcher) wake(wd int32) {
	for h := range w.watches[wd] {
		select {
		case h.C <- struct{}{}:
		default:
		}
	}
}
