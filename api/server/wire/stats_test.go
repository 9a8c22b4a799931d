package wire

import (
	"encoding/json"
	"testing"
	"time"

	"berth/engine"
	"berth/kernel/cgroup"
)

// The figures have Docker's names, and no others, on each kind of cgroup.
func TestStats(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	stat := map[string]uint64{"anon": 1, "cache": 2, "total_cache": 3, "workingset_refault_file": 4, "swap": 5, "hierarchical_memory_limit": 6}
	base := engine.Stats{ID: "i", Name: "web", Read: at, CPUs: 2, Memory: 1 << 30, Running: true}
	base.Cgroup.Memory = cgroup.MemoryStats{Usage: 10, Max: 20, Limit: cgroup.Unlimited, Stat: stat}
	base.Cgroup.Pids = cgroup.PidsStats{Current: 3, Limit: cgroup.Unlimited}

	first, second, ended := base, base, base
	first.Cgroup.CPU.PerCPU = []uint64{1, 2}
	second.Cgroup.IO.Bytes = []cgroup.IOEntry{{Major: 8, Op: "Read", Value: 4096}}
	second.Cgroup.IO.Ops = []cgroup.IOEntry{{Major: 8, Op: "Read", Value: 1}}
	ended.Running = false

	r := Stats(&first, 100, nil, 45)
	if r.MemoryStats.Stats["total_cache"] != 3 || r.MemoryStats.Stats["hierarchical_memory_limit"] != 6 || len(r.MemoryStats.Stats) != 32 || r.MemoryStats.MaxUsage != 20 {
		t.Errorf("v1: memory %+v", r.MemoryStats)
	}
	if _, there := r.MemoryStats.Stats["swap"]; there || r.MemoryStats.Limit != 1<<30 {
		t.Errorf("v1: memory %+v", r.MemoryStats)
	}
	if r.PidsStats.Limit != 0 || r.BlkioStats.IoServicedRecursive == nil {
		t.Errorf("v1: %+v %+v", r.PidsStats, r.BlkioStats)
	}

	r = Stats(&second, 100, nil, 52)
	if r.MemoryStats.Stats["anon"] != 1 || len(r.MemoryStats.Stats) != 31 || r.MemoryStats.MaxUsage != 0 || r.PidsStats.Limit != cgroup.Unlimited {
		t.Errorf("v2: %+v %+v", r.MemoryStats, r.PidsStats)
	}
	if len(r.BlkioStats.IoServiceBytesRecursive) != 1 || r.BlkioStats.IoServiceBytesRecursive[0].Op != "read" || r.BlkioStats.IoServicedRecursive != nil || r.OSType != "linux" {
		t.Errorf("v2: %+v", r.BlkioStats)
	}
	if next := Stats(&second, 200, r, 52); next.PreRead != at || next.PreCPUStats.SystemUsage != 100 {
		t.Errorf("the reading after: %+v", next)
	}

	// Of a container that does not run there are its names alone.
	text, err := json.Marshal(Stats(&ended, 100, nil, 45))
	want := `{"id":"i","name":"/web","read":"0001-01-01T00:00:00Z","cpu_stats":{"cpu_usage":{"total_usage":0,"usage_in_kernelmode":0,"usage_in_usermode":0},` +
		`"throttling_data":{"periods":0,"throttled_periods":0,"throttled_time":0}},"memory_stats":{},"pids_stats":{},"blkio_stats":{"io_service_bytes_recursive":null,` +
		`"io_serviced_recursive":null,"io_queue_recursive":null,"io_service_time_recursive":null,"io_wait_time_recursive":null,"io_merged_recursive":null,` +
		`"io_time_recursive":null,"sectors_recursive":null},"storage_stats":{},"preread":"0001-01-01T00:00:00Z","precpu_stats":{"cpu_usage":{"total_usage":0,` +
		`"usage_in_kernelmode":0,"usage_in_usermode":0},"throttling_data":{"periods":0,"throttled_periods":0,"throttled_time":0}},"num_procs":0}`
	var a, b any
	_ = json.Unmarshal(text, &a)
	_ = json.Unmarshal([]byte(want), &b)
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	if err != nil || string(x) != string(y) {
		t.Errorf("%s\nwant %s\n%v", x, y, err)
	}
}
