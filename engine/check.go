package engine

import (
	"cmp"
	"context"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"berth/base/fault"
	"berth/base/id"
	"berth/engine/container"
	"berth/engine/restart"
	"berth/engine/userns"
	"berth/kernel/cgroup"
)

// check refuses what cannot be done, by name, and fills in the engine's defaults. Nothing exists yet when it fails.
func (e *Engine) check(s *container.Spec) (warnings []string, err error) {
	e.fillDefaults(s)
	for _, check := range []func(*container.Spec) error{usernsOption, checkProcess, checkRestart, checkAddresses, checkNamespaces, checkMounts, e.checkLog, e.checkRuntime, e.rules.CheckSecurity, e.resolveJoins} {
		if err := check(s); err != nil {
			return nil, err
		}
	}
	if warnings, err = CheckResources(&s.Resources, e.layout); err != nil {
		return nil, err
	}
	more, err := e.checkNetwork(s)
	return append(warnings, more...), err
}

// fillDefaults writes the engine's defaults into the spec, so that a later change of the configuration does not change the container.
func (e *Engine) fillDefaults(s *container.Spec) {
	if s.Log.Driver == "" {
		s.Log.Driver = e.cfg.LogDriver
	}
	if s.Log.Driver == e.cfg.LogDriver && s.Log.Driver != "none" {
		merged := map[string]string{}
		for k, v := range e.cfg.LogOpts {
			merged[k] = v
		}
		for k, v := range s.Log.Options {
			merged[k] = v
		}
		if len(merged) > 0 {
			s.Log.Options = merged
		}
	} else if cache := cacheOptions(e.cfg.LogOpts); len(cache) > 0 && s.Log.Driver != "none" {
		maps.Copy(cache, s.Log.Options)
		s.Log.Options = cache
	}
	if s.Namespaces.IPC == "" {
		s.Namespaces.IPC = e.cfg.DefaultIPCMode
	}
	if s.Namespaces.IPC == "" {
		s.Namespaces.IPC = "private"
	}
	if s.Namespaces.Cgroup == "" {
		s.Namespaces.Cgroup = e.defaultCgroupNS(s.Security.Privileged)
	}
	if s.Resources.ShmSize == 0 {
		s.Resources.ShmSize = e.cfg.DefaultShmSize
	}
	if s.Resources.ShmSize == 0 {
		s.Resources.ShmSize = 64 << 20
	}
	if s.Restart.Name == "" {
		s.Restart.Name = "no"
	}
	if r := &s.Resources; r.Memory > 0 && r.MemorySwap == 0 {
		r.MemorySwap = 2 * r.Memory
	}
}

func (e *Engine) defaultCgroupNS(privileged bool) string {
	switch {
	case privileged && e.layout.Mode != cgroup.V2: // whatever the setting says, as in Docker
		return "host"
	case e.cfg.DefaultCgroupNS != "":
		return e.cfg.DefaultCgroupNS
	case e.layout.Mode == cgroup.V2 && !privileged:
		return "private"
	}
	return "host"
}

func checkProcess(s *container.Spec) error {
	p := &s.Process
	if p.WorkingDir != "" && !path.IsAbs(p.WorkingDir) {
		return fault.New(fault.Invalid, "the working directory '%s' is invalid, it needs to be an absolute path", p.WorkingDir)
	}
	for _, kv := range p.Env {
		if kv == "" || kv[0] == '=' {
			return fault.New(fault.Invalid, "invalid environment variable: %s", kv)
		}
	}
	for what, values := range map[string][]string{"command": slices.Concat(p.Entrypoint, p.Cmd), "environment": p.Env} {
		for _, v := range values {
			if strings.ContainsRune(v, 0) {
				return fault.New(fault.Invalid, "the %s holds a NUL byte: %q", what, v)
			}
		}
	}
	if p.Umask != nil && *p.Umask > 0o777 {
		return fault.New(fault.Invalid, "invalid umask: %#o (HostConfig.Umask): give 0 to 0777", *p.Umask)
	}
	if s.StopSignal != "" {
		if _, err := parseSignal(s.StopSignal); err != nil {
			return err
		}
	}
	if len(s.Hostname) > 64 || len(s.Domainname) > 64 || strings.ContainsAny(s.Hostname+s.Domainname, "\x00\n") {
		return fault.New(fault.Invalid, "invalid hostname or domain name: %q", s.Hostname+"."+s.Domainname)
	}
	return nil
}

func checkRestart(s *container.Spec) error {
	if err := restart.Check(s.Restart); err != nil {
		return err
	}
	if s.AutoRemove && s.Restart.Name != "no" {
		return fault.New(fault.Invalid, "can't create 'AutoRemove' container with restart policy")
	}
	return nil
}

func checkNamespaces(s *container.Spec) error {
	n := &s.Namespaces
	is := func(mode string, allowed ...string) bool {
		return slices.Contains(allowed, mode) || slices.Contains(allowed, "container:") && strings.HasPrefix(mode, "container:")
	}
	switch {
	case !is(n.PID, "", "private", "host", "container:"):
		return fault.New(fault.Invalid, "invalid PID mode: %s", n.PID)
	case !is(n.IPC, "", "private", "shareable", "none", "host", "container:"):
		return fault.New(fault.Invalid, "invalid IPC mode: %s", n.IPC)
	case !is(n.UTS, "", "private", "host"):
		return fault.New(fault.Invalid, "invalid UTS mode: %s", n.UTS)
	case !is(n.Cgroup, "private", "host"):
		return fault.New(fault.Invalid, "invalid cgroup namespace mode: %s", n.Cgroup)
	case !is(n.User, "", "host"):
		return fault.New(fault.Invalid, "invalid USER mode: %s", n.User)
	case n.UTS == "host" && s.Hostname != "":
		return fault.New(fault.Invalid, "conflicting options: hostname and the UTS mode")
	}
	_, err := userns.Parse(s.Security.UsernsMode)
	return err
}

func checkMounts(s *container.Spec) error {
	seen := map[string]bool{}
	for i := range s.Mounts {
		m := &s.Mounts[i]
		if err := checkMount(m); err != nil {
			return err
		}
		if seen[path.Clean(m.Target)] {
			return fault.New(fault.Invalid, "Duplicate mount point: %s", m.Target)
		}
		seen[path.Clean(m.Target)] = true
	}
	return nil
}

func checkMount(m *container.Mount) error {
	bad := func(format string, args ...any) error {
		return fault.New(fault.Invalid, "invalid mount config for type %q: "+format, append([]any{m.Type}, args...)...)
	}
	switch {
	case m.Target == "":
		return bad("field Target must not be empty")
	case !path.IsAbs(m.Target):
		return bad("invalid mount path: '%s' mount path must be absolute", m.Target)
	case path.Clean(m.Target) == "/":
		return fault.New(fault.Invalid, "invalid mount config for type %q: invalid specification: destination can't be '/'", m.Type)
	case strings.ContainsAny(m.Target+m.Source, "\x00"):
		return bad("a path holds a NUL byte")
	}
	switch m.Type {
	case "bind":
		if m.Source == "" {
			return bad("field Source must not be empty")
		}
		if !path.IsAbs(m.Source) {
			return bad("invalid mount path: '%s' mount path must be absolute", m.Source)
		}
		if !slices.Contains([]string{"", "private", "rprivate", "shared", "rshared", "slave", "rslave"}, m.Propagation) {
			return bad("invalid propagation mode: %s", m.Propagation)
		}
		if !m.FromBinds && !m.CreateMountpoint {
			if _, err := new(asked).stat(context.Background(), m.Source); fault.Is(err, fault.Unavailable) {
				return bad("%v", err)
			} else if err != nil {
				return bad("bind source path does not exist: %s", m.Source)
			}
		}
	case "tmpfs":
		if m.Source != "" {
			return bad("field Source must not be specified")
		}
		if m.TmpfsSize < 0 {
			return bad("the size of a tmpfs cannot be negative")
		}
	case "volume":
		if m.Source == "" && m.Subpath != "" {
			return bad("must not set Subpath when using anonymous volumes")
		}
		if !filepath.IsLocal(cmp.Or(m.Subpath, ".")) {
			return bad("subpath must be a relative path within the volume: %q", m.Subpath)
		}
	case "image":
		if m.Source == "" {
			return bad("field Source must not be empty")
		}
		if !filepath.IsLocal(cmp.Or(m.Subpath, ".")) {
			return bad("subpath must be a relative path within the image: %q", m.Subpath)
		}
	default:
		return fault.New(fault.Invalid, "mount type unknown: %q", m.Type)
	}
	return nil
}

func (e *Engine) checkRuntime(s *container.Spec) error {
	if _, err := e.cfg.Runtimes.Chosen(s.Runtime); err != nil {
		return err
	}
	if e.wantsInit(s) && e.cfg.InitPath == "" {
		return fault.New(fault.Invalid, "--init: there is no berth-init beside berthd; install it or leave --init out")
	}
	return nil
}

func (e *Engine) wantsInit(s *container.Spec) bool {
	if s.Init != nil {
		return *s.Init
	}
	return e.cfg.Init
}

// hostnameFor gives the name of a container that was not given one.
func (e *Engine) hostnameFor(s *container.Spec, cid string) string {
	if s.Network.Name() == "host" || s.Namespaces.UTS == "host" {
		if h, err := os.Hostname(); err == nil {
			return h
		}
	}
	return id.Short(cid)
}

const minMemory = 6 << 20

// CheckResources refuses limits that make no sense, in Docker's words, and drops with a warning what the machine cannot do.
func CheckResources(r *container.Resources, l cgroup.Layout) (warnings []string, err error) {
	bad := func(format string, args ...any) error { return fault.New(fault.Invalid, format, args...) }
	cpus := runtime.NumCPU()
	switch {
	case r.Memory < 0, r.Memory != 0 && r.Memory < minMemory:
		return nil, bad("Minimum memory limit allowed is 6MB")
	case r.Memory > 0 && r.MemorySwap > 0 && r.MemorySwap < r.Memory:
		return nil, bad("Minimum memoryswap limit should be larger than memory limit, see usage")
	case r.Memory == 0 && r.MemorySwap > 0:
		return nil, bad("You should always set the Memory limit when using Memoryswap limit, see usage")
	case r.MemorySwappiness != nil && (*r.MemorySwappiness < -1 || *r.MemorySwappiness > 100):
		return nil, bad("Invalid value: %d, valid memory swappiness range is 0-100", *r.MemorySwappiness)
	case r.MemoryReservation < 0, r.MemoryReservation > 0 && r.MemoryReservation < minMemory:
		return nil, bad("Minimum memory reservation allowed is 6MB")
	case r.Memory > 0 && r.MemoryReservation > r.Memory:
		return nil, bad("Minimum memory limit can not be less than memory reservation limit, see usage")
	case r.KernelMemory != 0:
		return nil, bad("kernel-memory: the kernel dropped this limit in Linux 5.4; use --memory")
	case r.NanoCPUs > 0 && r.CPUPeriod > 0:
		return nil, bad("Conflicting options: Nano CPUs and CPU Period cannot both be set.")
	case r.NanoCPUs > 0 && r.CPUQuota > 0:
		return nil, bad("Conflicting options: Nano CPUs and CPU Quota cannot both be set.")
	case r.NanoCPUs < 0 || r.NanoCPUs > int64(cpus)*1e9 || r.NanoCPUs > 0 && r.NanoCPUs < 1e7:
		return nil, bad("range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", cpus, cpus)
	case r.CPUShares < 0:
		return nil, bad("invalid CPU shares (%d): value must be a positive integer", r.CPUShares)
	case r.CPUPeriod != 0 && (r.CPUPeriod < 1000 || r.CPUPeriod > 1000000):
		return nil, bad("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	case r.CPUQuota > 0 && r.CPUQuota < 1000:
		return nil, bad("CPU cfs quota can not be less than 1ms (i.e. 1000)")
	case r.BlkioWeight > 0 && (r.BlkioWeight < 10 || r.BlkioWeight > 1000):
		return nil, bad("Range of blkio weight is from 10 to 1000")
	case r.OOMScoreAdj < -1000 || r.OOMScoreAdj > 1000:
		return nil, bad("Invalid value %d, range for oom score adj is [-1000, 1000]", r.OOMScoreAdj)
	case r.ShmSize < 0:
		return nil, bad("SHM size can not be less than 0")
	case (r.CPURealtimePeriod != 0 || r.CPURealtimeRuntime != 0) && l.Mode == cgroup.V2:
		return nil, bad("cgroup v2 has no real-time limits; leave --cpu-rt-period and --cpu-rt-runtime out")
	case r.CPURealtimePeriod > 0 && r.CPURealtimeRuntime > r.CPURealtimePeriod:
		return nil, bad("cpu real-time runtime cannot be higher than cpu real-time period")
	case r.CgroupParent != "" && strings.Contains(r.CgroupParent, ".."):
		return nil, bad("cgroup-parent %q: the path may not leave its hierarchy", r.CgroupParent)
	}
	if err := checkSet("CPUs", "cpus", r.CpusetCpus, cpuList); err != nil {
		return nil, err
	}
	if err := checkSet("memory nodes", "mems", r.CpusetMems, nodeList); err != nil {
		return nil, err
	}
	for _, w := range r.BlkioWeightDevice {
		if w.Weight != 0 && (w.Weight < 10 || w.Weight > 1000) {
			return nil, bad("Range of blkio weight is from 10 to 1000 (BlkioWeightDevice %s: %d)", w.Path, w.Weight)
		}
	}
	for _, u := range r.Ulimits {
		if !slices.Contains(ulimitNames, u.Name) {
			return nil, bad("invalid ulimit type: %s", u.Name)
		}
		if u.Hard >= 0 && (u.Soft > u.Hard || u.Soft < 0) {
			return nil, bad("ulimit soft limit must be less than or equal to hard limit: %d > %d", u.Soft, u.Hard)
		}
	}
	if l.Mode == cgroup.V2 {
		if r.OOMKillDisable != nil && *r.OOMKillDisable {
			warnings = append(warnings, "Your kernel does not support OomKillDisable. OomKillDisable discarded.")
			r.OOMKillDisable = nil
		}
		if r.MemorySwappiness != nil && *r.MemorySwappiness != -1 {
			warnings = append(warnings, "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.")
			r.MemorySwappiness = nil
		}
		if r.KernelMemoryTCP > 0 {
			warnings = append(warnings, "Your kernel does not support kernel memory TCP limit capabilities or the cgroup is not mounted. Limitation discarded.")
			r.KernelMemoryTCP = 0
		}
	}
	return warnings, nil
}

var ulimitNames = []string{"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack"}

// checkSet refuses a cpuset that is no list, or asks for what is not there.
func checkSet(what, file, asked string, online func() string) error {
	if asked == "" {
		return nil
	}
	want, ok := parseSet(asked)
	if !ok {
		return fault.New(fault.Invalid, "Invalid value %s for cpuset %s: invalid format: %s", asked, file, asked)
	}
	available := online()
	have, ok := parseSet(available)
	if !ok || available == "" {
		return nil // the machine does not say; the kernel will
	}
	for n := range want {
		if !have[n] {
			return fault.New(fault.Invalid, "Requested %s are not available - requested %s, available: %s", what, asked, available)
		}
	}
	return nil
}

// parseSet reads "0-2,7".
func parseSet(s string) (map[int]bool, bool) {
	set := map[int]bool{}
	if s == "" {
		return set, true
	}
	for _, part := range strings.Split(s, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			to = from
		}
		a, err1 := strconv.Atoi(from)
		b, err2 := strconv.Atoi(to)
		if err1 != nil || err2 != nil || a < 0 || b < a || b > 8192 {
			return nil, false
		}
		for n := a; n <= b; n++ {
			set[n] = true
		}
	}
	return set, true
}

func cpuList() string  { return readTrim("/sys/devices/system/cpu/online") }
func nodeList() string { return readTrim("/sys/devices/system/node/online") }

func readTrim(name string) string {
	b, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// hostMemory gives the machine's memory in bytes, or 0.
func hostMemory() int64 {
	for line := range strings.Lines(readTrim("/proc/meminfo")) {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			kb, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb << 10
		}
	}
	return 0
}
