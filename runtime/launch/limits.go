package launch

import (
	"encoding/binary"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/base/fault"
)

var rlimits = map[string]int{
	"RLIMIT_CPU": unix.RLIMIT_CPU, "RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_DATA": unix.RLIMIT_DATA, "RLIMIT_STACK": unix.RLIMIT_STACK,
	"RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_RSS": unix.RLIMIT_RSS, "RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_NOFILE": unix.RLIMIT_NOFILE,
	"RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK, "RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS, "RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING,
	"RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE, "RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO, "RLIMIT_RTTIME": unix.RLIMIT_RTTIME,
}

// limits sets resource limits. Raising a hard limit takes CAP_SYS_RESOURCE on the host. That of open files waits for
// limitFiles: the child begins with the launcher's descriptors, and what it opens itself has numbers above theirs.
func (c *compiler) limits(p *specs.Process) error {
	seen := map[string]bool{}
	for _, l := range p.Rlimits {
		n, ok := rlimits[l.Type]
		if !ok {
			return fault.New(fault.Invalid, "process.rlimits: invalid rlimit type %q", l.Type)
		}
		if seen[l.Type] {
			return fault.New(fault.Invalid, "process.rlimits: %s is listed twice", l.Type)
		}
		seen[l.Type] = true
		if n != unix.RLIMIT_NOFILE {
			c.limit(l, n)
		}
	}
	return nil
}

// limitFiles sets the limit of open files once the child opens nothing any more.
func (c *compiler) limitFiles(p *specs.Process) {
	for _, l := range p.Rlimits {
		if l.Type == "RLIMIT_NOFILE" {
			c.limit(l, unix.RLIMIT_NOFILE)
			return
		}
	}
	if f := c.o.OpenFiles; f != nil {
		c.kid.call("restore the limit of open files", unix.SYS_PRLIMIT64, Int(0), Int(unix.RLIMIT_NOFILE), rlimit64(f.Cur, f.Max), Int(0))
	}
}

func (c *compiler) limit(l specs.POSIXRlimit, n int) {
	c.kid.call("set "+l.Type+" (raising a hard limit takes CAP_SYS_RESOURCE)", unix.SYS_PRLIMIT64, Int(0), Int(n), rlimit64(l.Soft, l.Hard), Int(0))
}

// rlimit64 is struct rlimit64 of prlimit(2).
func rlimit64(soft, hard uint64) Arg {
	b := make([]byte, 16)
	binary.LittleEndian.PutUint64(b, soft)
	binary.LittleEndian.PutUint64(b[8:], hard)
	return Bytes(b)
}

// writeOwn writes a file of the child's own in the host's /proc: it is real whatever the container's is.
func (c *compiler) writeOwn(file, text, what string) {
	fd := c.kid.open("own", what, unix.SYS_OPENAT, Of(c.hostProc), Str(file), Int(unix.O_WRONLY|unix.O_CLOEXEC), Int(0))
	c.kid.call(what, unix.SYS_WRITE, Of(fd), Str(text), Int(len(text)))
}

// own writes the child's own files in the host's /proc, while it still is the host's root: the badness
// that the OOM killer goes by, and the label that the security modules give it at execve.
func (c *compiler) own(p *specs.Process) error {
	if p.OOMScoreAdj != nil {
		what := "set oom_score_adj to " + strconv.Itoa(*p.OOMScoreAdj) + " (lowering it takes CAP_SYS_RESOURCE)"
		c.writeOwn("self/oom_score_adj", strconv.Itoa(*p.OOMScoreAdj), what)
	}
	return c.confine(p)
}

// schedPolicies are sched(7)'s policies.
var schedPolicies = map[specs.LinuxSchedulerPolicy]uint32{
	"SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_ISO": 4, "SCHED_IDLE": 5, "SCHED_DEADLINE": 6,
}

var schedFlags = map[specs.LinuxSchedulerFlag]uint64{
	"SCHED_FLAG_RESET_ON_FORK": 1, "SCHED_FLAG_RECLAIM": 2, "SCHED_FLAG_DL_OVERRUN": 4, "SCHED_FLAG_KEEP_POLICY": 8,
	"SCHED_FLAG_KEEP_PARAMS": 0x10, "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20, "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}

var ioClasses = map[specs.IOPriorityClass]int{"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}

// firstAffinity is the CPUs on which a process enters a running container, before it is in its cgroup.
func (c *compiler) firstAffinity(p *specs.Process) error {
	if !c.enters || p.ExecCPUAffinity == nil || p.ExecCPUAffinity.Initial == "" {
		return nil
	}
	mask, err := bitList(p.ExecCPUAffinity.Initial)
	if err != nil {
		return fault.In(err, "process.execCPUAffinity.initial")
	}
	c.kid.call("set the CPUs to start on", unix.SYS_SCHED_SETAFFINITY, Int(0), Int(len(mask)), Bytes(mask))
	return nil
}

// affinity lets the process run on all CPUs of its cgroup, whatever the launcher is bound to: the kernel leaves
// out those that the cgroup does not have. (Since Linux 6.2 joining a cgroup no longer widens the mask.)
func (c *compiler) affinity(p *specs.Process) error {
	const what = "set the CPUs to run on"
	a := p.ExecCPUAffinity
	if !c.enters || a == nil || a.Initial == "" && a.Final == "" {
		mask := everything()
		c.kid.call(what, unix.SYS_SCHED_SETAFFINITY, Int(0), Int(len(mask)), Bytes(mask)).expect(unix.EINVAL, 0).expect(unix.EPERM, 0)
		return nil
	}
	if a.Final == "" {
		return nil
	}
	mask, err := bitList(a.Final)
	if err != nil {
		return fault.In(err, "process.execCPUAffinity.final")
	}
	c.kid.call(what, unix.SYS_SCHED_SETAFFINITY, Int(0), Int(len(mask)), Bytes(mask))
	return nil
}

// memoryModes and memoryFlags are set_mempolicy(2)'s.
var memoryModes = map[specs.MemoryPolicyModeType]int{
	"MPOL_DEFAULT": 0, "MPOL_PREFERRED": 1, "MPOL_BIND": 2, "MPOL_INTERLEAVE": 3, "MPOL_LOCAL": 4, "MPOL_PREFERRED_MANY": 5, "MPOL_WEIGHTED_INTERLEAVE": 6,
}

var memoryFlags = map[specs.MemoryPolicyFlagType]int{"MPOL_F_STATIC_NODES": 1 << 15, "MPOL_F_RELATIVE_NODES": 1 << 14, "MPOL_F_NUMA_BALANCING": 1 << 13}

// memoryPolicy says on which NUMA nodes the process's memory is to be. It is inherited by all in the
// container, and processes that enter it later get it too.
func (c *compiler) memoryPolicy() error {
	p := c.s.Linux.MemoryPolicy
	if p == nil {
		return nil
	}
	mode, ok := memoryModes[p.Mode]
	if !ok {
		return fault.New(fault.Invalid, "linux.memoryPolicy.mode: invalid memory policy mode %q", p.Mode)
	}
	for _, f := range p.Flags {
		bit, ok := memoryFlags[f]
		if !ok {
			return fault.New(fault.Invalid, "linux.memoryPolicy.flags: invalid memory policy flag %q", f)
		}
		mode |= bit
	}
	nodes, bits := Int(0), 0
	if p.Nodes != "" {
		mask, err := bitList(p.Nodes)
		if err != nil {
			return fault.In(err, "linux.memoryPolicy.nodes: invalid memory policy node")
		}
		if n := popCount(mask); n > 0 && (p.Mode == specs.MpolDefault || p.Mode == specs.MpolLocal) {
			return fault.New(fault.Invalid, "linux.memoryPolicy.nodes: invalid memory policy: mode requires 0 nodes but got %d", n)
		}
		// The kernel counts one less than it is told.
		nodes, bits = Bytes(mask), 8*len(mask)+1
	}
	c.kid.call("set the memory policy", unix.SYS_SET_MEMPOLICY, Int(mode), nodes, Int(bits))
	return nil
}

// scheduling sets CPU and I/O priorities, affinity, personality and memory policy.
func (c *compiler) scheduling(p *specs.Process) error {
	k := &c.kid
	if err := c.affinity(p); err != nil {
		return err
	}
	if err := c.memoryPolicy(); err != nil {
		return err
	}
	if s := p.Scheduler; s != nil {
		attr, err := schedAttr(s)
		if err != nil {
			return err
		}
		k.call("set the scheduling policy", unix.SYS_SCHED_SETATTR, Int(0), Bytes(attr), Int(0))
	}
	if io := p.IOPriority; io != nil {
		class, ok := ioClasses[io.Class]
		if !ok || io.Priority < 0 || io.Priority > 7 {
			return fault.New(fault.Invalid, "process.ioPriority: class %q priority %d: use IOPRIO_CLASS_RT, _BE or _IDLE and 0 to 7", io.Class, io.Priority)
		}
		const whoProcess, classShift = 1, 13
		k.call("set the I/O priority", unix.SYS_IOPRIO_SET, Int(whoProcess), Int(0), Int(class<<classShift|io.Priority))
	}
	if l := c.s.Linux.Personality; l != nil {
		domains := map[specs.LinuxPersonalityDomain]int{"LINUX": 0, "LINUX32": 8}
		d, ok := domains[l.Domain]
		if !ok {
			return fault.New(fault.Invalid, "linux.personality.domain: %q is not LINUX or LINUX32", l.Domain)
		}
		if len(l.Flags) > 0 {
			return fault.New(fault.Invalid, "linux.personality.flags: the runtime spec defines none")
		}
		k.call("set the personality", unix.SYS_PERSONALITY, Int(d))
	}
	return nil
}

// schedAttr is struct sched_attr of sched_setattr(2).
func schedAttr(s *specs.Scheduler) ([]byte, error) {
	policy, ok := schedPolicies[s.Policy]
	if !ok {
		return nil, fault.New(fault.Invalid, "process.scheduler.policy: invalid scheduler policy: %q", s.Policy)
	}
	var flags uint64
	for _, f := range s.Flags {
		bit, ok := schedFlags[f]
		if !ok {
			return nil, fault.New(fault.Invalid, "process.scheduler.flags: invalid scheduler flag: %q", f)
		}
		flags |= bit
	}
	if s.Nice < -20 || s.Nice > 19 {
		return nil, fault.New(fault.Invalid, "process.scheduler.nice: %d is not between -20 and 19", s.Nice)
	}
	b, le := make([]byte, 48), binary.LittleEndian
	le.PutUint32(b, 48)
	le.PutUint32(b[4:], policy)
	le.PutUint64(b[8:], flags)
	le.PutUint32(b[16:], uint32(s.Nice))
	le.PutUint32(b[20:], uint32(s.Priority))
	le.PutUint64(b[24:], s.Runtime)
	le.PutUint64(b[32:], s.Deadline)
	le.PutUint64(b[40:], s.Period)
	return b, nil
}
