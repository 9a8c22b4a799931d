package server

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strconv"

	volumetypes "github.com/moby/moby/api/types/volume"

	"berth/api/server/wire"
	"berth/base/fault"
	"berth/volume"
)

// Volumes is what the door asks of the volume room.
type Volumes interface {
	Create(ctx context.Context, r volume.CreateRequest) (volume.Volume, error)
	Get(ctx context.Context, name string) (volume.Volume, error)
	List(ctx context.Context) (all []volume.Volume, warnings []string, err error)
	Remove(ctx context.Context, name string, force bool) error
	// Prune removes the volumes that nobody uses, but for those of which keep says so.
	Prune(ctx context.Context, keep func(volume.Volume) bool) (volume.PruneReport, error)
	Size(ctx context.Context, name string) (int64, error)
	carries
}

// uses tells which containers refer to a volume.
type uses interface {
	VolumeUsers(name string) (ids []string)
}

// needVolumes lets a handler run where there is a volume room.
func needVolumes(h handler) handler {
	return func(s *Server, c *call) error {
		if s.cfg.Volumes == nil {
			return fault.New(fault.NotImplemented, "volumes are not in this build of Berth")
		}
		return h(s, c)
	}
}

func volumeList(s *Server, c *call) error {
	filters, err := c.filters("dangling", "driver", "label", "name")
	if err != nil {
		return err
	}
	dangling, err := oneBool(filters, "dangling")
	if err != nil {
		return err
	}
	all, warnings, err := s.cfg.Volumes.List(c.ctx())
	if err != nil {
		return err
	}
	name := patterns(filters["name"])
	answer := volumetypes.ListResponse{Volumes: []volumetypes.Volume{}, Warnings: warnings}
	for _, v := range all {
		if name(v.Name) && (len(filters["driver"]) == 0 || slices.Contains(filters["driver"], v.Driver)) && hasAll(wire.VolumeLabels(&v), filters["label"]) &&
			(dangling == nil || *dangling == (len(s.cfg.Containers.VolumeUsers(v.Name)) == 0)) {
			answer.Volumes = append(answer.Volumes, wire.Volume(&v))
		}
	}
	return c.json(http.StatusOK, answer)
}

// oneBool reads a filter that is true or false; nil where it is not there.
func oneBool(filters map[string][]string, name string) (*bool, error) {
	switch values := filters[name]; {
	case len(values) == 0:
		return nil, nil
	case len(values) == 1:
		if slices.Contains([]string{"1", "true", "0", "false"}, values[0]) {
			yes := values[0] == "1" || values[0] == "true"
			return &yes, nil
		}
	}
	return nil, fault.New(fault.Invalid, "invalid filter '%s=%v'", name, filters[name])
}

// volumeInspect tells of one volume. Without a volume room there is none of any name, see networkInspect.
func volumeInspect(s *Server, c *call) error {
	if s.cfg.Volumes == nil {
		return fault.New(fault.NotFound, "get %s: no such volume", c.name)
	}
	v, err := s.cfg.Volumes.Get(c.ctx(), c.name)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, wire.VolumeInspect(&v))
}

func volumeCreate(s *Server, c *call) error {
	var r wire.VolumeCreateRequest
	if _, _, err := c.decode(&r); err != nil {
		return err
	}
	asked, err := r.Request(c.v)
	if err != nil {
		return err
	}
	v, err := s.cfg.Volumes.Create(c.ctx(), asked)
	if err != nil {
		return err
	}
	return c.json(http.StatusCreated, wire.Volume(&v))
}

// volumeUpdate changes volumes of a cluster, which a single engine has not: Docker's answer without swarm, at any version.
func volumeUpdate(*Server, *call) error {
	return fault.New(fault.Unavailable, "volume update only valid for cluster volumes, but swarm is unavailable")
}

func volumeRemove(s *Server, c *call) error {
	force := c.flag("force")
	if err := s.cfg.Volumes.Remove(c.ctx(), c.name, force); err != nil && !(force && fault.Is(err, fault.NotFound)) {
		return err
	}
	return c.done(http.StatusNoContent)
}

func volumePrune(s *Server, c *call) error {
	keep, err := s.keptVolumes(c)
	if err != nil {
		return err
	}
	report, err := s.cfg.Volumes.Prune(c.ctx(), keep)
	if err != nil {
		return err
	}
	slices.Sort(report.Deleted)
	return c.json(http.StatusOK, volumetypes.PruneReport{VolumesDeleted: nonNil(report.Deleted), SpaceReclaimed: report.Reclaimed})
}

// keptVolumes says which volumes a prune with the request's filters leaves. Those with a driver of their own or with options are kept in
// any case: their data is elsewhere, and nothing would be reclaimed. Before 1.42 a prune took named volumes, too.
func (s *Server) keptVolumes(c *call) (keep func(volume.Volume) bool, err error) {
	filters, err := c.filters("label", "label!", "all")
	if err != nil {
		return nil, err
	}
	named := c.v < 42
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
	without := filters["label!"]
	return func(v volume.Volume) bool {
		labels := wire.VolumeLabels(&v)
		_, anonymous := labels[wire.AnonymousLabel]
		return v.Driver != "local" || len(v.Options) > 0 || !named && !anonymous || !hasAll(labels, filters["label"]) ||
			len(without) > 0 && hasAll(labels, without) || len(s.cfg.Containers.VolumeUsers(v.Name)) > 0
	}, nil
}

// prunableVolumes gives what a prune with the request's filters would remove, by name.
func (s *Server) prunableVolumes(c *call) (out []wire.VolumeUse, err error) {
	keep, err := s.keptVolumes(c)
	if err != nil {
		return nil, err
	}
	all, _, err := s.cfg.Volumes.List(c.ctx())
	if err != nil {
		return nil, err
	}
	for _, v := range all {
		if !keep(v) {
			out = append(out, s.volumeUse(c.ctx(), v))
		}
	}
	slices.SortFunc(out, func(a, b wire.VolumeUse) int { return cmp.Compare(a.Volume.Name, b.Volume.Name) })
	return out, nil
}

func (s *Server) volumeUse(ctx context.Context, v volume.Volume) wire.VolumeUse {
	size, err := s.cfg.Volumes.Size(ctx, v.Name)
	if err != nil {
		s.log.Warn("the size of a volume could not be found out", "volume", v.Name, "error", err)
		size = -1
	}
	return wire.VolumeUse{Volume: v, Size: size, Users: len(s.cfg.Containers.VolumeUsers(v.Name))}
}

// volumeUses gives the volumes whose room is this machine's, with their sizes.
func (s *Server) volumeUses(ctx context.Context) ([]wire.VolumeUse, error) {
	out := []wire.VolumeUse{}
	if s.cfg.Volumes == nil {
		return out, nil
	}
	all, _, err := s.cfg.Volumes.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, v := range all {
		if v.Driver == "local" && len(v.Options) == 0 {
			out = append(out, s.volumeUse(ctx, v))
		}
	}
	return out, nil
}
