package main

import (
	"strings"
	"testing"
	"time"

	"berth/kernel/disk"
)

func TestRemovalFlags(t *testing.T) {
	parse := func(args ...string) (removalOptions, error) {
		c, err := load(t, "{}", args...)
		return c.Removal, err
	}
	o, err := parse()
	if err != nil || o.TrashWindow != 0 || o.GCHigh.given() || o.TrashMinFree.given() || o.JournalSize != 16<<20 || o.GCMinAge != 2*time.Minute {
		t.Errorf("%+v %v", o, err)
	}
	o, err = parse("--trash-window", "7d", "--trash-min-free", "5GB", "--gc-high", "90%", "--gc-low", "80%", "--gc-keep", "base:*", "--gc-keep", "label=a", "--gc-min-age", "12h", "--event-journal-size", "1m")
	if err != nil || o.TrashWindow != 7*24*time.Hour || o.TrashMinFree.Free != 5e9 || o.GCHigh.Percent != 90 || o.GCLow.Percent != 80 || len(o.GCKeep) != 2 || o.GCMinAge != 12*time.Hour || o.JournalSize != 1<<20 {
		t.Errorf("%+v %v", o, err)
	}
	if got := strings.Join(o.labels(), " "); got != "berth.trash-window=168h0m0s berth.trash-min-free=5GB berth.gc-high=90% berth.gc-low=80% berth.gc-min-age=12h0m0s berth.gc-keep=base:* berth.gc-keep=label=a" {
		t.Error(got)
	}
	if o, err := parse(); err != nil || len(o.labels()) != 0 {
		t.Errorf("labels without settings: %q %v", o.labels(), err)
	}
	for _, tt := range []struct{ args, err string }{
		{"--gc-high 90%", "belong together"},
		{"--gc-low 90%", "belong together"},
		{"--gc-high 80% --gc-low 90%", "must be less"},
		{"--gc-high 5GB --gc-low 1GB", "must be more"},
		{"--gc-high 80% --gc-low 1GB", "both as percentages or both as sizes"},
		{"--gc-high 100% --gc-low 1%", "no percentage"},
		{"--gc-high NaN% --gc-low 1%", "no percentage"},
		{"--gc-high much --gc-low 1%", "neither a percentage"},
		{"--gc-keep [a", "invalid"},
		{"--gc-keep label=", "names no label"},
		{"--trash-window soon", "no length of time"},
		{"--trash-window -1h", "no length of time"},
		{"--event-journal-size 1k", "at least"},
	} {
		if _, err := parse(strings.Fields(tt.args)...); err == nil || !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %v, want %q", tt.args, err, tt.err)
		}
	}
	c, err := load(t, `{"trash-window": "24h", "gc-high": "10GB", "gc-low": "20GB", "gc-keep": ["a"], "trash-min-free": "10%"}`)
	if err != nil || c.Removal.TrashWindow != 24*time.Hour || c.Removal.GCLow.Free != 20e9 || c.Removal.GCKeep[0] != "a" {
		t.Errorf("%+v %v", c.Removal, err)
	}
	for _, tt := range []struct {
		free  int64
		short bool
	}{{5, true}, {10, false}, {50, false}} {
		if got := c.Removal.TrashMinFree.short(disk.Space{Total: 100, Free: tt.free}); got != tt.short {
			t.Errorf("%d%% free: %v", tt.free, got)
		}
	}
}
