package spec

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
	"berth/runtime/oci/config"
)

func ptr[T any](v T) *T { return &v }

func TestDefaultsAreValid(t *testing.T) {
	for _, o := range []DefaultOptions{{}, {Privileged: true}, {HostCgroupNamespace: true, Terminal: true, Hostname: "x"}, {Unconfined: true}} {
		if err := Validate(Default(o)); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestValidateNamesWhatIsWrong(t *testing.T) {
	type change = func(*specs.Spec)
	own := func(kind specs.LinuxNamespaceType, path string) change {
		return func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: path})
		}
	}
	sysctl := func(name string) change { return func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{name: "1"} } }
	shared := func(c change) change {
		return func(s *specs.Spec) {
			s.Linux.Namespaces = nil
			s.Linux.MaskedPaths = nil
			s.Linux.ReadonlyPaths = nil
			c(s)
		}
	}
	mapping := func(uid, gid []specs.LinuxIDMapping) change {
		return func(s *specs.Spec) {
			own(specs.UserNamespace, "")(s)
			s.Linux.UIDMappings, s.Linux.GIDMappings = uid, gid
		}
	}
	whole := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	for _, c := range []struct {
		change change
		want   string // "" is fine
	}{
		{func(s *specs.Spec) { s.Version = "" }, "ociVersion must not be empty"},
		{func(s *specs.Spec) { s.Version = "1.2" }, `ociVersion "1.2" is not a version`},
		{func(s *specs.Spec) { s.Version = "1.02.0" }, `is not a version`},
		{func(s *specs.Spec) { s.Version = "2.0.0" }, `ociVersion "2.0.0": this runtime knows`},
		{func(s *specs.Spec) { s.Version = "1.0.2-dev+x.y" }, ""},
		{func(s *specs.Spec) { s.Process = nil }, "process property must not be empty"},
		{func(s *specs.Spec) { s.Root = nil }, "root property must not be empty"},
		{func(s *specs.Spec) { s.Root.Path = "" }, "root property must not be empty"},
		{func(s *specs.Spec) { s.Process.Cwd = "" }, "Cwd property must not be empty"},
		{func(s *specs.Spec) { s.Process.Cwd = "home" }, "Cwd must be an absolute path"},
		{func(s *specs.Spec) { s.Process.Args = nil }, "args must not be empty"},
		{func(s *specs.Spec) { s.Process.Args = []string{"a", "b\x00c"} }, `process.args[1]: "b\x00c" contains a zero byte`},
		{func(s *specs.Spec) { s.Process.Env = []string{"A=1", "B"} }, `process.env[1]: "B" is not of the form NAME=value`},
		{func(s *specs.Spec) { s.Process.Env = []string{"=x"} }, `process.env[0]`},
		{func(s *specs.Spec) { s.Process.User.Umask = ptr(uint32(0o1000)) }, "process.user.umask: 01000 has bits beyond"},
		{func(s *specs.Spec) { s.Process.OOMScoreAdj = ptr(1001) }, "process.oomScoreAdj: 1001"},
		{func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_FOO"}} }, "process.rlimits[0]: invalid rlimit type: RLIMIT_FOO"},
		{func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_AS"}, {Type: "RLIMIT_AS"}} }, "process.rlimits[1]: RLIMIT_AS is there twice"},
		{func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_AS", Soft: 2, Hard: 1}} }, "soft limit 2 of RLIMIT_AS is above"},
		{func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{} }, "scheduler.policy must not be empty"},
		{func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: "SCHED_X"} }, "invalid scheduler policy: SCHED_X"},
		{func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Nice: -21} }, "invalid scheduler.nice: -21"},
		{func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Priority: 1} }, "scheduler.priority can only"},
		{func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedRR, Period: 1} }, "scheduler runtime/deadline/period"},
		{func(s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedRR, Flags: []specs.LinuxSchedulerFlag{"X"}}
		}, `process.scheduler.flags[0]: unknown flag "X"`},
		{func(s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedFIFO, Priority: 10, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork}}
		}, ""},
		{func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{Class: "X"} }, "invalid ioPriority.class: X"},
		{func(s *specs.Spec) {
			s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 8}
		}, "invalid ioPriority.Priority: 8"},
		{func(s *specs.Spec) { s.Mounts[1].Destination = "" }, "mounts[1]: destination must not be empty"},
		{func(s *specs.Spec) { s.Mounts[1].Source = "a\x00" }, "mounts[1]: a path contains a zero byte"},
		{func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Options: []string{"rbind"}})
		}, "mounts[7] (/x): a bind mount needs a source"},
		{func(s *specs.Spec) { s.Mounts[0].UIDMappings = whole }, "must be given together"},
		{func(s *specs.Spec) {
			s.Mounts[0].UIDMappings, s.Mounts[0].GIDMappings = whole, []specs.LinuxIDMapping{{}}
		}, "mounts[0] (/proc): gidMappings: entry 0 has size 0"},
		{func(s *specs.Spec) { s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "x"}}} }, `hooks.poststop[0]: path "x" must be absolute`},
		{func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/x", Timeout: ptr(0)}}}
		}, "hooks.createRuntime[0]: timeout must be greater than zero"},
		{func(s *specs.Spec) { s.Annotations = map[string]string{"": "x"} }, "annotations: a key is empty"},
		{own("magic", ""), `namespace "magic" does not exist`},
		{own(specs.PIDNamespace, ""), `duplicated ns "pid"`},
		{own(specs.TimeNamespace, "ns/x"), `path "ns/x" of the time namespace must be absolute`},
		{shared(func(s *specs.Spec) { s.Hostname = "x" }), "unable to set hostname without a private UTS namespace"},
		{shared(func(s *specs.Spec) { s.Domainname = "x" }), "unable to set domainname without a private UTS namespace"},
		{func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[1:] }, "unable to restrict sys entries without a private MNT namespace"},
		{func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"proc/x"} }, `linux.maskedPaths[0]: path "proc/x" must be absolute`},
		{func(s *specs.Spec) { s.Linux.UIDMappings = whole }, "user namespace isn't enabled"},
		{own(specs.UserNamespace, ""), "a new user namespace needs uidMappings and gidMappings"},
		{own(specs.UserNamespace, "/proc/1/ns/user"), ""},
		{mapping(whole, whole), ""},
		{mapping(append(whole, specs.LinuxIDMapping{ContainerID: 65535, HostID: 0, Size: 1}), whole), "linux.uidMappings: entries"},
		{mapping(append(whole, specs.LinuxIDMapping{ContainerID: 65536, HostID: 100001, Size: 1}), whole), "overlap"},
		{mapping(whole, []specs.LinuxIDMapping{{ContainerID: 1, HostID: 0, Size: 1<<32 - 1}, {ContainerID: 0, HostID: 1<<32 - 1, Size: 1}}), ""},
		{mapping(whole, []specs.LinuxIDMapping{{ContainerID: 2, HostID: 0, Size: 1<<32 - 1}}), "linux.gidMappings: entry 0 (2:0:4294967295) ends beyond"},
		{sysctl("net.core.somaxconn"), ""},
		{sysctl("net/ipv4/conf/eth0.1/forwarding"), ""},
		{sysctl("kernel.shmmax"), ""},
		{sysctl("fs/mqueue/msg_max"), ""},
		{sysctl("kernel.domainname"), ""},
		{sysctl("kernel.hostname"), "conflicts with the OCI"},
		{sysctl("kernel.core_pattern"), `sysctl "kernel.core_pattern" is not in a separate kernel namespace`},
		{sysctl("vm/overcommit_memory"), `sysctl "vm.overcommit_memory" is not in a separate`},
		{sysctl("net/../kernel/core_pattern"), "is no name of a sysctl"},
		{sysctl("net.//.kernel.core_pattern"), "is no name of a sysctl"},
		{sysctl(""), "is no name of a sysctl"},
		{shared(sysctl("net.core.somaxconn")), "not allowed in host network namespace"},
		{shared(sysctl("kernel.sem")), "not allowed in the hosts ipc namespace"},
		{shared(sysctl("kernel.domainname")), "is not in a separate kernel namespace"},
		{func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Type: "x", Path: "/dev/x"}} }, `linux.devices[0]: invalid device type "x"`},
		{func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Type: "c", Path: "x"}} }, `linux.devices[0]: path "x" must be absolute`},
		{func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Type: "c", Path: "/x", Major: -1}} }, "is negative"},
		{func(s *specs.Spec) { s.Linux.Resources.Devices[0].Type = "z" }, `linux.resources.devices[0]: invalid type "z"`},
		{func(s *specs.Spec) { s.Linux.Resources.Devices[0].Access = "rx" }, `linux.resources.devices[0]: invalid access "rx"`},
		{func(s *specs.Spec) { s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {}} }, "a new time namespace isn't in the config"},
		{func(s *specs.Spec) {
			own(specs.TimeNamespace, "")(s)
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"realtime": {}}
		}, `unknown clock "realtime"`},
		{func(s *specs.Spec) {
			own(specs.TimeNamespace, "")(s)
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Nanosecs: 1e9}}
		}, "are a second or more"},
		{func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"a/b": {}} }, `invalid network device name "a/b"`},
		{func(s *specs.Spec) {
			s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth0": {Name: "sixteen-letters-"}}
		}, `linux.netDevices.eth0: invalid network device name`},
		{func(s *specs.Spec) { s.Linux.RootfsPropagation = "r" }, "linux.rootfsPropagation"},
		{func(s *specs.Spec) { s.Linux.RootfsPropagation = "rslave" }, ""},
		{func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: "VMS"} }, `unknown domain "VMS"`},
		{func(s *specs.Spec) {
			s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux, Flags: []specs.LinuxPersonalityFlag{"x"}}
		}, "additional flags are not supported"},
		{func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: "X"} }, `linux.memoryPolicy: invalid memory policy mode "X"`},
		{func(s *specs.Spec) { s.Linux.Seccomp.Syscalls[0].Action = "X" }, `linux: seccomp: syscalls[0]: unknown action "X"`},
		{func(s *specs.Spec) { s.Linux.CgroupsPath = "a\x00" }, "linux.cgroupsPath"},
	} {
		s := Default(DefaultOptions{})
		c.change(s)
		err := Validate(s)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("refused: %v", err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("got  %v\nwant %s", err, c.want)
		case err != nil && !fault.Is(err, fault.Invalid):
			t.Errorf("%v: kind %v", err, fault.KindOf(err))
		}
	}
}

// parse reads a configuration as berth-oci does, its filter included, and checks it.
func parse(text []byte) (*specs.Spec, error) {
	c, err := config.Parse(text)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "")
	}
	filter, err := c.Seccomp()
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "linux.seccomp")
	}
	if filter != nil {
		c.Spec.Linux.Seccomp = filter
	}
	return c.Spec, Validate(c.Spec)
}

func TestParsed(t *testing.T) {
	good, err := json.Marshal(Default(DefaultOptions{}))
	if err != nil {
		t.Fatal(err)
	}
	s, err := parse(good)
	if err != nil || s.Linux.Seccomp == nil || len(s.Linux.Seccomp.Syscalls) < 10 || s.Process.Args[0] != "sh" {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		``:                      "line 1",
		`{"ociVersion": 1}`:     "ociVersion",
		`{"process":{"cwd":[]}`: "process.cwd",
		strings.Replace(string(good), `"SCMP_ACT_ALLOW"`, `7`, 1):        "linux.seccomp",
		strings.Replace(string(good), `"cwd":"/"`, `"cwd":"."`, 1):       "Cwd must be an absolute path",
		strings.Replace(string(good), `"type":"pid"`, `"type":"uts"`, 1): "duplicated ns",
	} {
		_, err := parse([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) || !fault.Is(err, fault.Invalid) {
			t.Errorf("%.40s: %v, want %q", text, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	good, err := json.Marshal(Default(DefaultOptions{Unconfined: true})) // the profile has a fuzz test of its own
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"ociVersion":"1.3.0","process":{"cwd":"/","args":["a"]},"root":{"path":"r"},"linux":{"namespaces":[{"type":"user"}],"uidMappings":[{"size":4294967295}]}}`))
	f.Add([]byte(`{"ociVersion":"1.0.0","linux":{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW"},"sysctl":{"net//x":"1"}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := parse(text)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("%v is no fault of the input's", err)
			}
			return
		}
		// What was accepted can be written and read back.
		again, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parse(again); err != nil {
			t.Errorf("accepted once, then %v\n%s", err, again)
		}
	})
}

func FuzzSysctlKey(f *testing.F) {
	f.Add("net.ipv4.ip_forward")
	f.Add("net/ipv4/conf/eth0.1/forwarding")
	f.Fuzz(func(t *testing.T, name string) {
		key := SysctlKey(name)
		if !sysctlName(key) {
			return
		}
		// As the launcher turns it into a file: it must stay below /proc/sys.
		file := filepath.Join("/proc/sys", strings.NewReplacer(".", "/", "/", ".").Replace(key))
		if !strings.HasPrefix(file, "/proc/sys/") {
			t.Errorf("%q is %s", name, file)
		}
	})
}
