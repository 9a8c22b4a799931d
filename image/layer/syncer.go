package layer

import "sync"

// syncer makes what was written to the store's file system durable. The kernel tells once of what could not be written back, to whoever
// asks first (syncfs(2), since Linux 5.8): a later call says that all is well though the data is lost. So failures are counted, and who
// names data asks whether there was one since before its first byte.
type syncer struct {
	syncfs func() error

	one sync.Mutex // held over a sync and the counting: nobody returns with a failure in between that is not counted yet

	mu     sync.Mutex // guards what follows; held for memory only
	failed mark       // how often a sync has failed
	last   error
}

// mark is a moment in the life of a syncer.
type mark int

// now is the moment before something is written.
func (y *syncer) now() mark {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.failed
}

// sync writes everything out. It fails if something that was written since then is perhaps not on the disk.
func (y *syncer) sync(since mark) error {
	y.one.Lock()
	defer y.one.Unlock()
	if err := y.syncfs(); err != nil {
		y.mu.Lock()
		y.failed++
		y.last = err
		y.mu.Unlock()
	}
	return y.since(since)
}

// since tells without another sync whether something that was written since then is perhaps not on the disk.
func (y *syncer) since(m mark) error {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.failed > m {
		return y.last
	}
	return nil
}
