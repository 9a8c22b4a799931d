package cli

import (
	"context"

	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"

	"berth/cli/build"
)

// buildHooks are what the commands that build need of us.
func buildHooks(d *command.DockerCli) build.Hooks {
	return build.Hooks{
		MustBeBerth: func(ctx context.Context, command string) error {
			return newRemote(d.Client()).mustBeBerth(ctx, command)
		},
	}
}

// replace puts own in the place of a subcommand of its name.
func replace(c, own *cobra.Command) {
	for _, sub := range c.Commands() {
		if sub.Name() == own.Name() {
			c.RemoveCommand(sub)
		}
	}
	c.AddCommand(own)
}
