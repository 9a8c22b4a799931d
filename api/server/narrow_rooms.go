package server

import (
	"context"
	"slices"
	"time"

	"berth/api/access"
	"berth/base/event"
	"berth/base/fault"
	"berth/base/removal"
	"berth/engine"
	"berth/image"
	"berth/network"
	"berth/volume"
)

// checkedNetworks makes no networks that a policy without a scope refuses.
type checkedNetworks struct {
	Networks
	policy *access.Policy
}

// Create makes a network that the policy allows.
func (n *checkedNetworks) Create(ctx context.Context, r network.CreateRequest) (network.Network, string, error) {
	r, err := n.policy.NetworkCreate(r)
	if err != nil {
		return network.Network{}, "", err
	}
	return n.Networks.Create(ctx, r)
}

// narrowNetworks are the networks that a policy sees.
type narrowNetworks struct {
	Networks
	g *gate
}

// Create makes a network that the policy allows, with the scope's label.
func (n *narrowNetworks) Create(ctx context.Context, r network.CreateRequest) (network.Network, string, error) {
	r, err := n.g.policy.NetworkCreate(r)
	if err != nil {
		return network.Network{}, "", err
	}
	return n.Networks.Create(ctx, r)
}

// Get tells of a network of the scope.
func (n *narrowNetworks) Get(ref string) (network.Network, error) {
	found, ok := n.g.network(ref)
	if !ok {
		return network.Network{}, fault.New(fault.NotFound, "network %s not found", ref)
	}
	return found, nil
}

// List gives the networks of the scope.
func (n *narrowNetworks) List() []network.Network {
	return slices.DeleteFunc(slices.Clone(n.Networks.List()), func(one network.Network) bool { return !n.g.seesNetwork(&one) })
}

// Endpoints gives the places of containers of the scope.
func (n *narrowNetworks) Endpoints(id string) []network.Endpoint {
	return slices.DeleteFunc(slices.Clone(n.Networks.Endpoints(id)), func(e network.Endpoint) bool {
		ref := e.ContainerID
		if ref == "" {
			ref = e.Container
		}
		_, ok := n.g.container(context.Background(), ref)
		return !ok
	})
}

// checkedVolumes makes no volumes that a policy without a scope refuses.
type checkedVolumes struct {
	Volumes
	g *gate
}

// Create makes a volume that the policy allows.
func (n *checkedVolumes) Create(ctx context.Context, r volume.CreateRequest) (volume.Volume, error) {
	r, err := n.g.policy.VolumeCreate(r, sight{n.g, ctx})
	if err != nil {
		return volume.Volume{}, err
	}
	return n.Volumes.Create(ctx, r)
}

// narrowVolumes are the volumes that a policy sees.
type narrowVolumes struct {
	Volumes
	g *gate
}

// Create makes a volume that the policy allows, with the scope's label. One that somebody else has made meanwhile is not the scope's.
func (n *narrowVolumes) Create(ctx context.Context, r volume.CreateRequest) (volume.Volume, error) {
	r, err := n.g.policy.VolumeCreate(r, sight{n.g, ctx})
	if err != nil {
		return volume.Volume{}, err
	}
	v, err := n.Volumes.Create(ctx, r)
	if err == nil && !n.g.seesVolume(ctx, &v) {
		return volume.Volume{}, fault.New(fault.Forbidden, "access %q: volume %q is refused: it is not in this socket's scope", n.g.policy.Name, r.Name)
	}
	return v, err
}

// Get tells of a volume of the scope.
func (n *narrowVolumes) Get(ctx context.Context, name string) (volume.Volume, error) {
	v, ok := n.g.volume(ctx, name)
	if !ok {
		return volume.Volume{}, fault.New(fault.NotFound, "get %s: no such volume", name)
	}
	return v, nil
}

// List gives the volumes of the scope.
func (n *narrowVolumes) List(ctx context.Context) ([]volume.Volume, []string, error) {
	all, warnings, err := n.Volumes.List(ctx)
	return slices.DeleteFunc(slices.Clone(all), func(v volume.Volume) bool { return !n.g.seesVolume(ctx, &v) }), warnings, err
}

// PlanPrune plans for volumes of the scope, and tells of no others.
func (n *narrowVolumes) PlanPrune(ctx context.Context, keep func(volume.Volume) string, gone func(string) bool) (*removal.Plan, error) {
	plan, err := n.Volumes.PlanPrune(ctx, func(v volume.Volume) string {
		if !n.g.seesVolume(ctx, &v) {
			return "it is not in this socket's scope"
		}
		return keep(v)
	}, gone)
	if err != nil {
		return nil, err
	}
	plan.Spare = slices.DeleteFunc(plan.Spare, func(i removal.Item) bool { _, ok := n.g.volume(ctx, i.ID); return !ok })
	return plan, nil
}

// Remove removes a volume of the scope.
func (n *narrowVolumes) Remove(ctx context.Context, name string, force bool) error {
	if _, ok := n.g.volume(ctx, name); !ok {
		return fault.New(fault.NotFound, "get %s: no such volume", name)
	}
	return n.Volumes.Remove(ctx, name, force)
}

// narrowImages are all images, without what others do with them.
type narrowImages struct{ Images }

// List gives images, and not how many containers use them, and when one last did.
func (n *narrowImages) List(ctx context.Context, o image.ListOptions) ([]image.Summary, error) {
	o.Containers = false
	all, err := n.Images.List(ctx, o)
	for i := range all {
		one := *all[i].Image
		one.LastUsed = time.Time{}
		all[i].Image = &one
	}
	return all, err
}

// ResolvePlatform finds an image, and does not tell when a container of it was last made.
func (n *narrowImages) ResolvePlatform(name string, p *image.Platform) (*image.Image, error) {
	return withoutUse(n.Images.ResolvePlatform(name, p))
}

// Resolve finds an image as ResolvePlatform does.
func (n *narrowImages) Resolve(name string) (*image.Image, error) {
	return withoutUse(n.Images.Resolve(name))
}

func withoutUse(img *image.Image, err error) (*image.Image, error) {
	if err != nil {
		return nil, err
	}
	one := *img
	one.LastUsed = time.Time{}
	return &one, nil
}

// DiskUsage measures images, and does not tell who uses them.
func (n *narrowImages) DiskUsage(ctx context.Context) (*image.DiskUsage, error) {
	u, err := n.Images.DiskUsage(ctx)
	if err != nil {
		return nil, err
	}
	out := *u
	out.Images, out.Containers, out.Reclaimable = slices.Clone(u.Images), image.DiskUsage{}.Containers, 0
	for i := range out.Images {
		out.Images[i].Containers = nil
	}
	return &out, nil
}

// narrowEvents are the events of what a policy sees.
type narrowEvents struct {
	Events
	g *gate
}

// Subscribe passes events of containers with the scope's label on, and those of its volumes and networks. Of images, plugins and the
// engine it tells nothing: they are other people's doings.
func (n *narrowEvents) Subscribe(ctx context.Context, since, until time.Time, match func(event.Event) bool) *event.Subscription {
	mine := map[string]bool{} // volumes and networks that were in the scope: their last event comes when they are gone
	if n.g.plain.cfg.Volumes != nil {
		if all, _, err := n.g.plain.cfg.Volumes.List(ctx); err == nil {
			for i := range all {
				mine["volume "+all[i].Name] = n.g.seesVolume(ctx, &all[i])
			}
		}
	}
	if n.g.plain.cfg.Networks != nil {
		for _, one := range n.g.plain.cfg.Networks.List() {
			mine["network "+one.ID] = n.g.policy.Sees(one.Labels)
		}
	}
	return n.Events.Subscribe(ctx, since, until, func(e event.Event) bool {
		return n.sees(ctx, e, mine) && (match == nil || match(e))
	})
}

// sees is called by one goroutine, the subscription's reader.
func (n *narrowEvents) sees(ctx context.Context, e event.Event, mine map[string]bool) bool {
	switch e.Type {
	case "container":
		return n.g.policy.Sees(e.Attributes)
	case "volume", "network":
		if who := e.Attributes["container"]; who != "" {
			if _, ok := n.g.container(ctx, who); !ok {
				return false
			}
		}
		key := e.Type + " " + e.ID
		in, known := mine[key]
		if !known {
			if e.Type == "volume" && n.g.plain.cfg.Volumes != nil {
				_, in = n.g.volume(ctx, e.ID)
			} else if e.Type == "network" && n.g.plain.cfg.Networks != nil {
				one, ok := n.g.network(e.ID)
				in = ok && n.g.policy.Sees(one.Labels)
			}
			if in {
				mine[key] = true
			}
		}
		return in
	}
	return false
}

// narrowSystem counts the containers that a policy sees.
type narrowSystem struct {
	System
	g *gate
}

// Info gives the engine's figures with the scope's counts.
func (n *narrowSystem) Info(ctx context.Context) engine.Facts {
	f := n.System.Info(ctx)
	f.Containers, f.Running, f.Paused, f.Stopped = 0, 0, 0, 0
	mine, err := n.g.plain.cfg.Containers.List(ctx, engine.ListOptions{All: true, Filters: n.g.filters(nil)})
	if err != nil {
		return f
	}
	for i := range mine {
		f.Containers++
		switch st := mine[i].State; {
		case st.Paused:
			f.Paused++
		case st.Running:
			f.Running++
		default:
			f.Stopped++
		}
	}
	return f
}
