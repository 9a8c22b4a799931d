package layer

import "sync"

// flusher writes what was staged to the disk while more is being staged, so that the sync of a Commit finds little left to do: the
// kernel itself begins only when much more is waiting.
type flusher struct {
	sync func(mark) error

	mu      sync.Mutex
	waiting int64 // bytes staged since the last flush began
	running bool
	closed  bool
	done    sync.WaitGroup
}

// flushEvery is how many bytes of files make a flush worth its while.
const flushEvery = 32 << 20

// staged tells of bytes that are in the page cache now.
func (f *flusher) staged(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting += n
	if f.running || f.closed || f.waiting < flushEvery {
		return
	}
	f.waiting, f.running = 0, true
	f.done.Add(1)
	go f.flush()
}

func (f *flusher) flush() {
	defer f.done.Done()
	_ = f.sync(0) // an error is counted, and shows in the sync that counts
	f.mu.Lock()
	f.running = false
	f.mu.Unlock()
}

// close waits for a flush that is under way.
func (f *flusher) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.done.Wait()
}
