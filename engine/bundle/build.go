package bundle

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/base/userdb"
	"berth/engine/container"
	"berth/kernel/mount"
	"berth/kernel/seccomp"
	"berth/runtime/spec"
)

// Input is one container with what was found out for it.
type Input struct {
	LinkEnv []string // variables that tell of linked containers; the container's own win

	Record *container.Record
	User   userdb.User
	Init   bool // put the init in front

	Hostname, Hosts, ResolvConf string // files to bind into /etc
	Shm                         string // directory to bind on /dev/shm; "" a tmpfs of its own

	// Namespaces of other containers to join, as paths below /proc; "" a namespace of its own, or the host's where the spec says so.
	PIDPath, IPCPath, NetPath string

	// UserPath is the user namespace to join, where the record has a mapping; "" a new one. CanMap says whether what is at a host path
	// can be shown through a mapping; nil: nothing can.
	UserPath string
	CanMap   func(path string) bool

	// Sources are the host paths of volumes and images, by the target of their mount.
	Sources map[string]string

	// Devices finds device nodes on the host; see Host.
	Devices Nodes

	// Inject edits the specification for the devices that were asked for by what they are; nil: nobody does. See engine/cdi.
	Inject func(*specs.Spec, []container.DeviceRequest) error
}

// Nodes looks at device nodes.
type Nodes interface {
	// Expand gives the device at path, or all below it if it is a directory, as seen in the container below target.
	Expand(source, target string) ([]specs.LinuxDevice, error)
	// All gives every device of the host's /dev, for privileged containers.
	All() ([]specs.LinuxDevice, error)
}

// initTarget is where the init is seen in the container; Docker's path.
const initTarget = "/sbin/docker-init"

// Built is a container's specification. Filter is its compiled seccomp section, shared with other containers; nil for none.
type Built struct {
	Spec   *specs.Spec
	Filter *seccomp.Filter
}

// Build gives the specification.
func (r *Rules) Build(in Input) (Built, error) {
	s := in.Record.Spec
	opt, err := parseOptions(s.Security.SecurityOpt, r.cfg.NoNewPrivileges)
	if err != nil {
		return Built{}, err
	}
	out := &specs.Spec{
		Version: specs.Version, Hostname: s.Hostname, Domainname: s.Domainname, Annotations: s.Annotations,
		Root:  &specs.Root{Path: "rootfs", Readonly: s.Security.ReadonlyRootfs},
		Linux: &specs.Linux{CgroupsPath: in.Record.Cgroup, Sysctl: r.sysctls(in.Record)},
	}
	if r.cfg.SELinux {
		out.Linux.MountLabel = in.Record.MountLabel
	}
	for _, part := range []func(*specs.Spec, Input, options) error{r.process, r.namespaces, r.mounts, r.paths, r.resources, r.devices} {
		if err := part(out, in, opt); err != nil {
			return Built{}, err
		}
	}
	if in.Inject != nil {
		if err := in.Inject(out, s.Resources.DeviceRequests); err != nil {
			return Built{}, err
		}
	}
	p, err := r.seccomp(in, opt, out.Process.Capabilities.Bounding)
	if err != nil {
		return Built{}, err
	}
	out.Linux.Seccomp = p.Spec
	return Built{out, p.Filter}, nil
}

func (r *Rules) process(out *specs.Spec, in Input, opt options) error {
	s := in.Record.Spec
	caps, err := capabilities(s.Security.CapAdd, s.Security.CapDrop, s.Security.Privileged)
	if err != nil {
		return err
	}
	adj := s.Resources.OOMScoreAdj
	if own := r.cfg.Own; own != nil {
		if adj != 0 && adj < own.OOMScoreAdj {
			return fault.New(fault.Forbidden, "--oom-score-adj %d: an engine without root cannot protect a container better than itself (%d)", adj, own.OOMScoreAdj)
		}
		adj = max(adj, own.OOMScoreAdj)
	}
	p := &specs.Process{
		Terminal: s.Process.TTY, Cwd: s.Process.WorkingDir, Env: s.Environment(in.LinkEnv), NoNewPrivileges: opt.noNewPriv, OOMScoreAdj: &adj,
		Args:         append([]string{in.Record.Path}, in.Record.Args...),
		User:         ProcessUser(in.User),
		Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
	}
	if err := r.cfg.Own.check(p.User); err != nil {
		return err
	}
	p.User.Umask = s.Process.Umask
	if r.cfg.SELinux && !s.Security.Privileged { // in Docker too privilege wins over label=type:…
		p.SelinuxLabel = in.Record.ProcessLabel
	}
	if p.Cwd == "" {
		p.Cwd = "/"
	}
	if in.Init {
		p.Args = append([]string{initTarget, "--"}, p.Args...)
	}
	if s.ConsoleSize != [2]uint{} && p.Terminal {
		p.ConsoleSize = &specs.Box{Height: s.ConsoleSize[0], Width: s.ConsoleSize[1]}
	}
	p.Env = WithHome(p.Env, in.User.Home)
	p.Rlimits = rlimits(r.cfg.Ulimits, s.Resources.Ulimits)
	if r.cfg.NofileHard != 0 && !slices.ContainsFunc(p.Rlimits, func(l specs.POSIXRlimit) bool { return l.Type == "RLIMIT_NOFILE" }) {
		// Go raises our own soft limit to the hard one (os, Go 1.19), and the container would inherit that: programs that walk
		// every possible descriptor then take minutes. What the kernel and systemd start with is the default.
		p.Rlimits = append(p.Rlimits, specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Soft: min(1024, r.cfg.NofileHard), Hard: r.cfg.NofileHard})
	}
	if p.ApparmorProfile = in.Record.AppArmorProfile; p.ApparmorProfile == "unconfined" || !r.cfg.AppArmor {
		p.ApparmorProfile = "" // the record may be older than this boot of the kernel
	}
	out.Process = p
	return nil
}

// ProcessUser gives a process's identity. Its primary group is among the supplementary ones as well: a process that changes its group
// must not lose it, for files may deny to a group what they allow to everybody else (CVE-2022-36109).
func ProcessUser(u userdb.User) specs.User {
	return specs.User{UID: u.UID, GID: u.GID, AdditionalGids: append([]uint32{u.GID}, without(u.Groups, u.GID)...)}
}

// WithHome adds the user's home directory to an environment that has none.
func WithHome(env []string, home string) []string {
	if v, ok := container.LookupEnv(env, "HOME"); ok && v != "" {
		return env
	}
	return container.OverrideEnv(env, []string{"HOME=" + home})
}

func rlimits(defaults, own []container.Ulimit) []specs.POSIXRlimit {
	var list []specs.POSIXRlimit
	add := func(u container.Ulimit) {
		list = append(list, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: uint64(u.Soft), Hard: uint64(u.Hard)}) // -1 is RLIM_INFINITY
	}
	for _, u := range defaults {
		if !slices.ContainsFunc(own, func(o container.Ulimit) bool { return o.Name == u.Name }) {
			add(u)
		}
	}
	for _, u := range own {
		add(u)
	}
	return list
}

func (r *Rules) namespaces(out *specs.Spec, in Input, _ options) error {
	s := in.Record.Spec
	add := func(kind specs.LinuxNamespaceType, joined string, host bool) {
		if !host {
			out.Linux.Namespaces = append(out.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: joined})
		}
	}
	add(specs.MountNamespace, "", false)
	add(specs.PIDNamespace, in.PIDPath, s.Namespaces.PID == "host")
	add(specs.IPCNamespace, in.IPCPath, s.Namespaces.IPC == "host")
	add(specs.NetworkNamespace, in.NetPath, s.Network.Name() == "host")
	add(specs.UTSNamespace, "", s.Namespaces.UTS == "host")
	add(specs.CgroupNamespace, "", s.Namespaces.Cgroup == "host")
	if m := in.Record.IDMap; m != nil {
		add(specs.UserNamespace, in.UserPath, false)
		out.Linux.UIDMappings, out.Linux.GIDMappings = m.Users.Spec(), m.Groups.Spec()
	}
	if s.Namespaces.UTS == "host" {
		out.Hostname, out.Domainname = "", "" // they are the host's
	}
	return nil
}

func (r *Rules) mounts(out *specs.Spec, in Input, opt options) error {
	var own []specs.Mount
	asked := in.Record.AllMounts()
	for i := range asked {
		m, err := r.mount(&asked[i], in.Sources)
		if err != nil {
			return err
		}
		if in.maps(&asked[i], m.Source) {
			m.Options = append(m.Options, "idmap")
		}
		own = append(own, m)
		if p := asked[i].Propagation; strings.HasSuffix(p, "shared") {
			out.Linux.RootfsPropagation = "shared"
		} else if strings.HasSuffix(p, "slave") && out.Linux.RootfsPropagation == "" {
			out.Linux.RootfsPropagation = "rslave"
		}
	}
	covered := func(target string) bool {
		return slices.ContainsFunc(own, func(m specs.Mount) bool {
			return m.Destination == target || m.Destination == "/dev" && strings.HasPrefix(target, "/dev/")
		})
	}
	var all []specs.Mount
	for _, m := range r.systemMounts(in, opt) {
		if !covered(m.Destination) {
			all = append(all, m)
		}
	}
	for _, f := range []struct{ source, target string }{{in.ResolvConf, "/etc/resolv.conf"}, {in.Hostname, "/etc/hostname"}, {in.Hosts, "/etc/hosts"}} {
		if f.source != "" && !covered(f.target) {
			own = append(own, specs.Mount{Destination: f.target, Type: "bind", Source: f.source, Options: []string{"rbind", "rprivate"}})
			if in.mapped(f.source) {
				own[len(own)-1].Options = append(own[len(own)-1].Options, "idmap")
			}
		}
	}
	if in.Init {
		own = append(own, specs.Mount{Destination: initTarget, Type: "bind", Source: r.cfg.InitPath, Options: []string{"bind", "ro"}})
	}
	slices.SortStableFunc(own, func(a, b specs.Mount) int { return cmp.Compare(depth(a.Destination), depth(b.Destination)) })
	out.Mounts = append(all, own...)
	return nil
}

// systemMounts gives /proc, /dev, /sys and the rest as this container wants them.
func (r *Rules) systemMounts(in Input, opt options) []specs.Mount {
	s := in.Record.Spec
	var all []specs.Mount
	for _, m := range spec.Mounts(s.Resources.ShmSize) {
		switch m.Destination {
		case "/proc", "/dev/mqueue":
			// The machine's are only shown again by who owns its namespaces: an engine without root passes on what it sees of them.
			if r.cfg.Own != nil && (m.Destination == "/proc" && s.Namespaces.PID == "host" || m.Destination == "/dev/mqueue" && s.Namespaces.IPC == "host") {
				if m.Destination == "/dev/mqueue" && !r.cfg.Own.Queues {
					continue
				}
				m = specs.Mount{Destination: m.Destination, Type: "bind", Source: m.Destination, Options: []string{"rbind", "rprivate"}}
			}
		case "/dev/shm":
			switch {
			case s.Namespaces.IPC == "none":
				continue
			case s.Namespaces.IPC == "host":
				m = specs.Mount{Destination: "/dev/shm", Type: "bind", Source: "/dev/shm", Options: []string{"rbind", "rprivate"}}
			case in.Shm != "":
				m = specs.Mount{Destination: "/dev/shm", Type: "bind", Source: in.Shm, Options: []string{"rbind", "rprivate"}}
			}
		case "/sys", "/sys/fs/cgroup":
			writable := s.Security.Privileged
			if m.Destination == "/sys/fs/cgroup" && opt.writableCgroups != nil {
				writable = *opt.writableCgroups
			}
			if writable {
				m.Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return o == "ro" })
			}
		}
		all = append(all, m)
	}
	return all
}

// mount translates one mount that was asked for.
func (r *Rules) mount(m *container.Mount, sources map[string]string) (specs.Mount, error) {
	out := specs.Mount{Destination: path.Clean(m.Target), Type: m.Type, Source: m.Source}
	switch m.Type {
	case "bind", "volume", "image":
		if m.Type != "bind" {
			out.Type, out.Source = "bind", sources[m.Target]
		}
		out.Options = []string{"rbind"}
		if m.NonRecursive {
			out.Options = []string{"bind"}
		}
		out.Options = append(out.Options, cmp.Or(m.Propagation, "rprivate"))
		switch {
		case !m.ReadOnly && m.Type != "image":
		case m.ReadOnlyForceRecursive && !r.cfg.RecursiveRO:
			return out, fault.New(fault.Invalid, "failed to make %s recursively read-only: this takes Linux 5.12", m.Target)
		case r.cfg.RecursiveRO && !m.ReadOnlyNonRecursive && !m.NonRecursive:
			out.Options = append(out.Options, "rro")
		default:
			out.Options = append(out.Options, "ro")
		}
	case "tmpfs":
		out.Source = "tmpfs"
		out.Options = []string{"noexec", "nosuid", "nodev", "rprivate"}
		if m.TmpfsOptions != "" {
			for _, o := range strings.Split(m.TmpfsOptions, ",") {
				if turnsIntoBind(o) {
					return out, fault.New(fault.Invalid, "invalid tmpfs option %q", o)
				}
				out.Options = override(out.Options, o)
			}
		}
		if m.TmpfsSize > 0 {
			out.Options = append(out.Options, fmt.Sprintf("size=%d", m.TmpfsSize))
		}
		if m.TmpfsMode != 0 {
			out.Options = append(out.Options, fmt.Sprintf("mode=%o", m.TmpfsMode))
		}
		if m.ReadOnly {
			out.Options = override(out.Options, "ro")
		}
	default:
		return out, fault.New(fault.Invalid, "mount type unknown: %q", m.Type)
	}
	return out, nil
}

// turnsIntoBind tells options with which a tmpfs would not be one: it would show or change what is on the host.
func turnsIntoBind(o string) bool {
	opts, err := mount.ParseOptions([]string{strings.TrimSpace(o)})
	return err != nil || opts.Flags&(unix.MS_BIND|unix.MS_REMOUNT|unix.MS_MOVE) != 0 || opts.IDMap || opts.IDMapRec
}

// opposites are mount options that take each other's place.
var opposites = map[string]string{"exec": "noexec", "noexec": "exec", "suid": "nosuid", "nosuid": "suid", "dev": "nodev", "nodev": "dev", "ro": "rw", "rw": "ro"}

// override adds an option, taking away what it contradicts.
func override(options []string, o string) []string {
	name, _, valued := strings.Cut(o, "=")
	options = slices.DeleteFunc(slices.Clone(options), func(old string) bool {
		return old == o || opposites[old] == o || valued && strings.HasPrefix(old, name+"=")
	})
	return append(options, o)
}

func (r *Rules) paths(out *specs.Spec, in Input, _ options) error {
	s := &in.Record.Spec.Security
	if s.Privileged {
		return nil
	}
	out.Linux.MaskedPaths, out.Linux.ReadonlyPaths = spec.MaskedPaths(), spec.ReadonlyPaths()
	if s.MaskedPaths != nil {
		out.Linux.MaskedPaths = s.MaskedPaths
	}
	if s.ReadonlyPaths != nil {
		out.Linux.ReadonlyPaths = s.ReadonlyPaths
	}
	return nil
}

// seccomp picks the filter: what was asked for, else none for a privileged container, else the engine's.
func (r *Rules) seccomp(in Input, opt options, bounding []string) (spec.Profile, error) {
	text := opt.seccomp
	if text == "" {
		if in.Record.Spec.Security.Privileged {
			return spec.Profile{}, nil
		}
		text = r.cfg.SeccompProfile
	}
	return r.profiles.Get(text, bounding)
}

func depth(p string) int { return strings.Count(path.Clean(p), "/") }

func without(ids []uint32, id uint32) []uint32 {
	return slices.DeleteFunc(slices.Clone(ids), func(i uint32) bool { return i == id })
}
