package cgroup

import "strings"

// statsV1 reads one controller's figures from its directory.
func statsV1(s *Stats, controller, dir string) {
	switch controller {
	case "cpu":
		eachPair(dir+"/cpu.stat", func(key string, n uint64) {
			switch key {
			case "nr_periods":
				s.CPU.Periods = n
			case "nr_throttled":
				s.CPU.ThrottledPeriods = n
			case "throttled_time":
				s.CPU.Throttled = n
			case "nr_bursts":
				s.CPU.Bursts = n
			case "burst_time":
				s.CPU.BurstTime = n
			}
		})
	case "cpuacct":
		cpuacct(&s.CPU, dir)
	case "memory":
		memoryStatsV1(&s.Memory, dir)
	case "pids":
		pidsStats(&s.Pids, dir)
	case "blkio":
		blkioStats(&s.IO, dir)
	case "hugetlb":
		hugetlbStats(s, dir, ".usage_in_bytes", ".max_usage_in_bytes")
	case "rdma":
		rdmaStats(s, dir)
	}
}

func cpuacct(c *CPUStats, dir string) {
	c.Usage = figure(dir + "/cpuacct.usage")
	b, _ := readFile(dir + "/cpuacct.usage_percpu")
	for w := range strings.FieldsSeq(string(b)) {
		n, _ := atou(w)
		c.PerCPU = append(c.PerCPU, n)
	}
	// Since Linux 4.7 there are exact files; before, only ticks.
	if exists(dir + "/cpuacct.usage_user") {
		c.User = figure(dir + "/cpuacct.usage_user")
		c.System = figure(dir + "/cpuacct.usage_sys")
		return
	}
	eachPair(dir+"/cpuacct.stat", func(key string, n uint64) {
		switch key {
		case "user":
			c.User = ticks(n)
		case "system":
			c.System = ticks(n)
		}
	})
}

func memoryStatsV1(m *MemoryStats, dir string) {
	m.Stat = make(map[string]uint64, 48)
	eachPair(dir+"/memory.stat", func(key string, n uint64) { m.Stat[key] = n })
	m.Cache, m.Inactive = m.Stat["cache"], m.Stat["total_inactive_file"]
	m.Usage = figure(dir + "/memory.usage_in_bytes")
	m.Limit = limit(dir + "/memory.limit_in_bytes")
	m.Max = figure(dir + "/memory.max_usage_in_bytes")
	m.Failures = figure(dir + "/memory.failcnt")
	if exists(dir + "/memory.memsw.usage_in_bytes") {
		m.SwapCombined = true
		m.SwapUsage = figure(dir + "/memory.memsw.usage_in_bytes")
		m.SwapLimit = limit(dir + "/memory.memsw.limit_in_bytes")
		m.SwapMax = figure(dir + "/memory.memsw.max_usage_in_bytes")
		m.SwapFailures = figure(dir + "/memory.memsw.failcnt")
		if m.SwapUsage > m.Usage {
			m.Swap = m.SwapUsage - m.Usage
		}
	}
	m.Kernel = figure(dir + "/memory.kmem.usage_in_bytes")
	m.KernelTCP = figure(dir + "/memory.kmem.tcp.usage_in_bytes")
	m.OOMKills = oomKillsV1(dir)
}

// blkioStats prefers the recursive figures of a proportional scheduler (bfq), which are all there is to
// know, and takes the throttling layer's where no such scheduler has counted anything.
func blkioStats(s *IOStats, dir string) {
	pick := func(files ...string) []IOEntry {
		for _, f := range files {
			if list := ioEntries(dir + "/blkio." + f); len(list) > 0 {
				return list
			}
		}
		return nil
	}
	s.Bytes = pick("bfq.io_service_bytes_recursive", "io_service_bytes_recursive", "throttle.io_service_bytes_recursive", "throttle.io_service_bytes")
	s.Ops = pick("bfq.io_serviced_recursive", "io_serviced_recursive", "throttle.io_serviced_recursive", "throttle.io_serviced")
	s.Queued = pick("bfq.io_queued_recursive", "io_queued_recursive")
	s.Merged = pick("bfq.io_merged_recursive", "io_merged_recursive")
	s.WaitTime = pick("bfq.io_wait_time_recursive", "io_wait_time_recursive")
	s.Service = pick("bfq.io_service_time_recursive", "io_service_time_recursive")
	s.Time = pick("bfq.time_recursive", "time_recursive")
	s.Sectors = pick("bfq.sectors_recursive", "sectors_recursive")
}

// ioEntries reads lines "8:0 Read 4096", or "8:0 4096" of files that count without direction. The last
// line, "Total 4096", is the sum of all.
func ioEntries(file string) []IOEntry {
	var list []IOEntry
	each(file, func(line string) {
		if e, ok := parseIOEntry(line); ok {
			list = append(list, e)
		}
	})
	return list
}

func parseIOEntry(line string) (e IOEntry, ok bool) {
	number, rest, _ := strings.Cut(line, " ")
	if e.Major, e.Minor, ok = device(number); !ok {
		return e, false
	}
	if op, value, two := strings.Cut(rest, " "); two {
		e.Op, rest = op, value
	}
	e.Value, ok = atou(rest)
	return e, ok
}

func pidsStats(p *PidsStats, dir string) {
	p.Current = figure(dir + "/pids.current")
	p.Limit = limit(dir + "/pids.max")
	b, _ := readFile(dir + "/pids.events")
	p.Failures, _ = atou(keyed(b, "max"))
}

// hugetlbStats reads the figures of every page size the kernel has. Limits are set on reservations where
// there are such files, so use is read from them, too.
func hugetlbStats(s *Stats, dir, usage, highest string) {
	for _, size := range hugePageSizes() {
		pre := dir + "/hugetlb." + size
		if exists(pre + ".rsvd" + usage) {
			pre += ".rsvd"
		} else if !exists(pre + usage) {
			continue
		}
		h := HugetlbStats{Usage: figure(pre + usage)}
		if highest != "" {
			h.Max = figure(pre + highest)
			h.Failures = figure(pre + ".failcnt")
		} else {
			b, _ := readFile(dir + "/hugetlb." + size + ".events")
			h.Failures, _ = atou(keyed(b, "max"))
		}
		if s.Hugetlb == nil {
			s.Hugetlb = make(map[string]HugetlbStats)
		}
		s.Hugetlb[size] = h
	}
}

// hugePageSizes lists the sizes as cgroup files name them: /sys/kernel/mm/hugepages/hugepages-2048kB is
// "2MB".
func hugePageSizes() []string {
	dirs, _ := subdirs("/sys/kernel/mm/hugepages")
	var sizes []string
	for _, d := range dirs {
		name := d[strings.LastIndexByte(d, '/')+1:]
		name, ok := strings.CutPrefix(name, "hugepages-")
		if !ok {
			continue
		}
		name, ok = strings.CutSuffix(name, "kB")
		if kb, isNumber := atou(name); ok && isNumber {
			sizes = append(sizes, pageSize(kb))
		}
	}
	return sizes
}

func pageSize(kb uint64) string {
	switch {
	case kb >= 1<<20:
		return utoa(kb>>20) + "GB"
	case kb >= 1<<10:
		return utoa(kb>>10) + "MB"
	}
	return utoa(kb) + "KB"
}

// rdmaStats reads "mlx4_0 hca_handle=2 hca_object=max".
func rdmaStats(s *Stats, dir string) {
	read := func(file string, put func(r *RdmaStats, key string, n uint64)) {
		each(dir+file, func(line string) {
			name, rest, _ := strings.Cut(line, " ")
			r := s.Rdma[name]
			for w := range strings.FieldsSeq(rest) {
				key, value, _ := strings.Cut(w, "=")
				if n, ok := atou(value); ok {
					put(&r, key, n)
				}
			}
			if s.Rdma == nil {
				s.Rdma = make(map[string]RdmaStats)
			}
			s.Rdma[name] = r
		})
	}
	read("/rdma.current", func(r *RdmaStats, key string, n uint64) {
		switch key {
		case "hca_handle":
			r.Handles = n
		case "hca_object":
			r.Objects = n
		}
	})
	read("/rdma.max", func(r *RdmaStats, key string, n uint64) {
		switch key {
		case "hca_handle":
			r.HandlesLimit = n
		case "hca_object":
			r.ObjectsLimit = n
		}
	})
}
