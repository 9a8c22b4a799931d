package cgroup

import (
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
)

// resources adds the writes for everything that is set in r, devices aside. The order within a controller
// is the kernel's: what a later value is checked against is written first.
func (b *builder) resources(r *specs.LinuxResources) {
	if r.Memory != nil {
		if b.v2("memory") {
			b.memoryV2(r.Memory)
		} else {
			b.memoryV1(r.Memory)
		}
	}
	if r.CPU != nil {
		if b.v2("cpu") {
			b.cpuV2(r.CPU)
		} else {
			b.cpuV1(r.CPU)
		}
		b.cpuset(r.CPU)
	}
	if r.Pids != nil && r.Pids.Limit != nil {
		b.pids(*r.Pids.Limit)
	}
	if r.BlockIO != nil {
		if b.v2("io") {
			b.ioV2(r.BlockIO)
		} else {
			b.blkioV1(r.BlockIO)
		}
	}
	b.hugetlb(r.HugepageLimits)
	if r.Network != nil {
		b.network(r.Network)
	}
	b.rdma(r.Rdma)
	b.unified(r.Unified)
}

// pids: 0 would be a cgroup that nothing can be born into after the first process, and systemd refuses it
// as TasksMax; 1 means the same and both drivers agree on it, as runc does.
func (b *builder) pids(limit int64) {
	const field = "linux.resources.pids.limit"
	value := "max"
	switch {
	case limit > 0:
		value = itoa(limit)
	case limit == 0:
		value = "1"
	}
	if b.now == nil && value == "max" && b.l.Find("pids") == nil {
		return
	}
	if dir, ok := b.dir("pids", field); ok {
		b.write(dir, "pids.max", value, field)
	}
}

func (b *builder) cpuset(c *specs.LinuxCPU) {
	if c.Cpus != "" {
		const field = "linux.resources.cpu.cpus"
		if dir, ok := b.dir("cpuset", field); ok {
			b.write(dir, "cpuset.cpus", c.Cpus, field)
		}
	}
	if c.Mems != "" {
		const field = "linux.resources.cpu.mems"
		if dir, ok := b.dir("cpuset", field); ok {
			b.write(dir, "cpuset.mems", c.Mems, field)
		}
	}
}

// hugetlb sets both kinds of limit: on reservations (Linux 5.7), which fail an mmap, and on use, which
// kills with SIGBUS where the first is missing.
func (b *builder) hugetlb(limits []specs.LinuxHugepageLimit) {
	for _, h := range limits {
		const field = "linux.resources.hugepageLimits"
		dir, ok := b.dir("hugetlb", field)
		if !ok {
			return
		}
		suffix := "limit_in_bytes"
		if b.v2("hugetlb") {
			suffix = "max"
		}
		value := utoa(h.Limit)
		b.write(dir, "hugetlb."+h.Pagesize+"."+suffix, value, field)
		b.write(dir, "hugetlb."+h.Pagesize+".rsvd."+suffix, value, field).Optional = true
	}
}

func (b *builder) network(n *specs.LinuxNetwork) {
	if n.ClassID != nil && *n.ClassID != 0 {
		const field = "linux.resources.network.classID"
		if dir, ok := b.dir("net_cls", field); ok {
			b.write(dir, "net_cls.classid", utoa(uint64(*n.ClassID)), field)
		}
	}
	for _, p := range n.Priorities {
		const field = "linux.resources.network.priorities"
		if dir, ok := b.dir("net_prio", field); ok {
			b.write(dir, "net_prio.ifpriomap", p.Name+" "+utoa(uint64(p.Priority)), field)
		}
	}
}

func (b *builder) rdma(m map[string]specs.LinuxRdma) {
	for _, device := range sortedKeys(m) {
		const field = "linux.resources.rdma"
		dir, ok := b.dir("rdma", field)
		if !ok {
			return
		}
		value := device
		if n := m[device].HcaHandles; n != nil {
			value += " hca_handle=" + utoa(uint64(*n))
		}
		if n := m[device].HcaObjects; n != nil {
			value += " hca_object=" + utoa(uint64(*n))
		}
		b.write(dir, "rdma.max", value, field)
	}
}

// unified writes v2 files by name, last, so that they override what the other fields asked for.
func (b *builder) unified(m map[string]string) {
	if len(m) == 0 || b.err != nil {
		return
	}
	h := b.l.V2()
	if b.l.Mode != V2 || h == nil {
		b.fail(fault.Invalid, "linux.resources.unified names cgroup v2 files, but this machine has cgroup %s", b.l.Mode)
		return
	}
	dir := h.Place(b.l.Mode, b.path)
	for _, file := range sortedKeys(m) {
		field := "linux.resources.unified[" + file + "]"
		controller, _, _ := strings.Cut(file, ".")
		if controller != "cgroup" && !slices.Contains(h.Controllers, controller) {
			b.fail(fault.NotImplemented, "%s can't be set: controller %q not available", field, controller)
			return
		}
		b.write(dir, file, m[file], field)
	}
}

func sortedKeys[V any](m map[string]V) []string {
	if len(m) == 0 {
		return nil
	}
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
