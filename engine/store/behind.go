package store

import (
	"log/slog"
	"sync"
	"time"

	"berth/base/failpoint"
)

// lag is how long a line may wait before it is on disk, half of the second that is promised.
const lag = 500 * time.Millisecond

// behind collects the newest line of each container and brings them to disk together, with one sync. It runs only while something
// waits: an idle engine has no timer.
type behind struct {
	to    *journal
	after func() // called after a flush by the timer
	log   *slog.Logger

	mu     sync.Mutex // guards all below
	dirty  map[string][]byte
	timer  *time.Timer // nil: nothing waits
	closed bool

	writing sync.Mutex // one flush at a time
}

func newBehind(to *journal, after func(), log *slog.Logger) *behind {
	return &behind{to: to, after: after, log: log, dirty: map[string][]byte{}}
}

func (b *behind) put(id string, line []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dirty[id] = line
	if b.timer == nil && !b.closed {
		b.timer = time.AfterFunc(lag, b.onTime)
	}
}

func (b *behind) drop(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.dirty, id)
}

func (b *behind) onTime() {
	if err := b.flush(); err != nil {
		b.log.Error("the states of containers do not reach the disk; until they do they are safe only until a reboot", "error", err)
	}
	b.after()
}

// flush writes and syncs what waits. What could not be written waits again.
func (b *behind) flush() error {
	b.writing.Lock()
	defer b.writing.Unlock()
	b.mu.Lock()
	dirty := b.dirty
	b.dirty, b.timer = map[string][]byte{}, nil
	b.mu.Unlock()
	if len(dirty) == 0 {
		return nil
	}
	var text []byte
	for _, line := range dirty {
		text = append(text, line...)
	}
	err := failpoint.Hit("store/before-behind")
	if err == nil {
		err = b.to.append(text)
	}
	if err == nil {
		err = failpoint.Hit("store/behind-unsynced")
	}
	if err == nil {
		err = b.to.sync()
	}
	if err != nil {
		b.again(dirty)
	}
	return err
}

func (b *behind) again(lines map[string][]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, line := range lines {
		if b.dirty[id] == nil {
			b.dirty[id] = line
		}
	}
	if b.timer == nil && !b.closed {
		b.timer = time.AfterFunc(20*lag, b.onTime)
	}
}

// close flushes. A timer that fires meanwhile finds nothing to do.
func (b *behind) close() error {
	b.mu.Lock()
	b.closed = true
	if b.timer != nil {
		b.timer.Stop()
	}
	b.mu.Unlock()
	return b.flush()
}
