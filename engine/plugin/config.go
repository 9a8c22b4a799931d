package plugin

import (
	"encoding/json"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
)

// MediaType is that of a plugin's configuration in a registry (moby: plugin/registry).
const MediaType = "application/vnd.docker.plugin.v1+json"

// Config is a plugin's configuration, as docs.docker.com/engine/extend/config describes it. Names are matched whatever their case.
type Config struct {
	Description     string
	Documentation   string
	Entrypoint      []string
	WorkDir         string
	User            struct{ UID, GID uint32 }
	Interface       Interface
	Network         struct{ Type string } // host, bridge, none
	Mounts          []Mount
	Env             []Env
	Args            Args
	Linux           Linux
	PropagatedMount string // directory whose mounts the host sees
	IpcHost         bool
	PidHost         bool
	Rootfs          struct {
		Type    string          `json:"type"`
		DiffIDs []digest.Digest `json:"diff_ids"`
	} `json:"rootfs"`
}

// Interface says what a plugin serves, and where.
type Interface struct {
	Types          []string // "docker.volumedriver/1.0"
	Socket         string   // file below /run/docker/plugins
	ProtocolScheme string
}

// Mount is a directory of the host that the plugin sees.
type Mount struct {
	Name, Description   string
	Source, Destination string
	Type                string
	Options             []string
	Settable            []string
}

// Env is a variable of the plugin's environment.
type Env struct {
	Name, Description string
	Value             *string
	Settable          []string
}

// Args are arguments behind the entrypoint.
type Args struct {
	Name, Description string
	Value             []string
	Settable          []string
}

// Linux is what the plugin wants of the kernel.
type Linux struct {
	Capabilities    []string
	AllowAllDevices bool
	Devices         []Device
}

// Device is one of the host's devices.
type Device struct {
	Name, Description string
	Path              string
	Settable          []string
}

// maxConfig bounds a configuration's bytes.
const maxConfig = 1 << 20

var socketName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// ParseConfig reads a configuration that nobody trusts.
func ParseConfig(raw []byte) (*Config, error) {
	if len(raw) > maxConfig {
		return nil, fault.New(fault.Invalid, "the plugin's configuration has %d bytes, more than the %d allowed", len(raw), maxConfig)
	}
	var c Config
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "reading the plugin's configuration")
	}
	return &c, c.check()
}

func (c *Config) check() error {
	bad := func(format string, args ...any) error {
		return fault.New(fault.Invalid, "the plugin's configuration: "+format, args...)
	}
	switch {
	case len(c.Entrypoint) == 0:
		return bad("entrypoint is missing")
	case len(c.Interface.Types) > 0 && !socketName.MatchString(c.Interface.Socket):
		return bad("interface.socket %q is no file name", c.Interface.Socket)
	case c.Interface.ProtocolScheme != "" && c.Interface.ProtocolScheme != "moby.plugins.http/v1":
		return bad("interface.protocolScheme %q is not spoken here", c.Interface.ProtocolScheme)
	case !slices.Contains([]string{"", "none", "host", "bridge"}, c.Network.Type):
		return bad("network.type %q is not host, bridge or none", c.Network.Type)
	case c.WorkDir != "" && !path.IsAbs(c.WorkDir):
		return bad("workdir %q is not absolute", c.WorkDir)
	case c.PropagatedMount != "" && (!path.IsAbs(c.PropagatedMount) || path.Clean(c.PropagatedMount) == "/"):
		return bad("propagatedMount %q is not an absolute path below /", c.PropagatedMount)
	case len(c.Rootfs.DiffIDs) > maxLayers:
		return bad("rootfs has %d layers, more than %d", len(c.Rootfs.DiffIDs), maxLayers)
	}
	for _, m := range c.Mounts {
		if !path.IsAbs(m.Destination) {
			return bad("the destination of mount %q is not absolute", m.Name)
		}
		if m.Type != "" && m.Type != "bind" && m.Type != "tmpfs" {
			return bad("mount %q: type %q is not bind or tmpfs", m.Name, m.Type)
		}
	}
	for _, e := range c.Env {
		if e.Name == "" || strings.ContainsAny(e.Name, "=\x00") {
			return bad("%q cannot be the name of a variable", e.Name)
		}
	}
	return nil
}

// maxLayers bounds the layers of a plugin; those that exist have one.
const maxLayers = 32

// Serves lists what a plugin serves in the words of the plugins' protocol: "VolumeDriver".
func (c *Config) Serves() (list []string) {
	for _, t := range c.Interface.Types {
		name, _, _ := strings.Cut(t, "/")
		name = strings.TrimPrefix(name, "docker.")
		if s, ok := map[string]string{"volumedriver": "VolumeDriver", "networkdriver": "NetworkDriver", "ipamdriver": "IpamDriver", "authz": "authz", "logdriver": "LogDriver", "metricscollector": "MetricsCollector"}[name]; ok {
			list = append(list, s)
		}
	}
	return list
}

// Has reports whether the plugin serves a capability as the filter of lists has it: "volumedriver", "docker.volumedriver" or
// "docker.volumedriver/1.0".
func (c *Config) Has(capability string) bool {
	return slices.ContainsFunc(c.Interface.Types, func(t string) bool {
		unversioned, _, _ := strings.Cut(t, "/")
		_, short, _ := strings.Cut(unversioned, ".")
		return capability == t || capability == unversioned || capability == short
	})
}

// Settings are what a plugin is run with: its configuration's values, changed by Set.
type Settings struct {
	Mounts  []Mount  `json:"mounts"`
	Env     []string `json:"env"`
	Args    []string `json:"args"`
	Devices []Device `json:"devices"`
}

// defaults gives the settings of a plugin where nothing was set.
func (c *Config) defaults() Settings {
	s := Settings{Mounts: slices.Clone(c.Mounts), Env: []string{}, Args: slices.Clone(c.Args.Value), Devices: slices.Clone(c.Linux.Devices)}
	for _, e := range c.Env {
		if e.Value != nil {
			s.Env = append(s.Env, e.Name+"="+*e.Value)
		}
	}
	if s.Mounts == nil {
		s.Mounts = []Mount{}
	}
	if s.Args == nil {
		s.Args = []string{}
	}
	if s.Devices == nil {
		s.Devices = []Device{}
	}
	return s
}

// Set gives the settings with one change, "KEY=VALUE": KEY is a variable's name, "args", or the name of a mount or device, whose
// field follows a dot ("state.source", "card.path"). Only what the configuration calls settable can be set.
func (s Settings) Set(c *Config, change string) (Settings, error) {
	key, value, ok := strings.Cut(change, "=")
	if !ok || key == "" {
		return s, fault.New(fault.Invalid, "%q: write KEY=VALUE", change)
	}
	name, field, dotted := strings.Cut(key, ".")
	refused := fault.New(fault.Invalid, "%q is not settable", key)
	may := func(settable []string, standard string) bool {
		if !dotted {
			field = standard
		}
		return slices.Contains(settable, field)
	}
	for _, e := range c.Env {
		if e.Name != name {
			continue
		}
		if !may(e.Settable, "value") || field != "value" {
			return s, refused
		}
		s.Env = slices.DeleteFunc(slices.Clone(s.Env), func(x string) bool { return strings.HasPrefix(x, name+"=") })
		s.Env = append(s.Env, name+"="+value)
		return s, nil
	}
	for i, m := range s.Mounts {
		if m.Name != name {
			continue
		}
		if !may(m.Settable, "source") {
			return s, refused
		}
		s.Mounts = slices.Clone(s.Mounts)
		switch field {
		case "source":
			m.Source = value
		case "options":
			m.Options = strings.Split(value, ",")
		default:
			return s, refused
		}
		s.Mounts[i] = m
		return s, nil
	}
	for i, d := range s.Devices {
		if d.Name != name {
			continue
		}
		if !may(d.Settable, "path") || field != "path" {
			return s, refused
		}
		s.Devices = slices.Clone(s.Devices)
		s.Devices[i].Path = value
		return s, nil
	}
	if c.Args.Name == name {
		if !may(c.Args.Settable, "value") || field != "value" {
			return s, refused
		}
		s.Args = strings.Fields(value)
		return s, nil
	}
	return s, fault.New(fault.NotFound, "setting %q not found in the plugin configuration", key)
}

// Privilege is something that a plugin wants and that must be granted.
type Privilege struct {
	Name, Description string
	Value             []string
}

// Privileges lists what a plugin wants beyond what a container has, as Docker lists it.
func (c *Config) Privileges() []Privilege {
	list := []Privilege{}
	add := func(name, description string, value ...string) {
		list = append(list, Privilege{name, description, value})
	}
	if t := c.Network.Type; t != "" && t != "none" && t != "bridge" {
		add("network", "permissions to access a network", t)
	}
	if c.IpcHost {
		add("host ipc namespace", "allow access to host ipc namespace", "true")
	}
	if c.PidHost {
		add("host pid namespace", "allow access to host pid namespace", "true")
	}
	for _, m := range c.Mounts {
		if m.Source != "" {
			add("mount", "host path to mount", m.Source)
		}
	}
	for _, d := range c.Linux.Devices {
		if d.Path != "" {
			add("device", "host device to access", d.Path)
		}
	}
	if c.Linux.AllowAllDevices {
		add("allow-all-devices", "allow 'rwm' access to all devices", "true")
	}
	if len(c.Linux.Capabilities) > 0 {
		add("capabilities", "list of additional capabilities required", c.Linux.Capabilities...)
	}
	return list
}

// granted refuses when what was granted is not exactly what is wanted.
func (c *Config) granted(given []Privilege) error {
	text := func(list []Privilege) []string {
		var all []string
		for _, p := range list {
			values := slices.Clone(p.Value)
			slices.Sort(values)
			all = append(all, p.Name+"\x00"+strings.Join(values, "\x00"))
		}
		slices.Sort(all)
		return all
	}
	if !slices.Equal(text(c.Privileges()), text(given)) {
		return fault.New(fault.Invalid, "incorrect privileges")
	}
	return nil
}
