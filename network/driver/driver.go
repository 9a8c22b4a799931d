package driver

import (
	"context"
	"net"
	"net/netip"
	"os"

	"berth/kernel/link"
)

// Driver is one kind of network.
type Driver interface {
	Traits() Traits
	// Check tells what is wrong with a network that is to be made, in Docker's words, beside those of the same driver that
	// exist. It looks at nothing but its arguments.
	Check(n Network, others []Network) error
	// Create makes what the host needs for the network, as far as it is not there.
	Create(ctx context.Context, n Network) error
	// Delete takes away what Create made.
	Delete(ctx context.Context, n Network) error
	// Join puts a link of the network into a container's namespace. On an error nothing is left.
	Join(ctx context.Context, n Network, r Request) (Attachment, error)
	// Leave takes away what Join made, in whatever state. The namespace may be gone.
	Leave(ctx context.Context, n Network, l Left) error
}

// Publisher is a driver that leads traffic to published ports by itself. Others have it done by the firewall, or not at all.
type Publisher interface {
	// Publish replaces the ports that are published for an endpoint; none withdraws them.
	Publish(ctx context.Context, n Network, l Left, ports []Port) error
}

// Traits say what is done with a driver's networks by others.
type Traits struct {
	Single    bool // there is one network of it, made by the engine: host, null
	Addresses bool // containers get addresses of our ipam, else of the driver, or none
	Gateway   bool // a gateway is chosen where the user gave none
	HostSide  bool // the host has an address in it: traffic of containers goes through the host and its firewall
	Ports     bool // ports can be published
	Names     bool // containers find each other by name, where the network is not the default one
}

// Network is a network as its driver sees it.
type Network struct {
	ID, Name     string
	IPv4, IPv6   bool
	Internal     bool
	Pools        []Pool
	Options      map[string]string // as given; a driver's own words
	Labels       map[string]string
	MTU          int    // what links get whose network has no size of its own
	Bridge       string // of the bridge driver: its link's name
	Default      bool   // it is the network "bridge"
	IPAMOptions  map[string]string
	DefaultAlloc bool // its subnets were chosen by us
}

// Pool is a subnet.
type Pool struct {
	Subnet, Range netip.Prefix
	Gateway       netip.Addr
	Aux           map[string]netip.Addr
}

// Request is what a container asks of a network, with what was chosen for it.
type Request struct {
	EndpointID    string
	SandboxID     string
	ContainerID   string
	ContainerName string
	Key           string     // path of the namespace
	NS            *os.File   // the namespace
	In            *link.Conn // rtnetlink in it
	Interface     string     // name that the link shall have in it
	MAC           net.HardwareAddr
	IPv4, IPv6    netip.Prefix
	Gateway4      netip.Addr
	Gateway6      netip.Addr
	Default       bool // this endpoint has the default route
	Options       map[string]string
	Ports         []Port // published through it: for drivers that are Publishers
	Rate          uint64 // bits a second each way; 0: no limit
	Weight        uint16 // share of the network's bandwidth; 0: none asked
}

// Port is a published port.
type Port struct {
	Proto    string
	HostIP   netip.Addr
	HostPort uint16
	Port     uint16
}

// Attachment is a container's place on a network, as its driver made it.
type Attachment struct {
	Interface string // in the namespace; "" the network has no link
	HostLink  string // on the host; "" none
	MAC       net.HardwareAddr
	IPv4      netip.Prefix
	IPv6      netip.Prefix
	Gateway4  netip.Addr // zero: no default route of that family through this network
	Gateway6  netip.Addr
	OnLink    bool // the default route goes to the link itself, without gateway: ipvlan l3
	Routes    []Route
	DNS       []string // servers of the network
	Search    []string
	Done      bool              // addresses, routes and state are set already
	Keep      map[string]string // what the driver wants to have at Leave
}

// Route is a route that a network gives to its containers.
type Route struct {
	To  netip.Prefix `json:"to"`
	Via netip.Addr   `json:"via,omitzero"` // zero: on the link
}

// Left is an endpoint that is to be taken away.
type Left struct {
	EndpointID, SandboxID, ContainerID string
	ContainerName                      string
	Key                                string   // path of the namespace; what is there may be gone
	NS                                 *os.File // nil: it is gone
	Interface, HostLink                string
	IPv4, IPv6                         netip.Prefix
	Options                            map[string]string
	Keep                               map[string]string
	Ending                             bool // the whole namespace is about to go: links in it need no care
}

// HostLink gives the name of an endpoint's link on the host: the same in every life of the engine, so that what a crash
// left can be found.
func HostLink(endpointID string) string { return "veth" + endpointID[:min(7, len(endpointID))] }
