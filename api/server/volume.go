package server

import (
	"context"
	"net/http"
	"slices"

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
	prunesVolumes
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
