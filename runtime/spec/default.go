package spec

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/kernel/capability"
)

// DefaultOptions says in what a container differs from Docker's default. The zero value is `docker run`
// on a host with cgroup v2.
type DefaultOptions struct {
	Args                []string // nil: sh
	Terminal            bool
	Hostname            string
	ShmSize             int64    // bytes of /dev/shm; 0: 64 MiB
	Capabilities        []string // nil: DefaultCapabilities
	HostCgroupNamespace bool     // stay in the runtime's cgroup namespace, Docker's way on cgroup v1
	Unconfined          bool     // no seccomp profile
	Privileged          bool     // as WithPrivileged
}

// Default gives a new configuration like the one Docker makes for a container that asks for nothing.
// Nothing in it is shared: the caller may change all of it.
func Default(o DefaultOptions) *specs.Spec {
	caps := o.Capabilities
	if caps == nil {
		caps = DefaultCapabilities()
	}
	args := o.Args
	if args == nil {
		args = []string{"sh"}
	}
	s := &specs.Spec{
		Version: specs.Version,
		Process: &specs.Process{
			Terminal: o.Terminal,
			Args:     args,
			Env:      []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"},
			Cwd:      "/",
			Capabilities: &specs.LinuxCapabilities{
				Bounding: slices.Clone(caps), Effective: slices.Clone(caps), Permitted: slices.Clone(caps),
			},
			OOMScoreAdj: new(int),
		},
		Root:     &specs.Root{Path: "rootfs"},
		Hostname: o.Hostname,
		Mounts:   Mounts(o.ShmSize),
		Linux: &specs.Linux{
			Sysctl:        NetworkSysctls(),
			Resources:     &specs.LinuxResources{Devices: DeviceRules()},
			Namespaces:    namespaces(!o.HostCgroupNamespace),
			MaskedPaths:   MaskedPaths(),
			ReadonlyPaths: ReadonlyPaths(),
		},
	}
	if o.Privileged {
		WithPrivileged(s)
	} else if !o.Unconfined {
		s.Linux.Seccomp = DefaultSeccomp(caps)
	}
	return s
}

// WithPrivileged takes away what confines a container: it gets all capabilities and devices, nothing of
// /proc and /sys is hidden or read-only, and no seccomp or AppArmor profile applies. Giving it the
// host's device nodes is the caller's part.
func WithPrivileged(s *specs.Spec) {
	all := AllCapabilities()
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: slices.Clone(all), Permitted: slices.Clone(all)}
	s.Process.ApparmorProfile = ""
	s.Linux.Seccomp, s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil, nil
	if s.Linux.Resources == nil {
		s.Linux.Resources = &specs.LinuxResources{}
	}
	s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
	for i := range s.Mounts {
		if m := &s.Mounts[i]; m.Type == "sysfs" || m.Type == "cgroup" || m.Type == "cgroup2" {
			m.Options = slices.DeleteFunc(m.Options, func(o string) bool { return o == "ro" })
		}
	}
}

// DefaultCapabilities are the fourteen that a Docker container has unless told otherwise.
func DefaultCapabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
		"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
}

// AllCapabilities are those that can be given at all: the kernel has them and so has this process.
func AllCapabilities() []string {
	set := capability.All()
	if own, err := capability.Permitted(); err == nil {
		set &= own
	}
	return capability.Names(set)
}

// defaultShm is Docker's size of /dev/shm.
const defaultShm = 64 << 20

// Mounts are every container's, in the order in which they are made. shm is the size of /dev/shm in
// bytes, 0 for Docker's 64 MiB.
func Mounts(shm int64) []specs.Mount {
	if shm == 0 {
		shm = defaultShm
	}
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", fmt.Sprintf("size=%d", shm)}},
	}
}

func namespaces(cgroup bool) []specs.LinuxNamespace {
	all := []specs.LinuxNamespace{
		{Type: specs.MountNamespace}, {Type: specs.NetworkNamespace}, {Type: specs.UTSNamespace},
		{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace},
	}
	if cgroup {
		all = append(all, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	return all
}

// DeviceRules are Docker's: nothing but null, zero, full, random, urandom, tty and console, and fuse
// refused by name. A runtime allows on its own what it puts into /dev of every container.
func DeviceRules() []specs.LinuxDeviceCgroup {
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	for _, d := range [...][2]int64{{1, 5}, {1, 3}, {1, 9}, {1, 8}, {5, 0}, {5, 1}} {
		rules = append(rules, charDevice(true, d[0], d[1]))
	}
	return append(rules, charDevice(false, 10, 229))
}

func charDevice(allow bool, major, minor int64) specs.LinuxDeviceCgroup {
	return specs.LinuxDeviceCgroup{Allow: allow, Type: "c", Major: &major, Minor: &minor, Access: "rwm"}
}

// MaskedPaths are hidden from a container: they tell about the whole machine or have let containers
// act on it. The thermal throttling counters are a clock that betrays what other tenants do
// (GHSA-6fw5-f8r9-fgfm), and there is one directory for each processor.
func MaskedPaths() []string {
	return append([]string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
	}, throttlePaths()...)
}

// ReadonlyPaths can be read in a container and not written.
func ReadonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// NetworkSysctls are set in a network namespace of a container's own, so that programs without
// privileges can ping and listen on any port there. Not for user namespaces other than the host's: the
// group range is written with host ids.
func NetworkSysctls() map[string]string {
	return map[string]string{"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
}

// throttlePaths does not change while the machine runs; it takes a stat(2) for each processor.
var throttlePaths = sync.OnceValue(func() []string {
	possible, err := os.ReadFile("/sys/devices/system/cpu/possible")
	if err != nil {
		return nil
	}
	var paths []string
	for _, cpu := range cpuList(strings.TrimSpace(string(possible))) {
		p := fmt.Sprintf("/sys/devices/system/cpu/cpu%d/thermal_throttle", cpu)
		if _, err := os.Stat(p); err == nil {
			paths = append(paths, p)
		}
	}
	return paths
})

// maxCPUs is more than any kernel has processors (NR_CPUS).
const maxCPUs = 8192

// cpuList reads the kernel's list of numbers and ranges, "0-3,8"; it stops at what it does not understand.
func cpuList(text string) []int {
	var cpus []int
	for part := range strings.SplitSeq(text, ",") {
		first, last, ranged := strings.Cut(part, "-")
		a, err := strconv.Atoi(first)
		if err != nil {
			return cpus
		}
		b := a
		if ranged {
			if b, err = strconv.Atoi(last); err != nil {
				return cpus
			}
		}
		for n := a; n >= 0 && n <= b && n < maxCPUs; n++ {
			cpus = append(cpus, n)
		}
	}
	return cpus
}
