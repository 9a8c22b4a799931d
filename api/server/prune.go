package server

import (
	"context"
	"net/http"
	"slices"
	"strconv"

	containertypes "github.com/moby/moby/api/types/container"
	imagetypes "github.com/moby/moby/api/types/image"
	networktypes "github.com/moby/moby/api/types/network"
	volumetypes "github.com/moby/moby/api/types/volume"

	"berth/api/server/wire"
	"berth/base/fault"
	"berth/base/removal"
	"berth/engine/container"
	"berth/image"
	"berth/volume"
)

// Prunes. Docker's routes plan and apply at once; those of /berth/v1 do one or the other: GET gives a plan, POST applies the plan in its
// body, exactly: what does not look as it did then is skipped, and said.

// prunesContainers, prunesImages and prunesVolumes are what the rooms do for it.
type prunesContainers interface {
	PlanPrune(ctx context.Context, f container.Filters) (*removal.Plan, error)
	Prune(ctx context.Context, plan *removal.Plan) (removal.Outcome, error)
}

type prunesImages interface {
	// PlanPruneWithout plans as if some containers were gone; gone nil: none.
	PlanPruneWithout(f image.Filters, gone func(containerID string) bool) (*removal.Plan, error)
	ApplyPrune(ctx context.Context, plan *removal.Plan) (image.PruneReport, error)
}

type prunesVolumes interface {
	// PlanPrune spares what keep gives a reason for, and takes some containers for gone; gone nil: none.
	PlanPrune(ctx context.Context, keep func(volume.Volume) (why string), gone func(containerID string) bool) (*removal.Plan, error)
	ApplyPrune(ctx context.Context, plan *removal.Plan) (removal.Outcome, error)
}

func containerPrune(s *Server, c *call) error {
	plan, err := s.planContainers(c)
	if err != nil {
		return err
	}
	out, err := s.cfg.Containers.Prune(c.ctx(), plan)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, containertypes.PruneReport{ContainersDeleted: removedIDs(out), SpaceReclaimed: uint64(out.Reclaimed)})
}

func imagePrune(s *Server, c *call) error {
	plan, err := s.planImages(c, nil)
	if err != nil {
		return err
	}
	report, err := s.cfg.Images.ApplyPrune(c.ctx(), plan)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, imagetypes.PruneReport{ImagesDeleted: deleted(report.Deleted), SpaceReclaimed: uint64(max(report.Reclaimed, 0))})
}

func volumePrune(s *Server, c *call) error {
	plan, err := s.planVolumes(c, nil)
	if err != nil {
		return err
	}
	out, err := s.cfg.Volumes.ApplyPrune(c.ctx(), plan)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, volumetypes.PruneReport{VolumesDeleted: nonNil(removedIDs(out)), SpaceReclaimed: uint64(out.Reclaimed)})
}

// networkPrune removes the networks that no running container is on. One that came into use meanwhile stays.
func networkPrune(s *Server, c *call) error {
	plan, err := s.planNetworks(c)
	if err != nil {
		return err
	}
	report := networktypes.PruneReport{}
	for _, i := range s.pruneNetworks(c.ctx(), plan).Removed {
		report.NetworksDeleted = append(report.NetworksDeleted, i.Name)
	}
	return c.json(http.StatusOK, report)
}

func removedIDs(out removal.Outcome) (ids []string) {
	for _, i := range out.Removed {
		ids = append(ids, i.ID)
	}
	return ids
}

// planContainers, planImages, planVolumes and planNetworks plan with the request's filters.
func (s *Server) planContainers(c *call) (*removal.Plan, error) {
	filters, err := c.filters("label", "label!", "until")
	if err != nil {
		return nil, err
	}
	return s.cfg.Containers.PlanPrune(c.ctx(), filters)
}

func (s *Server) planImages(c *call, gone func(string) bool) (*removal.Plan, error) {
	filters, err := c.filters("dangling", "label", "label!", "until")
	if err != nil {
		return nil, err
	}
	return s.cfg.Images.PlanPruneWithout(filters, gone)
}

func (s *Server) planVolumes(c *call, gone func(string) bool) (*removal.Plan, error) {
	filters, err := c.filters("label", "label!", "all")
	if err != nil {
		return nil, err
	}
	keep, err := keptVolumes(c.v, filters)
	if err != nil {
		return nil, err
	}
	return s.cfg.Volumes.PlanPrune(c.ctx(), keep, gone)
}

// keptVolumes says which volumes a prune leaves, and why. Before 1.42 a prune took named volumes, too.
func keptVolumes(v wire.Version, filters map[string][]string) (func(volume.Volume) string, error) {
	named := v < 42
	switch values := filters["all"]; {
	case len(values) > 1:
		return nil, fault.New(fault.Invalid, "invalid filter 'all=%v': only one value is expected", values)
	case len(values) == 1:
		all, err := strconv.ParseBool(values[0])
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "invalid filter 'all'")
		}
		named = named || all
	}
	with, without := filters["label"], filters["label!"]
	return func(v volume.Volume) string {
		labels := wire.VolumeLabels(&v)
		_, anonymous := labels[wire.AnonymousLabel]
		switch {
		case !named && !anonymous:
			return "it has a name of its own; volume prune --all takes those too"
		case !hasAll(labels, with), len(without) > 0 && hasAll(labels, without):
			return "the filters leave it out"
		}
		return ""
	}, nil
}

func (s *Server) planNetworks(c *call) (*removal.Plan, error) {
	filters, err := c.filters("label", "label!", "until")
	if err != nil {
		return nil, err
	}
	// Labels and ages of networks are filtered as those of containers are.
	match, err := container.Filters(filters).ForPrune(container.Lookup{Now: s.now()})
	if err != nil {
		return nil, err
	}
	plan := removal.NewPlan(s.now())
	for _, n := range s.cfg.Networks.List() {
		if n.ConfigOnly || n.Ingress || predefined(n.Name) {
			continue
		}
		item := removal.Item{Kind: removal.Network, ID: n.ID, Name: n.Name, Created: n.Created, Look: n.ID + " " + n.Name}
		as := container.Info{Created: n.Created, Spec: &container.Spec{Labels: n.Labels}}
		switch users := s.endpoints(c.ctx(), n.ID); {
		case len(users) > 0:
			item.Why = "container " + users[0].Container + " is on it"
			if len(users) > 1 {
				item.Why += ", and " + strconv.Itoa(len(users)-1) + " more"
			}
		case !match(&as):
			item.Why = "the filters leave it out"
		default:
			item.Why = "no running container is on it"
			plan.Remove = append(plan.Remove, item)
			continue
		}
		plan.Spare = append(plan.Spare, item)
	}
	removal.Sort(plan.Remove)
	removal.Sort(plan.Spare)
	return plan, nil
}

// pruneNetworks removes the networks of a plan that are still unused.
func (s *Server) pruneNetworks(ctx context.Context, plan *removal.Plan) (out removal.Outcome) {
	for _, item := range removal.Of(plan.Remove, removal.Network) {
		if ctx.Err() != nil {
			break
		}
		n, err := s.cfg.Networks.Get(item.ID)
		switch {
		case err != nil || n.ID != item.ID:
			out.Skip(item, "it is gone already")
			continue
		case n.ID+" "+n.Name != item.Look || predefined(n.Name):
			out.Skip(item, "it is another network now")
			continue
		case !s.networkUnused(&n):
			out.Skip(item, "a container is on it now")
			continue
		}
		if err := s.cfg.Networks.Remove(ctx, n.ID); err != nil {
			s.log.Warn("prune: a network could not be removed", "network", n.Name, "error", err)
			out.Skip(item, err.Error())
			continue
		}
		out.Done(item)
	}
	s.publish("network", "prune", map[string]string{"reclaimed": "0"})
	return out
}

func containerPrunePlan(s *Server, c *call) error {
	plan, err := s.planContainers(c)
	return c.answerPlan(plan, err)
}

func imagePrunePlan(s *Server, c *call) error {
	plan, err := s.planImages(c, nil)
	return c.answerPlan(plan, err)
}

func volumePrunePlan(s *Server, c *call) error {
	plan, err := s.planVolumes(c, nil)
	return c.answerPlan(plan, err)
}

func networkPrunePlan(s *Server, c *call) error {
	plan, err := s.planNetworks(c)
	return c.answerPlan(plan, err)
}

func (c *call) answerPlan(plan *removal.Plan, err error) error {
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, plan)
}

// systemPrunePlan plans what `docker system prune` would do: containers, networks, with volumes=1 volumes, and images as they would be
// unused then. all=1 takes all unused images. Each kind gets those of the filters that it knows.
func systemPrunePlan(s *Server, c *call) error {
	plan, err := s.planContainers(c)
	if err != nil {
		return err
	}
	gone := func(cid string) bool {
		return slices.ContainsFunc(plan.Remove, func(i removal.Item) bool { return i.Kind == removal.Container && i.ID == cid })
	}
	var parts []*removal.Plan
	if s.cfg.Networks != nil {
		part, err := s.planNetworks(c)
		if err != nil {
			return err
		}
		parts = append(parts, part)
	}
	if c.flag("volumes") && s.cfg.Volumes != nil {
		part, err := s.planVolumes(c, gone)
		if err != nil {
			return err
		}
		parts = append(parts, part)
	}
	if s.cfg.Images != nil {
		filters, err := c.filters("label", "label!", "until")
		if err != nil {
			return err
		}
		if filters == nil {
			filters = map[string][]string{}
		}
		filters["dangling"] = []string{strconv.FormatBool(!c.flag("all"))}
		part, err := s.cfg.Images.PlanPruneWithout(filters, gone)
		if err != nil {
			return err
		}
		parts = append(parts, part)
	}
	for _, part := range parts {
		plan.Remove = append(plan.Remove, part.Remove...)
		plan.Spare = append(plan.Spare, part.Spare...)
		plan.Reclaimable += part.Reclaimable
	}
	return c.json(http.StatusOK, plan)
}

// applyPlan applies the plan in the body, of which the route takes some kinds of things.
func applyPlan(kinds ...string) handler {
	return func(s *Server, c *call) error {
		var plan removal.Plan
		if err := c.strict(&plan); err != nil {
			return err
		}
		if plan.Version != removal.Version {
			return fault.New(fault.Invalid, "the plan has version %d, this engine knows %d", plan.Version, removal.Version)
		}
		for _, i := range plan.Remove {
			if !slices.Contains(kinds, i.Kind) {
				return fault.New(fault.Invalid, "the plan removes a %s, which has no place here", i.Kind)
			}
			if i.ID == "" || i.Look == "" {
				return fault.New(fault.Invalid, "the plan does not say what %q looked like: only a plan that the engine made can be applied", i.Name)
			}
		}
		out, err := s.apply(c.ctx(), &plan)
		if err != nil {
			return err
		}
		out.Removed, out.Skipped = nonNil(out.Removed), nonNil(out.Skipped)
		return c.json(http.StatusOK, out)
	}
}

// apply applies a plan of any kinds of things, containers first: what they used may go after them.
func (s *Server) apply(ctx context.Context, plan *removal.Plan) (out removal.Outcome, err error) {
	has := func(kind string) bool { return len(removal.Of(plan.Remove, kind)) > 0 }
	if has(removal.Container) {
		done, err := s.cfg.Containers.Prune(ctx, plan)
		if err != nil {
			return out, err
		}
		out.Merge(done)
	}
	if has(removal.Network) && s.cfg.Networks != nil {
		out.Merge(s.pruneNetworks(ctx, plan))
	}
	if has(removal.Volume) && s.cfg.Volumes != nil {
		done, err := s.cfg.Volumes.ApplyPrune(ctx, plan)
		if err != nil {
			return out, err
		}
		out.Merge(done)
	}
	if has(removal.Image) && s.cfg.Images != nil {
		report, err := s.cfg.Images.ApplyPrune(ctx, plan)
		if err != nil {
			return out, err
		}
		out.Merge(imageOutcome(plan, report))
	}
	return out, nil
}

// imageOutcome tells a prune of images by the items of its plan.
func imageOutcome(plan *removal.Plan, report image.PruneReport) removal.Outcome {
	out := removal.Outcome{Skipped: report.Skipped, Reclaimed: report.Reclaimed, Trashed: report.Trashed}
	for _, i := range removal.Of(plan.Remove, removal.Image) {
		if !slices.ContainsFunc(report.Skipped, func(o removal.Item) bool { return o.ID == i.ID && o.Name == i.Name }) {
			out.Removed = append(out.Removed, i)
		}
	}
	return out
}
