package config

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func (d *decoder) process(p *specs.Process, key string) {
	switch key {
	case "terminal":
		p.Terminal = d.Bool()
	case "consoleSize":
		p.ConsoleSize = maybe(d, d.box)
	case "user":
		d.Object(func(key string) { d.user(&p.User, key) })
	case "args":
		p.Args = d.Texts()
	case "commandLine":
		p.CommandLine = d.Text()
	case "env":
		p.Env = d.Texts()
	case "cwd":
		p.Cwd = d.Text()
	case "capabilities":
		p.Capabilities = maybe(d, d.capabilities)
	case "rlimits":
		p.Rlimits = objects(d, d.rlimit)
	case "noNewPrivileges":
		p.NoNewPrivileges = d.Bool()
	case "apparmorProfile":
		p.ApparmorProfile = d.Text()
	case "oomScoreAdj":
		p.OOMScoreAdj = ptr(d, d.int)
	case "scheduler":
		p.Scheduler = maybe(d, d.scheduler)
	case "selinuxLabel":
		p.SelinuxLabel = d.Text()
	case "ioPriority":
		p.IOPriority = maybe(d, d.ioPriority)
	case "execCPUAffinity":
		p.ExecCPUAffinity = maybe(d, d.affinity)
	default:
		d.Skip()
	}
}

func (d *decoder) box(b *specs.Box, key string) {
	switch key {
	case "height":
		b.Height = d.uint()
	case "width":
		b.Width = d.uint()
	default:
		d.Skip()
	}
}

func (d *decoder) user(u *specs.User, key string) {
	switch key {
	case "uid":
		u.UID = d.Uint32()
	case "gid":
		u.GID = d.Uint32()
	case "umask":
		u.Umask = ptr(d, d.Uint32)
	case "additionalGids":
		u.AdditionalGids = list(d, d.Uint32)
	case "username":
		u.Username = d.Text()
	default:
		d.Skip()
	}
}

func (d *decoder) capabilities(c *specs.LinuxCapabilities, key string) {
	switch key {
	case "bounding":
		c.Bounding = d.Texts()
	case "effective":
		c.Effective = d.Texts()
	case "inheritable":
		c.Inheritable = d.Texts()
	case "permitted":
		c.Permitted = d.Texts()
	case "ambient":
		c.Ambient = d.Texts()
	default:
		d.Skip()
	}
}

func (d *decoder) rlimit(r *specs.POSIXRlimit, key string) {
	switch key {
	case "type":
		r.Type = d.Text()
	case "hard":
		r.Hard = d.Uint()
	case "soft":
		r.Soft = d.Uint()
	default:
		d.Skip()
	}
}

func (d *decoder) scheduler(s *specs.Scheduler, key string) {
	switch key {
	case "policy":
		s.Policy = specs.LinuxSchedulerPolicy(d.Text())
	case "nice":
		s.Nice = d.int32()
	case "priority":
		s.Priority = d.int32()
	case "flags":
		s.Flags = words[specs.LinuxSchedulerFlag](d)
	case "runtime":
		s.Runtime = d.Uint()
	case "deadline":
		s.Deadline = d.Uint()
	case "period":
		s.Period = d.Uint()
	default:
		d.Skip()
	}
}

func (d *decoder) ioPriority(p *specs.LinuxIOPriority, key string) {
	switch key {
	case "class":
		p.Class = specs.IOPriorityClass(d.Text())
	case "priority":
		p.Priority = d.int()
	default:
		d.Skip()
	}
}

func (d *decoder) affinity(a *specs.CPUAffinity, key string) {
	switch key {
	case "initial":
		a.Initial = d.Text()
	case "final":
		a.Final = d.Text()
	default:
		d.Skip()
	}
}
