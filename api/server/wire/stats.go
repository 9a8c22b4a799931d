package wire

import (
	"strings"

	containertypes "github.com/moby/moby/api/types/container"

	"berth/engine"
	"berth/kernel/cgroup"
)

// Stats is one reading as GET /containers/ID/stats shows it. hostCPU is the processor time of the whole host in nanoseconds; before is
// the reading before this one, nil for the first.
func Stats(s *engine.Stats, hostCPU uint64, before *containertypes.StatsResponse, v Version) *containertypes.StatsResponse {
	r := &containertypes.StatsResponse{ID: s.ID, Name: "/" + s.Name, Read: s.Read}
	if v >= 52 {
		r.OSType = "linux"
	}
	if before != nil {
		r.PreRead, r.PreCPUStats = before.Read, before.CPUStats
	}
	if !s.Running {
		return r
	}
	g := &s.Cgroup
	r.CPUStats = containertypes.CPUStats{
		CPUUsage:    containertypes.CPUUsage{TotalUsage: g.CPU.Usage, PercpuUsage: g.CPU.PerCPU, UsageInKernelmode: g.CPU.System, UsageInUsermode: g.CPU.User},
		SystemUsage: hostCPU, OnlineCPUs: uint32(s.CPUs),
		ThrottlingData: containertypes.ThrottlingData{Periods: g.CPU.Periods, ThrottledPeriods: g.CPU.ThrottledPeriods, ThrottledTime: g.CPU.Throttled},
	}
	r.MemoryStats = containertypes.MemoryStats{Usage: g.Memory.Usage, MaxUsage: g.Memory.Max, Stats: g.Memory.Stat, Failcnt: g.Memory.Failures, Limit: g.Memory.Limit}
	// As in Docker the host's memory stands for "no limit".
	if host := uint64(max(s.Memory, 0)); host > 0 && r.MemoryStats.Limit > host {
		r.MemoryStats.Limit = host
	}
	r.PidsStats = containertypes.PidsStats{Current: g.Pids.Current, Limit: g.Pids.Limit}
	r.BlkioStats = containertypes.BlkioStats{
		IoServiceBytesRecursive: entries(g.IO.Bytes), IoServicedRecursive: entries(g.IO.Ops), IoQueuedRecursive: entries(g.IO.Queued),
		IoServiceTimeRecursive: entries(g.IO.Service), IoWaitTimeRecursive: entries(g.IO.WaitTime), IoMergedRecursive: entries(g.IO.Merged),
		IoTimeRecursive: entries(g.IO.Time), SectorsRecursive: entries(g.IO.Sectors),
	}
	return r
}

func entries(in []cgroup.IOEntry) (out []containertypes.BlkioStatEntry) {
	for _, e := range in {
		out = append(out, containertypes.BlkioStatEntry{Major: e.Major, Minor: e.Minor, Op: strings.ToLower(e.Op), Value: e.Value})
	}
	return out
}
