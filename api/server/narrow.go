package server

import (
	"context"
	"maps"
	"regexp"
	"slices"
	"strings"

	"berth/api/access"
	"berth/base/fault"
	"berth/base/removal"
	"berth/engine"
	"berth/engine/container"
	"berth/network"
	"berth/volume"
)

// A server of an access socket is a server whose rooms are narrowed: its handlers are the same, and find only what the policy sees. What
// a path names is looked for in the scope before any handler (gate), and handlers then get the id, so that a name that changes hands in
// between does not lead elsewhere. What is not in the scope is answered like what does not exist.

// gate is what decides about the requests of an access socket.
type gate struct {
	policy *access.Policy
	plain  *Server // with rooms that see everything
}

// Scoped gives a server for an access socket. It has the rooms of s, as far as the policy sees them, and is served and shut down on its
// own.
func (s *Server) Scoped(p *access.Policy) *Server {
	g := &gate{policy: p, plain: s}
	cfg := s.cfg
	cfg.Containers = &narrowContainers{s.cfg.Containers, g}
	if p.Scoped() {
		if cfg.Networks != nil {
			cfg.Networks = &narrowNetworks{s.cfg.Networks, g}
		}
		if cfg.Volumes != nil {
			cfg.Volumes = &narrowVolumes{s.cfg.Volumes, g}
		}
		if cfg.Events != nil {
			cfg.Events = &narrowEvents{s.cfg.Events, g}
		}
		if cfg.Images != nil {
			cfg.Images = &narrowImages{s.cfg.Images}
		}
		if cfg.System != nil {
			cfg.System = &narrowSystem{s.cfg.System, g}
		}
	} else {
		if cfg.Networks != nil {
			cfg.Networks = &checkedNetworks{s.cfg.Networks, p}
		}
		if cfg.Volumes != nil {
			cfg.Volumes = &checkedVolumes{s.cfg.Volumes, g}
		}
	}
	t := New(cfg)
	t.gate = g
	return t
}

// admit decides about a request by its route and by what its path names.
func (g *gate) admit(c *call, to *route) error {
	if g.policy.Expired(g.plain.now()) { // the timer that ends the socket does not see a clock that is set, or a machine asleep
		return fault.New(fault.Forbidden, "access %q: its time is over", g.policy.Name)
	}
	rule := g.plain.rules[to.method+" "+to.path]
	if err := g.policy.Admit(to.method, to.path, rule); err != nil {
		if to.path == "/plugins/{name}/json" {
			// `docker inspect NAME` asks every kind of thing for the name, and stops at any other answer than 404.
			return fault.New(fault.NotFound, "plugin %q not found", c.name)
		}
		return err
	}
	if !g.policy.Scoped() {
		return nil
	}
	if to.path == "/images/create" && c.text("fromSrc") != "" {
		return fault.New(fault.Forbidden, "access %q: importing an image is refused: its name may be what others create containers from, and this socket's scope is %s", g.policy.Name, g.policy.ScopeText())
	}
	switch rule.Reach {
	case access.Container:
		info, ok := g.container(c.ctx(), c.name)
		if !ok {
			return fault.New(fault.NotFound, "No such container: %s", c.name)
		}
		c.name = info.ID
	case access.Execution:
		x, err := g.plain.cfg.Containers.ExecInspect(c.ctx(), c.name)
		if err == nil {
			if _, ok := g.container(c.ctx(), x.ContainerID); ok {
				return nil
			}
		}
		return fault.New(fault.NotFound, "No such exec instance: %s", c.name)
	case access.Volume:
		if g.plain.cfg.Volumes == nil {
			return nil
		}
		if _, ok := g.volume(c.ctx(), c.name); !ok {
			return fault.New(fault.NotFound, "get %s: no such volume", c.name)
		}
	case access.Network:
		if g.plain.cfg.Networks == nil {
			return nil
		}
		n, ok := g.network(c.name)
		if !ok {
			return fault.New(fault.NotFound, "network %s not found", c.name)
		}
		c.name = n.ID
	}
	return nil
}

// container finds a container of the scope by id, name, or a beginning of the id that is unique in the scope.
func (g *gate) container(ctx context.Context, ref string) (*container.Info, bool) {
	all := g.plain.cfg.Containers
	if info, err := all.Inspect(ctx, ref); err == nil && g.sees(&info) {
		return &info, true
	}
	if !g.policy.Scoped() || ref == "" {
		return nil, false
	}
	mine, err := all.List(ctx, engine.ListOptions{All: true, Filters: g.filters(nil)})
	if err != nil {
		return nil, false
	}
	var found *container.Info
	for i := range mine {
		if !strings.HasPrefix(mine[i].ID, ref) || !g.sees(&mine[i]) {
			continue
		}
		if found != nil {
			return nil, false
		}
		found = &mine[i]
	}
	if found == nil {
		return nil, false
	}
	info, err := all.Inspect(ctx, found.ID)
	return &info, err == nil && g.sees(&info)
}

// sees tells whether a container is in the scope. Those of managed plugins are nobody's.
func (g *gate) sees(i *container.Info) bool {
	return i.Spec != nil && g.policy.Sees(i.Spec.Labels) && (i.Spec.Plugin == "" || !g.policy.Scoped())
}

// filters gives a list's filters with the scope's label.
func (g *gate) filters(f container.Filters) container.Filters {
	if !g.policy.Scoped() {
		return f
	}
	out := container.Filters{}
	maps.Copy(out, f)
	out["label"] = append(slices.Clone(out["label"]), g.policy.Selector())
	return out
}

// volume finds a volume of the scope: one with its label, or one that was made for containers of the scope alone.
func (g *gate) volume(ctx context.Context, name string) (volume.Volume, bool) {
	v, err := g.plain.cfg.Volumes.Get(ctx, name)
	return v, err == nil && g.seesVolume(ctx, &v)
}

func (g *gate) seesVolume(ctx context.Context, v *volume.Volume) bool {
	if g.policy.Sees(v.Labels) {
		return true
	}
	users := g.plain.cfg.Containers.VolumeUsers(v.Name)
	if !v.Anonymous || len(users) == 0 {
		return false
	}
	return !slices.ContainsFunc(users, func(id string) bool {
		_, ok := g.container(ctx, id)
		return !ok
	})
}

// network finds a network of the scope, or one that is always there.
func (g *gate) network(ref string) (network.Network, bool) {
	n, err := g.plain.cfg.Networks.Get(ref)
	if err == nil && g.seesNetwork(&n) {
		return n, true
	}
	if !g.policy.Scoped() {
		return network.Network{}, false
	}
	var found []network.Network
	for _, n := range g.plain.cfg.Networks.List() {
		if g.seesNetwork(&n) && (n.Name == ref || ref != "" && strings.HasPrefix(n.ID, ref)) {
			found = append(found, n)
		}
	}
	if len(found) != 1 {
		return network.Network{}, false
	}
	return found[0], true
}

func (g *gate) seesNetwork(n *network.Network) bool {
	return g.policy.Sees(n.Labels) || predefined(n.Name)
}

// narrowContainers are the containers that a policy sees. Methods that take a container's name and stand not here are reached by routes
// whose path names it, after the gate.
type narrowContainers struct {
	Containers
	g *gate
}

// Create makes a container that the policy allows. Its named volumes are made first, with the scope's label.
func (n *narrowContainers) Create(ctx context.Context, name string, s container.Spec) (engine.CreateResult, error) {
	g := n.g
	s, err := g.policy.Container(s, sight{g, ctx})
	if err != nil {
		return engine.CreateResult{}, err
	}
	if g.policy.Scoped() && g.plain.cfg.Volumes != nil {
		for i := range s.Mounts {
			m := &s.Mounts[i]
			if m.Type != "volume" || m.Source == "" {
				continue
			}
			driver := m.Driver
			if driver == "" {
				driver = s.VolumeDriver
			}
			// One that somebody else has made meanwhile is handed back, and is not the scope's.
			v, err := g.plain.cfg.Volumes.Create(ctx, volume.CreateRequest{Name: m.Source, Driver: driver, Labels: m.VolumeLabels, Options: m.DriverOptions})
			if err != nil {
				return engine.CreateResult{}, err
			}
			if !g.seesVolume(ctx, &v) {
				return engine.CreateResult{}, fault.New(fault.Forbidden, "access %q: volume %q is refused: it is not in this socket's scope", g.policy.Name, m.Source)
			}
		}
	}
	made, err := n.Containers.Create(ctx, name, s)
	return made, g.nameTaken(err, name)
}

// Start starts a container of the scope.
func (n *narrowContainers) Start(ctx context.Context, ref string) error {
	return n.g.portTaken(n.Containers.Start(ctx, ref))
}

// Restart stops and starts a container of the scope.
func (n *narrowContainers) Restart(ctx context.Context, ref string, o engine.StopOptions) error {
	return n.g.portTaken(n.Containers.Restart(ctx, ref, o))
}

// portHolder is how the engine says who has a port of the host.
var portHolder = regexp.MustCompile(`(port is already allocated) \([^)]*\)`)

// portTaken says that a port is in use without saying by whom.
func (g *gate) portTaken(err error) error {
	if err == nil || !g.policy.Scoped() || !portHolder.MatchString(err.Error()) {
		return err
	}
	return fault.New(fault.KindOf(err), "%s", portHolder.ReplaceAllString(err.Error(), "$1"))
}

// Rename gives a container of the scope another name.
func (n *narrowContainers) Rename(ctx context.Context, ref, name string) error {
	return n.g.nameTaken(n.Containers.Rename(ctx, ref, name), name)
}

// nameTaken says that a name is in use without saying by whom, as the engine does: it may be anybody's.
func (g *gate) nameTaken(err error, name string) error {
	if !g.policy.Scoped() || !fault.Is(err, fault.Conflict) || name == "" || !strings.Contains(err.Error(), "by container") {
		return err
	}
	return fault.New(fault.Conflict, "Conflict. The container name %q is already in use. You have to remove (or rename) that container to be able to reuse that name.", "/"+strings.TrimPrefix(name, "/"))
}

// Inspect tells of a container of the scope.
func (n *narrowContainers) Inspect(ctx context.Context, ref string) (container.Info, error) {
	info, ok := n.g.container(ctx, ref)
	if !ok && n.g.policy.Scoped() {
		return container.Info{}, fault.New(fault.NotFound, "No such container: %s", ref)
	}
	if !ok {
		return n.Containers.Inspect(ctx, ref) // its own words
	}
	if n.g.policy.Scoped() {
		info.State.Error = portHolder.ReplaceAllString(info.State.Error, "$1")
	}
	if n.g.policy.HideEnv {
		spec := *info.Spec
		spec.Process.Env = access.HideEnvironment(spec.Process.Env)
		info.Spec = &spec
	}
	return *info, nil
}

// List gives the containers of the scope.
func (n *narrowContainers) List(ctx context.Context, o engine.ListOptions) ([]container.Info, error) {
	if n.g.policy.Scoped() {
		for _, ref := range slices.Concat([]string{o.Before, o.Since}, o.Filters["before"], o.Filters["since"]) {
			if _, ok := n.g.container(ctx, ref); ref != "" && !ok {
				return nil, fault.New(fault.NotFound, "No such container: %s", ref)
			}
		}
		o.Filters = n.g.filters(o.Filters)
	}
	return n.Containers.List(ctx, o)
}

// PlanPrune plans for containers of the scope, and tells of no others.
func (n *narrowContainers) PlanPrune(ctx context.Context, f container.Filters) (*removal.Plan, error) {
	plan, err := n.Containers.PlanPrune(ctx, n.g.filters(f))
	if err != nil || !n.g.policy.Scoped() {
		return plan, err
	}
	plan.Spare = slices.DeleteFunc(plan.Spare, func(i removal.Item) bool { _, ok := n.g.container(ctx, i.ID); return !ok })
	return plan, nil
}

// Update changes limits as far as the policy allows.
func (n *narrowContainers) Update(ctx context.Context, ref string, r container.Resources, p *container.Restart) ([]string, error) {
	if err := n.g.policy.Resources(&r); err != nil {
		return nil, err
	}
	return n.Containers.Update(ctx, ref, r, p)
}

// ExecCreate prepares a process that the policy allows.
func (n *narrowContainers) ExecCreate(ctx context.Context, ref string, s container.ExecSpec) (string, error) {
	if err := n.g.policy.Exec(&s); err != nil {
		return "", err
	}
	return n.Containers.ExecCreate(ctx, ref, s)
}

// Top lists processes. ps shows environments when it is told to.
func (n *narrowContainers) Top(ctx context.Context, ref, args string) (engine.Top, error) {
	if n.g.policy.HideEnv && args != "-ef" && args != "aux" {
		return engine.Top{}, fault.New(fault.Forbidden, "access %q: top takes no other arguments than -ef and aux here: ps could show environments", n.g.policy.Name)
	}
	return n.Containers.Top(ctx, ref, args)
}

// Logs reads what a container has written. Details are values of labels and of its environment, where the log's options name them.
func (n *narrowContainers) Logs(ctx context.Context, ref string, o engine.LogOptions) (engine.LogReader, error) {
	if n.g.policy.HideEnv && o.Details {
		return nil, fault.New(fault.Forbidden, "access %q: logs take no details here: they could show environments", n.g.policy.Name)
	}
	return n.Containers.Logs(ctx, ref, o)
}

// Explain tells how a container is isolated. The launch program holds its environment.
func (n *narrowContainers) Explain(ctx context.Context, ref string) (engine.Explanation, error) {
	e, err := n.Containers.Explain(ctx, ref)
	if n.g.policy.HideEnv {
		e.Program = "# " + access.Hidden + "\n"
	}
	return e, err
}

// ConnectNetwork joins a container and a network of the scope.
func (n *narrowContainers) ConnectNetwork(ctx context.Context, net, ref string, s network.EndpointSpec) error {
	netID, err := n.g.policy.Join(net, sight{n.g, ctx})
	if err != nil {
		return err
	}
	id, err := n.mine(ctx, ref)
	if err != nil {
		return err
	}
	s.ID, s.Links = netID, slices.Clone(s.Links)
	for i, l := range s.Links {
		other, alias, named := strings.Cut(l, ":")
		if !named {
			alias = other
		}
		mine, err := n.mine(ctx, other)
		if err != nil {
			return err
		}
		s.Links[i] = mine + ":" + alias
	}
	return n.Containers.ConnectNetwork(ctx, net, id, s)
}

// DisconnectNetwork parts a container and a network of the scope.
func (n *narrowContainers) DisconnectNetwork(ctx context.Context, net, ref string, force bool) error {
	id, err := n.mine(ctx, ref)
	if err != nil {
		return err
	}
	return n.Containers.DisconnectNetwork(ctx, net, id, force)
}

// noLogs is the answer of an engine that keeps no logs of its own.
var noLogs = fault.New(fault.NotImplemented, "clearing logs is not in this build of Berth")

// ClearLogs throws a container's output away; the gate has found the container.
func (n *narrowContainers) ClearLogs(ctx context.Context, ref string) error {
	if k, ok := n.Containers.(keepsLogs); ok {
		return k.ClearLogs(ctx, ref)
	}
	return noLogs
}

// LogStatus tells how a container's log is doing; the gate has found the container.
func (n *narrowContainers) LogStatus(ctx context.Context, ref string) (engine.LogStatus, error) {
	if k, ok := n.Containers.(keepsLogs); ok {
		return k.LogStatus(ctx, ref)
	}
	return engine.LogStatus{}, noLogs
}

// mine gives the id of a container of the scope, which a body names.
func (n *narrowContainers) mine(ctx context.Context, ref string) (string, error) {
	if !n.g.policy.Scoped() {
		return ref, nil
	}
	info, ok := n.g.container(ctx, ref)
	if !ok {
		return "", fault.New(fault.NotFound, "No such container: %s", ref)
	}
	return info.ID, nil
}
