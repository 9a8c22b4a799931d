package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"

	"berth/base/event"
	"berth/base/fault"
	"berth/engine/trash"
	"berth/image"
	"berth/image/gc"
	"berth/kernel/disk"
)

// removalOptions is what the command line and daemon.json ask of what goes away, by itself or by hand, and of what is remembered.
type removalOptions struct {
	JournalSize int64 // bytes of events on disk

	TrashWindow  time.Duration // how long what was removed can be restored; 0: it is deleted at once
	TrashMinFree watermark     // the oldest of the trash goes sooner when less than this is free

	GCHigh, GCLow watermark // images are collected when the disk is fuller than GCHigh, until it is no fuller than GCLow
	GCKeep        []string  // patterns of what is off limits
	GCMinAge      time.Duration
}

func removalFlags(o *removalOptions) []option {
	return []option{
		{"event-journal-size", "", "event-journal-size", "Room on disk for past events, which events --since shows", newSize(&o.JournalSize, 16<<20)},
		{"trash-window", "", "trash-window", `Time within which a removed container, image or volume can be restored, as "24h"; 0 deletes at once`, newSpan(&o.TrashWindow, 0)},
		{"trash-min-free", "", "trash-min-free", `Delete the oldest of the trash before its time when less of the disk is free: a percentage ("10%") or a size ("5GB")`, &o.TrashMinFree},
		{"gc-high", "", "gc-high", `Delete unused images when the disk is fuller: percent used ("90%"), or a size that must stay free ("10GB"); needs --gc-low`, &o.GCHigh},
		{"gc-low", "", "gc-low", `Stop deleting images when the disk is no fuller: percent used ("80%"), or a size that is free ("20GB")`, &o.GCLow},
		{"gc-keep", "", "gc-keep", `Images that are never collected: a pattern of names ("*/base:*"), "label=KEY[=VALUE]", or an id or digest; may be repeated`, &list{to: &o.GCKeep, check: image.CheckKeep}},
		{"gc-min-age", "", "gc-min-age", "Images that were used or fetched within this time are not collected", newSpan(&o.GCMinAge, 2*time.Minute)},
	}
}

// labels are what info shows of them: what goes away by itself is nobody's surprise then.
func (o *removalOptions) labels() (all []string) {
	if o.TrashWindow > 0 {
		all = append(all, "berth.trash-window="+o.TrashWindow.String())
	}
	if o.TrashMinFree.given() {
		all = append(all, "berth.trash-min-free="+o.TrashMinFree.text)
	}
	if o.GCHigh.given() {
		all = append(all, "berth.gc-high="+o.GCHigh.text, "berth.gc-low="+o.GCLow.text, "berth.gc-min-age="+o.GCMinAge.String())
		for _, pattern := range o.GCKeep {
			all = append(all, "berth.gc-keep="+pattern)
		}
	}
	return all
}

// openEvents opens the bus on which everything is told, with what was told before.
func openEvents(cfg config, log *slog.Logger) (*event.Bus, error) {
	j, err := event.OpenJournal(filepath.Join(cfg.DataRoot, "events"), event.JournalOptions{MaxBytes: cfg.Removal.JournalSize, Log: log})
	if fault.Is(err, fault.Internal) {
		// A disk that is full or read-only must not keep the engine from serving what runs.
		log.Error("events are kept in memory only", "error", err)
		return event.New(nil), nil
	}
	if err != nil {
		return nil, err
	}
	return event.NewDurable(nil, j), nil
}

// openRemoval opens what removes by itself: the trash whose time is over, and images that nobody uses.
func (r *rooms) openRemoval(cfg config) {
	space := func() (disk.Space, error) { return disk.Of(cfg.DataRoot) }
	r.trash = trash.Open(trash.Config{
		Bins: []trash.Bin{r.engine, r.volumes, r.images}, Log: r.log,
		Full: func() bool {
			o := r.removal.Load()
			s, err := space()
			return err == nil && o.TrashMinFree.given() && o.TrashMinFree.short(s)
		},
		Settle: func(ctx context.Context) {
			if err := errors.Join(r.engine.Settle(ctx), r.images.Settle(ctx)); err != nil {
				r.log.Debug("what was in the trash is still being deleted", "error", err)
			}
		},
	})
	r.gc = gc.Open(gc.Config{Store: r.images, Space: space, Log: r.log, Settings: func() gc.Settings {
		o := r.removal.Load()
		return gc.Settings{High: o.GCHigh.level(), Low: o.GCLow.level(), Keep: o.GCKeep, MinAge: o.GCMinAge}
	}})
}

func (r *rooms) closeRemoval() {
	if r.gc != nil {
		r.gc.Close()
	}
	if r.trash != nil {
		r.trash.Close()
	}
}

// trashWindow is how long what is removed now can be restored.
func (r *rooms) trashWindow() time.Duration { return r.removal.Load().TrashWindow }

// imageCame has the disk looked at when an image came.
func (r *rooms) imageCame(action string) {
	if r.gc != nil && (action == "pull" || action == "load" || action == "import") {
		r.gc.Look()
	}
}

// reloadRemoval takes over what may change while the engine runs. The size of the journal may not.
func reloadRemoval(r *reloader, c config) error {
	o := c.Removal
	o.JournalSize = r.rooms.removal.Load().JournalSize
	r.rooms.removal.Store(&o)
	return nil
}

// span is a length of time.
type span struct {
	to  *time.Duration
	set bool
}

func newSpan(to *time.Duration, init time.Duration) *span {
	*to = init
	return &span{to: to}
}

func (s *span) Type() string { return "duration" }
func (s *span) given() bool  { return s.set }

func (s *span) String() string {
	if s.to == nil || *s.to == 0 {
		return ""
	}
	return s.to.String()
}

func (s *span) Set(text string) error {
	d, err := parseSpan(text)
	if err != nil {
		return err
	}
	*s.to, s.set = d, true
	return nil
}

func (s *span) setJSON(raw json.RawMessage) error {
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return fmt.Errorf(`write a length of time in quotes, as "24h"`)
	}
	return s.Set(text)
}

// parseSpan reads Go's notation and, as people think of these things in days, "7d".
func parseSpan(text string) (time.Duration, error) {
	if text == "0" || text == "" {
		return 0, nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return 0, fmt.Errorf("%q is no length of time", text)
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf(`%q is no length of time; write it as "24h" or "7d"`, text)
	}
	return d, nil
}

// watermark is how full a disk is: percent that are used, or bytes that are free.
type watermark struct {
	Percent float64 // 0: Free counts
	Free    int64   // bytes
	text    string
}

func (w *watermark) Type() string   { return "level" }
func (w *watermark) given() bool    { return w.text != "" }
func (w *watermark) String() string { return w.text }

func (w *watermark) Set(text string) error {
	if number, ok := strings.CutSuffix(text, "%"); ok {
		p, err := strconv.ParseFloat(number, 64)
		if err != nil || !(p > 0 && p < 100) {
			return fmt.Errorf("%q is no percentage between 0 and 100", text)
		}
		*w = watermark{Percent: p, text: text}
		return nil
	}
	n, err := units.FromHumanSize(text)
	if err != nil || n <= 0 {
		return fmt.Errorf(`%q is neither a percentage ("90%%") nor a size ("10GB")`, text)
	}
	*w = watermark{Free: n, text: text}
	return nil
}

func (w *watermark) setJSON(raw json.RawMessage) error {
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return fmt.Errorf(`write it in quotes, as "90%%"`)
	}
	return w.Set(text)
}

// check refuses settings that contradict each other.
func (o *removalOptions) check() error {
	switch h, l := o.GCHigh, o.GCLow; {
	case h.given() != l.given():
		return fmt.Errorf("gc-high and gc-low belong together: one says when images are collected, the other when that ends")
	case !h.given():
	case (h.Percent > 0) != (l.Percent > 0):
		return fmt.Errorf("gc-high (%s) and gc-low (%s): give both as percentages or both as sizes", h.text, l.text)
	case h.Percent > 0 && l.Percent >= h.Percent:
		return fmt.Errorf("gc-low (%s used) must be less than gc-high (%s used)", l.text, h.text)
	case h.Percent == 0 && l.Free <= h.Free:
		return fmt.Errorf("gc-low (%s free) must be more than gc-high (%s free)", l.text, h.text)
	}
	if o.JournalSize < event.MinJournal {
		return fmt.Errorf("event-journal-size: at least %s", units.BytesSize(event.MinJournal))
	}
	return nil
}

func (w *watermark) level() gc.Level { return gc.Level{Used: w.Percent, Free: w.Free} }

// short reports whether less is free than was asked for; a percentage is of what is free here.
func (w *watermark) short(s disk.Space) bool {
	if w.Percent > 0 {
		return 100-s.Used() < w.Percent
	}
	return s.Free < w.Free
}
