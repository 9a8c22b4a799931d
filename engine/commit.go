package engine

import (
	"context"
	"maps"
	"slices"
	"strings"

	"berth/base/fault"
	"berth/engine/container"
	"berth/image"
)

// CommitOptions say how a container becomes an image.
type CommitOptions struct {
	Ref     string // name for the image; "" none
	Author  string
	Comment string
	Changes []string         // Dockerfile instructions
	Config  *image.RunConfig // what the image shall say, filled up with what the container says; nil: the container's
	Pause   bool             // while its files are read, if it runs
}

// Commit makes an image of a container's files and configuration and gives its id. A paused container stays paused.
func (e *Engine) Commit(ctx context.Context, ref string, o CommitOptions) (string, error) {
	c, err := e.index.find(ref)
	if err != nil {
		return "", err
	}
	if err := c.mayChange("commit"); err != nil {
		return "", err
	}
	config := runConfig(c.record().Spec)
	if o.Config != nil {
		config = fillUp(*o.Config, config)
	}
	if s := c.snapshot().State; o.Pause && s.Running && !s.Paused {
		switch err := e.Pause(ctx, c.id); {
		case err == nil:
			defer func() {
				if err := e.Unpause(context.WithoutCancel(ctx), c.id); err != nil {
					e.log.Error("a container that was committed stays paused", "container", c.id, "error", err)
				}
			}()
		case !fault.Is(err, fault.Conflict): // it ended or was paused meanwhile: as good
			return "", err
		}
	}
	id, err := e.images.Commit(ctx, image.CommitOptions{ContainerID: c.id, Ref: o.Ref, Author: o.Author, Comment: o.Comment, Changes: o.Changes, Config: config})
	if err != nil {
		return "", err
	}
	e.tell(c, "commit", map[string]string{"comment": o.Comment, "imageID": id, "imageRef": familiar(o.Ref)})
	return id, nil
}

// runConfig is what a container says of how it is run, in the words of images.
func runConfig(s *container.Spec) image.RunConfig {
	p := &s.Process
	c := image.RunConfig{
		User: p.User, Env: p.Env, Entrypoint: p.Entrypoint, Cmd: p.Cmd, ArgsEscaped: p.ArgsEscaped, WorkingDir: p.WorkingDir, Labels: s.Labels,
		StopSignal: s.StopSignal, StopTimeout: s.StopTimeout, OnBuild: s.OnBuild, Shell: s.Shell, Volumes: s.Volumes,
	}
	for _, port := range s.ExposedPorts {
		if c.ExposedPorts == nil {
			c.ExposedPorts = map[string]struct{}{}
		}
		c.ExposedPorts[port] = struct{}{}
	}
	if h := s.Healthcheck; h != nil {
		c.Healthcheck = &image.Healthcheck{Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries}
	}
	return c
}

// fillUp gives what is wished for and, where nothing is said, what the container has: as dockerd merges them.
func fillUp(c, from image.RunConfig) image.RunConfig {
	if c.User == "" {
		c.User = from.User
	}
	c.ExposedPorts = union(c.ExposedPorts, from.ExposedPorts)
	c.Volumes = union(c.Volumes, from.Volumes)
	for _, v := range from.Env {
		name, _, _ := strings.Cut(v, "=")
		if !slices.ContainsFunc(c.Env, func(x string) bool { n, _, _ := strings.Cut(x, "="); return n == name }) {
			c.Env = append(slices.Clone(c.Env), v)
		}
	}
	labels := maps.Clone(from.Labels)
	if labels == nil && c.Labels != nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, c.Labels)
	c.Labels = labels
	if len(c.Entrypoint) == 0 {
		if len(c.Cmd) == 0 {
			c.Cmd, c.ArgsEscaped = from.Cmd, from.ArgsEscaped
		}
		c.Entrypoint = from.Entrypoint
	}
	if c.Healthcheck == nil {
		c.Healthcheck = from.Healthcheck
	}
	if c.WorkingDir == "" {
		c.WorkingDir = from.WorkingDir
	}
	if c.StopSignal == "" {
		c.StopSignal = from.StopSignal
	}
	if c.StopTimeout == nil {
		c.StopTimeout = from.StopTimeout
	}
	return c
}

func union(a, b map[string]struct{}) map[string]struct{} {
	if len(a) == 0 {
		return b
	}
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}
