package network

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkOpen measures how long the room takes to open with containers that run, names and ports included.
func BenchmarkOpen(b *testing.B) {
	for _, count := range []int{0, 100} {
		b.Run(fmt.Sprintf("%d containers", count), func(b *testing.B) {
			h := open4(b, nil)
			h.create(CreateRequest{Name: "own", IPAM: subnet("10.1.0.0/16")})
			var all []string
			for i := range count {
				w := want(fmt.Sprintf("c%d", i), "own")
				w.Ports = []PortSpec{{Port: 80, Proto: "tcp"}}
				h.join(w)
				all = append(all, w.ContainerID)
			}
			var opened time.Duration
			for b.Loop() {
				h.Close()
				t := time.Now()
				h.open()
				opened += time.Since(t)
				h.Recovered(func(string) bool { return true })
			}
			b.ReportMetric(float64(opened.Microseconds())/float64(b.N), "open-us")
		})
	}
}
