package spec

import (
	"path"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
)

// Validate refuses configurations that the specification forbids or that no kernel can make true. It
// looks at nothing but the configuration. Errors are of kind Invalid, name the member as a path into
// config.json, and say what would be right; where tools know runc's sentence, it is runc's.
func Validate(s *specs.Spec) error {
	if err := checkVersion(s.Version); err != nil {
		return err
	}
	if s.Process == nil {
		return invalid("process property must not be empty")
	}
	if s.Root == nil || s.Root.Path == "" {
		return invalid("root property must not be empty: say where the container's files are in root.path")
	}
	linux := s.Linux
	if linux == nil {
		linux = &specs.Linux{}
	}
	own, err := checkNamespaces(linux.Namespaces)
	if err != nil {
		return err
	}
	if s.Hostname != "" && !own[specs.UTSNamespace] {
		return invalid("unable to set hostname without a private UTS namespace")
	}
	if s.Domainname != "" && !own[specs.UTSNamespace] {
		return invalid("unable to set domainname without a private UTS namespace")
	}
	if _, ok := s.Annotations[""]; ok {
		return invalid("annotations: a key is empty")
	}
	for _, check := range []func() error{
		func() error { return ValidateProcess(s.Process) },
		func() error { return checkMounts(s.Mounts) },
		func() error { return checkHooks(s.Hooks) },
		func() error { return checkLinux(linux, own) },
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func invalid(format string, args ...any) error { return fault.New(fault.Invalid, format, args...) }

// checkVersion wants a semantic version of the 1.x line; 0.x bundles were written before it settled.
func checkVersion(v string) error {
	if v == "" {
		return invalid("ociVersion must not be empty: write the version of the specification, such as %q", specs.Version)
	}
	core, _, _ := strings.Cut(v, "+")
	core, _, _ = strings.Cut(core, "-")
	parts := strings.Split(core, ".")
	for _, p := range parts {
		if _, err := strconv.ParseUint(p, 10, 31); err != nil || len(p) > 1 && p[0] == '0' {
			return invalid("ociVersion %q is not a version: want three numbers, such as %q", v, specs.Version)
		}
	}
	if len(parts) != 3 {
		return invalid("ociVersion %q is not a version: want three numbers, such as %q", v, specs.Version)
	}
	if parts[0] != "0" && parts[0] != "1" {
		return invalid("ociVersion %q: this runtime knows versions 0.x to %s", v, specs.Version)
	}
	return nil
}

// ValidateProcess checks a process object on its own, as an exec takes it.
func ValidateProcess(p *specs.Process) error {
	switch {
	case p.Cwd == "":
		return invalid("Cwd property must not be empty")
	case !path.IsAbs(p.Cwd):
		return invalid("Cwd must be an absolute path")
	case len(p.Args) == 0:
		return invalid("args must not be empty")
	}
	for i, a := range p.Args {
		if strings.ContainsRune(a, 0) {
			return invalid("process.args[%d]: %q contains a zero byte", i, a)
		}
	}
	for i, e := range p.Env {
		name, _, ok := strings.Cut(e, "=")
		if !ok || name == "" || strings.ContainsRune(e, 0) {
			return invalid("process.env[%d]: %q is not of the form NAME=value", i, e)
		}
	}
	if p.User.Umask != nil && *p.User.Umask > 0o777 {
		return invalid("process.user.umask: %#o has bits beyond 0777", *p.User.Umask)
	}
	if a := p.OOMScoreAdj; a != nil && (*a < -1000 || *a > 1000) {
		return invalid("process.oomScoreAdj: %d is not between -1000 and 1000", *a)
	}
	if err := checkRlimits(p.Rlimits); err != nil {
		return err
	}
	if err := checkScheduler(p.Scheduler); err != nil {
		return err
	}
	return checkIOPriority(p.IOPriority)
}

// rlimitNames are what getrlimit(2) knows.
var rlimitNames = [...]string{
	"RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_LOCKS", "RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE",
	"RLIMIT_NICE", "RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_RSS", "RLIMIT_RTPRIO", "RLIMIT_RTTIME", "RLIMIT_SIGPENDING", "RLIMIT_STACK",
}

func checkRlimits(list []specs.POSIXRlimit) error {
	seen := map[string]bool{}
	for i, r := range list {
		switch {
		case !slices.Contains(rlimitNames[:], r.Type):
			return invalid("process.rlimits[%d]: invalid rlimit type: %s", i, r.Type)
		case seen[r.Type]:
			return invalid("process.rlimits[%d]: %s is there twice", i, r.Type)
		case r.Soft > r.Hard:
			return invalid("process.rlimits[%d]: soft limit %d of %s is above its hard limit %d", i, r.Soft, r.Type, r.Hard)
		}
		seen[r.Type] = true
	}
	return nil
}

// schedulerFlags are those of sched_setattr(2).
var schedulerFlags = [...]specs.LinuxSchedulerFlag{
	specs.SchedFlagResetOnFork, specs.SchedFlagReclaim, specs.SchedFlagDLOverrun, specs.SchedFlagKeepPolicy,
	specs.SchedFlagKeepParams, specs.SchedFlagUtilClampMin, specs.SchedFlagUtilClampMax,
}

func checkScheduler(s *specs.Scheduler) error {
	if s == nil {
		return nil
	}
	realtime, deadline := false, false
	switch s.Policy {
	case specs.SchedOther, specs.SchedBatch, specs.SchedIdle, specs.SchedISO:
	case specs.SchedFIFO, specs.SchedRR:
		realtime = true
	case specs.SchedDeadline:
		deadline = true
	case "":
		return invalid("process.scheduler.policy must not be empty")
	default:
		return invalid("process.scheduler: invalid scheduler policy: %s", s.Policy)
	}
	switch {
	case s.Nice < -20 || s.Nice > 19:
		return invalid("process.scheduler: invalid scheduler.nice: %d", s.Nice)
	case s.Priority != 0 && !realtime:
		return invalid("process.scheduler: scheduler.priority can only be specified for SchedFIFO or SchedRR policy")
	case (s.Runtime != 0 || s.Deadline != 0 || s.Period != 0) && !deadline:
		return invalid("process.scheduler: scheduler runtime/deadline/period can only be specified for SchedDeadline policy")
	}
	for i, f := range s.Flags {
		if !slices.Contains(schedulerFlags[:], f) {
			return invalid("process.scheduler.flags[%d]: unknown flag %q", i, f)
		}
	}
	return nil
}

func checkIOPriority(p *specs.LinuxIOPriority) error {
	if p == nil {
		return nil
	}
	switch p.Class {
	case specs.IOPRIO_CLASS_RT, specs.IOPRIO_CLASS_BE, specs.IOPRIO_CLASS_IDLE:
	default:
		return invalid("process.ioPriority: invalid ioPriority.class: %s", p.Class)
	}
	if p.Priority < 0 || p.Priority > 7 {
		return invalid("process.ioPriority: invalid ioPriority.Priority: %d", p.Priority)
	}
	return nil
}

func checkMounts(list []specs.Mount) error {
	for i := range list {
		m := &list[i]
		switch {
		case m.Destination == "":
			return invalid("mounts[%d]: destination must not be empty", i)
		case strings.ContainsRune(m.Destination+m.Source+m.Type, 0):
			return invalid("mounts[%d]: a path contains a zero byte", i)
		case m.Source == "" && isBind(m):
			return invalid("mounts[%d] (%s): a bind mount needs a source", i, m.Destination)
		case (len(m.UIDMappings) == 0) != (len(m.GIDMappings) == 0):
			return invalid("mounts[%d] (%s): uidMappings and gidMappings must be given together", i, m.Destination)
		}
		if err := checkMappings(m.UIDMappings); err != nil {
			return fault.In(err, "mounts[%d] (%s): uidMappings", i, m.Destination)
		}
		if err := checkMappings(m.GIDMappings); err != nil {
			return fault.In(err, "mounts[%d] (%s): gidMappings", i, m.Destination)
		}
	}
	return nil
}

func isBind(m *specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

func checkHooks(h *specs.Hooks) error {
	if h == nil {
		return nil
	}
	for _, kind := range []struct {
		name string
		list []specs.Hook
	}{
		//lint:ignore SA1019 still in the bundles of other engines
		{"prestart", h.Prestart},
		{"createRuntime", h.CreateRuntime}, {"createContainer", h.CreateContainer}, {"startContainer", h.StartContainer},
		{"poststart", h.Poststart}, {"poststop", h.Poststop},
	} {
		for i, hook := range kind.list {
			if !path.IsAbs(hook.Path) {
				return invalid("hooks.%s[%d]: path %q must be absolute", kind.name, i, hook.Path)
			}
			if hook.Timeout != nil && *hook.Timeout <= 0 {
				return invalid("hooks.%s[%d]: timeout must be greater than zero, not %d", kind.name, i, *hook.Timeout)
			}
		}
	}
	return nil
}
