package bundle

import (
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
	"berth/engine/container"
	"berth/kernel/capability"
	"berth/runtime/spec"
)

// Config is what the rules are made of.
type Config struct {
	Ulimits         []container.Ulimit // defaults; a container's own of the same name win
	NofileHard      uint64             // hard limit of open files where nothing sets one, with a soft one of 1024; 0: the keeper's
	SeccompProfile  string             // JSON text; "" the built-in one; "unconfined"
	NoNewPrivileges bool
	InitPath        string // host path of the init; "" none
	RecursiveRO     bool   // the kernel can make a tree of mounts read-only (Linux 5.12)
	AppArmor        bool   // containers are confined by AppArmor
	SELinux         bool   // the kernel has SELinux: labels in a record are applied
	CgroupV2        bool
	Own             *Own // what the engine has of ids; nil: all there are
}

// Own is what an engine without the machine's privileges has to give.
type Own struct {
	LastUser    uint32 // the user ids from 0 to this one are in the engine's user namespace
	LastGroup   uint32 // likewise of groups
	OOMScoreAdj int    // its own, which no container can go below
	Queues      bool   // the machine shows its message queues at /dev/mqueue
}

// check refuses ids that the engine does not have.
func (o *Own) check(u specs.User) error {
	if o == nil {
		return nil
	}
	if u.UID > o.LastUser {
		return fault.New(fault.Invalid, "the user %d is none of the %d ids that this engine, without root, has: see /etc/subuid", u.UID, uint64(o.LastUser)+1)
	}
	for _, g := range append([]uint32{u.GID}, u.AdditionalGids...) {
		if g > o.LastGroup {
			return fault.New(fault.Invalid, "the group %d is none of the %d ids that this engine, without root, has: see /etc/subgid", g, uint64(o.LastGroup)+1)
		}
	}
	return nil
}

// Rules are what all containers have in common.
type Rules struct {
	cfg      Config
	profiles spec.Profiles
}

// NewRules checks the configuration.
func NewRules(cfg Config) (*Rules, error) {
	r := &Rules{cfg: cfg}
	if _, err := r.profiles.Get(cfg.SeccompProfile, spec.DefaultCapabilities()); err != nil {
		return nil, fault.In(err, "the default seccomp profile")
	}
	return r, nil
}

// options are a container's --security-opt, sorted.
type options struct {
	seccomp   string // "" default, "unconfined", "builtin", JSON
	apparmor  string
	labels    []string
	noNewPriv bool

	writableCgroups *bool // nil: as privilege says
}

// parseOptions reads --security-opt in both of Docker's notations, "key=value" and "key:value".
func parseOptions(list []string, noNewPriv bool) (options, error) {
	o := options{noNewPriv: noNewPriv}
	for _, opt := range list {
		if opt == "no-new-privileges" {
			o.noNewPriv = true
			continue
		}
		if opt == "writable-cgroups" {
			yes := true
			o.writableCgroups = &yes
			continue
		}
		key, value, ok := strings.Cut(opt, "=")
		if !ok {
			key, value, ok = strings.Cut(opt, ":")
		}
		if !ok {
			return o, fault.New(fault.Invalid, "invalid --security-opt 1: %q", opt)
		}
		switch key {
		case "seccomp":
			o.seccomp = value
		case "apparmor":
			o.apparmor = value
		case "label":
			o.labels = append(o.labels, value)
		case "writable-cgroups":
			yes, err := strconv.ParseBool(value)
			if err != nil {
				return o, fault.New(fault.Invalid, "invalid --security-opt 2: %q", opt)
			}
			o.writableCgroups = &yes
		case "no-new-privileges":
			switch value {
			case "true":
				o.noNewPriv = true
			case "false":
				o.noNewPriv = false
			default:
				return o, fault.New(fault.Invalid, "invalid --security-opt 2: %q", opt)
			}
		default:
			return o, fault.New(fault.Invalid, "invalid --security-opt 2: %q", opt)
		}
	}
	return o, nil
}

// Confinement gives the AppArmor profile ("" none) and the label options that --security-opt names.
func Confinement(list []string) (apparmor string, labels []string, err error) {
	o, err := parseOptions(list, false)
	return o.apparmor, o.labels, err
}

// CheckSecurity refuses options, capabilities and device rules that mean nothing, before the container exists.
func (r *Rules) CheckSecurity(s *container.Spec) error {
	o, err := parseOptions(s.Security.SecurityOpt, false)
	if err != nil {
		return err
	}
	caps, err := capabilities(s.Security.CapAdd, s.Security.CapDrop, s.Security.Privileged)
	if err != nil {
		return err
	}
	if _, err := r.profiles.Get(o.seccomp, caps); err != nil {
		return err
	}
	for _, rule := range s.Resources.DeviceCgroupRules {
		if _, err := parseDeviceRule(rule); err != nil {
			return err
		}
	}
	for name := range s.Security.Sysctls {
		if err := checkSysctl(name, s); err != nil {
			return err
		}
	}
	return nil
}

// capabilities applies --cap-add and --cap-drop to Docker's default list.
func capabilities(add, drop []string, privileged bool) ([]string, error) {
	has := map[string]bool{}
	for _, c := range spec.DefaultCapabilities() {
		has[c] = true
	}
	adds, err := capNames("CapAdd", add)
	if err != nil {
		return nil, err
	}
	drops, err := capNames("CapDrop", drop)
	if err != nil {
		return nil, err
	}
	every := spec.AllCapabilities()
	if privileged {
		return every, nil
	}
	if slices.Contains(drops, "ALL") {
		clear(has)
	}
	if slices.Contains(adds, "ALL") {
		for _, c := range every {
			has[c] = true
		}
	}
	for _, c := range adds {
		has[c] = true
	}
	for _, c := range drops {
		delete(has, c)
	}
	return slices.DeleteFunc(capability.Names(capability.All()), func(c string) bool { return !has[c] }), nil
}

// capNames gives full names; "ALL" stays.
func capNames(field string, list []string) ([]string, error) {
	var names []string
	for _, c := range list {
		name := strings.ToUpper(c)
		if name == "ALL" || name == "CAP_ALL" {
			names = append(names, "ALL")
			continue
		}
		if !strings.HasPrefix(name, "CAP_") {
			name = "CAP_" + name
		}
		if _, known := capability.Bit(name); !known {
			return nil, fault.New(fault.Invalid, "invalid %s: unknown capability: %q", field, name)
		}
		if _, here := capability.Number(name); !here {
			return nil, fault.New(fault.Invalid, "invalid %s: capability not supported by your kernel or not available in the current environment: %q", field, name)
		}
		names = append(names, name)
	}
	return names, nil
}

// checkSysctl allows what belongs to a namespace that the container has for itself.
func checkSysctl(name string, s *container.Spec) error {
	key := spec.SysctlKey(name)
	switch {
	case strings.HasPrefix(key, "net."):
		if s.Network.Name() == "host" {
			return fault.New(fault.Invalid, "sysctl '%s' not allowed in host network namespace", name)
		}
		return nil
	case strings.HasPrefix(key, "fs.mqueue."), slices.Contains(ipcSysctls, key):
		if s.Namespaces.IPC == "host" {
			return fault.New(fault.Invalid, "sysctl '%s' not allowed in host IPC namespace", name)
		}
		return nil
	case key == "kernel.domainname":
		if s.Namespaces.UTS == "host" {
			return fault.New(fault.Invalid, "sysctl '%s' not allowed in host UTS namespace", name)
		}
		return nil
	case key == "kernel.hostname":
		return fault.New(fault.Invalid, "sysctl '%s': use --hostname", name)
	}
	return fault.New(fault.Invalid, "sysctl \"%s\" is not in a separate kernel namespace", name)
}

var ipcSysctls = []string{"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced"}

// ExecCapabilities gives a privileged exec everything; else it has what the container has.
func ExecCapabilities(p *specs.Process, privileged bool) {
	if privileged {
		all := spec.AllCapabilities()
		p.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
	}
}
