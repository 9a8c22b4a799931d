package host

import (
	"cmp"
	"path"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/base/id"
	"berth/kernel/cgroup"
)

// maxProcesses bounds the processes and threads of one command: git's index-pack has a thread for each processor.
const maxProcesses = 1024

// leastMemory is what a command may take on the smallest machine.
const leastMemory = 256 << 20

// memory gives how many bytes of the machine's memory one command may take: half. It is there to keep a repository that was made for it
// from taking all, not to save any.
func memory() int64 {
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) != nil {
		return leastMemory
	}
	return max(leastMemory, int64(s.Totalram)*int64(s.Unit)/2)
}

// limits of a command, as far as the machine has controllers for them.
func (r *Runner) limits(l cgroup.Layout) *specs.LinuxResources {
	out := &specs.LinuxResources{}
	if l.Find("memory") != nil {
		bytes := cmp.Or(r.cfg.Memory, memory())
		out.Memory = &specs.LinuxMemory{Limit: &bytes}
	}
	if l.Find("pids") != nil {
		n := int64(maxProcesses)
		out.Pids = &specs.LinuxPids{Limit: &n}
	}
	return out
}

// group makes a command's cgroup; nil where a user may make none.
func (r *Runner) group() (*cgroup.Cgroup, error) {
	if r.cfg.CgroupParent == "" {
		return nil, nil
	}
	layout, err := cgroup.Detect()
	if err != nil {
		return nil, fault.In(err, "find the cgroups")
	}
	at := path.Join("/", r.cfg.CgroupParent, groupPrefix+id.New()[:25])
	g, err := r.makeGroup(layout, at, r.limits(layout))
	if err == nil {
		return g, nil
	}
	// Controllers may be there and not be ours: a user has not been given them, or version 2 keeps them from cgroups below one with processes.
	r.limitless.Do(func() {
		r.cfg.Log.Warn("build: programs that fetch sources run without limits of memory and processes", "why", err)
	})
	if g, err = r.makeGroup(layout, at, nil); err != nil && r.cfg.InUserNS {
		return nil, nil
	}
	return g, fault.In(err, "make a cgroup")
}

func (r *Runner) makeGroup(l cgroup.Layout, at string, limits *specs.LinuxResources) (*cgroup.Cgroup, error) {
	setup, err := cgroup.Plan(l, at, limits)
	if err != nil {
		return nil, err
	}
	setup.Lenient = r.cfg.InUserNS
	return setup.Apply()
}

// groupPrefix begins the names of the cgroups. Those of an engine that died go with those of its steps (build/exec), which begin so, too.
const groupPrefix = "build-host-"
