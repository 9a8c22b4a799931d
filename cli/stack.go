package cli

import (
	"context"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

// newStack keeps the word `stack` in the tree while no engine of ours has swarm mode: every
// subcommand asks the engine for its swarm and passes on the sentence it refuses with. Docker's own
// package is left out for what it costs at start-up, see cli/tree.
func newStack(d *command.DockerCli) *cobra.Command {
	stack := &cobra.Command{
		Use:                   "stack [OPTIONS]",
		Short:                 "Manage Swarm stacks",
		Args:                  cli.NoArgs,
		RunE:                  command.ShowHelp(d.Err()),
		Annotations:           map[string]string{"version": "1.25", "swarm": "manager"},
		DisableFlagsInUseLine: true,
	}
	for _, sub := range []struct{ use, short string }{
		{"config [OPTIONS]", "Outputs the final config file, after doing merges and interpolations"},
		{"deploy [OPTIONS] STACK", "Deploy a new stack or update an existing stack"},
		{"ls [OPTIONS]", "List stacks"},
		{"ps [OPTIONS] STACK", "List the tasks in the stack"},
		{"rm [OPTIONS] STACK [STACK...]", "Remove one or more stacks"},
		{"services [OPTIONS] STACK", "List the services in the stack"},
	} {
		stack.AddCommand(&cobra.Command{
			Use:                sub.use,
			Short:              sub.short,
			DisableFlagParsing: true,
			RunE: func(cmd *cobra.Command, args []string) error {
				for _, a := range args {
					if a == "--help" || a == "-h" {
						return cmd.Help()
					}
				}
				return refusal(cmd.Context(), d.Client(), cmd.CommandPath())
			},
			DisableFlagsInUseLine: true,
		})
	}
	return stack
}

// refusal gives the engine's own words for having no swarm.
func refusal(ctx context.Context, c client.APIClient, command string) error {
	if _, err := c.SwarmInspect(ctx, client.SwarmInspectOptions{}); err != nil {
		return err
	}
	return cli.StatusError{StatusCode: 1, Status: "berth: this build has no '" + command + "'; the engine has swarm mode: use docker stack"}
}
