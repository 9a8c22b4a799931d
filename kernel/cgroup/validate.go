package cgroup

import (
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
)

// validate refuses what no kernel takes, before anything is planned. Values that only a kernel can judge
// (a CPU that is not there) are left to it.
func validate(r *specs.LinuxResources) error {
	if m := r.Memory; m != nil {
		for _, f := range [...]struct {
			name string
			v    *int64
		}{{"limit", m.Limit}, {"reservation", m.Reservation}, {"swap", m.Swap}, {"kernelTCP", m.KernelTCP}} {
			if f.v != nil && *f.v < -1 {
				return fault.New(fault.Invalid, "linux.resources.memory.%s is %d: give a number of bytes, or -1 for no limit", f.name, *f.v)
			}
		}
		limit, swap := deref(m.Limit), deref(m.Swap)
		if limit > 0 && swap > 0 && swap < limit {
			return fault.New(fault.Invalid, "linux.resources.memory.swap (%d) is memory plus swap: it cannot be less than linux.resources.memory.limit (%d)", swap, limit)
		}
		if limit == -1 && swap > 0 {
			return fault.New(fault.Invalid, "linux.resources.memory.swap (%d) is memory plus swap: it cannot be limited while linux.resources.memory.limit is -1", swap)
		}
		if s := m.Swappiness; s != nil && *s > 200 && *s != ^uint64(0) {
			return fault.New(fault.Invalid, "linux.resources.memory.swappiness is %d: give 0 to 100", *s)
		}
	}
	if c := r.CPU; c != nil {
		for name, list := range map[string]string{"cpus": c.Cpus, "mems": c.Mems} {
			if strings.ContainsFunc(list, func(c rune) bool { return !strings.ContainsRune("0123456789,-: \n", c) }) {
				return fault.New(fault.Invalid, "linux.resources.cpu.%s is %q: give a list such as 0-3,8", name, list)
			}
		}
		if i := c.Idle; i != nil && *i != 0 && *i != 1 {
			return fault.New(fault.Invalid, "linux.resources.cpu.idle is %d: give 0 or 1", *i)
		}
	}
	for _, h := range r.HugepageLimits {
		if h.Pagesize == "" || strings.ContainsAny(h.Pagesize, "/.\x00") {
			return fault.New(fault.Invalid, "linux.resources.hugepageLimits: page size %q: give one such as 2MB or 1GB", h.Pagesize)
		}
	}
	if n := r.Network; n != nil {
		for _, p := range n.Priorities {
			if p.Name == "" || strings.ContainsAny(p.Name, " \n/\x00") {
				return fault.New(fault.Invalid, "linux.resources.network.priorities: %q is no interface's name", p.Name)
			}
		}
	}
	for name := range r.Rdma {
		if name == "" || strings.ContainsAny(name, " \n/\x00") {
			return fault.New(fault.Invalid, "linux.resources.rdma: %q is no device's name", name)
		}
	}
	for file := range r.Unified {
		if strings.ContainsAny(file, "/\x00") || strings.Trim(file, ".") == "" || !strings.Contains(file, ".") {
			return fault.New(fault.Invalid, "linux.resources.unified: %q is no cgroup file's name: give one such as memory.high", file)
		}
	}
	return nil
}
