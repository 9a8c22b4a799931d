package server

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	containertypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/registry"

	"berth/base/fault"
	"berth/base/id"
	"berth/base/ref"
	"berth/build"
	"berth/build/exec"
)

// buildOptions is what the query and the headers of POST /build ask for.
type buildOptions struct {
	version    buildVersion
	remote     string // where the context is; "": in the request's body
	dockerfile string
	quiet      bool
	args       map[string]bool // names of the build arguments
	request    build.Request
	auth       map[string]registry.AuthConfig
}

// buildOptions reads them, and refuses what cannot be honoured.
func (s *Server) buildOptions(c *call) (*buildOptions, error) {
	o := &buildOptions{version: classicBuilder, remote: c.text("remote"), dockerfile: c.text("dockerfile"), quiet: c.flag("q"), args: map[string]bool{}, auth: map[string]registry.AuthConfig{}}
	switch v := c.text("version"); v {
	case "", "1":
	case "2":
		o.version = buildKit
	default:
		return nil, fault.New(fault.Invalid, "invalid version %s", v)
	}
	if i := c.text("isolation"); i != "" && i != "default" {
		return nil, fault.New(fault.Invalid, "isolation %q is one of Windows' alone", i)
	}
	r := &o.request
	r.ID, r.Session, r.Frontend = c.text("buildid"), c.text("session"), "dockerfile.v0"
	if r.ID == "" {
		r.ID = id.New()
	}
	attrs := map[string]string{}
	r.FrontendAttrs = attrs
	if o.dockerfile != "" {
		attrs["filename"] = o.dockerfile
	}
	put := func(key, value string) {
		if value != "" {
			attrs[key] = value
		}
	}
	put("target", c.text("target"))
	if p := c.text("platform"); p != "" {
		if _, err := platforms.ParseAll(strings.Split(p, ",")); err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "")
		}
		attrs["platform"] = p
	}
	if c.flag("nocache") {
		attrs["no-cache"] = ""
	}
	if c.flag("pull") {
		attrs["image-resolve-mode"] = "pull"
	}
	if err := errors.Join(
		fromJSON(c, "buildargs", func(args map[string]*string) error {
			for k, v := range args {
				o.args[k] = true
				if v != nil { // an argument without a value takes the client's environment, which has been asked
					attrs["build-arg:"+k] = *v
				}
			}
			return nil
		}),
		fromJSON(c, "labels", func(labels map[string]string) error {
			for k, v := range labels {
				attrs["label:"+k] = v
			}
			return nil
		}),
		fromJSON(c, "cachefrom", func(refs []string) error {
			for _, ref := range refs {
				r.CacheImports = append(r.CacheImports, build.Cache{Type: "registry", Attrs: map[string]string{"ref": ref}})
			}
			return nil
		}),
	); err != nil {
		return nil, err
	}
	hosts, err := extraHosts(c.q["extrahosts"], s.hostGateway)
	if err != nil {
		return nil, err
	}
	put("add-hosts", hosts)
	switch mode := c.text("networkmode"); mode {
	case "", "default", "bridge":
	case "host":
		attrs["force-network-mode"] = mode
		r.Entitlements = append(r.Entitlements, "network.host")
	case "none":
		attrs["force-network-mode"] = mode
	default:
		if o.version == buildKit { // which could not do it, and whose clients expect to hear that
			return nil, fault.New(fault.Invalid, "network mode %q not supported by buildkit: use default, host or none", mode)
		}
		r.Limits.Network = mode
	}
	if err := limitsOf(c, &r.Limits); err != nil {
		return nil, err
	}
	if err := exportersOf(c, r); err != nil {
		return nil, err
	}
	// As with Docker, credentials that cannot be read count as none.
	if header := c.r.Header.Get("X-Registry-Config"); header != "" {
		if b, err := base64.URLEncoding.DecodeString(header); err != nil || json.Unmarshal(b, &o.auth) != nil {
			s.log.Debug("credentials of a build cannot be read", "error", err)
			o.auth = map[string]registry.AuthConfig{}
		}
	}
	return o, nil
}

// fromJSON reads a value of the query that is JSON.
func fromJSON[T any](c *call, key string, use func(T) error) error {
	text := c.text(key)
	if text == "" || text == "null" {
		return nil
	}
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return fault.Wrap(fault.Invalid, err, "error reading %s", key)
	}
	return use(v)
}

// hostGateway is the host's address for steps: its end of the default bridge.
func (s *Server) hostGateway() string {
	if s.cfg.Networks == nil {
		return ""
	}
	bridge, err := s.cfg.Networks.Get("bridge")
	if err != nil {
		return ""
	}
	for _, p := range bridge.IPAM.Pools {
		if p.Gateway.Is4() {
			return p.Gateway.String()
		}
	}
	return ""
}

// extraHosts turns NAME:ADDRESS into what frontends take, NAME=ADDRESS with commas between.
func extraHosts(list []string, gateway func() string) (string, error) {
	var out []string
	for _, h := range list {
		name, addr, ok := strings.Cut(h, ":")
		if !ok {
			name, addr, ok = strings.Cut(h, "=")
		}
		if !ok || name == "" || net.ParseIP(strings.Trim(addr, "[]")) == nil && addr != "host-gateway" {
			return "", fault.New(fault.Invalid, "bad format for add-host: %q", h)
		}
		if addr == "host-gateway" {
			if addr = gateway(); addr == "" {
				return "", fault.New(fault.Invalid, "host-gateway has no meaning here: there is no default network")
			}
		}
		out = append(out, name+"="+strings.Trim(addr, "[]"))
	}
	return strings.Join(out, ","), nil
}

// limitsOf reads what a step may use.
func limitsOf(c *call, l *exec.Limits) error {
	read := func(key string, set func(n int64)) error {
		text := c.text(key)
		if text == "" {
			return nil
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return fault.Wrap(fault.Invalid, err, "%s must be a number", key)
		}
		set(n)
		return nil
	}
	l.CpusetCpus, l.CpusetMems, l.CgroupParent = c.text("cpusetcpus"), c.text("cpusetmems"), c.text("cgroupparent")
	for _, o := range c.q["securityopt"] {
		switch o {
		case "no-new-privileges", "no-new-privileges:true", "no-new-privileges=true":
			l.NoNewPrivileges = true
		case "seccomp=unconfined", "seccomp:unconfined":
			l.SeccompUnconfined = true
		case "apparmor=unconfined", "apparmor:unconfined":
			l.ApparmorUnconfined = true
		case "label=disable", "label:disable":
			l.LabelsDisabled = true
		default:
			return fault.New(fault.Invalid, "security option %q is not supported for builds", o)
		}
	}
	return errors.Join(
		read("memory", func(n int64) { l.Memory = n }),
		read("memswap", func(n int64) { l.MemorySwap = n }),
		read("cpushares", func(n int64) { l.CPUShares = uint64(max(n, 0)) }),
		read("cpuperiod", func(n int64) { l.CPUPeriod = uint64(max(n, 0)) }),
		read("cpuquota", func(n int64) { l.CPUQuota = n }),
		read("shmsize", func(n int64) { l.ShmSize = n }),
		fromJSON(c, "ulimits", func(list []*containertypes.Ulimit) error {
			for _, u := range list {
				if u != nil {
					l.Ulimits = append(l.Ulimits, exec.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
				}
			}
			return nil
		}),
	)
}

// exportersOf reads where the result goes: into the image store under its names, or where "outputs" says.
func exportersOf(c *call, r *build.Request) error {
	var names []string
	for _, n := range c.q["t"] {
		name, err := buildName(n)
		if err != nil {
			return err
		}
		names = append(names, name.String())
	}
	moby := build.Exporter{Type: "moby", Attrs: map[string]string{"name": strings.Join(names, ",")}}
	if c.flag("squash") {
		moby.Attrs["squash"] = "true"
	}
	r.Exporters = []build.Exporter{moby}
	return fromJSON(c, "outputs", func(list []struct {
		Type  string
		Attrs map[string]string
	}) error {
		if len(list) == 0 {
			return nil
		}
		r.Exporters = nil
		for _, o := range list {
			if o.Type == "" {
				o.Type = "moby"
			}
			if o.Attrs == nil {
				o.Attrs = map[string]string{}
			}
			if _, named := o.Attrs["name"]; !named && len(names) > 0 && (o.Type == "moby" || o.Type == "image") {
				o.Attrs["name"] = strings.Join(names, ",")
			}
			r.Exporters = append(r.Exporters, build.Exporter{Type: o.Type, Attrs: o.Attrs})
		}
		return nil
	})
}

// buildName reads a name for the result; one without a tag is for "latest".
func buildName(text string) (ref.Ref, error) {
	r, err := ref.ParseTagged(text)
	return r, fault.Wrap(fault.Invalid, err, "invalid tag %q", text)
}
