package local

import (
	"testing"
	"time"
)

// BenchmarkUnchanged is a context of 100,000 files of which none has changed.
func BenchmarkUnchanged(b *testing.B) {
	s, m := newStore(b)
	dir := many(b, 100_000, 10)
	c := dial(b, m, dir)
	begin := time.Now()
	c.sync(s, Request{}).Close()
	b.Logf("first: %v", time.Since(begin))
	for b.Loop() {
		c.sync(s, Request{}).Close()
	}
}

// BenchmarkCold is a context of 2,000 files with 55 MB that was never here.
func BenchmarkCold(b *testing.B) {
	dir := many(b, 2000, 27_500)
	for b.Loop() {
		b.StopTimer()
		s, m := newStore(b)
		c := dial(b, m, dir)
		b.StartTimer()
		c.sync(s, Request{}).Close()
	}
}
