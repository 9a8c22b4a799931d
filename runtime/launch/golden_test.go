package launch

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"berth/kernel/cgroup"
	"berth/kernel/probe"
	"berth/kernel/seccomp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// goldens are specs whose programs are kept word for word: a change in what a launch does shows in
// review as a change of system calls.
var goldens = []struct {
	name  string
	specs func(*specs.Spec, *Options)
}{
	{"plain", func(s *specs.Spec, o *Options) {}},
	{"covered-overlay", func(s *specs.Spec, o *Options) {
		o.Covered = true
		o.Overlay = &Overlay{Lower: []string{"/layers/c", "/layers/b", "/layers/a"}, Upper: "/box/upper", Work: "/box/work"}
	}},
	{"tty", func(s *specs.Spec, o *Options) { s.Process.Terminal = true; s.Process.User.UID = 1000 }},
	{"userns-tty", func(s *specs.Spec, o *Options) {
		s.Process.Terminal = true
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
		s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
		s.Linux.GIDMappings = s.Linux.UIDMappings
	}},
	{"host-network", func(s *specs.Spec, o *Options) { dropNamespace(s, "network") }},
	{"privileged", func(s *specs.Spec, o *Options) {
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
		all := []string{"CAP_SYS_ADMIN", "CAP_NET_ADMIN"}
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all, Inheritable: all, Ambient: all}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"rw", "nosuid"}})
	}},
	{"read-only", func(s *specs.Spec, o *Options) { s.Root.Readonly = true }},
	{"joined-pod", func(s *specs.Spec, o *Options) {
		s.Linux.Namespaces = []specs.LinuxNamespace{{Type: "mount"}, {Type: "pid", Path: "/proc/42/ns/pid"}, {Type: "network", Path: "/run/netns/pod"},
			{Type: "ipc", Path: "/proc/42/ns/ipc"}, {Type: "uts", Path: "/proc/42/ns/uts"}}
		s.Hostname = ""
	}},
	{"joined-userns", func(s *specs.Spec, o *Options) {
		s.Linux.Namespaces = []specs.LinuxNamespace{{Type: "mount"}, {Type: "pid"}, {Type: "user", Path: "/proc/42/ns/user"}, {Type: "network", Path: "/proc/42/ns/net"}}
		s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
		s.Linux.GIDMappings = s.Linux.UIDMappings
		s.Hostname = ""
	}},
	{"cgroup-v1", func(s *specs.Spec, o *Options) {
		for _, h := range []string{"cpu,cpuacct", "memory", "pids"} {
			o.Cgroup.V1Procs = append(o.Cgroup.V1Procs, "/sys/fs/cgroup/"+h+"/berth/box/tasks")
		}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}})
	}},
	{"cgroup-v2", func(s *specs.Spec, o *Options) {
		o.Cgroup = cgroup.Attach{V2Dir: "/sys/fs/cgroup/berth/box"}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}})
	}},
	{"cgroup-v2-userns", func(s *specs.Spec, o *Options) {
		dropNamespace(s, "cgroup")
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
		s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
		s.Linux.GIDMappings = s.Linux.UIDMappings
		o.Cgroup = cgroup.Attach{V2Dir: "/sys/fs/cgroup/berth/box"}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}})
	}},
	{"binds", func(s *specs.Spec, o *Options) {
		s.Mounts = append(s.Mounts,
			specs.Mount{Destination: "/etc/hosts", Type: "bind", Source: "/box/hosts", Options: []string{"rbind", "rprivate"}},
			specs.Mount{Destination: "/data", Type: "bind", Source: "/srv/data", Options: []string{"rbind", "ro", "rslave", "nosuid"}},
			specs.Mount{Destination: "/deep/down/here", Type: "bind", Source: "/srv/all", Options: []string{"rbind", "rro", "noatime"}},
			specs.Mount{Destination: "/mapped", Type: "bind", Source: "/srv/mapped", Options: []string{"bind"},
				UIDMappings: []specs.LinuxIDMapping{{HostID: 1000, Size: 1}}, GIDMappings: []specs.LinuxIDMapping{{HostID: 1000, Size: 1}}})
	}},
	{"hardened", func(s *specs.Spec, o *Options) {
		s.Process.NoNewPrivileges = true
		s.Process.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{10, 20}}
		s.Process.ApparmorProfile = "docker-default"
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1024, Hard: 4096}, {Type: "RLIMIT_CORE", Soft: 0, Hard: ^uint64(0)}}
		adj := 500
		s.Process.OOMScoreAdj = &adj
		s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "kernel.shmmax": "1048576"}
		o.Seccomp = &seccomp.Filter{Code: make([]byte, 8*119), Flags: 4}
		o.NewKeyring = true
	}},
	{"labels", func(s *specs.Spec, o *Options) {
		s.Process.Terminal = true
		s.Process.SelinuxLabel = "system_u:system_r:container_t:s0:c1,c2"
		s.Linux.MountLabel = "system_u:object_r:container_file_t:s0:c1,c2"
		o.NewKeyring = true
		o.Overlay = &Overlay{Lower: []string{"/layers/a"}, Upper: "/box/upper", Work: "/box/work"}
	}},
	{"labels-6.1", func(s *specs.Spec, o *Options) {
		o.Facts = probe.AssumeVersion(6, 1)
		s.Linux.MountLabel = "system_u:object_r:container_file_t:s0:c1,c2"
		o.Overlay = &Overlay{Lower: []string{"/layers/a"}, Upper: "/box/upper", Work: "/box/work"}
	}},
	{"mapped", func(s *specs.Spec, o *Options) {
		inUserns(s, o)
		o.Covered, o.Facts = true, probe.AssumeVersion(6, 15)
	}},
	{"mapped-6.1", func(s *specs.Spec, o *Options) { inUserns(s, o); o.Facts = probe.AssumeVersion(6, 1) }},
	{"given-mounts", func(s *specs.Spec, o *Options) {
		o.Covered = true
		s.Root.Path = ""
		o.RootFD, o.Trees = 20, map[int]int{len(s.Mounts): 21}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/run/secrets/key", Type: "bind", Source: "/proc/self/fd/21", Options: []string{"bind", "ro"}})
	}},
	{"enclosed", func(s *specs.Spec, o *Options) {
		o.Covered, o.Enclosure = true, 22
		o.Overlay = &Overlay{Lower: []string{"/layers/a"}, Upper: "/box/upper", Work: "/box/work"}
	}},
	{"hooks-and-gate", func(s *specs.Spec, o *Options) {
		o.HookGates = HookGates{BeforePivot: true, BeforeExec: true}
		o.GateFifo = "/run/berth-oci/box/exec.fifo"
	}},
	{"kernel-5.10", func(s *specs.Spec, o *Options) {
		o.Facts = probe.AssumeVersion(5, 10)
		s.Root.Readonly = true
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/data", Type: "bind", Source: "/srv/data", Options: []string{"rbind", "ro", "rslave"}})
	}},
	{"time-namespace", func(s *specs.Spec, o *Options) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "time"})
		s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 172800}, "boottime": {Secs: 3600, Nanosecs: 5}}
	}},
}

// inUserns makes it a container of the engine's in a user namespace: that which owns the network namespace made beforehand.
func inUserns(s *specs.Spec, o *Options) {
	o.OwnerNS = true
	o.Overlay = &Overlay{Lower: []string{"/layers/b", "/layers/a"}, Upper: "/box/upper", Work: "/box/work", Mapped: true}
	dropNamespace(s, "network")
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "network", Path: "/run/berth/netns/box"}, specs.LinuxNamespace{Type: "user", Path: "/run/berth/netns/box"})
	s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
	s.Linux.GIDMappings = []specs.LinuxIDMapping{{HostID: 200000, Size: 65536}}
	mode, group := os.FileMode(0o660), uint32(20)
	s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/bus/usb/001", Type: "c", Major: 189, Minor: 1, FileMode: &mode, GID: &group}, {Path: "/dev/bus/usb/002", Type: "c", Major: 189, Minor: 2}}
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/data", Type: "bind", Source: "/srv/data", Options: []string{"rbind", "idmap"}})
	s.Process.Terminal = true
	s.Hostname = ""
}

func dropNamespace(s *specs.Spec, kind specs.LinuxNamespaceType) {
	var kept []specs.LinuxNamespace
	for _, ns := range s.Linux.Namespaces {
		if ns.Type != kind {
			kept = append(kept, ns)
		}
	}
	s.Linux.Namespaces = kept
}

func TestGoldenPrograms(t *testing.T) {
	for _, g := range goldens {
		t.Run(g.name, func(t *testing.T) {
			s := plainSpec("/bundle/rootfs", "nginx", "-g", "daemon off;")
			o := Options{Facts: probe.AssumeVersion(6, 12), IsFile: func(path string) bool { return strings.HasSuffix(path, "hosts") }}
			o.MountFlags = func(string) uintptr { return 0 } // this machine may have a /srv/data
			g.specs(s, &o)
			p, err := Compile(s, o)
			must(t, err)
			compare(t, g.name, p.String())
		})
	}
}

func TestGoldenExec(t *testing.T) {
	s := plainSpec("/bundle/rootfs", "nginx")
	proc := *s.Process
	proc.Args, proc.Terminal, proc.Cwd = []string{"/bin/sh", "-l"}, true, "/srv"
	p, err := CompileExec(&proc, s, Target{PID: 42}, Options{Facts: probe.AssumeVersion(6, 12), Cgroup: cgroup.Attach{V2Dir: "/sys/fs/cgroup/berth/box"}})
	must(t, err)
	compare(t, "exec", p.String())
}

func compare(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".txt")
	if *update {
		must(t, os.MkdirAll("testdata", 0o755))
		must(t, os.WriteFile(file, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(file)
	must(t, err)
	if got != string(want) {
		t.Errorf("the program differs from %s (run with -update after a look):\n%s", file, firstDifference(got, string(want)))
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range g {
		if i >= len(w) || g[i] != w[i] {
			wanted := "(end)"
			if i < len(w) {
				wanted = w[i]
			}
			return "line " + itoa(i+1) + "\n got " + g[i] + "\nwant " + wanted
		}
	}
	return "it ends early, before " + w[len(g)]
}

// A launcher without privileges enters the pid namespace from the user namespace.
func TestGoldenExecByAUser(t *testing.T) {
	s := plainSpec("/bundle/rootfs", "nginx")
	s.Linux.Namespaces = []specs.LinuxNamespace{{Type: "mount"}, {Type: "pid"}, {Type: "user"}}
	proc := *s.Process
	proc.Args = []string{"/bin/sh"}
	p, err := CompileExec(&proc, s, Target{PID: 42}, Options{Facts: probe.AssumeVersion(6, 12), Unprivileged: true})
	must(t, err)
	compare(t, "exec-by-a-user", p.String())
}
