package wire

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"

	containertypes "github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"

	"berth/base/fault"
	"berth/engine/container"
	"berth/network"
)

// networks gives what the request says about the container's network.
func (r *CreateRequest) networks() (n container.Network, warnings []string, err error) {
	c, h := r.Config, &r.HostConfig
	n = container.Network{
		Mode: string(h.NetworkMode), DNS: addresses(h.DNS), DNSSearch: h.DNSSearch, DNSOptions: h.DNSOptions, ExtraHosts: h.ExtraHosts,
		Disabled: c.NetworkDisabled, PublishAll: h.PublishAllPorts,
	}
	if n.Ports, err = Ports(h.PortBindings); err != nil {
		return n, nil, err
	}
	for _, text := range h.Links {
		link, err := parseLink(text)
		if err != nil {
			return n, nil, err
		}
		n.Links = append(n.Links, link)
	}
	asked := r.NetworkingConfig.EndpointsConfig
	if !private(h.NetworkMode) || h.NetworkMode.IsNone() {
		return n, nil, checkNoEndpoints(h.NetworkMode, asked, n.Links)
	}
	if _, named := asked[h.NetworkMode.NetworkName()]; !named && len(asked) > 0 && h.NetworkMode.IsBridge() {
		// As in Docker: endpoints say it all, and a mode that nobody chose adds nothing.
		n.Mode = sortedKeys(asked)[0]
	}
	for _, name := range sortedKeys(asked) {
		at := fmt.Sprintf("NetworkingConfig.EndpointsConfig[%q]", name)
		e, more, err := Endpoint(name, asked[name], at)
		if err != nil {
			return n, nil, fault.New(fault.KindOf(err), "invalid config for network %s: invalid endpoint settings:\n%v", name, err)
		}
		warnings = append(warnings, more...)
		if name == n.Mode { // the first of them
			n.Endpoints = append([]network.EndpointSpec{e}, n.Endpoints...)
		} else {
			n.Endpoints = append(n.Endpoints, e)
		}
	}
	if len(n.Endpoints) == 0 {
		n.Endpoints = []network.EndpointSpec{{Network: n.Mode}}
	}
	if main := &n.Endpoints[0]; len(n.Links) > 0 && n.Mode != networktypes.NetworkBridge {
		// Links of the container are the default bridge's. On other networks they are a matter of the endpoint.
		if main.Network != n.Mode {
			return n, nil, fault.New(fault.Invalid, "HostConfig.Links: HostConfig.NetworkMode must match the identity of a network in NetworkSettings.Networks")
		}
		if len(main.Links) == 0 {
			main.Links = n.Links
		}
		n.Links = nil
	}
	return n, warnings, nil
}

// Endpoint gives what settings ask of a container's place on a network. What is in them that only an answer has is named in warnings:
// clients send what inspect gave them. at is the place of the settings in the request.
func Endpoint(name string, s *networktypes.EndpointSettings, at string) (e network.EndpointSpec, warnings []string, err error) {
	e.Network = name
	if s == nil {
		return e, nil, nil
	}
	if name == networktypes.NetworkBridge && len(s.Aliases) > 0 {
		return e, nil, fault.New(fault.Invalid, "network-scoped alias is supported only for containers in user defined networks")
	}
	e.Aliases, e.Options, e.MAC, e.GwPriority = s.Aliases, s.DriverOpts, macText(s.MacAddress), s.GwPriority
	for _, text := range s.Links {
		link, err := parseLink(text)
		if err != nil {
			return e, nil, err
		}
		e.Links = append(e.Links, link)
	}
	if c := s.IPAMConfig; c != nil {
		e.IPv4, e.IPv6, e.LinkLocal = c.IPv4Address.Unmap(), c.IPv6Address, c.LinkLocalIPs
		switch {
		case e.IPv4.IsValid() && !e.IPv4.Is4():
			return e, nil, fault.New(fault.Invalid, "invalid IPv4 address: %s", c.IPv4Address)
		case e.IPv6.IsValid() && (!e.IPv6.Is6() || e.IPv6.Is4In6()):
			return e, nil, fault.New(fault.Invalid, "invalid IPv6 address: %s", c.IPv6Address)
		}
	}
	if set := answers(s, &e); len(set) > 0 {
		warnings = append(warnings, at+": "+strings.Join(set, ", ")+" is what the engine tells, not what it is asked, and was ignored")
	}
	return e, warnings, nil
}

// answers names the settings that are in answers only. An address that says what was asked for is none: Compose sends both.
func answers(s *networktypes.EndpointSettings, e *network.EndpointSpec) (set []string) {
	v := reflect.ValueOf(*s)
	for _, name := range []string{"NetworkID", "EndpointID", "Gateway", "IPAddress", "IPPrefixLen", "IPv6Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "DNSNames"} {
		asked := name == "IPAddress" && s.IPAddress == e.IPv4 || name == "GlobalIPv6Address" && s.GlobalIPv6Address == e.IPv6
		if firstSet(v.FieldByName(name), name) != "" && !asked {
			set = append(set, name)
		}
	}
	return set
}

// checkNoEndpoints refuses settings for endpoints where there is none.
func checkNoEndpoints(m containertypes.NetworkMode, asked map[string]*networktypes.EndpointSettings, links []string) error {
	for _, name := range sortedKeys(asked) {
		at := fmt.Sprintf("NetworkingConfig.EndpointsConfig[%q]", name)
		if name != m.NetworkName() || m.IsContainer() {
			return fault.New(fault.Invalid, "%s: conflicting options: a container in network mode %q has no endpoint of its own on a network", at, m)
		}
		s := asked[name]
		if s == nil {
			continue
		}
		for _, f := range []struct {
			set bool
			why string
		}{
			{s.IPAMConfig != nil && firstSet(reflect.ValueOf(s.IPAMConfig), "") != "", "IPAMConfig: user specified IP address is supported on user defined networks only"},
			{len(s.Aliases) > 0, "Aliases: network-scoped alias is supported only for containers in user defined networks"},
			{len(s.Links) > 0, "Links: they need a network of the container's own"},
			{len(s.MacAddress) > 0, "MacAddress: conflicting options: mac-address and the network mode"},
			{len(s.DriverOpts) > 0, "DriverOpts: they need a network of the container's own"},
			{s.GwPriority != 0, "GwPriority: it needs a network of the container's own"},
		} {
			if f.set {
				return fault.New(fault.Invalid, "invalid config for network %s: invalid endpoint settings:\n%s.%s", name, at, f.why)
			}
		}
	}
	if m.IsNone() && len(links) > 0 {
		return fault.New(fault.Invalid, "HostConfig.Links: conflicting options: links and the network mode")
	}
	return nil
}

// parseLink reads "container", "container:alias" or, as inspect shows it, "/container:/name/alias", and gives "container:alias".
func parseLink(text string) (string, error) {
	if text == "" {
		return "", fault.New(fault.Invalid, "empty string specified for links")
	}
	name, alias, ok := strings.Cut(text, ":")
	switch {
	case strings.Contains(alias, ":") || ok && (name == "" || alias == ""):
		return "", fault.New(fault.Invalid, "bad format for links: %s", text)
	case !ok:
		alias = name
	case strings.HasPrefix(name, "/"):
		name, alias = name[1:], path.Base(alias)
	}
	return name + ":" + alias, nil
}

// shownLinks gives the default bridge's links as inspect shows them.
func shownLinks(links []string, name string) (out []string) {
	for _, l := range links {
		to, alias, _ := strings.Cut(l, ":")
		out = append(out, "/"+to+":/"+name+"/"+alias)
	}
	return out
}

// private reports whether a container in this mode has a network namespace that is nobody else's.
func private(m containertypes.NetworkMode) bool {
	return !m.IsHost() && !m.IsContainer() && m != "container"
}

// userDefined reports whether a network of this name was made by a user.
func userDefined(name string) bool {
	return containertypes.NetworkMode(name).IsUserDefined()
}

// networkSettings is what inspect shows of the container's network.
func networkSettings(i *container.Info, ids NetworkIDs, v Version) *containertypes.NetworkSettings {
	n := &containertypes.NetworkSettings{SandboxID: i.Sandbox.ID, SandboxKey: i.Sandbox.Key, Ports: LivePorts(i), Networks: map[string]*networktypes.EndpointSettings{}}
	if i.Sandbox.ID == "" && i.State.Pid != 0 && !i.Spec.Network.IsContainer() {
		// The host's network, or one with nothing but loopback: not the network room's.
		n.SandboxID, n.SandboxKey = i.ID, "/proc/"+strconv.Itoa(i.State.Pid)+"/ns/net"
	}
	eachEndpoint(i, func(name string, spec *network.EndpointSpec, live *network.Endpoint) {
		e := settings(spec, live)
		e.Aliases, e.Links, e.DriverOpts = spec.Aliases, spec.Links, spec.Options
		if userDefined(name) && live != nil {
			e.DNSNames = live.Names
		}
		if userDefined(name) && v < 45 {
			// The short id was an alias like others once.
			short := i.ID[:min(12, len(i.ID))]
			e.Aliases = unique(append(slices.Clone(e.Aliases), short, cmp.Or(i.Spec.Hostname, short)))
		}
		n.Networks[name] = withID(e, i, name, ids)
	})
	return n
}

// withID adds the id of a network that the container was on, to what is shown of one that does not run. One that was never started has
// no ids in Docker's answers either.
func withID(e *networktypes.EndpointSettings, i *container.Info, name string, ids NetworkIDs) *networktypes.EndpointSettings {
	if e.NetworkID == "" && !i.State.StartedAt.IsZero() {
		e.NetworkID = ids.of(name)
	}
	return e
}

// networkSummary is what the list of containers shows of it.
func networkSummary(i *container.Info, ids NetworkIDs) *containertypes.NetworkSettingsSummary {
	n := &containertypes.NetworkSettingsSummary{Networks: map[string]*networktypes.EndpointSettings{}}
	eachEndpoint(i, func(name string, spec *network.EndpointSpec, live *network.Endpoint) {
		n.Networks[name] = withID(settings(spec, live), i, name, ids)
	})
	return n
}

// eachEndpoint visits the networks that the container is on, or will be, by name. live is nil while it does not run.
func eachEndpoint(i *container.Info, visit func(name string, spec *network.EndpointSpec, live *network.Endpoint)) {
	n := &i.Spec.Network
	switch {
	case n.IsContainer() || n.Disabled:
		return
	case n.Name() == networktypes.NetworkHost, n.Name() == networktypes.NetworkNone:
		visit(n.Name(), &network.EndpointSpec{}, nil)
		return
	}
	if i.Sandbox.ID != "" {
		for k := range i.Sandbox.Endpoints {
			live := &i.Sandbox.Endpoints[k]
			visit(live.NetworkName, &live.Spec, live)
		}
		return
	}
	for k := range n.Endpoints {
		visit(n.Endpoints[k].Network, &n.Endpoints[k], nil)
	}
	if n.Endpoints == nil {
		visit(n.Name(), &network.EndpointSpec{}, nil)
	}
}

// settings gives an endpoint's addresses, asked and given.
func settings(spec *network.EndpointSpec, live *network.Endpoint) *networktypes.EndpointSettings {
	e := &networktypes.EndpointSettings{GwPriority: spec.GwPriority, MacAddress: parseMAC(spec.MAC)}
	if spec.IPv4.IsValid() || spec.IPv6.IsValid() || len(spec.LinkLocal) > 0 {
		e.IPAMConfig = &networktypes.EndpointIPAMConfig{IPv4Address: spec.IPv4, IPv6Address: spec.IPv6, LinkLocalIPs: spec.LinkLocal}
	}
	if live == nil {
		return e
	}
	e.NetworkID, e.EndpointID, e.MacAddress = live.NetworkID, live.ID, parseMAC(live.MAC)
	e.Gateway, e.IPAddress, e.IPPrefixLen = live.Gateway4, addrOf(live.IPv4), bitsOf(live.IPv4)
	e.IPv6Gateway, e.GlobalIPv6Address, e.GlobalIPv6PrefixLen = live.Gateway6, addrOf(live.IPv6), bitsOf(live.IPv6)
	return e
}

// mainMAC is the address that was asked for on the network that the container's network mode names; old clients read it.
func mainMAC(n *container.Network) string {
	for _, e := range n.Endpoints {
		if e.Network == n.Name() && e.MAC != "" {
			return e.MAC
		}
	}
	return n.MacAddress
}

// legacyBridge has the fields in which old clients find a container's place on the default bridge.
type legacyBridge struct {
	EndpointID          string
	Gateway             netip.Addr
	GlobalIPv6Address   netip.Addr
	GlobalIPv6PrefixLen int
	IPAddress           netip.Addr
	IPPrefixLen         int
	IPv6Gateway         netip.Addr
	MacAddress          networktypes.HardwareAddr
}

func legacyBridgeOf(e *networktypes.EndpointSettings) (b legacyBridge) {
	if e == nil {
		return b
	}
	return legacyBridge{
		EndpointID: e.EndpointID, Gateway: e.Gateway, GlobalIPv6Address: e.GlobalIPv6Address, GlobalIPv6PrefixLen: e.GlobalIPv6PrefixLen,
		IPAddress: e.IPAddress, IPPrefixLen: e.IPPrefixLen, IPv6Gateway: e.IPv6Gateway, MacAddress: e.MacAddress,
	}
}

// Option names of endpoints that the API's own fields are brought to.
const endpointSysctls = "com.docker.network.endpoint.sysctls"

// moveSysctls brings sysctls of single interfaces, which only exist once the interface does, from the container to the endpoint of its
// network mode. Clients from 1.48 on must do so themselves.
func (r *CreateRequest) moveSysctls(v Version) (warning string, err error) {
	h := &r.HostConfig
	if !private(h.NetworkMode) {
		return "", nil
	}
	var names, moved []string
	for _, name := range sortedKeys(h.Sysctls) {
		part := strings.SplitN(name, ".", 5) // net.ipv4.conf.eth0.log_martians
		if len(part) < 5 || part[0] != "net" || !strings.HasPrefix(part[3], "eth") {
			continue
		}
		if v > 47 {
			return "", fault.New(fault.Invalid, "interface specific sysctl setting %q must be supplied using driver option '%s'", name, endpointSysctls)
		}
		if part[3] != "eth0" {
			return "", fault.New(fault.Invalid, "unable to determine network endpoint for sysctl %s, use driver option '%s' to set per-interface sysctls", name, endpointSysctls)
		}
		names = append(names, name)
		moved = append(moved, fmt.Sprintf("net.%s.%s.IFNAME.%s=%s", part[1], part[2], part[4], h.Sysctls[name]))
	}
	if len(names) == 0 {
		return "", nil
	}
	e, err := r.mainEndpoint(v)
	if err != nil {
		return "", fault.In(err, "unable to find a network for sysctl %s", names[0])
	}
	text := strings.Join(moved, ",")
	warning = fmt.Sprintf("Migrated sysctl %q to DriverOpts{%q:%q}.", strings.Join(names, ","), endpointSysctls, text)
	if old := e.DriverOpts[endpointSysctls]; old != "" {
		text += "," + old // what was asked of the endpoint itself counts more: it comes last
	}
	e.DriverOpts = maps.Clone(e.DriverOpts)
	if e.DriverOpts == nil {
		e.DriverOpts = map[string]string{}
	}
	e.DriverOpts[endpointSysctls] = text
	h.Sysctls = maps.Clone(h.Sysctls)
	for _, name := range names {
		delete(h.Sysctls, name)
	}
	return warning, nil
}

// moveMAC brings the address of the whole container, which clients before 1.52 may send, to the endpoint of its network mode.
func (r *CreateRequest) moveMAC(v Version) (warning string, err error) {
	h := &r.HostConfig
	if r.MacAddress == "" {
		return "", nil
	}
	if v >= 52 {
		r.MacAddress = ""
		return "MacAddress is no field of a container's configuration since API 1.52 and was ignored: it is asked for in NetworkingConfig.EndpointsConfig", nil
	}
	var address networktypes.HardwareAddr
	if err := address.UnmarshalText([]byte(r.MacAddress)); err != nil {
		return "", fault.New(fault.Invalid, "invalid config for network %s: invalid MAC address %s", h.NetworkMode.NetworkName(), r.MacAddress)
	}
	if !private(h.NetworkMode) || h.NetworkMode.IsNone() {
		return "", fault.New(fault.Invalid, "conflicting options: mac-address and the network mode")
	}
	e, err := r.mainEndpoint(v)
	if err != nil {
		return "", fault.In(err, "unable to migrate container-wide MAC address to a specific network")
	}
	if len(e.MacAddress) > 0 && !slices.Equal(e.MacAddress, address) {
		return "", fault.New(fault.Invalid, "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty")
	}
	e.MacAddress = address
	if v < 44 {
		return "", nil
	}
	return "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead.", nil
}

// mainEndpoint gives the settings of the endpoint that the network mode names, which it adds where there are none at all.
func (r *CreateRequest) mainEndpoint(v Version) (*networktypes.EndpointSettings, error) {
	all, name := r.NetworkingConfig.EndpointsConfig, r.HostConfig.NetworkMode.NetworkName()
	if len(all) == 0 {
		all = map[string]*networktypes.EndpointSettings{name: {}}
		r.NetworkingConfig.EndpointsConfig = all
	}
	if v < 44 { // there is one only, whatever it is called
		name = sortedKeys(all)[0]
	}
	if _, ok := all[name]; !ok {
		return nil, fault.New(fault.Invalid, "HostConfig.NetworkMode must match the identity of a network in NetworkSettings.Networks")
	}
	if all[name] == nil {
		all[name] = &networktypes.EndpointSettings{}
	}
	return all[name], nil
}

func unique(in []string) (out []string) {
	for _, s := range in {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}
