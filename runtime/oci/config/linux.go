package config

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func (d *decoder) linux(l *specs.Linux, key string) {
	switch key {
	case "uidMappings":
		l.UIDMappings = objects(d, d.idMapping)
	case "gidMappings":
		l.GIDMappings = objects(d, d.idMapping)
	case "sysctl":
		l.Sysctl = d.TextMap()
	case "resources":
		l.Resources = maybe(d, d.resources)
	case "cgroupsPath":
		l.CgroupsPath = d.Text()
	case "namespaces":
		l.Namespaces = objects(d, d.namespace)
	case "devices":
		l.Devices = objects(d, d.device)
	case "netDevices":
		l.NetDevices = table(d, func() specs.LinuxNetDevice { return object(d, d.netDevice) })
	case "seccomp":
		if !d.Null() {
			d.seccompText = d.Raw()
		}
	case "rootfsPropagation":
		l.RootfsPropagation = d.Text()
	case "maskedPaths":
		l.MaskedPaths = d.Texts()
	case "readonlyPaths":
		l.ReadonlyPaths = d.Texts()
	case "mountLabel":
		l.MountLabel = d.Text()
	case "intelRdt":
		l.IntelRdt = maybe(d, d.intelRdt)
	case "memoryPolicy":
		l.MemoryPolicy = maybe(d, d.memoryPolicy)
	case "personality":
		l.Personality = maybe(d, d.personality)
	case "timeOffsets":
		l.TimeOffsets = table(d, func() specs.LinuxTimeOffset { return object(d, d.timeOffset) })
	default:
		d.Skip()
	}
}

func (d *decoder) namespace(n *specs.LinuxNamespace, key string) {
	switch key {
	case "type":
		n.Type = specs.LinuxNamespaceType(d.Text())
	case "path":
		n.Path = d.Text()
	default:
		d.Skip()
	}
}

func (d *decoder) device(v *specs.LinuxDevice, key string) {
	switch key {
	case "path":
		v.Path = d.Text()
	case "type":
		v.Type = d.Text()
	case "major":
		v.Major = d.Int()
	case "minor":
		v.Minor = d.Int()
	case "fileMode":
		v.FileMode = ptr(d, d.fileMode)
	case "uid":
		v.UID = ptr(d, d.Uint32)
	case "gid":
		v.GID = ptr(d, d.Uint32)
	default:
		d.Skip()
	}
}

func (d *decoder) netDevice(v *specs.LinuxNetDevice, key string) {
	switch key {
	case "name":
		v.Name = d.Text()
	default:
		d.Skip()
	}
}

func (d *decoder) intelRdt(r *specs.LinuxIntelRdt, key string) {
	switch key {
	case "closID":
		r.ClosID = d.Text()
	case "schemata":
		r.Schemata = d.Texts()
	case "l3CacheSchema":
		r.L3CacheSchema = d.Text()
	case "memBwSchema":
		r.MemBwSchema = d.Text()
	case "enableMonitoring":
		r.EnableMonitoring = d.Bool()
	default:
		d.Skip()
	}
}

func (d *decoder) memoryPolicy(p *specs.LinuxMemoryPolicy, key string) {
	switch key {
	case "mode":
		p.Mode = specs.MemoryPolicyModeType(d.Text())
	case "nodes":
		p.Nodes = d.Text()
	case "flags":
		p.Flags = words[specs.MemoryPolicyFlagType](d)
	default:
		d.Skip()
	}
}

func (d *decoder) personality(p *specs.LinuxPersonality, key string) {
	switch key {
	case "domain":
		p.Domain = specs.LinuxPersonalityDomain(d.Text())
	case "flags":
		p.Flags = words[specs.LinuxPersonalityFlag](d)
	default:
		d.Skip()
	}
}

func (d *decoder) timeOffset(o *specs.LinuxTimeOffset, key string) {
	switch key {
	case "secs":
		o.Secs = d.Int()
	case "nanosecs":
		o.Nanosecs = d.Uint32()
	default:
		d.Skip()
	}
}

// seccomp reads the whole section.
func (d *decoder) seccomp() *specs.LinuxSeccomp {
	return maybe(d, func(s *specs.LinuxSeccomp, key string) {
		switch key {
		case "defaultAction":
			s.DefaultAction = specs.LinuxSeccompAction(d.Text())
		case "defaultErrnoRet":
			s.DefaultErrnoRet = ptr(d, d.uint)
		case "architectures":
			s.Architectures = words[specs.Arch](d)
		case "flags":
			s.Flags = words[specs.LinuxSeccompFlag](d)
		case "listenerPath":
			s.ListenerPath = d.Text()
		case "listenerMetadata":
			s.ListenerMetadata = d.Text()
		case "syscalls":
			s.Syscalls = objects(d, d.syscall)
		default:
			d.Skip()
		}
	})
}

func (d *decoder) syscall(s *specs.LinuxSyscall, key string) {
	switch key {
	case "names":
		s.Names = d.Texts()
	case "action":
		s.Action = specs.LinuxSeccompAction(d.Text())
	case "errnoRet":
		s.ErrnoRet = ptr(d, d.uint)
	case "args":
		s.Args = objects(d, d.seccompArg)
	default:
		d.Skip()
	}
}

func (d *decoder) seccompArg(a *specs.LinuxSeccompArg, key string) {
	switch key {
	case "index":
		a.Index = d.uint()
	case "value":
		a.Value = d.Uint()
	case "valueTwo":
		a.ValueTwo = d.Uint()
	case "op":
		a.Op = specs.LinuxSeccompOperator(d.Text())
	default:
		d.Skip()
	}
}
