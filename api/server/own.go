package server

import (
	"context"
	"io"
	"net/http"

	networktypes "github.com/moby/moby/api/types/network"

	"berth/api/server/wire"
	"berth/base/fault"
	"berth/network"
)

// The routes below /berth/v1 that belong to networks, ports and volumes. openapi.json describes them.

// handsOver moves published ports from one container to another in one step: connections that exist stay where they are. An engine whose
// Containers are not this cannot.
type handsOver interface {
	HandOverPorts(ctx context.Context, from, to string, ports []network.PortSpec) ([]network.Port, error)
}

// carries are the verbs on volumes that Docker has not.
type carries interface {
	Export(ctx context.Context, name string, w io.Writer) error
	// Import makes a volume that is not there, and leaves nothing when it fails.
	Import(ctx context.Context, name string, r io.Reader) error
	Clone(ctx context.Context, from, to string) error
	Snapshot(ctx context.Context, name, snapshot string) error
	Rename(ctx context.Context, name, to string) error
}

func networkRules(s *Server, c *call) error {
	rules := s.cfg.Networks.Rules()
	if rules == "" {
		rules = "# This engine writes no firewall rules: it was started with --iptables=false.\n"
	}
	return c.body(http.StatusOK, "text/plain; charset=utf-8", []byte(rules))
}

// exposure is one way to a container.
type exposure struct {
	ContainerID string   `json:"containerID"` // "" for all containers of the network, as the name
	Container   string   `json:"container"`
	NetworkID   string   `json:"networkID"`
	Network     string   `json:"network"`
	Protocol    string   `json:"protocol"` // "" for all
	Port        uint16   `json:"port"`     // 0 for all
	Target      string   `json:"target"`   // the container's address
	Host        string   `json:"host"`     // what a client connects to
	Reach       string   `json:"reach"`    // from where
	Rule        string   `json:"rule"`
	Notes       []string `json:"notes"`
}

// portAudit says who can reach which container from where, and which rule lets them.
func portAudit(s *Server, c *call) error {
	out, names := []exposure{}, map[string]string{}
	for _, n := range s.cfg.Networks.List() {
		for _, e := range s.endpoints(c.ctx(), n.ID) {
			names[e.ContainerID] = e.Container
		}
	}
	for _, e := range s.cfg.Networks.Audit() {
		one := exposure{
			ContainerID: e.ContainerID, Container: names[e.ContainerID], NetworkID: e.NetworkID, Network: e.Network, Protocol: e.Proto, Port: e.Port,
			Host: e.Host, Reach: e.Reach, Rule: e.Rule, Notes: nonNil(e.Notes),
		}
		if e.Target.IsValid() {
			one.Target = e.Target.String()
		}
		if e.ContainerID != "" && one.Container == "" {
			one.Container = e.ContainerID[:min(12, len(e.ContainerID))]
		}
		out = append(out, one)
	}
	return c.json(http.StatusOK, struct {
		Exposures []exposure `json:"exposures"`
	}{out})
}

// portChange is the body of POST /berth/v1/containers/NAME/ports and of …/ports/hand-over. Ports and bindings are written as in Docker's
// HostConfig.PortBindings.
type portChange struct {
	Publish   networktypes.PortMap `json:"publish"`
	Unpublish networktypes.PortMap `json:"unpublish"` // a binding without an address or a port means every one
	To        string               `json:"to"`        // of a hand-over: the container that gets the ports
	Ports     networktypes.PortMap `json:"ports"`     // of a hand-over: which; none: all
}

// livePorts is the answer to both.
type livePorts struct {
	Ports networktypes.PortMap `json:"ports"`
}

func containerPorts(s *Server, c *call) error {
	var r portChange
	if err := c.strict(&r); err != nil {
		return err
	}
	if r.To != "" || r.Ports != nil || len(r.Publish)+len(r.Unpublish) == 0 {
		return fault.New(fault.Invalid, "say what to publish or to unpublish")
	}
	add, err := wire.Ports(r.Publish)
	if err != nil {
		return err
	}
	remove, err := wire.Ports(r.Unpublish)
	if err != nil {
		return err
	}
	if _, err := s.cfg.Containers.PublishPorts(c.ctx(), c.name, add, remove); err != nil {
		return err
	}
	return s.answerPorts(c, c.name)
}

func containerPortsHandOver(s *Server, c *call) error {
	mover, ok := s.cfg.Containers.(handsOver)
	if !ok {
		return fault.New(fault.NotImplemented, "handing ports over is not in this build of Berth")
	}
	var r portChange
	if err := c.strict(&r); err != nil {
		return err
	}
	if r.To == "" || r.Publish != nil || r.Unpublish != nil {
		return fault.New(fault.Invalid, "say to which container the ports go, and which ports")
	}
	ports, err := wire.Ports(r.Ports)
	if err != nil {
		return err
	}
	if _, err := mover.HandOverPorts(c.ctx(), c.name, r.To, ports); err != nil {
		return err
	}
	return s.answerPorts(c, r.To)
}

// answerPorts tells what of a container is published now.
func (s *Server) answerPorts(c *call, name string) error {
	info, err := s.cfg.Containers.Inspect(c.ctx(), name)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, livePorts{wire.LivePorts(&info)})
}

// strict reads a body of Berth's own API, in which nothing may be unknown.
func (c *call) strict(into any) error {
	unknown, there, err := c.decode(into)
	switch {
	case err != nil:
		return err
	case !there:
		return fault.New(fault.Invalid, "the request has no body")
	case len(unknown) > 0:
		return fault.New(fault.Invalid, "%s is no field here", unknown[0])
	}
	return nil
}

// volumeExport sends a volume's content as a tar archive. A failure after the first byte breaks the connection: an archive that ends
// well is whole.
func volumeExport(s *Server, c *call) error {
	if _, err := s.cfg.Volumes.Get(c.ctx(), c.name); err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", "application/x-tar")
	return s.cfg.Volumes.Export(c.ctx(), c.name, &firstWrite{c: c})
}

// firstWrite sends the status with the first byte, so that a failure before it is told as one.
type firstWrite struct{ c *call }

func (f *firstWrite) Write(b []byte) (int, error) {
	if !f.c.began {
		f.c.begin(http.StatusOK)
	}
	return f.c.w.Write(b)
}

// volumeImport fills an empty volume from a tar archive. One that is not there is made.
func volumeImport(s *Server, c *call) error {
	if err := s.cfg.Volumes.Import(c.ctx(), c.name, c.r.Body); err != nil {
		return err
	}
	return s.answerVolume(c, http.StatusOK, c.name)
}

func volumeClone(s *Server, c *call) error    { return s.derive(c, s.cfg.Volumes.Clone) }
func volumeSnapshot(s *Server, c *call) error { return s.derive(c, s.cfg.Volumes.Snapshot) }
func volumeRename(s *Server, c *call) error   { return s.derive(c, s.cfg.Volumes.Rename) }

// derive makes another volume of one, under the name that the body gives.
func (s *Server) derive(c *call, verb func(ctx context.Context, from, to string) error) error {
	var r struct {
		Name string `json:"name"`
	}
	if err := c.strict(&r); err != nil {
		return err
	}
	if r.Name == "" {
		return fault.New(fault.Invalid, "name: the new volume needs one")
	}
	if err := verb(c.ctx(), c.name, r.Name); err != nil {
		return err
	}
	return s.answerVolume(c, http.StatusCreated, r.Name)
}

func (s *Server) answerVolume(c *call, code int, name string) error {
	v, err := s.cfg.Volumes.Get(c.ctx(), name)
	if err != nil {
		return err
	}
	return c.json(code, wire.Volume(&v))
}
