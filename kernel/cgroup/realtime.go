package cgroup

import (
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// Realtime makes the cgroup at path, and those above it below the mount point, and gives each the time that real-time processes may take
// in them: runtime of every period, in microseconds; 0 leaves that one as it is. A cgroup of v1 has none of its own before that, and the
// kernel gives a child only of what its parent has. It refuses on v2, which has no such limits, and on kernels without RT_GROUP_SCHED.
func (l Layout) Realtime(at string, period, runtime int64) error {
	h := l.Find("cpu")
	if h == nil || h.V2 {
		return fault.New(fault.NotImplemented, "time for real-time processes is given out by cgroup v1 alone, and this machine has cgroup %s", l.Mode)
	}
	if !exists(h.Dir + "/cpu.rt_runtime_us") {
		return fault.New(fault.NotImplemented, "the kernel has no realtime limits for groups (CONFIG_RT_GROUP_SCHED)")
	}
	dir := h.Dir
	for _, part := range strings.Split(strings.Trim(path.Clean(strings.TrimPrefix(h.Place(l.Mode, at), h.Dir)), "/"), "/") {
		dir += "/" + part
		if err := unix.Mkdir(dir, 0o755); err != nil && err != unix.EEXIST {
			return fault.Wrap(fault.Internal, err, "make cgroup %s", dir)
		}
		// The one that was there may be less than what a container above has been given since: each is tried again after the other.
		var later error
		for range 2 {
			later = nil
			for _, f := range []struct {
				name  string
				value int64
			}{{"cpu.rt_period_us", period}, {"cpu.rt_runtime_us", runtime}} {
				if f.value == 0 || trimmed(dir+"/"+f.name) == itoa(f.value) {
					continue
				}
				if err := writeFile(dir+"/"+f.name, itoa(f.value)); err != nil {
					later = fault.Wrap(fault.Invalid, err, "write %q to %s/%s (no group may have more than its parent, and a parent no less than its children together)", itoa(f.value), dir, f.name)
				}
			}
		}
		if later != nil {
			return later
		}
	}
	return nil
}
