package network

import (
	"net/netip"
	"time"

	"berth/kernel/idmap"
)

// Network is what one network is: fixed at its creation, durable, and shown by inspect. A Network that was handed out is not changed.
type Network struct {
	ID      string    `json:"id"` // 64 hex digits
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	Driver  string    `json:"driver"` // "bridge", "macvlan", "ipvlan", "host", "null", "cni" or a plugin's name

	IPv4       bool   `json:"ipv4"`
	IPv6       bool   `json:"ipv6,omitempty"`
	Internal   bool   `json:"internal,omitempty"`   // no way out of it and none in
	Attachable bool   `json:"attachable,omitempty"` // of swarm networks; carried
	Ingress    bool   `json:"ingress,omitempty"`
	ConfigOnly bool   `json:"configOnly,omitempty"` // only a template that others name by ConfigFrom
	ConfigFrom string `json:"configFrom,omitempty"`

	IPAM    IPAM              `json:"ipam"`
	Options map[string]string `json:"options,omitempty"` // the driver's, "com.docker.network.bridge.name" …
	Labels  map[string]string `json:"labels,omitempty"`
}

// IPAM says from where a network's addresses come.
type IPAM struct {
	Driver  string            `json:"driver"` // "default", "null" or a plugin's name
	Options map[string]string `json:"options,omitempty"`
	Pools   []Pool            `json:"pools,omitempty"`
}

// Pool is one range of addresses of a network.
type Pool struct {
	Subnet  netip.Prefix          `json:"subnet"`
	Range   netip.Prefix          `json:"range,omitzero"`   // part of Subnet that containers get addresses from; zero: all of it
	Gateway netip.Addr            `json:"gateway,omitzero"` // the host's address in it; zero: chosen
	Aux     map[string]netip.Addr `json:"aux,omitempty"`    // addresses of others, by name, which no container gets
}

// CreateRequest asks for a network. IPv4 and IPv6 are nil where the client left it to the engine.
type CreateRequest struct {
	Name                                      string
	Driver                                    string // "" bridge
	IPv4, IPv6                                *bool
	Internal, Attachable, Ingress, ConfigOnly bool
	ConfigFrom                                string
	Scope                                     string // "", "local"; others belong to a cluster and are refused
	IPAM                                      IPAM
	Options, Labels                           map[string]string
}

// EndpointSpec is how a container asks to be on one network.
type EndpointSpec struct {
	Network    string            `json:"network"`      // name or id as asked
	ID         string            `json:"id,omitempty"` // the network must be this one: another that has the name since is refused; "": whichever has it
	Aliases    []string          `json:"aliases,omitempty"`
	Links      []string          `json:"links,omitempty"` // "container:alias"
	IPv4       netip.Addr        `json:"ipv4,omitzero"`   // a static address; zero: chosen at each start
	IPv6       netip.Addr        `json:"ipv6,omitzero"`
	LinkLocal  []netip.Addr      `json:"linkLocal,omitempty"`
	MAC        string            `json:"mac,omitempty"`
	Options    map[string]string `json:"options,omitempty"`    // driver options: "com.docker.network.endpoint.ifname", "….sysctls", "berth.rate", "berth.weight"
	GwPriority int               `json:"gwPriority,omitempty"` // the endpoint with the highest gives the default route
}

// PortSpec asks that a port of the container be published on the host.
type PortSpec struct {
	Port      uint16     `json:"port"`            // in the container
	Proto     string     `json:"proto"`           // "tcp", "udp", "sctp"
	HostIP    netip.Addr `json:"hostIP,omitzero"` // zero: the network's default binding addresses
	HostFirst uint16     `json:"hostFirst,omitempty"`
	HostLast  uint16     `json:"hostLast,omitempty"` // any free port of HostFirst to HostLast; both 0: any of the ephemeral range
}

// Port is a port that is published.
type Port struct {
	Port      uint16     `json:"port"` // in the container
	Proto     string     `json:"proto"`
	HostIP    netip.Addr `json:"hostIP"`
	HostPort  uint16     `json:"hostPort"`
	NetworkID string     `json:"networkID"` // of the endpoint it leads to
	Target    netip.Addr `json:"target"`    // the container's address
}

// Want is everything that a container asks of networks.
type Want struct {
	ContainerID string
	Name        string // the container's
	Hostname    string
	Domainname  string

	Mode      string         // "bridge", "host", "none" or a network's name or id: what the first endpoint was asked by; never "container:…"
	Endpoints []EndpointSpec // in the order in which they were asked for; empty for host and none
	Ports     []PortSpec
	Publish   []PortSpec        // exposed ports which --publish-all publishes, HostFirst 0
	DNS       []string          // servers asked for by the container, else the engine's; empty: the host's
	DNSSearch []string          // likewise
	DNSOpts   []string          // likewise
	Sysctls   map[string]string // of the container; those below net. that name an interface are the driver's matter
	Rate      uint64            // bits per second, both ways, for each endpoint that has no rate of its own; 0: no limit
	Weight    uint16            // share of the network's interface, 1 to 1000; 0: 100

	// IDMap is the mapping of the user namespace that the network namespace is to belong to; nil: the engine's own.
	IDMap *idmap.Pair `json:",omitempty"`
	// UserNS is the path of that user namespace where another container lives in it already; "" a new one is made.
	UserNS string `json:",omitempty"`
}

// Sandbox is the network of one running container.
type Sandbox struct {
	ID          string     `json:"id"`  // 64 hex digits
	Key         string     `json:"key"` // path of the network namespace, a bind mount that keeps it
	ContainerID string     `json:"containerID"`
	Endpoints   []Endpoint `json:"endpoints"` // the one with the default route first
	Ports       []Port     `json:"ports,omitempty"`
	Resolver    bool       `json:"resolver,omitempty"` // names are answered at 127.0.0.11
	Upstream    []string   `json:"upstream,omitempty"` // servers that the resolver forwards to
}

// Endpoint is a container's place on one network.
type Endpoint struct {
	ID          string       `json:"id"` // 64 hex digits
	NetworkID   string       `json:"networkID"`
	NetworkName string       `json:"networkName"`
	Spec        EndpointSpec `json:"spec"`
	Interface   string       `json:"interface"` // its name in the container, "eth0"
	HostLink    string       `json:"hostLink,omitempty"`
	MAC         string       `json:"mac,omitempty"`
	IPv4        netip.Prefix `json:"ipv4,omitzero"`
	IPv6        netip.Prefix `json:"ipv6,omitzero"`
	Gateway4    netip.Addr   `json:"gateway4,omitzero"`
	Gateway6    netip.Addr   `json:"gateway6,omitzero"`
	OnLink      bool         `json:"onLink,omitempty"` // its default route has no gateway: the link itself leads outside
	Names       []string     `json:"names,omitempty"`  // by which others on the network find it: container name, short id, aliases
	Container   string       `json:"container"`        // the container's name, for network inspect
	ContainerID string       `json:"containerID"`      // the container's id, by which network inspect lists it
}
