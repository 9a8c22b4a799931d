package main

import (
	"fmt"
	"slices"
	"time"
)

// A table prints figures as they come.
type table struct {
	over   int // budgets exceeded
	failed bool
}

func (t *table) heading(s string)     { fmt.Println(s) }
func (t *table) title(name, s string) { fmt.Printf("\n%s: %s\n", name, s) }
func (t *table) note(s string)        { fmt.Printf("  %s\n", s) }

// row prints one figure with its budget (0: none). unit is what both are counted in.
func (t *table) row(what string, value, budget float64, unit string) {
	mark := ""
	if budget > 0 {
		mark = fmt.Sprintf("budget ≤ %s", number(budget, unit))
		if value > budget {
			t.over++
			mark += "  OVER"
		} else {
			mark += "  ok"
		}
	}
	fmt.Printf("  %-58s %12s   %s\n", what, number(value, unit), mark)
}

func number(v float64, unit string) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f %s", v, unit)
	case v >= 10:
		return fmt.Sprintf("%.1f %s", v, unit)
	case v >= 1:
		return fmt.Sprintf("%.2f %s", v, unit)
	}
	return fmt.Sprintf("%.3f %s", v, unit)
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

func percentile(v []float64, p float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return s[min(len(s)-1, int(p*float64(len(s))))]
}

// A sample is what one repetition cost.
type sample struct{ cpu, wall time.Duration }

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// series are the samples of one contender.
type series []sample

func (s series) cpu() []float64 {
	return s.each(func(x sample) float64 { return milliseconds(x.cpu) })
}

func (s series) wall() []float64 {
	return s.each(func(x sample) float64 { return milliseconds(x.wall) })
}

func (s series) each(f func(sample) float64) []float64 {
	var v []float64
	for _, x := range s {
		v = append(v, f(x))
	}
	return v
}

// ratios gives a's cost over b's, pair by pair.
func ratios(a, b []float64) []float64 {
	var v []float64
	for i := range min(len(a), len(b)) {
		if b[i] > 0 {
			v = append(v, a[i]/b[i])
		}
	}
	return v
}
