package server

import (
	"context"
	"net/http"
	"regexp"
	"slices"
	"strconv"

	networktypes "github.com/moby/moby/api/types/network"

	"berth/api/server/wire"
	"berth/base/event"
	"berth/base/fault"
	"berth/network"
	"berth/network/firewall"
	"berth/network/ipam"
)

// Networks is what the door asks of the network room. A network is named by name, id, or the unique beginning of an id.
type Networks interface {
	Create(ctx context.Context, r network.CreateRequest) (n network.Network, warning string, err error)
	Get(ref string) (network.Network, error)
	List() []network.Network
	Remove(ctx context.Context, ref string) error
	// Endpoints gives the places of running containers on a network.
	Endpoints(networkID string) []network.Endpoint
	// Drivers, Pools (of subnets for new networks) and Firewall ("nftables", "" without) are for info.
	Drivers() []string
	Pools() []ipam.PoolSpec
	Firewall() string
	// Rules prints the firewall's rules that are loaded, in nft's syntax; "" where none are made. Audit says what they let through.
	Rules() string
	Audit() []firewall.Exposure
}

// connects are the verbs that change a container's networks. They hold for its later starts, too.
type connects interface {
	ConnectNetwork(ctx context.Context, network, container string, s network.EndpointSpec) error
	DisconnectNetwork(ctx context.Context, network, container string, force bool) error
	// PublishPorts gives what is published now.
	PublishPorts(ctx context.Context, container string, add, remove []network.PortSpec) ([]network.Port, error)
}

// noNetworks is the answer of an engine that was started without them.
var noNetworks = fault.New(fault.NotImplemented, "networks of one's own are not in this build of Berth")

// needNetworks lets a handler run where there is a network room.
func needNetworks(h handler) handler {
	return func(s *Server, c *call) error {
		if s.cfg.Networks == nil {
			return noNetworks
		}
		return h(s, c)
	}
}

// networkFilters are the filters of GET /networks.
var networkFilters = []string{"dangling", "driver", "id", "label", "name", "scope", "type"}

func networkList(s *Server, c *call) error {
	filters, err := c.filters(networkFilters...)
	if err != nil {
		return err
	}
	match, err := s.networkMatcher(filters)
	if err != nil {
		return err
	}
	out := []any{}
	for _, n := range s.cfg.Networks.List() {
		if !match(&n) {
			continue
		}
		var endpoints []network.Endpoint
		if c.v < 28 {
			endpoints = s.endpoints(c.ctx(), n.ID)
		}
		out = append(out, wire.NetworkSummary(&n, endpoints, c.v))
	}
	return c.json(http.StatusOK, out)
}

// networkMatcher compiles the filters of a list.
func (s *Server) networkMatcher(filters map[string][]string) (func(*network.Network) bool, error) {
	unused := (*bool)(nil)
	switch values := filters["dangling"]; len(values) {
	case 0:
	case 1:
		if !slices.Contains([]string{"0", "1", "false", "true"}, values[0]) {
			return nil, fault.New(fault.Invalid, `invalid value for filter 'dangling', must be "true" (or "1"), or "false" (or "0")`)
		}
		want := values[0] == "1" || values[0] == "true"
		unused = &want
	default:
		return nil, fault.New(fault.Invalid, `got more than one value for filter key "dangling"`)
	}
	for _, v := range filters["type"] {
		if v != "builtin" && v != "custom" {
			return nil, fault.New(fault.Invalid, "invalid filter: 'type'='%s'", v)
		}
	}
	name, id := patterns(filters["name"]), patterns(filters["id"])
	return func(n *network.Network) bool {
		kind := "custom"
		if predefined(n.Name) {
			kind = "builtin"
		}
		return (unused == nil || *unused == s.networkUnused(n)) && (len(filters["type"]) == 0 || slices.Contains(filters["type"], kind)) &&
			(len(filters["driver"]) == 0 || slices.Contains(filters["driver"], n.Driver)) && (len(filters["scope"]) == 0 || slices.Contains(filters["scope"], "local")) &&
			name(n.Name) && id(n.ID) && hasAll(n.Labels, filters["label"])
	}, nil
}

func (s *Server) networkUnused(n *network.Network) bool {
	return !predefined(n.Name) && len(s.cfg.Networks.Endpoints(n.ID)) == 0
}

// predefined reports whether a network of this name is always there.
func predefined(name string) bool {
	return name == networktypes.NetworkBridge || name == networktypes.NetworkHost || name == networktypes.NetworkNone || name == networktypes.NetworkDefault
}

// patterns compiles values of a filter that Docker takes for regular expressions: one of them must fit a part of the text. A value
// that is none must be the text. Go's expressions take time in proportion to the text, whatever they are.
func patterns(values []string) func(text string) bool {
	if len(values) == 0 {
		return func(string) bool { return true }
	}
	var all []*regexp.Regexp
	for _, v := range values {
		if re, err := regexp.Compile(v); err == nil {
			all = append(all, re)
		}
	}
	return func(text string) bool {
		return slices.Contains(values, text) || slices.ContainsFunc(all, func(re *regexp.Regexp) bool { return re.MatchString(text) })
	}
}

// networkInspect tells of one network. Without a network room there is none of any name: `docker inspect NAME` asks every kind of thing for
// the name and goes on after a 404 only.
func networkInspect(s *Server, c *call) error {
	if v := c.text("verbose"); v != "" {
		if _, err := strconv.ParseBool(v); err != nil {
			return fault.Wrap(fault.Invalid, err, "invalid value for verbose: %s", v)
		}
	}
	if scope := c.text("scope"); s.cfg.Networks == nil || scope != "" && scope != "local" {
		return fault.New(fault.NotFound, "network %s not found", c.name)
	}
	n, err := s.cfg.Networks.Get(c.name)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, wire.NetworkInspect(&n, s.endpoints(c.ctx(), n.ID), c.v))
}

// endpoints gives the places of running containers on a network. One that is noted by its container's name alone gets the id here: inspect
// lists by id.
func (s *Server) endpoints(ctx context.Context, networkID string) []network.Endpoint {
	all := slices.Clone(s.cfg.Networks.Endpoints(networkID))
	for i := range all {
		if all[i].ContainerID != "" {
			continue
		}
		if info, err := s.cfg.Containers.Inspect(ctx, all[i].Container); err == nil {
			all[i].ContainerID = info.ID
		}
	}
	return all
}

func networkCreate(s *Server, c *call) error {
	var r wire.NetworkCreateRequest
	unknown, _, err := c.decode(&r)
	if err != nil {
		return err
	}
	n, warning, err := s.cfg.Networks.Create(c.ctx(), r.Request(c.v))
	if err != nil {
		return err
	}
	for _, name := range unknown {
		if warning != "" {
			warning += "; "
		}
		warning += name + " is no field of a network at API " + c.v.String() + " and was ignored"
	}
	return c.json(http.StatusCreated, networktypes.CreateResponse{ID: n.ID, Warning: warning})
}

func networkRemove(s *Server, c *call) error {
	if err := s.cfg.Networks.Remove(c.ctx(), c.name); err != nil {
		return err
	}
	return c.done(http.StatusNoContent)
}

func networkConnect(s *Server, c *call) error {
	var r wire.ConnectRequest
	if _, _, err := c.decode(&r); err != nil {
		return err
	}
	if r.Container == "" {
		return fault.New(fault.Invalid, "invalid name or ID supplied: %q", r.Container)
	}
	e, err := r.Endpoint(c.name, c.v)
	if err != nil {
		return fault.New(fault.KindOf(err), "invalid endpoint settings:\n%v", err)
	}
	if err := s.cfg.Containers.ConnectNetwork(c.ctx(), c.name, r.Container, e); err != nil {
		return err
	}
	return c.done(http.StatusOK)
}

func networkDisconnect(s *Server, c *call) error {
	var r networktypes.DisconnectRequest
	if _, _, err := c.decode(&r); err != nil {
		return err
	}
	if r.Container == "" {
		return fault.New(fault.Invalid, "invalid name or ID supplied: %q", r.Container)
	}
	if err := s.cfg.Containers.DisconnectNetwork(c.ctx(), c.name, r.Container, r.Force); err != nil {
		return err
	}
	return c.done(http.StatusOK)
}

// publish tells an event that no room tells.
func (s *Server) publish(kind, action string, attributes map[string]string) {
	if s.cfg.Events != nil {
		s.cfg.Events.Publish(event.Event{Type: kind, Action: action, Attributes: attributes})
	}
}

// networkIDs gives a function that gives the id of a network, "" where there is none of this name. It asks the room once.
func (s *Server) networkIDs() func(name string) string {
	var ids map[string]string
	return func(name string) string {
		if ids == nil && s.cfg.Networks != nil {
			ids = map[string]string{}
			for _, n := range s.cfg.Networks.List() {
				ids[n.Name] = n.ID
			}
		}
		return ids[name]
	}
}
