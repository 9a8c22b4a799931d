package oci

import (
	"encoding/json"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"berth/kernel/capability"
	"berth/kernel/mount"
	"berth/kernel/seccomp"
)

// features prints what this runtime can do (the runtime specification's features.md): what it is built
// for, whatever this machine's kernel has.
func (t *tool) features(*flagSet) (int, error) {
	b, err := json.MarshalIndent(t.abilities(), "", "    ")
	if err != nil {
		return 1, err
	}
	_, err = t.out.Write(append(b, '\n'))
	return 0, err
}

func (t *tool) abilities() *features.Features {
	yes, no := true, false
	var hooks []string
	for _, k := range hookKinds() {
		hooks = append(hooks, k.name)
	}
	f := &features.Features{
		OCIVersionMin: "1.0.0",
		OCIVersionMax: specs.Version,
		Hooks:         hooks,
		MountOptions:  mount.Words(),
		Annotations: map[string]string{
			"org.berth.oci.version": t.build.Version,
			"org.berth.oci.commit":  t.build.Commit,
			// podman and others ask for it under this name
			"org.opencontainers.runc.checkpoint.enabled": "true",
		},
		PotentiallyUnsafeConfigAnnotations: []string{"bundle", "org.systemd.property.", "org.criu.config"},
	}
	f.Linux = &features.Linux{
		Namespaces:      []string{"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"},
		Capabilities:    capability.Names(capability.All()),
		Cgroup:          &features.Cgroup{V1: &yes, V2: &yes, Systemd: &yes, SystemdUser: &yes, Rdma: &yes},
		Apparmor:        &features.Apparmor{Enabled: &yes},
		Selinux:         &features.Selinux{Enabled: &yes},
		IntelRdt:        &features.IntelRdt{Enabled: &no},
		MemoryPolicy:    memoryPolicies(),
		MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: &yes}},
		NetDevices:      &features.NetDevices{Enabled: &yes},
		Seccomp:         seccompAbilities(),
	}
	return f
}

func memoryPolicies() *features.MemoryPolicy {
	return &features.MemoryPolicy{
		Modes: words(specs.MpolDefault, specs.MpolBind, specs.MpolInterleave, specs.MpolWeightedInterleave, specs.MpolPreferred, specs.MpolPreferredMany, specs.MpolLocal),
		Flags: words(specs.MpolFNumaBalancing, specs.MpolFRelativeNodes, specs.MpolFStaticNodes),
	}
}

func seccompAbilities() *features.Seccomp {
	yes := true
	s := &features.Seccomp{
		Enabled: &yes,
		Actions: words(specs.ActAllow, specs.ActErrno, specs.ActKill, specs.ActKillProcess, specs.ActKillThread,
			specs.ActLog, specs.ActNotify, specs.ActTrace, specs.ActTrap),
		Operators: words(specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpLessEqual, specs.OpLessThan,
			specs.OpMaskedEqual, specs.OpNotEqual),
		KnownFlags: words(specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow, specs.LinuxSeccompFlagWaitKillableRecv),
	}
	s.SupportedFlags = append([]string{"SECCOMP_FILTER_FLAG_TSYNC"}, s.KnownFlags...)
	s.KnownFlags = s.SupportedFlags
	for _, a := range everyArch {
		if seccomp.KnownArch(a) {
			s.Archs = append(s.Archs, string(a))
		}
	}
	return s
}

var everyArch = [...]specs.Arch{
	specs.ArchAARCH64, specs.ArchARM, specs.ArchLOONGARCH64, specs.ArchM68K, specs.ArchMIPS, specs.ArchMIPS64, specs.ArchMIPS64N32,
	specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32, specs.ArchPARISC, specs.ArchPARISC64, specs.ArchPPC,
	specs.ArchPPC64, specs.ArchPPC64LE, specs.ArchRISCV64, specs.ArchS390, specs.ArchS390X, specs.ArchSH, specs.ArchSHEB,
	specs.ArchX32, specs.ArchX86, specs.ArchX86_64,
}

// words turns the specification's constants into plain strings.
func words[T ~string](all ...T) []string {
	out := make([]string, len(all))
	for i, w := range all {
		out[i] = string(w)
	}
	return out
}
