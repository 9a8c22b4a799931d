package engine

import (
	"context"
	"sync"
	"time"

	"berth/base/fault"
	"berth/engine/logs"
	"berth/engine/logs/ship"
)

// packs are the containers whose rotated logs wait for compression. One at a time is compressed, beside whatever else the engine does: no
// container's output waits for it.
type packs struct {
	mu   sync.Mutex
	due  map[string]bool
	wake chan struct{} // has a token while something is due
}

// packRetry is when a compression that failed is tried again: a full disk may have been emptied.
const packRetry = time.Minute

// packLater has a container's rotated logs compressed. It does not wait.
func (e *Engine) packLater(id string) {
	p := &e.packs
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.due == nil {
		p.due = map[string]bool{}
	}
	p.due[id] = true
	select {
	case p.waker() <- struct{}{}:
	default:
	}
}

// waker gives the channel; p.mu is held.
func (p *packs) waker() chan struct{} {
	if p.wake == nil {
		p.wake = make(chan struct{}, 1)
	}
	return p.wake
}

// packLogs compresses for as long as the engine is open.
func (e *Engine) packLogs() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-e.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	e.packs.mu.Lock()
	wake := e.packs.waker()
	e.packs.mu.Unlock()
	for {
		select {
		case <-e.done:
			return
		case <-wake:
		}
		e.packs.mu.Lock()
		due := e.packs.due
		e.packs.due = nil
		e.packs.mu.Unlock()
		for id := range due {
			c := e.index.get(id)
			if c == nil || ctx.Err() != nil {
				continue
			}
			if err := e.packLog(ctx, c); err != nil && ctx.Err() == nil && !c.isGone() {
				e.log.Warn("a rotated log stays uncompressed for now", "container", id, "error", err)
				time.AfterFunc(packRetry, func() { e.packLater(id) })
			}
		}
	}
}

func (e *Engine) packLog(ctx context.Context, c *entry) error {
	r := c.record()
	cfg, err := e.logSettings(r)
	if err != nil || !cfg.Compress {
		return err
	}
	path := e.logPath(r)
	keep := func(int, uint64) bool { return false }
	if cfg.Ships { // what was not shipped is read again from where it is, and must be found by its inode
		keep = func(n int, _ uint64) bool {
			at, _, _, ok := ship.ReadMark(path)
			return !ok || !logs.Newer(path, at, n)
		}
	}
	return logs.Pack(ctx, path, cfg.Local, keep, func(inode uint64, copy string) error {
		ctx, cancel := context.WithTimeout(ctx, keeperPatience)
		defer cancel()
		err := e.keeper.PackedLog(ctx, path, inode, copy)
		if fault.Is(err, fault.NotImplemented) {
			return fault.New(fault.Unavailable, "the keeper is older than the engine and cannot take compressed logs")
		}
		return err
	})
}
