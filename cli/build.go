package cli

import (
	"context"
	"os"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"

	"berth/cli/build"
	"berth/cli/build/stepshell"
)

// buildHooks are what the commands that build need of us.
func buildHooks(d *command.DockerCli) build.Hooks {
	return build.Hooks{
		MustBeBerth: func(ctx context.Context, command string) error {
			return newRemote(d.Client()).mustBeBerth(ctx, command)
		},
	}
}

// newStepShell is what runs inside a failed step of a build whose files have no shell. Nobody types it.
func newStepShell(*command.DockerCli) *cobra.Command {
	return &cobra.Command{
		Use:    stepshell.Word,
		Short:  "A small shell for places that have none",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			s := &stepshell.Shell{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Prompt: true}
			if code := s.Run(); code != 0 {
				return cli.StatusError{StatusCode: code}
			}
			return nil
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
