package wire

import (
	"runtime"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"

	"berth/engine"
	"berth/network/ipam"
)

// Facts is what `info` and `version` tell, in Berth's words.
type Facts struct {
	Engine engine.Facts
	Images int

	ID           string // of this engine, stable
	Version      string
	Commit       string
	BuildTime    string
	Experimental bool
	Debug        bool
	Labels       []string
	Security     []string // "name=seccomp,profile=builtin"
	Warnings     []string

	Hostname        string
	OperatingSystem string
	OSVersion       string
	KernelVersion   string
	NCPU            int
	MemTotal        int64 // bytes
	IPv4Forwarding  bool
	BackingFS       string
	OpenFiles       int
	Goroutines      int
	Listeners       int             // to events
	Authorization   []string        // names of the plugins that decide about requests
	SystemTime      string          // RFC 3339
	Controllers     map[string]bool // cgroup controllers that containers can be limited by
	SwapLimit       bool
	BridgeNetfilter [2]bool // whether frames between a bridge's ports pass the IPv4 and the IPv6 firewall
	Network         NetworkFacts
	Registries      Registries
	VolumeDrivers   []string
	OOMKillDisable  bool
}

// NetworkFacts is what info tells of the network room.
type NetworkFacts struct {
	Drivers  []string
	Pools    []ipam.PoolSpec // that subnets of new networks come from
	Firewall string          // "nftables"; "" where rules are switched off
}

// runtimesOf gives the runtimes that containers can ask for, with what they say of themselves.
func runtimesOf(e *engine.Facts) map[string]system.RuntimeWithStatus {
	out := map[string]system.RuntimeWithStatus{"berth": {Runtime: system.Runtime{Path: "berth-oci"}}}
	for _, r := range e.Runtimes {
		one := system.RuntimeWithStatus{Runtime: system.Runtime{Path: r.Path, Args: r.Args}}
		if r.Features != "" {
			one.Status = map[string]string{"org.opencontainers.runtime-spec.features": r.Features}
		}
		out[r.Name] = one
	}
	return out
}

// Info is the answer to GET /info at API version v.
func Info(f *Facts, v Version) any {
	e := &f.Engine
	i := &system.Info{
		ID: f.ID, Containers: e.Containers, ContainersRunning: e.Running, ContainersPaused: e.Paused, ContainersStopped: e.Stopped, Images: f.Images,
		Driver: e.Driver, DriverStatus: [][2]string{{"Backing Filesystem", f.BackingFS}, {"Supports d_type", "true"}, {"Native Overlay Diff", "true"}},
		Plugins:     system.PluginsInfo{Volume: list(f.VolumeDrivers), Network: networkDrivers(f), Authorization: f.Authorization, Log: []string{"fluentd", "gelf", "journald", "json-file", "local", "none", "syslog"}},
		MemoryLimit: f.Controllers["memory"], SwapLimit: f.SwapLimit, CPUCfsPeriod: f.Controllers["cpu"], CPUCfsQuota: f.Controllers["cpu"],
		CPUShares: f.Controllers["cpu"], CPUSet: f.Controllers["cpuset"], PidsLimit: f.Controllers["pids"], IPv4Forwarding: f.IPv4Forwarding,
		Debug: f.Debug, NFd: f.OpenFiles, OomKillDisable: f.OOMKillDisable, NGoroutines: f.Goroutines, NEventsListener: f.Listeners, SystemTime: f.SystemTime,
		LoggingDriver: e.LogDriver, CgroupDriver: e.CgroupDriver, CgroupVersion: e.CgroupVersion, KernelVersion: f.KernelVersion,
		OperatingSystem: f.OperatingSystem, OSVersion: f.OSVersion, OSType: "linux", Architecture: machine(),
		IndexServerAddress: "https://index.docker.io/v1/", RegistryConfig: f.Registries.config(), NCPU: f.NCPU, MemTotal: f.MemTotal,
		DockerRootDir: e.DataRoot, Name: f.Hostname, Labels: list(f.Labels), ExperimentalBuild: f.Experimental, ServerVersion: f.Version,
		Runtimes:       runtimesOf(e),
		DefaultRuntime: e.DefaultRuntime, Swarm: swarm.Info{LocalNodeState: swarm.LocalNodeStateInactive},
		LiveRestoreEnabled: true, InitBinary: e.InitBinary, SecurityOptions: list(f.Security), CDISpecDirs: list(e.CDIDirs), Warnings: list(f.Warnings),
	}
	for _, name := range e.CDIDevices {
		i.DiscoveredDevices = append(i.DiscoveredDevices, system.DeviceInfo{Source: "cdi", ID: name})
	}
	for _, p := range e.Problems {
		i.Warnings = append(i.Warnings, "CDI: "+p.Error())
	}
	if v < 50 {
		i.DiscoveredDevices = nil
	}
	i.HTTPProxy, i.HTTPSProxy, i.NoProxy = Masked(f.Registries.HTTPProxy), Masked(f.Registries.HTTPSProxy), f.Registries.NoProxy
	for _, p := range f.Network.Pools {
		i.DefaultAddressPools = append(i.DefaultAddressPools, system.NetworkAddressPool{Base: p.Base, Size: p.Size})
	}
	if f.Network.Firewall != "" && v >= 49 {
		i.FirewallBackend = &system.FirewallInfo{Driver: f.Network.Firewall}
	}
	if v >= 50 {
		return i
	}
	old := &legacyInfo{Info: i}
	if v < 48 {
		old.BridgeNfIptables, old.BridgeNfIp6tables = f.BridgeNetfilter[0], f.BridgeNetfilter[1]
	}
	if v < 49 {
		old.ContainerdCommit, old.RuncCommit, old.InitCommit = &legacyCommit{}, &legacyCommit{}, &legacyCommit{}
		old.RegistryConfig = &legacyRegistry{ServiceConfig: i.RegistryConfig}
	}
	return old
}

// legacyInfo has what 1.50 and 1.49 dropped.
type legacyInfo struct {
	*system.Info
	BridgeNfIptables  bool
	BridgeNfIp6tables bool
	ContainerdCommit  *legacyCommit   `json:",omitempty"`
	RuncCommit        *legacyCommit   `json:",omitempty"`
	InitCommit        *legacyCommit   `json:",omitempty"`
	RegistryConfig    *legacyRegistry `json:",omitempty"`
}

type legacyCommit struct{ ID, Expected string }

type legacyRegistry struct {
	*registry.ServiceConfig
	AllowNondistributableArtifactsCIDRs     []string
	AllowNondistributableArtifactsHostnames []string
}

// VersionOf is the answer to GET /version.
func VersionOf(f *Facts) *system.VersionResponse {
	r := &system.VersionResponse{
		Platform: system.PlatformInfo{Name: "Berth Engine - " + channel(f.Version)}, Version: f.Version, APIVersion: Newest.String(), MinAPIVersion: Oldest.String(),
		Os: "linux", Arch: runtime.GOARCH, GitCommit: f.Commit, GoVersion: runtime.Version(), KernelVersion: f.KernelVersion,
		Experimental: f.Experimental, BuildTime: f.BuildTime,
	}
	r.Components = []system.ComponentVersion{{
		Name: "Engine", Version: f.Version, Details: map[string]string{
			"ApiVersion": r.APIVersion, "MinAPIVersion": r.MinAPIVersion, "Os": r.Os, "Arch": r.Arch, "GitCommit": r.GitCommit,
			"GoVersion": r.GoVersion, "KernelVersion": r.KernelVersion, "BuildTime": r.BuildTime, "Experimental": strconv.FormatBool(r.Experimental),
		},
	}}
	return r
}

// channel names where a build comes from, as Docker's platform does with "Community". Versions of the channel edge say so, see install/version.
func channel(version string) string {
	if strings.Contains(version, "-edge") || version == "dev" {
		return "Edge"
	}
	return "Stable"
}

// networkDrivers are those of the network room; without one there are the two that need none.
func networkDrivers(f *Facts) []string {
	if len(f.Network.Drivers) == 0 {
		return []string{"host", "null"}
	}
	return f.Network.Drivers
}

// machine is the architecture as uname -m says it.
func machine() string {
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	}
	return runtime.GOARCH
}
