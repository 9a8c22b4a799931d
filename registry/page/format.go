package page

import (
	"cmp"
	"fmt"
	"html/template"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// funcs are what templates call.
func funcs() template.FuncMap {
	return template.FuncMap{
		"size": size, "count": count, "ago": func(t time.Time) string { return ago(t, time.Now()) }, "stamp": stamp,
		"short": short, "plural": plural, "first": first, "rest": rest, "icon": icon,
	}
}

// size writes bytes in decimal units, as docker does: 41.2 MB.
func size(n int64) string {
	f := float64(n)
	for _, unit := range []string{"B", "kB", "MB", "GB", "TB"} {
		if f < 1000 {
			return fmt.Sprintf("%.3g %s", f, unit)
		}
		f /= 1000
	}
	return fmt.Sprintf("%.3g PB", f)
}

// count writes a number (an int or a uint64) short: 1.2k, 3.4M.
func count(number any) string {
	var f float64
	switch n := number.(type) {
	case int:
		f = float64(n)
	case uint64:
		f = float64(n)
	}
	switch {
	case f < 1000:
		return fmt.Sprintf("%.0f", f)
	case f < 1_000_000:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", f/1e3), ".0") + "k"
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", f/1e6), ".0") + "M"
}

// ago says how long something has been.
func ago(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	d := now.Sub(t)
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{365 * 24 * time.Hour, "year"}, {30 * 24 * time.Hour, "month"}, {7 * 24 * time.Hour, "week"}, {24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}} {
		if d >= u.unit {
			return plural(int(d/u.unit), u.name) + " ago"
		}
	}
	return "just now"
}

// stamp writes a time for machines and for the tip of a mouse.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// short is enough of a digest to tell it by.
func short(d digest.Digest) string {
	_, hex, _ := strings.Cut(string(d), ":")
	return hex[:min(len(hex), 12)]
}

func plural(n int, noun string) string {
	switch {
	case n == 1:
		return "1 " + noun
	case strings.HasSuffix(noun, "y"):
		return fmt.Sprintf("%d %sies", n, strings.TrimSuffix(noun, "y"))
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// first gives the first n of a list, rest how many are left.
func first(n int, list []string) []string { return list[:min(len(list), n)] }

func rest(n int, list []string) int { return max(len(list)-n, 0) }

// icon gives a letter and a hue of 8 for a repository's tile, the same for a name at all times.
func icon(name string) struct {
	Letter string
	Hue    int
} {
	leaf := name[strings.LastIndexByte(name, '/')+1:]
	h := uint32(2166136261)
	for i := range len(name) {
		h = (h ^ uint32(name[i])) * 16777619
	}
	return struct {
		Letter string
		Hue    int
	}{strings.ToUpper(leaf[:min(len(leaf), 1)]), int(h % 8)}
}

// sorted gives a map's keys in order.
func sorted[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
