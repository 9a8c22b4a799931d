package config

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func (d *decoder) resources(r *specs.LinuxResources, key string) {
	switch key {
	case "devices":
		r.Devices = objects(d, d.deviceRule)
	case "memory":
		r.Memory = maybe(d, d.memory)
	case "cpu":
		r.CPU = maybe(d, d.cpu)
	case "pids":
		r.Pids = maybe(d, d.pids)
	case "blockIO":
		r.BlockIO = maybe(d, d.blockIO)
	case "hugepageLimits":
		r.HugepageLimits = objects(d, d.hugepageLimit)
	case "network":
		r.Network = maybe(d, d.network)
	case "rdma":
		r.Rdma = table(d, func() specs.LinuxRdma { return object(d, d.rdma) })
	case "unified":
		r.Unified = d.TextMap()
	default:
		d.Skip()
	}
}

func (d *decoder) deviceRule(v *specs.LinuxDeviceCgroup, key string) {
	switch key {
	case "allow":
		v.Allow = d.Bool()
	case "type":
		v.Type = d.Text()
	case "major":
		v.Major = ptr(d, d.Int)
	case "minor":
		v.Minor = ptr(d, d.Int)
	case "access":
		v.Access = d.Text()
	default:
		d.Skip()
	}
}

func (d *decoder) memory(m *specs.LinuxMemory, key string) {
	switch key {
	case "limit":
		m.Limit = ptr(d, d.Int)
	case "reservation":
		m.Reservation = ptr(d, d.Int)
	case "swap":
		m.Swap = ptr(d, d.Int)
	case "kernel":
		//lint:ignore SA1019 deprecated; told to the user as ignored
		m.Kernel = ptr(d, d.Int)
	case "kernelTCP":
		m.KernelTCP = ptr(d, d.Int)
	case "swappiness":
		m.Swappiness = ptr(d, d.Uint)
	case "disableOOMKiller":
		m.DisableOOMKiller = ptr(d, d.Bool)
	case "useHierarchy":
		m.UseHierarchy = ptr(d, d.Bool)
	case "checkBeforeUpdate":
		m.CheckBeforeUpdate = ptr(d, d.Bool)
	default:
		d.Skip()
	}
}

func (d *decoder) cpu(c *specs.LinuxCPU, key string) {
	switch key {
	case "shares":
		c.Shares = ptr(d, d.Uint)
	case "quota":
		c.Quota = ptr(d, d.Int)
	case "burst":
		c.Burst = ptr(d, d.Uint)
	case "period":
		c.Period = ptr(d, d.Uint)
	case "realtimeRuntime":
		c.RealtimeRuntime = ptr(d, d.Int)
	case "realtimePeriod":
		c.RealtimePeriod = ptr(d, d.Uint)
	case "cpus":
		c.Cpus = d.Text()
	case "mems":
		c.Mems = d.Text()
	case "idle":
		c.Idle = ptr(d, d.Int)
	default:
		d.Skip()
	}
}

func (d *decoder) pids(p *specs.LinuxPids, key string) {
	switch key {
	case "limit":
		p.Limit = ptr(d, d.Int)
	default:
		d.Skip()
	}
}

func (d *decoder) blockIO(b *specs.LinuxBlockIO, key string) {
	switch key {
	case "weight":
		b.Weight = ptr(d, d.uint16)
	case "leafWeight":
		b.LeafWeight = ptr(d, d.uint16)
	case "weightDevice":
		b.WeightDevice = objects(d, d.weightDevice)
	case "throttleReadBpsDevice":
		b.ThrottleReadBpsDevice = objects(d, d.throttleDevice)
	case "throttleWriteBpsDevice":
		b.ThrottleWriteBpsDevice = objects(d, d.throttleDevice)
	case "throttleReadIOPSDevice":
		b.ThrottleReadIOPSDevice = objects(d, d.throttleDevice)
	case "throttleWriteIOPSDevice":
		b.ThrottleWriteIOPSDevice = objects(d, d.throttleDevice)
	default:
		d.Skip()
	}
}

func (d *decoder) weightDevice(w *specs.LinuxWeightDevice, key string) {
	switch key {
	case "major":
		w.Major = d.Int()
	case "minor":
		w.Minor = d.Int()
	case "weight":
		w.Weight = ptr(d, d.uint16)
	case "leafWeight":
		w.LeafWeight = ptr(d, d.uint16)
	default:
		d.Skip()
	}
}

func (d *decoder) throttleDevice(t *specs.LinuxThrottleDevice, key string) {
	switch key {
	case "major":
		t.Major = d.Int()
	case "minor":
		t.Minor = d.Int()
	case "rate":
		t.Rate = d.Uint()
	default:
		d.Skip()
	}
}

func (d *decoder) hugepageLimit(h *specs.LinuxHugepageLimit, key string) {
	switch key {
	case "pageSize":
		h.Pagesize = d.Text()
	case "limit":
		h.Limit = d.Uint()
	default:
		d.Skip()
	}
}

func (d *decoder) network(n *specs.LinuxNetwork, key string) {
	switch key {
	case "classID":
		n.ClassID = ptr(d, d.Uint32)
	case "priorities":
		n.Priorities = objects(d, d.priority)
	default:
		d.Skip()
	}
}

func (d *decoder) priority(p *specs.LinuxInterfacePriority, key string) {
	switch key {
	case "name":
		p.Name = d.Text()
	case "priority":
		p.Priority = d.Uint32()
	default:
		d.Skip()
	}
}

func (d *decoder) rdma(r *specs.LinuxRdma, key string) {
	switch key {
	case "hcaHandles":
		r.HcaHandles = ptr(d, d.Uint32)
	case "hcaObjects":
		r.HcaObjects = ptr(d, d.Uint32)
	default:
		d.Skip()
	}
}
