package server

import (
	"context"
	"net/http"

	containertypes "github.com/moby/moby/api/types/container"

	"berth/api/server/wire"
	"berth/base/fault"
	"berth/engine"
)

// commits are containers that become images.
type commits interface {
	Commit(ctx context.Context, ref string, o engine.CommitOptions) (imageID string, err error)
}

// containerCommit is POST /commit. A body is a configuration for the image; most clients send none, or null.
func containerCommit(s *Server, c *call) error {
	var config *containertypes.Config
	_, there, err := c.decode(&config)
	if err != nil {
		return err
	}
	if c.text("container") == "" {
		return fault.New(fault.Invalid, "container is missing: which container?")
	}
	name, err := c.reference()
	if err != nil {
		return err
	}
	o := engine.CommitOptions{Ref: name, Author: c.text("author"), Comment: c.text("comment"), Changes: c.q["changes"], Pause: c.flagOr("pause", true)}
	if there && config != nil {
		o.Config = wire.RunConfig(config)
	}
	id, err := s.cfg.Containers.Commit(c.ctx(), c.text("container"), o)
	if err != nil {
		return err
	}
	return c.json(http.StatusCreated, containertypes.CommitResponse{ID: id})
}
