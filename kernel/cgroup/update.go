package cgroup

import (
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
)

// Update changes the limits that are set in r and leaves the others; device rules change only when r has
// some. When a write is refused, the values already written are put back as far as the kernel lets them,
// and the error says which one it was.
func (c *Cgroup) Update(r *specs.LinuxResources) error {
	_, err := c.Change(r)
	return err
}

// Change is Update; undo writes back what held before, for a caller whose own part fails afterwards. It says
// what the kernel did not take back.
func (c *Cgroup) Change(r *specs.LinuxResources) (undo func() error, err error) {
	s, err := c.PlanUpdate(r)
	if err != nil {
		return nil, err
	}
	a := applier{setup: &s}
	defer a.file.close()
	var before []Step
	for i := range s.Steps {
		step := &s.Steps[i]
		before = append(before, restorable(step)...)
		if err = a.do(step); err != nil {
			break
		}
	}
	if err == nil {
		err = a.again()
	}
	undo = func() error {
		back := applier{setup: &s}
		defer back.file.close()
		var first error
		for _, step := range slices.Backward(before) {
			if err := back.do(&step); err != nil && first == nil {
				first = err
			}
		}
		if err := back.again(); err != nil && first == nil {
			first = err
		}
		return first
	}
	if err != nil {
		_ = undo() // the refusal is what the caller has to know
		return nil, err
	}
	return undo, nil
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

// restorable gives the steps that write back what holds now in the file that s is about to write; none
// for files that do not tell it (device rules, which only OCI's callers change).
func restorable(s *Step) []Step {
	if s.Op != Write {
		return nil
	}
	file := s.File
	if s.Or != "" && !exists(s.Dir+"/"+file) {
		file = s.Or
	}
	text, err := readFile(s.Dir + "/" + file)
	if err != nil {
		return nil
	}
	value, ok := formerly(file, s.Value, string(text))
	if !ok {
		return nil
	}
	return []Step{{Op: Write, Dir: s.Dir, File: file, Value: value, Field: s.Field, Optional: s.Optional, Retry: true}}
}

// formerly gives what has to be written to a file for it to hold what it holds now, text, again after value was written.
func formerly(file, value, text string) (string, bool) {
	old := strings.TrimSpace(text)
	device, _, keyed := strings.Cut(value, " ")
	keyed = keyed && strings.Contains(device, ":")
	switch {
	case file == "devices.allow", file == "devices.deny", file == "rdma.max", file == "net_prio.ifpriomap":
		return "", false
	case file == "memory.oom_control":
		_, after, found := strings.Cut(old, "oom_kill_disable ")
		disabled, _, _ := strings.Cut(after, "\n")
		return disabled, found
	case file == "cpuset.cpus" || file == "cpuset.mems":
		if old == "" { // v2: the parent's
			return "\n", true
		}
		return old, true
	case keyed:
		for line := range strings.Lines(old) {
			if strings.HasPrefix(line, device+" ") {
				return strings.TrimSpace(line), true
			}
		}
		return device + " " + unlimited(file), true
	case strings.HasSuffix(file, "weight"): // v2: "default 100", then lines of devices
		first, _, _ := strings.Cut(old, "\n")
		return first, first != ""
	}
	return old, old != ""
}

// unlimited is what takes a device's own line out of a file.
func unlimited(file string) string {
	switch {
	case file == "io.max":
		return "rbps=max wbps=max riops=max wiops=max"
	case strings.Contains(file, "weight"):
		return "default"
	}
	return "0"
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
