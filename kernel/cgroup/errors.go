package cgroup

import (
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// crowded reports whether a controller was refused because of the processes in a v2 cgroup. Where threaded
// controllers were given to its children before, the cgroup has become the root of a threaded subtree, and
// the kernel answers EOPNOTSUPP instead of EBUSY (cgroup-v2.rst, Threads).
func crowded(cause error) bool {
	return strings.Contains(cause.Error(), unix.EBUSY.Error()) || strings.Contains(cause.Error(), unix.EOPNOTSUPP.Error())
}

// explain says which file refused which value, what the kernel means by its errno there, and what to do.
func (a *applier) explain(s *Step, err error) error {
	kind, hint := fault.Internal, ""
	switch err {
	case unix.ENOENT:
		kind = fault.NotImplemented
		controller, _, _ := strings.Cut(s.File, ".")
		cause := a.enable[controller]
		switch {
		case cause != nil && crowded(cause):
			hint = "the " + controller + " controller could not be enabled: " + cause.Error() +
				": a v2 cgroup that has processes gives no controllers to its children: move the processes into a child, or choose another parent cgroup"
		case cause != nil:
			hint = "the " + controller + " controller could not be enabled: " + cause.Error()
		default:
			hint = missingFile(s.File)
		}
	case unix.EINVAL, unix.ERANGE:
		kind, hint = fault.Invalid, refused(s)
	case unix.EBUSY:
		kind, hint = fault.Conflict, busy(s.File)
	case unix.EACCES, unix.EPERM, unix.EROFS:
		kind, hint = fault.Forbidden, "this process may not change it: run as root, or in a delegated cgroup"
		if strings.HasPrefix(s.File, "devices.") {
			hint = "the parent cgroup " + path.Dir(s.Dir) + " does not allow it"
		}
		if strings.HasPrefix(s.File, "cpuset.") {
			hint = "the parent cgroup has " + orNone(trimmed(path.Dir(s.Dir)+"/"+s.File))
		}
	case unix.ENODEV:
		kind, hint = fault.Invalid, "there is no such device: see lsblk for the numbers of disks (partitions have no limits)"
	}
	if hint != "" {
		return fault.Wrap(kind, err, "%s: write %q to %s/%s (%s)", s.Field, s.Value, s.Dir, s.File, hint)
	}
	return fault.Wrap(kind, err, "%s: write %q to %s/%s", s.Field, s.Value, s.Dir, s.File)
}

// missingFile says why a kernel may lack a file.
func missingFile(file string) string {
	switch {
	case strings.HasPrefix(file, "memory.memsw."), strings.HasPrefix(file, "memory.swap."):
		return "the kernel does not count swap: boot it with swapaccount=1, or leave the swap limit out"
	case strings.HasPrefix(file, "cpu.cfs_"), file == "cpu.max":
		return "the kernel has no CPU quota (CONFIG_CFS_BANDWIDTH)"
	case strings.HasPrefix(file, "cpu.rt_"):
		return "the kernel has no realtime limits for groups (CONFIG_RT_GROUP_SCHED)"
	case strings.HasSuffix(file, "burst"), strings.HasSuffix(file, "burst_us"):
		return "CPU bursts need Linux 5.14"
	case file == "cpu.idle":
		return "idle groups need Linux 5.15"
	case strings.HasPrefix(file, "blkio.leaf_weight"):
		return "leaf weights went with the CFQ scheduler (Linux 5.0): leave them out"
	case strings.Contains(file, "weight"):
		return "no disk uses a scheduler with weights: select bfq, or enable io.cost"
	case strings.HasPrefix(file, "hugetlb."):
		return "the kernel has no huge pages of this size: see /sys/kernel/mm/hugepages"
	}
	controller, _, _ := strings.Cut(file, ".")
	return "the " + controller + " controller is not enabled in this cgroup, or this kernel has no such file"
}

// refused says what the kernel's EINVAL may mean.
func refused(s *Step) string {
	switch s.File {
	case "memory.limit_in_bytes":
		return "it must not exceed memory plus swap, which is " + orNone(trimmed(s.Dir+"/memory.memsw.limit_in_bytes")) + ": update linux.resources.memory.swap at the same time"
	case "memory.memsw.limit_in_bytes":
		return "memory plus swap cannot be less than the memory limit, which is " + orNone(trimmed(s.Dir+"/memory.limit_in_bytes"))
	case "memory.swappiness":
		return "give 0 to 100"
	case "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.max":
		return "a period is 1000 to 1000000 microseconds and a quota at least 1000; no group may have more than its parent"
	case "cpu.cfs_burst_us", "cpu.max.burst":
		return "a burst cannot exceed the quota"
	case "cpu.rt_runtime_us", "cpu.rt_period_us":
		return "realtime runtime must fit into the parent cgroup's: set cpu.rt_runtime_us there first"
	case "cpu.weight", "cpu.shares":
		return "an idle group has no weight: set linux.resources.cpu.idle to 0"
	case "cpuset.cpus", "cpuset.mems":
		return "not a list of what this machine has; the parent cgroup has " + orNone(trimmed(path.Dir(s.Dir)+"/"+s.File))
	case "memory.oom_control":
		return "the root cgroup's OOM killer cannot be disabled"
	}
	if strings.HasPrefix(s.File, "devices.") {
		return "the cgroup has children, which bars a change of the default"
	}
	return "the kernel does not accept the value"
}

// busy says what the kernel's EBUSY may mean.
func busy(file string) string {
	switch {
	case strings.HasPrefix(file, "memory."):
		return "the limit is below what is in use and could not be freed: free memory in the container first"
	case strings.HasPrefix(file, "cpuset."):
		return "a child cgroup uses a CPU or memory node that would go"
	}
	return ""
}

func deviceError(s *Step, err error) error {
	switch err {
	case unix.EPERM:
		return fault.Wrap(fault.Forbidden, err, "%s: attach the device rules to %s (needs CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN)", s.Field, s.Dir)
	case unix.EINVAL, unix.ENOSYS:
		return fault.Wrap(fault.NotImplemented, err, "%s: attach the device rules to %s (needs a kernel with CONFIG_CGROUP_BPF)", s.Field, s.Dir)
	}
	return fault.Wrap(fault.Internal, err, "%s: attach the device rules to %s", s.Field, s.Dir)
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
