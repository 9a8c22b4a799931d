package access

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"berth/base/fault"
	"berth/engine/container"
	"berth/network"
	"berth/volume"
)

// world is what a policy is told: container "mine" with the id m1 and a bind mount, volumes "mine" and "theirs", networks "mine" and the
// host's by its id.
type world struct{}

func (world) Container(ref string) (string, []container.MountPoint, bool) {
	switch ref {
	case "mine":
		return "m1", nil, true
	case "bound":
		return "b1", []container.MountPoint{{Type: "bind", Source: "/root"}}, true
	case "laden":
		return "l1", []container.MountPoint{{Type: "volume", Name: "mine"}, {Type: "volume", Name: "theirs"}}, true
	}
	return "", nil, false
}
func (world) Volume(name string) (exists, inScope bool) {
	return name == "mine" || name == "theirs", name == "mine"
}
func (world) Network(ref string) (id, driver string, ok bool) {
	driver = map[string]string{"mine": "bridge", "bridge": "bridge", "hostid": "host"}[ref]
	if ref == "mine" {
		id = "n1"
	}
	return id, driver, ref != "theirs"
}
func (world) HoldsEngine(path string) bool {
	return path == "/" || strings.HasPrefix(path, "/run")
}
func (world) DefaultRuntime() string { return "berth" }

// tmpfs is a container with a volume in memory, if its options do not make something else of it.
func tmpfs(o, device string) container.Spec {
	return container.Spec{Mounts: []container.Mount{{Type: "volume", Source: "new", DriverOptions: map[string]string{"type": "tmpfs", "o": o, "device": device}}}}
}

// Each way out of a container is refused, by a sentence that names the lift which allows it; and with the lift it is allowed.
func TestDangers(t *testing.T) {
	for name, c := range map[string]struct {
		lift Lift // "" none helps
		spec container.Spec
	}{
		"bind":               {LiftBind, container.Spec{Mounts: []container.Mount{{Type: "bind", Source: "/etc"}}}},
		"local bind volume":  {LiftBind, container.Spec{Mounts: []container.Mount{{Type: "volume", DriverOptions: map[string]string{"type": "none", "o": "bind", "device": "/"}}}}},
		"device only":        {LiftBind, container.Spec{Mounts: []container.Mount{{Type: "volume", Source: "new", DriverOptions: map[string]string{"device": "/dev/sda"}}}}},
		"bind of donor":      {LiftBind, container.Spec{VolumesFrom: []string{"bound:ro"}}},
		"bind of a tmpfs":    {LiftBind, tmpfs("size=1m,bind", "/")},
		"rbind of a tmpfs":   {LiftBind, tmpfs("rbind", "/")},
		"remount of a tmpfs": {LiftBind, tmpfs("remount", "tmpfs")},
		"o without a type":   {LiftBind, container.Spec{Mounts: []container.Mount{{Type: "volume", DriverOptions: map[string]string{"o": "size=1m"}}}}},
		"existing volume":    {LiftBind, container.Spec{Mounts: []container.Mount{{Type: "volume", Source: "mine", DriverOptions: map[string]string{"device": "/"}}}}},
		"volume driver":      {LiftVolume, container.Spec{VolumeDriver: "nfs", Mounts: []container.Mount{{Type: "volume", Source: "new"}}}},
		"driver for image's": {LiftVolume, container.Spec{VolumeDriver: "nfs"}},
		"privileged":         {LiftPrivileged, container.Spec{Security: container.Security{Privileged: true}}},
		"cap-add":            {LiftCapability, container.Spec{Security: container.Security{CapAdd: []string{"NET_ADMIN"}}}},
		"seccomp":            {LiftSecurity, container.Spec{Security: container.Security{SecurityOpt: []string{"seccomp=unconfined"}}}},
		"apparmor":           {LiftSecurity, container.Spec{Security: container.Security{SecurityOpt: []string{"apparmor=unconfined"}}}},
		"label":              {LiftSecurity, container.Spec{Security: container.Security{SecurityOpt: []string{"label=disable"}}}},
		"unmasked":           {LiftSecurity, container.Spec{Security: container.Security{MaskedPaths: []string{}}}},
		"writable /proc":     {LiftSecurity, container.Spec{Security: container.Security{ReadonlyPaths: []string{}}}},
		"host pid":           {LiftHost, container.Spec{Namespaces: container.Namespaces{PID: "host"}}},
		"host ipc":           {LiftHost, container.Spec{Namespaces: container.Namespaces{IPC: "host"}}},
		"host uts":           {LiftHost, container.Spec{Namespaces: container.Namespaces{UTS: "host"}}},
		"host cgroup":        {LiftHost, container.Spec{Namespaces: container.Namespaces{Cgroup: "host"}}},
		"host users":         {LiftHost, container.Spec{Security: container.Security{UsernsMode: "host"}}},
		"host network":       {LiftHost, container.Spec{Network: container.Network{Mode: "host"}}},
		"host net by id":     {LiftHost, container.Spec{Network: container.Network{Mode: "hostid"}}},
		"host as endpoint":   {LiftHost, container.Spec{Network: container.Network{Endpoints: []network.EndpointSpec{{Network: "host"}}}}},
		"device":             {LiftDevice, container.Spec{Resources: container.Resources{Devices: []container.Device{{Source: "/dev/sda"}}}}},
		"device rule":        {LiftDevice, container.Spec{Resources: container.Resources{DeviceCgroupRules: []string{"b *:* rwm"}}}},
		"gpu":                {LiftDevice, container.Spec{Resources: container.Resources{DeviceRequests: []container.DeviceRequest{{Driver: "cdi"}}}}},
		"cgroup parent":      {LiftCgroup, container.Spec{Resources: container.Resources{CgroupParent: "/"}}},
		"real time":          {LiftCgroup, container.Spec{Resources: container.Resources{CPURealtimeRuntime: 1}}},
		"oom score":          {LiftCgroup, container.Spec{Resources: container.Resources{OOMScoreAdj: -1}}},
		"runtime":            {LiftRuntime, container.Spec{Runtime: "runc"}},
		"log driver":         {LiftLogging, container.Spec{Log: container.Log{Driver: "syslog"}}},
		"default log driver": {LiftLogging, container.Spec{Log: container.Log{Options: map[string]string{"syslog-address": "unix:///run/x"}}}},
		"loop in a tag":      {LiftLogging, container.Spec{Log: container.Log{Driver: "local", Options: map[string]string{"tag": "{{.Name}}{{range .ContainerEnv}}{{end}}"}}}},
		"variable in a tag":  {LiftLogging, container.Spec{Log: container.Log{Driver: "local", Options: map[string]string{"tag": "{{{$x := .Name}}"}}}},
		"host's ids":         {LiftHost, container.Spec{Security: container.Security{UsernsMode: "auto:size=9,uidmapping=0:1000:1"}}},
		"host's groups":      {LiftHost, container.Spec{Security: container.Security{UsernsMode: "auto:gidmapping=0@1000+1"}}},
		"annotation":         {LiftAnnotations, container.Spec{Annotations: map[string]string{"run.oci.hooks.stdout": "/x"}}},

		"pid of others":     {"", container.Spec{Namespaces: container.Namespaces{PID: "container:theirs"}}},
		"ipc of others":     {"", container.Spec{Namespaces: container.Namespaces{IPC: "container:theirs"}}},
		"net of others":     {"", container.Spec{Network: container.Network{Mode: "container:theirs"}}},
		"users of others":   {"", container.Spec{Security: container.Security{UsernsMode: "container:theirs"}}},
		"volumes of others": {"", container.Spec{VolumesFrom: []string{"theirs"}}},
		"volume of donor":   {"", container.Spec{VolumesFrom: []string{"laden:ro"}}},
		"volume of others":  {"", container.Spec{Mounts: []container.Mount{{Type: "volume", Source: "theirs"}}}},
		"network of others": {"", container.Spec{Network: container.Network{Mode: "theirs"}}},
		"link to others":    {"", container.Spec{Network: container.Network{Links: []string{"theirs:db"}}}},
		"endpoint's link":   {"", container.Spec{Network: container.Network{Endpoints: []network.EndpointSpec{{Network: "mine", Links: []string{"theirs:db"}}}}}},
		"label of others":   {"", container.Spec{Labels: map[string]string{"team": "b"}}},
		"volume's label":    {"", container.Spec{Mounts: []container.Mount{{Type: "volume", Source: "new", VolumeLabels: map[string]string{"team": "b"}}}}},
		"strange mount":     {"", container.Spec{Mounts: []container.Mount{{Type: "cluster", Source: "x"}}}},
	} {
		t.Run(name, func(t *testing.T) {
			p := &Policy{Name: "ci", Verbs: []Verb{Create}, Label: "team=a"}
			_, err := p.Container(c.spec, world{})
			if !fault.Is(err, fault.Forbidden) || !strings.HasPrefix(err.Error(), `access "ci": `) {
				t.Fatalf("not refused: %v", err)
			}
			if c.lift != "" && !strings.Contains(err.Error(), "--allow "+string(c.lift)) {
				t.Fatalf("the refusal names no way out: %v", err)
			}
			p.Allow = slices.DeleteFunc(Lifts(), func(l Lift) bool { return l == c.lift })
			if _, err := p.Container(c.spec, world{}); err == nil {
				t.Error("another lift lets it pass")
			}
			if c.lift == "" {
				return
			}
			p.Allow = []Lift{c.lift}
			if _, err := p.Container(c.spec, world{}); err != nil {
				t.Errorf("its own lift does not help: %v", err)
			}
		})
	}
}

func TestHarmless(t *testing.T) {
	p := &Policy{Name: "ci", Verbs: []Verb{Create}, Label: "team=a", Binds: []string{"/srv/www", "/run/docker.sock"}}
	got, err := p.Container(container.Spec{
		Mounts: []container.Mount{
			{Type: "bind", Source: "/srv/www/"}, {Type: "volume", Source: "mine"}, {Type: "volume"}, {Type: "tmpfs"}, {Type: "image", Source: "box"},
			{Type: "volume", Source: "ram", DriverOptions: map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m,mode=700,noexec"}},
		},
		Namespaces: container.Namespaces{PID: "container:mine", IPC: "private"}, Network: container.Network{Mode: "mine", Links: []string{"mine:db"}},
		Security:    container.Security{CapDrop: []string{"ALL"}, SecurityOpt: []string{"no-new-privileges"}, Sysctls: map[string]string{"net.core.somaxconn": "1"}},
		VolumesFrom: []string{"mine:ro"}, Runtime: "berth", Resources: container.Resources{Memory: 1, OOMScoreAdj: 5}, Log: container.Log{Options: map[string]string{"max-size": "1m", "cache-disabled": "true"}},
	}, world{})
	if err != nil {
		t.Fatal(err)
	}
	if got.Labels["team"] != "a" || got.Mounts[2].VolumeLabels["team"] != "a" || got.Namespaces.PID != "container:m1" || got.VolumesFrom[0] != "m1:ro" || got.Network.Links[0] != "m1:db" {
		t.Errorf("%+v", got)
	}
	if e := got.Network.Endpoints; len(e) != 1 || e[0].Network != "mine" || e[0].ID != "n1" {
		t.Errorf("its network is not fixed: %+v", e)
	}
	again, err := p.Container(container.Spec{Network: container.Network{Mode: "mine", Endpoints: []network.EndpointSpec{{Network: "bridge"}, {Network: "mine", Aliases: []string{"db"}}}}}, world{})
	if e := again.Network.Endpoints; err != nil || len(e) != 2 || e[0].ID != "" || e[1].ID != "n1" {
		t.Errorf("%v: %+v", err, e)
	}
	for _, source := range []string{"/srv/www/x", "/srv", "/run/docker.sock"} { // beneath, above, and the engine's own
		if _, err := p.Container(container.Spec{Mounts: []container.Mount{{Type: "bind", Source: source}}}, world{}); err == nil {
			t.Errorf("%s may be mounted", source)
		}
	}
}

func TestOtherThings(t *testing.T) {
	p := &Policy{Name: "ci", Verbs: []Verb{Create}, Label: "team=a"}
	for _, r := range []volume.CreateRequest{{Name: "theirs"}, {Name: "n", Driver: "nfs"}, {Name: "n", Options: map[string]string{"o": "bind"}}, {Name: "n", Labels: map[string]string{"team": "b"}}} {
		if _, err := p.VolumeCreate(r, world{}); !fault.Is(err, fault.Forbidden) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	if r, err := p.VolumeCreate(volume.CreateRequest{Name: "n", Options: map[string]string{"size": "1g"}}, world{}); err != nil || r.Labels["team"] != "a" {
		t.Errorf("%+v: %v", r, err)
	}
	for _, r := range []network.CreateRequest{
		{Driver: "macvlan"}, {Options: map[string]string{"com.docker.network.bridge.name": "docker0"}}, {Options: map[string]string{"parent": "eth0"}}, {ConfigFrom: "x"},
		{IPAM: network.IPAM{Pools: []network.Pool{{Subnet: netip.MustParsePrefix("8.8.8.0/24")}}}}, {Labels: map[string]string{"team": "b"}},
	} {
		if _, err := p.NetworkCreate(r); !fault.Is(err, fault.Forbidden) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	if r, err := p.NetworkCreate(network.CreateRequest{Name: "n", Driver: "bridge"}); err != nil || r.Labels["team"] != "a" {
		t.Errorf("%+v: %v", r, err)
	}
	if err := p.Exec(&container.ExecSpec{Privileged: true}); !fault.Is(err, fault.Forbidden) {
		t.Error(err)
	}
	if got := HideEnvironment([]string{"A=b=c", "D"}); !slices.Equal(got, []string{"A=" + Hidden, "D"}) {
		t.Error(got)
	}
}

// Somebody must have thought about each field of a container's specification: one that is not listed here fails.
func TestEveryFieldIsJudged(t *testing.T) {
	judged := strings.Fields(judgedFields)
	var all []string
	var walk func(at string, typ reflect.Type)
	walk = func(at string, typ reflect.Type) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			name := strings.TrimPrefix(at+"."+f.Name, ".")
			if f.Type.Kind() == reflect.Struct && f.Type.PkgPath() == reflect.TypeFor[container.Spec]().PkgPath() {
				walk(name, f.Type)
				continue
			}
			all = append(all, name)
		}
	}
	walk("", reflect.TypeFor[container.Spec]())
	walk("Mount", reflect.TypeFor[container.Mount]())
	walk("ExecSpec", reflect.TypeFor[container.ExecSpec]())
	for _, name := range all {
		if !slices.Contains(judged, name) {
			t.Errorf("%s: is it a way out of a container, or into another's? Check it in spec.go, or list it here as harmless", name)
		}
	}
	for _, name := range judged {
		if !slices.Contains(all, name) {
			t.Errorf("%s is no field any more", name)
		}
	}
}

// judgedFields are all fields, those that are checked and those that are harmless.
const judgedFields = `
Image ImageID Platform Labels Annotations Process.Entrypoint Process.Cmd Process.ArgsEscaped Process.Env Process.WorkingDir Process.User
Process.GroupAdd Process.Umask Process.TTY Hostname Domainname Mounts Namespaces.PID Namespaces.IPC Namespaces.UTS Namespaces.User Namespaces.Cgroup
Resources.Memory Resources.MemoryReservation Resources.MemorySwap Resources.MemorySwappiness Resources.KernelMemory Resources.KernelMemoryTCP
Resources.NanoCPUs Resources.CPUShares Resources.CPUPeriod Resources.CPUQuota Resources.CPURealtimePeriod Resources.CPURealtimeRuntime
Resources.CpusetCpus Resources.CpusetMems Resources.PidsLimit Resources.BlkioWeight Resources.BlkioWeightDevice Resources.BlkioDeviceReadBps
Resources.BlkioDeviceWriteBps Resources.BlkioDeviceReadIOps Resources.BlkioDeviceWriteIOps Resources.OOMKillDisable Resources.OOMScoreAdj
Resources.Ulimits Resources.Devices Resources.DeviceCgroupRules Resources.DeviceRequests Resources.CgroupParent Resources.ShmSize Security.Privileged
Security.CapAdd Security.CapDrop Security.SecurityOpt Security.ReadonlyRootfs Security.Sysctls Security.MaskedPaths Security.ReadonlyPaths
Security.UsernsMode Network.Mode Network.DNS Network.DNSSearch Network.DNSOptions Network.ExtraHosts Network.MacAddress Network.Disabled
Network.Endpoints Network.Ports Network.PublishAll Network.Links Network.Rate Network.Weight Log.Driver Log.Options Restart.Name Restart.MaxRetries
AutoRemove StorageOpt StopSignal StopTimeout OpenStdin StdinOnce AttachStdin AttachStdout AttachStderr ConsoleSize Plugin Init Runtime Healthcheck
OnBuild Shell Volumes ExposedPorts VolumesFrom VolumeDriver ContainerIDFile Mount.Type Mount.Source Mount.Target Mount.ReadOnly Mount.Propagation
Mount.Mode Mount.Relabel Mount.FromBinds Mount.FromTmpfs Mount.Consistency Mount.NonRecursive Mount.CreateMountpoint Mount.ReadOnlyNonRecursive
Mount.ReadOnlyForceRecursive Mount.IDMap Mount.Driver Mount.DriverOptions Mount.VolumeLabels Mount.NoCopy Mount.Subpath Mount.FromImage
Mount.FromContainer Mount.Anonymous Mount.Path Mount.TmpfsSize Mount.TmpfsMode Mount.TmpfsOptions ExecSpec.Cmd ExecSpec.Env ExecSpec.WorkingDir
ExecSpec.User ExecSpec.Privileged ExecSpec.TTY ExecSpec.AttachStdin ExecSpec.AttachStdout ExecSpec.AttachStderr ExecSpec.DetachKeys
ExecSpec.ConsoleSize
`

func TestPlainTag(t *testing.T) {
	for tag, plain := range map[string]bool{
		"": true, "web": true, "{{.Name}}": true, "a/{{ .ID }}-{{.FullID}}{": true, "{x}": true,
		"{{range .ContainerEnv}}{{end}}": false, "{{.Name}}{{printf `%9d` 1}}": false, "{{{.Name}}": false, "{{define `a`}}{{end}}": false, "{{- .Name}}": false, "{{.ContainerEnv|json}}": false,
	} {
		if plainTag.MatchString(tag) != plain {
			t.Errorf("%q", tag)
		}
	}
}
