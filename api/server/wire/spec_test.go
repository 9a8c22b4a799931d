package wire

import (
	"encoding/json"
	"flag"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	containertypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"berth/base/fault"
	"berth/engine/container"
)

var update = flag.Bool("update", false, "write golden files anew")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", path, diff)
	}
}

func pretty(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}

// Each testdata/create/*.json is the body of a create request as a real client sends it. Beside it stand the specification that
// comes of it (or the refusal), and what inspect makes of that again.
func TestCreateGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/create/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal("no requests", err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, ".spec.json") {
			continue
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			body, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			out := struct {
				Unknown    []string                             `json:",omitempty"`
				Warnings   []string                             `json:",omitempty"`
				Error      string                               `json:",omitempty"`
				Kind       string                               `json:",omitempty"`
				Spec       *container.Spec                      `json:",omitempty"`
				Config     *containertypes.Config               `json:",omitempty"`
				HostConfig *containertypes.HostConfig           `json:",omitempty"`
				Networks   map[string]*network.EndpointSettings `json:",omitempty"`
			}{}
			version := Newest
			if v, _, ok := strings.Cut(filepath.Base(file), "-"); ok && strings.HasPrefix(v, "1.") {
				version = ParseVersion(v)
			}
			var r CreateRequest
			var spec container.Spec
			if out.Unknown, err = Decode(body, &r); err == nil {
				spec, out.Warnings, err = r.Spec(version)
			}
			if err != nil {
				out.Error, out.Kind = err.Error(), fault.KindOf(err).String()
			} else {
				info := &container.Info{Spec: &spec}
				out.Spec, out.Config, out.HostConfig = &spec, Config(info), HostSettings(info, testDefaults())
				out.Networks = networkSettings(info, nil, version).Networks
			}
			golden(t, strings.TrimSuffix(strings.TrimPrefix(file, "testdata/"), ".json")+".spec.json", pretty(t, out))
		})
	}
}

func testDefaults() *Defaults {
	return &Defaults{
		LogDriver: "json-file", LogOptions: map[string]string{"max-size": "10m"}, IPCMode: "private", CgroupnsMode: "private", Runtime: "berth",
		ShmSize: 64 << 20, MaskedPaths: []string{"/proc/kcore"}, ReadonlyPaths: []string{"/proc/sys"},
	}
}

// plain is a request that is honoured as it is; each field's sample is put on top of it.
func plain() *CreateRequest {
	r := &CreateRequest{Config: &containertypes.Config{Image: "busybox"}}
	r.HostConfig.NetworkMode = "mine"
	return r
}

func ptr[T any](v T) *T { return &v }

// samples has, for every field of Docker's create request, a value that is no default and makes sense. Where one value cannot show
// it (a field inside a list), the sample is a whole of which only that field is no default.
var samples = map[string]func(r *CreateRequest){
	"Config.Hostname":     func(r *CreateRequest) { r.Config.Hostname = "h" },
	"Config.Domainname":   func(r *CreateRequest) { r.Config.Domainname = "d" },
	"Config.User":         func(r *CreateRequest) { r.Config.User = "u" },
	"Config.AttachStdin":  func(r *CreateRequest) { r.Config.AttachStdin = true },
	"Config.AttachStdout": func(r *CreateRequest) { r.Config.AttachStdout = true },
	"Config.AttachStderr": func(r *CreateRequest) { r.Config.AttachStderr = true },
	"Config.ExposedPorts": func(r *CreateRequest) { r.Config.ExposedPorts = network.PortSet{network.MustParsePort("80/udp"): {}} },
	"Config.Tty":          func(r *CreateRequest) { r.Config.Tty = true },
	"Config.OpenStdin":    func(r *CreateRequest) { r.Config.OpenStdin = true },
	"Config.StdinOnce":    func(r *CreateRequest) { r.Config.StdinOnce = true },
	"Config.Env":          func(r *CreateRequest) { r.Config.Env = []string{"A=b"} },
	"Config.Cmd":          func(r *CreateRequest) { r.Cmd = []string{"c"} },
	"Config.Healthcheck": func(r *CreateRequest) {
		r.Config.Healthcheck = &containertypes.HealthConfig{Test: []string{"CMD", "x"}}
	},
	"Config.ArgsEscaped":     func(r *CreateRequest) { r.Config.ArgsEscaped = true },
	"Config.Image":           func(r *CreateRequest) { r.Config.Image = "other" },
	"Config.Volumes":         func(r *CreateRequest) { r.Config.Volumes = map[string]struct{}{"/v": {}} },
	"Config.WorkingDir":      func(r *CreateRequest) { r.Config.WorkingDir = "/w" },
	"Config.Entrypoint":      func(r *CreateRequest) { r.Entrypoint = []string{"e"} },
	"Config.NetworkDisabled": func(r *CreateRequest) { r.Config.NetworkDisabled = true },
	"Config.OnBuild":         func(r *CreateRequest) { r.Config.OnBuild = []string{"RUN x"} },
	"Config.Labels":          func(r *CreateRequest) { r.Config.Labels = map[string]string{"a": "b"} },
	"Config.StopSignal":      func(r *CreateRequest) { r.Config.StopSignal = "SIGINT" },
	"Config.StopTimeout":     func(r *CreateRequest) { r.Config.StopTimeout = ptr(3) },
	"Config.Shell":           func(r *CreateRequest) { r.Config.Shell = []string{"/bin/x"} },

	"HealthConfig.Test":          func(r *CreateRequest) { r.Config.Healthcheck = &containertypes.HealthConfig{Test: []string{"NONE"}} },
	"HealthConfig.Interval":      func(r *CreateRequest) { r.Config.Healthcheck = &containertypes.HealthConfig{Interval: 1e9} },
	"HealthConfig.Timeout":       func(r *CreateRequest) { r.Config.Healthcheck = &containertypes.HealthConfig{Timeout: 1e9} },
	"HealthConfig.StartPeriod":   func(r *CreateRequest) { r.Config.Healthcheck = &containertypes.HealthConfig{StartPeriod: 1e9} },
	"HealthConfig.StartInterval": func(r *CreateRequest) { r.Config.Healthcheck = &containertypes.HealthConfig{StartInterval: 1e9} },
	"HealthConfig.Retries":       func(r *CreateRequest) { r.Config.Healthcheck = &containertypes.HealthConfig{Retries: 1} },

	"HostConfig.Binds":           func(r *CreateRequest) { r.HostConfig.Binds = []string{"/a:/b:ro,z,rshared"} },
	"HostConfig.ContainerIDFile": func(r *CreateRequest) { r.HostConfig.ContainerIDFile = "/f" },
	"HostConfig.LogConfig":       func(r *CreateRequest) { r.HostConfig.LogConfig = containertypes.LogConfig{Type: "none"} },
	"HostConfig.NetworkMode":     func(r *CreateRequest) { r.HostConfig.NetworkMode = "container:abc" },
	"HostConfig.PortBindings": func(r *CreateRequest) {
		r.HostConfig.PortBindings = network.PortMap{network.MustParsePort("80/tcp"): {{HostPort: "1"}}}
	},
	"HostConfig.RestartPolicy":   func(r *CreateRequest) { r.HostConfig.RestartPolicy = containertypes.RestartPolicy{Name: "always"} },
	"HostConfig.AutoRemove":      func(r *CreateRequest) { r.HostConfig.AutoRemove = true },
	"HostConfig.VolumeDriver":    func(r *CreateRequest) { r.HostConfig.VolumeDriver = "local" },
	"HostConfig.VolumesFrom":     func(r *CreateRequest) { r.HostConfig.VolumesFrom = []string{"x"} },
	"HostConfig.ConsoleSize":     func(r *CreateRequest) { r.HostConfig.ConsoleSize = [2]uint{3, 4} },
	"HostConfig.Annotations":     func(r *CreateRequest) { r.HostConfig.Annotations = map[string]string{"a": "b"} },
	"HostConfig.CapAdd":          func(r *CreateRequest) { r.HostConfig.CapAdd = []string{"SYS_ADMIN"} },
	"HostConfig.CapDrop":         func(r *CreateRequest) { r.HostConfig.CapDrop = []string{"CHOWN"} },
	"HostConfig.CgroupnsMode":    func(r *CreateRequest) { r.HostConfig.CgroupnsMode = "host" },
	"HostConfig.DNS":             func(r *CreateRequest) { r.HostConfig.DNS = []netip.Addr{netip.MustParseAddr("1.1.1.1")} },
	"HostConfig.DNSOptions":      func(r *CreateRequest) { r.HostConfig.DNSOptions = []string{"ndots:1"} },
	"HostConfig.DNSSearch":       func(r *CreateRequest) { r.HostConfig.DNSSearch = []string{"x.y"} },
	"HostConfig.ExtraHosts":      func(r *CreateRequest) { r.HostConfig.ExtraHosts = []string{"a:1.2.3.4"} },
	"HostConfig.GroupAdd":        func(r *CreateRequest) { r.HostConfig.GroupAdd = []string{"g"} },
	"HostConfig.IpcMode":         func(r *CreateRequest) { r.HostConfig.IpcMode = "shareable" },
	"HostConfig.Cgroup":          func(r *CreateRequest) { r.HostConfig.Cgroup = "container:x" },
	"HostConfig.Links":           func(r *CreateRequest) { r.HostConfig.Links = []string{"a:b"} },
	"HostConfig.OomScoreAdj":     func(r *CreateRequest) { r.HostConfig.OomScoreAdj = 5 },
	"HostConfig.PidMode":         func(r *CreateRequest) { r.HostConfig.PidMode = "host" },
	"HostConfig.Privileged":      func(r *CreateRequest) { r.HostConfig.Privileged = true },
	"HostConfig.PublishAllPorts": func(r *CreateRequest) { r.HostConfig.PublishAllPorts = true },
	"HostConfig.ReadonlyRootfs":  func(r *CreateRequest) { r.HostConfig.ReadonlyRootfs = true },
	"HostConfig.SecurityOpt":     func(r *CreateRequest) { r.HostConfig.SecurityOpt = []string{"no-new-privileges"} },
	"HostConfig.StorageOpt":      func(r *CreateRequest) { r.HostConfig.StorageOpt = map[string]string{"size": "1g"} },
	"HostConfig.Tmpfs":           func(r *CreateRequest) { r.HostConfig.Tmpfs = map[string]string{"/t": "size=1m"} },
	"HostConfig.UTSMode":         func(r *CreateRequest) { r.HostConfig.UTSMode = "host" },
	"HostConfig.UsernsMode":      func(r *CreateRequest) { r.HostConfig.UsernsMode = "host" },
	"HostConfig.ShmSize":         func(r *CreateRequest) { r.HostConfig.ShmSize = 4096 },
	"HostConfig.Sysctls":         func(r *CreateRequest) { r.HostConfig.Sysctls = map[string]string{"net.a": "1"} },
	"HostConfig.Runtime":         func(r *CreateRequest) { r.HostConfig.Runtime = "kata" },
	"HostConfig.Umask":           func(r *CreateRequest) { r.HostConfig.Umask = ptr(uint32(0o22)) },
	"HostConfig.Isolation":       func(r *CreateRequest) { r.HostConfig.Isolation = "hyperv" },
	"HostConfig.Mounts": func(r *CreateRequest) {
		r.HostConfig.Mounts = []mount.Mount{{Type: "bind", Source: "/a", Target: "/b"}}
	},
	"HostConfig.MaskedPaths":   func(r *CreateRequest) { r.HostConfig.MaskedPaths = []string{"/m"} },
	"HostConfig.ReadonlyPaths": func(r *CreateRequest) { r.HostConfig.ReadonlyPaths = []string{"/r"} },
	"HostConfig.Init":          func(r *CreateRequest) { r.HostConfig.Init = ptr(true) },

	"Resources.CPUShares":            func(r *CreateRequest) { r.HostConfig.CPUShares = 5 },
	"Resources.Memory":               func(r *CreateRequest) { r.HostConfig.Memory = 1 << 30 },
	"Resources.NanoCPUs":             func(r *CreateRequest) { r.HostConfig.NanoCPUs = 1e9 },
	"Resources.CgroupParent":         func(r *CreateRequest) { r.HostConfig.CgroupParent = "/x" },
	"Resources.BlkioWeight":          func(r *CreateRequest) { r.HostConfig.BlkioWeight = 100 },
	"Resources.BlkioWeightDevice":    func(r *CreateRequest) { decodeInto(r, `{"BlkioWeightDevice":[{"Path":"/dev/a","Weight":9},null]}`) },
	"Resources.BlkioDeviceReadBps":   func(r *CreateRequest) { decodeInto(r, `{"BlkioDeviceReadBps":[{"Path":"/dev/a","Rate":9}]}`) },
	"Resources.BlkioDeviceWriteBps":  func(r *CreateRequest) { decodeInto(r, `{"BlkioDeviceWriteBps":[{"Path":"/dev/a","Rate":9}]}`) },
	"Resources.BlkioDeviceReadIOps":  func(r *CreateRequest) { decodeInto(r, `{"BlkioDeviceReadIOps":[{"Path":"/dev/a","Rate":9}]}`) },
	"Resources.BlkioDeviceWriteIOps": func(r *CreateRequest) { decodeInto(r, `{"BlkioDeviceWriteIOps":[{"Path":"/dev/a","Rate":9}]}`) },
	"Resources.CPUPeriod":            func(r *CreateRequest) { r.HostConfig.CPUPeriod = 50000 },
	"Resources.CPUQuota":             func(r *CreateRequest) { r.HostConfig.CPUQuota = 5000 },
	"Resources.CPURealtimePeriod":    func(r *CreateRequest) { r.HostConfig.CPURealtimePeriod = 5000 },
	"Resources.CPURealtimeRuntime":   func(r *CreateRequest) { r.HostConfig.CPURealtimeRuntime = 5000 },
	"Resources.CpusetCpus":           func(r *CreateRequest) { r.HostConfig.CpusetCpus = "0" },
	"Resources.CpusetMems":           func(r *CreateRequest) { r.HostConfig.CpusetMems = "0" },
	"Resources.Devices":              func(r *CreateRequest) { r.HostConfig.Devices = []containertypes.DeviceMapping{{PathOnHost: "/dev/a"}} },
	"Resources.DeviceCgroupRules":    func(r *CreateRequest) { r.HostConfig.DeviceCgroupRules = []string{"c 1:2 r"} },
	"Resources.DeviceRequests":       func(r *CreateRequest) { r.HostConfig.DeviceRequests = []containertypes.DeviceRequest{{Count: -1}} },
	"Resources.MemoryReservation":    func(r *CreateRequest) { r.HostConfig.MemoryReservation = 1 << 30 },
	"Resources.MemorySwap":           func(r *CreateRequest) { r.HostConfig.MemorySwap = -1 },
	"Resources.MemorySwappiness":     func(r *CreateRequest) { r.HostConfig.MemorySwappiness = ptr(int64(5)) },
	"Resources.OomKillDisable":       func(r *CreateRequest) { r.HostConfig.OomKillDisable = ptr(true) },
	"Resources.PidsLimit":            func(r *CreateRequest) { r.HostConfig.PidsLimit = ptr(int64(5)) },
	"Resources.Ulimits":              func(r *CreateRequest) { r.HostConfig.Ulimits = []*containertypes.Ulimit{{Name: "core", Hard: 1}, nil} },
	"Resources.CPUCount":             func(r *CreateRequest) { r.HostConfig.CPUCount = 1 },
	"Resources.CPUPercent":           func(r *CreateRequest) { r.HostConfig.CPUPercent = 1 },
	"Resources.IOMaximumIOps":        func(r *CreateRequest) { r.HostConfig.IOMaximumIOps = 1 },
	"Resources.IOMaximumBandwidth":   func(r *CreateRequest) { r.HostConfig.IOMaximumBandwidth = 1 },

	"LogConfig.Type":     func(r *CreateRequest) { r.HostConfig.LogConfig.Type = "none" },
	"LogConfig.Config":   func(r *CreateRequest) { r.HostConfig.LogConfig.Config = map[string]string{"max-file": "2"} },
	"RestartPolicy.Name": func(r *CreateRequest) { r.HostConfig.RestartPolicy.Name = "unless-stopped" },
	"RestartPolicy.MaximumRetryCount": func(r *CreateRequest) {
		r.HostConfig.RestartPolicy = containertypes.RestartPolicy{Name: "on-failure", MaximumRetryCount: 2}
	},
	"DeviceMapping.PathOnHost": func(r *CreateRequest) { r.HostConfig.Devices = []containertypes.DeviceMapping{{PathOnHost: "/dev/a"}} },
	"DeviceMapping.PathInContainer": func(r *CreateRequest) {
		r.HostConfig.Devices = []containertypes.DeviceMapping{{PathOnHost: "/dev/a", PathInContainer: "/dev/b"}}
	},
	"DeviceMapping.CgroupPermissions": func(r *CreateRequest) {
		r.HostConfig.Devices = []containertypes.DeviceMapping{{PathOnHost: "/dev/a", CgroupPermissions: "r"}}
	},

	"Mount.Type": func(r *CreateRequest) { r.HostConfig.Mounts = []mount.Mount{{Type: "tmpfs", Target: "/b"}} },
	"Mount.Source": func(r *CreateRequest) {
		r.HostConfig.Mounts = []mount.Mount{{Type: "bind", Source: "/s", Target: "/b"}}
	},
	"Mount.Target": func(r *CreateRequest) { r.HostConfig.Mounts = []mount.Mount{{Type: "tmpfs", Target: "/c"}} },
	"Mount.ReadOnly": func(r *CreateRequest) {
		r.HostConfig.Mounts = []mount.Mount{{Type: "tmpfs", Target: "/c", ReadOnly: true}}
	},
	"Mount.Consistency": func(r *CreateRequest) {
		r.HostConfig.Mounts = []mount.Mount{{Type: "tmpfs", Target: "/c", Consistency: "cached"}}
	},
	"Mount.BindOptions":   func(r *CreateRequest) { bindOptions(r, mount.BindOptions{Propagation: "slave"}) },
	"Mount.VolumeOptions": func(r *CreateRequest) { volumeOptions(r, mount.VolumeOptions{NoCopy: true}) },
	"Mount.ImageOptions":  func(r *CreateRequest) { imageOptions(r, mount.ImageOptions{Subpath: "a"}) },
	"Mount.TmpfsOptions":  func(r *CreateRequest) { tmpfsOptions(r, mount.TmpfsOptions{SizeBytes: 1}) },
	"Mount.ClusterOptions": func(r *CreateRequest) {
		r.HostConfig.Mounts = []mount.Mount{{Type: "cluster", Target: "/c", ClusterOptions: &mount.ClusterOptions{}}}
	},

	"BindOptions.Propagation":            func(r *CreateRequest) { bindOptions(r, mount.BindOptions{Propagation: "slave"}) },
	"BindOptions.NonRecursive":           func(r *CreateRequest) { bindOptions(r, mount.BindOptions{NonRecursive: true}) },
	"BindOptions.CreateMountpoint":       func(r *CreateRequest) { bindOptions(r, mount.BindOptions{CreateMountpoint: true}) },
	"BindOptions.ReadOnlyNonRecursive":   func(r *CreateRequest) { bindOptions(r, mount.BindOptions{ReadOnlyNonRecursive: true}) },
	"BindOptions.ReadOnlyForceRecursive": func(r *CreateRequest) { bindOptions(r, mount.BindOptions{ReadOnlyForceRecursive: true}) },
	"TmpfsOptions.SizeBytes":             func(r *CreateRequest) { tmpfsOptions(r, mount.TmpfsOptions{SizeBytes: 5}) },
	"TmpfsOptions.Mode":                  func(r *CreateRequest) { tmpfsOptions(r, mount.TmpfsOptions{Mode: fs.FileMode(0o700)}) },
	"TmpfsOptions.Options":               func(r *CreateRequest) { tmpfsOptions(r, mount.TmpfsOptions{Options: [][]string{{"noexec"}}}) },

	"VolumeOptions.NoCopy":  func(r *CreateRequest) { volumeOptions(r, mount.VolumeOptions{NoCopy: true}) },
	"VolumeOptions.Labels":  func(r *CreateRequest) { volumeOptions(r, mount.VolumeOptions{Labels: map[string]string{"a": "b"}}) },
	"VolumeOptions.Subpath": func(r *CreateRequest) { volumeOptions(r, mount.VolumeOptions{Subpath: "a/b"}) },
	"VolumeOptions.DriverConfig": func(r *CreateRequest) {
		volumeOptions(r, mount.VolumeOptions{DriverConfig: &mount.Driver{Name: "local"}})
	},
	"Driver.Name": func(r *CreateRequest) {
		volumeOptions(r, mount.VolumeOptions{DriverConfig: &mount.Driver{Name: "other"}})
	},
	"Driver.Options": func(r *CreateRequest) {
		volumeOptions(r, mount.VolumeOptions{DriverConfig: &mount.Driver{Options: map[string]string{"type": "tmpfs"}}})
	},
	"ImageOptions.Subpath": func(r *CreateRequest) { imageOptions(r, mount.ImageOptions{Subpath: "a"}) },

	"PortBinding.HostIP": func(r *CreateRequest) {
		r.HostConfig.PortBindings = network.PortMap{network.MustParsePort("80/tcp"): {{HostIP: netip.MustParseAddr("::1")}}}
	},
	"PortBinding.HostPort": func(r *CreateRequest) {
		r.HostConfig.PortBindings = network.PortMap{network.MustParsePort("80/sctp"): {{HostPort: "8000-8010"}, {HostPort: "1"}}}
	},

	"NetworkingConfig.EndpointsConfig": func(r *CreateRequest) { endpoint(r, "other", network.EndpointSettings{}) },
	"EndpointSettings.IPAMConfig": func(r *CreateRequest) {
		addressing(r, network.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr("1.2.3.4")})
	},
	"EndpointIPAMConfig.IPv4Address": func(r *CreateRequest) {
		addressing(r, network.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr("1.2.3.4")})
	},
	"EndpointIPAMConfig.IPv6Address": func(r *CreateRequest) {
		addressing(r, network.EndpointIPAMConfig{IPv6Address: netip.MustParseAddr("fd00::4")})
	},
	"EndpointIPAMConfig.LinkLocalIPs": func(r *CreateRequest) {
		addressing(r, network.EndpointIPAMConfig{LinkLocalIPs: []netip.Addr{netip.MustParseAddr("169.254.1.1")}})
	},
	"EndpointSettings.Links":   func(r *CreateRequest) { endpoint(r, "mine", network.EndpointSettings{Links: []string{"l"}}) },
	"EndpointSettings.Aliases": func(r *CreateRequest) { endpoint(r, "mine", network.EndpointSettings{Aliases: []string{"l"}}) },
	"EndpointSettings.DriverOpts": func(r *CreateRequest) {
		endpoint(r, "mine", network.EndpointSettings{DriverOpts: map[string]string{"a": "b"}})
	},
	"EndpointSettings.GwPriority": func(r *CreateRequest) { endpoint(r, "mine", network.EndpointSettings{GwPriority: 1}) },
	"EndpointSettings.NetworkID":  func(r *CreateRequest) { endpoint(r, "mine", network.EndpointSettings{NetworkID: "n"}) },
	"EndpointSettings.EndpointID": func(r *CreateRequest) { endpoint(r, "mine", network.EndpointSettings{EndpointID: "n"}) },
	"EndpointSettings.Gateway": func(r *CreateRequest) {
		endpoint(r, "mine", network.EndpointSettings{Gateway: netip.MustParseAddr("1.2.3.4")})
	},
	"EndpointSettings.IPAddress": func(r *CreateRequest) {
		endpoint(r, "mine", network.EndpointSettings{IPAddress: netip.MustParseAddr("1.2.3.4")})
	},
	"EndpointSettings.MacAddress": func(r *CreateRequest) {
		endpoint(r, "mine", network.EndpointSettings{MacAddress: network.HardwareAddr{2, 2, 3, 4, 5, 6}})
	},
	"EndpointSettings.IPPrefixLen": func(r *CreateRequest) { endpoint(r, "mine", network.EndpointSettings{IPPrefixLen: 1}) },
	"EndpointSettings.IPv6Gateway": func(r *CreateRequest) {
		endpoint(r, "mine", network.EndpointSettings{IPv6Gateway: netip.MustParseAddr("::1")})
	},
	"EndpointSettings.GlobalIPv6Address": func(r *CreateRequest) {
		endpoint(r, "mine", network.EndpointSettings{GlobalIPv6Address: netip.MustParseAddr("::1")})
	},
	"EndpointSettings.GlobalIPv6PrefixLen": func(r *CreateRequest) { endpoint(r, "mine", network.EndpointSettings{GlobalIPv6PrefixLen: 1}) },
	"EndpointSettings.DNSNames":            func(r *CreateRequest) { endpoint(r, "mine", network.EndpointSettings{DNSNames: []string{"n"}}) },
}

// told are fields that only answers fill in. Clients send them all the same, in what they got from inspect: they are ignored with a
// warning that names them.
var told = []string{"NetworkID", "EndpointID", "Gateway", "IPAddress", "IPPrefixLen", "IPv6Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "DNSNames"}

func bindOptions(r *CreateRequest, o mount.BindOptions) {
	r.HostConfig.Mounts = []mount.Mount{{Type: "bind", Source: "/s", Target: "/b", BindOptions: &o}}
}

func tmpfsOptions(r *CreateRequest, o mount.TmpfsOptions) {
	r.HostConfig.Mounts = []mount.Mount{{Type: "tmpfs", Target: "/b", TmpfsOptions: &o}}
}

func volumeOptions(r *CreateRequest, o mount.VolumeOptions) {
	r.HostConfig.Mounts = []mount.Mount{{Type: "volume", Source: "v", Target: "/b", VolumeOptions: &o}}
}

func imageOptions(r *CreateRequest, o mount.ImageOptions) {
	r.HostConfig.Mounts = []mount.Mount{{Type: "image", Source: "busybox", Target: "/b", ImageOptions: &o}}
}

func addressing(r *CreateRequest, c network.EndpointIPAMConfig) {
	endpoint(r, "mine", network.EndpointSettings{IPAMConfig: &c})
}

// endpoint puts the container on the network with these settings. Without any, the sample differs in the network alone.
func endpoint(r *CreateRequest, name string, e network.EndpointSettings) {
	r.HostConfig.NetworkMode = containertypes.NetworkMode(name)
	r.NetworkingConfig.EndpointsConfig = map[string]*network.EndpointSettings{name: &e}
}

func decodeInto(r *CreateRequest, hostConfig string) {
	if err := json.Unmarshal([]byte(hostConfig), &r.HostConfig); err != nil {
		panic(err)
	}
}

// TestEveryFieldIsHonouredOrRefused walks the types of Docker's create request. A field without a sample fails the test: a newer
// version of the types brought it, and somebody has to decide about it. A sample is honoured when the specification is another
// because of it and gives it back in inspect; else it must be refused, and the refusal must name it.
func TestEveryFieldIsHonouredOrRefused(t *testing.T) {
	base, _, err := plain().Spec(Newest)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, typ := range []reflect.Type{
		reflect.TypeFor[containertypes.Config](), reflect.TypeFor[containertypes.HealthConfig](), reflect.TypeFor[containertypes.HostConfig](),
		reflect.TypeFor[containertypes.Resources](), reflect.TypeFor[containertypes.LogConfig](), reflect.TypeFor[containertypes.RestartPolicy](),
		reflect.TypeFor[containertypes.DeviceMapping](), reflect.TypeFor[mount.Mount](), reflect.TypeFor[mount.BindOptions](),
		reflect.TypeFor[mount.TmpfsOptions](), reflect.TypeFor[mount.VolumeOptions](), reflect.TypeFor[mount.Driver](), reflect.TypeFor[mount.ImageOptions](),
		reflect.TypeFor[mount.ClusterOptions](), reflect.TypeFor[network.NetworkingConfig](), reflect.TypeFor[network.EndpointSettings](),
		reflect.TypeFor[network.EndpointIPAMConfig](), reflect.TypeFor[network.PortBinding](),
	} {
		for i := range typ.NumField() {
			f := typ.Field(i)
			if f.Anonymous {
				continue
			}
			name := typeName(typ) + "." + f.Name
			seen[name] = true
			t.Run(name, func(t *testing.T) {
				sample := samples[name]
				if sample == nil {
					t.Fatalf("%s is new in Docker's types: honour it in spec.go or refuse it in refuse.go, and add a sample", name)
				}
				honouredOrRefused(t, sample, &base, jsonName(f))
			})
		}
	}
	for name := range samples {
		if !seen[name] {
			t.Errorf("the sample %s is of no field", name)
		}
	}
}

func typeName(t reflect.Type) string {
	if t.Name() == "HealthcheckConfig" {
		return "HealthConfig"
	}
	return t.Name()
}

func jsonName(f reflect.StructField) string {
	if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
		return name
	}
	return f.Name
}

// sameAddress compares addresses, which are opaque.
var sameAddress = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

func honouredOrRefused(t *testing.T, sample func(*CreateRequest), base *container.Spec, field string) {
	r := plain()
	sample(r)
	got, warnings, err := r.Spec(Newest)
	if slices.Contains(told, field) {
		if text := strings.Join(warnings, "\n"); err != nil || !strings.Contains(text, field+" is what the engine tells") {
			t.Errorf("%s is not named in a warning: %q, %v", field, text, err)
		}
		return
	}
	if err != nil {
		if k := fault.KindOf(err); k != fault.NotImplemented && k != fault.Invalid {
			t.Errorf("refused as %s: %v", k, err)
		}
		if text := strings.ToLower(err.Error()); !names(text, field) {
			t.Errorf("the refusal does not name %s: %v", field, err)
		}
		return
	}
	if cmp.Equal(got, *base, sameAddress) {
		t.Fatalf("neither honoured nor refused: the specification is the same as without it")
	}
	// What was asked comes back: translating inspect's shapes once more gives the same specification.
	info := &container.Info{Spec: &got}
	again := &CreateRequest{Config: Config(info), HostConfig: HostConfig{HostConfig: *HostSettings(info, &Defaults{})}}
	again.NetworkingConfig.EndpointsConfig = networkSettings(info, nil, Newest).Networks
	again.Cmd, again.Entrypoint = again.Config.Cmd, again.Config.Entrypoint
	again.HostConfig.CapAdd, again.HostConfig.CapDrop = again.HostConfig.HostConfig.CapAdd, again.HostConfig.HostConfig.CapDrop
	back, _, err := again.Spec(Newest)
	if err != nil {
		t.Fatalf("what inspect shows is refused: %v", err)
	}
	// Inspect fills in defaults that a request may leave out.
	ignore := cmp.FilterPath(func(p cmp.Path) bool { return p.String() == "Resources.OOMKillDisable" || p.String() == "Restart.Name" }, cmp.Comparer(func(a, b any) bool { return true }))
	if diff := cmp.Diff(got, back, cmpopts.EquateEmpty(), ignore, sameAddress); diff != "" {
		t.Errorf("it does not come back from inspect (-asked +back):\n%s", diff)
	}
}

// names reports whether a refusal says which field it is about; Docker's own words for some do it their way.
func names(text, field string) bool {
	words := map[string]string{"Isolation": "isolation", "ClusterOptions": `type "cluster"`}
	want, ok := words[field]
	if !ok {
		want = strings.ToLower(field)
	}
	return strings.Contains(text, want)
}
