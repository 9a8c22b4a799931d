package cgroup

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
)

// memoryV1 writes the limit of memory and of memory plus swap ("memsw"). The kernel keeps memsw ≥ memory
// at every moment, so which is written first depends on which way they move.
func (b *builder) memoryV1(m *specs.LinuxMemory) {
	const pre = "linux.resources.memory."
	limit, swap := deref(m.Limit), deref(m.Swap)
	if limit == -1 && swap == 0 && b.now != nil {
		swap = -1 // lifting memory alone would leave memsw as the limit
	}
	memory := func() {
		if limit == 0 {
			return
		}
		if dir, ok := b.dir("memory", pre+"limit"); ok {
			b.write(dir, "memory.limit_in_bytes", itoa(limit), pre+"limit")
		}
	}
	memsw := func() {
		if swap == 0 {
			return
		}
		if dir, ok := b.dir("memory", pre+"swap"); ok {
			w := b.write(dir, "memory.memsw.limit_in_bytes", itoa(swap), pre+"swap")
			w.Optional = swap == -1
		}
	}
	if b.raisesSwap(swap) {
		memsw()
		memory()
	} else {
		memory()
		memsw()
	}
	if n := deref(m.Reservation); n != 0 {
		if dir, ok := b.dir("memory", pre+"reservation"); ok {
			b.write(dir, "memory.soft_limit_in_bytes", itoa(n), pre+"reservation")
		}
	}
	if n := deref(m.KernelTCP); n != 0 {
		if dir, ok := b.dir("memory", pre+"kernelTCP"); ok {
			b.write(dir, "memory.kmem.tcp.limit_in_bytes", itoa(n), pre+"kernelTCP")
		}
	}
	if m.Swappiness != nil && *m.Swappiness != ^uint64(0) {
		if dir, ok := b.dir("memory", pre+"swappiness"); ok {
			b.write(dir, "memory.swappiness", utoa(*m.Swappiness), pre+"swappiness")
		}
	}
	if m.DisableOOMKiller != nil && (*m.DisableOOMKiller || b.now != nil) {
		value := "0"
		if *m.DisableOOMKiller {
			value = "1"
		}
		if dir, ok := b.dir("memory", pre+"disableOOMKiller"); ok {
			b.write(dir, "memory.oom_control", value, pre+"disableOOMKiller")
		}
	}
	if b.now != nil && m.CheckBeforeUpdate != nil && *m.CheckBeforeUpdate {
		b.checkUsage(limit)
	}
}

// raisesSwap reports whether memsw must be written before memory: it grows past the present memory limit.
func (b *builder) raisesSwap(swap int64) bool {
	if b.now == nil || swap == 0 {
		return false
	}
	return swap == -1 || b.now.memoryLimit != -1 && swap > b.now.memoryLimit
}

// checkUsage refuses a limit under the present use: v1's kernel would refuse it only after reclaiming
// what it could, v2's would kill.
func (b *builder) checkUsage(limit int64) {
	if limit > 0 && limit < b.now.memoryUsage {
		b.fail(fault.Conflict, "unable to set memory limit to %d (current usage: %d): free memory in the container first, or leave linux.resources.memory.checkBeforeUpdate out",
			limit, b.now.memoryUsage)
	}
}

func (b *builder) cpuV1(c *specs.LinuxCPU) {
	const pre = "linux.resources.cpu."
	put := func(file, value, field string) *Step {
		if dir, ok := b.dir("cpu", pre+field); ok {
			return b.write(dir, file, value, pre+field)
		}
		return new(Step)
	}
	if n := deref(c.Shares); n != 0 {
		switch {
		case n > 262144:
			b.fail(fault.Invalid, "the maximum allowed cpu-shares is 262144, not %d (linux.resources.cpu.shares)", n)
		case n < 2:
			b.fail(fault.Invalid, "the minimum allowed cpu-shares is 2, not %d (linux.resources.cpu.shares)", n)
		}
		put("cpu.shares", utoa(n), "shares")
	}
	// A shorter period with the old quota, or a burst with the old quota, may exceed what is allowed for
	// a moment; each is tried again once the quota stands.
	if n := deref(c.Period); n != 0 {
		put("cpu.cfs_period_us", utoa(n), "period").Retry = true
	}
	if c.Burst != nil {
		put("cpu.cfs_burst_us", utoa(*c.Burst), "burst").Retry = true
	}
	if n := deref(c.Quota); n != 0 {
		put("cpu.cfs_quota_us", itoa(n), "quota").Retry = true
	}
	if n := deref(c.RealtimePeriod); n != 0 {
		put("cpu.rt_period_us", utoa(n), "realtimePeriod").Retry = true
	}
	if n := deref(c.RealtimeRuntime); n != 0 {
		put("cpu.rt_runtime_us", itoa(n), "realtimeRuntime").Retry = true
	}
	if c.Idle != nil {
		put("cpu.idle", itoa(*c.Idle), "idle")
	}
}

func (b *builder) blkioV1(io *specs.LinuxBlockIO) {
	const pre = "linux.resources.blockIO."
	put := func(file, or, value, field string) {
		if dir, ok := b.dir("blkio", pre+field); ok {
			b.write(dir, file, value, pre+field).Or = or
		}
	}
	if n := deref(io.Weight); n != 0 {
		put("blkio.weight", "blkio.bfq.weight", utoa(uint64(n)), "weight")
	}
	if n := deref(io.LeafWeight); n != 0 {
		put("blkio.leaf_weight", "", utoa(uint64(n)), "leafWeight")
	}
	for _, d := range io.WeightDevice {
		if n := deref(d.Weight); n != 0 {
			put("blkio.weight_device", "blkio.bfq.weight_device", number(d.Major, d.Minor)+" "+utoa(uint64(n)), "weightDevice")
		} else if d.Weight != nil && b.now != nil {
			put("blkio.weight_device", "blkio.bfq.weight_device", number(d.Major, d.Minor)+" default", "weightDevice")
		}
		if n := deref(d.LeafWeight); n != 0 {
			put("blkio.leaf_weight_device", "", number(d.Major, d.Minor)+" "+utoa(uint64(n)), "weightDevice")
		}
	}
	throttle := func(file string, ds []specs.LinuxThrottleDevice, field string) {
		for _, d := range ds {
			put(file, "", number(d.Major, d.Minor)+" "+utoa(d.Rate), field)
		}
	}
	throttle("blkio.throttle.read_bps_device", io.ThrottleReadBpsDevice, "throttleReadBpsDevice")
	throttle("blkio.throttle.write_bps_device", io.ThrottleWriteBpsDevice, "throttleWriteBpsDevice")
	throttle("blkio.throttle.read_iops_device", io.ThrottleReadIOPSDevice, "throttleReadIOPSDevice")
	throttle("blkio.throttle.write_iops_device", io.ThrottleWriteIOPSDevice, "throttleWriteIOPSDevice")
}

// number writes a device's number as block controllers want it: "8:0".
func number(major, minor int64) string { return itoa(major) + ":" + itoa(minor) }

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
