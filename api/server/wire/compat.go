package wire

import (
	"net"
	"path"
	"strings"

	containertypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	networktypes "github.com/moby/moby/api/types/network"

	"berth/base/fault"
)

// shim brings the request to what it means at the client's API version: what came later is taken out, old defaults are put in.
// See docs/CHANGELOG.md of Docker's API.
func (r *CreateRequest) shim(v Version) (warnings []string) {
	c, h := r.Config, &r.HostConfig
	if len(r.Cmd) == 0 {
		r.Cmd = nil // the image's
	}
	c.Cmd, c.Entrypoint = r.Cmd, r.Entrypoint
	h.HostConfig.CapAdd, h.HostConfig.CapDrop = h.CapAdd, h.CapDrop
	if h.NetworkMode == "" || h.NetworkMode.IsDefault() {
		h.NetworkMode = networktypes.NetworkBridge
		if e, ok := r.NetworkingConfig.EndpointsConfig[networktypes.NetworkDefault]; ok {
			delete(r.NetworkingConfig.EndpointsConfig, networktypes.NetworkDefault)
			r.NetworkingConfig.EndpointsConfig[networktypes.NetworkBridge] = e
		}
	}
	if v < 25 {
		h.AutoRemove = false // the client removes
	}
	if v < 40 {
		if h.IpcMode.IsEmpty() {
			h.IpcMode = containertypes.IPCModeShareable
		}
		h.KernelMemoryTCP = 0
	}
	if h.KernelMemory != 0 && v < 42 {
		warnings = append(warnings, noKernelLimit)
	}
	h.KernelMemory = 0
	if v < 42 {
		h.ConsoleSize = [2]uint{}
	}
	if v < 43 {
		h.Annotations = nil
	}
	if v < 44 && c.Healthcheck != nil {
		c.Healthcheck.StartInterval = 0
	}
	if v >= 52 {
		h.KernelMemoryTCP = 0
	}
	if v < 56 {
		h.Umask = nil
	}
	for _, e := range r.NetworkingConfig.EndpointsConfig {
		if e != nil && v < 48 {
			e.GwPriority = 0
		}
		if e != nil && v < 44 {
			e.MacAddress = nil
		}
	}
	for i := range h.Mounts {
		shimMount(&h.Mounts[i], v)
	}
	if h.PidsLimit != nil && *h.PidsLimit <= 0 {
		h.PidsLimit = nil
	}
	if path.IsAbs(c.WorkingDir) {
		c.WorkingDir = path.Clean(c.WorkingDir)
	}
	if s := h.MemorySwappiness; s != nil && *s == -1 {
		h.MemorySwappiness = nil
	}
	if h.NetworkMode.IsHost() && len(h.PortBindings) > 0 {
		h.PortBindings = nil
		warnings = append(warnings, "Published ports are discarded when using host network mode")
	}
	if empty := fillBindings(h.PortBindings); len(empty) > 0 && v >= 52 {
		warnings = append(warnings, "Following container port(s) have an empty list of port-bindings: "+strings.Join(empty, ", ")+". Such bindings will be discarded in a future version.")
	}
	if v >= 48 && ignoresVolumeDriver(h) {
		warnings = append(warnings, "WARNING: the container-wide volume-driver configuration is ignored for volumes specified via 'mount'. Use '--mount type=volume,volume-driver=...' instead")
	}
	return warnings
}

// fillBindings gives a port with an empty list of bindings the one binding to any port that Docker gives it, and names such ports.
func fillBindings(m networktypes.PortMap) (filled []string) {
	for _, p := range sortedPorts(m) {
		if len(m[p]) == 0 {
			m[p] = []networktypes.PortBinding{{}}
			filled = append(filled, p.String())
		}
	}
	return filled
}

// ignoresVolumeDriver reports whether the driver for all volumes meets a volume for which it does not count.
func ignoresVolumeDriver(h *HostConfig) bool {
	for _, m := range h.Mounts {
		if h.VolumeDriver != "" && m.Type == mount.TypeVolume && (m.VolumeOptions == nil || m.VolumeOptions.DriverConfig == nil || m.VolumeOptions.DriverConfig.Name == "") {
			return true
		}
	}
	return false
}

func shimMount(m *mount.Mount, v Version) {
	if b := m.BindOptions; b != nil {
		if v < 40 {
			b.NonRecursive = false
		}
		if v < 42 {
			b.CreateMountpoint = false
		}
		if v < 44 {
			b.ReadOnlyNonRecursive = false // all are
		}
	}
	if v < 42 {
		if m.Type != mount.TypeVolume {
			m.VolumeOptions = nil
		}
		if m.Type != mount.TypeTmpfs {
			m.TmpfsOptions = nil
		}
	}
	if v < 46 && m.TmpfsOptions != nil {
		m.TmpfsOptions.Options = nil
	}
}

// check says in Docker's words what is wrong with the request as a request. What is wrong with its values the engine says, which
// has other doors, too.
func (r *CreateRequest) check(v Version) error {
	c, h := r.Config, &r.HostConfig
	bad := func(format string, args ...any) error { return fault.New(fault.Invalid, format, args...) }

	if err := checkNetwork(c, h); err != nil {
		return err
	}
	for _, m := range h.Mounts {
		switch {
		case m.VolumeOptions != nil && m.Type != mount.TypeVolume:
			return bad("VolumeOptions must not be specified on mount type %q", m.Type)
		case m.BindOptions != nil && m.Type != mount.TypeBind && v >= 42:
			return bad("BindOptions must not be specified on mount type %q", m.Type)
		case m.TmpfsOptions != nil && m.Type != mount.TypeTmpfs:
			return bad("TmpfsOptions must not be specified on mount type %q", m.Type)
		case v < 44 && m.BindOptions != nil && m.BindOptions.ReadOnlyForceRecursive:
			return bad("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")
		case v < 45 && m.VolumeOptions != nil && m.VolumeOptions.Subpath != "":
			return bad("VolumeOptions.Subpath needs API v1.45 or newer")
		case v < 48 && m.Type == mount.TypeImage:
			return bad("Mount type %q needs API v1.48 or newer", "Image")
		}
	}
	if n := len(r.NetworkingConfig.EndpointsConfig); v < 44 && n > 1 {
		return bad("Container cannot be created with multiple network endpoints: %s", strings.Join(sortedKeys(r.NetworkingConfig.EndpointsConfig), ", "))
	}
	switch {
	case !h.Isolation.IsValid():
		return bad("invalid isolation (%s): linux only supports 'default'", h.Isolation)
	case h.IOMaximumBandwidth != 0:
		return bad("invalid option: QoS maximum bandwidth configuration is not supported on linux (HostConfig.IOMaximumBandwidth)")
	case h.IOMaximumIOps != 0:
		return bad("invalid option: QoS maximum IOPs configuration is not supported on linux (HostConfig.IOMaximumIOps)")
	}
	if _, has := h.Annotations[""]; has {
		return bad("invalid Annotations: the empty string is not permitted as an annotation key")
	}
	return checkHosts(h.ExtraHosts)
}

// checkNetwork refuses settings that exclude each other.
func checkNetwork(c *containertypes.Config, h *HostConfig) error {
	conflict := func(text string) error { return fault.New(fault.Invalid, "conflicting options: %s", text) }
	if h.UTSMode.IsHost() && c.Hostname != "" {
		return conflict("hostname and the UTS mode")
	}
	if h.NetworkMode.IsHost() && len(h.Links) > 0 {
		return conflict("host type networking can't be used with links. This would result in undefined behavior")
	}
	if !h.NetworkMode.IsContainer() && h.NetworkMode != "container" {
		return nil
	}
	switch {
	case h.NetworkMode.ConnectedContainer() == "":
		return fault.New(fault.Invalid, "invalid network mode: invalid container format container:<name|id>")
	case c.Hostname != "":
		return conflict("hostname and the network mode")
	case len(h.Links) > 0:
		return conflict("container type network can't be used with links. This would result in undefined behavior")
	case len(h.DNS) > 0:
		return conflict("dns and the network mode")
	case len(h.ExtraHosts) > 0:
		return conflict("custom host-to-IP mapping and the network mode")
	case len(h.PortBindings) > 0 || h.PublishAllPorts:
		return conflict("port publishing and the container type network mode")
	case len(c.ExposedPorts) > 0:
		return conflict("port exposing and the container type network mode")
	}
	return nil
}

func checkHosts(hosts []string) error {
	for _, h := range hosts {
		name, address, ok := strings.Cut(h, ":")
		if !ok || name == "" {
			return fault.New(fault.Invalid, "bad format for add-host: %q", h)
		}
		if address == "host-gateway" {
			continue
		}
		if net.ParseIP(strings.TrimSuffix(strings.TrimPrefix(address, "["), "]")) == nil {
			return fault.New(fault.Invalid, "invalid IP address in add-host: %q", address)
		}
	}
	return nil
}
