package spec

import (
	"cmp"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
	"berth/kernel/seccomp"
)

// checkNamespaces gives the kinds that the container does not share with the runtime.
func checkNamespaces(list []specs.LinuxNamespace) (map[specs.LinuxNamespaceType]bool, error) {
	own := map[specs.LinuxNamespaceType]bool{}
	for i, n := range list {
		switch n.Type {
		case specs.PIDNamespace, specs.NetworkNamespace, specs.MountNamespace, specs.IPCNamespace, specs.UTSNamespace,
			specs.UserNamespace, specs.CgroupNamespace, specs.TimeNamespace:
		default:
			return nil, invalid("linux.namespaces[%d]: namespace %q does not exist", i, n.Type)
		}
		if own[n.Type] {
			return nil, invalid("linux.namespaces[%d]: malformed spec file: duplicated ns %q", i, n.Type)
		}
		if n.Path != "" && !path.IsAbs(n.Path) {
			return nil, invalid("linux.namespaces[%d]: path %q of the %s namespace must be absolute", i, n.Path, n.Type)
		}
		own[n.Type] = true
	}
	return own, nil
}

// fresh reports whether the container gets a new namespace of a kind.
func fresh(list []specs.LinuxNamespace, kind specs.LinuxNamespaceType) bool {
	return slices.ContainsFunc(list, func(n specs.LinuxNamespace) bool { return n.Type == kind && n.Path == "" })
}

func checkLinux(l *specs.Linux, own map[specs.LinuxNamespaceType]bool) error {
	for _, check := range []func(*specs.Linux, map[specs.LinuxNamespaceType]bool) error{
		checkUsers, checkPaths, checkSysctls, checkDevices, checkTime, checkNetDevices, checkWords,
	} {
		if err := check(l, own); err != nil {
			return err
		}
	}
	if l.Seccomp != nil {
		if _, err := seccomp.Compile(l.Seccomp); err != nil {
			return fault.In(err, "linux")
		}
	}
	return nil
}

// maxMappings is how many lines the kernel takes in uid_map (Linux 4.15).
const maxMappings = 340

func checkUsers(l *specs.Linux, own map[specs.LinuxNamespaceType]bool) error {
	mapped := len(l.UIDMappings)+len(l.GIDMappings) > 0
	switch {
	case mapped && !own[specs.UserNamespace]:
		return invalid("linux.uidMappings: user namespace mappings specified, but user namespace isn't enabled in the config")
	case fresh(l.Namespaces, specs.UserNamespace) && (len(l.UIDMappings) == 0 || len(l.GIDMappings) == 0):
		return invalid("linux: a new user namespace needs uidMappings and gidMappings")
	}
	if err := checkMappings(l.UIDMappings); err != nil {
		return fault.In(err, "linux.uidMappings")
	}
	return fault.In(checkMappings(l.GIDMappings), "linux.gidMappings")
}

// checkMappings wants ranges that end within 32 bits and do not overlap on either side.
func checkMappings(list []specs.LinuxIDMapping) error {
	if len(list) > maxMappings {
		return invalid("%d entries, the kernel takes %d", len(list), maxMappings)
	}
	for i, m := range list {
		if m.Size == 0 {
			return invalid("entry %d has size 0", i)
		}
		if uint64(m.ContainerID)+uint64(m.Size) > 1<<32 || uint64(m.HostID)+uint64(m.Size) > 1<<32 {
			return invalid("entry %d (%d:%d:%d) ends beyond the last id", i, m.ContainerID, m.HostID, m.Size)
		}
	}
	for _, first := range []func(specs.LinuxIDMapping) uint32{
		func(m specs.LinuxIDMapping) uint32 { return m.ContainerID },
		func(m specs.LinuxIDMapping) uint32 { return m.HostID },
	} {
		sorted := slices.SortedFunc(slices.Values(list), func(a, b specs.LinuxIDMapping) int { return cmp.Compare(first(a), first(b)) })
		for i := 1; i < len(sorted); i++ {
			a, b := sorted[i-1], sorted[i]
			if uint64(first(a))+uint64(a.Size) > uint64(first(b)) {
				return invalid("entries %d:%d:%d and %d:%d:%d overlap", a.ContainerID, a.HostID, a.Size, b.ContainerID, b.HostID, b.Size)
			}
		}
	}
	return nil
}

func checkPaths(l *specs.Linux, own map[specs.LinuxNamespaceType]bool) error {
	for _, f := range []struct {
		field string
		list  []string
	}{{"maskedPaths", l.MaskedPaths}, {"readonlyPaths", l.ReadonlyPaths}} {
		if len(f.list) > 0 && !own[specs.MountNamespace] {
			return invalid("unable to restrict sys entries without a private MNT namespace")
		}
		for i, p := range f.list {
			if !path.IsAbs(p) {
				return invalid("linux.%s[%d]: path %q must be absolute", f.field, i, p)
			}
		}
	}
	if strings.ContainsRune(l.CgroupsPath, 0) {
		return invalid("linux.cgroupsPath: %q contains a zero byte", l.CgroupsPath)
	}
	return nil
}

// ipcSysctls belong to an IPC namespace, beside everything below fs.mqueue.
var ipcSysctls = [...]string{
	"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
}

// checkSysctls lets a container set what belongs to a namespace that it does not share with the
// runtime; anything else would be the host's.
func checkSysctls(l *specs.Linux, own map[specs.LinuxNamespaceType]bool) error {
	for name := range l.Sysctl {
		key := SysctlKey(name)
		var kind specs.LinuxNamespaceType
		switch {
		case !sysctlName(key):
			return invalid("linux.sysctl: %q is no name of a sysctl", name)
		case slices.Contains(ipcSysctls[:], key) || strings.HasPrefix(key, "fs.mqueue."):
			if !own[specs.IPCNamespace] {
				return invalid("sysctl %q is not allowed in the hosts ipc namespace", key)
			}
			continue
		case strings.HasPrefix(key, "net."):
			if !own[specs.NetworkNamespace] {
				return invalid("sysctl %q not allowed in host network namespace", key)
			}
			continue
		case key == "kernel.hostname" && own[specs.UTSNamespace]:
			return invalid("sysctl %q is not allowed as it conflicts with the OCI %q field", key, "hostname")
		case key == "kernel.domainname":
			kind = specs.UTSNamespace
		case strings.HasPrefix(key, "user."):
			kind = specs.UserNamespace
		}
		if !own[kind] {
			return invalid("sysctl %q is not in a separate kernel namespace", key)
		}
	}
	return nil
}

// sysctlName reports whether a dotted key is a path below /proc/sys that stays there: a part of it is a
// file's name, with its dots written as slashes.
func sysctlName(key string) bool {
	for part := range strings.SplitSeq(key, ".") {
		if part == "" || part == "/" || part == "//" || strings.ContainsRune(part, 0) {
			return false
		}
	}
	return true
}

// SysctlKey gives a sysctl's name with dots between its parts. Names may be written with slashes; then
// dots are part of a name, as in net/ipv4/conf/eth0.1/forwarding, which is net.ipv4.conf.eth0/1.forwarding
// (sysctl(8)).
func SysctlKey(name string) string {
	first := strings.IndexAny(name, "./")
	if first < 0 || name[first] == '.' {
		return name
	}
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, name)
}

func checkDevices(l *specs.Linux, _ map[specs.LinuxNamespaceType]bool) error {
	for i, d := range l.Devices {
		switch d.Type {
		case "c", "b", "u", "p":
		default:
			return invalid("linux.devices[%d]: invalid device type %q: want c, b, u or p", i, d.Type)
		}
		if !path.IsAbs(d.Path) {
			return invalid("linux.devices[%d]: path %q must be absolute", i, d.Path)
		}
		if d.Major < 0 || d.Minor < 0 {
			return invalid("linux.devices[%d] (%s): device number %d:%d is negative", i, d.Path, d.Major, d.Minor)
		}
	}
	if l.Resources == nil {
		return nil
	}
	for i, r := range l.Resources.Devices {
		switch r.Type {
		case "", "a", "c", "b":
		default:
			return invalid("linux.resources.devices[%d]: invalid type %q: want a, c or b", i, r.Type)
		}
		if strings.Trim(r.Access, "rwm") != "" {
			return invalid("linux.resources.devices[%d]: invalid access %q: want letters of rwm", i, r.Access)
		}
	}
	return nil
}

func checkTime(l *specs.Linux, _ map[specs.LinuxNamespaceType]bool) error {
	if len(l.TimeOffsets) > 0 && !fresh(l.Namespaces, specs.TimeNamespace) {
		return invalid("linux.timeOffsets: time namespace offsets specified, but a new time namespace isn't in the config")
	}
	for clock, offset := range l.TimeOffsets {
		if clock != "monotonic" && clock != "boottime" {
			return invalid("linux.timeOffsets: unknown clock %q: want monotonic or boottime", clock)
		}
		if offset.Nanosecs >= 1e9 {
			return invalid("linux.timeOffsets.%s: nanosecs %d are a second or more", clock, offset.Nanosecs)
		}
	}
	return nil
}

func checkNetDevices(l *specs.Linux, own map[specs.LinuxNamespaceType]bool) error {
	if len(l.NetDevices) > 0 && !own[specs.NetworkNamespace] {
		return invalid("unable to move network devices without a private NET namespace")
	}
	for name, d := range l.NetDevices {
		if !netName(name) {
			return invalid("linux.netDevices: invalid network device name %q", name)
		}
		if d.Name != "" && !netName(d.Name) {
			return invalid("linux.netDevices.%s: invalid network device name %q", name, d.Name)
		}
	}
	return nil
}

// netName is the kernel's rule (dev_valid_name): less than IFNAMSIZ bytes, no slash, colon or space.
func netName(name string) bool {
	return name != "" && len(name) < 16 && name != "." && name != ".." && !strings.ContainsAny(name, "/: \t\n\v\f\r\x00")
}

// checkWords checks members that take one of a few words.
func checkWords(l *specs.Linux, _ map[specs.LinuxNamespaceType]bool) error {
	switch l.RootfsPropagation {
	case "", "shared", "slave", "private", "unbindable", "rshared", "rslave", "rprivate", "runbindable":
	default:
		return invalid("linux.rootfsPropagation: %q: want shared, slave, private or unbindable", l.RootfsPropagation)
	}
	if p := l.Personality; p != nil {
		if p.Domain != specs.PerLinux && p.Domain != specs.PerLinux32 {
			return invalid("linux.personality: unknown domain %q: want %s or %s", p.Domain, specs.PerLinux, specs.PerLinux32)
		}
		if len(p.Flags) > 0 {
			return invalid("linux.personality: additional flags are not supported: remove flags")
		}
	}
	if m := l.MemoryPolicy; m != nil {
		switch m.Mode {
		case specs.MpolDefault, specs.MpolBind, specs.MpolInterleave, specs.MpolWeightedInterleave, specs.MpolPreferred, specs.MpolPreferredMany, specs.MpolLocal:
		default:
			return invalid("linux.memoryPolicy: invalid memory policy mode %q", m.Mode)
		}
		for i, f := range m.Flags {
			if f != specs.MpolFNumaBalancing && f != specs.MpolFRelativeNodes && f != specs.MpolFStaticNodes {
				return invalid("linux.memoryPolicy.flags[%d]: invalid memory policy flag %q", i, f)
			}
		}
	}
	return nil
}
