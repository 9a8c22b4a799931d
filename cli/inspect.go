package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/docker/cli/cli/command"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"berth/base/fault"
	"berth/cli/runline"
)

// formatRun is the word after --format that asks for the command line.
const formatRun = "run"

// extendInspect adds --format run to the inspect commands that show containers.
func extendInspect(c *cobra.Command, d command.Cli) {
	f := c.Flags().Lookup("format")
	if f == nil {
		return
	}
	f.Usage += "\n'run':              Print the docker run command that would make the container again (Berth)"
	whole := c.RunE
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if f.Value.String() != formatRun {
			return whole(cmd, args)
		}
		if t := cmd.Flags().Lookup("type"); t != nil && t.Value.String() != "" && t.Value.String() != "container" {
			return fault.New(fault.Invalid, "--format run is for containers")
		}
		for i, name := range args {
			s, err := lookAt(cmd.Context(), d.Client(), name)
			if err != nil {
				return err
			}
			if i > 0 {
				fmt.Fprintln(d.Out())
			}
			fmt.Fprint(d.Out(), runline.Of(s).Shell("docker run"))
		}
		return nil
	}
}

// lookAt asks the engine for what a command line is made from.
func lookAt(ctx context.Context, api client.APIClient, name string) (s runline.Source, err error) {
	c, err := api.ContainerInspect(ctx, name, client.ContainerInspectOptions{})
	if err != nil {
		return s, err
	}
	s.Container = c.Container
	switch img, err := api.ImageInspect(ctx, s.Container.Image); {
	case err == nil:
		s.Image = img.Config
	case !errdefs.IsNotFound(err):
		return s, err
	}
	info, err := api.Info(ctx, client.InfoOptions{})
	if err != nil {
		return s, err
	}
	s.Defaults = runline.Defaults{Runtime: info.Info.DefaultRuntime, LogDriver: info.Info.LoggingDriver, CgroupNS: "host"}
	if slices.ContainsFunc(info.Info.SecurityOptions, func(o string) bool { return o == "name=cgroupns" }) {
		s.Defaults.CgroupNS = "private"
	}
	return s, nil
}
