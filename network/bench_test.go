package network

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"
)

// cpu is the time that this process has worked, the kernel's work for it included.
func cpu() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkJoin measures what the network of one container costs, over its whole life; the budget is 2 ms of CPU.
func BenchmarkJoin(b *testing.B) {
	for _, c := range []struct {
		name, network string
		ports, others int
	}{{"bridge", "bridge", 0, 0}, {"bridge+port", "bridge", 1, 0}, {"own+port", "own", 1, 0}, {"bridge+port beside 900", "bridge", 1, 900}} {
		b.Run(c.name, func(b *testing.B) {
			h := newRoom(b, nil)
			h.create(CreateRequest{Name: "own"})
			for i := range c.others {
				w := want(fmt.Sprintf("other%d", i), c.network)
				w.Ports = []PortSpec{{Port: 80, Proto: "tcp"}}
				h.join(w)
			}
			var joined, joinCPU, left, leaveCPU time.Duration
			for b.Loop() {
				w := want("c", c.network)
				for range c.ports {
					w.Ports = []PortSpec{{Port: 80, Proto: "tcp", HostFirst: 8080}}
				}
				t, u := time.Now(), cpu()
				h.join(w)
				t2, u2 := time.Now(), cpu()
				if err := h.Leave(context.Background(), w.ContainerID); err != nil {
					b.Fatal(err)
				}
				joined, joinCPU = joined+t2.Sub(t), joinCPU+u2-u
				left, leaveCPU = left+time.Since(t2), leaveCPU+cpu()-u2
				b.StopTimer()
				for len(h.pool.ready) < cap(h.pool.ready) {
					time.Sleep(time.Millisecond)
				}
				b.StartTimer()
			}
			n := float64(b.N) * 1e3
			b.ReportMetric(float64(joined.Nanoseconds())/n, "join-us")
			b.ReportMetric(float64(joinCPU.Nanoseconds())/n, "join-cpu-us")
			b.ReportMetric(float64(left.Nanoseconds())/n, "leave-us")
			b.ReportMetric(float64(leaveCPU.Nanoseconds())/n, "leave-cpu-us")
		})
	}
}

// BenchmarkOpen measures how long the room takes to open with containers that run, names and ports included.
func BenchmarkOpen(b *testing.B) {
	for _, count := range []int{0, 100} {
		b.Run(fmt.Sprintf("%d containers", count), func(b *testing.B) {
			h := newRoom(b, nil)
			h.create(CreateRequest{Name: "own", IPAM: subnet("10.1.0.0/16")})
			for i := range count {
				w := want(fmt.Sprintf("c%d", i), "own")
				w.Ports = []PortSpec{{Port: 80, Proto: "tcp"}}
				h.join(w)
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

// BenchmarkChurn is containers that come and go at once from all sides.
func BenchmarkChurn(b *testing.B) {
	h := newRoom(b, nil)
	b.SetParallelism(4)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			w := want("c", "bridge")
			w.Ports = []PortSpec{{Port: 80, Proto: "tcp"}}
			if _, err := h.Join(context.Background(), w); err != nil {
				b.Error(err)
			}
			if err := h.Leave(context.Background(), w.ContainerID); err != nil {
				b.Error(err)
			}
		}
	})
}
