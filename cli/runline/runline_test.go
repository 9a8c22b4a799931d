package runline

import (
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/pflag"
)

func flags() *pflag.FlagSet {
	f := pflag.NewFlagSet("create", pflag.ContinueOnError)
	f.StringP("memory", "m", "", "")
	f.StringArrayP("env", "e", nil, "")
	f.StringArrayP("volume", "v", nil, "")
	f.StringArrayP("publish", "p", nil, "")
	f.String("mount", "", "")
	f.String("entrypoint", "", "")
	f.Bool("privileged", false, "")
	return f
}

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"--memory 1g": "--memory=1g", "memory=1g": "--memory=1g", "-m 1g": "--memory=1g", "m=1g": "--memory=1g", "-e A=b c": "--env=A=b c",
		"privileged": "--privileged", "--privileged=false": "--privileged=false", "--entrypoint=": "--entrypoint=", " -p  80:80 ": "--publish=80:80",
		"memory": "", "": "", "--": "", "nothing=1": "", "x": "",
	} {
		o, err := Parse(text, flags())
		if want == "" && err == nil || want != "" && (err != nil || o.String() != want) {
			t.Errorf("%q: %v %v, want %q", text, o, err, want)
		}
	}
}

func TestWithAndWithout(t *testing.T) {
	l := Line{Options: []Option{{Flag: "env", Value: "A=1"}, {Flag: "env", Value: "B=1"}, {Flag: "memory", Value: "1g"}, {Flag: "volume", Value: "a:/x:ro"}, {Flag: "publish", Value: "1:1"}}}
	for _, text := range []string{"-e A=2", "-m 2g", "--mount type=tmpfs,target=/x", "-p 2:2", "-e C=3", "-p 2:2"} {
		o, err := Parse(text, flags())
		if err != nil {
			t.Fatal(err)
		}
		l.With(o, flags())
	}
	want := "--env=A=2 --env=B=1 --memory=2g --mount=type=tmpfs,target=/x --publish=1:1 --publish=2:2 --env=C=3"
	if got := texts(l.Options); got != want {
		t.Errorf("with: %s", got)
	}
	for _, c := range []struct {
		o    Option
		done bool
	}{
		{Option{Flag: "env", Value: "B"}, true}, {Option{Flag: "env", Value: "C=3"}, true}, {Option{Flag: "mount", Value: "/x"}, true}, {Option{Flag: "publish", Bare: true}, true},
		{Option{Flag: "publish", Bare: true}, false}, {Option{Flag: "env", Value: "Z"}, false},
	} {
		if l.Without(c.o) != c.done {
			t.Errorf("without %v", c.o)
		}
	}
	if got := texts(l.Options); got != "--env=A=2 --memory=2g" {
		t.Errorf("without: %s", got)
	}
}

func texts(all []Option) string {
	var s []string
	for _, o := range all {
		s = append(s, o.String())
	}
	return strings.Join(s, " ")
}

// TestQuote has a shell read words back.
func TestQuote(t *testing.T) {
	words := []string{"plain", "", "a b", "it's", `"$HOME" \ back`, "new\nline", "~", "*", "-x", "ä", "$(false)", "`false`", "a=b;c", "!", "#"}
	var quoted []string
	for _, w := range words {
		quoted = append(quoted, Quote(w))
	}
	out, err := exec.Command("sh", "-c", `printf '%s\001' `+strings.Join(quoted, " ")).Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Split(strings.TrimSuffix(string(out), "\x01"), "\x01"); !slices.Equal(got, words) {
		t.Errorf("%q", got)
	}
}

func TestOf(t *testing.T) {
	img := &v1.DockerOCIImageConfig{
		ImageConfig: ocispec.ImageConfig{
			User: "app", Env: []string{"PATH=/bin", "A=1"}, Entrypoint: []string{"/start", "now"}, Cmd: []string{"serve"}, WorkingDir: "/srv",
			Labels: map[string]string{"by": "image"}, ExposedPorts: map[string]struct{}{"80/tcp": {}}, Volumes: map[string]struct{}{"/data": {}},
		},
		DockerOCIImageConfigExt: v1.DockerOCIImageConfigExt{Healthcheck: &v1.HealthcheckConfig{Test: []string{"CMD", "ok"}, Interval: time.Second}},
	}
	base := func() container.InspectResponse {
		return container.InspectResponse{
			ID: strings.Repeat("ab", 32), Name: "/web",
			Config: &container.Config{
				Image: "shop", User: "app", Env: []string{"PATH=/bin", "A=1"}, Entrypoint: []string{"/start", "now"}, Cmd: []string{"serve"}, WorkingDir: "/srv", Hostname: "abababababab",
				Labels: map[string]string{"by": "image"}, Volumes: map[string]struct{}{"/data": {}}, ExposedPorts: network.PortSet{network.MustParsePort("80/tcp"): {}},
				Healthcheck: &container.HealthConfig{Test: []string{"CMD", "ok"}, Interval: time.Second}, AttachStdout: true,
			},
			HostConfig: &container.HostConfig{
				NetworkMode: "bridge", IpcMode: "private", CgroupnsMode: "private", Runtime: "berth", ShmSize: 64 << 20, LogConfig: container.LogConfig{Type: "json-file"},
				RestartPolicy: container.RestartPolicy{Name: "no"},
			},
		}
	}
	for _, c := range []struct {
		name   string
		change func(*container.InspectResponse)
		want   string
	}{
		{"nothing but the image", func(*container.InspectResponse) {}, "--name=web shop"},
		{"another command", func(r *container.InspectResponse) { r.Config.Cmd = []string{"x", "-y"} }, "--name=web shop x -y"},
		{"no entrypoint", func(r *container.InspectResponse) { r.Config.Entrypoint, r.Config.Cmd = nil, []string{"sh"} }, "--name=web --entrypoint= shop sh"},
		{"entrypoint of two words", func(r *container.InspectResponse) { r.Config.Entrypoint = []string{"a", "b"} }, "--name=web --entrypoint=a shop b serve"},
		{"the policy that Docker has not", func(r *container.InspectResponse) {
			r.HostConfig.RestartPolicy = container.RestartPolicy{Name: "on-unhealthy", MaximumRetryCount: 3}
		}, "--name=web --restart=on-unhealthy:3 shop"},
		{"no check", func(r *container.InspectResponse) { r.Config.Healthcheck.Test = []string{"NONE"} }, "--name=web --no-healthcheck shop"},
		{"a question", func(r *container.InspectResponse) {
			r.Config.Healthcheck = &container.HealthConfig{Test: []string{"CMD-SHELL", "http:80/x"}, Interval: time.Minute, Retries: 2}
		}, "--name=web --health-cmd=http:80/x --health-interval=1m0s --health-retries=2 shop"},
		{"a check without a shell", func(r *container.InspectResponse) { r.Config.Healthcheck.Test = []string{"CMD", "a b", "c"} }, "--name=web --health-cmd='a b' c shop"},
		{"ports", func(r *container.InspectResponse) {
			r.HostConfig.PortBindings = network.PortMap{
				network.MustParsePort("80/tcp"): {{HostPort: "8080"}, {HostIP: netip.MustParseAddr("::1"), HostPort: "81"}}, network.MustParsePort("53/udp"): {{}},
			}
		}, "--name=web --publish=53/udp --publish=8080:80/tcp --publish=[::1]:81:80/tcp shop"},
		{"two networks", func(r *container.InspectResponse) {
			r.HostConfig.NetworkMode = "front"
			r.NetworkSettings = &container.NetworkSettings{Networks: map[string]*network.EndpointSettings{
				"front": {Aliases: []string{"www", "abababababab"}, IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr("10.1.2.3")}}, "back": {},
			}}
		}, "--name=web --network=name=front,alias=www,ip=10.1.2.3 --network=back shop"},
		{"a profile of system calls", func(r *container.InspectResponse) {
			r.HostConfig.SecurityOpt = []string{`seccomp={"defaultAction":"x"}`}
		}, "--name=web --security-opt=seccomp=seccomp.json shop"},
		{"processors and memory", func(r *container.InspectResponse) {
			r.HostConfig.NanoCPUs, r.HostConfig.Memory, r.HostConfig.MemorySwap = 1_500_000_000, 1<<20, 2<<20
		}, "--name=web --memory=1048576 --cpus=1.5 shop"},
		{"another host name", func(r *container.InspectResponse) { r.Config.Hostname = "h" }, "--name=web --hostname=h shop"},
	} {
		r := base()
		c.change(&r)
		l := Of(Source{Container: r, Image: img, Defaults: Defaults{Runtime: "berth", CgroupNS: "private", LogDriver: "json-file"}})
		if got := strings.Join(l.Words(), " "); got != c.want {
			t.Errorf("%s:\n %s\nwant\n %s", c.name, got, c.want)
		}
		if notes := len(l.Notes); (notes > 0) != slices.Contains([]string{"entrypoint of two words", "a check without a shell", "a profile of system calls"}, c.name) {
			t.Errorf("%s: %q", c.name, l.Notes)
		}
	}
	Of(Source{}) // an answer without anything is no reason to die
}

func FuzzParse(f *testing.F) {
	f.Add("--env A=b")
	f.Fuzz(func(t *testing.T, s string) {
		if o, err := Parse(s, flags()); err == nil && o.Flag == "" {
			t.Errorf("%q", s)
		}
	})
}
