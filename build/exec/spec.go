package exec

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
	"berth/kernel/cgroup"
	"berth/runtime/spec"
)

// defaultHostname is BuildKit's; builds see it.
const defaultHostname = "buildkitsandbox"

// describe makes the specification of the box: what all its processes have in common.
func (b *box) describe() error {
	cfg := &b.cfg
	s := &specs.Spec{
		Version:  specs.Version,
		Hostname: cfg.hostname,
		Root:     &specs.Root{Readonly: b.root.m.Readonly},
		Linux: &specs.Linux{CgroupsPath: b.cgroupPath(), MaskedPaths: spec.MaskedPaths(), ReadonlyPaths: spec.ReadonlyPaths(),
			MountLabel: b.confined.MountLabel},
	}
	if s.Hostname == "" {
		s.Hostname = defaultHostname
	}
	b.spec = s
	b.namespaces()
	b.mounts()
	s.Linux.Resources = resources(cfg.resources, cfg.limits)
	s.Linux.Resources.Devices = spec.DeviceRules()
	s.Process = &specs.Process{Cwd: "/"}
	setCapabilities(s.Process, b.insecure)
	if b.insecure {
		b.unconfine()
	} else {
		p, err := b.r.profiles.Get(b.seccomp(), s.Process.Capabilities.Bounding)
		if err != nil {
			return fault.In(err, "the seccomp profile of builds")
		}
		s.Linux.Seccomp, b.filter = p.Spec, p.Filter
	}
	return b.inject()
}

func (b *box) seccomp() string {
	if b.cfg.limits.SeccompUnconfined {
		return spec.Unconfined
	}
	return b.r.cfg.SeccompProfile
}

// setCapabilities gives what a container has, or all there is.
func setCapabilities(p *specs.Process, insecure bool) {
	if insecure {
		all := spec.AllCapabilities()
		p.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all, Inheritable: all, Ambient: all}
		return
	}
	own := spec.DefaultCapabilities()
	p.Capabilities = &specs.LinuxCapabilities{Bounding: own, Effective: own, Permitted: own}
}

func (b *box) namespaces() {
	l := b.spec.Linux
	for _, kind := range []specs.LinuxNamespaceType{specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.MountNamespace} {
		l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: kind})
	}
	if b.cfg.network != pb.NetMode_HOST {
		l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: b.net.NetNS})
	}
	if b.privateCgroups() {
		l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	b.mapNamespaces()
}

// privateCgroups reports whether the step sees its own cgroup as the root of all.
func (b *box) privateCgroups() bool {
	if ns := b.r.cfg.CgroupNS; ns != "" {
		return ns == "private"
	}
	return b.r.layout.Mode == cgroup.V2
}

// mounts lists the file systems every container has, the two files of the network, and the places. One on the same path as another takes
// its turn.
func (b *box) mounts() {
	list := spec.Mounts(b.cfg.limits.ShmSize)
	if b.mapping != nil && b.cfg.network == pb.NetMode_HOST {
		lendSys(list)
	}
	tree := map[string]int{} // by destination
	put := func(m specs.Mount, fd int) {
		tree[m.Destination] = fd
		if i := slices.IndexFunc(list, func(o specs.Mount) bool { return o.Destination == m.Destination }); i >= 0 {
			list[i] = m
			return
		}
		list = append(list, m)
	}
	for _, f := range []struct{ dest, source string }{{"/etc/resolv.conf", b.etc.resolv}, {"/etc/hosts", b.etc.hosts}} {
		put(specs.Mount{Destination: f.dest, Type: "bind", Source: f.source, Options: []string{"nosuid", "noexec", "nodev", "rbind", "ro"}}, 0)
	}
	for _, p := range sortPlaces(b.places) {
		switch {
		case p == b.root || p.absent:
		case p.tree >= 0:
			put(specs.Mount{Destination: p.dest, Type: "bind", Source: source(p.tree), Options: append([]string{"rbind"}, p.options...)}, p.tree)
		default:
			put(specs.Mount{Destination: p.dest, Type: "tmpfs", Source: "tmpfs", Options: p.options}, 0)
		}
	}
	b.trees = map[int]int{}
	for i, m := range list {
		if fd := tree[m.Destination]; fd > 0 {
			b.trees[i] = fd
		}
	}
	b.spec.Mounts = list
}

// unconfine is security.insecure: all of BuildKit's, whose builds start daemons of their own with it.
func (b *box) unconfine() {
	l := b.spec.Linux
	l.MaskedPaths, l.ReadonlyPaths, l.Seccomp = nil, nil, nil
	l.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
	for i := range b.spec.Mounts {
		if m := &b.spec.Mounts[i]; m.Type == "sysfs" || m.Type == "cgroup" {
			m.Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return o == "ro" })
		}
	}
	if !b.r.cfg.InUserNS {
		l.Devices = append(l.Devices, b.insecureDevices()...)
	}
}

// cgroupPath is where the box's processes are.
func (b *box) cgroupPath() string {
	parent := b.r.cfg.CgroupParent
	for _, p := range []string{b.cfg.limits.CgroupParent, b.cfg.parent} {
		if p != "" {
			parent = p
		}
	}
	return path.Join("/", parent, groupPrefix+b.cfg.id)
}

// groupPrefix begins the names of our cgroups, by which Open finds those of an engine that died.
const groupPrefix = "build-"

// resources are the limits of a step: the client's for the whole build, and those beside the operation.
func resources(r *pb.LinuxResources, l Limits) *specs.LinuxResources {
	out := &specs.LinuxResources{}
	pick := func(a, b int64) int64 {
		if a != 0 {
			return a
		}
		return b
	}
	memory, swap := pick(r.GetMemory(), l.Memory), pick(r.GetMemorySwap(), l.MemorySwap)
	if memory != 0 || swap != 0 {
		out.Memory = &specs.LinuxMemory{}
		if memory != 0 {
			out.Memory.Limit = &memory
		}
		if swap != 0 {
			out.Memory.Swap = &swap
		}
	}
	cpu := specs.LinuxCPU{Cpus: r.GetCpusetCpus(), Mems: r.GetCpusetMems()}
	if cpu.Cpus == "" {
		cpu.Cpus = l.CpusetCpus
	}
	if cpu.Mems == "" {
		cpu.Mems = l.CpusetMems
	}
	if v := uint64(pick(int64(r.GetCpuShares()), int64(l.CPUShares))); v != 0 {
		cpu.Shares = &v
	}
	if v := uint64(pick(int64(r.GetCpuPeriod()), int64(l.CPUPeriod))); v != 0 {
		cpu.Period = &v
	}
	if v := pick(r.GetCpuQuota(), l.CPUQuota); v != 0 {
		cpu.Quota = &v
	}
	if cpu != (specs.LinuxCPU{}) {
		out.CPU = &cpu
	}
	return out
}

// rlimits are those of the step, else the client's, else the default of containers for open files.
func (b *box) rlimits() []specs.POSIXRlimit {
	var list []specs.POSIXRlimit
	for _, u := range b.cfg.ulimits {
		if u != nil {
			list = append(list, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: uint64(u.Soft), Hard: uint64(u.Hard)})
		}
	}
	for _, u := range b.cfg.limits.Ulimits {
		l := specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: uint64(u.Soft), Hard: uint64(u.Hard)}
		if !slices.ContainsFunc(list, func(o specs.POSIXRlimit) bool { return o.Type == l.Type }) {
			list = append(list, l)
		}
	}
	hard := b.r.cfg.NofileHard
	if hard != 0 && !slices.ContainsFunc(list, func(o specs.POSIXRlimit) bool { return o.Type == "RLIMIT_NOFILE" }) {
		// Go has raised our own soft limit; programs that walk every possible descriptor would take minutes.
		list = append(list, specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Soft: min(1024, hard), Hard: hard})
	}
	return list
}

func sizeOption(n int64) string { return "size=" + strconv.FormatInt(n, 10) }
