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
	r := &containertypes.StatsResponse{ID: s.ID, Name: "/" + s.Name}
	if v >= 52 {
		r.OSType = "linux"
	}
	if before != nil {
		r.PreRead, r.PreCPUStats = before.Read, before.CPUStats
	}
	if !s.Running {
		return r
	}
	r.Read = s.Read
	g := &s.Cgroup
	first := len(g.CPU.PerCPU) > 0 // cgroup v1; Docker tells less of what v2 counts
	r.CPUStats = containertypes.CPUStats{
		CPUUsage:    containertypes.CPUUsage{TotalUsage: g.CPU.Usage, PercpuUsage: g.CPU.PerCPU, UsageInKernelmode: g.CPU.System, UsageInUsermode: g.CPU.User},
		SystemUsage: hostCPU, OnlineCPUs: uint32(s.CPUs),
		ThrottlingData: containertypes.ThrottlingData{Periods: g.CPU.Periods, ThrottledPeriods: g.CPU.ThrottledPeriods, ThrottledTime: g.CPU.Throttled},
	}
	r.MemoryStats = containertypes.MemoryStats{Usage: g.Memory.Usage, Failcnt: g.Memory.Failures, Limit: g.Memory.Limit}
	if first {
		r.MemoryStats.MaxUsage, r.MemoryStats.Stats = g.Memory.Max, memoryV1(g.Memory.Stat)
	} else {
		r.MemoryStats.Stats = picked(g.Memory.Stat, memoryV2)
	}
	// As in Docker the host's memory stands for "no limit".
	if host := uint64(max(s.Memory, 0)); host > 0 && r.MemoryStats.Limit > host {
		r.MemoryStats.Limit = host
	}
	r.PidsStats = containertypes.PidsStats{Current: g.Pids.Current, Limit: g.Pids.Limit}
	if !first {
		if io := entries(g.IO.Bytes); len(io) > 0 {
			r.BlkioStats.IoServiceBytesRecursive = io
		}
		return r
	}
	if r.PidsStats.Limit == cgroup.Unlimited {
		r.PidsStats.Limit = 0
	}
	r.BlkioStats = containertypes.BlkioStats{
		IoServiceBytesRecursive: entries(g.IO.Bytes), IoServicedRecursive: entries(g.IO.Ops), IoQueuedRecursive: entries(g.IO.Queued),
		IoServiceTimeRecursive: entries(g.IO.Service), IoWaitTimeRecursive: entries(g.IO.WaitTime), IoMergedRecursive: entries(g.IO.Merged),
		IoTimeRecursive: entries(g.IO.Time), SectorsRecursive: entries(g.IO.Sectors),
	}
	return r
}

// The names of memory.stat that Docker passes on, of cgroup v1 (once alone and once as total_) and v2. One that a kernel has not is 0.
var (
	memoryNamesV1 = []string{
		"active_anon", "active_file", "cache", "dirty", "inactive_anon", "inactive_file", "mapped_file", "pgfault", "pgmajfault", "pgpgin", "pgpgout",
		"rss", "rss_huge", "unevictable", "writeback",
	}
	memoryV2 = []string{
		"active_anon", "active_file", "anon", "anon_thp", "file", "file_dirty", "file_mapped", "file_writeback", "inactive_anon", "inactive_file",
		"kernel_stack", "pgactivate", "pgdeactivate", "pgfault", "pglazyfree", "pglazyfreed", "pgmajfault", "pgrefill", "pgscan", "pgsteal", "shmem",
		"slab", "slab_reclaimable", "slab_unreclaimable", "sock", "thp_collapse_alloc", "thp_fault_alloc", "unevictable", "workingset_activate",
		"workingset_nodereclaim", "workingset_refault",
	}
)

func memoryV1(stat map[string]uint64) map[string]uint64 {
	out := picked(stat, memoryNamesV1)
	for _, name := range memoryNamesV1 {
		out["total_"+name] = stat["total_"+name]
	}
	for _, name := range []string{"hierarchical_memory_limit", "hierarchical_memsw_limit"} {
		out[name] = stat[name]
	}
	return out
}

func picked(stat map[string]uint64, names []string) map[string]uint64 {
	out := make(map[string]uint64, 2*len(names)+2)
	for _, name := range names {
		out[name] = stat[name]
	}
	return out
}

// entries gives an empty list of none.
func entries(in []cgroup.IOEntry) []containertypes.BlkioStatEntry {
	out := []containertypes.BlkioStatEntry{}
	for _, e := range in {
		out = append(out, containertypes.BlkioStatEntry{Major: e.Major, Minor: e.Minor, Op: strings.ToLower(e.Op), Value: e.Value})
	}
	return out
}
