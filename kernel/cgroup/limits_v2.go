package cgroup

import (
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
)

// memoryV2: swap first, since with a lower memory.max and the old, larger swap allowance the kernel would
// only push pages out to swap that has to be given back a moment later.
func (b *builder) memoryV2(m *specs.LinuxMemory) {
	const pre = "linux.resources.memory."
	limit := deref(m.Limit)
	memory := limit
	if memory == 0 && b.now != nil {
		memory = b.now.memoryLimit // only the swap changes
	}
	swap := deref(m.Swap)
	if swap == 0 {
		memory = limit // what holds decides nothing then
	}
	n, set, err := SwapMax(memory, swap)
	if err != nil {
		if b.err == nil {
			b.err = err
		}
		return
	}
	if set {
		if dir, ok := b.dir("memory", pre+"swap"); ok {
			// Without swap support in the kernel there is no file, and no swap: 0 and max hold anyway.
			b.write(dir, "memory.swap.max", orMax(n), pre+"swap").Optional = n <= 0
		}
	}
	if limit != 0 {
		if b.now != nil && m.CheckBeforeUpdate != nil && *m.CheckBeforeUpdate {
			b.checkUsage(limit)
		}
		if dir, ok := b.dir("memory", pre+"limit"); ok {
			b.write(dir, "memory.max", orMax(limit), pre+"limit")
		}
	}
	if n := deref(m.Reservation); n != 0 {
		if dir, ok := b.dir("memory", pre+"reservation"); ok {
			b.write(dir, "memory.low", orMax(n), pre+"reservation")
		}
	}
	if m.Swappiness != nil && *m.Swappiness != ^uint64(0) {
		b.onlyV1(pre + "swappiness")
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		b.onlyV1(pre + "disableOOMKiller")
	}
}

func (b *builder) cpuV2(c *specs.LinuxCPU) {
	const pre = "linux.resources.cpu."
	put := func(file, value, field string) *Step {
		if dir, ok := b.dir("cpu", pre+field); ok {
			return b.write(dir, file, value, pre+field)
		}
		return new(Step)
	}
	idle := c.Idle != nil && *c.Idle == 1
	if c.Idle != nil && !idle {
		put("cpu.idle", itoa(*c.Idle), "idle") // first: an idle group refuses a weight
	}
	if w := WeightFromShares(deref(c.Shares)); w != 0 && !idle {
		put("cpu.weight", utoa(w), "shares")
	}
	quota, period := deref(c.Quota), deref(c.Period)
	if quota != 0 || period != 0 {
		field := "quota"
		if quota == 0 {
			field = "period"
		}
		put("cpu.max", b.cpuMax(quota, period), field).Retry = true
	}
	if c.Burst != nil {
		put("cpu.max.burst", utoa(*c.Burst), "burst").Retry = true
	}
	if idle {
		put("cpu.idle", "1", "idle")
	}
	if deref(c.RealtimePeriod) != 0 {
		b.onlyV1(pre + "realtimePeriod")
	}
	if deref(c.RealtimeRuntime) != 0 {
		b.onlyV1(pre + "realtimeRuntime")
	}
}

// cpuMax joins quota and period (microseconds) as cpu.max takes them. What is unset (0) stays as it is;
// one number alone leaves the period, and a negative quota is none.
func (b *builder) cpuMax(quota int64, period uint64) string {
	value := "max"
	switch {
	case quota > 0:
		value = itoa(quota)
	case quota == 0 && b.now != nil:
		if old, _, ok := strings.Cut(b.now.cpuMax, " "); ok {
			value = old
		}
	}
	if period != 0 {
		value += " " + utoa(period)
	}
	return value
}

func (b *builder) ioV2(io *specs.LinuxBlockIO) {
	const pre = "linux.resources.blockIO."
	put := func(file, value, field string) *Step {
		if dir, ok := b.dir("io", pre+field); ok {
			return b.write(dir, file, value, pre+field)
		}
		return new(Step)
	}
	// BFQ's weights are v1's numbers; io.cost's io.weight has another scale. A kernel has either, both or
	// none, so Apply takes what is there; the value differs with the file.
	if n := deref(io.Weight); n != 0 {
		s := put("io.bfq.weight", utoa(uint64(n)), "weight")
		s.Or, s.OrValue = "io.weight", "default "+utoa(IOWeight(n))
	}
	for _, d := range io.WeightDevice {
		if n := deref(d.Weight); n != 0 {
			s := put("io.bfq.weight", number(d.Major, d.Minor)+" "+utoa(uint64(n)), "weightDevice")
			s.Or, s.OrValue = "io.weight", number(d.Major, d.Minor)+" "+utoa(IOWeight(n))
		} else if d.Weight != nil && b.now != nil {
			put("io.bfq.weight", number(d.Major, d.Minor)+" default", "weightDevice").Or = "io.weight"
		}
		if deref(d.LeafWeight) != 0 {
			b.onlyV1(pre + "weightDevice.leafWeight")
		}
	}
	if deref(io.LeafWeight) != 0 {
		b.onlyV1(pre + "leafWeight")
	}
	throttle := func(key string, ds []specs.LinuxThrottleDevice, field string) {
		for _, d := range ds {
			rate := "max"
			if d.Rate != 0 {
				rate = utoa(d.Rate)
			}
			put("io.max", number(d.Major, d.Minor)+" "+key+"="+rate, field)
		}
	}
	throttle("rbps", io.ThrottleReadBpsDevice, "throttleReadBpsDevice")
	throttle("wbps", io.ThrottleWriteBpsDevice, "throttleWriteBpsDevice")
	throttle("riops", io.ThrottleReadIOPSDevice, "throttleReadIOPSDevice")
	throttle("wiops", io.ThrottleWriteIOPSDevice, "throttleWriteIOPSDevice")
}

// onlyV1 refuses a field that cgroup v2 cannot express: an error now beats a limit that silently is none.
func (b *builder) onlyV1(field string) {
	b.fail(fault.NotImplemented, "%s exists only on cgroup v1, and this machine has cgroup %s: leave it out", field, b.l.Mode)
}

// orMax writes -1 as v2's "max".
func orMax(n int64) string {
	if n == -1 {
		return "max"
	}
	return itoa(n)
}
