package runline

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// Source is what is known of a container.
type Source struct {
	Container container.InspectResponse
	Image     *v1.DockerOCIImageConfig // of the image it was made from; nil where that is gone
	Defaults  Defaults
}

// Defaults are what the engine does where nothing is asked.
type Defaults struct {
	Runtime   string
	CgroupNS  string // "host" or "private"
	LogDriver string
}

// Of gives the line that would make the container again.
func Of(s Source) Line {
	b := builder{c: s.Container.Config, h: s.Container.HostConfig, s: &s, img: s.Image}
	if b.c == nil {
		b.c = &container.Config{}
	}
	if b.h == nil {
		b.h = &container.HostConfig{}
	}
	if b.img == nil {
		b.img = &v1.DockerOCIImageConfig{}
	}
	for _, part := range []func(){b.identity, b.process, b.networks, b.mounts, b.limits, b.devices, b.security, b.namespaces, b.health, b.rest} {
		part()
	}
	b.command()
	return b.Line
}

// builder collects a line.
type builder struct {
	Line
	c   *container.Config
	h   *container.HostConfig
	img *v1.DockerOCIImageConfig
	s   *Source
}

// text adds a flag whose value is not empty.
func (b *builder) text(flag, value string) {
	if value != "" {
		b.add(flag, value)
	}
}

func (b *builder) yes(flag string, set bool) {
	if set {
		b.bare(flag)
	}
}

// count adds a flag whose value is not 0.
func (b *builder) count(flag string, n int64) {
	if n != 0 {
		b.add(flag, strconv.FormatInt(n, 10))
	}
}

func (b *builder) each(flag string, values []string) {
	for _, v := range values {
		b.add(flag, v)
	}
}

// pairs adds name=value for each entry that is not in other.
func (b *builder) pairs(flag string, m, other map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if v, ok := other[name]; !ok || v != m[name] {
			b.add(flag, name+"="+m[name])
		}
	}
}

func (b *builder) identity() {
	b.yes("detach", !b.c.AttachStdout && !b.c.AttachStderr)
	b.yes("interactive", b.c.OpenStdin)
	b.yes("tty", b.c.Tty)
	b.text("name", strings.TrimPrefix(b.s.Container.Name, "/"))
	if id := b.s.Container.ID; b.c.Hostname != "" && !strings.HasPrefix(id, b.c.Hostname) && !b.h.NetworkMode.IsHost() && !b.h.UTSMode.IsHost() {
		b.add("hostname", b.c.Hostname)
	}
	b.text("domainname", b.c.Domainname)
	b.yes("rm", b.h.AutoRemove)
	if p := b.h.RestartPolicy; p.Name != "" && p.Name != "no" {
		value := string(p.Name)
		if p.MaximumRetryCount > 0 {
			value += ":" + strconv.Itoa(p.MaximumRetryCount)
		}
		b.add("restart", value)
	}
}

func (b *builder) process() {
	if b.c.User != b.img.User {
		b.text("user", b.c.User)
	}
	if b.c.WorkingDir != b.img.WorkingDir {
		b.text("workdir", b.c.WorkingDir)
	}
	for _, kv := range b.c.Env {
		if !slices.Contains(b.img.Env, kv) {
			b.add("env", kv)
		}
	}
	b.pairs("label", b.c.Labels, b.img.Labels)
	b.each("group-add", b.h.GroupAdd)
	if b.c.StopSignal != b.img.StopSignal {
		b.text("stop-signal", b.c.StopSignal)
	}
	if b.c.StopTimeout != nil {
		b.add("stop-timeout", strconv.Itoa(*b.c.StopTimeout))
	}
	if b.h.Init != nil {
		b.add("init", strconv.FormatBool(*b.h.Init))
	}
	if b.h.Umask != nil {
		b.add("umask", "0"+strconv.FormatUint(uint64(*b.h.Umask), 8))
	}
}

// command gives the image, the entrypoint and the words after the image. --entrypoint takes one word: what an image or a client of the API
// gave more of goes before the command, which is the same to run.
func (b *builder) command() {
	b.Image = b.c.Image
	if slices.Equal(b.c.Entrypoint, b.img.Entrypoint) {
		if !slices.Equal(b.c.Cmd, b.img.Cmd) {
			b.Args = b.c.Cmd
		}
		return
	}
	if len(b.c.Entrypoint) == 0 {
		b.add("entrypoint", "")
		b.Args = b.c.Cmd
		return
	}
	b.add("entrypoint", b.c.Entrypoint[0])
	b.Args = slices.Concat(b.c.Entrypoint[1:], b.c.Cmd)
	if len(b.c.Entrypoint) > 1 {
		b.note("the entrypoint has several words: all but the first stand before the command")
	}
}

func (b *builder) networks() {
	mode := string(b.h.NetworkMode)
	ends := map[string]*network.EndpointSettings{}
	if n := b.s.Container.NetworkSettings; n != nil && b.h.NetworkMode.IsUserDefined() {
		maps.Copy(ends, n.Networks)
	}
	if mode != "" && mode != "default" && mode != "bridge" || len(ends) > 1 {
		b.network(mode, ends[mode])
		delete(ends, mode)
		for _, name := range slices.Sorted(maps.Keys(ends)) {
			b.network(name, ends[name])
		}
	}
	for _, p := range sorted(b.h.PortBindings) {
		for _, at := range b.h.PortBindings[p] {
			value := p.String()
			if at.HostIP.IsValid() {
				host := at.HostIP.String()
				if at.HostIP.Is6() {
					host = "[" + host + "]"
				}
				value = host + ":" + at.HostPort + ":" + value
			} else if at.HostPort != "" {
				value = at.HostPort + ":" + value
			}
			b.add("publish", value)
		}
	}
	b.yes("publish-all", b.h.PublishAllPorts)
	for _, p := range sorted(b.c.ExposedPorts) {
		_, byImage := b.img.ExposedPorts[p.String()]
		if _, published := b.h.PortBindings[p]; !published && !byImage {
			b.add("expose", p.String())
		}
	}
	for _, a := range b.h.DNS {
		b.add("dns", a.String())
	}
	b.each("dns-option", b.h.DNSOptions)
	b.each("dns-search", b.h.DNSSearch)
	b.each("add-host", b.h.ExtraHosts)
	for _, l := range b.h.Links { // "/other:/this/alias"
		other, alias, _ := strings.Cut(strings.TrimPrefix(l, "/"), ":")
		b.add("link", other+":"+alias[strings.LastIndexByte(alias, '/')+1:])
	}
}

func sorted[V any](m map[network.Port]V) []network.Port {
	return slices.SortedFunc(maps.Keys(m), func(a, b network.Port) int {
		if n := int(a.Num()) - int(b.Num()); n != 0 {
			return n
		}
		return strings.Compare(string(a.Proto()), string(b.Proto()))
	})
}

// network adds one network, with what was asked for in it.
func (b *builder) network(name string, e *network.EndpointSettings) {
	fields := []string{"name=" + name}
	if e != nil {
		for _, a := range e.Aliases {
			if !strings.HasPrefix(b.s.Container.ID, a) || len(a) != 12 { // older engines list the short id
				fields = append(fields, "alias="+a)
			}
		}
		if c := e.IPAMConfig; c != nil {
			if c.IPv4Address.IsValid() {
				fields = append(fields, "ip="+c.IPv4Address.String())
			}
			if c.IPv6Address.IsValid() {
				fields = append(fields, "ip6="+c.IPv6Address.String())
			}
			for _, a := range c.LinkLocalIPs {
				fields = append(fields, "link-local-ip="+a.String())
			}
		}
		for _, k := range slices.Sorted(maps.Keys(e.DriverOpts)) {
			fields = append(fields, "driver-opt="+k+"="+e.DriverOpts[k])
		}
		if e.GwPriority != 0 {
			fields = append(fields, "gw-priority="+strconv.Itoa(e.GwPriority))
		}
		if mac := e.MacAddress.String(); mac != "" && !e.IPAddress.IsValid() { // while it runs nobody can tell a given one from a made one
			fields = append(fields, "mac-address="+mac)
		}
		for _, l := range e.Links {
			b.add("link", l)
		}
	}
	if len(fields) == 1 {
		b.add("network", name)
		return
	}
	b.add("network", csv(fields))
}

// csv joins fields as encoding/csv reads them.
func csv(fields []string) string {
	out := make([]string, len(fields))
	for i, f := range fields {
		if strings.ContainsAny(f, ",\"\n") {
			f = `"` + strings.ReplaceAll(f, `"`, `""`) + `"`
		}
		out[i] = f
	}
	return strings.Join(out, ",")
}

func (b *builder) health() {
	h := b.c.Healthcheck
	if h == nil {
		return
	}
	img := b.img.Healthcheck
	if img == nil {
		img = &v1.HealthcheckConfig{}
	}
	switch {
	case slices.Equal(h.Test, img.Test):
	case len(h.Test) > 0 && h.Test[0] == "NONE":
		b.bare("no-healthcheck")
		return
	case len(h.Test) == 2 && h.Test[0] == "CMD-SHELL":
		b.add("health-cmd", h.Test[1])
	case len(h.Test) == 2 && h.Test[0] == "CMD" && strings.Contains(h.Test[1], ":") && !strings.ContainsAny(h.Test[1], " \t"):
		b.add("health-cmd", h.Test[1])
	case len(h.Test) > 1:
		words := slices.Clone(h.Test[1:])
		for i, w := range words {
			words[i] = Quote(w)
		}
		b.add("health-cmd", strings.Join(words, " "))
		b.note("the health check runs without a shell; --health-cmd has one")
	}
	for _, d := range []struct {
		flag      string
		value, of interface{ String() string }
	}{
		{"health-interval", h.Interval, img.Interval}, {"health-timeout", h.Timeout, img.Timeout},
		{"health-start-period", h.StartPeriod, img.StartPeriod}, {"health-start-interval", h.StartInterval, img.StartInterval},
	} {
		if v := d.value.String(); v != "0s" && v != d.of.String() {
			b.add(d.flag, v)
		}
	}
	if h.Retries != img.Retries {
		b.count("health-retries", int64(h.Retries))
	}
}

func (b *builder) rest() {
	if b.h.LogConfig.Type != b.s.Defaults.LogDriver || len(b.h.LogConfig.Config) > 0 {
		b.text("log-driver", b.h.LogConfig.Type)
		b.pairs("log-opt", b.h.LogConfig.Config, nil)
	}
	if b.h.Runtime != b.s.Defaults.Runtime {
		b.text("runtime", b.h.Runtime)
	}
	b.pairs("annotation", b.h.Annotations, nil)
	b.pairs("storage-opt", b.h.StorageOpt, nil)
	b.text("cidfile", b.h.ContainerIDFile)
	if len(b.c.OnBuild) > 0 && !slices.Equal(b.c.OnBuild, b.img.OnBuild) {
		b.note("ONBUILD triggers cannot be given: " + strings.Join(b.c.OnBuild, "; "))
	}
	if len(b.c.Shell) > 0 && !slices.Equal(b.c.Shell, b.img.Shell) {
		words, _ := json.Marshal(b.c.Shell) // texts always encode
		b.note("the shell cannot be given: " + string(words))
	}
}
