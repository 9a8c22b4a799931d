package wire

import (
	containertypes "github.com/moby/moby/api/types/container"

	"berth/image"
)

// RunConfig is what a container's configuration says of an image's.
func RunConfig(c *containertypes.Config) *image.RunConfig {
	out := &image.RunConfig{
		User: c.User, Env: c.Env, Entrypoint: c.Entrypoint, Cmd: c.Cmd, ArgsEscaped: c.ArgsEscaped, WorkingDir: c.WorkingDir, Labels: c.Labels,
		StopSignal: c.StopSignal, StopTimeout: c.StopTimeout, OnBuild: c.OnBuild, Shell: c.Shell, Volumes: c.Volumes,
	}
	for p := range c.ExposedPorts {
		if out.ExposedPorts == nil {
			out.ExposedPorts = map[string]struct{}{}
		}
		out.ExposedPorts[p.String()] = struct{}{}
	}
	if h := c.Healthcheck; h != nil {
		out.Healthcheck = &image.Healthcheck{Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries}
	}
	return out
}
