package wire

import (
	"encoding/json"
	"testing"
	"time"

	containertypes "github.com/moby/moby/api/types/container"

	"berth/engine/container"
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
		LogPath: "/var/lib/berth/containers/91/log", Upper: "/u", Work: "/w", Lower: []string{"/l2", "/l1"},
	}
}

func TestInspectGolden(t *testing.T) {
	for _, v := range []Version{24, 45, 51, 52, 56} {
		golden(t, "inspect-"+v.String()+".json", pretty(t, Inspect(sampleInfo(), testDefaults(), v)))
	}
}

func TestSummaryGolden(t *testing.T) {
	now := sampleInfo().Created.Add(3 * time.Minute)
	for _, v := range []Version{24, 46, 56} {
		golden(t, "list-"+v.String()+".json", pretty(t, []containertypes.Summary{Summary(sampleInfo(), "busybox", v, now)}))
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
	i, now := sampleInfo(), time.Now()
	for b.Loop() {
		all := make([]containertypes.Summary, 1000)
		for n := range all {
			all[n] = Summary(i, "busybox", Newest, now)
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
