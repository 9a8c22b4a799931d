package server

import (
	"encoding/json"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	containertypes "github.com/moby/moby/api/types/container"

	"berth/api/server/wire"
)

// statsEvery is how often a stream of figures has a new one.
const statsEvery = time.Second

// containerStats sends a container's figures, each with the one before it so that a client can compute rates.
func containerStats(s *Server, c *call) error {
	stream := c.flagOr("stream", true)
	oneShot := c.flag("one-shot") && c.v >= 41
	first, err := s.reading(c, nil)
	if err != nil {
		return err
	}
	if !stream && (oneShot || first.Read.IsZero()) { // of one that does not run there is nothing to wait for
		return c.json(http.StatusOK, first)
	}
	tick := time.NewTicker(statsEvery)
	defer tick.Stop()
	if !stream {
		// Two readings a second apart, as Docker takes them.
		select {
		case <-tick.C:
		case <-c.ctx().Done():
			return nil
		}
		second, err := s.reading(c, first)
		if err != nil {
			return err
		}
		return c.json(http.StatusOK, second)
	}
	c.w.Header().Set("Content-Type", "application/json")
	c.begin(http.StatusOK)
	flush := http.NewResponseController(c.w).Flush
	enc := json.NewEncoder(c.w)
	for now := first; ; {
		if enc.Encode(now) != nil || flush() != nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-c.ctx().Done():
			return nil
		}
		next, err := s.reading(c, now)
		if err != nil {
			return nil // it was removed meanwhile: the stream ends
		}
		now = next
	}
}

func (s *Server) reading(c *call, before *containertypes.StatsResponse) (*containertypes.StatsResponse, error) {
	stats, err := s.cfg.Containers.Stats(c.ctx(), c.name)
	if err != nil {
		return nil, err
	}
	r := wire.Stats(&stats, hostCPU(), before, c.v)
	r.Networks = interfaces(stats.NetDev)
	return r, nil
}

// interfaces gives the counters of the interfaces that /proc/net/dev lists, loopback left out; nil where there are none. See
// proc_pid_net(5).
func interfaces(text []byte) map[string]containertypes.NetworkStats {
	var all map[string]containertypes.NetworkStats
	for line := range strings.Lines(string(text)) {
		name, counters, ok := strings.Cut(line, ":")
		fields := strings.Fields(counters)
		if name = strings.TrimSpace(name); !ok || name == "lo" || len(fields) < 12 {
			continue
		}
		var n [12]uint64 // received: bytes packets errors dropped …; sent, from the ninth: the same
		for i := range n {
			n[i], _ = strconv.ParseUint(fields[i], 10, 64)
		}
		if all == nil {
			all = map[string]containertypes.NetworkStats{}
		}
		all[name] = containertypes.NetworkStats{
			RxBytes: n[0], RxPackets: n[1], RxErrors: n[2], RxDropped: n[3], TxBytes: n[8], TxPackets: n[9], TxErrors: n[10], TxDropped: n[11],
		}
	}
	return all
}

// hostCPU gives the processor time that the whole host has used, idle time included, in nanoseconds; 0 where /proc does not say.
// See proc_stat(5); the unit there is 1/100 s on every architecture that Go knows.
func hostCPU() uint64 {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(data), "\n")
	fields := strings.Fields(line)
	if len(fields) < 8 || fields[0] != "cpu" {
		return 0
	}
	var ticks uint64
	for _, f := range fields[1:8] { // user nice system idle iowait irq softirq
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return 0
		}
		ticks += n
	}
	return ticks * uint64(time.Second/100)
}
