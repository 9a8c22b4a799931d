package wire

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	containertypes "github.com/moby/moby/api/types/container"

	"berth/engine/container"
	"berth/network"
)

func sampleInfo() *container.Info {
	at := time.Date(2026, 3, 4, 5, 6, 7, 89, time.UTC)
	return &container.Info{
		ID: "91eb2db987208f71f5c1753beb25bc5b0b86fc1a6b4d6aaba20be2c516592b87", Name: "web", Created: at, Path: "sleep", Args: []string{"1000"},
		Spec: &container.Spec{
			Image: "busybox", Process: container.Process{Cmd: []string{"sleep", "1000"}}, Hostname: "91eb2db98720", Network: container.Network{Mode: "none"},
			Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"x": "y"},
			Mounts: []container.Mount{{Type: "bind", Source: "/tmp", Target: "/x", ReadOnly: true, Mode: "ro", FromBinds: true}, {Type: "tmpfs", Target: "/t", FromTmpfs: true}},
		},
		State:   container.State{Status: container.Running, Running: true, Pid: 77, StartedAt: at.Add(time.Second)},
		ImageID: "sha256:5abb2bb97cc753d2c24b7680424ac2aed526398e10ded2be5722c1acf5e6b779", Platform: "linux", Driver: "overlay2", Command: "sleep 1000",
		Mounts:  []container.MountPoint{{Type: "bind", Source: "/tmp", Destination: "/x", Mode: "ro", Propagation: "rprivate"}, {Type: "tmpfs", Destination: "/t", RW: true}},
		LogPath: "/var/lib/berth/containers/91/log", Upper: "/u", Work: "/w", Lower: []string{"/l2", "/l1"},
	}
}

// sampleNetworked is a container with what networks and volumes have.
func sampleNetworked() *container.Info {
	i := sampleInfo()
	front := network.EndpointSpec{Network: "front", Aliases: []string{"www"}, IPv4: netip.MustParseAddr("10.9.0.5"), MAC: "02:11:22:33:44:55", GwPriority: 5}
	s := *i.Spec
	s.ExposedPorts = []string{"80/tcp", "81/tcp", "90-91/udp"}
	s.Volumes = map[string]struct{}{"/image": {}}
	s.Network = container.Network{
		Mode: "front", Endpoints: []network.EndpointSpec{front, {Network: "bridge"}}, Links: []string{"db:sql"},
		Ports: []network.PortSpec{{Port: 80, Proto: "tcp", HostFirst: 8000, HostLast: 8010}, {Port: 80, Proto: "tcp", HostIP: netip.MustParseAddr("127.0.0.1")}},
	}
	s.Mounts = []container.Mount{
		{Type: "volume", Source: "data", Target: "/data", ReadOnly: true, Mode: "ro,nocopy", NoCopy: true, FromBinds: true},
		{Type: "volume", Target: "/anon"},
		{Type: "image", Source: "tools", Target: "/tools"},
	}
	i.Spec = &s
	id := i.ID
	i.Mounts = []container.MountPoint{
		{Type: "volume", Name: id, Source: "/v/" + id + "/_data", Destination: "/anon", Driver: "local", RW: true},
		{Type: "volume", Name: "data", Source: "/v/data/_data", Destination: "/data", Driver: "local", Mode: "ro,nocopy"},
		{Type: "volume", Name: "other", Source: "/v/other/_data", Destination: "/image", Driver: "local", RW: true},
		{Type: "image", Source: "tools", Destination: "/tools"},
	}
	any4, any6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	target := netip.MustParseAddr("10.9.0.5")
	i.Sandbox = network.Sandbox{
		ID: strings.Repeat("5a", 32), Key: "/run/berth/network/netns/5a5a5a5a5a5a", ContainerID: id, Resolver: true,
		Endpoints: []network.Endpoint{{
			ID: strings.Repeat("e1", 32), NetworkID: strings.Repeat("f1", 32), NetworkName: "front", Spec: front, Interface: "eth0", MAC: front.MAC,
			IPv4: netip.MustParsePrefix("10.9.0.5/24"), IPv6: netip.MustParsePrefix("fd00:9::5/64"), Gateway4: netip.MustParseAddr("10.9.0.1"),
			Gateway6: netip.MustParseAddr("fd00:9::1"), Names: []string{"web", "www", "91eb2db98720"}, Container: "web", ContainerID: id,
		}, {
			ID: strings.Repeat("e2", 32), NetworkID: strings.Repeat("b1", 32), NetworkName: "bridge", Spec: network.EndpointSpec{Network: "bridge"},
			Interface: "eth1", MAC: "02:42:ac:11:00:02", IPv4: netip.MustParsePrefix("172.17.0.2/16"), Gateway4: netip.MustParseAddr("172.17.0.1"),
			Container: "web", ContainerID: id,
		}},
		Ports: []network.Port{
			{Port: 80, Proto: "tcp", HostIP: any4, HostPort: 8000, Target: target}, {Port: 80, Proto: "tcp", HostIP: any6, HostPort: 8000, Target: target},
			{Port: 80, Proto: "tcp", HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 32768, Target: target},
		},
	}
	return i
}

func TestNetworkedGolden(t *testing.T) {
	for _, v := range []Version{24, 44, 51, 52, 56} {
		i := sampleNetworked()
		golden(t, "networked-"+v.String()+".json", pretty(t, Inspect(i, testDefaults(), nil, v)))
	}
	i := sampleNetworked()
	golden(t, "networked-list.json", pretty(t, Summary(i, "busybox", nil, Newest, i.Created.Add(time.Minute))))
	// What stops keeps what was asked for, and nothing else.
	i.State = container.State{Status: container.Exited, StartedAt: i.Created, FinishedAt: i.Created}
	i.Sandbox = network.Sandbox{}
	golden(t, "networked-stopped.json", pretty(t, Inspect(i, testDefaults(), func(name string) string { return "id of " + name }, Newest)))
}

func TestInspectGolden(t *testing.T) {
	for _, v := range []Version{24, 45, 51, 52, 56} {
		golden(t, "inspect-"+v.String()+".json", pretty(t, Inspect(sampleInfo(), testDefaults(), nil, v)))
	}
}

func TestSummaryGolden(t *testing.T) {
	now := sampleInfo().Created.Add(3 * time.Minute)
	for _, v := range []Version{24, 46, 56} {
		golden(t, "list-"+v.String()+".json", pretty(t, []containertypes.Summary{Summary(sampleInfo(), "busybox", nil, v, now)}))
	}
}

func TestStatus(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for want, s := range map[string]container.State{
		"Created":                         {Status: container.Created},
		"Up 5 seconds":                    {Status: container.Running, Running: true, StartedAt: ago(5 * time.Second)},
		"Up Less than a second":           {Status: container.Running, Running: true, StartedAt: now},
		"Up 2 hours (Paused)":             {Status: container.Paused, Running: true, Paused: true, StartedAt: ago(2 * time.Hour)},
		"Restarting (3) 10 seconds ago":   {Status: container.Restarting, Running: true, Restarting: true, ExitCode: 3, StartedAt: ago(time.Hour), FinishedAt: ago(10 * time.Second)},
		"Exited (137) About a minute ago": {Status: container.Exited, ExitCode: 137, StartedAt: ago(time.Hour), FinishedAt: ago(time.Minute)},
		"Exited (127) 1 second ago":       {Status: container.Exited, ExitCode: 127, FinishedAt: ago(time.Second)},
		"Removal In Progress":             {Status: container.Removing, StartedAt: ago(time.Hour), FinishedAt: ago(time.Hour)},
		"Dead":                            {Status: container.Dead, Dead: true},
	} {
		if got := Status(&s, now); got != want {
			t.Errorf("%+v: %q, want %q", s, got, want)
		}
	}
}

func BenchmarkSummaries(b *testing.B) {
	i, now := sampleNetworked(), time.Now()
	for b.Loop() {
		all := make([]containertypes.Summary, 1000)
		for n := range all {
			all[n] = Summary(i, "busybox", nil, Newest, now)
		}
		if _, err := json.Marshal(all); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCreateDecode(b *testing.B) {
	body := []byte(`{"Hostname":"","Domainname":"","User":"","AttachStdin":false,"AttachStdout":true,"AttachStderr":true,"Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":null,"Cmd":["echo","hi"],"Image":"apibb","Volumes":{},"WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":{},"HostConfig":{"Binds":null,"ContainerIDFile":"","LogConfig":{"Type":"","Config":{}},"NetworkMode":"none","PortBindings":{},"RestartPolicy":{"Name":"no","MaximumRetryCount":0},"AutoRemove":true,"VolumeDriver":"","VolumesFrom":null,"ConsoleSize":[0,0],"CapAdd":null,"CapDrop":null,"CgroupnsMode":"","Dns":[],"DnsOptions":[],"DnsSearch":[],"ExtraHosts":null,"GroupAdd":null,"IpcMode":"","Cgroup":"","Links":null,"OomScoreAdj":0,"PidMode":"","Privileged":false,"PublishAllPorts":false,"ReadonlyRootfs":false,"SecurityOpt":null,"UTSMode":"","UsernsMode":"","ShmSize":0,"Isolation":"","CpuShares":0,"Memory":0,"NanoCpus":0,"CgroupParent":"","BlkioWeight":0,"BlkioWeightDevice":[],"BlkioDeviceReadBps":[],"BlkioDeviceWriteBps":[],"BlkioDeviceReadIOps":[],"BlkioDeviceWriteIOps":[],"CpuPeriod":0,"CpuQuota":0,"CpuRealtimePeriod":0,"CpuRealtimeRuntime":0,"CpusetCpus":"","CpusetMems":"","Devices":[],"DeviceCgroupRules":null,"DeviceRequests":null,"MemoryReservation":0,"MemorySwap":0,"MemorySwappiness":-1,"OomKillDisable":false,"PidsLimit":0,"Ulimits":[],"CpuCount":0,"CpuPercent":0,"IOMaximumIOps":0,"IOMaximumBandwidth":0,"MaskedPaths":null,"ReadonlyPaths":null},"NetworkingConfig":{"EndpointsConfig":{}}}`)
	for b.Loop() {
		var r CreateRequest
		if _, err := Decode(body, &r); err != nil {
			b.Fatal(err)
		}
		if _, _, err := r.Spec(Newest); err != nil {
			b.Fatal(err)
		}
	}
}
