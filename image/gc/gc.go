// Package gc keeps a disk from filling up with images that nobody uses.
//
// It looks at the disk now and then. When that is fuller than the high watermark, images go that were not used for longest, until it is
// no fuller than the low one. What may go at all is decided in package image (PlanCollect): never what a container uses, what is off
// limits, or what is younger than the age that was set. Every deletion is an event, with the attribute reason=gc.
package gc

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/docker/go-units"

	"berth/base/removal"
	"berth/image"
	"berth/kernel/disk"
)

// Level is how full a disk is: a share that is used, or bytes that are free.
type Level struct {
	Used float64 // percent; 0: Free counts
	Free int64   // bytes
}

// Zero reports whether nothing was said.
func (l Level) Zero() bool { return l == Level{} }

// Over reports whether a disk is fuller than the level.
func (l Level) Over(s disk.Space) bool {
	if l.Used > 0 {
		return s.Used() > l.Used
	}
	return s.Free < l.Free
}

// Missing gives how many bytes must become free for a disk to be at the level.
func (l Level) Missing(s disk.Space) int64 {
	if l.Used > 0 {
		return max(0, int64(math.Ceil(float64(s.Total)*(1-l.Used/100)))-s.Free)
	}
	return max(0, l.Free-s.Free)
}

// String is the level as people write it.
func (l Level) String() string {
	switch {
	case l.Zero():
		return "off"
	case l.Used > 0:
		return fmt.Sprintf("%g%% used", l.Used)
	}
	return units.HumanSize(float64(l.Free)) + " free"
}

// Settings are what a person asks for. They may change while a Collector lives.
type Settings struct {
	High, Low Level // High zero: nothing is collected by itself
	Keep      []string
	MinAge    time.Duration
}

// Store is what a Collector needs of the image store.
type Store interface {
	PlanCollect(o image.CollectOptions) *removal.Plan
	ApplyCollect(ctx context.Context, plan *removal.Plan) image.PruneReport
	// Settle waits until what was deleted is off the disk.
	Settle(ctx context.Context) error
}

// Config says what a Collector works on.
type Config struct {
	Store    Store
	Settings func() Settings
	Space    func() (disk.Space, error)
	Log      *slog.Logger // nil: nothing is logged
}

// Collector keeps the disk below the watermarks.
type Collector struct {
	cfg  Config
	kick chan struct{}
	stop context.CancelFunc
	work sync.WaitGroup

	turn sync.Mutex // held over a collection
}

// lookEvery is how often the disk is looked at when nothing has come in.
const lookEvery = 30 * time.Second

// Open begins to look after the disk.
func Open(cfg Config) *Collector {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &Collector{cfg: cfg, kick: make(chan struct{}, 1), stop: cancel}
	c.work.Go(func() { c.watch(ctx) })
	return c
}

// Close ends it.
func (c *Collector) Close() {
	c.stop()
	c.work.Wait()
}

// Look has the disk looked at soon: something has come in.
func (c *Collector) Look() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

func (c *Collector) watch(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	stuck := false
	for {
		select {
		case <-tick.C:
		case <-c.kick:
		case <-ctx.Done():
			return
		}
		if due, err := c.due(); err == nil && !due { // as nearly always: nothing is asked of the store then
			stuck = false
			continue
		}
		p, err := c.Plan(false)
		if err != nil {
			c.cfg.Log.Warn("images cannot be collected", "error", err)
			continue
		}
		if !p.Due {
			stuck = false
			continue
		}
		out := c.Apply(ctx, p.Plan)
		if len(out.Removed) > 0 {
			c.cfg.Log.Info("images were collected", "images", len(out.Removed), "bytes", out.Reclaimed, "disk", p.State())
		}
		after, err := c.cfg.Space()
		over := err == nil && p.Low.Over(after)
		if over && !stuck {
			c.cfg.Log.Warn("the disk stays fuller than gc-low: no other image may go", "used", fmt.Sprintf("%.1f%%", after.Used()), "wanted", p.Low.String())
		}
		stuck = over
	}
}

// due reports whether the disk is fuller than the high watermark.
func (c *Collector) due() (bool, error) {
	set := c.cfg.Settings()
	if set.High.Zero() {
		return false, nil
	}
	space, err := c.cfg.Space()
	return err == nil && set.High.Over(space), err
}

// Plan is what a collection would do, and why.
type Plan struct {
	*removal.Plan
	High, Low Level
	Disk      disk.Space
	Due       bool // the disk is fuller than High
}

// State is how full the disk is, in words.
func (p *Plan) State() string {
	return fmt.Sprintf("%.1f%% used, %s free", p.Disk.Used(), units.HumanSize(float64(p.Disk.Free)))
}

// Plan says what would be collected now: nothing while the disk is not fuller than High. With now, what would be collected if it were; and
// where no watermarks are set, everything that may go.
func (c *Collector) Plan(now bool) (*Plan, error) {
	space, err := c.cfg.Space()
	if err != nil {
		return nil, err
	}
	set := c.cfg.Settings()
	p := &Plan{High: set.High, Low: set.Low, Disk: space, Due: !set.High.Zero() && set.High.Over(space)}
	o := image.CollectOptions{Keep: set.Keep, MinAge: set.MinAge, Now: time.Now()}
	switch {
	case !p.Due && !now:
	case set.Low.Zero():
		o.Free = -1
	default:
		o.Free = set.Low.Missing(space)
	}
	p.Plan = c.cfg.Store.PlanCollect(o)
	return p, nil
}

// Apply collects what a plan says, as far as nothing has changed since.
func (c *Collector) Apply(ctx context.Context, plan *removal.Plan) removal.Outcome {
	c.turn.Lock()
	defer c.turn.Unlock()
	report := c.cfg.Store.ApplyCollect(ctx, plan)
	if err := c.cfg.Store.Settle(ctx); err != nil {
		c.cfg.Log.Debug("what was collected is still being deleted", "error", err)
	}
	out := removal.Outcome{Skipped: report.Skipped, Reclaimed: report.Reclaimed}
	skipped := map[string]bool{}
	for _, i := range report.Skipped {
		skipped[i.ID] = true
	}
	for _, i := range plan.Remove {
		if !skipped[i.ID] {
			out.Removed = append(out.Removed, i)
		}
	}
	return out
}
