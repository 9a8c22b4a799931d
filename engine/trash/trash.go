package trash

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"berth/base/fault"
	"berth/base/id"
	"berth/base/removal"
)

// Bin is a room that keeps what was removed.
type Bin interface {
	// Trashed lists it.
	Trashed() []removal.Trashed
	// RestoreTrashed brings one back, by its ID in the list; fault.NotFound where it is not there.
	RestoreTrashed(ctx context.Context, id string) (removal.Restored, error)
	// DeleteTrashed deletes one for good and tells how many bytes it had.
	DeleteTrashed(ctx context.Context, id string) (freed int64, err error)
}

// Config says what a Trash is made of.
type Config struct {
	Bins []Bin
	// Full reports whether entries are to go before their time, so that there is room; nil: never.
	Full func() bool
	// Settle waits until what was deleted is off the disk, before Full is asked again; nil: it is at once.
	Settle func(ctx context.Context)
	Now    func() time.Time // the wall clock; nil: time.Now
	Log    *slog.Logger     // nil: nothing is logged
}

// Trash is everything that can be restored. It is safe for concurrent use.
type Trash struct {
	cfg  Config
	stop context.CancelFunc
	work sync.WaitGroup

	// Of the watch.
	wall   time.Time     // at the last look
	passed time.Duration // at the last look: since the watch began, by a clock that nobody sets
	held   time.Duration // nothing expires before so much has passed
}

const (
	// lookEvery is how often entries that are past their time are looked for.
	lookEvery = 30 * time.Second
	// leap is how much more than in truth passes by the wall clock when that was set, or the machine was asleep.
	leap = time.Minute
	// mostHeld bounds how long nothing expires after that.
	mostHeld = 24 * time.Hour
)

// Open begins to watch over the bins.
func Open(cfg Config) *Trash {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t := &Trash{cfg: cfg, stop: cancel}
	t.work.Go(func() { t.watch(ctx) })
	return t
}

// Close ends the watch. What is in the trash stays.
func (t *Trash) Close() {
	t.stop()
	t.work.Wait()
}

func (t *Trash) watch(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	begun := time.Now()
	t.wall = t.cfg.Now()
	for {
		if t.trusts(t.cfg.Now(), time.Since(begun)) {
			t.expire(ctx)
		}
		t.makeRoom(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// entry is one thing in the trash and the bin it is in.
type entry struct {
	removal.Trashed
	bin Bin
}

func (t *Trash) entries() (all []entry) {
	for _, b := range t.cfg.Bins {
		for _, x := range b.Trashed() {
			all = append(all, entry{x, b})
		}
	}
	slices.SortStableFunc(all, func(a, b entry) int { return cmp.Or(b.Removed.Compare(a.Removed), cmp.Compare(a.ID, b.ID)) })
	return all
}

// List gives what is in the trash, the latest first.
func (t *Trash) List() []removal.Trashed {
	list := []removal.Trashed{}
	for _, e := range t.entries() {
		list = append(list, e.Trashed)
	}
	return list
}

// trusts reports whether what is past its time by the wall clock is to be deleted. A clock that was set, or a machine that slept, takes
// time away from whoever wants something back: as much is given again, a day at most. passed is told by a clock that nobody sets.
func (t *Trash) trusts(wall time.Time, passed time.Duration) bool {
	if leapt := wall.Round(0).Sub(t.wall.Round(0)) - (passed - t.passed); leapt > leap {
		t.held = passed + min(leapt, mostHeld)
		t.cfg.Log.Warn("the clock was set ahead, or the machine was asleep: nothing in the trash is deleted for some time", "by", leapt.Round(time.Second), "for", min(leapt, mostHeld).Round(time.Second))
	}
	t.wall, t.passed = wall, passed
	return passed >= t.held
}

// expire deletes what is past its time.
func (t *Trash) expire(ctx context.Context) {
	now := t.cfg.Now()
	for _, e := range t.entries() {
		if now.Before(e.Expires) || ctx.Err() != nil {
			continue
		}
		t.delete(ctx, e, "its time is over")
	}
}

// makeRoom deletes the oldest entries while the disk is too full.
func (t *Trash) makeRoom(ctx context.Context) {
	if t.cfg.Full == nil || !t.cfg.Full() {
		return
	}
	all := t.entries()
	slices.Reverse(all)
	for _, e := range all {
		if ctx.Err() != nil || !t.cfg.Full() {
			return
		}
		t.delete(ctx, e, "the disk is getting full")
		if t.cfg.Settle != nil {
			t.cfg.Settle(ctx)
		}
	}
}

func (t *Trash) delete(ctx context.Context, e entry, why string) {
	same := func(x removal.Trashed) bool { return x.ID == e.ID && x.Expires.Equal(e.Expires) }
	if !slices.ContainsFunc(e.bin.Trashed(), same) { // restored since it was listed, and perhaps removed anew
		return
	}
	freed, err := e.bin.DeleteTrashed(ctx, e.ID)
	if err != nil {
		if !fault.Is(err, fault.NotFound) {
			t.cfg.Log.Error("something in the trash cannot be deleted", "kind", e.Kind, "name", e.Name, "error", err)
		}
		return
	}
	t.cfg.Log.Info("deleted from the trash", "kind", e.Kind, "name", e.Name, "id", e.ID, "bytes", freed, "because", why)
}

// find gives the entry that a person means: by id, the beginning of one, or a name that only one has. Images are also meant by the id of
// the image, volumes by their name.
func (t *Trash) find(text string) (entry, error) {
	var byID, byPrefix, byName []entry
	hex := strings.TrimPrefix(text, "sha256:")
	for _, e := range t.entries() {
		switch have := strings.TrimPrefix(e.ID, "sha256:"); {
		case e.ID == text || have == hex:
			byID = append(byID, e)
		case id.IsHex(hex) && len(hex) >= 3 && strings.HasPrefix(have, hex):
			byPrefix = append(byPrefix, e)
		}
		if e.Name == strings.TrimPrefix(text, "/") || slices.Contains(e.Names, text) || slices.Contains(e.Names, text+":latest") {
			byName = append(byName, e)
		}
	}
	for _, found := range [][]entry{byID, byName, byPrefix} {
		switch len(found) {
		case 0:
		case 1:
			return found[0], nil
		default:
			var ids []string
			for _, e := range found {
				ids = append(ids, e.Kind+" "+id.Short(e.ID)+" of "+e.Removed.Format(time.RFC3339))
			}
			return entry{}, fault.New(fault.Conflict, "%s is more than one thing in the trash: name one by its id (%s)", text, strings.Join(ids, ", "))
		}
	}
	return entry{}, fault.New(fault.NotFound, "there is no %s in the trash", text)
}

// Restore brings an entry back, and first what went with it. The answer's first element is the one that was asked for.
func (t *Trash) Restore(ctx context.Context, text string) ([]removal.Restored, error) {
	main, err := t.find(text)
	if err != nil {
		return nil, err
	}
	var with []removal.Restored
	for _, e := range t.entries() {
		if e.Kind == removal.Image || e.With == "" || e.With != main.Of || e.ID == main.ID { // images of one removal come back together by themselves
			continue
		}
		r, err := e.bin.RestoreTrashed(ctx, e.ID)
		if err != nil {
			t.cfg.Log.Warn("what went with something cannot be restored with it", "kind", e.Kind, "name", e.Name, "error", err)
			continue
		}
		with = append(with, r)
	}
	r, err := main.bin.RestoreTrashed(ctx, main.ID)
	if err != nil {
		return with, err
	}
	return append([]removal.Restored{r}, with...), nil
}

// Empty deletes one entry for good, or with "" all of them.
func (t *Trash) Empty(ctx context.Context, text string) (removal.Outcome, error) {
	var out removal.Outcome
	all := t.entries()
	if text != "" {
		e, err := t.find(text)
		if err != nil {
			return out, err
		}
		all = []entry{e}
	}
	var errs []error
	for _, e := range all {
		item := removal.Item{Kind: e.Kind, ID: e.ID, Name: cmp.Or(e.Name, id.Short(e.ID)), Size: e.Size}
		freed, err := e.bin.DeleteTrashed(ctx, e.ID)
		switch {
		case err == nil:
			item.Size = freed
			out.Done(item)
		case fault.Is(err, fault.NotFound):
		default:
			errs = append(errs, err)
			out.Skip(item, err.Error())
		}
	}
	return out, errors.Join(errs...)
}
