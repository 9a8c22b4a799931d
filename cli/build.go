package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli-plugins/metadata"
	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/version"
	"github.com/spf13/cobra"

	"berth/cli/build"
	"berth/cli/build/stepshell"
)

// buildHooks are what the commands that build need of us.
func buildHooks(d *command.DockerCli) build.Hooks {
	return build.Hooks{
		Version: version.Version,
		MustBeBerth: func(ctx context.Context, command string) error {
			return newRemote(d.Client()).mustBeBerth(ctx, command)
		},
	}
}

// pluginName is the name by which we are Docker's plugin for builds: the docker command, and Compose, find it in Docker's plugin directories.
const pluginName = "docker-buildx"

// asPlugin makes of a plugin's arguments a command line of ours. docker calls a plugin with its own global flags and the plugin's word,
// Compose with the command alone.
func asPlugin(rest []string) []string {
	if len(rest) > 0 && (rest[0] == "buildx" || rest[0] == "help" || completing(rest)) {
		return rest
	}
	return append([]string{"buildx"}, rest...)
}

// tellPlugin answers docker's question who a plugin is, and reports whether it was asked.
func tellPlugin(args []string) bool {
	if len(args) != 1 || args[0] != metadata.MetadataSubcommandName {
		return false
	}
	text, err := json.Marshal(metadata.Metadata{
		SchemaVersion:    "0.1.0",
		Vendor:           "Berth",
		Version:          build.Compatible,
		ShortDescription: "Berth Buildx",
	})
	if err != nil {
		return false
	}
	fmt.Println(string(text))
	return true
}

// newStepShell is what runs inside a failed step of a build whose files have no shell. Nobody types it.
func newStepShell(d *command.DockerCli) *cobra.Command {
	return &cobra.Command{
		Use:    stepshell.Word,
		Short:  "A small shell for places that have none",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			s := &stepshell.Shell{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Prompt: d.In().IsTerminal()}
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
