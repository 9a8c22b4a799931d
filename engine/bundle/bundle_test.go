package bundle

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/base/userdb"
	"berth/engine/container"
)

var update = flag.Bool("update", false, "rewrite golden files")

// fakeNodes is a host with two devices.
type fakeNodes struct{}

func (fakeNodes) Expand(source, target string) ([]specs.LinuxDevice, error) {
	if source == "/dev/none" {
		return nil, os.ErrNotExist
	}
	return []specs.LinuxDevice{{Path: target, Type: "c", Major: 10, Minor: 200}}, nil
}

func (fakeNodes) All() ([]specs.LinuxDevice, error) {
	return []specs.LinuxDevice{{Path: "/dev/a", Type: "b", Major: 8}, {Path: "/dev/b", Type: "c", Major: 1, Minor: 11}}, nil
}

func input(s container.Spec) Input {
	if s.Network.Mode == "" {
		s.Network.Mode = "none"
	}
	if s.Namespaces.IPC == "" {
		s.Namespaces.IPC = "private"
	}
	if s.Namespaces.Cgroup == "" {
		s.Namespaces.Cgroup = "private"
	}
	if s.Hostname == "" {
		s.Hostname = "box"
	}
	r := &container.Record{ID: "id", Spec: &s, Path: "sh", Args: []string{"-c", "true"}, Cgroup: "/berth/id"}
	return Input{Record: r, User: userdb.User{Home: "/root", Groups: []uint32{0, 10}}, Devices: fakeNodes{}, Hostname: "/c/hostname", Hosts: "/c/hosts", ResolvConf: "/c/resolv.conf"}
}

// print writes a specification with a line for each thing, without what depends on the machine.
func print(b Built) string {
	s := b.Spec
	var out strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&out, format+"\n", args...) }
	p := s.Process
	line("args %q cwd %s terminal %v user %d:%d %v nnp %v oom %d", p.Args, p.Cwd, p.Terminal, p.User.UID, p.User.GID, p.User.AdditionalGids, p.NoNewPrivileges, *p.OOMScoreAdj)
	line("env %q", p.Env)
	if n := len(p.Capabilities.Bounding); n > 20 {
		line("capabilities: all")
	} else {
		line("capabilities %v", p.Capabilities.Bounding)
	}
	for _, r := range p.Rlimits {
		line("rlimit %s %d %d", r.Type, r.Soft, r.Hard)
	}
	line("hostname %q root readonly %v seccomp %v", s.Hostname, s.Root.Readonly, s.Linux.Seccomp != nil)
	for _, n := range s.Linux.Namespaces {
		line("namespace %s %s", n.Type, n.Path)
	}
	for _, m := range s.Mounts {
		line("mount %s %s from %s %v", m.Type, m.Destination, m.Source, m.Options)
	}
	masked := slices.DeleteFunc(slices.Clone(s.Linux.MaskedPaths), func(p string) bool { return strings.HasPrefix(p, "/sys/devices/system/cpu/") })
	line("masked %v", masked)
	line("readonly %v", s.Linux.ReadonlyPaths)
	for _, d := range s.Linux.Devices {
		line("device %s %s %d:%d", d.Path, d.Type, d.Major, d.Minor)
	}
	for _, d := range s.Linux.Resources.Devices {
		line("rule %v %s %s:%s %s", d.Allow, d.Type, number(d.Major), number(d.Minor), d.Access)
	}
	var sysctls []string
	for k, v := range s.Linux.Sysctl {
		sysctls = append(sysctls, k+"="+v)
	}
	slices.Sort(sysctls)
	line("sysctl %v propagation %q", sysctls, s.Linux.RootfsPropagation)
	return out.String()
}

func number(n *int64) string {
	if n == nil || *n < 0 {
		return "*"
	}
	return fmt.Sprint(*n)
}

func TestGolden(t *testing.T) {
	r, err := NewRules(Config{InitPath: "/bin/berth-init", RecursiveRO: true, Ulimits: []container.Ulimit{{Name: "nofile", Soft: 1, Hard: 2}, {Name: "core", Soft: -1, Hard: -1}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Input){
		"plain": func(*Input) {},
		"terminal": func(in *Input) {
			s := in.Record.Spec
			s.Process.TTY, s.Process.WorkingDir, s.ConsoleSize = true, "/srv", [2]uint{24, 80}
			in.User = userdb.User{UID: 1000, GID: 100, Home: "/home/u", Groups: []uint32{5}}
		},
		"host": func(in *Input) {
			s := in.Record.Spec
			s.Network.Mode, s.Namespaces = "host", container.Namespaces{PID: "host", IPC: "host", UTS: "host", Cgroup: "host"}
		},
		"joined": func(in *Input) {
			s := in.Record.Spec
			s.Network.Mode, s.Namespaces.PID, s.Namespaces.IPC = "container:x", "container:x", "container:x"
			in.PIDPath, in.IPCPath, in.NetPath, in.Shm = "/proc/7/ns/pid", "/proc/7/ns/ipc", "/proc/7/ns/net", "/x/shm"
		},
		"privileged": func(in *Input) { in.Record.Spec.Security.Privileged = true },
		"mounts": func(in *Input) {
			in.Init = true
			in.Record.Spec.Mounts = []container.Mount{
				{Type: "bind", Source: "/deep", Target: "/a/b/c/", ReadOnly: true}, {Type: "bind", Source: "/s", Target: "/a", Propagation: "rshared"},
				{Type: "bind", Source: "/n", Target: "/n", ReadOnly: true, NonRecursive: true}, {Type: "bind", Source: "/h", Target: "/etc/hosts"},
				{Type: "tmpfs", Target: "/t", TmpfsOptions: "exec,size=1k,mode=700"}, {Type: "tmpfs", Target: "/u", TmpfsSize: 4096, TmpfsMode: 0o755, ReadOnly: true},
				{Type: "tmpfs", Target: "/dev/shm"},
			}
		},
		"own-dev": func(in *Input) {
			in.Record.Spec.Mounts = []container.Mount{{Type: "bind", Source: "/dev", Target: "/dev"}}
		},
		"limits": func(in *Input) {
			s := in.Record.Spec
			s.Resources.Ulimits, s.Resources.OOMScoreAdj = []container.Ulimit{{Name: "nofile", Soft: 10, Hard: 20}}, 500
			s.Resources.Devices = []container.Device{{Source: "/dev/net/tun", Target: "/dev/net/tun", Permissions: "rw"}}
			s.Resources.DeviceCgroupRules = []string{"c 13:* rwm"}
			s.Security.ReadonlyRootfs, s.Security.CapDrop, s.Security.CapAdd = true, []string{"ALL"}, []string{"chown"}
			s.Security.SecurityOpt = []string{"no-new-privileges:true", "seccomp=unconfined"}
			s.Security.Sysctls = map[string]string{"net.core.somaxconn": "9"}
			s.Security.MaskedPaths, s.Security.ReadonlyPaths = []string{}, []string{"/proc/x"}
			s.Namespaces.IPC = "none"
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := input(container.Spec{})
			change(&in)
			b, err := r.Build(in)
			if err != nil {
				t.Fatal(err)
			}
			got, path := print(b), filepath.Join("testdata", name+".txt")
			if *update {
				os.MkdirAll("testdata", 0o755)
				os.WriteFile(path, []byte(got), 0o644)
			}
			want, _ := os.ReadFile(path)
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if (b.Filter == nil) != (b.Spec.Linux.Seccomp == nil) {
				t.Error("profile and filter do not go together")
			}
		})
	}
}

func TestSameProfileSameFilter(t *testing.T) {
	r, _ := NewRules(Config{})
	a, err := r.Build(input(container.Spec{}))
	b, _ := r.Build(input(container.Spec{}))
	if err != nil || a.Filter == nil || a.Filter != b.Filter {
		t.Errorf("%p %p, %v: a filter is compiled for each start", a.Filter, b.Filter, err)
	}
}

func TestCheckSecurity(t *testing.T) {
	r, _ := NewRules(Config{})
	for _, c := range []struct {
		ask  func(*container.Spec)
		want string
	}{
		{func(s *container.Spec) {}, ""},
		{func(s *container.Spec) {
			s.Security.SecurityOpt = []string{"seccomp=unconfined", "label:disable", "no-new-privileges=false"}
		}, ""},
		{func(s *container.Spec) { s.Security.SecurityOpt = []string{"nothing"} }, `invalid --security-opt 1: "nothing"`},
		{func(s *container.Spec) { s.Security.SecurityOpt = []string{"writable-cgroups=1x"} }, `invalid --security-opt 2: "writable-cgroups=1x"`},
		{func(s *container.Spec) { s.Security.SecurityOpt = []string{"no-new-privileges=perhaps"} }, `invalid --security-opt 2: "no-new-privileges=perhaps"`},
		{func(s *container.Spec) { s.Security.SecurityOpt = []string{"seccomp={"} }, "…"},
		{func(s *container.Spec) { s.Security.CapDrop = []string{"CAP_X"} }, `invalid CapDrop: unknown capability: "CAP_X"`},
		{func(s *container.Spec) { s.Security.Sysctls = map[string]string{"net/ipv4/ip_forward": "1"} }, ""},
		{func(s *container.Spec) {
			s.Network.Mode, s.Security.Sysctls = "host", map[string]string{"net.ipv4.ip_forward": "1"}
		}, "sysctl 'net.ipv4.ip_forward' not allowed in host network namespace"},
		{func(s *container.Spec) {
			s.Namespaces.IPC, s.Security.Sysctls = "host", map[string]string{"kernel.shmmax": "1"}
		}, "sysctl 'kernel.shmmax' not allowed in host IPC namespace"},
		{func(s *container.Spec) { s.Security.Sysctls = map[string]string{"kernel.panic": "1"} }, `sysctl "kernel.panic" is not in a separate kernel namespace`},
		{func(s *container.Spec) { s.Resources.DeviceCgroupRules = []string{"c 1:3 x"} }, "invalid device cgroup rule format: 'c 1:3 x'"},
	} {
		s := container.Spec{Network: container.Network{Mode: "none"}}
		c.ask(&s)
		err := r.CheckSecurity(&s)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if c.want == "…" && !fault.Is(err, fault.Invalid) || c.want != "…" && got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestLimits(t *testing.T) {
	swappiness, pids, yes := int64(10), int64(7), true
	l, err := Limits(&container.Resources{Memory: 1, MemorySwap: 2, MemoryReservation: 3, MemorySwappiness: &swappiness, NanoCPUs: 1.5e9, CPUShares: 5, CpusetCpus: "0", PidsLimit: &pids, BlkioWeight: 50, OOMKillDisable: &yes})
	if err != nil {
		t.Fatal(err)
	}
	if *l.Memory.Limit != 1 || *l.Memory.Swap != 2 || *l.Memory.Reservation != 3 || *l.Memory.Swappiness != 10 || !*l.Memory.DisableOOMKiller ||
		*l.CPU.Period != 100000 || *l.CPU.Quota != 150000 || *l.CPU.Shares != 5 || l.CPU.Cpus != "0" || *l.Pids.Limit != 7 || *l.BlockIO.Weight != 50 {
		t.Errorf("%+v", l)
	}
	if l, _ := Limits(&container.Resources{}); l.Memory != nil || l.CPU != nil || l.Pids != nil || l.BlockIO != nil {
		t.Errorf("limits out of nothing: %+v", l)
	}
	if _, err := Limits(&container.Resources{BlkioDeviceReadBps: []container.ThrottleDevice{{Path: "/dev/none", Rate: 1}}}); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

func TestHostNodes(t *testing.T) {
	d, err := Host{}.Expand("/dev/null", "/dev/mine")
	if err != nil || len(d) != 1 || d[0].Path != "/dev/mine" || d[0].Type != "c" || d[0].Major != 1 || d[0].Minor != 3 {
		t.Errorf("%+v, %v", d, err)
	}
	dir := t.TempDir()
	os.Symlink("/dev/zero", filepath.Join(dir, "link"))
	if d, err := (Host{}).Expand(filepath.Join(dir, "link"), "/dev/z"); err != nil || d[0].Minor != 5 {
		t.Errorf("%+v, %v", d, err)
	}
	os.WriteFile(filepath.Join(dir, "file"), nil, 0o600)
	if _, err := (Host{}).Expand(filepath.Join(dir, "file"), "/x"); err == nil {
		t.Error("a file is no device")
	}
	if all, err := (Host{}).All(); err != nil || !slices.ContainsFunc(all, func(d specs.LinuxDevice) bool { return d.Path == "/dev/null" }) {
		t.Errorf("%d devices, %v", len(all), err)
	}
}

// A volume that is a block device is allowed, and nothing else that is mounted.
func TestBlockVolumes(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: a device node is made")
	}
	node := filepath.Join(t.TempDir(), "disk")
	if err := unix.Mknod(node, unix.S_IFBLK|0o600, int(unix.Mkdev(240, 7))); err != nil {
		t.Skipf("needs CAP_MKNOD: %v", err)
	}
	in := input(container.Spec{Mounts: []container.Mount{
		{Type: "volume", Source: "v", Target: "/dev/data", ReadOnly: true}, {Type: "volume", Source: "d", Target: "/dir"}, {Type: "bind", Source: node, Target: "/bound"},
	}})
	in.Sources = map[string]string{"/dev/data": node, "/dir": t.TempDir(), "/bound": node}
	rules := blockVolumes(in)
	if len(rules) != 1 || !rules[0].Allow || rules[0].Type != "b" || *rules[0].Major != 240 || *rules[0].Minor != 7 || rules[0].Access != "r" {
		t.Errorf("%+v", rules)
	}
}
