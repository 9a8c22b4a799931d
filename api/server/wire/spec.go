package wire

import (
	"encoding/json"
	"maps"
	"net/netip"
	"slices"

	"github.com/moby/moby/api/types/blkiodev"
	containertypes "github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"

	"berth/base/fault"
	"berth/engine/container"
)

// CreateRequest is the body of a create request of any API version.
type CreateRequest struct {
	*containertypes.Config
	Cmd              Words // one text or a list of words
	Entrypoint       Words
	MacAddress       string // before 1.52
	HostConfig       HostConfig
	NetworkingConfig networktypes.NetworkingConfig
}

// HostConfig is Docker's, with what older versions had in it.
type HostConfig struct {
	containertypes.HostConfig
	CapAdd          Words
	CapDrop         Words
	KernelMemory    int64 // before 1.42
	KernelMemoryTCP int64 // 1.40 to 1.51
}

// Words is a list that older clients may also send as one text.
type Words []string

// UnmarshalJSON takes a text, a list of texts or null.
func (w *Words) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		var one string
		if err := json.Unmarshal(data, &one); err != nil {
			return err
		}
		*w = Words{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(w))
}

// Defaults are what the engine does where a container's specification says nothing. Inspect shows them, as Docker does.
type Defaults struct {
	LogDriver     string
	LogOptions    map[string]string
	IPCMode       string
	CgroupnsMode  string
	Runtime       string
	ShmSize       int64
	MaskedPaths   []string
	ReadonlyPaths []string
}

// Spec gives what the request asks for, or names the first thing in it that is wrong or not in this build. v is the client's API
// version. warnings are for the answer.
func (r *CreateRequest) Spec(v Version) (s container.Spec, warnings []string, err error) {
	if r.Config == nil {
		if r.Cmd == nil && r.Entrypoint == nil {
			return s, nil, fault.New(fault.Invalid, "config cannot be empty in order to create a container")
		}
		r.Config = &containertypes.Config{}
	}
	if r.Image == "" && len(r.Cmd) == 0 && len(r.Entrypoint) == 0 {
		return s, nil, fault.New(fault.Invalid, "no command specified")
	}
	warnings = r.shim(v)
	if err := r.check(v); err != nil {
		return s, nil, err
	}
	if err := r.refuse(); err != nil {
		return s, nil, err
	}
	for _, move := range []func(Version) (string, error){r.moveMAC, r.moveSysctls} {
		warning, err := move(v)
		if err != nil {
			return s, nil, err
		}
		if warning != "" {
			warnings = append(warnings, warning)
		}
	}
	c, h := r.Config, &r.HostConfig
	if s.Mounts, err = mounts(h, v); err != nil {
		return s, nil, err
	}
	if s.Volumes, err = volumes(c.Volumes); err != nil {
		return s, nil, err
	}
	if err := checkVolumesFrom(h.VolumesFrom); err != nil {
		return s, nil, err
	}
	s.VolumesFrom, s.VolumeDriver = h.VolumesFrom, h.VolumeDriver
	var more []string
	if s.Network, more, err = r.networks(); err != nil {
		return s, nil, err
	}
	warnings = append(warnings, more...)
	if err := networkShare(h.Annotations, &s.Network); err != nil {
		return s, nil, err
	}
	s.Image, s.Labels, s.Annotations = c.Image, c.Labels, h.Annotations
	s.Process = container.Process{
		Entrypoint: r.Entrypoint, Cmd: r.Cmd, ArgsEscaped: c.ArgsEscaped, Env: c.Env, WorkingDir: c.WorkingDir,
		User: c.User, GroupAdd: h.GroupAdd, TTY: c.Tty, Umask: h.Umask,
	}
	s.Hostname, s.Domainname = c.Hostname, c.Domainname
	s.Namespaces = container.Namespaces{PID: string(h.PidMode), IPC: string(h.IpcMode), UTS: string(h.UTSMode), Cgroup: string(h.CgroupnsMode)}
	s.Resources = resources(&h.Resources)
	s.Resources.OOMScoreAdj, s.Resources.ShmSize, s.Resources.KernelMemoryTCP = h.OomScoreAdj, h.ShmSize, h.KernelMemoryTCP
	s.StorageOpt = h.StorageOpt
	s.Security = container.Security{
		Privileged: h.Privileged, CapAdd: h.CapAdd, CapDrop: h.CapDrop, SecurityOpt: h.SecurityOpt, ReadonlyRootfs: h.ReadonlyRootfs,
		Sysctls: h.Sysctls, MaskedPaths: h.MaskedPaths, ReadonlyPaths: h.ReadonlyPaths, UsernsMode: string(h.UsernsMode),
	}
	s.Log = container.Log{Driver: h.LogConfig.Type, Options: h.LogConfig.Config}
	s.Restart = container.Restart{Name: string(h.RestartPolicy.Name), MaxRetries: h.RestartPolicy.MaximumRetryCount}
	s.AutoRemove, s.Init = h.AutoRemove, h.Init
	s.Runtime = h.Runtime
	s.StopSignal, s.StopTimeout = c.StopSignal, c.StopTimeout
	s.OpenStdin, s.StdinOnce = c.OpenStdin, c.StdinOnce
	s.AttachStdin, s.AttachStdout, s.AttachStderr = c.AttachStdin, c.AttachStdout, c.AttachStderr
	s.ConsoleSize, s.ContainerIDFile = h.ConsoleSize, h.ContainerIDFile
	s.OnBuild, s.Shell, s.Healthcheck = c.OnBuild, c.Shell, healthcheck(c.Healthcheck)
	for p := range c.ExposedPorts {
		s.ExposedPorts = append(s.ExposedPorts, p.String())
	}
	slices.Sort(s.ExposedPorts)
	return s, warnings, nil
}

// Config is the portable part of what inspect shows.
func Config(i *container.Info) *containertypes.Config {
	s := i.Spec
	c := &containertypes.Config{
		Hostname: s.Hostname, Domainname: s.Domainname, User: s.Process.User,
		AttachStdin: s.AttachStdin, AttachStdout: s.AttachStdout, AttachStderr: s.AttachStderr,
		Tty: s.Process.TTY, OpenStdin: s.OpenStdin, StdinOnce: s.StdinOnce,
		Env: s.Process.Env, Cmd: s.Process.Cmd, ArgsEscaped: s.Process.ArgsEscaped, Entrypoint: s.Process.Entrypoint,
		Image: s.Image, Volumes: s.Volumes, WorkingDir: s.Process.WorkingDir, NetworkDisabled: s.Network.Disabled,
		OnBuild: s.OnBuild, Labels: s.Labels, StopSignal: s.StopSignal, StopTimeout: s.StopTimeout, Shell: s.Shell,
	}
	if c.Labels == nil {
		c.Labels = map[string]string{}
	}
	if len(c.Entrypoint) == 0 {
		c.Entrypoint = nil
	}
	if h := s.Healthcheck; h != nil {
		c.Healthcheck = &containertypes.HealthConfig{
			Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries,
		}
	}
	for _, text := range s.ExposedPorts {
		if p, err := networktypes.ParsePort(text); err == nil {
			if c.ExposedPorts == nil {
				c.ExposedPorts = networktypes.PortSet{}
			}
			c.ExposedPorts[p] = struct{}{}
		}
	}
	return c
}

// HostSettings is the part of what inspect shows that depends on the host, with the engine's defaults where nothing was asked.
func HostSettings(i *container.Info, d *Defaults) *containertypes.HostConfig {
	s := i.Spec
	h := &containertypes.HostConfig{
		ContainerIDFile: s.ContainerIDFile,
		LogConfig:       containertypes.LogConfig{Type: or(s.Log.Driver, d.LogDriver), Config: s.Log.Options},
		NetworkMode:     containertypes.NetworkMode(s.Network.Mode),
		RestartPolicy: containertypes.RestartPolicy{
			Name: containertypes.RestartPolicyMode(or(s.Restart.Name, "no")), MaximumRetryCount: s.Restart.MaxRetries,
		},
		AutoRemove: s.AutoRemove, ConsoleSize: s.ConsoleSize, Annotations: s.Annotations,
		CapAdd: s.Security.CapAdd, CapDrop: s.Security.CapDrop, CgroupnsMode: containertypes.CgroupnsMode(or(s.Namespaces.Cgroup, d.CgroupnsMode)),
		DNS: parseAddresses(s.Network.DNS), DNSOptions: s.Network.DNSOptions, DNSSearch: s.Network.DNSSearch, ExtraHosts: s.Network.ExtraHosts,
		GroupAdd: s.Process.GroupAdd, IpcMode: containertypes.IpcMode(or(s.Namespaces.IPC, d.IPCMode)), OomScoreAdj: s.Resources.OOMScoreAdj,
		PidMode: containertypes.PidMode(s.Namespaces.PID), Privileged: s.Security.Privileged, ReadonlyRootfs: s.Security.ReadonlyRootfs,
		SecurityOpt: s.Security.SecurityOpt, UTSMode: containertypes.UTSMode(s.Namespaces.UTS), UsernsMode: containertypes.UsernsMode(s.Security.UsernsMode),
		ShmSize: s.Resources.ShmSize, Sysctls: s.Security.Sysctls, Runtime: or(s.Runtime, d.Runtime),
		Resources: apiResources(&s.Resources), MaskedPaths: s.Security.MaskedPaths, ReadonlyPaths: s.Security.ReadonlyPaths, Init: s.Init,
		StorageOpt: s.StorageOpt, Umask: s.Process.Umask,
	}
	h.Binds, h.Tmpfs, h.Mounts = apiMounts(s.Mounts)
	h.VolumesFrom, h.VolumeDriver = s.VolumesFrom, s.VolumeDriver
	h.PortBindings, h.PublishAllPorts, h.Links = portBindings(s.Network.Ports), s.Network.PublishAll, shownLinks(s.Network.Links, i.Name)
	if len(h.LogConfig.Config) == 0 && s.Log.Driver == "" {
		h.LogConfig.Config = d.LogOptions
	}
	if h.LogConfig.Config == nil {
		h.LogConfig.Config = map[string]string{}
	}
	if h.ShmSize == 0 {
		h.ShmSize = d.ShmSize
	}
	if h.OomKillDisable == nil {
		h.OomKillDisable = new(bool)
	}
	if !s.Security.Privileged {
		if h.MaskedPaths == nil {
			h.MaskedPaths = d.MaskedPaths
		}
		if h.ReadonlyPaths == nil {
			h.ReadonlyPaths = d.ReadonlyPaths
		}
	}
	return h
}

func healthcheck(h *containertypes.HealthConfig) *container.Healthcheck {
	if h == nil {
		return nil
	}
	return &container.Healthcheck{
		Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries,
	}
}

func resources(r *containertypes.Resources) container.Resources {
	out := container.Resources{
		Memory: r.Memory, MemoryReservation: r.MemoryReservation, MemorySwap: r.MemorySwap, MemorySwappiness: r.MemorySwappiness,
		NanoCPUs: r.NanoCPUs, CPUShares: r.CPUShares, CPUPeriod: r.CPUPeriod, CPUQuota: r.CPUQuota,
		CPURealtimePeriod: r.CPURealtimePeriod, CPURealtimeRuntime: r.CPURealtimeRuntime, CpusetCpus: r.CpusetCpus, CpusetMems: r.CpusetMems,
		PidsLimit: r.PidsLimit, BlkioWeight: r.BlkioWeight,
		BlkioDeviceReadBps: throttles(r.BlkioDeviceReadBps), BlkioDeviceWriteBps: throttles(r.BlkioDeviceWriteBps),
		BlkioDeviceReadIOps: throttles(r.BlkioDeviceReadIOps), BlkioDeviceWriteIOps: throttles(r.BlkioDeviceWriteIOps),
		OOMKillDisable: r.OomKillDisable, DeviceCgroupRules: r.DeviceCgroupRules, CgroupParent: r.CgroupParent,
	}
	if r.BlkioWeightDevice != nil {
		out.BlkioWeightDevice = []container.WeightDevice{}
	}
	for _, w := range r.BlkioWeightDevice {
		if w != nil {
			out.BlkioWeightDevice = append(out.BlkioWeightDevice, container.WeightDevice{Path: w.Path, Weight: w.Weight})
		}
	}
	for _, u := range r.Ulimits {
		if u != nil {
			out.Ulimits = append(out.Ulimits, container.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
		}
	}
	for _, d := range r.Devices {
		out.Devices = append(out.Devices, container.Device{
			Source: d.PathOnHost, Target: or(d.PathInContainer, d.PathOnHost), Permissions: or(d.CgroupPermissions, "rwm"),
		})
	}
	for _, d := range r.DeviceRequests {
		out.DeviceRequests = append(out.DeviceRequests, container.DeviceRequest(d))
	}
	return out
}

func apiResources(r *container.Resources) containertypes.Resources {
	out := containertypes.Resources{
		Memory: r.Memory, MemoryReservation: r.MemoryReservation, MemorySwap: r.MemorySwap, MemorySwappiness: r.MemorySwappiness,
		NanoCPUs: r.NanoCPUs, CPUShares: r.CPUShares, CPUPeriod: r.CPUPeriod, CPUQuota: r.CPUQuota,
		CPURealtimePeriod: r.CPURealtimePeriod, CPURealtimeRuntime: r.CPURealtimeRuntime, CpusetCpus: r.CpusetCpus, CpusetMems: r.CpusetMems,
		PidsLimit: r.PidsLimit, BlkioWeight: r.BlkioWeight,
		BlkioDeviceReadBps: apiThrottles(r.BlkioDeviceReadBps), BlkioDeviceWriteBps: apiThrottles(r.BlkioDeviceWriteBps),
		BlkioDeviceReadIOps: apiThrottles(r.BlkioDeviceReadIOps), BlkioDeviceWriteIOps: apiThrottles(r.BlkioDeviceWriteIOps),
		OomKillDisable: r.OOMKillDisable, DeviceCgroupRules: r.DeviceCgroupRules, CgroupParent: r.CgroupParent,
	}
	for _, w := range r.BlkioWeightDevice {
		out.BlkioWeightDevice = append(out.BlkioWeightDevice, &blkiodev.WeightDevice{Path: w.Path, Weight: w.Weight})
	}
	for _, u := range r.Ulimits {
		out.Ulimits = append(out.Ulimits, &containertypes.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	for _, d := range r.Devices {
		out.Devices = append(out.Devices, containertypes.DeviceMapping{PathOnHost: d.Source, PathInContainer: d.Target, CgroupPermissions: d.Permissions})
	}
	for _, d := range r.DeviceRequests {
		out.DeviceRequests = append(out.DeviceRequests, containertypes.DeviceRequest(d))
	}
	return out
}

func throttles(in []*blkiodev.ThrottleDevice) (out []container.ThrottleDevice) {
	if in != nil {
		out = []container.ThrottleDevice{}
	}
	for _, t := range in {
		if t != nil {
			out = append(out, container.ThrottleDevice{Path: t.Path, Rate: t.Rate})
		}
	}
	return out
}

func apiThrottles(in []container.ThrottleDevice) (out []*blkiodev.ThrottleDevice) {
	for _, t := range in {
		out = append(out, &blkiodev.ThrottleDevice{Path: t.Path, Rate: t.Rate})
	}
	return out
}

func addresses(in []netip.Addr) (out []string) {
	if in != nil { // an empty list stays one
		out = []string{}
	}
	for _, a := range in {
		if a.IsValid() {
			out = append(out, a.String())
		}
	}
	return out
}

func parseAddresses(in []string) (out []netip.Addr) {
	if in != nil { // an empty list stays one: Docker's command line sends such, and has them back in inspect
		out = []netip.Addr{}
	}
	for _, s := range in {
		if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// or gives a, or b when a is empty.
func or(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
