package server

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/containerd/platforms"
	containertypes "github.com/moby/moby/api/types/container"

	"berth/api/server/wire"
	"berth/base/fault"
	"berth/engine"
	"berth/engine/container"
)

// Containers is what the door asks of the engine, in the parts that its files use. Every method takes a container's id, a unique
// beginning of it, or its name.
type Containers interface {
	lives
	views
	streams
	execs
	explains
	connects
	uses
	commits
	copies
}

// lives are the verbs that change a container.
type lives interface {
	Create(ctx context.Context, name string, s container.Spec) (engine.CreateResult, error)
	Start(ctx context.Context, ref string) error
	Stop(ctx context.Context, ref string, o engine.StopOptions) error
	Restart(ctx context.Context, ref string, o engine.StopOptions) error
	Kill(ctx context.Context, ref, signal string) error
	Pause(ctx context.Context, ref string) error
	Unpause(ctx context.Context, ref string) error
	Remove(ctx context.Context, ref string, o engine.RemoveOptions) error
	Rename(ctx context.Context, ref, name string) error
	Update(ctx context.Context, ref string, r container.Resources, p *container.Restart) (warnings []string, err error)
	Wait(ctx context.Context, ref string, until container.WaitCondition) (<-chan container.ExitStatus, error)
	prunesContainers
}

// containerCreate makes a container. Fields that Docker does not know are named in a warning: what was asked with them is not going
// to happen.
func containerCreate(s *Server, c *call) error {
	var r wire.CreateRequest
	data, err := c.jsonBody()
	if err != nil {
		return err
	}
	unknown, err := wire.Decode(data, &r)
	if err != nil {
		return err
	}
	spec, warnings, err := r.Spec(c.v)
	if err != nil {
		return err
	}
	if p := c.text("platform"); p != "" && c.v >= 41 {
		if err := s.choosePlatform(&spec, p); err != nil {
			return err
		}
	}
	for _, mode := range []string{string(r.HostConfig.IpcMode), string(r.HostConfig.PidMode)} {
		if other, joins := strings.CutPrefix(mode, "container:"); joins {
			if _, err := s.cfg.Containers.Inspect(c.ctx(), other); err != nil {
				return fault.Wrap(fault.Invalid, err, "")
			}
		}
	}
	made, err := s.cfg.Containers.Create(c.ctx(), c.text("name"), spec)
	if fault.Is(err, fault.NotFound) && !strings.Contains(err.Error(), "No such image") {
		// Clients take 404 for an image that has to be pulled. What else is not there is a mistake in the request.
		return fault.Wrap(fault.Invalid, err, "")
	}
	if err != nil {
		return err
	}
	for _, name := range unknown {
		// Some clients repeat parts of the query in the body.
		if name != "name" && name != "platform" {
			warnings = append(warnings, name+" is no field of a container's configuration at API "+c.v.String()+" and was ignored")
		}
	}
	answer := containertypes.CreateResponse{ID: made.ID, Warnings: append(made.Warnings, warnings...)}
	if answer.Warnings == nil {
		answer.Warnings = []string{}
	}
	return c.json(http.StatusCreated, answer)
}

// choosePlatform settles which of an image's variants is meant. One that is not here is not found, so that clients go and pull it.
func (s *Server) choosePlatform(spec *container.Spec, text string) error {
	p, err := platforms.Parse(text)
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "")
	}
	spec.Platform = text
	if s.cfg.Images == nil {
		return nil
	}
	chosen, err := s.cfg.Images.ResolvePlatform(spec.Image, stored(&p))
	if err != nil {
		return err
	}
	// The engine takes this machine's variant by a name: another one is told by its id.
	if usual, err := s.cfg.Images.Resolve(spec.Image); err == nil && usual.ID != chosen.ID {
		spec.Image = chosen.ID
	}
	return nil
}

func containerStart(s *Server, c *call) error {
	// A body was once a host configuration. "null" and "{}" are what old clients send still.
	if n := c.r.ContentLength; n > 7 || n == -1 {
		return fault.New(fault.Invalid, "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24")
	}
	if c.text("checkpoint") != "" {
		return fault.New(fault.NotImplemented, "checkpoint: starting from a checkpoint is not in this build of Berth")
	}
	if err := s.cfg.Containers.Start(c.ctx(), c.name); err != nil {
		return err
	}
	return c.done(http.StatusNoContent)
}

func containerStop(s *Server, c *call) error    { return c.stop(s.cfg.Containers.Stop) }
func containerRestart(s *Server, c *call) error { return c.stop(s.cfg.Containers.Restart) }

func (c *call) stop(verb func(context.Context, string, engine.StopOptions) error) error {
	var o engine.StopOptions
	var err error
	if o.Timeout, err = c.number("t"); err != nil {
		return err
	}
	if c.v >= 42 {
		o.Signal = c.text("signal")
	}
	if err := verb(c.ctx(), c.name, o); err != nil {
		return err
	}
	return c.done(http.StatusNoContent)
}

func containerKill(s *Server, c *call) error {
	err := s.cfg.Containers.Kill(c.ctx(), c.name, c.text("signal"))
	switch {
	case err == nil:
		return c.done(http.StatusNoContent)
	case strings.HasPrefix(err.Error(), "cannot kill container"):
		return err // the engine says it for some failures
	}
	return fault.In(err, "cannot kill container: %s", c.name)
}

func containerPause(s *Server, c *call) error   { return c.simple(s.cfg.Containers.Pause) }
func containerUnpause(s *Server, c *call) error { return c.simple(s.cfg.Containers.Unpause) }

func (c *call) simple(verb func(context.Context, string) error) error {
	if err := verb(c.ctx(), c.name); err != nil {
		return err
	}
	return c.done(http.StatusNoContent)
}

func containerRemove(s *Server, c *call) error {
	o := engine.RemoveOptions{Force: c.flag("force"), Volumes: c.flag("v"), Link: c.flag("link")}
	if err := s.cfg.Containers.Remove(c.ctx(), c.name, o); err != nil {
		return err
	}
	return c.done(http.StatusNoContent)
}

func containerRename(s *Server, c *call) error {
	if err := s.cfg.Containers.Rename(c.ctx(), c.name, c.text("name")); err != nil {
		return err
	}
	return c.done(http.StatusNoContent)
}

func containerUpdate(s *Server, c *call) error {
	var u wire.UpdateRequest
	if _, _, err := c.decode(&u); err != nil {
		return err
	}
	change, err := u.Change(c.v)
	if err != nil {
		return err
	}
	warnings, err := s.cfg.Containers.Update(c.ctx(), c.name, change.Resources, change.Restart)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, containertypes.UpdateResponse{Warnings: append(change.Warnings, warnings...)})
}

// containerWait answers when the container has come to an end. From 1.30 on the headers go out at once: a client starts the
// container only when it has seen them.
func containerWait(s *Server, c *call) error {
	until := container.WaitNotRunning
	if text := c.text("condition"); text != "" && c.v >= 30 {
		until = container.WaitCondition(text)
		switch until {
		case container.WaitNotRunning, container.WaitNextExit, container.WaitRemoved:
		default:
			return fault.New(fault.Invalid, "invalid condition: %q", text)
		}
	}
	ended, err := s.cfg.Containers.Wait(c.ctx(), c.name, until)
	if err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", "application/json")
	if c.v >= 30 {
		c.begin(http.StatusOK)
		_ = http.NewResponseController(c.w).Flush()
	}
	var status container.ExitStatus
	select {
	case got, ok := <-ended:
		if !ok {
			got = container.ExitStatus{Err: "the engine stopped while waiting"}
		}
		status = got
	case <-c.ctx().Done():
		return nil // the client left, or the engine is stopping: it keeps the answer for who asks again
	}
	if status.Err != "" && until == container.WaitRemoved && c.v < 34 {
		return nil // such a client takes an empty answer for the failure
	}
	answer := containertypes.WaitResponse{StatusCode: int64(status.Code)}
	if status.Err != "" {
		answer.Error = &containertypes.WaitExitError{Message: status.Err}
	}
	if c.began {
		_ = json.NewEncoder(c.w).Encode(answer) // a client that has gone does not need it
		return nil
	}
	return c.json(http.StatusOK, answer)
}
