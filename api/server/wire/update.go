package wire

import (
	containertypes "github.com/moby/moby/api/types/container"

	"berth/base/fault"
	"berth/engine/container"
)

// UpdateRequest is the body of POST /containers/ID/update.
type UpdateRequest struct {
	containertypes.UpdateConfig
	KernelMemory    int64 // before 1.42
	KernelMemoryTCP int64 // 1.40 to 1.51
}

// Change is what an update asks for.
type Change struct {
	Resources container.Resources // what is zero or nil stays as it is; a list of devices, also an empty one, takes the place of the old
	Restart   *container.Restart  // nil: stays
	Warnings  []string            // for the answer
}

// Change gives what the request asks to change, or names what cannot be changed while a container exists.
func (r *UpdateRequest) Change(v Version) (Change, error) {
	u := &r.UpdateConfig.Resources
	if v < 40 {
		u.PidsLimit = nil
	}
	if u.PidsLimit != nil && *u.PidsLimit <= 0 {
		*u.PidsLimit = 0 // none
	}
	if v < 55 { // were there, and did nothing
		u.BlkioWeightDevice, u.BlkioDeviceReadBps, u.BlkioDeviceWriteBps, u.BlkioDeviceReadIOps, u.BlkioDeviceWriteIOps = nil, nil, nil, nil, nil
	}
	for _, f := range []struct {
		set  bool
		name string
		kind fault.Kind
		why  string
	}{
		{len(u.Ulimits) > 0, "Ulimits", fault.Invalid, notLater},
		{len(u.Devices) > 0, "Devices", fault.Invalid, notLater},
		{len(u.DeviceCgroupRules) > 0, "DeviceCgroupRules", fault.Invalid, notLater},
		{len(u.DeviceRequests) > 0, "DeviceRequests", fault.Invalid, notLater},
		{u.CgroupParent != "", "CgroupParent", fault.Invalid, notLater},
		{u.OomKillDisable != nil && *u.OomKillDisable, "OomKillDisable", fault.Invalid, notLater},
		{u.MemorySwappiness != nil && *u.MemorySwappiness != -1, "MemorySwappiness", fault.Invalid, notLater},
		{u.CPUCount != 0, "CpuCount", fault.Invalid, notLinux},
		{u.CPUPercent != 0, "CpuPercent", fault.Invalid, notLinux},
		{u.IOMaximumIOps != 0, "IOMaximumIOps", fault.Invalid, notLinux},
		{u.IOMaximumBandwidth != 0, "IOMaximumBandwidth", fault.Invalid, notLinux},
	} {
		if f.set {
			return Change{}, fault.New(f.kind, "%s: %s", f.name, f.why)
		}
	}
	u.OomKillDisable, u.MemorySwappiness = nil, nil
	c := Change{Resources: resources(u)}
	if r.KernelMemory != 0 && v < 42 {
		c.Warnings = append(c.Warnings, noKernelLimit)
	}
	if v >= 40 && v < 52 {
		c.Resources.KernelMemoryTCP = r.KernelMemoryTCP
	}
	if p := r.RestartPolicy; p.Name != "" || p.MaximumRetryCount != 0 {
		c.Restart = &container.Restart{Name: string(p.Name), MaxRetries: p.MaximumRetryCount}
	}
	return c, nil
}

const notLater = "cannot be changed after the container was created"
