package access

import (
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"berth/engine/container"
	"berth/network"
	"berth/volume"
)

// Sight is what the door has found out about the things that a request names, so that a policy can decide without looking.
type Sight interface {
	// Container gives the id of a container of the scope, and what is mounted into it; ok is false where there is none of the name.
	Container(ref string) (id string, mounts []container.MountPoint, ok bool)
	// Volume tells whether there is a volume of the name, and whether it is in the scope.
	Volume(name string) (exists, inScope bool)
	// Network gives the driver of a network of the scope, or of one that is always there; ok is false where there is none of the name. id
	// is that of a network of the scope; "" of one that is always there, and where there is no scope.
	Network(ref string) (id, driver string, ok bool)
	// HoldsEngine tells whether a path of the host is, holds, or leads to a socket or a directory of the engine.
	HoldsEngine(path string) bool
	// DefaultRuntime is the runtime that a container gets anyway.
	DefaultRuntime() string
}

// Container decides about a container that is to be made, and gives its specification with the scope's label on it and on its volumes.
func (p *Policy) Container(s container.Spec, w Sight) (container.Spec, error) {
	for _, check := range []func(*container.Spec, Sight) error{p.confinement, p.namespaces, p.network, p.mounts} {
		if err := check(&s, w); err != nil {
			return s, err
		}
	}
	if err := p.Resources(&s.Resources); err != nil {
		return s, err
	}
	var err error
	if s.Labels, err = p.Mark(s.Labels); err != nil {
		return s, err
	}
	s.Mounts = slices.Clone(s.Mounts)
	for i := range s.Mounts {
		if m := &s.Mounts[i]; m.Type == "volume" {
			if m.VolumeLabels, err = p.Mark(m.VolumeLabels); err != nil {
				return s, err
			}
		}
	}
	return s, nil
}

// confinement refuses what makes a container less of one.
func (p *Policy) confinement(s *container.Spec, w Sight) error {
	sec := &s.Security
	switch {
	case sec.Privileged && !p.lifts(LiftPrivileged):
		return p.needs(LiftPrivileged, "privileged containers are refused")
	case len(sec.CapAdd) > 0 && !p.lifts(LiftCapability):
		return p.needs(LiftCapability, "adding capabilities (%s) is refused", strings.Join(sec.CapAdd, ", "))
	case (sec.MaskedPaths != nil || sec.ReadonlyPaths != nil) && !p.lifts(LiftSecurity):
		return p.needs(LiftSecurity, "other masked or read-only system paths than the default ones are refused")
	case s.Runtime != "" && s.Runtime != w.DefaultRuntime() && !p.lifts(LiftRuntime):
		return p.needs(LiftRuntime, "the runtime %q is refused", s.Runtime)
	case !slices.Contains([]string{"", "json-file", "local", "none"}, s.Log.Driver) && !p.lifts(LiftLogging):
		return p.needs(LiftLogging, "the log driver %q is refused", s.Log.Driver)
	case s.Log.Driver == "" && sends(s.Log.Options) && !p.lifts(LiftLogging):
		return p.needs(LiftLogging, "log options for another driver than json-file and local are refused: they would tell the engine's default driver where to send output")
	case !plainTag.MatchString(s.Log.Options["tag"]) && !p.lifts(LiftLogging):
		return p.needs(LiftLogging, "a log tag that computes is refused: of templates there may be names such as {{.Name}}")
	case len(s.Annotations) > 0 && !p.lifts(LiftAnnotations):
		return p.needs(LiftAnnotations, "annotations are refused")
	}
	for _, o := range sec.SecurityOpt {
		if !slices.Contains([]string{"no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"}, o) && !p.lifts(LiftSecurity) {
			what, _, _ := strings.Cut(o, "{") // a whole profile may follow
			return p.needs(LiftSecurity, "the security option %q is refused", what)
		}
	}
	return nil
}

// plainTag is a log tag with nothing but fields in it. A template with loops can keep the engine busy for ever, and fill its memory.
var plainTag = regexp.MustCompile(`^([^{]|\{[^{]|\{\{ ?\.[A-Za-z]+ ?\}\})*\{?$`)

// localLogOptions are what the drivers json-file and local take.
var localLogOptions = []string{"max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag", "mode", "max-buffer-size"}

// sends tells options of log drivers that may say where output goes.
func sends(options map[string]string) bool {
	for k := range options {
		if !slices.Contains(localLogOptions, k) && !strings.HasPrefix(k, "cache-") {
			return true
		}
	}
	return false
}

// namespaces refuses the host's, and those of containers that are not in the scope. Those that are joined are named by their ids from then
// on: a name may be another container's when this one starts.
func (p *Policy) namespaces(s *container.Spec, w Sight) error {
	if strings.Contains(s.Security.UsernsMode, "mapping=") && !p.lifts(LiftHost) {
		return p.needs(LiftHost, "choosing the host's user and group ids is refused: they may be a user's, or another container's")
	}
	for _, n := range []struct {
		what string
		mode *string
	}{
		{"PID", &s.Namespaces.PID}, {"IPC", &s.Namespaces.IPC}, {"UTS", &s.Namespaces.UTS}, {"user", &s.Namespaces.User}, {"cgroup", &s.Namespaces.Cgroup},
		{"user", &s.Security.UsernsMode}, {"network", &s.Network.Mode},
	} {
		ref, joins := strings.CutPrefix(*n.mode, "container:")
		switch {
		case *n.mode == "host" && !p.lifts(LiftHost):
			return p.needs(LiftHost, "the host's %s namespace is refused", n.what)
		case joins:
			id, _, ok := w.Container(ref)
			if !ok {
				return p.deny("the %s namespace of %q is refused: this socket knows no such container", n.what, ref)
			}
			*n.mode = "container:" + id
		}
	}
	return nil
}

// network refuses networks and containers that are not in the scope. A network of the scope is fixed to its id: its name may be another's
// when the container starts.
func (p *Policy) network(s *container.Spec, w Sight) (err error) {
	main := ""
	if !s.Network.IsContainer() {
		if main, err = p.Join(s.Network.Mode, w); err != nil {
			return err
		}
	}
	if s.Network.Links, err = p.links(s.Network.Links, w); err != nil {
		return err
	}
	s.Network.Endpoints = slices.Clone(s.Network.Endpoints)
	for i := range s.Network.Endpoints {
		e := &s.Network.Endpoints[i]
		if e.ID, err = p.Join(e.Network, w); err != nil {
			return err
		}
		if e.Links, err = p.links(e.Links, w); err != nil {
			return err
		}
	}
	if main != "" && !slices.ContainsFunc(s.Network.Endpoints, func(e network.EndpointSpec) bool { return e.ID == main }) {
		s.Network.Endpoints = slices.Insert(s.Network.Endpoints, 0, network.EndpointSpec{Network: s.Network.Mode, ID: main})
	}
	return nil
}

// links gives links with the ids of their containers.
func (p *Policy) links(all []string, w Sight) (out []string, err error) {
	for _, l := range all {
		ref, alias, named := strings.Cut(l, ":")
		if !named {
			alias = ref
		}
		id, _, ok := w.Container(ref)
		if !ok {
			return nil, p.deny("the link %q is refused: this socket knows no such container", l)
		}
		out = append(out, id+":"+alias)
	}
	return out, nil
}

// Join decides about a network that a container is to be on, and gives its id where it is one of the scope.
func (p *Policy) Join(name string, w Sight) (id string, err error) {
	if name == "" || name == "default" || name == "none" {
		return "", nil
	}
	id, driver, ok := w.Network(name)
	switch {
	case (driver == "host" || name == "host") && !p.lifts(LiftHost):
		return "", p.needs(LiftHost, "the host's network is refused")
	case !ok:
		return "", p.deny("network %q is refused: this socket knows no such network", name)
	}
	return id, nil
}

// mounts refuses what shows the host, and volumes of others.
func (p *Policy) mounts(s *container.Spec, w Sight) (err error) {
	if err := p.newVolume(s.VolumeDriver, nil); err != nil { // the image may ask for volumes, too
		return err
	}
	for i := range s.Mounts {
		m := &s.Mounts[i]
		switch m.Type {
		case "bind":
			err = p.bind(m.Source, w)
		case "volume":
			driver := m.Driver
			if driver == "" {
				driver = s.VolumeDriver
			}
			err = p.volume(m.Source, driver, m.DriverOptions, w)
		case "tmpfs", "image":
		default:
			err = p.deny("mounts of the type %q are refused", m.Type)
		}
		if err != nil {
			return err
		}
	}
	s.VolumesFrom = slices.Clone(s.VolumesFrom)
	for i, from := range s.VolumesFrom {
		ref, mode, _ := strings.Cut(from, ":")
		id, mounts, ok := w.Container(ref)
		if !ok {
			return p.deny("the volumes of %q are refused: this socket knows no such container", ref)
		}
		for _, m := range mounts { // what somebody else mounted there does not come along
			switch m.Type {
			case "bind":
				err = p.bind(m.Source, w)
			case "volume":
				err = p.volume(m.Name, "", nil, w)
			}
			if err != nil {
				return err
			}
		}
		if s.VolumesFrom[i] = id; mode != "" {
			s.VolumesFrom[i] += ":" + mode
		}
	}
	return nil
}

// bind decides about a directory of the host. Only whole paths are compared: beneath a directory that containers write to, a symbolic
// link could lead anywhere.
func (p *Policy) bind(source string, w Sight) error {
	switch {
	case !p.lifts(LiftBind) && !slices.Contains(p.Binds, cleanHost(source)):
		return p.needs(LiftBind, "mounting %s of the host is refused", source)
	case w.HoldsEngine(source) && !p.lifts(LiftSocket):
		return p.needs(LiftSocket, "mounting %s is refused: who has the engine's socket or directories has this machine", source)
	}
	return nil
}

// volume decides about a volume that a container is to use, and that is made where there is none.
func (p *Policy) volume(name, driver string, options map[string]string, w Sight) error {
	if name != "" {
		if exists, inScope := w.Volume(name); exists && !inScope {
			return p.deny("volume %q is refused: it is not in this socket's scope", name)
		}
	}
	// Also where it exists: its owner could remove it before the engine looks, and the options would make another.
	return p.newVolume(driver, options)
}

func (p *Policy) newVolume(driver string, options map[string]string) error {
	if driver != "" && driver != "local" && !p.lifts(LiftVolume) {
		return p.needs(LiftVolume, "the volume driver %q is refused", driver)
	}
	if (driver == "" || driver == "local") && mountsHost(options) && !p.lifts(LiftBind) {
		// type=none,o=bind,device=/ is a bind mount under another name; a device or a file server is no better.
		return p.needs(LiftBind, "a volume with the options type, o or device is refused: it mounts what the host can mount; a tmpfs with size, mode, uid and gid is not")
	}
	return nil
}

// tmpfsWords are the words of the option o that concern nothing but a tmpfs itself; with "=" those that have a value.
var tmpfsWords = []string{
	"", "defaults", "ro", "rw", "exec", "noexec", "nosuid", "nodev", "noatime", "nodiratime", "relatime", "strictatime",
	"size=", "mode=", "uid=", "gid=", "nr_inodes=", "nr_blocks=",
}

// mountsHost tells options of local volumes that mount something else than memory. A tmpfs may still do: with the word bind the kernel
// looks at the device and not at the type.
func mountsHost(options map[string]string) bool {
	memory := options["type"] == "tmpfs"
	for k := range options {
		if k != "size" && !(memory && (k == "type" || k == "device" || k == "o")) {
			return true
		}
	}
	for word := range strings.SplitSeq(options["o"], ",") {
		key, _, valued := strings.Cut(word, "=")
		if valued {
			key += "="
		}
		if !slices.Contains(tmpfsWords, key) {
			return true
		}
	}
	return false
}

// VolumeCreate decides about a volume that is to be made, and gives the request with the scope's label.
func (p *Policy) VolumeCreate(r volume.CreateRequest, w Sight) (_ volume.CreateRequest, err error) {
	if err := p.volume(r.Name, r.Driver, r.Options, w); err != nil {
		return r, err
	}
	r.Labels, err = p.Mark(r.Labels)
	return r, err
}

// bridgeOptions are the driver options of a network that concern nothing but that network.
var bridgeOptions = []string{
	"com.docker.network.bridge.enable_icc", "com.docker.network.bridge.enable_ip_masquerade", "com.docker.network.driver.mtu", "com.docker.network.container_iface_prefix",
}

// NetworkCreate decides about a network that is to be made, and gives the request with the scope's label.
func (p *Policy) NetworkCreate(r network.CreateRequest) (_ network.CreateRequest, err error) {
	if !p.lifts(LiftNetwork) {
		if r.Driver != "" && r.Driver != "bridge" && r.Driver != "default" {
			return r, p.needs(LiftNetwork, "the network driver %q is refused", r.Driver)
		}
		for _, k := range slices.Sorted(maps.Keys(r.Options)) {
			if !slices.Contains(bridgeOptions, k) {
				return r, p.needs(LiftNetwork, "the network option %q is refused", k)
			}
		}
		if slices.ContainsFunc(r.IPAM.Pools, func(o network.Pool) bool { return o.Subnet.IsValid() }) {
			// The host's route to these addresses would lead into the network: its name server's, say, or anybody's in the internet.
			return r, p.needs(LiftNetwork, "a network with a subnet of its own choosing is refused")
		}
		if r.ConfigFrom != "" || r.IPAM.Driver != "" && r.IPAM.Driver != "default" {
			return r, p.needs(LiftNetwork, "a network with the configuration or the address manager of another is refused")
		}
	}
	r.Labels, err = p.Mark(r.Labels)
	return r, err
}

// Resources decides about limits, at a creation and when they are changed.
func (p *Policy) Resources(r *container.Resources) error {
	switch {
	case len(r.Devices)+len(r.DeviceCgroupRules)+len(r.DeviceRequests) > 0 && !p.lifts(LiftDevice):
		return p.needs(LiftDevice, "devices of the host are refused")
	case (r.CgroupParent != "" || r.CPURealtimePeriod != 0 || r.CPURealtimeRuntime != 0 || r.OOMScoreAdj < 0) && !p.lifts(LiftCgroup):
		return p.needs(LiftCgroup, "another parent cgroup, real-time budgets and negative OOM scores are refused")
	}
	return nil
}

// Exec decides about a further process in a container.
func (p *Policy) Exec(s *container.ExecSpec) error {
	if s.Privileged && !p.lifts(LiftPrivileged) {
		return p.needs(LiftPrivileged, "privileged processes are refused")
	}
	return nil
}

// needs is a refusal that a lift would take back.
func (p *Policy) needs(l Lift, format string, args ...any) error {
	return p.deny(format+" (the socket's maker can allow it with --allow %s)", append(args, l)...)
}

func cleanHost(s string) string { return path.Clean(s) }

// Hidden is what stands for a value that is not shown.
const Hidden = "(hidden)"

// HideEnvironment gives an environment without its values.
func HideEnvironment(env []string) []string {
	out := make([]string, len(env))
	for i, kv := range env {
		name, _, pair := strings.Cut(kv, "=")
		if out[i] = name; pair {
			out[i] = name + "=" + Hidden
		}
	}
	return out
}
