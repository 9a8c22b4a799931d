package cgroup

import (
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
)

// Update changes the limits that are set in r and leaves the others; device rules change only when r has
// some. When a write is refused, the values already written are put back as far as the kernel lets them,
// and the error says which one it was.
func (c *Cgroup) Update(r *specs.LinuxResources) error {
	s, err := c.PlanUpdate(r)
	if err != nil {
		return err
	}
	a := applier{setup: &s}
	defer a.file.close()
	var before []Step
	for i := range s.Steps {
		step := &s.Steps[i]
		if old, ok := restorable(step); ok {
			before = append(before, old)
		}
		if err = a.do(step); err != nil {
			break
		}
	}
	if err == nil {
		err = a.again()
	}
	if err == nil {
		return nil
	}
	for i := len(before) - 1; i >= 0; i-- {
		_ = before[i].write(&a.file)
	}
	return err
}

// PlanUpdate computes an update from what holds at the moment, without changing anything.
func (c *Cgroup) PlanUpdate(r *specs.LinuxResources) (Setup, error) {
	s := Setup{Path: c.path, Layout: c.layout}
	if r == nil {
		return s, nil
	}
	if err := validate(r); err != nil {
		return s, err
	}
	b := builder{l: c.layout, path: c.path, now: c.observe(r)}
	if h := c.layout.V2(); h != nil && len(h.Controllers) > 0 && c.V2Dir() != "" {
		b.steps = append(b.steps, Step{Op: Enable, Dir: c.V2Dir(), Base: h.Dir, Controllers: h.Controllers})
	}
	if len(r.Devices) > 0 {
		b.devices(r.Devices)
	}
	b.resources(r)
	s.Steps = b.steps
	return s, b.err
}

// observe reads what the order of the writes depends on, and nothing else.
func (c *Cgroup) observe(r *specs.LinuxResources) *observed {
	now := &observed{memoryLimit: -1}
	if dir := c.Dir("memory"); dir != "" && r.Memory != nil {
		limit, usage := "/memory.limit_in_bytes", "/memory.usage_in_bytes"
		if c.layout.Find("memory").V2 {
			limit, usage = "/memory.max", "/memory.current"
		}
		if n, ok := atou(trimmed(dir + limit)); ok && n < unlimitedV1 {
			now.memoryLimit = int64(n)
		}
		if n, ok := atou(trimmed(dir + usage)); ok {
			now.memoryUsage = int64(n)
		}
	}
	if h := c.layout.Find("cpu"); h != nil && h.V2 && r.CPU != nil {
		now.cpuMax = trimmed(c.Dir("cpu") + "/cpu.max")
	}
	if h := c.layout.Find("devices"); h != nil && len(r.Devices) > 0 {
		now.devices, _ = readFile(c.Dir("devices") + "/devices.list")
	}
	return now
}

// unlimitedV1 and everything above is "no limit" in v1's memory files: the largest signed number, rounded
// down to pages.
const unlimitedV1 = 1<<63 - 1<<16

// restorable gives the step that writes back the present value, for files that hold one plain value.
func restorable(s *Step) (Step, bool) {
	if s.Op != Write || s.Or != "" {
		return Step{}, false
	}
	switch s.File {
	case "devices.allow", "devices.deny", "io.max", "rdma.max", "net_prio.ifpriomap", "memory.oom_control":
		return Step{}, false
	}
	if strings.HasPrefix(s.File, "blkio.throttle.") {
		return Step{}, false
	}
	old := trimmed(s.Dir + "/" + s.File)
	if old == "" {
		return Step{}, false
	}
	back := *s
	back.Value = old
	return back, true
}

// gone turns the absence of the whole cgroup into an error of its own.
func (c *Cgroup) gone(err error, doing string) error {
	for _, dir := range c.dirs {
		if dir != "" && exists(dir) {
			return fault.Wrap(fault.Internal, err, "%s cgroup %s", doing, c.path)
		}
	}
	return fault.New(fault.NotFound, "cgroup %s does not exist", c.path)
}
