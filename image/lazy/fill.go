package lazy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/failpoint"
	"berth/base/fault"
)

// startFill has the rest of the layer fetched and unpacked in the background, after a delay.
func (c *content) startFill(delay time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	c.mu.Lock()
	c.stop = cancel
	gone := c.gone
	c.mu.Unlock()
	if gone {
		cancel()
		return
	}
	c.stopped.Add(1)
	go func() {
		defer c.stopped.Done()
		defer cancel()
		if !c.pause(ctx, delay, true) {
			return
		}
		c.fill(ctx)
	}()
}

// pause waits; for somebody in a hurry, or for new credentials, it ends early. false: the layer ended.
func (c *content) pause(ctx context.Context, d time.Duration, unlessHurry bool) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		c.mu.Lock()
		changed, hurry, from := c.changed, c.hurry, c.from
		c.mu.Unlock()
		if unlessHurry && hurry {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case <-changed:
			c.mu.Lock()
			supplied := c.from != from
			c.mu.Unlock()
			if supplied && !unlessHurry {
				return true
			}
		}
	}
}

// fill tries until the layer is whole. Only the layer's end gives up.
func (c *content) fill(ctx context.Context) {
	wrong := 0
	for wait := time.Second; ; wait = min(2*wait, time.Minute) {
		err := c.fillOnce(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		c.report(err)
		if fault.KindOf(err) == fault.Invalid {
			if wrong++; wrong >= 3 {
				c.log.Error("a lazy layer is not what its image says, each time it is fetched; it stays as far as its chunks are right", "error", err)
				return
			}
		}
		if !c.pause(ctx, wait, false) {
			return
		}
	}
}

func (c *content) report(err error) {
	c.mu.Lock()
	c.problem = ""
	if err != nil {
		c.problem = err.Error()
	}
	c.tell()
	c.mu.Unlock()
	if err != nil {
		c.log.Warn("a lazy layer cannot be fetched to its end; tried again", "error", err)
	}
}

// fillOnce fetches what is missing, unpacks the blob and puts the layer into its place.
func (c *content) fillOnce(ctx context.Context) error {
	select {
	case c.m.fills <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-c.m.fills }()
	if err := c.cache.fill(ctx); err != nil {
		return err
	}
	c.cache.save()
	if err := failpoint.Hit("lazy/before-stage"); err != nil {
		return err
	}
	h := sha256.New()
	st, err := c.m.cfg.Layers.Stage(ctx, io.TeeReader(c.cache.reader(), h), c.record.DiffID)
	if err == nil && c.record.Blob.Digest.Algorithm() == digest.SHA256 && hex.EncodeToString(h.Sum(nil)) != c.record.Blob.Digest.Encoded() {
		st.Drop()
		err = fault.New(fault.Invalid, "the blob has not the digest %s", c.record.Blob.Digest)
	}
	if err != nil {
		if fault.KindOf(err) == fault.Invalid {
			c.cache.forget(0, c.record.Blob.Size) // all of it is fetched again
		}
		return err
	}
	if err := c.m.cfg.Layers.Complete(st); err != nil {
		st.Drop()
		return err
	}
	c.completed()
	return nil
}

// completed has views served from the unpacked files.
func (c *content) completed() {
	c.whole.Store(true)
	c.report(nil)
	c.m.memory.forget(c)
	c.cache.close()
	for _, name := range []string{"blob", "ranges"} {
		os.Remove(filepath.Join(c.dir, name))
	}
	c.log.Info("a lazy layer is whole")
	go c.leave()
}
