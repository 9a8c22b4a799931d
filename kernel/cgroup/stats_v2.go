package cgroup

import "strings"

// statsV2 reads the unified hierarchy's figures. On hybrid it has only what v1 does not: v1's controllers
// have no files here, and figures that v1 has told are not overwritten.
func (c *Cgroup) statsV2(s *Stats, dir string) {
	if c.layout.Find("cpuacct") == nil {
		cpuStatsV2(&s.CPU, dir) // cpu.stat is there even without the controller
	}
	if exists(dir + "/memory.current") {
		memoryStatsV2(&s.Memory, dir)
	}
	if exists(dir + "/pids.current") {
		pidsStats(&s.Pids, dir)
	}
	if exists(dir + "/io.stat") {
		ioStatsV2(&s.IO, dir)
	}
	if exists(dir + "/rdma.current") {
		rdmaStats(s, dir)
	}
	hugetlbStats(s, dir, ".current", "")
	s.CPU.Pressure = pressure(dir + "/cpu.pressure")
	s.Memory.Pressure = pressure(dir + "/memory.pressure")
	s.IO.Pressure = pressure(dir + "/io.pressure")
}

func cpuStatsV2(c *CPUStats, dir string) {
	eachPair(dir+"/cpu.stat", func(key string, n uint64) {
		switch key {
		case "usage_usec":
			c.Usage = micros(n)
		case "user_usec":
			c.User = micros(n)
		case "system_usec":
			c.System = micros(n)
		case "nr_periods":
			c.Periods = n
		case "nr_throttled":
			c.ThrottledPeriods = n
		case "throttled_usec":
			c.Throttled = micros(n)
		case "nr_bursts":
			c.Bursts = n
		case "burst_usec":
			c.BurstTime = micros(n)
		}
	})
}

func memoryStatsV2(m *MemoryStats, dir string) {
	m.Stat = make(map[string]uint64, 64)
	eachPair(dir+"/memory.stat", func(key string, n uint64) { m.Stat[key] = n })
	m.Cache, m.Inactive = m.Stat["file"], m.Stat["inactive_file"]
	m.Usage = figure(dir + "/memory.current")
	m.Limit = limit(dir + "/memory.max")
	m.Max = figure(dir + "/memory.peak")
	m.Kernel = m.Stat["kernel"] // Linux 5.18
	m.KernelTCP = m.Stat["sock"]
	m.Swap = figure(dir + "/memory.swap.current")
	m.SwapUsage = m.Swap
	m.SwapLimit = limit(dir + "/memory.swap.max")
	m.SwapMax = figure(dir + "/memory.swap.peak")
	eachPair(dir+"/memory.events", func(key string, n uint64) {
		switch key {
		case "max":
			m.Failures = n
		case "oom_kill":
			m.OOMKills = n
		}
	})
	b, _ := readFile(dir + "/memory.swap.events")
	m.SwapFailures, _ = atou(keyed(b, "fail"))
}

// ioStatsV2 reads lines "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6". A device that has seen
// nothing has a line with its number alone.
func ioStatsV2(s *IOStats, dir string) {
	each(dir+"/io.stat", func(line string) {
		number, rest, _ := strings.Cut(line, " ")
		major, minor, ok := device(number)
		if !ok {
			return
		}
		for w := range strings.FieldsSeq(rest) {
			key, value, _ := strings.Cut(w, "=")
			n, ok := atou(value)
			if !ok {
				continue
			}
			entry := func(op string) IOEntry { return IOEntry{major, minor, op, n} }
			switch key {
			case "rbytes":
				s.Bytes = append(s.Bytes, entry("Read"))
			case "wbytes":
				s.Bytes = append(s.Bytes, entry("Write"))
			case "dbytes":
				s.Bytes = append(s.Bytes, entry("Discard"))
			case "rios":
				s.Ops = append(s.Ops, entry("Read"))
			case "wios":
				s.Ops = append(s.Ops, entry("Write"))
			case "dios":
				s.Ops = append(s.Ops, entry("Discard"))
			}
		}
	})
}
